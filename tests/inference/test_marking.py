"""Marking: the screen with and without colour, a page that loads and runs nothing, and the command that shows them."""

import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from yelp_lightning.inference.explanation import Explanation, Word
from yelp_lightning.inference.marking import page, print_marked

NASTY = 'Good <script>alert("1")</script> & \x1b[31mbad\x1b[0m soup,\nnot read at all'


def explanation(text: str = NASTY, **changes: object) -> Explanation:
    parts = {"Good": 1.0, "script": 0.3, "bad": -0.8, "soup": 0.001}
    words = [Word(text.index(name), text.index(name) + len(name), part) for name, part in parts.items() if name in text]
    values: dict[str, object] = {
        "text": text, "names": ["1 star", "2 <stars>", "3 stars"], "words": words, "unread_words": 4,
        "probabilities": np.array([0.2, 0.7, 0.1], np.float32), "unread": (text.find("not"), len(text)),
        "logit": 1.5, "baseline": "[MASK]", "baseline_logit": 1.0, "steps": 32,
    }  # fmt: skip
    return Explanation(**{**values, **changes})


def show(capfd: pytest.CaptureFixture[str], found: Explanation) -> str:
    capfd.readouterr()
    print_marked(found)
    return capfd.readouterr().out


# --- the screen


def test_the_screen_says_it_without_colour(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = show(capfd, explanation())
    assert "\x1b" not in shown  # neither ours nor the review's own
    assert max(map(len, shown.splitlines())) <= 80
    assert 'Good <script>alert("1")</script> & �[31mbad�[0m soup,\nnot read at all' in shown
    rows = [line.split() for line in shown.splitlines() if re.match(r"[+-]\d\.\d\d ", line)]
    assert rows == [["+1.00", "Good", "-0.80", "bad"], ["+0.30", "script"]]
    said = " ".join(shown.split())
    assert "The logit of 2 <stars> is +1.50, and with [MASK] in place of every token +1.00." in said
    assert "by 32 steps" not in said
    assert "in 32 steps: all parts add up to the difference, but for 0.0010." in said
    assert "longer than data.max_length: 4 of 8 words and punctuation marks, from “not” to “all”." in said


def test_a_terminal_has_colour(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    shown = show(capfd, explanation())
    assert "\x1b[1;32mGood\x1b[0m" in shown
    assert "\x1b[1;4;31mbad\x1b[0m" in shown
    assert "\x1b[32mscript\x1b[0m" in shown
    assert "soup\x1b" not in shown  # too weak to be marked
    assert "\x1b[2mnot read at all\x1b[0m" in shown


def test_inexact_numbers_are_no_secret(capfd: pytest.CaptureFixture[str]) -> None:
    assert "take them with care" not in show(capfd, explanation())
    shown = show(capfd, explanation(logit=1.6))
    assert "but for 0.0990, which is more than 1% of it and 0.001: take them with care." in " ".join(shown.split())


def test_a_review_without_words(capfd: pytest.CaptureFixture[str]) -> None:
    found = explanation(" \n", words=[], unread=None, unread_words=0)
    assert "There is no word in it: the prediction means nothing." in show(capfd, found)
    assert "There is no word in it" in page(found)


def test_long_words_stay_in_their_column(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = "a" * 300 + "\n" + "b" * 300
    words = [Word(0, 300, 1.0), Word(300, 301, 0.5), Word(301, 601, -0.5)]
    shown = show(capfd, explanation(text, words=words, unread=None, unread_words=0))
    assert re.search(rf"^\+1\.00 {'a' * 23}… +-0\.50 {'b' * 23}…\s*$", shown, re.MULTILINE)
    assert re.search(r"^\+0\.50 ↵\s*$", shown, re.MULTILINE)


# --- the page


class Reader(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.review, self.marks, self.inside = "", [], []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.inside.append((tag, dict(attrs)))
        assert not {"src", "href"} & set(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if any(tag == "blockquote" for tag, _ in self.inside):
            self.review += data
            tag, attributes = self.inside[-1]
            if tag != "blockquote":
                self.marks.append((data, attributes["class"], attributes.get("style")))


def test_the_page_has_the_review_and_its_marks() -> None:
    text = page(explanation())
    read = Reader(text)
    assert read.review == NASTY
    assert read.marks == [
        ("Good", "for", "--strength: 0.60"),
        ("script", "for", "--strength: 0.18"),
        ("bad", "against", "--strength: 0.48"),
        ("not read at all", "unread", None),
    ]
    assert "2 &lt;stars&gt;" in text
    assert "color-scheme: light dark" in text


def test_the_page_loads_and_runs_nothing() -> None:
    text = page(explanation())
    assert not re.search(r"https?:|//|@import|url\(|<script|<link|<img|onload", text)
    assert "script" not in Reader(text).tags


# --- the command


def test_explain_is_the_same_with_and_without_lightning(
    trained: Path, cli: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    shown = []
    for options in (["--explain"], ["--explain", "true"], ["--explain=true", "--trainer.devices", 1]):
        capfd.readouterr()
        cli("predict", "--ckpt_path", trained, *options, "--text", "the pizza was amazing, the staff rude")
        shown.append(capfd.readouterr().out)
    assert shown[0] == shown[1] == shown[2]
    assert re.match(r"\d stars?  \(expected \d\.\d\d\)\n  1 star ", shown[0])
    assert "the pizza was amazing, the staff rude\n" in shown[0]
    assert "\x1b" not in shown[0]


def test_explain_can_be_switched_off(
    trained: Path, cli: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    cli("predict", "--ckpt_path", trained, "--text", "good food", "--explain", "false")
    assert "logit" not in capfd.readouterr().out


def test_typed_options_of_the_data_win(
    trained: Path, cli: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    cli("predict", "--ckpt_path", trained, "--text", "good food and bad soup", "--explain", "--data.max_length", 4)
    assert "3 of 5 words and punctuation marks, from “and” to “soup”" in capfd.readouterr().out


@pytest.mark.parametrize("options", [[], ["--trainer.devices", "1"]], ids=["without Lightning", "with Lightning"])
def test_a_page_is_written(trained: Path, cli: Callable[..., None], tmp_path: Path, options: list[str]) -> None:
    path = tmp_path / "folder" / "why.html"
    cli("predict", "--ckpt_path", trained, "--text", "good food", "--explain", "--output", path, *options)
    assert Reader(path.read_text(encoding="utf-8")).review == "good food"
    assert [file.name for file in path.parent.iterdir()] == ["why.html"]


def test_explain_needs_one_text(refused: Callable[..., str], trained: Path, tmp_path: Path) -> None:
    sentence = "`--explain` is for one review, but --text is not given: give the review by --text."
    assert refused("predict", "--ckpt_path", trained, "--explain") == sentence
    (tmp_path / "in.txt").write_text("good\n", encoding="utf-8")
    found = refused("predict", "--ckpt_path", trained, "--data.predict_path", tmp_path / "in.txt", "--explain", "true")
    assert found == sentence


@pytest.mark.parametrize("options", [[], ["--trainer.devices", "1"]], ids=["without Lightning", "with Lightning"])
def test_what_explain_refuses(refused: Callable[..., str], trained: Path, tmp_path: Path, options: list[str]) -> None:
    common = ["predict", "--ckpt_path", trained, "--text", "good", *options]
    (tmp_path / "why.html").write_text("mine", encoding="utf-8")
    found = refused(*common, "--explain", "--output", tmp_path / "p.csv")
    assert found.startswith(f"`--output` is '{tmp_path / 'p.csv'}', but `--explain` writes a page: give a name that ")
    assert "exists already" in refused(*common, "--explain", "--output", tmp_path / "why.html")
    assert (tmp_path / "why.html").read_text(encoding="utf-8") == "mine"
    found = refused(*common, "--explain", "perhaps")
    assert found == "`--explain` is 'perhaps', but must be true or false: give such a value."


def test_explain_imports_no_lightning(trained: Path) -> None:
    code = (
        "import sys; from yelp_lightning.__main__ import main; main(); "
        "assert 'lightning' not in sys.modules and 'datasets' not in sys.modules, 'slow import'"
    )
    command = [sys.executable, "-c", code, "predict", "--ckpt_path", str(trained), "--explain", "--text", "good food"]
    process = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)
    assert process.returncode == 0, process.stderr
    assert "integrated gradients" in process.stdout
    assert process.stderr == ""
