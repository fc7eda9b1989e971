"""The cache: Arrow files under a key, each written once, whole or not at all, by one process."""

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pyarrow as pa
from filelock import FileLock

from yelp_lightning.files import atomic_file

SUFFIX = ".arrow"
_LOCK = ".lock"
# Names that `cached` makes: a file, its lock, and what a writer that was killed left.
_OURS = re.compile(r"(rows|tokens)-[0-9a-f]{32}\.(arrow|lock)|\.(rows|tokens)-[0-9a-f]{32}\.arrow\..+\.tmp")


def cached(folder: Path, key: str, write: Callable[[IO[bytes]], None]) -> Path:
    """Find a file, or write it.

    Processes that ask for the same key at the same time wait for the one that writes. A file that a full disk or a
    power cut left incomplete is written again.

    Args:
        folder: The cache's folder.
        key: What it is, and a hash of everything that the content depends on.
        write: Writes an Arrow file.

    Returns:
        The file.
    """
    path = folder / f"{key}{SUFFIX}"
    if is_whole(path):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(_LOCK)):
        if not is_whole(path):  # another process may have written it meanwhile
            for left in folder.glob(f".{path.name}.*.tmp"):  # the lock is ours: its writer was killed
                left.unlink(missing_ok=True)
            with atomic_file(path) as temporary, temporary.open("wb") as file:
                write(file)
    return path


def is_whole(path: Path) -> bool:
    """Whether a file is there to its end.

    Args:
        path: An Arrow file.

    Returns:
        False where there is none, or one without the footer that is written last.
    """
    try:
        with pa.memory_map(str(path)) as file:
            pa.ipc.open_file(file)
    except (pa.ArrowException, OSError):
        return False
    return True


def clear_cache(folder: Path) -> tuple[int, int]:
    """Remove everything that ``cached`` left in a folder; other files stay.

    Args:
        folder: The cache's folder.

    Returns:
        Files removed, and their bytes.
    """
    files = size = 0
    for path in folder.iterdir() if folder.is_dir() else ():
        if _OURS.fullmatch(path.name):
            files, size = files + (path.suffix == SUFFIX), size + path.stat().st_size
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it may hold what is not ours
        folder.rmdir()
    return files, size
