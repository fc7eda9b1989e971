"""Tokens: those of the tokenizer, row by row; encoded once; padded as transformers pads them."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from conftest import ROOT, review
from datasets import Dataset
from tiny_bert import write_tiny_bert
from transformers import AutoTokenizer, DataCollatorWithPadding, PreTrainedTokenizerBase

from yelp_lightning.data.tokens import TokenRows, encode
from yelp_lightning.pretrained import load_tokenizer

TEXTS = [
    "good food",
    "",
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


def rows(texts: list[str] = TEXTS) -> Dataset:
    return Dataset.from_dict({"text": texts, "label": [number % 5 for number in range(len(texts))]})


def ids(encoded: TokenRows) -> list[list[int]]:
    return [encoded[row]["input_ids"][0].tolist() for row in range(len(encoded))]


def cached(folder: Path) -> dict[str, int]:
    """Files of the cache and when they were written, nanoseconds."""
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


# --- encoding


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("max_length", [3, MAX_LENGTH, 512])
def test_same_as_the_tokenizer_row_by_row(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, max_length: int, cache: bool
) -> None:
    encoded = encode(rows(), tokenizer, max_length, tmp_path / "deep" / "cache" if cache else None, "train")
    expected = [tokenizer(text, truncation=True, max_length=max_length)["input_ids"] for text in TEXTS]
    assert ids(encoded) == expected
    assert encoded.lengths.tolist() == [len(row) for row in expected]
    assert max(encoded.lengths) == min(max_length, 102)  # 100 words, [CLS] and [SEP]
    assert encoded.labels.tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert (tmp_path / "deep").exists() == cache


def test_many_rows_stay_in_order(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    texts = [str(review(number)["text"]) for number in range(2500)]  # more than a batch of the encoder
    encoded = encode(rows(texts), tokenizer, MAX_LENGTH, tmp_path, "train")
    assert ids(encoded) == [tokenizer(text, truncation=True, max_length=MAX_LENGTH)["input_ids"] for text in texts]
    # As many as were asked for and in that order, when the rows are a selection of others.
    chosen = [2400, 3, 77]
    encoded = encode(rows(texts).select(chosen), tokenizer, MAX_LENGTH, tmp_path, "train")
    assert ids(encoded) == [
        tokenizer(texts[row], truncation=True, max_length=MAX_LENGTH)["input_ids"] for row in chosen
    ]
    assert encoded.labels.tolist() == [0, 3, 2]


def test_embedded_tokenizers_own_padding_and_truncation_are_off() -> None:
    # The file tokenizer.json of MiniLM pads and truncates to 128 tokens by itself.
    encoded = encode(rows(["good", "bad " * 300]), load_tokenizer("embedded"), 256, None, "train")
    assert encoded.lengths.tolist() == [3, 256]


def test_texts_without_labels(tokenizer: PreTrainedTokenizerBase) -> None:
    encoded = encode(rows().remove_columns("label"), tokenizer, MAX_LENGTH, None, "predict")
    assert len(encoded) == len(TEXTS)
    assert encoded.labels.tolist() == [0] * len(TEXTS)


# --- the cache


def test_second_encoding_is_read(tiny_bert: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    first = ids(encode(rows(), tokenizer, MAX_LENGTH, tmp_path, "train"))
    files = cached(tmp_path)
    assert len(files) == 1
    # By a tokenizer that has been used, and by a fresh one; under another name.
    for again in (tokenizer, AutoTokenizer.from_pretrained(tiny_bert)):
        assert ids(encode(rows(), again, MAX_LENGTH, tmp_path, "val")) == first
        assert cached(tmp_path) == files


def other_vocabulary(folder: Path) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(write_tiny_bert(folder))
    tokenizer.add_tokens(["soup"])
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda rows, tokenizer, folder: (rows, tokenizer, MAX_LENGTH + 1), id="max_length"),
        pytest.param(lambda rows, tokenizer, folder: (rows, other_vocabulary(folder), MAX_LENGTH), id="tokenizer"),
        pytest.param(
            lambda rows, tokenizer, folder: (
                rows,
                AutoTokenizer.from_pretrained(tokenizer.name_or_path, truncation_side="left"),
                MAX_LENGTH,
            ),
            id="truncation side",
        ),
        pytest.param(
            lambda rows, tokenizer, folder: (
                Dataset.from_dict({"text": ["Good food", *TEXTS[1:]], "label": rows["label"][:]}),
                tokenizer,
                MAX_LENGTH,
            ),
            id="text",
        ),
        pytest.param(
            lambda rows, tokenizer, folder: (
                Dataset.from_dict({"text": TEXTS, "label": [1, *rows["label"][1:]]}),
                tokenizer,
                MAX_LENGTH,
            ),
            id="label",
        ),
        pytest.param(
            lambda rows, tokenizer, folder: (rows.select([1, 0, *range(2, len(TEXTS))]), tokenizer, MAX_LENGTH),
            id="order",
        ),
        pytest.param(
            lambda rows, tokenizer, folder: (
                Dataset.from_dict({"text": ["good foo", "d", *TEXTS[2:]], "label": rows["label"][:]}),
                tokenizer,
                MAX_LENGTH,
            ),
            id="where a text ends",
        ),
    ],
)
def test_anything_else_is_encoded_anew(
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    change: Callable[..., tuple[Dataset, PreTrainedTokenizerBase, int]],
) -> None:
    cache = tmp_path / "cache"
    encode(rows(), tokenizer, MAX_LENGTH, cache, "train")
    changed_rows, changed_tokenizer, max_length = change(rows(), tokenizer, tmp_path / "other")
    encoded = encode(changed_rows, changed_tokenizer, max_length, cache, "train")
    assert len(cached(cache)) == 2
    expected = [
        changed_tokenizer(text, truncation=True, max_length=max_length)["input_ids"] for text in changed_rows["text"]
    ]
    assert ids(encoded) == expected
    assert encoded.labels.tolist() == changed_rows["label"][:]


MANY = [f"good food number {number}" for number in range(20_000)]
KILLED_WRITER = """
import sys
from pathlib import Path
from datasets import Dataset
from transformers import AutoTokenizer
from yelp_lightning.data.tokens import encode

