"""The data module: from a source of reviews to batches for fit, validate, test and predict."""

from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from yelp_lightning.data.batching import EvalBatches, TrainBatches
from yelp_lightning.data.reviews import has_split, read_reviews, read_texts
from yelp_lightning.data.splits import Sampling, cut_validation, subsample
from yelp_lightning.data.tokens import TokenRows, encode
from yelp_lightning.errors import UsageError
from yelp_lightning.files import require_writable
from yelp_lightning.pretrained import load_tokenizer, max_positions
from yelp_lightning.ranges import NonNegativeInt, PositiveInt

if TYPE_CHECKING:
    from datasets import Dataset

# Splits that each Trainer stage reads; `fit` never reads test.
STAGE_SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}


class ReviewDataModule(LightningDataModule):
    """Reviews with stars, from any source, tokenized by the model's own tokenizer.

    Args:
        pretrained: Whose tokenizer encodes the reviews; taken from ``model.pretrained``.
        num_labels: Classes; taken from ``model.num_labels``.
        source: A Hub id such as ``Yelp/yelp_review_full``; a csv, tsv, jsonl or parquet file; a folder with
            ``train.*`` and, where they exist, ``validation.*`` and ``test.*``; or ``embedded``. A single file serves
            the command that reads it: training rows for fit, test rows for test.
        text_column: Column with the review.
        label_column: Column with the stars, whole numbers.
        label_offset: Number to subtract from the label column: 0 for labels stored as 0..4, 1 for stars 1..5.
        train_size: Rows to train on; null means all.
        val_size: Rows to validate on; they are cut from train where the source has no validation split. null means
            that split, or a tenth of train (at most 10,000 rows).
        test_size: Rows to test on; null means all.
        sampling: How rows are chosen: ``shuffle`` takes those of ``datasets``' ``shuffle(seed).select(range(n))``,
            ``stratified`` keeps the share of each star.
        seed: Seed of the choice of rows and of the order of batches.
        max_length: Longest review, tokens, special ones included; longer ones lose their end. At most the
            encoder's own limit (512 for BERT).
        batch_size: Reviews per device per optimizer step before accumulation.
        eval_tokens: Tokens per device and evaluation batch, padding included; null means
            ``batch_size`` times ``max_length``.
        num_workers: Processes per device that prepare batches; 0 prepares them in the main process, which is fast
            enough, since reviews are tokenized once before.
        predict_path: Reviews for predict: a csv, tsv, jsonl, parquet or txt file (one review a line), or ``-`` for
            standard input (one review a line).
        id_column: Column of ``predict_path`` to carry into the predictions; null takes ``id`` or ``review_id`` where
            there is one.
        cache_dir: Folder of the token cache.
    """

    def __init__(
        self,
        pretrained: str = "embedded",
        num_labels: PositiveInt = 5,
        source: str = "embedded",
        text_column: str = "text",
        label_column: str = "label",
        label_offset: int = 0,
        train_size: PositiveInt | None = None,
        val_size: PositiveInt | None = None,
        test_size: PositiveInt | None = None,
        sampling: Sampling = "shuffle",
        seed: NonNegativeInt = 42,
        max_length: PositiveInt = 512,
        batch_size: PositiveInt = 8,
        eval_tokens: PositiveInt | None = None,
        num_workers: NonNegativeInt = 0,
        predict_path: str | None = None,
        id_column: str | None = None,
        cache_dir: str = "~/.cache/yelp_lightning",
    ) -> None:
        super().__init__()
        # predict_path belongs to one command, not to the run that a checkpoint remembers.
        self.save_hyperparameters(ignore=["predict_path"])
        self.predict_path = predict_path
        self.tokenizer_source = pretrained
        self.id_column: str | None = None
        self._rows: dict[str, Dataset] = {}
        self._tokens: dict[str, TokenRows] = {}

    def restore(self, ckpt_path: str) -> None:
        """Take the tokenizer from a checkpoint instead of ``pretrained``.

        Args:
            ckpt_path: A ``.ckpt`` file that ``fit`` wrote.
        """
        self.tokenizer_source = ckpt_path

    def predict_texts(self, texts: list[str]) -> None:
        """Predict these texts instead of ``predict_path``.

        Args:
            texts: The reviews.

        Raises:
            UsageError: If one holds bytes that are not UTF-8.
        """
        from datasets import Dataset

        try:
            self._rows["predict"] = Dataset.from_dict({"text": texts})
        except UnicodeEncodeError as error:
            raise UsageError(f"`--text` is not UTF-8 at its character {error.start + 1}: write it in UTF-8.") from error

    def check(self, stage: str) -> None:
        """Read a stage's rows and check every option against them; nothing is tokenized yet.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            UsageError: If an option, a file or a row is wrong.
        """
        if self.hparams["text_column"] == self.hparams["label_column"]:
            raise UsageError(
                f"`data.text_column` and `data.label_column` are both {self.hparams['text_column']!r}: "
                "name the column of the reviews and that of their stars."
            )
        if self.hparams["num_labels"] < 2:
            raise UsageError("`model.num_labels` is 1, but a classifier needs classes: give at least 2.")
        limit = max_positions(self.tokenizer_source)
        max_length = self.hparams["max_length"]
        if not 3 <= max_length <= limit:
            raise UsageError(
                f"`data.max_length` is {max_length}, but {self.hparams['pretrained']} takes 3 to {limit} tokens: "
                f"give at {'least 3' if max_length < 3 else f'most {limit}'}."
            )
        for split in STAGE_SPLITS[stage]:
            if split not in self._tokens:
                self.rows(split)
        if stage != "predict":
            require_writable(Path(self.hparams["cache_dir"]).expanduser(), "data.cache_dir")

    def rows(self, split: str) -> "Dataset":
        """The chosen rows of a split, with their texts.

        Args:
            split: ``train``, ``val``, ``test`` or ``predict``.

        Returns:
            Data set with ``text`` and, except for ``predict``, ``label``.

        Raises:
            UsageError: If the source or an option is wrong.
        """
        if split not in self._rows:
            if split in ("train", "val"):
                self._rows["train"], self._rows["val"] = self._train_and_val()
            elif split == "test":
                self._rows["test"] = self._subsample(self._read("test"), "test_size")
            else:
                if self.predict_path is None:
                    raise UsageError("`predict` needs --data.predict_path FILE (or - for standard input), or --text.")
                self._rows["predict"], self.id_column = read_texts(
                    self.predict_path, self.hparams["text_column"], self.hparams["id_column"]
                )
        return self._rows[split]

    def prepare_data(self) -> None:
        """Fill the token cache, in one process per machine."""
        assert self.trainer is not None
        assert self.trainer.state.fn is not None
        self.setup(self.trainer.state.fn)

    def setup(self, stage: str) -> None:
        """Tokenize the stage's rows, or find them in the token cache.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            UsageError: If there are fewer rows than devices.
        """
        for split in STAGE_SPLITS[stage]:
            if split not in self._tokens:
                # Texts to be predicted are their owner's: they are never kept.
                cache_dir = None if split == "predict" else Path(self.hparams["cache_dir"]).expanduser()
                tokenizer = load_tokenizer(self.tokenizer_source)
                rows = self.rows(split)
                self._tokens[split] = encode(rows, tokenizer, self.hparams["max_length"], cache_dir, split)
                if split != "predict":  # its ids are still needed
                    del self._rows[split]
            devices = self.trainer.world_size if self.trainer else 1
            if len(self._tokens[split]) < devices:
                raise UsageError(
                    f"`--trainer.devices`: there are {devices} devices for {len(self._tokens[split])} {split} rows: "
                    "use at most as many devices as rows."
                )

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Training batches of this device: ``input_ids``, ``attention_mask``, ``labels``, ``row``."""
        tokens = self._tokens["train"]
        batches = TrainBatches(tokens.lengths, self.hparams["batch_size"], self.hparams["seed"], *self._place())
        return self._loader(tokens, batches)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Validation batches of this device, keys as in training."""
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Test batches of this device, keys as in training."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches to predict of this device, keys as in training; the labels mean nothing."""
        return self._eval_loader("predict")

    def _train_and_val(self) -> "tuple[Dataset, Dataset]":
        train = self._read("train")
        if has_split(self.hparams["source"], "validation"):
            val = self._subsample(self._read("validation"), "val_size")
            return self._subsample(train, "train_size"), val
        sizes = self.hparams["train_size"], self.hparams["val_size"]
        return cut_validation(train, *sizes, self.hparams["sampling"], self.hparams["seed"])

    def _read(self, split: str) -> "Dataset":
        names = "source", "text_column", "label_column", "label_offset", "num_labels"
        source, text_column, label_column, label_offset, num_labels = (self.hparams[name] for name in names)
        return read_reviews(source, split, text_column, label_column, label_offset, num_labels)

    def _subsample(self, rows: "Dataset", size: str) -> "Dataset":
        return subsample(rows, self.hparams[size], self.hparams["sampling"], self.hparams["seed"], f"data.{size}")

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _eval_loader(self, split: str) -> DataLoader[dict[str, Tensor]]:
        tokens = self._tokens[split]
        budget = self.hparams["eval_tokens"] or self.hparams["batch_size"] * self.hparams["max_length"]
        return self._loader(tokens, EvalBatches(tokens.lengths, budget, *self._place()))

    def _loader(self, tokens: TokenRows, batches: TrainBatches | EvalBatches) -> DataLoader[dict[str, Tensor]]:
        # With batch_size=None the sampler's lists of rows go to the data set whole, and Lightning finds the sampler's
        # set_epoch where it looks for it.
        workers = self.hparams["num_workers"]
        return DataLoader(tokens, sampler=batches, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
