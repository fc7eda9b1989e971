"""What each child process of data.py does: make a table up, prepare it in one way, or measure what was prepared."""

import importlib
import itertools
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Everything large is imported where it is used: nobody pays for another's memory.

MAX_LENGTH = 512  # tokens, special ones included
RAW_ROWS = 1_000  # texts per call of the bare tokenizer
GROUP_ROWS = 10_000  # rows per row group of a made-up table
MIN_WORDS = 4  # of a made-up text: shorter ones would repeat
BATCH_SIZES = (8, 32)
EPOCHS = 3  # of training batches, for their padding
LOADER_BATCHES, LOADER_SECONDS = 20_000, 10.0
WARMUP_STEPS, TIMED_STEPS = 2, 12
SEED = 42

Result = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What every child is given.

    Args:
        model: ``embedded``, a folder or a hub id.
        data: Folder with the real ``train.parquet`` and ``test.parquet``.
        table: The table to prepare.
        rows: Its rows.
        cache: The project's cache; empty means a fresh one in ``folder``.
        folder: Empty folder to write to.
        started: Seconds on ``time.time`` when the child was started.
    """

    model: str
    data: str
    table: str = ""
    rows: int = 0
    cache: str = ""
    folder: str = ""
    started: float = 0.0

    @property
    def cache_dir(self) -> Path:
        """Folder of the project's cache."""
        return Path(self.cache or f"{self.folder}/cache")


def probe(settings: Settings) -> Result:
    """Say what is wrong with a model that not every contestant could use."""
    from yelp_lightning.errors import UsageError
    from yelp_lightning.pretrained import load_tokenizer, max_positions

    try:
        limits = {max_positions(settings.model), load_tokenizer(settings.model).model_max_length}
    except UsageError as error:
        return {"error": str(error)}
    if limits != {MAX_LENGTH}:
        found = " and ".join(map(str, sorted(limits)))
        return {"error": f"{settings.model} and its tokenizer take {found} tokens: give one with {MAX_LENGTH}."}
    return {}


def make_up(settings: Settings, seed: int = SEED) -> Result:
    """Write the table, a row group at a time; another seed makes another table.

    Each text has as many words as a real one drawn at random, and its words are drawn from all words of the real texts,
    as often as they stand there, with the white space behind them. No text is blank, and practically none repeats. A
    shorter table holds the first rows of a longer one, by whole row groups.
    """
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    real = parquet.read_table(f"{settings.data}/train.parquet", columns=["text"])["text"].to_pylist()
    split = [re.findall(r"\S+\s*", text) for text in real if text]
    words = np.array([word if word[-1].isspace() else f"{word} " for text in split for word in text], object)
    real_lengths = np.maximum([len(text) for text in split], MIN_WORDS)
    rng = np.random.default_rng(seed)
    schema = pa.schema({"label": pa.int64(), "text": pa.string()})
    with parquet.ParquetWriter(settings.table, schema) as writer:
        for start in range(0, settings.rows, GROUP_ROWS):
            count = min(GROUP_ROWS, settings.rows - start)
            lengths = rng.choice(real_lengths, count)
            drawn = iter(words[rng.integers(len(words), size=lengths.sum())].tolist())
            texts = ["".join(itertools.islice(drawn, length)).strip() for length in lengths.tolist()]
            writer.write_table(pa.table({"label": rng.integers(5, size=count), "text": texts}, schema=schema))
    return {}


def raw(settings: Settings, fast: bool = False) -> Result:
    """Encode the texts with the bare tokenizer."""
    from pyarrow import parquet

    from yelp_lightning.pretrained import load_tokenizer

    texts = parquet.read_table(settings.table, columns=["text"])["text"].to_pylist()
    backend: Any = load_tokenizer(settings.model).backend_tokenizer
    backend.no_padding()
    if fast:
        backend.no_truncation()
    else:
        backend.enable_truncation(MAX_LENGTH)
    start = time.perf_counter()
    for first in range(0, len(texts), RAW_ROWS):
        batch = texts[first : first + RAW_ROWS]
        if fast:
            backend.encode_batch_fast(batch, add_special_tokens=False)
        else:
            backend.encode_batch(batch)
    return {"rows_per_s": len(texts) / (time.perf_counter() - start)}


def tutorial(settings: Settings) -> Result:
    """Tokenize as the tutorial does."""
    import datasets

    from yelp_lightning.pretrained import load_tokenizer

    tokenizer = load_tokenizer(settings.model)
    data = datasets.Dataset.from_parquet(settings.table)
    start = time.perf_counter()
    mapped = data.map(lambda batch: tokenizer(batch["text"], padding="max_length", truncation=True), batched=True)
    seconds = time.perf_counter() - start
    if {len(ids) for ids in mapped[:10]["input_ids"]} != {MAX_LENGTH}:
        raise RuntimeError(f"The tutorial's rows are not padded to {MAX_LENGTH} tokens.")
    disk = sum(Path(file["filename"]).stat().st_size for file in mapped.cache_files)
    return {"rows_per_s": len(mapped) / seconds, "disk": disk}