rows = Dataset.from_dict({"text": [f"good food number {number}" for number in range(20_000)], "label": [0] * 20_000})
encode(rows, AutoTokenizer.from_pretrained(sys.argv[1]), 24, Path(sys.argv[2]), "train")
"""


def test_what_a_killed_writer_leaves_is_not_taken_for_whole(
    tiny_bert: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED_WRITER, str(tiny_bert), str(cache)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    while writer.poll() is None and not (cache.exists() and any(cache.iterdir())):
        time.sleep(0.001)
    writer.kill()
    writer.wait()
    left = cached(cache)
    assert len(left) == 1
    source = Dataset.from_dict({"text": MANY, "label": [0] * len(MANY)})
    encoded = encode(source, tokenizer, MAX_LENGTH, cache, "train")
    assert len(encoded) == len(MANY)
    assert encoded[[len(MANY) - 1]]["input_ids"].tolist() == [tokenizer(MANY[-1])["input_ids"]]
    # The half file was under no name that is ever read: the whole one stands beside it.
    (whole,) = cached(cache).keys() - left.keys()
    assert whole.endswith(".arrow")
    assert not next(iter(left)).endswith(".arrow")


def cut(share: float) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        content = file.read_bytes()
        file.write_bytes(content[: int(share * len(content))])

    return damage


def lose_batches(file: Path) -> None:
    """Leave only the first record batch: a well-formed file with too few rows."""
    with pa.ipc.open_stream(file.read_bytes()) as stream:
        first = stream.read_next_batch()
    with pa.ipc.new_stream(file, first.schema) as stream:
        stream.write_batch(first)


@pytest.mark.parametrize("damage", [cut(0), cut(0.01), cut(0.5), cut(0.99), lose_batches])
def test_a_damaged_file_is_written_again(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    source = rows(MANY[:2500])
    expected = encode(source, tokenizer, MAX_LENGTH, tmp_path, "train")
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.unlink()  # the old one may still be mapped
    file.write_bytes(whole)
    damage(file)
    assert file.read_bytes() != whole
    again = encode(source, tokenizer, MAX_LENGTH, tmp_path, "train")
    assert torch.equal(again.tokens, expected.tokens)
    assert again.lengths.tolist() == expected.lengths.tolist()
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert file.read_bytes() == whole


def test_cache_can_move(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    expected = ids(encode(rows(), tokenizer, MAX_LENGTH, tmp_path / "one", "train"))
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    files = cached(tmp_path / "other")
    assert ids(encode(rows(), tokenizer, MAX_LENGTH, tmp_path / "other", "train")) == expected
    assert cached(tmp_path / "other") == files


# --- batches


@pytest.mark.parametrize("chosen", [[0], [2], [1], [0, 1, 2, 3, 4, 5, 6], [6, 3, 3, 0], [1, 1]])
def test_batch_is_that_of_transformers(tokenizer: PreTrainedTokenizerBase, chosen: list[int]) -> None:
    batch = encode(rows(), tokenizer, MAX_LENGTH, None, "train")[chosen]
    features = [{**tokenizer(TEXTS[row], truncation=True, max_length=MAX_LENGTH), "labels": row % 5} for row in chosen]
    expected = DataCollatorWithPadding(tokenizer)(features)
    assert list(batch) == ["input_ids", "attention_mask", "labels", "row"]
    for name in ("input_ids", "attention_mask", "labels"):
        assert torch.equal(batch[name], expected[name])
        assert batch[name].dtype == expected[name].dtype == torch.int64
    assert torch.equal(batch["row"], torch.tensor(chosen))


def test_the_padding_token_in_a_text_is_seen(tokenizer: PreTrainedTokenizerBase) -> None:
    batch = encode(rows(), tokenizer, MAX_LENGTH, None, "train")[[3, 2]]
    length = len(tokenizer(TEXTS[3])["input_ids"])
    assert (batch["input_ids"][0, :length] == tokenizer.pad_token_id).sum() == 2
    assert batch["attention_mask"][0].tolist() == [1] * length + [0] * (MAX_LENGTH - length)
    assert batch["attention_mask"][1].tolist() == [1] * MAX_LENGTH


def test_another_padding_token(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.pad_token = "[MASK]"
    batch = encode(rows(), tokenizer, MAX_LENGTH, None, "train")[[1, 2]]
    assert set(batch["input_ids"][0, 2:].tolist()) == {tokenizer.mask_token_id}


def test_a_single_number_is_one_row(tokenizer: PreTrainedTokenizerBase) -> None:
    encoded = encode(rows(), tokenizer, MAX_LENGTH, None, "train")
    assert {name: value.tolist() for name, value in encoded[3].items()} == {
        name: value.tolist() for name, value in encoded[[3]].items()
    }
