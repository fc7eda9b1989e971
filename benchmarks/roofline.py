"""How much of the machine's matrix rate training and inference reach, counted on real tokens, and where the rest goes.

Run:
    python benchmarks/roofline.py --data FOLDER
    python benchmarks/roofline.py --data FOLDER --bert_base --full_length --batch_size 32

The floor is the fewest operations that the real tokens need (operations.py has the formula: no padding, attention by
true lengths), over the rate of matrix products measured in the same run, in the same dtype, at the model's own shapes
(``matrix_gflops``). The fraction reached (MFU) is the floor over the seconds that were measured:
    mfu_train: steps of this project's `fit`, forward, backward, optimizer and loading, the first 2 left out.
    mfu_inference: batches of this project's `test`, in the same precision, the first 2 left out.
Both with what this project does by itself, or with the options that make it fastest (``--way``, tutorial_ways.py).
The rate, the training and the inference are each measured in a fresh process, in turn, ``--rounds`` times; the fraction
is taken in each round, and medians are reported.

The profile is of ``--profile_steps`` training steps in a further process: shares of the wall clock (on an accelerator:
of its own time). `attention` holds its matrix products too, `other` all that has no group, `between operations` the
time in which Python prepares the next one. The operations that take most are listed one by one.

The last line of the output is one JSON object. Who fails ends the benchmark.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from clock import WARMUP_STEPS, Steps
from common import call, callback, circumstances, leave_result, measure, resolve_model, significant
from tutorial_ways import FASTEST, FASTEST_TEST, ROWS_SEED

LONG = 520  # words of a review that fills 512 tokens, whatever its words

Result = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What every child is given.

    Args:
        model: ``embedded``, a folder or a hub id.
        data: Folder with ``train.parquet`` and ``test.parquet``; for all but `prepare`, with validation rows too.
        steps: Optimizer steps of one epoch.
        batch_size: Reviews per step.
        test_rows: Rows of the inference.
        profile_steps: Steps to profile.
        precision: ``trainer.precision``.
        accelerator: ``trainer.accelerator``.
        fit: Further options of `fit`.
        test: Further options of `test`.
        bert_base: Whether to make a random BERT of bert-base's shape up.
        full_length: Whether to join reviews until each fills 512 tokens.
        folder: Empty folder to write to.
    """

    model: str
    data: str
    steps: int
    batch_size: int
    test_rows: int
    profile_steps: int
    precision: str
    accelerator: str
    fit: dict[str, Any] = field(default_factory=dict)
    test: dict[str, Any] = field(default_factory=dict)
    bert_base: bool = False
    full_length: bool = False
    folder: str = ""


def prepare(settings: Settings) -> Result:
    """Write the rows that are used, the model where one is made up, and say what `auto` precision means."""
    import torch
    from pyarrow import parquet
    from transformers import BertConfig, BertModel

    from yelp_lightning.pretrained import load_tokenizer
    from yelp_lightning.training.precision import choose

    folder = Path(settings.folder)
    needed = {"train": settings.steps * settings.batch_size, "validation": settings.batch_size}
    for split, count in {**needed, "test": settings.test_rows}.items():
        rows = parquet.read_table(f"{settings.data}/{'test' if split == 'test' else 'train'}.parquet")
        texts, labels = rows["text"].to_pylist(), rows["label"].to_pylist()
        # The rows come again where there are too few: nothing is learned here.
        first = needed["train"] if split == "validation" else 0
        order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(ROWS_SEED)).tolist()
        chosen = [order[(first + number) % len(order)] for number in range(count)]
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for number, row in enumerate(chosen):
                text = f"{number} {texts[row]}"  # so that none stands twice
                while settings.full_length and len(text.split()) < LONG:
                    text += f" {texts[row] or 'nothing'}"
                file.write(json.dumps({"label": labels[row], "text": text}) + "\n")
    model = settings.model
    if settings.bert_base:
        tokenizer, model = load_tokenizer(settings.model), str(folder / "bert_base")
        tokenizer.save_pretrained(model)
        BertModel(BertConfig(vocab_size=len(tokenizer))).save_pretrained(model)
    return {"model": model, "precision": choose(settings.precision, _device(settings), "fit")}


