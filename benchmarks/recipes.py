"""What each recipe of configs/recipes makes of the same reviews: accuracy, MAE, speed, memory, over several seeds.

Run:
    python benchmarks/recipes.py --data FOLDER
    python benchmarks/recipes.py --data FOLDER --train_size 2700 --seeds 3
    python benchmarks/recipes.py --data FOLDER --recipes small_1k ordinal --split val

Each run is a `fit` and a `test` in processes of their own. All recipes train on the same rows (the first ``train_size``
of ``shuffle(seed=42)``) and choose their best epoch on the same ``--val_size`` others; where ``train_size`` is all
rows, validation rows are left out of them. A seed is that of the head, the dropout and, in `pretrained`, nothing else:
its encoder is made once, of ``--unlabelled``, whose labels are not read. With ``--split val`` nothing looks at test
rows: that is how settings are chosen.

Finished runs are kept in ``--results`` and not run again, so a benchmark that was stopped goes on where it stopped.
Reviews per second are the median of the training's own measurements; peak memory is that of the largest process. The
last line of the output is one JSON object.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from common import ROOT, circumstances

RECIPES = ("tutorial", "small_1k", "medium", "full", "lora", "frozen", "ordinal", "pretrained")
KEYS = ("accuracy", "mae", "macro_f1", "within_1", "qwk", "ece", "loss")


def call(*arguments: object) -> float:
    """Run one of this project's commands.

    Args:
        *arguments: Command and options.

    Returns:
        Peak resident memory of its process, MB.
    """
    command = [sys.executable, "-m", "yelp_lightning", *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{said}\n`{' '.join(command)}` failed with exit status {process.returncode}; see above.")
    return usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def speed(run: Path) -> float:
    """Reviews per second of a training, the median of what it logged."""
    with (run / "csv" / "version_0" / "metrics.csv").open(newline="") as file:
        found = [row.get("train/reviews_per_second") for row in csv.DictReader(file)]
    return median(float(value) for value in found if value)


def measure(recipe: str, seed: int, arguments: argparse.Namespace, encoder: str) -> dict[str, Any]:
    """Train and measure one recipe with one seed."""
    run = arguments.folder / f"{recipe}-{arguments.train_size}-{seed}"
    subprocess.run(["rm", "-rf", run], check=True)  # of a benchmark that was stopped
    start = time.perf_counter()
    peak = call(
        "fit", "--config", f"configs/recipes/{recipe}.yaml", "--model.pretrained", encoder, "--data.source",
        arguments.data, "--data.train_size", arguments.train_size, "--data.val_size", arguments.val_size,
        "--seed_everything", seed, "--trainer.default_root_dir", run, "--trainer.enable_progress_bar", "false",
    )  # fmt: skip
    minutes = (time.perf_counter() - start) / 60
    if arguments.split == "test":
        call("test", "--ckpt_path", run, "--trainer.enable_progress_bar", "false")
    metrics = json.loads((run / "metrics.json").read_text())
    found = {
        "recipe": recipe, "seed": seed, "train_size": arguments.train_size, "split": arguments.split,
        "n": metrics[f"{arguments.split}/n"], **{key: metrics[f"{arguments.split}/{key}"] for key in KEYS},
        "confusion_matrix": metrics[f"{arguments.split}/confusion_matrix"], "reviews_per_s": speed(run),
        "peak_rss_mb": peak, "minutes": minutes,
    }  # fmt: skip
    subprocess.run(["rm", "-rf", run], check=True)
    return found


def table(runs: list[dict[str, Any]]) -> str:
    """Means over the seeds, with the standard deviation over them."""
    lines = [f"{'recipe':<12}{'rows':>6}{'seeds':>6}  {'accuracy':<15}{'mae':<15}{'macro_f1':<10}{'rev/s':>6}{'MB':>7}"]
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["train_size"], run["recipe"]), []).append(run)
    for (rows, recipe), group in sorted(groups.items(), key=lambda item: (item[0][0], RECIPES.index(item[0][1]))):
        cells = []
        for key in ("accuracy", "mae"):
            values = [run[key] for run in group]
            cells.append(f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else ""))
        means = {key: fmean(run[key] for run in group) for key in ("macro_f1", "reviews_per_s", "peak_rss_mb")}
        lines.append(
            f"{recipe:<12}{rows:>6}{len(group):>6}  {cells[0]:<15}{cells[1]:<15}{means['macro_f1']:<10.3f}"
            f"{means['reviews_per_s']:>6.1f}{means['peak_rss_mb']:>7.0f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Folder with train.parquet and test.parquet.")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seeds", type=int, default=5, help="How many, from 1.")
    parser.add_argument("--train_size", type=int, default=1000, help="Rows to train on.")
    parser.add_argument("--val_size", type=int, default=500, help="Rows to choose the best epoch on.")
    parser.add_argument("--split", choices=["val", "test"], default="test", help="Rows that are measured.")
    parser.add_argument("--model", default="embedded", help="The encoder: embedded, a folder or a Hub id.")
    parser.add_argument("--unlabelled", type=Path, help="Reviews for `pretrained`; null means FOLDER/natural.csv.")
    parser.add_argument("--results", type=Path, default=Path("recipes.json"), help="Where finished runs are kept.")
    parser.add_argument("--folder", type=Path, default=Path("checkpoints/recipes"), help="Folder for runs.")
    arguments = parser.parse_args()
    arguments.data, arguments.folder = arguments.data.resolve(), arguments.folder.resolve()
    runs = json.loads(arguments.results.read_text())["runs"] if arguments.results.exists() else []
    names = ("recipe", "seed", "train_size", "split")
    done = {tuple(run[name] for name in names) for run in runs}
    for seed in range(1, arguments.seeds + 1):
        for recipe in arguments.recipes:
            if (recipe, seed, arguments.train_size, arguments.split) in done:
                continue
            encoder = arguments.model if recipe != "pretrained" else pretrain(arguments)
            runs.append(measure(recipe, seed, arguments, encoder))
            print(f"{recipe} seed {seed}: accuracy {runs[-1]['accuracy']:.3f}, mae {runs[-1]['mae']:.3f}", flush=True)
            packages = ("torch", "transformers", "lightning")
            kept = {"runs": runs, **circumstances(__file__, packages)}
            temporary = arguments.results.with_suffix(".part")
            temporary.write_text(json.dumps(kept, indent=1) + "\n")
            temporary.replace(arguments.results)
    print(table(runs))
    print(json.dumps([{name: run[name] for name in run if name != "confusion_matrix"} for run in runs]))


def pretrain(arguments: argparse.Namespace) -> str:
    """The encoder of `pretrained`, made once."""
    run = arguments.folder / "encoder"
    unlabelled = arguments.unlabelled or arguments.data / "natural.csv"
    if not (run / "metrics.json").exists():
        going_on = ["--ckpt_path", "last"] if (run / "last.ckpt").exists() else []
        if not going_on:
            subprocess.run(["rm", "-rf", run], check=True)
        call("fit", "--config", "configs/pretrain.yaml", "--model.pretrained", arguments.model, "--data.source",
             unlabelled, "--trainer.default_root_dir", run, "--trainer.enable_progress_bar", "false",
             "--checkpoint.every_n_steps", 100, *going_on)  # fmt: skip
    return str(run)


if __name__ == "__main__":
    main()
