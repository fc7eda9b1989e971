"""Labels: each value has its class by a rule that is said, or none; the same for Python's values and Arrow's."""

from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yelp_lightning.data.labels import LabelMap
from yelp_lightning.errors import UsageError


def classes(values: Any, num_labels: int = 5, offset: int = 0, names: list[str] | None = None) -> list[int]:
    found = LabelMap("stars", num_labels, offset, names).classes(values)
    assert found.dtype == np.int16
    return found.tolist()


@pytest.mark.parametrize(
    ("value", "offset", "label"),
    [
        ("4", 0, 4), ("4.0", 0, 4), ("4.", 0, 4), (" 4 ", 0, 4), ("-0", 0, 0), ("1", 1, 0), ("5", 1, 4),
        ("5.00", 1, 4), ("-2", -2, 0), ("4 stars", 1, 3), ("1 star", 1, 0), ("1.0 Star", 1, 0), ("5  STARS\n", 1, 4),
        (4, 0, 4), (4.0, 0, 4), (-0.0, 0, 0), (1, 1, 0), (5.0, 1, 4), (Decimal("4.00"), 0, 4), (Decimal(5), 1, 4),
    ],
)  # fmt: skip
def test_whole_numbers(value: Any, offset: int, label: int) -> None:
    assert classes([value], offset=offset) == [label]


@pytest.mark.parametrize(
    "value",
    [
        "5", "6", "-1", "4.5", "nan", "inf", "-inf", "NA", "five", "stars", "4stars!", "4 5", "", " ", "true", "0x1",
        "1e0", "+", "9" * 30, "9" * 400, "4\0", "\udce9", 5, 6, -1, 4.5, float("nan"), float("inf"), -float("inf"),
        None, True, False, 1e300, 2**62, -(2**63), 10**400, Decimal("4.50"), Decimal("NaN"), [4], {"stars": 4}, b"4",
    ],
)  # fmt: skip
def test_what_has_no_class(value: Any) -> None:
    assert classes([4, value, "0", value]) == [4, -1, 0, -1]


def test_equal_values_of_other_types_are_kept_apart() -> None:
    # To a dict 1, 1.0 and True are the same.
    assert classes([1, True, 1.0, "1", Decimal(1), False, 0]) == [1, -1, 1, 1, 1, -1, 0]


@pytest.mark.parametrize("num_labels", [2, 5, 10])
@pytest.mark.parametrize("offset", [0, 1, -1])
def test_number_of_classes(num_labels: int, offset: int) -> None:
    values = list(range(offset - 1, offset + num_labels + 1))
    expected = [-1, *range(num_labels), -1]
    assert classes(values, num_labels, offset) == expected
    assert classes([str(value) for value in values], num_labels, offset) == expected
    assert classes(pa.array(values), num_labels, offset) == expected
    label_map = LabelMap("stars", num_labels, offset)
    assert label_map.allowed == f"whole numbers {offset}..{offset + num_labels - 1} (data.label_offset {offset})"


@pytest.mark.parametrize(
    "kind",
    [pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.decimal128(21, 2), pa.string(), pa.large_string()],
    ids=str,
)
def test_arrow_columns(kind: pa.DataType) -> None:
    values = pa.array([4, 0, None, 4, 6]).cast(kind)
    assert classes(values) == [4, 0, -1, 4, -1]
    assert classes(values[1:4]) == [0, -1, 4]
    assert classes(values[:0]) == []
    assert classes(values.to_pylist()) == [4, 0, -1, 4, -1]


@pytest.mark.parametrize(
    "values",
    [pa.array([[4], [1]]), pa.array([{"a": 4}, None]), pa.nulls(2), pa.array([True, False]), pa.array([b"4", b"1"]),
     pa.array([1, 2], pa.timestamp("s")), pa.array([1, 2], pa.duration("s")), pa.array([1, 2], pa.time32("s"))],
    ids=lambda values: str(values.type),
)  # fmt: skip
def test_arrow_columns_that_hold_no_labels(values: pa.Array) -> None:
    assert classes(values) == [-1, -1]


