"""The command `compare`: un-tuned, a cheap baseline and tuned models on the same test rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from yelp_lightning.checkpoint import BEST, read_checkpoint, require_stars
from yelp_lightning.checks import refuse_training_file, set_checkpoint_defaults
from yelp_lightning.data.datamodule import ReviewDataModule
from yelp_lightning.errors import UsageError
from yelp_lightning.evaluation.comparison import Contestant, compare
from yelp_lightning.evaluation.contestants import (
    Run,
    find_runs,
    require_same_rows,
    require_seeds,
    tfidf,
    tuned,
    untuned,
)
from yelp_lightning.evaluation.scores import Answers
from yelp_lightning.evaluation.writing import markdown, print_comparison, print_text, sections, title
from yelp_lightning.files import atomic_file, require_writable
from yelp_lightning.inference.text import before_and_after
from yelp_lightning.modeling.metrics import Measured
from yelp_lightning.options import OptionParser
from yelp_lightning.quiet import quiet
from yelp_lightning.ranges import NonNegativeInt, PositiveInt
from yelp_lightning.report.curves import read_curve
from yelp_lightning.report.page import write_report
from yelp_lightning.report.rows import Tested, TestedRows

JSON, MARKDOWN, HTML = "comparison.json", "comparison.md", "comparison.html"
UNTUNED, TFIDF = "un-tuned", "TF-IDF"
# Where a checkpoint keeps the hashes of the texts that it was trained on.
DATA = ReviewDataModule.__qualname__


def main(arguments: list[str]) -> None:
    """Run ``compare``: tables on screen, ``comparison.json``, ``.md`` and ``.html``.

    Args:
        arguments: What follows the command's name.

    Raises:
        UsageError: If an option, a checkpoint or the data are wrong, or runs would be tested on different rows.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    paths = {name: find_runs(typed) for name, typed in _names(options.ckpt_path).items()}
    quiet()
    if options.text is not None:
        _refuse_beside_text(arguments)
        files = {
            name if len(found) == 1 else f"{name}/{path.parent.name}": path
            for name, found in paths.items()
            for path in found
        }
        print_text(options.text, *before_and_after(files, options.text, options.seed))
        return
    folder = _folder(options)
    runs = {name: [_run(parser, arguments, path) for path in files] for name, files in paths.items()}
    every = [run for group in runs.values() for run in group]
    for group in runs.values():
        require_seeds(group)
    require_same_rows(every)
    measured, left_out = _beside(every[0], options)
    for name, group in runs.items():
        _say(name, len(group))
        measured[name] = {str(run.path): tuned(run) for run in group}
    contestants = {
        name: Contestant([Answers(of.probabilities, of.labels) for of in models.values()], list(models))
        for name, models in measured.items()
    }
    ordered = every[0].options["ordered"]
    source = every[0].datamodule.hparams["source"]
    seen = {str(run.path): run.datamodule.reviews.summary["test"]["seen_in_training"] for run in every}
    about = {"source": source, "seen_in_training": seen, "remarks": _remarks(every), "left_out": left_out}
    comparison = {**about, **compare(contestants, ordered)}
    for name, text in {JSON: json.dumps(comparison, indent=2) + "\n", MARKDOWN: markdown(comparison)}.items():
        with atomic_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    # The tuned models first: it is their mistakes that are shown, of several seeds those of the median one.
    tested = [
        Tested(name, list(measured[name].values())[contestants[name].typical])
        for name in [*runs, *(name for name in measured if name not in runs)]
    ]
    curves = [read_curve(run.path.parent, run.path.parent.name) for run in every]
    rows = TestedRows.of(every[0].datamodule, ordered, tested[0].measured.rows)
    write_report(folder / HTML, title(comparison), rows, tested, curves, sections(comparison))
    print_comparison(comparison)
    print(f"wrote {', '.join(str(folder / name) for name in (JSON, MARKDOWN, HTML))}")


