"""Tokens: each review encoded once by the model's own tokenizer, kept in an Arrow file, unpadded."""

import contextlib
import ctypes
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from hashlib import sha256
from itertools import chain, islice
from multiprocessing import get_context
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor
from tqdm import tqdm

from yelp_lightning.data.cache import cached
from yelp_lightning.data.rows import Rows, Table
from yelp_lightning.data.truncation import Encoder, Truncation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Part of the cache key: raise it when what an encoded file holds changes.
_FORMAT = 3
_THREADS = 2
# Reviews per record batch of the file, and per call of the tokenizer.
BATCH_ROWS = 1_000
# Places of a file that are read before its pages are given back: 64 MiB at most.
TOUCHES = 1_000
SCHEMA = pa.schema(
    {
        "input_ids": pa.list_(pa.int32()),
        "length": pa.int32(),  # tokens kept
        "full_length": pa.int32(),  # tokens before truncation
        "label": pa.int16(),
        "row": pa.int32(),  # number of the row in its table
    }
)


class TokenRows(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Encoded reviews, read from their file as they are needed; indexing with row numbers gives their padded batch.

    ``B`` is rows in a batch, ``T`` tokens of its longest row.

    Args:
        path: Arrow file from ``encode``.
        pad_token_id: Token that fills short rows up.
    """

    multiple = 1
    """The padded length is a multiple of this."""
    _touched = 0

    def __init__(self, path: Path, pad_token_id: int) -> None:
        self.path = path
        self.pad_token_id = pad_token_id
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        reader = pa.ipc.open_file(pa.py_buffer(self._map))
        count = reader.num_record_batches
        rows = (count - 1) * BATCH_ROWS + reader.get_batch(count - 1).num_rows
        self.lengths: npt.NDArray[np.int32] = np.empty(rows, np.int32)
        self.labels: npt.NDArray[np.int16] = np.empty(rows, np.int16)
        self.truncated = 0
        """Rows that were longer than they are now."""
        # Views of the mapped file: no token is read before its batch is.
        self._tokens, self._offsets, self._full_lengths = [], [], []
        for number in range(count):
            batch = reader.get_batch(number)
            inside = slice(number * BATCH_ROWS, number * BATCH_ROWS + batch.num_rows)
            self.lengths[inside] = batch.column("length").to_numpy()
            self.labels[inside] = batch.column("label").to_numpy()
            self._full_lengths.append(batch.column("full_length").to_numpy())
            self.truncated += int((self._full_lengths[-1] > self.lengths[inside]).sum())
            self._tokens.append(batch.column("input_ids").values.to_numpy())
            self._offsets.append(batch.column("input_ids").offsets.to_numpy())
            self._touch(1)

    def __reduce__(self) -> tuple[Any, ...]:
        """Worker processes that are not forked open the file again."""
        return TokenRows, (self.path, self.pad_token_id), {"multiple": self.multiple}

    def _touch(self, places: int) -> None:
        """Give the file's pages back to the system after some reading.

        The system maps 64 KiB around each place that is read. Kept, the whole file would soon count as memory of this
        process, whatever its size; given back, they stay in the system's own cache as long as there is room.
        """
        self._touched += places
        if self._touched >= TOUCHES and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
            self._touched = 0

    @property
    def full_lengths(self) -> npt.NDArray[np.int32]:
        """Tokens of each row before truncation, ``(n,)``."""
        found = np.empty(len(self), np.int32)
        for number, lengths in enumerate(self._full_lengths):
            found[number * BATCH_ROWS :][: len(lengths)] = lengths
            self._touch(1)
        return found

    def __len__(self) -> int:
        return len(self.labels)

    def tokens(self, row: int) -> npt.NDArray[np.int32]:
        """Tokens of one review.

        Args:
            row: Its number.

        Returns:
            ``(length,)``, special ones included.
        """
        batch, row = divmod(row, BATCH_ROWS)
        start, stop = self._offsets[batch][row : row + 2]
        tokens: npt.NDArray[np.int32] = self._tokens[batch][start:stop]
        return tokens

    def __getitem__(self, rows: int | list[int]) -> dict[str, Tensor]:
        """Pad the given rows to the longest of them, or to the next multiple above it.

        Args:
            rows: Row numbers, ``(B,)``; a single number counts as one row.

        Returns:
            ``input_ids (B, T)``, ``attention_mask (B, T)``, ``labels (B,)`` and ``row (B,)``, the row numbers; int64.
        """
        rows = [rows] if isinstance(rows, int) else rows
        lengths = self.lengths[rows]
        width = -(-int(lengths.max()) // self.multiple) * self.multiple
        input_ids = np.full((len(rows), width), self.pad_token_id, np.int64)
        for ids, row, length in zip(input_ids, rows, lengths.tolist(), strict=True):
            ids[:length] = self.tokens(row)
        self._touch(len(rows))
        # The mask comes from the lengths: a review may contain the padding token's own id.
        mask = np.arange(input_ids.shape[1]) < lengths[:, None]
        return {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
            "labels": torch.from_numpy(self.labels[rows].astype(np.int64)),
            "row": torch.tensor(rows),
        }


def encode(
    rows: Rows, chosen: npt.NDArray[np.int32], tokenizer: "PreTrainedTokenizerBase", max_length: int,
    truncation: Truncation, num_proc: int, cache_dir: Path, name: str,
) -> TokenRows:  # fmt: skip
    """Encode the chosen rows of a table, or find them encoded already.

    Args:
        rows: All rows of the table.
        chosen: Row numbers in rising order, ``(n,)``.
        tokenizer: The model's own tokenizer.
        max_length: Longest row, tokens, special ones included.
        truncation: What a longer row keeps.
        num_proc: Processes that tokenize.
        cache_dir: Folder of encoded files.
        name: What the rows are, for the progress bar.

    Returns:
        The rows' tokens, in the same order.
    """
    encoder = Encoder(tokenizer, max_length, truncation)
    key = sha256(f"{_FORMAT} {rows.table.key} {max_length} {truncation}".encode())
    key.update(np.ascontiguousarray(chosen, np.int32).data)
    # What a class is called does not matter here, which class a row has does.
    key.update(rows.labels[chosen].data)
    key.update(_identity(tokenizer))

    def write(file: IO[bytes]) -> None:
        write_tokens(file, rows.table, chosen, rows.labels[chosen], encoder, num_proc, name)

    return TokenRows(cached(cache_dir, f"tokens-{key.hexdigest()[:32]}", write), pad_token(tokenizer))


def write_tokens(
    file: IO[bytes], table: Table, chosen: npt.NDArray[np.int32], labels: npt.NDArray[np.int16],
    encoder: Encoder, num_proc: int, name: str,
) -> None:  # fmt: skip
    """Write an Arrow file of tokens, ``SCHEMA``, in batches of ``BATCH_ROWS`` reviews.

    Args:
        file: Where to.
        table: Where the texts are.
        chosen: Row numbers in rising order, ``(n,)``.
        labels: Their classes, ``(n,)``.
        encoder: Texts to tokens.
        num_proc: Processes that tokenize.
        name: What the rows are, for the progress bar.
    """
    _trim_heap()
    texts = table.texts(chosen)
    start = 0
    with (
        _executor(num_proc) as executor,
        pa.ipc.new_file(file, SCHEMA) as writer,
        tqdm(desc=f"Tokenizing {name} reviews", total=len(chosen), unit=" rows", delay=2) as progress,
    ):
        for tokens, lengths, full_lengths in _in_order(executor, encoder, _batches(texts), num_proc + _THREADS):
            stop = start + len(lengths)
            offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)])
            lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(tokens))
            columns = [lists, lengths, full_lengths, labels[start:stop], chosen[start:stop]]
            writer.write_batch(pa.record_batch([pa.array(column) for column in columns], schema=SCHEMA))
            start = stop
            progress.update(len(lengths))
    assert start == len(chosen), f"{start} of {len(chosen)} texts were read"
    _trim_heap()


def pad_token(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The token that fills short rows up.

    Args:
        tokenizer: The model's own tokenizer.

    Returns:
        Its number.
    """
    pad_token_id = tokenizer.pad_token_id
    assert isinstance(pad_token_id, int), f"{type(tokenizer).__name__} has no padding token"
    return pad_token_id


def _trim_heap() -> None:
    """Give freed memory back to the system.

    glibc keeps up to 64 MB of what choosing among millions of rows has freed, and the tokenizer's threads, which have
    heaps of their own, would need theirs on top, as would training after them.
    """
    with contextlib.suppress(AttributeError, OSError):  # other C libraries have no such function
        ctypes.CDLL(None).malloc_trim(0)


Encoded = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]


