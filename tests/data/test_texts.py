"""Texts: the same once normalised, by a fast path that equals the plain one; and what makes a text unusable."""

import unicodedata
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yelp_lightning.data.texts import MAX_TEXT, check_texts, normalize, text_hashes
from yelp_lightning.errors import UsageError

SPACES = "".join(char for char in map(chr, range(0x110000)) if char.isspace())


def plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())


@settings(max_examples=300)
@given(
    st.text() | st.text("ab " + SPACES) | st.text(st.characters(max_codepoint=127)) | st.text("ﬁé e\u0301Ａ\u00a0 \n")
)
def test_the_fast_path_is_the_plain_one(text: str) -> None:
    assert normalize(text) == plain(text)
    assert normalize(normalize(text)) == normalize(text)


def test_every_character_alone_and_among_others() -> None:
    for char in map(chr, range(0x110000)):
        for text in (char, f"a{char}b", f"a {char}") if ord(char) < 0x3100 else (f"a{char}b",):
            assert normalize(text) == plain(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Ｃafé,  great ", "Café, great"), ("cafe\u0301", "café"), ("a\u00a0b", "a b"), ("a\r\n\tb", "a b"),
     ("ﬁne", "fine"), ("\u3000a", "a"), ("\x1ca", "a"), ("…", "...")],
)  # fmt: skip
def test_texts_that_are_the_same(one: str, other: str) -> None:
    assert normalize(one) == normalize(other)
    first, second = text_hashes([one, other])
    assert first == second


@pytest.mark.parametrize(("one", "other"), [("a", "A"), ("ab", "a b"), ("a", "a."), ("cafe", "café"), ("", "a")])
def test_texts_that_differ(one: str, other: str) -> None:
    assert normalize(one) != normalize(other)
    first, second = text_hashes([one, other])
    assert first != second


@given(st.lists(st.none() | st.text(st.characters(exclude_categories=[]))))
def test_hashes(texts: list[str | None]) -> None:
    hashes = text_hashes(iter(texts))
    assert hashes.dtype == np.uint64
    assert len(hashes) == len(texts)
    for (one, first), (other, second) in zip(
        zip(texts, hashes, strict=True), zip(texts[1:], hashes[1:], strict=True), strict=False
    ):
        same = one is other if one is None or other is None else plain(one) == plain(other)
        assert (first == second) == same
    assert all((value == 0) == (text is None) for text, value in zip(texts, hashes, strict=True))


def test_hashes_are_those_of_every_run() -> None:
    # They stand in checkpoints: a model knows later what it was trained on.
    assert text_hashes(["good food", None, "café"]).tolist() == [16988627392494567995, 0, 5513492080776525439]


# --- what is wrong with a text

BAD = [
    (None, ("no text", "'text' is missing")),
    ("", ("empty text", "'text' is empty")),
    (" \u3000\n", ("empty text", "'text' is empty")),
    (2024, ("not a text", "'text' is a int")),
    (True, ("not a text", "'text' is a bool")),
    ({"a": "b"}, ("not a text", "'text' is a dict")),
    (["a"], ("not a text", "'text' is a list")),
    ("a\0b", ("NUL byte", "'text' holds a NUL byte")),
    ("caf\udce9", ("not UTF-8", "'text' is not UTF-8 at its character 4")),
    ("a\ud83d", ("not UTF-8", "'text' is not UTF-8 at its character 2")),
    ("a" * (MAX_TEXT + 1), ("text over 1 MB", "'text' has 1,000,001 bytes")),
    ("\U0001f355" * (MAX_TEXT // 4 + 1), ("text over 1 MB", "'text' has 1,000,004 bytes")),
    ("a" * 10_000_000, ("text over 1 MB", "'text' has 10,000,000 bytes")),
]


@pytest.mark.parametrize(("text", "problem"), BAD, ids=[f"{kind} {row}" for row, (_, (kind, _)) in enumerate(BAD)])
def test_texts_refused(text: Any, problem: tuple[str, str]) -> None:
    assert check_texts(["a", text, "b"], 3, "text", "a.csv") == (["a", None, "b"], {1: problem})


@pytest.mark.parametrize("text", ["a" * MAX_TEXT, "\U0001f355" * (MAX_TEXT // 4), "NA", ".", "\x01", "🍕", "\ufeff"])
def test_texts_taken(text: str) -> None:
    assert check_texts([text], 1, "text", "a.csv") == ([text], {})
    assert check_texts(pa.array([text]), 1, "text", "a.csv") == ([text], {})


def test_a_column_that_no_row_has() -> None:
    missing = ("no text", "'text' is missing")
    for values in (None, [None, None], pa.nulls(2), pa.array([None, None], pa.string())):
        assert check_texts(values, 2, "text", "a.csv") == ([None, None], {0: missing, 1: missing})
    for values in (None, [], pa.nulls(0)):
        assert check_texts(values, 0, "text", "a.csv") == ([], {})


@pytest.mark.parametrize(
    "values", [pa.array([1]), pa.array([{"a": "b"}]), pa.array([["a"]]), pa.array([b"a"]), pa.array([True])],
    ids=lambda values: str(values.type),
)  # fmt: skip
def test_arrow_column_that_holds_no_texts(values: pa.Array) -> None:
    with pytest.raises(UsageError) as refused:
        check_texts(values, 1, "body", "a.parquet")
    assert str(refused.value) == (
        f"`data.text_column` 'body' of a.parquet holds {values.type}, not text: "
        "name the column with the review by --data.text_column."
    )
