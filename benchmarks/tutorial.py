"""Speed, memory and accuracy of fine-tuning, side by side with the well-known Trainer tutorial.

Run:
    python benchmarks/tutorial.py --data FOLDER

Four ways with the same model, rows, batch size (8), steps, learning rate (5e-5) and seed:
    tutorial: ``transformers.Trainer`` as published: every review padded to 512 tokens (the tokenizer's maximum), fp32,
        its defaults.
    expert: the Trainer as one who knows it sets it: padding to the longest review of a batch, batches grouped by
        length, bf16 where there are units for it, fused AdamW, evaluation in batches of 32.
    default: this project's `fit` and `test`, given only what all ways share.
    fastest: the same with the options in ``FASTEST`` and ``FASTEST_TEST`` of tutorial_ways.py, which also are in the
        JSON line.

Speed and memory: ``--rounds`` short trainings of ``--steps`` steps, one epoch, each in a fresh process, the ways taken
in turn (A B C D A B C D ...); medians; round r (from 0) has seed ``--seed`` + r. A clock stands at the end of each
optimizer step, for all ways alike: the first 2 steps are skipped; imports, tokenization, loading, validation and saving
are outside. How reviews per second follow from it: clock.py. Evaluation reviews per second are of ``--eval_rows`` test
rows after that, from the first batch to the metrics: the Trainer's `evaluate()`, in the process that trained, and this
project's `test`, in a process of its own, which has the first batches' allocations to make. Peak memory is that of the
way's largest process, training and testing together.

Accuracy: a whole training of ``--train_rows`` rows and ``--epochs`` epochs per way and seed, the ways taken in turn,
then all ``--test_rows`` test rows. The Trainer keeps the weights of the last epoch, this project those of the best
epoch by its validation rows, which are others than the training rows. The value is the mean over the seeds, the
interval Wilson's 95 % of that share of the test rows. ``--seeds 0`` leaves accuracy out. ``--keep FILE`` keeps finished
trainings of this part, which takes hours, and does not repeat what it finds there.

The last line of the output is one JSON object. Who fails ends the benchmark.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

from clock import WARMUP_STEPS
from common import circumstances, leave_result, measure, resolve_model, significant, wilson
from tutorial_ways import BATCH_SIZE, FASTEST, FASTEST_TEST, WAYS, Settings, choose_rows, run_way

# Nothing large is imported here: a process on Linux inherits the peak memory of the one that started it.

Results = dict[str, list[dict[str, Any]]]
SPEEDS = ("reviews_per_s", "tokens_per_s", "eval_reviews_per_s", "peak_rss_mb")


def parse_arguments() -> argparse.Namespace:
    """Read the command line and refuse what cannot run, before any compute."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default="embedded", help="`embedded` (MiniLM-L6), a folder or a hub id (%(default)s)"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--steps", type=int, default=40, help="optimizer steps of 8 reviews each (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="short trainings of each way, for speed (%(default)s)")
    parser.add_argument("--eval_rows", type=int, default=200, help="test rows for speed (%(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="whole trainings, for accuracy (%(default)s)")
    parser.add_argument("--train_rows", type=int, help="rows of a whole training (1000, or as many as there are)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of a whole training (%(default)s)")
    parser.add_argument("--test_rows", type=int, help="test rows for accuracy (1000, or as many as there are)")
    parser.add_argument("--seed", type=int, default=42, help="the first seed (%(default)s)")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="who runs (all)")
    parser.add_argument(
        "--keep",
        type=Path,
        help="file of finished whole trainings, made if missing; remove it when the code has changed",
    )
    args = parser.parse_args()
    if args.steps <= WARMUP_STEPS:
        parser.error(f"`--steps` must be above {WARMUP_STEPS}, the steps that are not timed; got {args.steps}.")
    from pyarrow import ArrowException, parquet

    found = {}
    for split in ("train", "test"):
        file = args.data / f"{split}.parquet"
        try:
            found[split] = parquet.read_metadata(file).num_rows
        except (OSError, ArrowException) as error:
            parser.error(f"`--data` must be a folder with train.parquet and test.parquet; {file}: {error}")
    # A tenth beside them is for validation.
    args.train_rows = min(1000, found["train"] * 10 // 11) if args.train_rows is None else args.train_rows
    args.test_rows = min(1000, found["test"]) if args.test_rows is None else args.test_rows
    counts = {name: getattr(args, name) for name in ("rounds", "eval_rows", "train_rows", "epochs", "test_rows")}
    for name, count in counts.items():
        if count < 1:
            parser.error(f"`--{name}` must be at least 1; got {count}.")
    if args.seeds < 0:
        parser.error(f"`--seeds` must be at least 0; got {args.seeds}.")
    for settings in (speed_settings(args), whole_settings(args)):
        needed = {"train": settings.train_rows + settings.val_rows, "test": settings.test_rows}
        for split, count in needed.items():
            if found[split] < count:
                parser.error(
                    f"{count} reviews are needed, {args.data}/{split}.parquet has {found[split]}: ask for less."
                )
    return args


def speed_settings(args: argparse.Namespace) -> Settings:
    """Settings of the short trainings."""
    # The children run in the project's root.
    data, model = str(args.data.resolve()), resolve_model(args.model)
    return Settings(model, data, args.steps * BATCH_SIZE, 1, args.eval_rows)


def whole_settings(args: argparse.Namespace) -> Settings:
    """Settings of the whole trainings."""
    return replace(speed_settings(args), train_rows=args.train_rows, epochs=args.epochs, test_rows=args.test_rows)


def rounds_of(args: argparse.Namespace, settings: Settings, count: int, keep: Path | None = None) -> Results:
    """Run the ways in turn, ``count`` rounds, on the same rows.

    Args:
        args: The command line.
        settings: What every way is given, but for the seed.
        count: Rounds.
        keep: File with finished runs, which are not run again.
    """
    results: Results = {name: [] for name in args.ways}
    kept = json.loads(keep.read_text()) if keep and keep.exists() else {}
    with tempfile.TemporaryDirectory() as where:
        if count:
            measure(__file__, "choose_rows", replace(settings, folder=where))
        for number in range(count):
            for name, rounds in results.items():
                settings = replace(settings, seed=args.seed + number)
                options = {"fastest": [FASTEST, FASTEST_TEST]}.get(name, [])
                key = json.dumps([name, asdict(replace(settings, data=args.data.name)), options])
                if key not in kept:
                    with tempfile.TemporaryDirectory(dir=where) as folder:
                        kept[key] = measure(__file__, name, replace(settings, data=f"{where}/chosen", folder=folder))
                rounds.append(kept[key])
                if keep:
                    keep.write_text(json.dumps(kept, indent=1) + "\n")
                values = ", ".join(f"{key} {value:,.3f}" for key, value in rounds[-1].items())
                print(f"round {number + 1}/{count}  {name}: {values}", file=sys.stderr, flush=True)
    return results


def summarize(args: argparse.Namespace, short: Results, whole: Results) -> dict[str, Any]:
    """The report without the circumstances."""
    medians = {key: {name: median(one[key] for one in each) for name, each in short.items()} for key in SPEEDS}
    each = {name: [one["accuracy"] for one in runs] for name, runs in whole.items()}
    accuracy = {name: fmean(values) if values else None for name, values in each.items()}
    report: dict[str, Any] = {
        **medians,
        "accuracy": accuracy,
        "accuracy_interval": {
            name: None if value is None else wilson(value, args.test_rows) for name, value in accuracy.items()
        },
        "seeds_accuracy": each,
    }
    pairs = {
        "ratio_expert": ("expert", "tutorial", "reviews_per_s"),
        "ratio_default": ("default", "tutorial", "reviews_per_s"),
        "ratio_fastest": ("fastest", "tutorial", "reviews_per_s"),
        "ratio_over_expert": ("fastest", "expert", "reviews_per_s"),
        "eval_ratio_expert": ("expert", "tutorial", "eval_reviews_per_s"),
        "eval_ratio_default": ("default", "tutorial", "eval_reviews_per_s"),
        "eval_ratio_fastest": ("fastest", "tutorial", "eval_reviews_per_s"),
        "peak_rss_ratio_fastest": ("fastest", "tutorial", "peak_rss_mb"),
    }
    for name, (one, other, key) in pairs.items():
        if {one, other} <= set(args.ways):
            report[name] = medians[key][one] / medians[key][other]
    report["rounds_reviews_per_s"] = {name: [one["reviews_per_s"] for one in runs] for name, runs in short.items()}
    options = {"fastest_options": {"fit": FASTEST, "test": FASTEST_TEST}, "warmup_steps": WARMUP_STEPS}
    names = ("model", "steps", "rounds", "eval_rows", "seeds", "train_rows", "epochs", "test_rows", "seed")
    return report | options | {name: getattr(args, name) for name in names}


def print_table(report: dict[str, Any]) -> None:
    """One line a way."""
    print(
        f"{'way':<10}{'reviews/s (min-max)':>24}{'real tokens/s':>15}{'eval reviews/s':>16}{'peak MB':>10}"
        f"{'accuracy':>24}"
    )
    for name, each in report["rounds_reviews_per_s"].items():
        speed, tokens, evaluation, peak = (report[key][name] for key in SPEEDS)
        accuracy = "-"
        if report["accuracy"][name] is not None:
            low, high = report["accuracy_interval"][name]
            accuracy = f"{report['accuracy'][name]:.3f} [{low:.3f}, {high:.3f}]"
        print(
            f"{name:<10}{f'{speed:.2f} ({min(each):.2f}-{max(each):.2f})':>24}{tokens:>15,.0f}{evaluation:>16,.1f}"
            f"{peak:>10,.0f}{accuracy:>24}"
        )
    print("  ".join(f"{key} {value:.2f}" for key, value in report.items() if "ratio_" in key))


def main() -> None:
    """Run the rounds, print the table, then the JSON line."""
    args = parse_arguments()
    short = rounds_of(args, speed_settings(args), args.rounds)
    whole = rounds_of(args, whole_settings(args), args.seeds, args.keep)
    report = summarize(args, short, whole)
    print_table(report)
    packages = ("torch", "transformers", "accelerate", "lightning", "datasets", "tokenizers")
    print(json.dumps(significant(report | circumstances(__file__, packages))))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        given = Settings(**json.loads(sys.argv[3]))
        leave_result(given.folder, choose_rows(given) if sys.argv[2] == "choose_rows" else run_way(sys.argv[2], given))
    else:
        main()
