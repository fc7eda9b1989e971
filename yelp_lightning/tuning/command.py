"""The command `tune`: its options, checked before the first trial."""

import signal
import sys
from pathlib import Path

import yaml
from jsonargparse import Namespace
from lightning_utilities.core.imports import RequirementCache

from yelp_lightning.cli import PROGRAM, add_option_groups, link_groups
from yelp_lightning.errors import UsageError
from yelp_lightning.files import require_writable
from yelp_lightning.options import OptionParser
from yelp_lightning.quiet import quiet
from yelp_lightning.ranges import PositiveInt
from yelp_lightning.training.keeping import check_monitor, direction
from yelp_lightning.training.trainer import keeps_checkpoints

# 5.0 draws options together, and takes trials of other processes into account.
OPTUNA = RequirementCache("optuna>=5.0")
# Options of `tune` alone.
OWN = ("config", "space", "trials", "output", "prune", "keep")


def main(arguments: list[str]) -> None:
    """Run ``tune``.

    Args:
        arguments: What follows the command's name.

    Raises:
        UsageError: If an option or the search space is wrong, optuna is missing, or the first trials all fail.
    """
    parser = tune_parser()
    config = parser.parse_args(arguments)
    if not OPTUNA:
        raise UsageError(f'`tune` needs {OPTUNA.requirement}: pip install "yelp-lightning[tune]"')
    quiet()
    _check(config, arguments)

    from yelp_lightning.tuning.search import search
    from yelp_lightning.tuning.space import read_space

    check_monitor(config.checkpoint.monitor, config.model.ordered, config.task == "masked_words")
    better = direction(config.checkpoint.monitor)
    space = read_space(config.space, lambda options: parser.parse_args([*arguments, *options]))
    base = yaml.safe_load(parser.dump(config, skip_none=False))
    for name in OWN:
        base.pop(name, None)
    del base["trainer"]["default_root_dir"]
    require_writable(Path(config.output), "--output")
    terminate = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        search(config, base, space, better)
    except KeyboardInterrupt:
        print(f"\nStopped. The same command goes on with the study in {config.output}.")
        sys.exit(130)
    finally:
        signal.signal(signal.SIGTERM, terminate)


def tune_parser() -> OptionParser:
    """Make the parser of ``tune``: its own options and those of `fit`.

    Returns:
        The parser.
    """
    parser = OptionParser(
        prog=f"{PROGRAM} tune",
        usage=f"{PROGRAM} tune --config FILE --space FILE [--OPTION VALUE ...]",
        description="Search for the best options of `fit`: each trial is a `fit` in a process of its own, compared by "
        "checkpoint.monitor. The same command goes on with a study; started several times at once, its processes share "
        "the trials. All other options are those of `fit`, for every trial.",
    )
    parser.add_argument("-c", "--config", action="config", help="A configuration of `fit`, in yaml.")
    ranges = "`model.learning_rate: {low: 1.0e-5, high: 1.0e-4, log: true}` or `data.batch_size: {choices: [8, 16]}`"
    parser.add_argument(
        "--space", type=str, required=True, help=f"A yaml file: an option of `fit` a line, such as {ranges}."
    )
    parser.add_argument("--trials", type=PositiveInt, default=20, help="Trials of the study, in all its processes.")
    parser.add_argument(
        "--output", type=str, default="checkpoints/tune", help="Folder for study.db, best.yaml and trial-NNNN/."
    )
    parser.add_argument(
        "--prune",
        type=bool,
        default=True,
        help="Stop a trial whose best validation so far is worse than the median of the others at that validation, "
        "once five are complete.",
    )
    parser.add_argument(
        "--keep",
        type=PositiveInt,
        default=1,
        help="Best trials that keep checkpoints and model/; the others lose them.",
    )
    parser.add_argument("--seed_everything", type=bool | int, default=42, help="Seed of the search, and of each trial.")
    parser.add_argument("--ckpt_path", type=str | None, help="Stands in a run's config.yaml; must be null.")
    add_option_groups(parser)
    link_groups(parser)
    return parser


def _check(config: Namespace, arguments: list[str]) -> None:
    if any(argument.startswith("--trainer.default_root_dir") for argument in arguments):
        raise UsageError("`--trainer.default_root_dir` is given, but each trial has its own folder: give --output.")
    if config.ckpt_path is not None:
        raise UsageError(
            f"`--ckpt_path` is {config.ckpt_path!r}, but trials start from model.pretrained: leave the option out."
        )
    if not keeps_checkpoints(config.trainer):
        raise UsageError(
            "`--trainer.enable_checkpointing`, `--trainer.barebones` or `--trainer.fast_dev_run` is set so that `fit` "
            "leaves no metrics, by which trials are compared: leave the option out."
        )
