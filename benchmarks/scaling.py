"""Whether time grows no faster than the work, and memory not at all: against rows, tokens a review, and processes.

Run:
    python benchmarks/scaling.py --data FOLDER
    python benchmarks/scaling.py --data FOLDER --rows 1000 10000 --lengths 64 256 --processes 1

Reviews are made up, with the lengths and the words of the real ones in --data's train.parquet (data_children.py). Each
measurement is this project's `fit` over one epoch (batch 8, its defaults) and `test` over as many other rows, from an
empty token cache, in a fresh process:
    rows: ``--rows`` of them. Seconds to prepare (from the command to the first optimizer step: imports, reading,
        tokenizing, loading), to train (the steps, the first 2 taken at the rate of the rest), to test (the batches and
        metrics), and peak memory. 100,000 rows take an hour or two on two cores with a 6-layer encoder.
    lengths: ``--length_rows`` reviews of exactly so many tokens each; seconds per review of training and inference.
        A review of t tokens needs a t + b t² operations, the latter for attention.
    processes: ``--process_rows`` reviews over so many processes (ddp over gloo), which share this machine's cores;
        reviews per second of all together, the batch of each being 8.
The exponent of seconds against rows is that of a power law fitted to them: 1 is linear. Beyond the largest table,
seconds are extrapolated along the straight line through all sizes. Peak memory is that of the largest process.

The last line of the output is one JSON object. Who fails ends the benchmark.
"""

import argparse
import json
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import linear_regression
from typing import Any

import data_children
from clock import Steps
from common import call, callback, circumstances, leave_result, machine, measure, resolve_model, significant

BATCH_SIZE = 8  # reviews per step and process
BEYOND = 650_000  # rows of Yelp's full set
SEED = 42

