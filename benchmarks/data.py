"""Reading, checking and tokenizing a table of any size, side by side with the tutorial's `map(padding="max_length")`.

Run:
    python benchmarks/data.py --data FOLDER

The tables are made up, with the lengths and the words of the real texts in --data's train.parquet: tables of any size
have its tokens per review; both means are reported.

Contestants, on a table of ``--sample`` rows, each of every round in a fresh process, in turn (A B C D A B C D ...):
    raw: the bare tokenizer, ``backend_tokenizer.encode_batch`` with truncation to 512 tokens and no padding, in batches
        of 1,000 texts that lie in memory as Python strings; what it returns is dropped.
    raw_fast: the same with ``encode_batch_fast``, without truncation and special tokens: the library's fastest call,
        and the one that this project makes.
    tutorial: ``datasets.Dataset.from_parquet`` and the published ``map``, every review padded to 512 tokens. The rate
        counts the map alone; disk is the cache files that the map wrote.
    project: ``ReviewDataModule``, ``check("fit")`` and ``setup("fit")`` with an empty cache: reading, checks of rows,
        labels, duplicates, splits, tokenizing, writing. Disk is everything in the cache folder.
All clocks start after the imports, and TOKENIZERS_PARALLELISM is on for all. The tutorial's way at 650,000 rows takes
many minutes and gigabytes a round, and rates hardly depend on the number of rows, hence the sample.

The project alone then prepares the full table of ``--rows`` rows, once: peak memory, rows/s, disk. On the cache so
filled, new processes with the same options measure in every round:
    second start: seconds from the end of the imports to the first training batch, and from the start of the
        interpreter to it. The files are in the system's page cache.
    loader: reviews/s of ``train_dataloader()`` at batch size 8, over 20,000 batches or 10 seconds, the epoch's shuffle
        included; and reviews/s of really training the model on the CPU on its batches (float32, AdamW, the first 2
        steps skipped, 12 timed).
``--scale F`` lets the project also prepare a table of F times ``--rows`` rows, once: by how much its peak memory grows.

Padding efficiency is the share of real tokens among those computed, on the real rows of --data at 512 tokens: three
epochs of training batches, and the evaluation batches, at batch sizes 8 and 32.

Peak memory is that of the process, from its start. Numbers are medians over the rounds. The last line of the output is
one JSON object. Who fails ends the benchmark.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

from common import circumstances, leave_result, measure, resolve_model
from data_children import BATCH_SIZES, CHILDREN, CONTESTANTS, Result, Settings

# Nothing large is imported here: a process on Linux inherits the peak memory of the one that started it.

TUTORIAL_BYTES, PROJECT_BYTES = 6_000, 2_500  # disk a row, table and cache, that is asked for before compute


def run(name: str, settings: Settings, where: str) -> Result:
    """Run one child in a folder of its own, which is removed."""
    with tempfile.TemporaryDirectory(dir=where, prefix="data-benchmark.") as folder:
        return measure(__file__, name, replace(settings, folder=folder, started=time.time()))


def rounds_of(names: list[str], settings: Settings, count: int, where: str) -> dict[str, list[Result]]:
    """Run children in turn, ``count`` rounds."""
    results: dict[str, list[Result]] = {name: [] for name in names}
    for number in range(count):
        for name, rounds in results.items():
            rounds.append(run(name, settings, where))
            values = ", ".join(f"{key} {value:,.2f}" for key, value in rounds[-1].items())
            print(f"round {number + 1}/{count}  {name}: {values}", file=sys.stderr, flush=True)
    return results


def medians(results: dict[str, list[Result]], key: str) -> dict[str, float]:
    """Median over the rounds of each child that measured ``key``."""
    return {name: median(one[key] for one in each) for name, each in results.items() if key in each[0]}


def prepare_once(settings: Settings, rows: int, where: str) -> tuple[Settings, Result]:
    """Make a table up and let the project prepare it once; what its child was given, and what it measured."""
    settings = replace(settings, table=f"{where}/{rows}.parquet", rows=rows, cache=f"{where}/{rows}")
    run("make_up", settings, where)
    return settings, rounds_of(["project"], settings, 1, where)["project"][0]


def compare(args: argparse.Namespace, where: str) -> Result:
    """Run all children; the report without the circumstances."""
    real = run("padding", args.settings, where)
    sample = replace(args.settings, table=f"{where}/sample.parquet", rows=args.sample)
    run("make_up", sample, where)
    results = rounds_of(list(CONTESTANTS), sample, args.rounds, where)
    settings, full = prepare_once(args.settings, args.rows, where)
    again = rounds_of(["second_start", "loader"], settings, args.rounds, where)
    rates = medians(results, "rows_per_s")
    disk = {name: size / args.sample for name, size in medians(results, "disk").items()}
    loading, training = medians(again, "loader")["loader"], medians(again, "train")["loader"]
    report = {
        "rows_per_s_ratio": rates["project"] / rates["tutorial"],
        "rows_over_raw_ratio": rates["project"] / rates["raw"],
        "rows_over_raw_fast_ratio": rates["project"] / rates["raw_fast"],
        "disk_ratio": disk["project"] / disk["tutorial"],
        "peak_rss_mb": full["peak_rss_mb"],
        "second_start_s": medians(again, "seconds")["second_start"],
        "second_start_with_imports_s": medians(again, "with_imports")["second_start"],
        "padding_efficiency_train": min(real["train"].values()),
        "padding_efficiency_eval": real["eval"][str(BATCH_SIZES[0])],
        "padding_efficiency": {kind: real[kind] for kind in ("train", "eval")},
        "loader_over_train_ratio": loading / training,
        "loader_reviews_per_s": loading,
        "train_reviews_per_s": training,
        "train_tokens_per_review": medians(again, "train_tokens_per_review")["loader"],
        "rows_per_s": rates,
        "rows_per_s_full": full["rows_per_s"],
        "disk_bytes_per_row": disk | {"full": full["disk"] / args.rows},
        "peak_rss_mb_sample": medians(results, "peak_rss_mb"),
        "tokens_per_review": {"made_up": full["tokens_per_review"], "real": real["tokens_per_review"]},
        "rounds_rows_per_s": {name: [one["rows_per_s"] for one in each] for name, each in results.items()},
    }
    if args.scale:
        shutil.rmtree(settings.cache)
        larger = prepare_once(args.settings, round(args.rows * args.scale), where)[1]
        report["peak_rss_growth"] = larger["peak_rss_mb"] / full["peak_rss_mb"] - 1
        report |= {f"{key}_scaled": larger[key] for key in ("peak_rss_mb", "rows_per_s")}
    return report | {key: getattr(args, key) for key in ("model", "rows", "sample", "scale", "rounds")}


def parse_arguments() -> argparse.Namespace:
    """Read the command line and refuse what cannot run, before any compute."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--model", default="embedded", help="`embedded`, a folder or a hub id (%(default)s)")
    parser.add_argument("--rows", type=int, default=650_000, help="rows of the full table (%(default)s)")
    parser.add_argument("--sample", type=int, help="rows of the table of the comparisons (100000, at most --rows)")
    parser.add_argument("--scale", type=float, default=0, help="also prepare this many times --rows (0: do not)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contestant (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where temporary files go (the system's folder for them)")
    args = parser.parse_args()
    args.sample = min(100_000, args.rows) if args.sample is None else args.sample
    if args.rounds < 1:
        parser.error(f"`--rounds` must be at least 1; got {args.rounds}.")
    if not 100 <= args.sample <= args.rows:
        parser.error(f"`--sample` must be from 100 to `--rows`; got {args.sample} of {args.rows}.")
    if args.scale != 0 and not 1 < args.scale <= 1000:
        parser.error(f"`--scale` must be 0, or above 1 and at most 1000; got {args.scale:g}.")
    if args.folder is not None and not (args.folder.is_dir() and os.access(args.folder, os.W_OK)):
        parser.error(f"`--folder` must be a folder that can be written to; got {args.folder}.")
    args.folder = str((args.folder or Path(tempfile.gettempdir())).resolve())
    needed = args.sample * TUTORIAL_BYTES + args.rows * (1 + args.scale) * PROJECT_BYTES
    if (free := shutil.disk_usage(args.folder).free) < needed:
        parser.error(f"{args.folder} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB are needed: give `--folder`.")
    from pyarrow import ArrowException, parquet

    for file in (args.data / "train.parquet", args.data / "test.parquet"):
        try:
            found = parquet.read_metadata(file)
        except (OSError, ArrowException) as error:
            parser.error(f"`--data` must be a folder with train.parquet and test.parquet; {file}: {error}")
        if not found.num_rows or not {"label", "text"} <= set(found.schema.to_arrow_schema().names):
            parser.error(f"`--data`: {file} must have rows and the columns label (0..4) and text.")
    args.settings = Settings(resolve_model(args.model), str(args.data.resolve()))
    if error := run("probe", args.settings, args.folder).get("error"):
        parser.error(f"`--model`: {error}")
    return args


