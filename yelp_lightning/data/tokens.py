"""Tokens: each review encoded once by the model's own tokenizer, kept in an Arrow file, unpadded."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

# Part of the cache key: raise it when what an encoded file holds changes.
_FORMAT = 1


class TokenRows(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Encoded reviews; indexing with several row numbers gives their padded batch.

    ``B`` is rows in a batch, ``T`` tokens of its longest row.

    Args:
        encoded: Data set with ``input_ids`` (int32 lists) and ``label``, from ``encode``.
        pad_token_id: Token that fills short rows up.
    """

    def __init__(self, encoded: "Dataset", pad_token_id: int) -> None:
        # One flat array and offsets instead of Arrow rows: a batch is then a few slices.
        column = encoded.data.column("input_ids").combine_chunks()
        self.tokens = torch.from_numpy(column.values.to_numpy(zero_copy_only=False).copy())
        self.offsets: npt.NDArray[np.int64] = column.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
        self.labels = torch.as_tensor(encoded.data.column("label").to_numpy().copy(), dtype=torch.int64)
        self.pad_token_id = pad_token_id

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each row, special ones included, ``(n,)``."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: int | list[int]) -> dict[str, Tensor]:
        """Pad the given rows to the longest of them.

        Args:
            rows: Row numbers, ``(B,)``; a single number counts as one row.

        Returns:
            ``input_ids (B, T)``, ``attention_mask (B, T)``, ``labels (B,)`` and ``row (B,)``, the row numbers; int64.
        """
        rows = [rows] if isinstance(rows, int) else rows
        sequences = [self.tokens[self.offsets[row] : self.offsets[row + 1]] for row in rows]
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        input_ids = pad_sequence(sequences, batch_first=True, padding_value=self.pad_token_id).long()
        # The mask comes from the lengths: a review may contain the padding token's own id.
        attention_mask = (torch.arange(input_ids.shape[1]) < lengths[:, None]).long()
        index = torch.tensor(rows)
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": self.labels[index], "row": index}


def encode(
    rows: "Dataset", tokenizer: "PreTrainedTokenizerBase", max_length: int, cache_dir: Path | None, name: str
) -> TokenRows:
    """Encode reviews, or find them encoded already.

    Args:
        rows: Data set with ``text`` and, unless they are to be predicted, ``label``.
        tokenizer: The model's own tokenizer.
        max_length: Longest row, tokens, special ones included; what is longer loses its end.
        cache_dir: Folder of encoded files; None keeps them in memory only.
        name: What the rows are, for the progress bar.

    Returns:
        The rows' tokens, in the same order; rows without a label get label 0.
    """
    from datasets import Features, List, Value

    key = _cache_key(rows, tokenizer, max_length)
    cache_file = None
    if cache_dir is not None:
        cache_dir.mkdir(parents=True, exist_ok=True)
        cache_file = cache_dir / f"{key}.arrow"
        _remove_broken(cache_file, len(rows))
    encoded = rows.map(
        _encode_batch,
        batched=True,
        fn_kwargs={"tokenizer": tokenizer, "max_length": max_length},
        remove_columns=rows.column_names,
        features=Features({"input_ids": List(Value("int32")), "label": Value("int64")}),
        # `map` writes to a temporary file beside this one and renames it; an existing file is read instead.
        cache_file_name=None if cache_file is None else str(cache_file),
        keep_in_memory=cache_file is None,
        new_fingerprint=key,
        desc=f"Tokenizing {name} reviews",
    )
    pad_token_id = tokenizer.pad_token_id
    assert isinstance(pad_token_id, int), f"{type(tokenizer).__name__} has no padding token"
    return TokenRows(encoded, pad_token_id)


def _encode_batch(
    batch: dict[str, list[Any]], tokenizer: "PreTrainedTokenizerBase", max_length: int
) -> dict[str, list[Any]]:
    input_ids = tokenizer(
        batch["text"], truncation=True, max_length=max_length, padding=False, return_attention_mask=False,
        return_token_type_ids=False,
    )["input_ids"]  # fmt: skip
    return {"input_ids": input_ids, "label": batch.get("label", [0] * len(input_ids))}


def _remove_broken(cache_file: Path, rows: int) -> None:
    """Remove a cache file that a power cut or a full disk left incomplete: it is then written again."""
    from datasets import Dataset

    if cache_file.exists():
        try:
            whole = len(Dataset.from_file(str(cache_file))) == rows
        except (pa.ArrowException, OSError):
            whole = False
        if not whole:
            cache_file.unlink()


def _cache_key(rows: "Dataset", tokenizer: "PreTrainedTokenizerBase", max_length: int) -> str:
    """Content of the rows, the tokenizer and the options: anything that changes a token changes the key."""
    # The first call moves the truncation, its side included, into the tokenizer's state.
    _encode_batch({"text": [""]}, tokenizer, max_length)
    key = hashlib.sha256(f"{_FORMAT} {max_length} {type(tokenizer).__name__}".encode())
    backend = getattr(tokenizer, "backend_tokenizer", None)
    key.update((backend.to_str() if backend else repr(sorted(tokenizer.get_vocab().items()))).encode())
    for batch in rows.iter(batch_size=1000):
        for text in batch["text"]:
            data = text.encode("utf-8", "surrogatepass")
            key.update(len(data).to_bytes(8, "little") + data)
        key.update(repr(batch.get("label")).encode())
    return key.hexdigest()[:32]
