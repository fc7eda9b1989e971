"""Tokens: those of the tokenizer, row by row; encoded once; padded as transformers pads them."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import ROOT, review
from tiny_bert import write_tiny_bert
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, DataCollatorWithPadding, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from yelp_lightning.data.datafile import DataFile
from yelp_lightning.data.labels import LabelMap
from yelp_lightning.data.rows import Rows, Table, scan
from yelp_lightning.data.tokens import BATCH_ROWS, SCHEMA, TokenRows, encode
from yelp_lightning.data.truncation import Encoder, Truncation
from yelp_lightning.pretrained import load_tokenizer

TEXTS = [
    "good food",
    "bad",
    "bad " * 100,
    "the soup [SEP] was [PAD] cold [PAD]",
    "café 🍕\n日本",
    "unbelievably-overpriced!!!",
    "a",
]
MAX_LENGTH = 24


@pytest.fixture
def tokenizer(tiny_bert: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_bert)


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., Rows]:
    """Rows of a file of texts whose labels count up."""

    def make(texts: list[str] = TEXTS, name: str = "reviews.jsonl", labels: list[int] | None = None) -> Rows:
        labels = [number % 5 for number in range(len(texts))] if labels is None else labels
        lines = (json.dumps({"text": text, "label": label}) for text, label in zip(texts, labels, strict=True))
        (tmp_path / name).write_text("".join(line + "\n" for line in lines))
        return scan(Table((DataFile(tmp_path / name),), "text", "label"), LabelMap("label", 5), None, "train")

    return make


def encoded(
    rows: Rows, tokenizer: PreTrainedTokenizerBase, cache: Path, max_length: int = MAX_LENGTH,
    truncation: Truncation = "head", num_proc: int = 1, chosen: list[int] | None = None,
) -> TokenRows:  # fmt: skip
    numbers = np.arange(len(rows)) if chosen is None else np.array(chosen)
    return encode(rows, numbers, tokenizer, max_length, truncation, num_proc, cache, "train")


def ids(tokens: TokenRows) -> list[list[int]]:
    return [tokens[row]["input_ids"][0].tolist() for row in range(len(tokens))]


def cached(folder: Path) -> dict[str, int]:
    """Files of the cache and when they were written, nanoseconds."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.arrow")}


# --- encoding


@pytest.mark.parametrize("max_length", [3, MAX_LENGTH, 512])
def test_same_as_the_tokenizer_row_by_row(
    rows: Callable[..., Rows], tokenizer: PreTrainedTokenizerBase, tmp_path: Path, max_length: int
) -> None:
    tokens = encoded(rows(), tokenizer, tmp_path / "deep" / "cache", max_length)
    expected = [tokenizer(text, truncation=True, max_length=max_length)["input_ids"] for text in TEXTS]
    assert ids(tokens) == expected
    assert tokens.lengths.tolist() == [len(row) for row in expected]
    assert tokens.full_lengths.tolist() == [len(tokenizer(text, truncation=False)["input_ids"]) for text in TEXTS]
    assert max(tokens.lengths) == min(max_length, 102)  # 100 words, [CLS] and [SEP]
    assert tokens.labels.tolist() == [0, 1, 2, 3, 4, 0, 1]