def prepare(settings: Settings, stage: str) -> tuple[Any, float]:
    """This project's data module after ``check`` and ``setup``, and when its clock started, after the imports.

    Args:
        settings: What the child was given.
        stage: ``fit`` or ``test``.
    """
    # What the project imports late, so that the clock starts after it.
    for late in ("pyarrow.parquet", "transformers.models.auto"):
        importlib.import_module(late)
    from yelp_lightning.data.datamodule import ReviewDataModule

    start = time.perf_counter()
    options = {"max_length": MAX_LENGTH, "batch_size": BATCH_SIZES[0], "seed": SEED}
    where = {"source": settings.table, "cache_dir": str(settings.cache_dir)}
    module = ReviewDataModule(pretrained=settings.model, **where, **options)
    module.check(stage)
    module.setup(stage)
    return module, start


def project(settings: Settings) -> Result:
    """Fill an empty cache with this project."""
    cache = settings.cache_dir
    if cache.exists():
        raise RuntimeError(f"The cache {cache} is not empty.")
    module, start = prepare(settings, "fit")
    seconds = time.perf_counter() - start
    tokens = [module.tokens[split] for split in ("train", "val")]
    if (kept := sum(map(len, tokens))) < 0.999 * settings.rows:
        raise RuntimeError(f"{settings.rows} rows were ordered, {kept} were prepared.")
    disk = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    per_review = sum(int(one.full_lengths.sum()) for one in tokens) / kept
    return {"rows_per_s": settings.rows / seconds, "disk": disk, "tokens_per_review": per_review}


def second_start(settings: Settings) -> Result:
    """Start again with the same options, up to the first training batch."""
    module, start = prepare(settings, "fit")
    next(iter(module.train_dataloader()))
    return {"seconds": time.perf_counter() - start, "with_imports": time.time() - settings.started}


def loader(settings: Settings) -> Result:
    """Iterate the training batches, then train on some."""
    batches = prepare(settings, "fit")[0].train_dataloader()

    def epochs() -> Iterator[Result]:
        for epoch in itertools.count():
            batches.sampler.set_epoch(epoch)
            yield from batches

    reviews, start, seconds = 0, time.perf_counter(), 0.0
    for batch in itertools.islice(epochs(), LOADER_BATCHES):
        reviews += len(batch["labels"])
        if (seconds := time.perf_counter() - start) > LOADER_SECONDS:
            break
    return {"loader": reviews / seconds, **train(settings.model, epochs())}


def train(name: str, batches: Iterator[Result]) -> Result:
    """Reviews per second of a plain loop that trains the model on the CPU, and how long its reviews were."""
    import torch

    from yelp_lightning.pretrained import load_classifier

    torch.manual_seed(SEED)
    model = load_classifier(name, 5).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
    reviews, tokens, start = 0, 0, 0.0
    for step in range(WARMUP_STEPS + TIMED_STEPS):
        if step == WARMUP_STEPS:
            reviews, tokens, start = 0, 0, time.perf_counter()
        batch = next(batches)
        optimizer.zero_grad()
        model(**{key: batch[key] for key in ("input_ids", "attention_mask", "labels")}).loss.backward()
        optimizer.step()
        reviews += len(batch["labels"])
        tokens += int(batch["attention_mask"].sum())
    return {"train": reviews / (time.perf_counter() - start), "train_tokens_per_review": tokens / reviews}


def padding(settings: Settings) -> Result:
    """Share of real tokens among the computed ones, on the real rows."""
    from yelp_lightning.data.batching import EvalBatches, TrainBatches

    def share(lengths: Any, batches: list[list[int]]) -> float:
        real = sum(int(lengths[rows].sum()) for rows in batches)
        return real / sum(int(lengths[rows].max()) * len(rows) for rows in batches)

    # A single file serves the stage that reads it, whole: no rows are cut off for validation.
    files = [f"{settings.data}/{split}.parquet" for split in ("train", "test")]
    train, test = (prepare(replace(settings, table=file), "test")[0].tokens["test"] for file in files)
    result: Result = {"train": {}, "eval": {}, "tokens_per_review": float(train.full_lengths.mean())}
    for size in BATCH_SIZES:
        batches: list[list[int]] = []
        sampler = TrainBatches(train.lengths, size, SEED)
        for epoch in range(EPOCHS):
            sampler.set_epoch(epoch)
            batches += sampler
        result["train"][str(size)] = share(train.lengths, batches)
        result["eval"][str(size)] = share(test.lengths, [*EvalBatches(test.lengths, size * MAX_LENGTH)])
    return result


CONTESTANTS: dict[str, Callable[[Settings], Result]] = {
    "raw": raw,
    "raw_fast": lambda settings: raw(settings, fast=True),
    "tutorial": tutorial,
    "project": project,
}
CHILDREN = CONTESTANTS | {one.__name__: one for one in (probe, make_up, second_start, loader, padding)}
