"""The command `compare`: un-tuned, a cheap baseline and tuned models on the same test rows."""

import json
from pathlib import Path
from typing import Any

from yelp_lightning.checkpoint import BEST, read_checkpoint, require_stars
from yelp_lightning.checks import refuse_training_file, set_checkpoint_defaults
from yelp_lightning.data.datamodule import ReviewDataModule
from yelp_lightning.errors import UsageError
from yelp_lightning.evaluation.comparison import Group, compare
from yelp_lightning.evaluation.contestants import Run, find_runs, require_same_rows, tfidf, tuned, untuned
from yelp_lightning.evaluation.scores import Answers
from yelp_lightning.evaluation.writing import markdown, print_comparison, print_text
from yelp_lightning.files import atomic_file, require_writable
from yelp_lightning.inference.text import before_and_after
from yelp_lightning.modeling.metrics import Measured
from yelp_lightning.options import OptionParser
from yelp_lightning.quiet import quiet
from yelp_lightning.ranges import NonNegativeInt, PositiveInt

JSON, MARKDOWN = "comparison.json", "comparison.md"
UNTUNED, TFIDF = "un-tuned", "TF-IDF"


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
        files = {name: files[0] for name, files in paths.items()}
        print_text(options.text, before_and_after(files, options.text, options.seed))
        return
    folder = _folder(options)
    runs = {name: [_run(parser, arguments, path) for path in files] for name, files in paths.items()}
    every = [run for group in runs.values() for run in group]
    require_same_rows(every)
    groups, left_out = _beside(every[0], options)
    for name, group in runs.items():
        _say(name, len(group))
        groups[name] = Group([_answers(tuned(run)) for run in group], [str(run.path) for run in group])
    comparison = {
        "source": every[0].datamodule.hparams["source"],
        "left_out": left_out,
        **compare(groups, every[0].options["ordered"]),
    }
    for name, text in {JSON: json.dumps(comparison, indent=2) + "\n", MARKDOWN: markdown(comparison)}.items():
        with atomic_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print_comparison(comparison)
    print(f"wrote {folder / JSON} and {folder / MARKDOWN}")


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


def _beside(run: Run, options: Any) -> tuple[dict[str, Group], dict[str, str]]:
    """What the tuned models stand beside; and why something does not, by its name."""
    groups, left_out = {}, {}
    try:
        heads = range(options.seed, options.seed + options.heads)
        _say(UNTUNED, len(heads))
        answers = [_answers(untuned(run, seed)) for seed in heads]
        groups[UNTUNED] = Group(answers, [f"{run.options['pretrained']}, head with seed {seed}" for seed in heads])
    except UsageError as error:
        left_out[UNTUNED] = str(error)
    if options.baseline:
        try:
            _say(TFIDF, 1)
            groups[TFIDF] = Group([tfidf(run)], [f"the training rows of {run.path}"])
        except UsageError as error:
            left_out[TFIDF] = str(error)
    return groups, left_out


def _say(name: str, models: int) -> None:
    print(f"measuring {name}" + (f" ({models} models)" if models > 1 else ""), flush=True)


def _answers(measured: Measured) -> Answers:
    return Answers(measured.probabilities, measured.labels)


def _names(typed: list[str]) -> dict[str, str]:
    """A name for each of what was typed: `tuned`, or of several the names of their folders."""
    if len(set(typed)) < len(typed):
        raise UsageError(f"`--ckpt_path` is {typed}, which names a run twice: give each once.")
    if len(typed) == 1:
        return {"tuned": typed[0]}
    paths = [Path(path) for path in typed]
    short = [path.parent.name if path.name == BEST else path.name for path in paths]
    return dict(zip(short if len(set(short)) == len(short) else typed, typed, strict=True))


def _folder(options: Any) -> Path:
    if options.output:
        require_writable(Path(options.output), "--output")
        return Path(options.output)
    path = Path(options.ckpt_path[0])
    folder = path if path.is_dir() else path.parent
    require_writable(folder, "--ckpt_path")
    return folder
