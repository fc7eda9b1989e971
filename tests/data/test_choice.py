"""Reviews: which rows of a source each split gets, no text or group in two of them, and what is said of the rest."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import review, write_jsonl

from yelp_lightning.data.datamodule import ReviewDataModule
from yelp_lightning.errors import UsageError


@pytest.fixture
def module(tiny_bert: Path, reviews: Path, tmp_path: Path) -> Callable[..., ReviewDataModule]:
    """Make a data module over 200 training and 41 test rows; its cache is the test's own."""

    def make(**options: Any) -> ReviewDataModule:
        defaults = {"source": str(reviews), "max_length": 24, "cache_dir": str(tmp_path / "cache")}
        return ReviewDataModule(pretrained=str(tiny_bert), **(defaults | options))

    return make


def texts(data: ReviewDataModule, split: str) -> list[str]:
    return list(data.reviews.texts(split))


def numbered(numbers: range) -> list[str]:
    return [str(review(number)["text"]) for number in numbers]


def labels(data: ReviewDataModule, split: str) -> list[int]:
    reviews = data.reviews
    reviews.choose(split)
    return reviews.rows[split].labels[reviews.chosen[split]].tolist()


def refusal(module: ReviewDataModule, stage: str) -> str:
    with pytest.raises(UsageError) as refused:
        module.check(stage)
    return str(refused.value)


def write_splits(folder: Path, **splits: list[dict[str, object]]) -> str:
    folder.mkdir(exist_ok=True)
    for name, rows in splits.items():
        write_jsonl(folder / f"{name}.jsonl", rows)
    return str(folder)


# --- which rows


def test_fit_takes_train_alone(module: Callable[..., ReviewDataModule]) -> None:
    data = module()
    train, val = texts(data, "train"), texts(data, "val")
    assert (len(train), len(val)) == (180, 20)
    assert sorted(train + val) == sorted(numbered(range(200)))
    known = {str(review(row)["text"]): review(row)["label"] for row in range(200)}
    assert [known[text] for text in train] == labels(data, "train")
    assert [known[text] for text in val] == labels(data, "val")
    assert sorted(labels(data, "val")) == sorted([0, 1, 2, 3, 4] * 4)


def test_fit_takes_no_embedded_test_review(module: Callable[..., ReviewDataModule]) -> None:
    data = module(source="embedded")
    fit, test = {*texts(data, "train"), *texts(data, "val")}, set(texts(data, "test"))
    assert (len(fit), len(test)) == (520, 130)
    assert not fit & test


def test_own_validation_file_is_taken_whole(module: Callable[..., ReviewDataModule], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [review(number) for number in range(50)])
    write_jsonl(tmp_path / "val.jsonl", [review(number) for number in range(100, 130)])
    data = module(source=str(tmp_path))
    assert texts(data, "train") == numbered(range(50))
    assert texts(data, "val") == numbered(range(100, 130))
    data = module(source=str(tmp_path), train_size=50, val_size=7)
    assert texts(data, "train") == numbered(range(50))
    assert len(texts(data, "val")) == 7
    assert set(texts(data, "val")) < set(numbered(range(100, 130)))


def test_single_file_serves_fit_and_test(module: Callable[..., ReviewDataModule], reviews: Path) -> None:
    data = module(source=str(reviews / "train.jsonl"), val_size=30)
    assert [len(texts(data, split)) for split in ("train", "val", "test")] == [170, 30, 200]


@pytest.mark.parametrize("sampling", ["shuffle", "stratified", "first"])
def test_sizes_and_shares(module: Callable[..., ReviewDataModule], sampling: str) -> None:
    data = module(train_size=100, val_size=0.25, test_size=10, sampling=sampling)
    assert [len(texts(data, split)) for split in ("train", "val", "test")] == [100, 50, 10]
    if sampling == "stratified":
        assert sorted(labels(data, "test")) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    if sampling == "first":
        assert texts(data, "test") == numbered(range(1000, 1010))
        assert texts(data, "train") == numbered(range(100))


