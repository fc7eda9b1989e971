"""Facts about the data: rows, classes, token lengths, truncation, padding, duplicates, one row decoded back."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from yelp_lightning.data.batching import EvalBatches, TrainBatches
from yelp_lightning.data.datamodule import ReviewDataModule
from yelp_lightning.data.tokens import TokenRows
from yelp_lightning.pretrained import class_names, load_tokenizer

PERCENTILES = (0, 5, 25, 50, 75, 90, 95, 99, 100)
# Lengths, tokens, at which the share of truncated reviews is told.
LENGTHS = (32, 64, 96, 128, 192, 256, 384, 512)
# What decides the rows and their tokens.
OPTIONS = (
    "source", "config_name", "revision", "text_column", "label_column", "label_offset", "label_names", "column_names",
    "backslash_escapes", "on_bad_row", "train_size", "val_size", "test_size", "sampling", "seed", "group_column",
    "on_duplicate", "max_length", "truncation", "batch_size",
)  # fmt: skip
# Characters of the example that are shown.
EXAMPLE = 400


def describe(data: ReviewDataModule) -> dict[str, Any]:
    """Everything the card says.

    Args:
        data: A data module whose splits have been set up.

    Returns:
        What data.json holds: ``options``; ``classes``; for each of ``splits`` its summary, ``token_lengths``
        (percentiles, before truncation), ``truncated_at`` (length to share of reviews) and ``length_histogram``;
        ``padding_efficiency`` (real over computed tokens, by how batches are made); ``shared_texts`` (pair of splits to
        texts that stand in both, once duplicates are left out); ``example``.
    """
    options = data.hparams
    return {
        "options": {name: options[name] for name in OPTIONS},
        "tokenizer": options["pretrained"],
        "classes": list(class_names(options["num_labels"], options["label_names"]).values()),
        "splits": {split: data.reviews.summary[split] | _lengths(tokens) for split, tokens in data.tokens.items()},
        "padding_efficiency": _padding(data),
        "shared_texts": _shared(data),
        "example": _example(data),
    }


def _lengths(tokens: TokenRows) -> dict[str, Any]:
    lengths = tokens.full_lengths
    edges = np.unique(np.linspace(0, np.percentile(lengths, 99.5), 41).astype(int))
    counts = np.histogram(np.minimum(lengths, edges[-1]), edges)[0]
    return {
        "token_lengths": {
            "mean": float(lengths.mean()),
            **{f"p{percent}": int(np.percentile(lengths, percent)) for percent in PERCENTILES},
        },
        "truncated_at": {str(length): float((lengths > length).mean()) for length in LENGTHS},
        "length_histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def efficiency(lengths: npt.NDArray[np.int32], batches: Iterable[list[int]]) -> float:
    """Real tokens over computed tokens, padding included.

    Args:
        lengths: Tokens of each row, ``(n,)``.
        batches: Row numbers of each batch.

    Returns:
        A share; 1 means no padding.
    """
    real = computed = 0
    for rows in batches:
        in_batch = lengths[rows]
        real, computed = real + int(in_batch.sum()), computed + len(rows) * int(in_batch.max())
    return real / computed


def _padding(data: ReviewDataModule) -> dict[str, float]:
    lengths, size = data.tokens["train"].lengths, data.hparams["batch_size"]
    order = np.random.default_rng(data.hparams["seed"]).permutation(len(lengths))
    random = [order[start : start + size].tolist() for start in range(0, len(order), size)]
    val = data.tokens["val"].lengths
    return {
        "pad to max_length": float(lengths.mean()) / data.hparams["max_length"],
        "random batches": efficiency(lengths, random),
        "grouped by length (train)": efficiency(lengths, TrainBatches(lengths, size, data.hparams["seed"])),
        "token budget (validation)": efficiency(val, EvalBatches(val, data.eval_tokens)),
    }


def _shared(data: ReviewDataModule) -> dict[str, int]:
    splits = list(data.tokens)
    hashes = {split: np.unique(data.reviews.hashes(split)) for split in splits}
    pairs = [(one, other) for i, one in enumerate(splits) for other in splits[i + 1 :]]
    return {f"{one} and {other}": int(np.isin(hashes[one], hashes[other]).sum()) for one, other in pairs}


def _example(data: ReviewDataModule) -> dict[str, Any]:
    tokens = data.tokens["train"]
    ids = tokens.tokens(0).tolist()
    decoded = load_tokenizer(data.tokenizer_source).decode(ids)
    names = class_names(data.hparams["num_labels"], data.hparams["label_names"])
    return {
        "row": int(data.reviews.chosen["train"][0]) + 1,
        "label": names[int(tokens.labels[0])],
        "text": next(data.reviews.texts("train"))[:EXAMPLE],
        "tokens": len(ids),
        "decoded": decoded[:EXAMPLE],
    }