def _encode_batch(encoder: Encoder, texts: list[str]) -> Encoded:
    """Tokens of all texts one after the other, their lengths, and their lengths before truncation."""
    ids, full_lengths = encoder(texts)
    # A blank text of a tokenizer without special tokens has no token: padding stands for it.
    ids = [tokens or [pad_token(encoder.tokenizer)] for tokens in ids]
    lengths = np.fromiter(map(len, ids), np.int32, len(ids))
    tokens = np.fromiter(chain.from_iterable(ids), np.int32, int(lengths.sum()))
    return tokens, lengths, np.array(full_lengths, np.int32)


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(texts, BATCH_ROWS)):
        yield batch


def _executor(num_proc: int) -> Executor:
    """Threads: a fast tokenizer uses all cores by itself, and a second one fills its gaps. Or processes."""
    if num_proc == 1:
        return ThreadPoolExecutor(_THREADS)
    threads = str(max((os.cpu_count() or 1) // num_proc, 1))
    return ProcessPoolExecutor(num_proc, get_context("spawn"), initializer=_set_threads, initargs=(threads,))


def _set_threads(threads: str) -> None:
    os.environ["RAYON_NUM_THREADS"] = threads


def _in_order(executor: Executor, encoder: Encoder, batches: Iterator[list[str]], ahead: int) -> Iterator[Encoded]:
    """Encoded batches in the order of the texts, at most ``ahead`` of them in memory."""
    waiting: deque[Future[Encoded]] = deque()
    encode_batch: Callable[[Encoder, list[str]], Encoded] = _encode_batch
    for batch in batches:
        waiting.append(executor.submit(encode_batch, encoder, batch))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _identity(tokenizer: "PreTrainedTokenizerBase") -> bytes:
    """Everything that decides which tokens a text becomes."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend else repr(sorted(tokenizer.get_vocab().items()))
    return f"{type(tokenizer).__name__} {rules}".encode()
