"""Pictures of a report for the README: the page in Chromium, without its single reviews, which are their authors'.

Run:
    python docs/report.py checkpoints/RUN/comparison.html docs/comparison.png
    python docs/report.py checkpoints/RUN/comparison.html docs/comparison-narrow.png --width 390 --dark
"""

import argparse
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

# What shows texts of reviews.
SECTIONS = ("The surest wrong reviews", "Likely label errors")
# Pixels; more than any page has.
HEIGHT = 12_000
MARGIN = 24


def main() -> None:
    """Draw one picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="report.html or comparison.html of a run.")
    parser.add_argument("output", type=Path, help="The png file.")
    parser.add_argument("--width", type=int, default=1280, help="Of the window, pixels.")
    parser.add_argument("--dark", action="store_true", help="The page for dark screens.")
    arguments = parser.parse_args()
    page = arguments.report.read_text(encoding="utf-8")
    for heading in SECTIONS:
        page, found = re.subn(rf"<section><h2>{heading}</h2>.*?</section>", "", page, flags=re.DOTALL)
        if found != 1:
            parser.error(f"{arguments.report} has {found} sections {heading!r}, where one was expected")
    with tempfile.TemporaryDirectory() as folder:
        source, shot = Path(folder, "page.html"), Path(folder, "page.png")
        source.write_text(page, encoding="utf-8")
        scheme = "preferredColorScheme=" + ("0" if arguments.dark else "1")
        options = [
            "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--blink-settings={scheme}",
            f"--window-size={arguments.width},{HEIGHT}", f"--screenshot={shot}",
        ]  # fmt: skip
        subprocess.run(["chromium", *options, source.as_uri()], check=True, capture_output=True)
        picture = Image.open(shot).convert("RGB")
    pixels = np.asarray(picture)
    last = int(np.flatnonzero((pixels != pixels[-1, 0]).any(axis=(1, 2)))[-1])
    picture.crop((0, 0, picture.width, last + MARGIN)).quantize(128).save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