def test_another_train_size_leaves_validation_as_it_was(module: Callable[..., ReviewDataModule]) -> None:
    small, large = module(train_size=10), module()
    assert texts(small, "val") == texts(large, "val")
    assert set(texts(small, "train")) < set(texts(large, "train"))


def test_columns_and_offset(module: Callable[..., ReviewDataModule], tmp_path: Path) -> None:
    rows = [{"stars": number % 5 + 1, "body": f"review {number}"} for number in range(20)]
    source = str(write_jsonl(tmp_path / "yelp.jsonl", rows))
    data = module(source=source, text_column="body", label_column="stars", label_offset=1)
    assert texts(data, "test") == [f"review {number}" for number in range(20)]
    assert labels(data, "test") == [number % 5 for number in range(20)]


def test_names_of_classes(
    module: Callable[..., ReviewDataModule], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"label": ["negative", "positive"][number % 2], "text": f"review {number}"} for number in range(20)]
    source = str(write_jsonl(tmp_path / "polarity.jsonl", rows))
    data = module(source=source, num_labels=2, label_names=["negative", "positive"])
    with caplog.at_level(logging.INFO):
        assert labels(data, "test") == [0, 1] * 10
    assert "Labels: 'negative' in column 'label' is negative, 'positive' is positive (data.label_names)" in caplog.text
    assert f"test: 20 of 20 rows of {source}; 10 10 per class" in caplog.text


# --- refused rows

BAD = [{"label": 9, "text": "a"}, {"label": 1, "text": " "}, {"label": 1}, {"text": "b"}]


