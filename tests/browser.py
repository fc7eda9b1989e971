"""Pages as a reader has them: what one would load, and what a real browser makes of it at some width."""

import html
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import pytest

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
           "--disable-component-update", "--disable-sync"]  # fmt: skip
MEASURE = """<iframe id="page" style="width: {width}px; border: 0" srcdoc="{page}"></iframe><script>
onload = () => {{
    const page = document.getElementById("page").contentDocument;
    const text = [...page.querySelectorAll("svg text")].filter(one => one.getBoundingClientRect().width > 0);
    document.title = [page.documentElement.scrollWidth, page.querySelectorAll("svg").length, text.length].join(" ");
}}
</script>"""


class Outside(HTMLParser):
    """Collects what a page would load, its tags, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: Counter[str] = Counter()
        self.text = ""
        self.feed(page)
        assert "url(http" not in page
        assert "@import" not in page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.loaded += [
            value
            for name, value in attrs
            if value and name in ("src", "href", "xlink:href") and not value.startswith(("#", "data:image/png;base64,"))
        ]

    def handle_data(self, data: str) -> None:
        self.text += data


class Seen(NamedTuple):
    """What a browser measured: the page's own width, pixels; plots; words in plots that take up space."""

    width: int
    plots: int
    words: int


def see(page: str, width: int, folder: Path) -> Seen:
    """Open a page in a window of some width, pixels."""
    (folder / "measure.html").write_text(MEASURE.format(width=width, page=html.escape(page)), encoding="utf-8")
    process = subprocess.run(
        [str(CHROMIUM), *OPTIONS, f"--user-data-dir={folder / 'browser'}", "--dump-dom",
         (folder / "measure.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    measured = re.search(r"<title>(\d+) (\d+) (\d+)</title>", process.stdout)
    assert measured, process.stdout[:500]
    return Seen(*map(int, measured.groups()))


def brightness(page: Path, scheme: str, folder: Path) -> float:
    """Mean brightness, 0 to 1, of a page as it is drawn for a reader who likes it light or dark."""
    from matplotlib.image import imread

    picture = folder / f"{scheme}.png"
    preference = f"--blink-settings=preferredColorScheme={['dark', 'light'].index(scheme)}"
    subprocess.run(
        [str(CHROMIUM), *OPTIONS, preference, f"--user-data-dir={folder / 'browser'}", "--window-size=1280,2000",
         f"--screenshot={picture}", page.as_uri()],
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    return float(imread(picture)[..., :3].mean())
