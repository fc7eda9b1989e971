"""The command line's door: lists the commands, points out slips, and imports late what a command needs."""

import difflib
import itertools
import os
import sys
import time
from collections.abc import Sequence

from yelp_lightning import __version__
from yelp_lightning.errors import UsageError
from yelp_lightning.orphans import POLL_SECONDS, end_with_parent

PROGRAM = "python -m yelp_lightning"
COMMANDS = {
    "fit": "fine-tune a pretrained encoder on reviews; keeps the best checkpoint",
    "validate": "measure a checkpoint on the validation rows",
    "test": "measure a checkpoint on the test rows",
    "predict": "read the stars of new reviews: a file, standard input or --text",
    "compare": "un-tuned, a cheap baseline and tuned models on the same test rows",
    "tune": "search for the best options of fit; goes on where it was stopped",
    "data": "read, check, tokenize and describe the data; --clear-cache empties the token cache",
}
# `predict --text` with nothing but these is answered without Lightning.
QUICK_OPTIONS = {"--ckpt_path", "--text", "--output", "--explain"}
# On processors, torch and oneDNN keep 1,024 kernels each, one for each shape. Padded batches have ever new shapes: what
# 200 steps leave takes half a GB and saves at most 5 % of the time (benchmarks/LOG.md). Both read this once.
KERNELS = {"LRU_CACHE_CAPACITY": "32", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32"}


def help_text() -> str:
    """The text of the top-level ``--help``.

    Returns:
        Usage, the commands with a line each, and where to start.
    """
    commands = "\n".join(f"  {name:<9} {line}" for name, line in COMMANDS.items())
    return f"""usage: {PROGRAM} COMMAND [--config FILE ...] [--OPTION VALUE ...]

Fine-tune a pretrained BERT on reviews with stars, measure it, and use it.

commands:
{commands}

  {PROGRAM} COMMAND --help     every option of a command, with its unit
  {PROGRAM} --version          the version

start here:
  {PROGRAM} fit --config configs/quickstart.yaml
"""


def main() -> None:
    """Run the command in ``sys.argv``, which stays as it is: DDP starts its other processes from it.

    Exits with status 2 and one sentence on standard error for what a user can put right.
    """
    arguments = sys.argv[1:]
    for name, capacity in KERNELS.items():
        os.environ.setdefault(name, capacity)
    try:
        if arguments in ([], ["-h"], ["--help"]):
            print(help_text(), end="")
        elif arguments == ["--version"]:
            print(f"yelp-lightning {__version__}")
        else:
            _check_command(arguments)
            _refuse_empty_values(arguments)
            _run(arguments)
    except UsageError as error:
        # Under several processes, the first speaks for all. It ends them within a moment, so that a later one speaks
        # where its error is its own.
        rank = os.environ.get("LOCAL_RANK", "0")
        if rank != "0":
            time.sleep(2 * POLL_SECONDS)
        print(f"error: {error}" if rank == "0" else f"error in process {rank}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as stopped:
        if isinstance(stopped.__context__, KeyboardInterrupt):  # Lightning makes status 1 of it
            sys.exit(130)
        raise


def _check_command(arguments: Sequence[str]) -> None:
    command = arguments[0]
    if command in COMMANDS:
        return
    if command.startswith("-"):
        found = next((argument for argument in arguments if argument in COMMANDS), "fit")
        raise UsageError(
            f"`{command}` stands before the command, which must come first: "
            f"write {PROGRAM} {found} {command.partition('=')[0]} ..."
        )
    close = difflib.get_close_matches(command, COMMANDS, n=1)
    meant = f"did you mean `{close[0]}`?" if close else f"see {PROGRAM} --help."
    raise UsageError(f"`{command}` is no command; there are {', '.join(COMMANDS)}: {meant}")


def _refuse_empty_values(arguments: Sequence[str]) -> None:
    # Such as --ckpt_path "$RUN" where RUN is not set: the parser would take it for the current folder.
    for before, argument in itertools.pairwise(arguments):
        name, equals, value = argument.partition("=") if argument.startswith("--") else (before, "=", argument)
        if equals and not value.strip():
            raise UsageError(f"`{name}` is {value!r}, which is empty: give it a value, or leave the option out.")


def _run(arguments: list[str]) -> None:
    command, options = arguments[0], arguments[1:]
    if quick := _quick_options(command, options):
        from yelp_lightning.inference.text import predict_text

        predict_text(quick["--ckpt_path"], quick["--text"], quick.get("--output"), quick.get("--explain") == "true")
    elif command == "compare":
        from yelp_lightning.evaluation.compare import main as compare

        compare(options)
    elif command == "data":
        from yelp_lightning.card.command import main as data

        data(options)
    elif command == "tune":
        from yelp_lightning.tuning.command import main as tune

        tune(options)
    else:
        end_with_parent()
        from yelp_lightning.cli import YelpCLI

        YelpCLI()


def _quick_options(command: str, options: list[str]) -> dict[str, str] | None:
    """The options of a `predict --text` that needs no more than these, or None."""
    pairs: list[str] = []
    for option, after in itertools.pairwise([*options, "--"]):
        pairs += option.split("=", 1) if option.startswith("--") else [option]
        if option == "--explain" and after.startswith("--"):
            pairs.append("true")
    quick = dict(zip(pairs[::2], pairs[1::2], strict=False))
    if command != "predict" or len(pairs) % 2 or not {"--ckpt_path", "--text"} <= set(quick) <= QUICK_OPTIONS:
        return None
    if quick.get("--explain", "true") not in ("true", "false"):
        return None
    # A value that looks like an option is one whose own value was forgotten: the parser says so.
    return None if any(value.startswith("--") for value in quick.values()) else quick


if __name__ == "__main__":
    main()
