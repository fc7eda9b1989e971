"""The data module: from a source of reviews to batches for fit, validate, test and predict."""

import json
import shutil
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader

from yelp_lightning.data.batching import EvalBatches, TrainBatches, TrainRows
from yelp_lightning.data.inputs import Inputs, read_inputs, texts_of
from yelp_lightning.data.reviews import Reviews
from yelp_lightning.data.rows import OnBadRow
from yelp_lightning.data.splits import OnDuplicate, Sampling
from yelp_lightning.data.tokens import TokenRows, encode, pad_token, write_tokens
from yelp_lightning.data.truncation import Encoder, Truncation
from yelp_lightning.errors import UsageError
from yelp_lightning.files import require_writable
from yelp_lightning.pretrained import load_tokenizer, max_positions
from yelp_lightning.ranges import NonNegativeInt, PositiveInt, RowCount

MAX_CLASSES = 1000
# Splits that each Trainer stage reads. `fit` looks at the texts of test rows only to keep them out of training.
STAGE_SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}


class ReviewDataModule(LightningDataModule):
    r"""Reviews with stars, from any source, tokenized by the model's own tokenizer.

    Args:
        pretrained: Whose tokenizer encodes the reviews; taken from ``model.pretrained``.
        num_labels: Classes; taken from ``model.num_labels``.
        source: A Hub id such as ``Yelp/yelp_review_full``; a csv, tsv, jsonl or parquet file, plain, ``.gz``, ``.zst``
            or in a ``.zip``; a folder or zip with ``train.*`` and, where they exist, ``validation.*`` and ``test.*``; a
            glob of shards; or ``embedded``. A single file or glob serves the command that reads it: training rows for
            fit, test rows for test.
        config_name: Which of the data sets under a Hub id; null means its default.
        revision: Branch, tag or commit of a Hub id; null means its main branch.
        text_column: Column with the review.
        label_column: Column with the label; null reads none, for `--task masked_words`.
        label_offset: Number to subtract from the label column's whole numbers (``4``, ``4.0``, ``4 stars``): 0 for
            labels stored as 0..4, 1 for stars 1..5.
        label_names: Values of the label column in the order of the classes, such as ``[negative, positive]``, instead
            of label_offset; they become the names of the classes. Quote what yaml takes for something else: ``["no",
            "yes"]``, ``["0", "1"]``.
        column_names: Names of the columns of a csv or tsv that has no header line.
        backslash_escapes: Whether ``\n`` and ``\"`` in a csv or tsv stand for a line end and a quote, as in the
            original yelp_review_full_csv.
        on_bad_row: What to do about rows that cannot be used (no text, no label, a label outside, over 1 MB, not
            UTF-8, not a row): ``error`` names the first ten and stops, ``skip`` leaves them out and says how many.
        train_size: Rows to train on, or their share; null means all.
        val_size: Rows to validate on, or their share; they are cut from train, each class in its share, where the
            source has no validation split. null means that split, or a tenth of train (at most 10,000 rows).
        test_size: Rows to test on, or their share; null means all.
        sampling: How rows are chosen: ``shuffle`` takes those of ``datasets``' ``shuffle(seed).select(range(n))``,
            ``stratified`` keeps the share of each class, ``first`` takes the first ones.
        seed: Seed of the choice of rows and of the order of batches.
        group_column: Column that names whose reviews they are, a user or a business: no group stands in two splits.
        on_duplicate: What to do about training rows whose text (in Unicode NFKC, white space aside) or group also
            stands among validation or test rows: ``remove`` leaves them out and says how many, ``error`` stops,
            ``keep`` does not look.
        max_length: Longest review, tokens, special ones included. At most the encoder's own limit (512 for BERT).
        truncation: What a longer review keeps: its ``head``, its ``tail``, or ``head_tail``, of 512 tokens the first
            128 and the last 382 (Sun et al. 2019).
        batch_size: Reviews per device per optimizer step before accumulation.
        pad_to_multiple_of: The length that a batch is padded to is a multiple of this, in tokens; 1 pads to its longest
            review. With 32, there are few lengths, for which less memory is set aside.
        eval_tokens: Tokens per device and evaluation batch, padding included; null means
            ``batch_size`` times ``max_length``.
        num_workers: Processes per device that prepare batches; 0 prepares them in the main process, which is fast
            enough, since reviews are tokenized once before.
        num_proc: Processes that tokenize; one uses all cores of a small machine by itself.
        predict_path: Reviews for predict: a csv, tsv, jsonl, parquet or txt file (one review a line), or ``-`` for
            standard input (one review a line).
        id_column: Column of ``predict_path`` to carry into the predictions; null takes ``id`` or ``review_id`` where
            there is one.
        cache_dir: Folder of the token cache; ``data --clear-cache`` empties it.
    """

    def __init__(
        self,
        pretrained: str = "embedded",
        num_labels: PositiveInt = 5,
        source: str = "embedded",
        config_name: str | None = None,
        revision: str | None = None,
        text_column: str = "text",
        label_column: str | None = "label",
        label_offset: int = 0,
        label_names: list[str] | None = None,
        column_names: list[str] | None = None,
        backslash_escapes: bool = False,
        on_bad_row: OnBadRow = "error",
        train_size: RowCount | None = None,
        val_size: RowCount | None = None,
        test_size: RowCount | None = None,
        sampling: Sampling = "shuffle",
        seed: NonNegativeInt = 42,
        group_column: str | None = None,
        on_duplicate: OnDuplicate = "remove",
        max_length: PositiveInt = 512,
        truncation: Truncation = "head",
        batch_size: PositiveInt = 8,
        pad_to_multiple_of: PositiveInt = 1,
        eval_tokens: PositiveInt | None = None,
        num_workers: NonNegativeInt = 0,
        num_proc: PositiveInt = 1,
        predict_path: str | None = None,
        id_column: str | None = None,
        cache_dir: str = "~/.cache/yelp_lightning",
    ) -> None:
        super().__init__()
        # predict_path belongs to one command, not to the run that a checkpoint remembers.
        self.save_hyperparameters(ignore=["predict_path"])
        self.predict_path = predict_path
        self.tokenizer_source = pretrained
        self.reviews = Reviews(self.hparams)
        """Rows of train, validation and test."""
        self.inputs: Inputs | None = None
        """What is to be predicted."""
        self.tokens: dict[str, TokenRows] = {}
        """Encoded rows of each split, from ``setup`` on."""
        self._start = (0, 0)
        self._spool: Path | None = None

    def restore(self, ckpt_path: str, checkpoint: dict[str, Any]) -> None:
        """Take the tokenizer from a checkpoint, not from ``pretrained``; remember what it was trained on, and how far.

        Args:
            ckpt_path: A ``.ckpt`` file that ``fit`` wrote.
            checkpoint: Its content.
        """
        self.tokenizer_source = ckpt_path
        if state := checkpoint.get(type(self).__qualname__):
            self.reviews.seen = {split: state[split].numpy().view(np.uint64) for split in ("train", "val")}
        if place := checkpoint.get("resume"):
            self._start = place["epoch"], sys.maxsize if place["trained"] else place["batches"]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: which texts it was trained and chosen on, as hashes, and the summary of the data."""
        texts = {split: torch.from_numpy(self.reviews.hashes(split).view(np.int64)) for split in ("train", "val")}
        return {**texts, "summary": json.dumps(self.reviews.summary)}

    def predict_texts(self, texts: list[str]) -> None:
        """Predict these texts instead of ``predict_path``.

        Args:
            texts: The reviews.

        Raises:
            UsageError: If one holds bytes that are not UTF-8.
        """
        try:
            self.inputs = texts_of(texts, self._spool_folder())
        except UnicodeEncodeError as error:
            raise UsageError(f"`--text` is not UTF-8 at its character {error.start + 1}: write it in UTF-8.") from error

    def check(self, stage: str, devices: int = 1) -> None:
        """Read a stage's rows and check every option against them; nothing is tokenized yet.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.
            devices: How many share the rows.

        Raises:
            UsageError: If an option, a file or a row is wrong.
        """
        if self.hparams["num_labels"] < 2:
            raise UsageError("`model.num_labels` is 1, but a classifier needs classes: give at least 2.")
        if self.hparams["num_labels"] > MAX_CLASSES:
            raise UsageError(
                f"`model.num_labels` is {self.hparams['num_labels']}, but at most {MAX_CLASSES} classes are supported: "
                "give fewer."
            )
        columns = {name: self.hparams[name] for name in ("text_column", "label_column", "group_column")}
        for name, column in columns.items():
            if name != "text_column" and column is not None and column == columns["text_column"]:
                raise UsageError(
                    f"`data.text_column` and `data.{name}` are both {column!r}: name the column of the reviews and "
                    "the other one."
                )
        limit = max_positions(self.tokenizer_source)
        max_length = self.hparams["max_length"]
        if not 3 <= max_length <= limit:
            raise UsageError(
                f"`data.max_length` is {max_length}, but {self.hparams['pretrained']} takes 3 to {limit} tokens: "
                f"give at {'least 3' if max_length < 3 else f'most {limit}'}."
            )
        multiple = self.hparams["pad_to_multiple_of"]
        if -(-max_length // multiple) * multiple > limit:
            raise UsageError(
                f"`data.pad_to_multiple_of` is {multiple}, to which {max_length} tokens would be padded beyond the "
                f"{limit} that {self.hparams['pretrained']} takes: give a --data.max_length that it divides."
            )
        if stage != "predict":
            require_writable(self.reviews.cache_dir, "data.cache_dir")
        for split in STAGE_SPLITS[stage]:
            self.choose(split)
            if stage in ("fit", "validate"):
                self.reviews.require_same(split)
            rows = self.inputs.count if self.inputs and split == "predict" else len(self.reviews.chosen[split])
            self._require_rows(split, rows, devices)

    def train_batches(self, devices: int = 1, accumulate: int = 1) -> int:
        """Training batches of an epoch, per device, before anything is tokenized.

        Args:
            devices: How many share the rows.
            accumulate: Batches of an optimizer step.

        Returns:
            Their number.
        """
        rows = self.reviews.chosen["train"], self.hparams["batch_size"], self.hparams["seed"]
        return len(TrainBatches(*rows, world_size=devices, accumulate=accumulate))

    def choose(self, split: str) -> None:
        """Read a split's table and choose its rows, unless that is done already.

        Args:
            split: ``train``, ``val``, ``test`` or ``predict``.

        Raises:
            UsageError: If the source, a row or an option is wrong.
        """
        if split == "predict":
            if self.inputs is None:
                if self.predict_path is None:
                    raise UsageError("`predict` needs --data.predict_path FILE (or - for standard input), or --text.")
                names = self.predict_path, self.hparams["text_column"], self.hparams["id_column"]
                self.inputs = read_inputs(*names, self.reviews.layout, self._spool_folder())
        else:
            self.reviews.choose(split)

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
            if split not in self.tokens:
                self.choose(split)
                self.tokens[split] = self._encode_inputs() if split == "predict" else self._encode(split)
                self.tokens[split].multiple = self.hparams["pad_to_multiple_of"]
            self._require_rows(split, len(self.tokens[split]), self.trainer.world_size if self.trainer else 1)

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Training batches of this device: ``input_ids``, ``attention_mask``, ``labels``, ``row``, ``weight``."""
        tokens = self.tokens["train"]
        rows = tokens.lengths, self.hparams["batch_size"], self.hparams["seed"]
        accumulate = self.trainer.accumulate_grad_batches if self.trainer else 1
        return self._loader(TrainRows(tokens), TrainBatches(*rows, *self._place(), accumulate, self._start))

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Validation batches of this device, keys as in training but for ``weight``."""
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Test batches of this device, keys as in validation."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches to predict of this device, keys as in validation; the labels mean nothing."""
        return self._eval_loader("predict")

    def _require_rows(self, split: str, rows: int, devices: int) -> None:
        if rows < devices:
            raise UsageError(
                f"`--trainer.devices`: there are {devices} devices for {rows} {split} row{'' if rows == 1 else 's'}: "
                "use at most as many devices as rows."
            )

    # --- tokens

    def _encode(self, split: str) -> TokenRows:
        reviews = self.reviews
        tokens = encode(
            reviews.rows[split], reviews.chosen[split], load_tokenizer(self.tokenizer_source),
            self.hparams["max_length"], self.hparams["truncation"], self.hparams["num_proc"], reviews.cache_dir, split,
        )  # fmt: skip
        truncated = tokens.truncated / len(tokens)
        reviews.summary[split] |= {"tokens": int(tokens.lengths.sum()), "truncated": truncated}
        rank_zero_info(
            f"{split}: {reviews.summary[split]['tokens']:,} tokens; {truncated:.1%} of the reviews are longer than "
            f"{self.hparams['max_length']} and keep their {self.hparams['truncation'].replace('_', ' and ')}"
        )
        return tokens

    def _encode_inputs(self) -> TokenRows:
        """Texts to be predicted are their owner's: their tokens go to a file that is removed with this object."""
        assert self.inputs is not None
        tokenizer = load_tokenizer(self.tokenizer_source)
        encoder = Encoder(tokenizer, self.hparams["max_length"], self.hparams["truncation"])
        count = self.inputs.count
        path = self._spool_folder() / "tokens.arrow"
        with path.open("wb") as file:
            numbers, labels = np.arange(count, dtype=np.int32), np.zeros(count, np.int16)
            write_tokens(file, self.inputs.table, numbers, labels, encoder, self.hparams["num_proc"], "new")
        return TokenRows(path, pad_token(tokenizer))

    def _spool_folder(self) -> Path:
        if self._spool is None:
            self._spool = Path(tempfile.mkdtemp(prefix="yelp_lightning."))
            weakref.finalize(self, shutil.rmtree, self._spool, ignore_errors=True)
        return self._spool

    # --- batches

    @property
    def eval_tokens(self) -> int:
        """Most tokens of an evaluation batch, padding included."""
        return int(self.hparams["eval_tokens"] or self.hparams["batch_size"] * self.hparams["max_length"])

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _eval_loader(self, split: str) -> DataLoader[dict[str, Tensor]]:
        tokens = self.tokens[split]
        return self._loader(tokens, EvalBatches(tokens.lengths, self.eval_tokens, *self._place()))

    def _loader(
        self, tokens: TokenRows | TrainRows, batches: TrainBatches | EvalBatches
    ) -> DataLoader[dict[str, Tensor]]:
        # With batch_size=None the sampler's lists of rows go to the data set whole, and Lightning finds the sampler's
        # set_epoch where it looks for it.
        workers = self.hparams["num_workers"]
        return DataLoader(tokens, sampler=batches, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
