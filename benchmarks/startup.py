"""How long it takes until something happens: to the first optimizer step, to --help, to the stars of a sentence.

Run:
    python benchmarks/startup.py --data FOLDER

Seconds from the command to:
    help: the end of ``python -m yelp_lightning --help``.
    fit_help: the end of ``python -m yelp_lightning fit --help``, which knows every option.
    first_step: the end of the first optimizer step of a `fit` (batch 8, an epoch of ``--train_rows`` rows).
    predict_text: the end of ``python -m yelp_lightning predict --text "..."`` with the checkpoint of that `fit`.
Each is a fresh process, ``--rounds`` times, medians:
    cold: no compiled Python (`.pyc`) of any package, and no token cache: both in empty folders. Files may
        lie in the page cache of the system: to empty it takes an administrator.
    warm: the same command once more, with what the cold one left in both folders.
A further warm process under ``-X importtime`` says what the imports take: seconds summed by top-level package, each
without what it imports from others. That is itself slowed by the reporting; the shares are what to read.

The last line of the output is one JSON object. Who fails ends the benchmark.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

from common import ROOT, callback, circumstances, environment, resolve_model, significant

BATCH_SIZE = 8  # reviews per optimizer step
TEXT = "Lovely staff, but the soup came cold."
SHOWN = 10  # packages that are listed one by one; the rest is summed
IMPORT = re.compile(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", re.MULTILINE)

Commands = dict[str, list[str]]


def commands(args: argparse.Namespace, folder: str) -> Commands:
    """The arguments of each command, in the order in which they can run.

    Args:
        args: The command line.
        folder: Where the token cache, the run and the time of its first step go.
    """
    cache = f"--data.cache_dir={folder}/tokens"
    fit = {
        "model.pretrained": resolve_model(args.model),
        "data.source": args.data.resolve(),
        "data.train_size": args.train_rows,
        "data.val_size": BATCH_SIZE,
        "data.batch_size": BATCH_SIZE,
        "trainer.max_epochs": 1,
        "trainer.default_root_dir": f"{folder}/run",
        "trainer.callbacks+": callback("step_timer.StepTimer", path=f"{folder}/steps.json"),
    }
    return {
        "help": ["--help"],
        "fit_help": ["fit", "--help"],
        "first_step": ["fit", cache, *(f"--{name}={value}" for name, value in fit.items())],
        "predict_text": ["predict", f"--ckpt_path={folder}/run", f"--text={TEXT}"],
    }


def run(words: list[str], compiled: str, folder: str, flags: tuple[str, ...] = ()) -> tuple[float, float, str]:
    """Run one command; if it fails, show what it said and end the benchmark.

    Args:
        words: Its arguments.
        compiled: Folder in which Python looks for its `.pyc` files, and leaves them.
        folder: Where the datasets cache goes.
        flags: Of the interpreter.

    Returns:
        Seconds on ``time.time`` of its start, and of its end; its standard error.
    """
    command = [sys.executable, *flags, "-m", "yelp_lightning", *words]
    given = environment(folder) | {"PYTHONPYCACHEPREFIX": compiled}
    given.pop("PYTHONDONTWRITEBYTECODE", None)
    if words[0] == "fit":  # a finished run is never overwritten
        shutil.rmtree(f"{folder}/run", ignore_errors=True)
    start = time.time()
    process = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, errors="replace")
    end = time.time()
    if process.returncode:
        sys.exit(f"{process.stdout}{process.stderr}\n`{' '.join(words)}` failed with exit status {process.returncode}.")
    return start, end, process.stderr


def seconds_of(name: str, words: list[str], compiled: str, folder: str) -> float:
    """Seconds from a command to what is waited for."""
    start, end, _ = run(words, compiled, folder)
    if name == "first_step":
        end = json.loads(Path(folder, "steps.json").read_text())["first_end"]
    return end - start


def imports(words: list[str], compiled: str, folder: str) -> dict[str, float]:
    """Seconds of the imports of a command, by top-level package, the longest first."""
    _, _, said = run(words, compiled, folder, ("-X", "importtime"))
    spent: Counter[str] = Counter()
    for microseconds, module in IMPORT.findall(said):
        package = module.partition(".")[0]
        spent["standard library" if package in sys.stdlib_module_names else package] += int(microseconds)
    listed = dict(spent.most_common(SHOWN))
    rest = spent.total() - sum(listed.values())
    return {name: value / 1e6 for name, value in {**listed, "others": rest, "all": spent.total()}.items()}


def parse_arguments() -> argparse.Namespace:
    """Read the command line and refuse what cannot run, before any compute."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="`embedded`, a folder or a hub id (%(default)s)")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet")
    parser.add_argument("--train_rows", type=int, default=16, help="rows of the `fit` (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    args = parser.parse_args()
    if args.rounds < 1 or args.train_rows < 1:
        parser.error("`--rounds` and `--train_rows` must be at least 1.")
    if not (args.data / "train.parquet").is_file():
        parser.error(f"`--data` must be a folder with train.parquet; {args.data}/train.parquet does not exist.")
    return args


def main() -> None:
    """Run the commands, print the tables, then the JSON line."""
    args = parse_arguments()
    rounds: dict[str, dict[str, list[float]]] = {}
    spent: dict[str, dict[str, float]] = {}
    for number in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for name, words in commands(args, folder).items():
                with tempfile.TemporaryDirectory(dir=folder) as compiled:
                    for state in ("cold", "warm"):
                        seconds = seconds_of(name, words, compiled, folder)
                        rounds.setdefault(name, {}).setdefault(state, []).append(seconds)
                        print(
                            f"{number + 1}/{args.rounds}  {name}, {state}: {seconds:.2f} s", file=sys.stderr, flush=True
                        )
                    if number == args.rounds - 1:
                        spent[name] = imports(words, compiled, folder)
    medians = {name: {state: median(each) for state, each in states.items()} for name, states in rounds.items()}
    print(f"{'seconds to':<16}{'cold':>8}{'warm':>8}{'imports':>10}  of which")
    for name, states in medians.items():
        listed = [f"{package} {seconds:.2f}" for package, seconds in spent[name].items() if package != "all"][:5]
        print(f"{name:<16}{states['cold']:>8.2f}{states['warm']:>8.2f}{spent[name]['all']:>10.2f}  {', '.join(listed)}")
    report = {"seconds": medians, "imports_s": spent, "rounds_s": rounds}
    report |= {key: getattr(args, key) for key in ("model", "train_rows", "rounds")}
    print(json.dumps(significant(report | circumstances(__file__, ("torch", "transformers", "lightning")))))


if __name__ == "__main__":
    main()
