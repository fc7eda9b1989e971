"""Data files: a file, plain or compressed, or one inside a zip; its name, its content's hash, its bytes."""

import csv
import hashlib
import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import xxhash

from yelp_lightning.errors import UsageError

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
# .json holds one object a line, as Yelp's own files do; .arrow is what `datasets` keeps of a Hub id.
TABLES = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".arrow")
ENDINGS = "csv, tsv, jsonl or parquet, plain, .gz, .zst or in a .zip"
# What readers raise for a file that is not what its ending says, or is cut off.
BROKEN = (
    ValueError, OSError, EOFError, RuntimeError, LookupError, ArithmeticError, MemoryError,
    csv.Error, zlib.error, lzma.LZMAError, zipfile.BadZipFile, pa.ArrowException,
)  # fmt: skip


@dataclass(frozen=True)
class DataFile:
    """A file, or one file inside a zip.

    Args:
        path: The file.
        member: Name inside the zip; empty for a plain file.
        title: What messages call it; empty means its path.
    """

    path: Path
    member: str = ""
    title: str = ""

    def __str__(self) -> str:
        if self.title:
            return self.title
        return f"{self.path}/{self.member}" if self.member else str(self.path)

    @property
    def name(self) -> str:
        """Name without its folders, such as ``train.csv.gz``."""
        return Path(self.member or self.path).name

    @property
    def compression(self) -> str | None:
        """``gzip``, ``zstd`` or None."""
        return COMPRESSIONS.get(Path(self.name).suffix)

    @property
    def format(self) -> str:
        """The ending that says what the rows look like, such as ``.csv``."""
        return Path(Path(self.name).stem if self.compression else self.name).suffix

    @property
    def unit(self) -> str:
        """What ``Chunk.lines`` counts, for messages."""
        return "row" if self.format in (".parquet", ".arrow") else "line"

    def digest(self) -> str:
        """Hash of its content: another file of the same name, size and time has another."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest() + self.member


def zip_members(path: Path, option: str, formats: Sequence[str] = TABLES) -> list[DataFile]:
    """The tables inside a zip.

    Args:
        path: The zip.
        option: The option that named it, for errors.
        formats: Endings that count.

    Returns:
        Its files with one of these endings, by name; what an operating system left there does not count.

    Raises:
        UsageError: If it is no zip.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if not name.startswith("__MACOSX") and name[-1:] != "/")
        if twice := [name for name, after in pairwise(names) if name == after]:
            raise ValueError(f"it holds two files {twice[0]!r}")
    except BROKEN as error:
        raise UsageError(f"`{option}`: {path} cannot be read as zip ({reason_of(error)}): mend the file.") from error
    return [member for member in (DataFile(path, name) for name in names) if member.format in formats]


@contextmanager
def open_stream(file: DataFile) -> Iterator[IO[bytes]]:
    """Open a file's bytes, decompressed.

    Args:
        file: The file.

    Yields:
        A stream; one that was cut off is an error once its end is read.
    """
    with ExitStack() as stack:
        if not file.member:
            yield stack.enter_context(pa.input_stream(str(file.path), file.compression, buffer_size=2**20))
            return
        member = stack.enter_context(zipfile.ZipFile(file.path)).open(file.member)
        stack.enter_context(member)
        # Read to its end, a member is checked against the zip's own checksum.
        yield stack.enter_context(pa.CompressedInputStream(member, file.compression)) if file.compression else member


@contextmanager
def open_seekable(file: DataFile) -> Iterator[Any]:
    """Open a file for readers that jump about in it: a compressed one is copied for that.

    Args:
        file: The file.

    Yields:
        Its path, or its decompressed copy.
    """
    if not file.member and not file.compression:
        yield file.path
        return
    with tempfile.TemporaryFile() as copy, open_stream(file) as stream:
        shutil.copyfileobj(stream, copy)
        yield copy


def reason_of(error: Exception) -> str:
    """The first line of what a reader says.

    Args:
        error: One of ``BROKEN``.

    Returns:
        Its message, without a full stop.
    """
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
