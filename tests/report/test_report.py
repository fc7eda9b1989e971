"""The report's page: whole for any rows, nothing from elsewhere, in a real browser narrow and wide, light and dark."""

import html
import re
from pathlib import Path

import numpy as np
import pytest
from browser import Outside, brightness, needs_chromium, see
from conftest import review, write_jsonl
from tested import made

from yelp_lightning.data.datamodule import ReviewDataModule
from yelp_lightning.report.curves import Curve
from yelp_lightning.report.page import write_report
from yelp_lightning.report.rows import Shown, Tested, TestedRows

CURVES = [Curve(f"seed {seed}", {"val/accuracy": {10: 0.5, 20: 0.6 + seed / 100}}) for seed in range(3)]
NAMES = ["bad $x_1$", "中 <b>", "good & dear, a name that is longer than its bar"]
CASES = {
    "stars": {},
    "one row": {"n": 1},
    "one right row": {"n": 1, "skill": 50.0},
    "two rows": {"n": 2},
    "all right": {"skill": 50.0},
    "absent stars": {"absent": [0, 4]},
    "one class": {"absent": [0, 1, 3, 4]},
    "own names": {"classes": 3, "names": NAMES, "ordered": False},
    "no temperature": {"temperature": 1.0},
    "300 classes": {"classes": 300, "ordered": False},
    "300 ordered classes": {"classes": 300, "n": 30},
}


def written(folder: Path, *tested: Tested, rows: TestedRows, **options: object) -> str:
    write_report(folder / "report.html", "Report of <mine>", rows, tested, CURVES, **options)
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("case", CASES)
def test_any_rows_make_a_page_that_stands_alone(case: str, tmp_path: Path) -> None:
    rows, tested = made(**CASES[case])
    page = written(tmp_path, tested, rows=rows)
    outside = Outside(page)
    assert outside.loaded == []
    assert outside.tags["script"] == outside.tags["link"] == outside.tags["img"] == 0
    assert not re.search(r"http|\bsrc=", page)
    assert outside.tags["h1"] == 1
    assert outside.tags["h2"] == 9
    assert outside.tags["caption"] == outside.tags["table"]
    assert outside.tags["svg"] == page.count('role="img" aria-label="')
    assert ("MAE" in outside.text) == rows.ordered
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)
    assert len(page) < 1_000_000


def test_page_shows_what_was_counted(tmp_path: Path) -> None:
    rows, tested = made()
    text = Outside(written(tmp_path, tested, rows=rows)).text
    right = int((tested.measured.logits.argmax(1) == rows.labels).sum())
    assert f"({right} of 400; " in text
    assert f"50 of {400 - right}, the surest first." in text
    for label in range(5):
        of_class = tested.preds[rows.labels == label]
        for predicted in range(5):
            count = int((of_class == predicted).sum())
            assert re.search(rf"\b{count}\s+{100 * count / len(of_class):.0f} %\s", text)
    for seed in range(3):
        assert f"seed {seed}" in text


def test_reviews_are_escaped_and_cut(tmp_path: Path) -> None:
    rows, tested = made(temperature=1.0)
    page = written(tmp_path, tested, rows=rows)
    wrong = np.flatnonzero(tested.preds != rows.labels)
    row = int(max(wrong, key=lambda row: tested.measured.probabilities[row].max()))
    assert f"line {row + 2} of made.csv<blockquote>&lt;script&gt;{row}&lt;/script&gt; so good" in page
    quotes = re.findall(r"<blockquote>(.*?)</blockquote>", page)
    assert len(quotes) >= 50
    assert {len(html.unescape(quote)) for quote in quotes} == {602}
    chances = ", ".join(
        f"{name} {chance:.3f}"
        for name, chance in zip(rows.class_names, tested.measured.probabilities[row], strict=True)
    )
    assert chances in page


def test_several_models_share_a_page(tmp_path: Path) -> None:
    rows, tested = made()
    other = Tested("other & older", made(seed=0, skill=1.0)[1].measured)
    page = written(
        tmp_path, tested, other, rows=rows, sections=[("First & foremost", "<p>what <b>compare</b> found</p>")]
    )
    assert page.index("First &amp; foremost") < page.index("what <b>compare</b> found") < page.index("Findings")
    assert "Measures" not in page
    text = Outside(page).text
    assert "These are of mine." in text
    assert "other & older: temperature 1.50" in text
    assert "accuracy, other & older" in text


def test_ids_of_the_plots_do_not_meet(tmp_path: Path) -> None:
    rows, tested = made()
    page = written(tmp_path, tested, rows=rows)
    plots = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    for plot in plots:
        ids = set(re.findall(r' id="([^"]*)"', plot))
        used = set(re.findall(r'(?:url\(#|xlink:href="#)([^")]*)', plot))
        assert used <= ids
    assert not re.search(r'id="(figure|axes|patch)_', page)


def test_rows_of_a_data_module(tiny_bert: Path, tmp_path: Path) -> None:
    bad = [{"label": 9, "text": "nine"}]
    reviews = [review(number) for number in range(30)]
    source = write_jsonl(tmp_path / "test.jsonl", [*bad, *reviews])
    data = ReviewDataModule(
        str(tiny_bert), source=str(source), max_length=16, on_bad_row="skip", test_size=20,
        cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    data.setup("test")
    rows = TestedRows.of(data, True, np.arange(len(data.tokens["test"])))
    assert rows.class_names == ("1 star", "2 stars", "3 stars", "4 stars", "5 stars")
    chosen = data.reviews.chosen["test"].tolist()
    order = [7, 0, 19, 7]
    expected = [Shown(f"line {chosen[row] + 1} of {source}", str(reviews[chosen[row] - 1]["text"])) for row in order]
    assert rows.shown(order) == expected
    assert rows.shown([]) == []
    assert rows.labels.tolist() == [reviews[number - 1]["label"] for number in chosen]
    assert (rows.truncated == (rows.lengths > 16)).all()
    assert rows.truncated.any()
    assert not rows.truncated.all()


@needs_chromium
@pytest.mark.parametrize("case", ["stars", "own names", "300 classes"])
def test_page_fits_the_window_of_a_real_browser(case: str, tmp_path: Path) -> None:
    rows, tested = made(**CASES[case])
    page = written(tmp_path, tested, rows=rows)
    for width in (1280, 390):
        seen = see(page, width, tmp_path)
        assert seen.width <= width  # nothing to the right of what a reader sees
        assert seen.plots == 5 + rows.ordered
        assert seen.words > 50


@needs_chromium
def test_page_is_light_or_dark_as_the_reader_likes(tmp_path: Path) -> None:
    rows, tested = made()
    written(tmp_path, tested, rows=rows)
    light, dark = (brightness(tmp_path / "report.html", scheme, tmp_path) for scheme in ("light", "dark"))
    assert light > 0.85
    assert dark < 0.25
