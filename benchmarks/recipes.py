"""What each recipe of configs/recipes makes of the same reviews: accuracy, MAE, speed, memory, over several seeds.

Run:
    python benchmarks/recipes.py --data FOLDER
    python benchmarks/recipes.py --data FOLDER --train_size 2500 --val_size 200 --seeds 3
    python benchmarks/recipes.py --data FOLDER --recipes small_1k ordinal --split val
    python benchmarks/recipes.py --data FOLDER --speed

Each run is a `fit` and a `test` in processes of their own. All recipes train on the same rows (the first ``train_size``
of ``shuffle(seed=42)``) and choose their best epoch on the same ``--val_size`` others: 2,500 and 200 are all of 2,700
rows. A seed is that of the head, the dropout and, in `pretrained`, nothing else: its encoder is made once, of
``--unlabelled``, whose labels are not read. With ``--split val`` nothing looks at test rows: that is how settings are
chosen.

Finished runs are kept in ``--results`` and not run again, so a benchmark that was stopped goes on where it stopped.
Reviews per second are all reviews over all seconds of training, by the training's own measurements; peak memory is that
of the largest process. Several of these may run side by side, with results of their own, where only accuracy is asked
for: speed and memory in the table come from ``--speed``, an epoch of each recipe alone on the machine, where it was
measured; its minutes are those of all epochs without validation. The output is the table that the README shows; its
last line is one JSON object.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean, harmonic_mean, stdev
from typing import Any

import numpy as np
import yaml
from common import ROOT, circumstances

from yelp_lightning.modeling.intervals import share_interval

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
    """Reviews per second of a training: each of the values that it logged is of as many reviews."""
    with (run / "csv" / "version_0" / "metrics.csv").open(newline="") as file:
        found = [row.get("train/reviews_per_second") for row in csv.DictReader(file)]
    return harmonic_mean(float(value) for value in found if value)


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


def pace(recipe: str, arguments: argparse.Namespace, encoder: str) -> dict[str, Any]:
    """Speed and memory of a recipe's first epoch."""
    run = arguments.folder / f"{recipe}-speed"
    subprocess.run(["rm", "-rf", run], check=True)
    peak = call(
        "fit", "--config", f"configs/recipes/{recipe}.yaml", "--model.pretrained", encoder, "--data.source",
        arguments.data, "--data.train_size", arguments.train_size, "--data.val_size", arguments.val_size,
        "--trainer.max_epochs", 1, "--trainer.limit_val_batches", 0, "--trainer.log_every_n_steps", 5,
        "--trainer.default_root_dir", run, "--trainer.enable_progress_bar", "false",
        "--trainer.enable_checkpointing", "false",
    )  # fmt: skip
    found = {"recipe": recipe, "train_size": arguments.train_size, "reviews_per_s": speed(run), "peak_rss_mb": peak}
    subprocess.run(["rm", "-rf", run], check=True)
    return found


def epochs(recipe: str) -> int:
    """Epochs of a recipe."""
    text = (ROOT / "configs" / "recipes" / f"{recipe}.yaml").read_text(encoding="utf-8")
    return int(yaml.safe_load(text)["trainer"]["max_epochs"])


def table(kept: dict[str, Any]) -> str:
    """The README's table: means over the seeds, their standard deviation, and the interval that the test rows leave."""
    lines = [
        "| recipe | reviews | seeds | accuracy | MAE, stars | macro-F1 | reviews/s | peak memory | minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    paces = {(pace["train_size"], pace["recipe"]): pace for pace in kept.get("speeds", [])}
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for run in kept["runs"]:
        groups.setdefault((run["train_size"], run["recipe"]), []).append(run)
    for (rows, recipe), group in sorted(groups.items(), key=lambda item: (item[0][0], RECIPES.index(item[0][1]))):
        cells = []
        for key in ("accuracy", "mae"):
            values = [run[key] for run in group]
            cells.append(f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else ""))
        # All seeds are measured on the same rows: more seeds do not make up for few rows.
        matrix = sum(np.array(run["confusion_matrix"]) for run in group)
        low, high = share_interval(round(float(np.trace(matrix)) / len(group)), group[0]["n"])
        alone = paces.get((rows, recipe))
        reviews_per_s, peak = (
            (alone[key] if alone else fmean(run[key] for run in group)) for key in ("reviews_per_s", "peak_rss_mb")
        )
        minutes = rows * epochs(recipe) / reviews_per_s / 60 if alone else fmean(run["minutes"] for run in group)
        shown = [
            f"`{recipe}`", f"{rows:,}", len(group), f"{cells[0]} [{low:.3f}, {high:.3f}]", cells[1],
            f"{fmean(run['macro_f1'] for run in group):.3f}", f"{reviews_per_s:.1f}", f"{peak / 1000:.1f} GB",
            f"{minutes:.1f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, shown))} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Folder with train.parquet and test.parquet.")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seeds", type=int, default=5, help="How many, from 1.")
    parser.add_argument("--train_size", type=int, default=1000, help="Rows to train on.")
    parser.add_argument("--val_size", type=int, default=500, help="Rows to choose the best epoch on.")
    parser.add_argument("--speed", action="store_true", help="Measure only speed and memory.")
    parser.add_argument("--split", choices=["val", "test"], default="test", help="Rows that are measured.")
    parser.add_argument("--model", default="embedded", help="The encoder: embedded, a folder or a Hub id.")
    parser.add_argument("--unlabelled", type=Path, help="Reviews for `pretrained`; null means FOLDER/natural.csv.")
    parser.add_argument("--results", type=Path, default=Path("recipes.json"), help="Where finished runs are kept.")
    parser.add_argument("--folder", type=Path, default=Path("checkpoints/recipes"), help="Folder for runs.")
    arguments = parser.parse_args()
    arguments.data, arguments.folder = arguments.data.resolve(), arguments.folder.resolve()
    kept = json.loads(arguments.results.read_text()) if arguments.results.exists() else {"runs": []}
    names = ("recipe", "seed", "train_size", "split")
    done = {tuple(run[name] for name in names) for run in kept["runs"]}
    for recipe in arguments.recipes if arguments.speed else ():
        found = pace(recipe, arguments, arguments.model)
        same = {name: found[name] for name in ("recipe", "train_size")}.items()
        others = [one for one in kept.get("speeds", []) if not same <= one.items()]
        keep(arguments.results, kept, {"speeds": [*others, found]})
    for seed in range(1, 1 + (0 if arguments.speed else arguments.seeds)):
        for recipe in arguments.recipes:
            if (recipe, seed, arguments.train_size, arguments.split) in done:
                continue
            encoder = arguments.model if recipe != "pretrained" else pretrain(arguments)
            run = measure(recipe, seed, arguments, encoder)
            keep(arguments.results, kept, {"runs": [*kept["runs"], run]})
            print(f"{recipe} seed {seed}: accuracy {run['accuracy']:.3f}, mae {run['mae']:.3f}", flush=True)
    print(table(kept))
    print(json.dumps([{name: run[name] for name in run if name != "confusion_matrix"} for run in kept["runs"]]))


def keep(results: Path, kept: dict[str, Any], new: dict[str, Any]) -> None:
    """Add to the results, in memory and in their file, which is whole at any time."""
    kept.update({**new, **circumstances(__file__, ("torch", "transformers", "lightning"))})
    temporary = results.with_suffix(".part")
    temporary.write_text(json.dumps(kept, indent=1) + "\n")
    temporary.replace(results)


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
