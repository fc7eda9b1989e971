"""The data module: which rows each command reads, what its batches are, what it refuses before it tokenizes."""

import gc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import review, write_jsonl
from lightning.pytorch import LightningModule, Trainer
from transformers import AutoTokenizer

from yelp_lightning.data.datamodule import ReviewDataModule
from yelp_lightning.data.rows import Table
from yelp_lightning.errors import UsageError

MAX_LENGTH = 24


@pytest.fixture
def module(tiny_bert: Path, reviews: Path, tmp_path: Path) -> Callable[..., ReviewDataModule]:
    """Make a data module over 200 training and 41 test rows; its cache is the test's own."""

    def make(**options: Any) -> ReviewDataModule:
        defaults = {"source": str(reviews), "max_length": MAX_LENGTH, "cache_dir": str(tmp_path / "cache")}
        return ReviewDataModule(pretrained=str(tiny_bert), **(defaults | options))

    return make


def refusal(module: ReviewDataModule, stage: str) -> str:
    with pytest.raises(UsageError) as refused:
        module.check(stage)
    return str(refused.value)


def batches(module: ReviewDataModule, split: str) -> list[dict[str, torch.Tensor]]:
    return list(getattr(module, f"{split}_dataloader")())


# --- batches


@pytest.mark.parametrize(("stage", "split", "count"), [("fit", "train", 180), ("fit", "val", 20), ("test", "test", 41)])
def test_batches(module: Callable[..., ReviewDataModule], tiny_bert: Path, stage: str, split: str, count: int) -> None:
    data = module(batch_size=8)
    texts = list(data.reviews.texts(split))
    labels = {str(review(row)["text"]): review(row)["label"] for row in [*range(200), *range(1000, 1041)]}
    data.setup(stage)
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    seen = []
    for batch in batches(data, split):
        weight = batch.pop("weight", None)
        assert (weight is not None) == (split == "train")
        assert list(batch) == ["input_ids", "attention_mask", "labels", "row"]
        assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
        size, tokens = batch["input_ids"].shape
        assert size <= (8 if split == "train" else 8 * MAX_LENGTH // tokens)
        assert batch["attention_mask"].shape == (size, tokens)
        assert batch["labels"].shape == batch["row"].shape == (size,)
        assert int(batch["attention_mask"].sum(1).max()) == tokens <= MAX_LENGTH
        for row, label, ids, mask in zip(
            batch["row"].tolist(), batch["labels"].tolist(), batch["input_ids"], batch["attention_mask"], strict=True
        ):
            assert label == labels[texts[row]]
            expected = tokenizer(texts[row], truncation=True, max_length=MAX_LENGTH)["input_ids"]
            assert ids[mask.bool()].tolist() == expected
        seen += batch["row"].tolist()
    assert sorted(seen) == list(range(count))


def test_evaluation_budget(module: Callable[..., ReviewDataModule]) -> None:
    for options, budget in (({"batch_size": 4}, 4 * MAX_LENGTH), ({"batch_size": 4, "eval_tokens": 40}, 40)):
        data = module(**options)
        data.setup("test")
        shapes = [batch["input_ids"].shape for batch in batches(data, "test")]
        assert max(rows * tokens for rows, tokens in shapes) <= budget
        assert max(rows * tokens for rows, tokens in shapes) > budget - MAX_LENGTH


def test_worker_processes_prepare_the_same_batches(module: Callable[..., ReviewDataModule]) -> None:
    found = []
    for workers in (0, 1):
        data = module(num_workers=workers)
        data.setup("fit")
        found.append(batches(data, "train"))
    for one, other in zip(*found, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


class Recorder(LightningModule):
    """Notes the rows that a real Trainer hands it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[list[int]]] = {"train": [], "val": [], "test": []}

    def note(self, stage: str, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        self.seen[stage].append(batch["row"].tolist())
        return self.weight * 1

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.note("train", batch)

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        self.note("val", batch)

    def test_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        self.note("test", batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(**options: Any) -> Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(accelerator="cpu", use_distributed_sampler=False, **(quiet | options))


def test_a_trainer_sees_every_row_once_an_epoch_in_another_order(module: Callable[..., ReviewDataModule]) -> None:
    seen = []
    for _ in range(2):
        recorder, data = Recorder(), module(batch_size=8)
        trainer(max_epochs=2, num_sanity_val_steps=0).fit(recorder, data)
        steps = recorder.seen["train"]
        assert len(steps) == 2 * 23  # 180 rows by 8
        epochs = [[row for batch in steps[start : start + 23] for row in batch] for start in (0, 23)]
        assert [sorted(epoch) for epoch in epochs] == [list(range(180))] * 2
        assert epochs[0] != epochs[1]
        assert sorted(row for batch in recorder.seen["val"] for row in batch) == sorted([*range(20)] * 2)
        trainer().test(recorder, data, verbose=False)
        assert sorted(row for batch in recorder.seen["test"] for row in batch) == list(range(41))
        seen.append(recorder.seen)
    assert seen[0] == seen[1]


def test_second_module_reads_the_cache(
    module: Callable[..., ReviewDataModule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module().setup("fit")
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.arrow")}
    # The rows of train, the texts of test, the tokens of train and val.
    assert Counter(path.name.partition("-")[0] for path in files) == {"rows": 2, "tokens": 2}
    # Nothing is parsed again.
    monkeypatch.delattr(Table, "chunks")
    module(batch_size=3).setup("fit")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.arrow")} == files


def test_cache_in_the_home_folder(
    module: Callable[..., ReviewDataModule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    module(cache_dir="~/own").setup("test")
    assert len(list((tmp_path / "own").glob("*.arrow"))) == 2


# --- predict


def test_predict(module: Callable[..., ReviewDataModule], tmp_path: Path) -> None:
    rows = [{"review_id": f"r{number}", "text": str(review(number)["text"])} for number in range(30)]
    data = module(predict_path=str(write_jsonl(tmp_path / "in.jsonl", rows)))
    data.check("predict")
    data.setup("predict")
    assert data.inputs is not None
    assert data.inputs.id_column == "review_id"
    assert data.inputs.ids is not None
    assert data.inputs.ids.to_pylist() == [row["review_id"] for row in rows]
    assert (data.inputs.count, data.inputs.blank) == (30, 0)
    assert sorted(row for batch in batches(data, "predict") for row in batch["row"].tolist()) == list(range(30))
    # Other people's texts are never kept, and their file is no option of the run.
    assert not (tmp_path / "cache").exists()
    assert "predict_path" not in data.hparams
    spool = data.tokens["predict"].path.parent
    assert spool.is_dir()
    del data
    gc.collect()
    assert not spool.exists()


def test_predict_texts(module: Callable[..., ReviewDataModule], tiny_bert: Path) -> None:
    data = module()
    data.predict_texts(["good food", ""])
    data.check("predict")
    data.setup("predict")
    found = {int(batch["row"]): batch["input_ids"][0].tolist() for batch in batches(data, "predict")}
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    assert [found[row] for row in (0, 1)] == tokenizer(["good food", ""])["input_ids"]
    assert data.inputs is not None
    assert (data.inputs.id_column, data.inputs.blank) == (None, 1)


# --- what is refused, before anything is tokenized


@pytest.mark.parametrize(
    ("stage", "options", "sentence"),
    [
        ("fit", {"max_length": 513}, "`data.max_length` is 513, but {bert} takes 3 to 512 tokens: give at most 512."),
        ("fit", {"max_length": 2}, "`data.max_length` is 2, but {bert} takes 3 to 512 tokens: give at least 3."),
        ("test", {"max_length": 999}, "`data.max_length` is 999, but {bert} takes 3 to 512 tokens: give at most 512."),
        ("predict", {"max_length": 1}, "`data.max_length` is 1, but {bert} takes 3 to 512 tokens: give at least 3."),
        ("fit", {"train_size": 181}, "`data.train_size` is 181, but the data hold only 180 rows beside the 20 for "
         "validation: give at most 180, or leave the option out."),
        ("fit", {"label_names": ["bad", "good"]}, "`data.label_names` are 2 (bad, good), but `model.num_labels` is 5: "
         "give as many names as classes, or --model.num_labels 2."),
        ("fit", {"group_column": "text"}, "`data.text_column` and `data.group_column` are both 'text': name the column "
         "of the reviews and the other one."),
        ("fit", {"group_column": "user"}, "`data.group_column` is 'user', but {source}/train.jsonl has the columns "
         "['label', 'text']: name the right one with --data.group_column."),
        ("fit", {"revision": "main"}, "`data.revision` is 'main', but `data.source` '{source}' lies on this machine, "
         "where only a Hub id has one: leave --data.revision out."),
        ("fit", {"val_size": 200}, "`data.val_size` is 200, but the data hold only 199 rows beside one to train on: "
         "give at most 199, or leave the option out."),
        ("test", {"test_size": 42}, "`data.test_size` is 42, but the data hold only 41 rows: give at most 41, "
         "or leave the option out."),
        ("predict", {}, "`predict` needs --data.predict_path FILE (or - for standard input), or --text."),
        ("fit", {"text_column": "txt"}, "`data.text_column` is 'txt', but {source}/train.jsonl has the columns "
         "['label', 'text'] (did you mean 'text'?): name the right one with --data.text_column."),
        ("fit", {"num_labels": 3}, "`data.source`: 80 of 200 rows of {source}/train.jsonl cannot be used (label "
         "outside: 80): line 4: 'label' is 3; line 5: 'label' is 4; line 9: 'label' is 3; line 10: 'label' is 4; "
         "line 14: 'label' is 3; line 15: 'label' is 4; line 19: 'label' is 3; line 20: 'label' is 4; line 24: 'label' "
         "is 3; line 25: 'label' is 4; ... (labels may be whole numbers 0..2 (data.label_offset 0)): mend them, or "
         "leave them out by --data.on_bad_row skip."),
        ("fit", {"num_labels": 1001}, "`model.num_labels` is 1001, but at most 1000 classes are supported: give "
         "fewer."),
        ("fit", {"source": "no.csv"}, "`data.source` is 'no.csv', but there is no such file or folder: give an "
         "existing one, a Hub id such as Yelp/yelp_review_full, or embedded."),
        ("predict", {"predict_path": "no.csv"}, "`--data.predict_path` is 'no.csv', which is no file: give a csv, tsv, "
         "jsonl, parquet or txt file, or - for standard input."),
    ],
)  # fmt: skip
def test_check(
    module: Callable[..., ReviewDataModule],
    tiny_bert: Path,
    reviews: Path,
    tmp_path: Path,
    stage: str,
    options: dict[str, Any],
    sentence: str,
) -> None:
    assert refusal(module(**options), stage) == sentence.format(bert=tiny_bert, source=reviews)
    assert not list((tmp_path / "cache").glob("tokens-*"))


@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_check_tokenizes_nothing(module: Callable[..., ReviewDataModule], tmp_path: Path, stage: str) -> None:
    for max_length in (3, 512):
        module(max_length=max_length).check(stage)
    assert list((tmp_path / "cache").glob("tokens-*")) == []


def test_check_needs_a_writable_cache(module: Callable[..., ReviewDataModule], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"`data.cache_dir` is .* which cannot be written to"):
        module(cache_dir=str(tmp_path / "file" / "cache")).check("fit")


def test_own_validation_file_with_too_few_rows(module: Callable[..., ReviewDataModule], tmp_path: Path) -> None:
    for start, name in enumerate(("train", "validation")):
        write_jsonl(tmp_path / f"{name}.jsonl", [review(5 * start + number) for number in range(5)])
    sentence = "is 6, but the data hold only 5 rows: give at most 5, or leave the option out."
    assert refusal(module(source=str(tmp_path), val_size=6), "fit") == f"`data.val_size` {sentence}"
    assert refusal(module(source=str(tmp_path), train_size=6), "fit") == f"`data.train_size` {sentence}"


def test_one_row_cannot_fit(module: Callable[..., ReviewDataModule], tmp_path: Path) -> None:
    source = str(write_jsonl(tmp_path / "one.jsonl", [review(0)]))
    assert refusal(module(source=source), "fit").startswith("`data.source` holds 1 row to train on")
    module(source=source).check("test")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_fewer_rows_than_devices(module: Callable[..., ReviewDataModule], split: str) -> None:
    data = module(**{f"{split}_size": 2})
    data.trainer = trainer(devices=3, strategy="ddp")
    data.trainer.strategy.set_world_ranks()  # as its launcher does in each process
    assert data.trainer.world_size == 3
    with pytest.raises(UsageError) as refused:
        data.setup("test" if split == "test" else "fit")
    assert str(refused.value) == (
        f"`--trainer.devices`: there are 3 devices for 2 {split} rows: use at most as many devices as rows."
    )


def test_each_device_gets_its_part(module: Callable[..., ReviewDataModule]) -> None:
    data = module(test_size=3, batch_size=8)
    data.trainer = trainer(devices=3, strategy="ddp")
    data.trainer.strategy.set_world_ranks()
    data.setup("fit")
    data.setup("test")
    # 180 rows by 8 on each of 3 devices: 7 full steps, and one that shares 12 rows.
    assert sorted(len(batch["row"]) for batch in batches(data, "train")) == [4] + [8] * 7
    assert [len(batch["row"]) for batch in batches(data, "test")] == [1]


def test_text_of_another_encoding(module: Callable[..., ReviewDataModule]) -> None:
    with pytest.raises(UsageError) as refused:
        module().predict_texts(["fine", "caf\udce9"])  # as Python reads a latin-1 argument
    assert str(refused.value) == "`--text` is not UTF-8 at its character 4: write it in UTF-8."