Result = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What every child is given.

    Args:
        model: ``embedded``, a folder or a hub id.
        data: Folder with the real ``train.parquet``; for `measured`, with made-up ``train.*`` and ``test.*``.
        rows: Rows to make up.
        length: Tokens of each review; 0 means the lengths of real ones.
        processes: That share the rows.
        accelerator: ``trainer.accelerator``.
        folder: Empty folder to write to.
    """

    model: str
    data: str
    rows: int
    length: int = 0
    processes: int = 1
    accelerator: str = "cpu"
    folder: str = ""


def make_up(settings: Settings) -> Result:
    """Write ``train.parquet``, ``validation.parquet`` and ``test.parquet``."""
    sizes = {"train": settings.rows, "validation": BATCH_SIZE * settings.processes, "test": settings.rows}
    for number, (split, rows) in enumerate(sizes.items()):
        table = f"{settings.folder}/{split}.parquet"
        if settings.length:
            _write_long(table, rows, settings.length, number)
        else:
            data_children.make_up(data_children.Settings(settings.model, settings.data, table, rows), SEED + number)
    return {}


def _write_long(table: str, rows: int, words: int, seed: int) -> None:
    """Write reviews of so many words and more: cut, each has exactly so many tokens."""
    import pyarrow as pa
    from pyarrow import parquet

    draw = random.Random(seed)
    texts = [" ".join(f"{draw.randrange(10)}" for _ in range(words)) for _ in range(rows)]
    labels = [number % 5 for number in range(rows)]
    parquet.write_table(pa.table({"label": labels, "text": texts}), table)


def measured(settings: Settings) -> Result:
    """Train an epoch and test."""
    where = Path(settings.folder)
    run, trained, tested = (str(where / name) for name in ("run", "steps.json", "test.json"))
    common = {
        "data.source": settings.data,
        "data.cache_dir": f"{settings.folder}/tokens",
        # Texts of digits would repeat where they are short, and made-up ones are in no other split.
        "data.on_duplicate": "keep",
        "trainer.accelerator": settings.accelerator,
    }
    several = {"trainer.devices": settings.processes}
    if settings.processes > 1:
        several["trainer.strategy"] = "ddp"
    fit = {
        "seed_everything": SEED,
        "model.pretrained": settings.model,
        "data.batch_size": BATCH_SIZE,
        "trainer.max_epochs": 1,
        "trainer.default_root_dir": run,
        "trainer.callbacks+": callback("step_timer.StepTimer", path=trained),
    }
    if settings.length:
        fit["data.max_length"] = settings.length
    # The cores, or as many as were asked for, are shared by hand: torch gives all of them to each process.
    threads = int(os.environ.get("OMP_NUM_THREADS", machine()["cores"])) // settings.processes
    env = os.environ | {"OMP_NUM_THREADS": str(max(1, threads))}
    start = time.time()
    call("fit", common | several | fit, env=env)
    test = {"ckpt_path": run, "trainer.callbacks+": callback("step_timer.TestTimer", path=tested)}
    call("test", common | several | test, env=env)
    seen = Steps(**json.loads(Path(trained).read_text()))
    rate = seen.rates(len(seen.ends))["reviews_per_s"]
    lengths = [length for batch in seen.lengths for length in batch]
    if settings.length and set(lengths) != {settings.length}:
        raise RuntimeError(f"Reviews of {settings.length} tokens were ordered, {sorted(set(lengths))} were seen.")
    return {
        "prepare_s": seen.first_end - start,
        "train_s": settings.rows / rate,
        "test_s": json.loads(Path(tested).read_text())["seconds"],
        "reviews_per_s": rate,
        "tokens_per_review": sum(lengths) / len(lengths),
    }


CHILDREN: dict[str, Callable[[Settings], Result]] = {one.__name__: one for one in (make_up, measured)}


def growth(sizes: list[int], seconds: list[float]) -> dict[str, float]:
    """How seconds grow with a size.

    Args:
        sizes: At least two different ones.
        seconds: Of each.

    Returns:
        ``slope`` (seconds per unit) and ``intercept`` of the straight line, ``exponent`` of the power law.
    """
    line = linear_regression(sizes, seconds)
    power = linear_regression([math.log(size) for size in sizes], [math.log(value) for value in seconds])
    return {"slope": line.slope, "intercept": line.intercept, "exponent": power.slope}


def parse_arguments() -> argparse.Namespace:
    """Read the command line and refuse what cannot run, before any compute."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="`embedded`, a folder or a hub id (%(default)s)")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet")
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000, 10_000, 100_000], help="(%(default)s)")
    parser.add_argument("--lengths", type=int, nargs="*", default=[32, 64, 128, 256, 512], help="(%(default)s)")
    parser.add_argument("--length_rows", type=int, default=160, help="reviews of each length (%(default)s)")
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2], help="(%(default)s)")
    parser.add_argument("--process_rows", type=int, default=800, help="reviews for any number of them (%(default)s)")
    parser.add_argument("--accelerator", choices=("auto", "cpu"), default="cpu", help="(%(default)s)")
    args = parser.parse_args()
    least = 4 * BATCH_SIZE  # two steps are not timed
    if min([*args.rows, args.length_rows, args.process_rows // max([1, *args.processes])]) < least:
        parser.error(f"`--rows`, `--length_rows` and `--process_rows` must be at least {least}, per process.")
    if min([1, *args.processes]) < 1 or min([8, *args.lengths]) < 8:
        parser.error("`--processes` must be at least 1 and `--lengths` at least 8.")
    if not (args.data / "train.parquet").is_file():
        parser.error(f"`--data` must be a folder with train.parquet; {args.data}/train.parquet does not exist.")
    return args


def main() -> None:
    """Run the children, print the tables, then the JSON line."""
    args = parse_arguments()
    base = Settings(resolve_model(args.model), str(args.data.resolve()), 0, accelerator=args.accelerator)
    series = {
        "rows": [replace(base, rows=rows) for rows in sorted(set(args.rows))],
        "lengths": [replace(base, rows=args.length_rows, length=one) for one in sorted(set(args.lengths))],
        "processes": [replace(base, rows=args.process_rows, processes=one) for one in sorted(set(args.processes))],
    }
    names = {"rows": "rows", "lengths": "length", "processes": "processes"}
    report: Result = {}
    for title, each in series.items():
        print(f"{title:<12}{'prepare s':>11}{'train s':>11}{'test s':>11}{'reviews/s':>11}{'tokens':>9}{'peak MB':>9}")
        report[title] = []
        for settings in each:
            with tempfile.TemporaryDirectory() as data, tempfile.TemporaryDirectory() as folder:
                measure(__file__, "make_up", replace(settings, folder=data))
                found = measure(__file__, "measured", replace(settings, data=data, folder=folder))
            size = getattr(settings, names[title])
            report[title].append({title: size, **found})
            seconds = "".join(f"{found[key]:>11.1f}" for key in ("prepare_s", "train_s", "test_s", "reviews_per_s"))
            print(f"{size:<12,}{seconds}{found['tokens_per_review']:>9.0f}{found['peak_rss_mb']:>9,.0f}", flush=True)
        if len(each) > 1 and title != "processes":
            sizes = [getattr(settings, names[title]) for settings in each]
            parts = ("prepare_s", "train_s", "test_s")
            found = {part: growth(sizes, [one[part] for one in report[title]]) for part in parts}
            report[f"{title}_growth"] = found
            for part, one in found.items():
                print(
                    f"  {part}: {one['slope']:.3g} s each, + {one['intercept']:.3g} s; exponent {one['exponent']:.2f}"
                )
    if growing := report.get("rows_growth"):
        report["extrapolated_rows"] = BEYOND
        report["extrapolated_s"] = {part: one["slope"] * BEYOND + one["intercept"] for part, one in growing.items()}
        hours = ", ".join(f"{part} {seconds / 3600:.2f} h" for part, seconds in report["extrapolated_s"].items())
        print(f"  at {BEYOND:,} rows: {hours}")
        peaks = [one["peak_rss_mb"] for one in report["rows"]]
        report["peak_rss_growth"] = peaks[-1] / peaks[0] - 1
        print(f"  peak memory, largest over smallest table: {report['peak_rss_growth']:+.1%}")
    if len(report["processes"]) > 1:
        first = report["processes"][0]["reviews_per_s"]
        report["processes_speedup"] = {
            str(one["processes"]): one["reviews_per_s"] / first for one in report["processes"]
        }
        print(f"  reviews/s over those of the fewest: {significant(report['processes_speedup'])}")
    report |= {key: getattr(args, key) for key in ("model", "length_rows", "process_rows", "accelerator")}
    print(json.dumps(significant(report | circumstances(__file__, ("torch", "transformers", "lightning")))))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        given = Settings(**json.loads(sys.argv[3]))
        leave_result(given.folder, CHILDREN[sys.argv[2]](given))
    else:
        main()
