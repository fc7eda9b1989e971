"""Marking: an explanation on the review's own words, on screen and as one html page."""

import html
import itertools
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from yelp_lightning.errors import UsageError
from yelp_lightning.files import atomic_file, require_new
from yelp_lightning.inference.explanation import SHARE, SMALL, Explanation, Word

# Words in each of the two lists, and characters of a word there.
LISTED, LISTED_LENGTH = 6, 24
# A word that does less beside the strongest is not marked.
FAINT = 0.05
# Control characters would move the cursor or colour the screen; � keeps the places of the others.
_CONTROLS = {code: "�" for code in [*range(32), *range(127, 160)] if chr(code) not in "\n\t"}
_STYLE = """
:root { color-scheme: light dark; --for: 30 136 229; --against: 245 124 0 }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse }
th, td { padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top; overflow-wrap: anywhere }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
meter { width: 9rem; max-width: 30vw }
blockquote { margin: 1rem 0; line-height: 1.9; white-space: pre-wrap; overflow-wrap: anywhere }
mark { color: inherit; padding: .1em .12em; margin: 0 -.12em; border-radius: .2em }
mark.for { background: rgb(var(--for) / var(--strength)) }
mark.against { background: rgb(var(--against) / var(--strength)); text-decoration: underline dotted }
.unread { opacity: .55 }
.lists { display: flex; flex-wrap: wrap; align-items: start; gap: 0 3rem }
footer { margin-top: 2rem; font-size: .9rem }
"""


def check_page(output: str | None) -> None:
    """Refuse an ``--output`` that no page could be written to, before any compute.

    Args:
        output: What was typed; None and ``-`` are the screen.

    Raises:
        UsageError: If its ending is another than .html, it exists already, or its folder cannot be written to.
    """
    if output is None or output == "-":
        return
    if Path(output).suffix != ".html":
        raise UsageError(
            f"`--output` is {output!r}, but `--explain` writes a page: give a name that ends in .html, or leave it out "
            "to see the words on the screen."
        )
    require_new(Path(output), "--output")


def write_page(explanation: Explanation, output: str) -> None:
    """Write an explanation as a page; the file appears only when it is whole.

    Args:
        explanation: From ``explain``.
        output: A ``.html`` file.
    """
    with atomic_file(Path(output)) as temporary:
        temporary.write_text(page(explanation), encoding="utf-8")


def print_marked(explanation: Explanation) -> None:
    """Print the review with its words marked, and the strongest of them with their numbers.

    A terminal shows them in colour; the lists say the same without.

    Args:
        explanation: From ``explain``.
    """
    console = Console(highlight=False)
    marked = Text()
    for passage, strength in _passages(explanation):
        marked.append(passage.translate(_CONTROLS), "dim" if strength is None else _screen_style(strength))
    console.print(
        Text.assemble("The words ", ("for", _screen_style(1)), " and ", ("against", _screen_style(-1))), end=""
    )
    console.print(f" {explanation.label}:\n", markup=False)
    console.print(marked)
    table = Table(box=None, pad_edge=False, padding=(0, 4, 0, 0))
    lists = [_strongest(explanation, sign) for sign in (1, -1)]
    for name in ("for", "against"):
        table.add_column(f"      {name}", no_wrap=True)
    for pair in itertools.zip_longest(*lists):
        table.add_row(*(_screen_entry(explanation, word) if word else "" for word in pair))
    console.print()
    if table.row_count:
        console.print(table)
        console.print()
    for sentence in sentences(explanation):
        console.print(sentence, markup=False)