def main() -> None:
    """Run the children, print the table, then the JSON line."""
    args = parse_arguments()
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="data-benchmark.") as folder:
        report = compare(args, folder)
    rates = report["rounds_rows_per_s"] | {"full": [report["rows_per_s_full"]]}
    peaks = report["peak_rss_mb_sample"] | {"full": report["peak_rss_mb"]}
    print(f"{'contestant':<12}{'rows/s (min-max)':>28}{'disk bytes/row':>16}{'peak MB':>10}")
    for name, each in rates.items():
        rate = f"{median(each):,.0f} ({min(each):,.0f}-{max(each):,.0f})"
        disk = report["disk_bytes_per_row"].get(name)
        print(f"{name:<12}{rate:>28}{f'{disk:,.0f}' if disk else '-':>16}{peaks[name]:>10,.0f}")
    report |= circumstances(__file__, ("torch", "transformers", "lightning", "datasets", "tokenizers", "pyarrow"))
    # Five digits of every measured number.
    print(json.dumps(json.loads(json.dumps(report), parse_float=lambda number: float(f"{float(number):.5g}"))))


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    if sys.argv[1:2] == ["--child"]:
        given = Settings(**json.loads(sys.argv[3]))
        leave_result(given.folder, CHILDREN[sys.argv[2]](given))
    else:
        main()