def _device(settings: Settings) -> str:
    import torch

    return "cuda" if settings.accelerator != "cpu" and torch.cuda.is_available() else "cpu"


def _network(settings: Settings) -> Any:
    from yelp_lightning.pretrained import load_classifier

    return load_classifier(settings.model, 5)


def matrix(settings: Settings) -> Result:
    """The rate of matrix products alone."""
    import torch
    from operations import matrix_rate

    kinds = {"bf16": torch.bfloat16, "16": torch.float16, "32": torch.float32, "64": torch.float64}
    dtype = kinds[settings.precision.partition("-")[0]]
    return {"gflops": matrix_rate(_network(settings), dtype, _device(settings))}


def _fit(settings: Settings, listener: str) -> None:
    common = {
        "seed_everything": ROWS_SEED,
        "model.pretrained": settings.model,
        "data.source": settings.data,
        "data.batch_size": settings.batch_size,
        "data.cache_dir": f"{settings.folder}/tokens",
        "trainer.max_epochs": 1,
        "trainer.precision": settings.precision,
        "trainer.accelerator": settings.accelerator,
        "trainer.default_root_dir": f"{settings.folder}/run",
        "trainer.callbacks+": listener,
    }
    call("fit", common | settings.fit)


def train(settings: Settings) -> Result:
    """Train, then measure the inference of the same run."""
    from operations import operations

    paths = {name: f"{settings.folder}/{name}.json" for name in ("train", "inference")}
    _fit(settings, callback("step_timer.StepTimer", path=paths["train"]))
    test = {
        "ckpt_path": f"{settings.folder}/run",
        "data.source": settings.data,
        "data.cache_dir": f"{settings.folder}/tokens",
        "trainer.precision": settings.precision,
        "trainer.accelerator": settings.accelerator,
        "trainer.callbacks+": callback("step_timer.TestTimer", path=paths["inference"]),
    }
    call("test", test | settings.test)
    network, found = _network(settings), {}
    for name, path in paths.items():
        seen = json.loads(Path(path).read_text())
        whole = seen.pop("seconds", math.nan)
        steps = Steps(**seen)
        few = len(steps.ends) <= WARMUP_STEPS
        seconds, batches = (whole, steps.lengths) if few else steps.timed(len(steps.ends))
        lengths = [length for batch in batches for length in batch]
        gflop = operations(network, lengths, backward=name == "train") / 1e9
        found |= {
            f"gflop_per_s_{name}": gflop / seconds,
            f"reviews_per_s_{name}": len(lengths) / seconds,
            f"tokens_per_s_{name}": sum(lengths) / seconds,
            f"tokens_per_review_{name}": sum(lengths) / len(lengths),
        }
    return found


def profile(settings: Settings) -> Result:
    """Profile training steps."""
    path = f"{settings.folder}/profile.json"
    _fit(settings, callback("step_profiler.StepProfiler", path=path, steps=settings.profile_steps))
    found: Result = json.loads(Path(path).read_text())
    return found


CHILDREN: dict[str, Callable[[Settings], Result]] = {one.__name__: one for one in (prepare, matrix, train, profile)}