def _parser() -> OptionParser:
    parser = OptionParser(
        prog="python -m yelp_lightning compare",
        description="Measure on the same test rows: the un-tuned model (the pretrained encoder with a fresh head), a "
        "cheap baseline (TF-IDF and logistic regression on the same training rows), and each tuned model.",
    )
    what = "A .ckpt file, a run folder (its best), or a folder of runs that differ in their seed; may be repeated."
    parser.add_argument("--ckpt_path", type=str, action="append", required=True, help=what)
    parser.add_argument("--seed", type=NonNegativeInt, default=42, help="Seed of the first un-tuned head.")
    parser.add_argument("--heads", type=PositiveInt, default=3, help="Un-tuned heads, with seeds one after the other.")
    parser.add_argument("--baseline", type=bool, default=True, help="Whether to train and measure the baseline.")
    parser.add_argument("--text", type=str, help="One review to read before and after tuning, instead of test rows.")
    where = "Folder for comparison.json, .md and .html; null means that of the first --ckpt_path."
    parser.add_argument("--output", type=str | None, help=where)
    parser.add_class_arguments(ReviewDataModule, "data", skip={"pretrained", "num_labels", "predict_path", "id_column"})
    return parser


def _run(parser: OptionParser, arguments: list[str], path: Path) -> Run:
    checkpoint = read_checkpoint(path)
    require_stars(checkpoint, path)
    set_checkpoint_defaults(parser, checkpoint)
    options = parser.parse_args(arguments).data
    refuse_training_file(options.source, path, checkpoint)
    fixed = {name: checkpoint["hyper_parameters"][name] for name in ("pretrained", "num_labels")}
    datamodule = ReviewDataModule(**fixed, **options.as_dict())
    datamodule.restore(str(path), checkpoint)
    return Run(path, checkpoint, datamodule)


def _beside(run: Run, options: Any) -> tuple[dict[str, dict[str, Measured]], dict[str, str]]:
    """What the tuned models stand beside, by name and source; and why something does not."""
    ways: dict[str, Callable[[], dict[str, Measured]]] = {}
    heads = range(options.seed, options.seed + options.heads)
    ways[UNTUNED] = lambda: {
        f"{run.options['pretrained']}, head with seed {seed}": untuned(run, seed) for seed in heads
    }
    if options.baseline:
        ways[TFIDF] = lambda: {f"the training rows of {run.path}": tfidf(run)}
    measured, left_out = {}, {}
    for name, measure in ways.items():
        _say(name, len(heads) if name == UNTUNED else 1)
        try:
            measured[name] = measure()
        except UsageError as error:
            left_out[name] = str(error)
    return measured, left_out


def _remarks(runs: list[Run]) -> list[str]:
    """What stands for several runs although it is of the first."""
    first, remarks = runs[0], []
    if any(run.options["pretrained"] != first.options["pretrained"] for run in runs):
        remarks.append(f"{UNTUNED} is {first.options['pretrained']}, from which {first.path} has started.")
    if any(not np.array_equal(*(one.checkpoint[DATA]["train"] for one in (first, run))) for run in runs):
        remarks.append(f"{TFIDF} is trained on the rows of {first.path}.")
    return remarks


def _refuse_beside_text(arguments: list[str]) -> None:
    for argument in arguments:
        name = argument.partition("=")[0]
        if name.startswith("--") and name not in ("--text", "--ckpt_path", "--seed"):
            raise UsageError(
                f"`{name}` is given together with --text, which takes --ckpt_path and --seed: leave it out."
            )


def _say(name: str, models: int) -> None:
    print(f"measuring {name}" + (f" ({models} models)" if models > 1 else ""), flush=True)


def _names(typed: list[str]) -> dict[str, str]:
    """A name for each of what was typed: `tuned`, or of several the names of their folders."""
    if len(set(typed)) < len(typed):
        raise UsageError(f"`--ckpt_path` is {typed}, which names a run twice: give each once.")
    if len(typed) == 1:
        return {"tuned": typed[0]}
    paths = [path.parent if path.name == BEST else path for path in map(Path, typed)]
    for parts in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len({*names, UNTUNED, TFIDF}) == len(names) + 2:
            return dict(zip(names, typed, strict=True))
    return dict(zip(typed, typed, strict=True))


def _folder(options: Any) -> Path:
    if options.output:
        require_writable(Path(options.output), "--output")
        return Path(options.output)
    path = Path(options.ckpt_path[0])
    folder = path if path.is_dir() else path.parent
    require_writable(folder, "--ckpt_path")
    return folder