def test_bad_rows_stop_or_are_left_out(
    module: Callable[..., ReviewDataModule], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [review(number) for number in range(40)]
    source = write_splits(tmp_path / "data", train=[*rows[:10], *BAD, *rows[10:]])
    assert refusal(module(source=source), "fit") == (
        f"`data.source`: 4 of 44 rows of {source}/train.jsonl cannot be used (label outside: 1, empty text: 1, "
        "no text: 1, no label: 1): line 11: 'label' is 9; line 12: 'text' is empty; line 13: 'text' is missing; line "
        "14: 'label' is empty (labels may be whole numbers 0..4 (data.label_offset 0)): mend them, or leave them "
        "out by --data.on_bad_row skip."
    )
    data = module(source=source, on_bad_row="skip")
    with caplog.at_level(logging.INFO):
        data.check("fit")
    assert sorted(texts(data, "train") + texts(data, "val")) == sorted(numbered(range(40)))
    refused = {"label outside": 1, "empty text": 1, "no text": 1, "no label": 1}
    assert data.reviews.summary["train"]["refused"] == refused
    assert "1 refused (label outside), 1 refused (empty text), 1 refused (no text), 1 refused (no label)" in caplog.text
    source = write_splits(tmp_path / "data", train=BAD)
    assert "4 of 4 rows" in refusal(module(source=source, on_bad_row="skip"), "fit")


# --- no text in two splits


def again(number: int, form: str = "{}") -> dict[str, object]:
    """A review again, with another label."""
    return {"label": 0, "text": form.format(review(number)["text"])}


def test_texts_that_are_measured_do_not_train(
    module: Callable[..., ReviewDataModule], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [review(number) for number in range(30)]
    # The same but for white space and the form of letters, twice in one file, and one that validation has too.
    train = [*rows, again(100, " {} \n"), again(101, "{}"), again(101), again(50)]
    val = [review(number) for number in range(50, 55)]
    test = [again(54), *(review(number) for number in range(100, 110))]
    source = write_splits(tmp_path / "data", train=train, validation=val, test=test)
    data = module(source=source)
    with caplog.at_level(logging.INFO):
        data.check("fit")
    assert texts(data, "train") == numbered(range(30))
    assert texts(data, "val") == numbered(range(50, 54))
    assert texts(data, "test") == numbered(range(54, 55)) + numbered(range(100, 110))
    summary = data.reviews.summary
    assert [summary[split]["removed"] for split in ("train", "val", "test")] == [{"text": 4}, {"text": 1}, {}]
    assert summary["train"]["repeated_texts"] == 1
    assert "4 left out: their text or group stands in another split" in caplog.text

    assert refusal(module(source=source, on_duplicate="error"), "fit") == (
        f"`data.on_duplicate` is 'error', and 1 val rows of {source}/validation.jsonl have a text that "
        "other splits have too (rows 5): mend the files, or leave those rows out by --data.on_duplicate remove."
    )
    kept = module(source=source, on_duplicate="keep")
    assert len(texts(kept, "train")) == 34
    assert len(texts(kept, "val")) == 5


def test_repeated_text_is_not_on_both_sides_of_a_cut(module: Callable[..., ReviewDataModule], tmp_path: Path) -> None:
    rows = [{"label": number % 5, "text": f"review {number // 4}"} for number in range(80)]
    data = module(source=write_splits(tmp_path / "data", train=rows))
    train, val = texts(data, "train"), texts(data, "val")
    assert len(val) == 8
    assert not set(train) & set(val)
    assert len(train) == 80 - 8 - data.reviews.summary["train"]["removed"]["text"]
    assert set(train) | set(val) == {f"review {number}" for number in range(20)}


def test_groups_stand_in_one_split(module: Callable[..., ReviewDataModule], tmp_path: Path) -> None:
    def rows(numbers: range) -> list[dict[str, object]]:
        return [review(number) | {"user": f"user {number % 23}"} for number in numbers]

    def users_of(found: list[str]) -> set[int]:
        return {int(text.split(" day ")[1].split()[0]) % 23 for text in found}

    source = write_splits(tmp_path / "data", train=rows(range(200)))
    data = module(source=source, group_column="user")
    users = {split: users_of(texts(data, split)) for split in ("train", "val")}
    assert users["train"] | users["val"] == set(range(23))
    assert not users["train"] & users["val"]
    # Users of test rows do not train either.
    source = write_splits(tmp_path / "data", train=rows(range(200)), test=rows(range(230, 235)))
    data = module(source=source, group_column="user")
    assert not users_of(texts(data, "train")) & {0, 1, 2, 3, 4}
    assert data.reviews.summary["train"]["removed"]["group"] > 0


def test_nothing_left(module: Callable[..., ReviewDataModule], tmp_path: Path) -> None:
    rows = [review(number) for number in range(10)]
    source = write_splits(tmp_path / "data", train=rows, test=rows)
    assert refusal(module(source=source), "fit") == (
        f"`data.source`: all 10 train rows of {source}/train.jsonl have a text that other splits have too, so "
        "none is left: give other rows."
    )


# --- test rows and fit


@pytest.mark.parametrize(
    "test_rows", [[], [{"text": "a", "label": 99}], [{"text": "a"}], [{"words": "a"}], [{"text": None}]]
)
def test_fit_needs_nothing_of_the_test_rows(
    module: Callable[..., ReviewDataModule], tmp_path: Path, test_rows: list[dict[str, object]]
) -> None:
    source = write_splits(tmp_path / "data", train=[review(number) for number in range(50)], test=test_rows)
    expected = module(source=str(Path(source) / "train.jsonl"))
    data = module(source=source)
    for split in ("train", "val"):
        assert texts(data, split) == texts(expected, split)
    with pytest.raises(UsageError, match=r"`data\.(source|text_column|label_column)`"):
        module(source=source).check("test")


def test_broken_test_file_is_said_or_stops(
    module: Callable[..., ReviewDataModule], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_splits(tmp_path / "data", train=[review(number) for number in range(50)])
    (tmp_path / "data" / "test.parquet").write_bytes(b"garbage")
    with caplog.at_level(logging.INFO):
        module(source=source).check("fit")
    assert "warning: test rows were not looked for among the training rows: `data.source`: " in caplog.text
    assert "test.parquet cannot be read as parquet" in caplog.text
    assert "test.parquet cannot be read as parquet" in refusal(module(source=source, on_duplicate="error"), "fit")
    module(source=source, on_duplicate="keep").check("fit")


def test_test_rows_that_were_trained_on_are_counted(
    module: Callable[..., ReviewDataModule], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = module()
    trained.check("fit")
    state = trained.state_dict()
    assert json.loads(state["summary"])["train"]["rows"] == 180
    assert {split: (len(state[split]), state[split].dtype) for split in ("train", "val")} == {
        "train": (180, torch.int64),
        "val": (20, torch.int64),
    }
    held_out = [*(again(number, " {}") for number in range(7)), *(review(number) for number in range(500, 510))]
    source = str(write_jsonl(tmp_path / "held_out.jsonl", held_out))
    data = module(source=source)
    data.restore(str(trained.tokenizer_source), {"ReviewDataModule": state})
    with caplog.at_level(logging.INFO):
        data.check("test")
    assert "warning: 7 of the 17 test rows have a text that the model was trained or chosen on" in caplog.text
    assert data.reviews.summary["test"]["seen_in_training"] == 7
    data = module(source=source, on_duplicate="error")
    data.restore(str(trained.tokenizer_source), {"ReviewDataModule": state})
    assert refusal(data, "test").startswith("`data.on_duplicate` is 'error', and 7 of the 17 test rows have a text")
    assert len(np.unique(trained.reviews.hashes("train"))) == 180


def test_rows_that_changed_since_are_refused(module: Callable[..., ReviewDataModule], tmp_path: Path) -> None:
    rows = [review(number) for number in range(50)]
    source = str(write_jsonl(tmp_path / "reviews.jsonl", rows))
    trained = module(source=source)
    trained.check("fit")
    state = trained.state_dict()
    for stage in ("fit", "validate"):
        again = module(source=source)
        again.restore(str(trained.tokenizer_source), {"ReviewDataModule": state})
        again.check(stage)
    write_jsonl(tmp_path / "reviews.jsonl", rows[::-1])
    for stage, split in (("fit", "train"), ("validate", "val")):
        again = module(source=source)
        again.restore(str(trained.tokenizer_source), {"ReviewDataModule": state})
        assert refusal(again, stage) == (
            f"`data.source` {source!r} no longer holds the {split} rows that the checkpoint had "
            f"({len(state[split])} then, {len(state[split])} now, of other content or order): give the files as they "
            "were, train a new run, or measure other reviews by `test`."
        )


def test_groups_are_the_same_as_numbers_and_as_text(module: Callable[..., ReviewDataModule], tmp_path: Path) -> None:
    train = [review(number) | {"user": number % 30} for number in range(60)]
    # What pandas writes where one is missing.
    test = [review(number) | {"user": float(number % 30)} for number in range(120, 140)] + [
        review(200) | {"user": None}, review(201) | {"user": float("nan")}, review(202) | {"user": " "},
    ]  # fmt: skip
    source = write_splits(tmp_path / "data", train=train, test=test)
    data = module(source=source, group_column="user", on_bad_row="skip")
    data.check("fit")
    data.check("test")
    assert data.reviews.summary["test"]["refused"] == {"no group": 3}
    summary = data.reviews.summary
    assert summary["train"]["removed"]["group"] == 40
    assert summary["train"]["rows"] + summary["val"]["rows"] == 20


@pytest.mark.parametrize("on_duplicate", ["remove", "keep"])
def test_a_share_that_leaves_nothing_to_train_on(
    module: Callable[..., ReviewDataModule], tmp_path: Path, on_duplicate: str
) -> None:
    source = str(write_jsonl(tmp_path / "reviews.jsonl", [review(number) for number in range(20)]))
    assert refusal(module(source=source, val_size=0.99, on_duplicate=on_duplicate), "fit") == (
        "`data.val_size` is 0.99, which leaves no row of 20 to train on: give a smaller share."
    )


def test_same_seed_same_rows(module: Callable[..., ReviewDataModule], tmp_path: Path) -> None:
    # The rows themselves, so that another machine or version that chooses others fails here.
    data = module(train_size=5, val_size=5, seed=7)
    data.check("fit")
    assert data.reviews.chosen["train"].tolist() == [0, 7, 43, 144, 151]
    assert data.reviews.chosen["val"].tolist() == [52, 66, 95, 139, 188]