@given(st.lists(st.none() | st.text() | st.integers(-9, 9).map(str) | st.sampled_from(["1 star", "4 stars", "2.0"])))
def test_arrow_and_python_agree_on_texts(values: list[str | None]) -> None:
    assert classes(pa.array(values, pa.string())) == classes(values)


@given(st.lists(st.none() | st.floats() | st.integers(-9, 9).map(float)))
def test_arrow_and_python_agree_on_numbers(values: list[float | None]) -> None:
    found = classes(values)
    assert classes(pa.array(values, pa.float64())) == found
    whole = [value is not None and value in (0, 1, 2, 3, 4) for value in values]
    assert [label >= 0 for label in found] == whole


# --- names

MOODS = ["negative", "positive"]


def test_names() -> None:
    values = ["positive", " negative\n", "Positive", "", None, 1, True, float("nan")]
    assert classes(values, 2, names=MOODS) == [1, 0, -1, -1, -1, -1, -1, -1]
    assert classes(pa.array(["positive", None, "negative"]), 2, names=MOODS) == [1, -1, 0]
    assert LabelMap("mood", 2, names=MOODS).allowed == "'negative', 'positive' (data.label_names)"


def test_names_that_look_like_numbers() -> None:
    # 1.0 is how json and parquet may store the 1 of a csv.
    values = ["1", "0", 1, 0.0, Decimal("1.00"), Decimal(0), True, 0.5]
    assert classes(values, 2, names=["1", "0"]) == [0, 1, 0, 1, 0, 1, -1, -1]


def test_no_value_is_no_name() -> None:
    assert classes([None, "None", float("nan"), "nan"], 2, names=["None", "nan"]) == [-1, 0, -1, 1]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["a"], "`data.label_names` are 1 (a), but `model.num_labels` is 2: give as many names as classes, or "
                "--model.num_labels 1."),
        (["a", "b", "c"], "`data.label_names` are 3 (a, b, c), but `model.num_labels` is 2: give as many names as "
                          "classes, or --model.num_labels 3."),
        (["a", "a"], "`data.label_names` are ['a', 'a'], but must be different texts without space at their ends: "
                     "mend them."),
        (["a", " b"], "`data.label_names` are ['a', ' b'], but must be different texts without space at their ends: "
                      "mend them."),
        (["a", ""], "`data.label_names` are ['a', ''], but must be different texts without space at their ends: "
                    "mend them."),
    ],
)  # fmt: skip
def test_names_refused(names: list[str], sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        LabelMap("mood", 2, names=names)
    assert str(refused.value) == sentence


def test_names_beside_an_offset() -> None:
    with pytest.raises(UsageError) as refused:
        LabelMap("mood", 2, 1, MOODS)
    assert str(refused.value) == (
        "`data.label_offset` is 1 beside data.label_names, which say what each value means: leave one out."
    )


# --- words


def test_what_was_decided_is_said() -> None:
    stars = [f"{number} stars" for number in range(1, 6)]
    assert LabelMap("stars", 5, 1).describe(stars) == (
        "Labels: 1 in column 'stars' is 1 stars, 5 is 5 stars (data.label_offset 1)"
    )
    assert LabelMap("mood", 2, names=MOODS).describe(MOODS) == (
        "Labels: 'negative' in column 'mood' is negative, 'positive' is positive (data.label_names)"
    )


@pytest.mark.parametrize(
    ("value", "problem"),
    [(None, ("no label", "'stars' is empty")), ("", ("no label", "'stars' is empty")),
     (" \n", ("no label", "'stars' is empty")), (6, ("label outside", "'stars' is 6")),
     ("6\n", ("label outside", "'stars' is '6\\n'")), (float("nan"), ("label outside", "'stars' is nan")),
     ("a" * 99, ("label outside", f"'stars' is '{'a' * 39}..."))],
)  # fmt: skip
def test_why_a_value_has_no_class(value: Any, problem: tuple[str, str]) -> None:
    assert LabelMap("stars", 5).problem(value) == problem