def test_what_the_file_holds(rows: Callable[..., Rows], tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    path = encoded(rows(), tokenizer, tmp_path / "cache", chosen=[1, 2, 6]).path
    table = pa.ipc.open_file(path.read_bytes()).read_all()
    assert table.schema == SCHEMA
    assert table.schema.field("input_ids").type == pa.list_(pa.int32())
    expected = [tokenizer(TEXTS[row], truncation=True, max_length=MAX_LENGTH)["input_ids"] for row in (1, 2, 6)]
    assert table.to_pydict() == {
        "input_ids": expected,
        "length": [3, MAX_LENGTH, 3],
        "full_length": [3, 102, 3],
        "label": [1, 2, 1],
        "row": [1, 2, 6],
    }


@pytest.mark.parametrize("num_proc", [1, 2])
def test_many_rows_stay_in_order(
    rows: Callable[..., Rows], tokenizer: PreTrainedTokenizerBase, tmp_path: Path, num_proc: int
) -> None:
    texts = [str(review(number)["text"]) for number in range(2 * BATCH_ROWS + 100)]
    expected = tokenizer(texts, truncation=True, max_length=MAX_LENGTH)["input_ids"]
    tokens = encoded(rows(texts), tokenizer, tmp_path / "cache", num_proc=num_proc)
    assert ids(tokens) == expected
    chosen = [0, 3, 77, BATCH_ROWS, 2 * BATCH_ROWS + 99]
    tokens = encoded(rows(texts), tokenizer, tmp_path / "cache", num_proc=num_proc, chosen=chosen)
    assert ids(tokens) == [expected[row] for row in chosen]
    assert tokens.labels.tolist() == [row % 5 for row in chosen]


def test_embedded_tokenizers_own_padding_and_truncation_are_off(rows: Callable[..., Rows], tmp_path: Path) -> None:
    # The file tokenizer.json of MiniLM pads and truncates to 128 tokens by itself.
    tokens = encoded(rows(["good", "bad " * 300]), load_tokenizer("embedded"), tmp_path / "cache", 256)
    assert tokens.lengths.tolist() == [3, 256]
    assert tokens.full_lengths.tolist() == [3, 302]


def test_tokenizer_without_special_tokens(rows: Callable[..., Rows], tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "good": 2, "food": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    (found, blank), _ = Encoder(tokenizer, 3, "tail")(["bad good good food", "  "])
    assert (found, blank) == ([2, 2, 3], [])
    tokens = encoded(rows(["good food", "food"]), tokenizer, tmp_path / "cache", 3)
    assert ids(tokens) == [[2, 3], [3]]


# --- the cache


def test_second_encoding_is_read(
    rows: Callable[..., Rows], tiny_bert: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    source, cache = rows(), tmp_path / "cache"
    first = ids(encoded(source, tokenizer, cache))
    files = cached(cache)
    assert len(files) == 1
    # Without reading a text again; by a tokenizer that has been used, and by a fresh one.
    monkeypatch.delattr(Table, "texts")
    for again in (tokenizer, AutoTokenizer.from_pretrained(tiny_bert)):
        assert ids(encoded(source, again, cache)) == first
        assert cached(cache) == files


def other_vocabulary(folder: Path) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(write_tiny_bert(folder))
    tokenizer.add_tokens(["soup"])
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("change", [{"max_length": MAX_LENGTH + 1}, {"truncation": "tail"}, {"chosen": [0, 1, 2]}])
def test_other_options_are_encoded_anew(
    rows: Callable[..., Rows], tokenizer: PreTrainedTokenizerBase, tmp_path: Path, change: dict[str, Any]
) -> None:
    cache = tmp_path / "cache"
    encoded(rows(), tokenizer, cache)
    tokens = encoded(rows(), tokenizer, cache, **change)
    assert len(cached(cache)) == 2
    encoder = Encoder(tokenizer, change.get("max_length", MAX_LENGTH), change.get("truncation", "head"))
    assert ids(tokens) == encoder(TEXTS)[0][: len(change.get("chosen", TEXTS))]


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (["Good food", *TEXTS[1:]], None),
        (TEXTS, [1, 1, 2, 3, 4, 0, 1]),
        ([TEXTS[1], TEXTS[0], *TEXTS[2:]], None),
        (["good foo", "d", *TEXTS[2:]], None),
    ],
    ids=["text", "label", "order", "where a text ends"],
)
def test_other_rows_are_encoded_anew(
    rows: Callable[..., Rows], tokenizer: PreTrainedTokenizerBase, tmp_path: Path, texts: list[str],
    labels: list[int] | None,
) -> None:  # fmt: skip
    cache = tmp_path / "cache"
    encoded(rows(), tokenizer, cache)
    other = rows(texts, labels=labels)
    tokens = encoded(other, tokenizer, cache)
    assert len(cached(cache)) == 2
    assert ids(tokens) == Encoder(tokenizer, MAX_LENGTH, "head")(texts)[0]
    assert tokens.labels.tolist() == other.labels.tolist()


def test_another_tokenizer_encodes_anew(
    rows: Callable[..., Rows], tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    encoded(rows(), tokenizer, tmp_path / "cache")
    other = other_vocabulary(tmp_path / "other")
    tokens = encoded(rows(), other, tmp_path / "cache")
    assert len(cached(tmp_path / "cache")) == 2
    assert ids(tokens) == Encoder(other, MAX_LENGTH, "head")(TEXTS)[0]


def test_other_label_options_do_not_hit(
    rows: Callable[..., Rows], tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    table = rows(labels=[1, 1, 2, 3, 4, 1, 1]).table
    for offset in (0, 1):
        found = scan(table, LabelMap("label", 5, offset), tmp_path / "cache", "train")
        tokens = encoded(found, tokenizer, tmp_path / "cache")
        assert tokens.labels.tolist() == [label - offset for label in (1, 1, 2, 3, 4, 1, 1)]


MANY = [f"good food number {number}" for number in range(20_000)]
WRITER = """
import sys
from pathlib import Path
import numpy as np
from transformers import AutoTokenizer
from yelp_lightning.data.datafile import DataFile
from yelp_lightning.data.labels import LabelMap
from yelp_lightning.data.rows import Table, scan
from yelp_lightning.data.tokens import encode

rows = scan(Table((DataFile(Path(sys.argv[2])),), "text", "label"), LabelMap("label", 5), None, "train")
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
tokens = encode(rows, np.arange(len(rows)), tokenizer, 24, "head", 1, Path(sys.argv[3]), "train")
print(len(tokens), int(tokens.lengths.sum()), flush=True)
"""


def writer(tiny_bert: Path, source: Rows, cache: Path) -> subprocess.Popen[str]:
    """A process that is about to encode; a line on its standard input starts it."""
    file = str(source.table.files[0])
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tiny_bert), file, str(cache)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_what_a_killed_writer_leaves_is_not_taken_for_whole(
    rows: Callable[..., Rows], tiny_bert: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    cache, source = tmp_path / "cache", rows(MANY)
    process = writer(tiny_bert, source, cache)
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    while process.poll() is None and not list(cache.glob(".*.tmp")):
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert cached(cache) == {}
    assert len(list(cache.glob(".*.tmp"))) == 1
    tokens = encoded(source, tokenizer, cache)
    assert len(tokens) == len(MANY)
    assert tokens[[len(MANY) - 1]]["input_ids"].tolist() == [tokenizer(MANY[-1])["input_ids"]]
    # What the killed one left is gone.
    assert list(cache.glob(".*.tmp")) == []
    assert len(cached(cache)) == 1


def test_two_that_start_together_write_once(rows: Callable[..., Rows], tiny_bert: Path, tmp_path: Path) -> None:
    cache, source = tmp_path / "cache", rows(MANY)
    processes = [writer(tiny_bert, source, cache) for _ in range(2)]
    names: set[str] = set()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    while any(process.poll() is None for process in processes):
        names |= {path.name for path in cache.glob(".*.tmp")}
        time.sleep(0.001)
    outputs = {process.communicate()[0] for process in processes}
    assert len(outputs) == 1
    assert outputs.pop().startswith("20000 ")
    assert len(names) == 1  # one temporary file: the other process waited
    assert len(cached(cache)) == 1


def cut(share: float) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        content = file.read_bytes()
        file.write_bytes(content[: int(share * len(content))])

    return damage


@pytest.mark.parametrize("damage", [cut(0), cut(0.01), cut(0.5), cut(0.99)])
def test_a_damaged_file_is_written_again(
    rows: Callable[..., Rows], tokenizer: PreTrainedTokenizerBase, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    source, cache = rows(MANY[:2500]), tmp_path / "cache"
    expected = ids(encoded(source, tokenizer, cache))
    (file,) = cache.glob("*.arrow")
    whole = file.read_bytes()
    file.unlink()  # the old one may still be mapped
    file.write_bytes(whole)
    damage(file)
    assert file.read_bytes() != whole
    assert ids(encoded(source, tokenizer, cache)) == expected
    assert list(cached(cache)) == [file.name]
    assert file.read_bytes() == whole


def test_cache_can_move(rows: Callable[..., Rows], tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    expected = ids(encoded(rows(), tokenizer, tmp_path / "one"))
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    files = cached(tmp_path / "other")
    assert ids(encoded(rows(), tokenizer, tmp_path / "other")) == expected
    assert cached(tmp_path / "other") == files


# --- batches


@pytest.mark.parametrize("chosen", [[0], [2], [1], [0, 1, 2, 3, 4, 5, 6], [6, 3, 3, 0], [1, 1]])
def test_batch_is_that_of_transformers(
    rows: Callable[..., Rows], tmp_path: Path, tokenizer: PreTrainedTokenizerBase, chosen: list[int]
) -> None:
    batch = encoded(rows(), tokenizer, tmp_path)[chosen]
    features = [{**tokenizer(TEXTS[row], truncation=True, max_length=MAX_LENGTH), "labels": row % 5} for row in chosen]
    expected = DataCollatorWithPadding(tokenizer)(features)
    assert list(batch) == ["input_ids", "attention_mask", "labels", "row"]
    for name in ("input_ids", "attention_mask", "labels"):
        assert torch.equal(batch[name], expected[name])
        assert batch[name].dtype == expected[name].dtype == torch.int64
    assert torch.equal(batch["row"], torch.tensor(chosen))


def test_the_padding_token_in_a_text_is_seen(
    rows: Callable[..., Rows], tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    batch = encoded(rows(), tokenizer, tmp_path)[[3, 2]]
    length = len(tokenizer(TEXTS[3], truncation=False)["input_ids"])
    assert (batch["input_ids"][0, :length] == tokenizer.pad_token_id).sum() == 2
    assert batch["attention_mask"][0].tolist() == [1] * length + [0] * (MAX_LENGTH - length)
    assert batch["attention_mask"][1].tolist() == [1] * MAX_LENGTH


def test_another_padding_token(rows: Callable[..., Rows], tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.pad_token = "[MASK]"
    batch = encoded(rows(), tokenizer, tmp_path)[[1, 2]]
    assert set(batch["input_ids"][0, 3:].tolist()) == {tokenizer.mask_token_id}


def test_a_single_number_is_one_row(
    rows: Callable[..., Rows], tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    tokens = encoded(rows(), tokenizer, tmp_path)
    assert {name: value.tolist() for name, value in tokens[3].items()} == {
        name: value.tolist() for name, value in tokens[[3]].items()
    }
