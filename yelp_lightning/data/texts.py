"""Texts: what is wrong with one, and when two are the same."""

import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from xxhash import xxh3_64_intdigest

from yelp_lightning.errors import UsageError

# A longer text, bytes, is no review: a file in a cell, or a quote that was closed late.
MAX_TEXT = 1_000_000


def normalize(text: str) -> str:
    """The form in which two texts are the same: Unicode NFKC, white space as single spaces, none at the ends.

    Args:
        text: Any text.

    Returns:
        The normalised text.

    Example:
        >>> normalize(" Ｃafé,  great ") == normalize("Café, great")
        True
    """
    if text.isascii() and text.isprintable() and "  " not in text and text == text.strip():  # most are so already
        return text
    return " ".join((text if text.isascii() else unicodedata.normalize("NFKC", text)).split())


def check_texts(
    values: list[Any] | pa.Array | None, count: int, name: str, where: str
) -> tuple[list[str | None], dict[int, tuple[str, str]]]:
    """Find the texts that cannot be used.

    Args:
        values: The text column, ``(n,)``; None where no row has it.
        count: Rows ``n``.
        name: The column's name.
        where: The table, in words.

    Returns:
        The texts, None where there is none; and row to kind of reason and reason.

    Raises:
        UsageError: If an Arrow column holds no texts at all.
    """
    if isinstance(values, pa.Array):
        if not (pa.types.is_string(values.type) or pa.types.is_null(values.type)):
            raise UsageError(
                f"`data.text_column` {name!r} of {where} holds {values.type}, not text: "
                "name the column with the review by --data.text_column."
            )
        values = values.to_pylist()
    texts: list[str | None] = [None] * count
    problems: dict[int, tuple[str, str]] = {}
    for row, text in enumerate(values or texts):
        if problem := _text_problem(text, name):
            problems[row] = problem
        else:
            texts[row] = text
    return texts, problems


def _text_problem(text: Any, name: str) -> tuple[str, str] | None:
    if text is None:
        return "no text", f"{name!r} is missing"
    if type(text) is not str:
        return "not a text", f"{name!r} is a {type(text).__name__}"
    if not text or text.isspace():
        return "empty text", f"{name!r} is empty"
    if len(text) > MAX_TEXT // 4 and (size := len(text.encode("utf-8", "surrogatepass"))) > MAX_TEXT:
        return "text over 1 MB", f"{name!r} has {size:,} bytes"
    if "\0" in text:
        return "NUL byte", f"{name!r} holds a NUL byte"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return "not UTF-8", f"{name!r} is not UTF-8 at its character {error.start + 1}"
    return None


def text_hashes(texts: Iterable[str | None]) -> npt.NDArray[np.uint64]:
    """What texts are known by: equal for texts that are the same once normalised.

    Args:
        texts: Texts, None where there is none.

    Returns:
        ``(n,)``, 0 where there is none.
    """
    return np.array(
        [0 if text is None else xxh3_64_intdigest(normalize(text).encode("utf-8", "surrogatepass")) for text in texts],
        np.uint64,
    )