def parse_arguments() -> argparse.Namespace:
    """Read the command line and refuse what cannot run, before any compute."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="`embedded`, a folder or a hub id (%(default)s)")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--way", choices=("default", "fastest"), default="fastest", help="(%(default)s)")
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps of a training (%(default)s)")
    parser.add_argument("--batch_size", type=int, default=8, help="reviews per step (%(default)s)")
    parser.add_argument("--test_rows", type=int, default=400, help="reviews of the inference (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--profile_steps", type=int, default=20, help="steps to profile (%(default)s)")
    parser.add_argument("--precision", default="auto", help="trainer.precision (%(default)s)")
    parser.add_argument("--accelerator", choices=("auto", "cpu"), default="auto", help="(%(default)s)")
    parser.add_argument("--options", nargs="*", default=[], metavar="NAME=VALUE", help="further options of `fit`")
    parser.add_argument("--test_options", nargs="*", default=[], metavar="NAME=VALUE", help="those of `test`")
    parser.add_argument("--bert_base", action="store_true", help="a random BERT of bert-base's shape, --model's tokens")
    parser.add_argument("--full_length", action="store_true", help="join reviews until each fills 512 tokens")
    args = parser.parse_args()
    if min(args.steps - WARMUP_STEPS, args.batch_size, args.test_rows, args.rounds, args.profile_steps) < 1:
        parser.error(f"`--steps` must be above {WARMUP_STEPS}, the other counts at least 1.")
    if args.profile_steps > args.steps - WARMUP_STEPS:
        parser.error(
            f"`--profile_steps` must be at most {args.steps - WARMUP_STEPS}, `--steps` without the first ones."
        )
    for file in (args.data / "train.parquet", args.data / "test.parquet"):
        if not file.is_file():
            parser.error(f"`--data` must be a folder with train.parquet and test.parquet; {file} does not exist.")
    return args


def run(args: argparse.Namespace, where: str) -> dict[str, Any]:
    """Run the children; the report without the circumstances."""

    def child(name: str, settings: Settings) -> Result:
        with tempfile.TemporaryDirectory(dir=where) as folder:
            found = measure(__file__, name, replace(settings, folder=folder))
        print(f"{name}: {json.dumps(significant(found))[:200]}", file=sys.stderr, flush=True)
        return found

    names = ("steps", "batch_size", "test_rows", "profile_steps", "precision", "accelerator")
    given = {name: getattr(args, name) for name in (*names, "bert_base", "full_length")}
    fit, test = ({} if args.way == "default" else dict(options) for options in (FASTEST, FASTEST_TEST))
    fit |= dict(option.split("=", 1) for option in args.options)
    test |= dict(option.split("=", 1) for option in args.test_options)
    settings = Settings(resolve_model(args.model), str(args.data.resolve()), **given, fit=fit, test=test)
    ready = measure(__file__, "prepare", replace(settings, folder=where))
    settings = replace(settings, data=where, model=ready["model"], precision=ready["precision"])
    rounds = [child("matrix", settings) | child("train", settings) for _ in range(args.rounds)]
    report = {
        "mfu_train": median(one["gflop_per_s_train"] / one["gflops"] for one in rounds),
        "mfu_inference": median(one["gflop_per_s_inference"] / one["gflops"] for one in rounds),
        "matrix_gflops": median(one["gflops"] for one in rounds),
        **{key: median(one[key] for one in rounds) for key in rounds[0] if key != "gflops"},
        "rounds": rounds,
        "profile": child("profile", settings),
    }
    return report | {"model": args.model, "way": args.way} | given | {"precision": ready["precision"], "options": fit}


def main() -> None:
    """Run the children, print the tables, then the JSON line."""
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as where:
        report = run(args, where)
    print(f"matrix products, {report['precision']}, at the model's shapes: {report['matrix_gflops']:,.0f} GFLOP/s")
    print(f"{'':<12}{'reviews/s':>11}{'real tokens/s':>15}{'GFLOP/s needed':>16}{'MFU':>8}")
    for name in ("train", "inference"):
        reviews, tokens, rate = (report[f"{key}_per_s_{name}"] for key in ("reviews", "tokens", "gflop"))
        print(f"{name:<12}{reviews:>11.1f}{tokens:>15,.0f}{rate:>16,.0f}{report[f'mfu_{name}']:>8.1%}")
    print(f"{'a training step':<48}{'share':>8}")
    for group, share in report["profile"]["shares"].items():
        print(f"  {group:<46}{share:>8.1%}")
    for one in report["profile"]["operations"]:
        print(f"    {one['operation'][:26]:<26}  {one['group']:<16}{one['share']:>8.1%}")
    packages = ("torch", "transformers", "lightning")
    print(json.dumps(significant(report | circumstances(__file__, packages))))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        given_settings = Settings(**json.loads(sys.argv[3]))
        leave_result(given_settings.folder, CHILDREN[sys.argv[2]](given_settings))
    else:
        main()