def page(explanation: Explanation) -> str:
    """An explanation as html.

    Args:
        explanation: From ``explain``.

    Returns:
        A whole page, for light and dark screens; it loads nothing.
    """
    label = html.escape(explanation.label)
    bars = "".join(
        f'<tr><td>{html.escape(name)}</td><td class="number">{value:.3f}</td>'
        f'<td><meter value="{value:.3f}" aria-label="{html.escape(name)}"></meter></td></tr>'
        for name, value in zip(explanation.names, explanation.probabilities.tolist(), strict=True)
    )
    lists = "".join(_html_list(explanation, name, sign) for name, sign in (("for", 1), ("against", -1)))
    body = [
        f"<h1>{label}</h1>", f"<table>{bars}</table>",
        f"<h2>The words {_mark('for', 1)} and {_mark('against', -1)} {label}</h2>",
        f"<blockquote>{''.join(_mark(*passage) for passage in _passages(explanation))}</blockquote>",
        f'<div class="lists">{lists}</div>',
        "<footer><p>The deeper the colour, the more a word did; what spoke against is underlined.</p>",
        *(f"<p>{html.escape(sentence)}</p>" for sentence in sentences(explanation)), "</footer>",
    ]  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Why {label}</title><style>{_STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def sentences(explanation: Explanation) -> list[str]:
    """What the numbers mean, how exact they are, and what was not read.

    Args:
        explanation: From ``explain``.

    Returns:
        Plain sentences.
    """
    if not explanation.words:
        return ["There is no word in it: the prediction means nothing."]
    said = [
        f"The logit of {explanation.label} is {explanation.logit:+.2f}, and with {explanation.baseline} in place of "
        f"every token {explanation.baseline_logit:+.2f}. The number of a word is its part of the difference, "
        f"{explanation.difference:+.2f}.",
        f"By integrated gradients in {explanation.steps} steps: all parts add up to the difference, but for "
        f"{explanation.error:.4f}"
        + (
            "." if explanation.is_exact else f", which is more than {SHARE:.0%} of it and {SMALL}: take them with care."
        ),
    ]
    if explanation.unread is not None:
        start, end = explanation.unread
        words = explanation.text[start:end].split()
        span = f", from “{_short(words[0])}” to “{_short(words[-1])}”" if words else ""
        count = explanation.unread_words
        said.append(
            f"Not read, because the review is longer than data.max_length: {count} of "
            f"{count + len(explanation.words)} words and punctuation marks{span}."
        )
    return said


def _passages(explanation: Explanation) -> Iterator[tuple[str, float | None]]:
    """The whole review in pieces: words with their strength, what lies between with 0, what was not read with None."""
    marks = [(word.start, word.end, explanation.strength(word)) for word in explanation.words]
    unread = [(*explanation.unread, None)] if explanation.unread else []
    place = 0
    for start, end, strength in sorted([*marks, *unread], key=lambda mark: mark[0]):
        if start > place:
            yield explanation.text[place:start], 0.0
        yield explanation.text[start:end], strength
        place = end
    if place < len(explanation.text):
        yield explanation.text[place:], 0.0


def _strongest(explanation: Explanation, sign: int) -> list[Word]:
    words = [word for word in explanation.words if sign * explanation.strength(word) >= FAINT]
    return sorted(words, key=lambda word: -abs(word.part))[:LISTED]


def _listed(explanation: Explanation, word: Word) -> str:
    return _short(explanation.text[word.start : word.end].translate({**_CONTROLS, 9: "⇥", 10: "↵"}))


def _short(word: str) -> str:
    word = word.translate(_CONTROLS)
    return word if len(word) <= LISTED_LENGTH else f"{word[: LISTED_LENGTH - 1]}…"


def _screen_entry(explanation: Explanation, word: Word) -> Text:
    return Text.assemble(f"{word.part:+.2f} ", (_listed(explanation, word), _screen_style(explanation.strength(word))))


def _screen_style(strength: float) -> str:
    if abs(strength) < FAINT:
        return ""
    return ("bold " if abs(strength) >= 0.5 else "") + ("green" if strength > 0 else "underline red")


def _mark(passage: str, strength: float | None) -> str:
    escaped = html.escape(passage)
    if strength is None:
        return f'<span class="unread">{escaped}</span>'
    if abs(strength) < FAINT:
        return escaped
    side = "for" if strength > 0 else "against"
    # At 0.6, the text on it keeps a contrast of more than 4.5 to 1, light and dark.
    return f'<mark class="{side}" style="--strength: {0.6 * abs(strength):.2f}">{escaped}</mark>'


def _html_list(explanation: Explanation, name: str, sign: int) -> str:
    rows = "".join(
        f'<tr><td class="number">{word.part:+.2f}</td>'
        f"<td>{_mark(_listed(explanation, word), explanation.strength(word))}</td></tr>"
        for word in _strongest(explanation, sign)
    )
    return f"<table><tr><th></th><th>{name}</th></tr>{rows or '<tr><td></td><td>no word</td></tr>'}</table>"
