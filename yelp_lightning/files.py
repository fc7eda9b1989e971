"""Files that appear whole or not at all: temporary name in the target folder, fsync, rename."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from yelp_lightning.errors import UsageError


def fsync_folder(folder: Path) -> None:
    """Make the names in ``folder`` survive a power cut.

    Args:
        folder: An existing folder.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; on success it becomes ``path`` in one step.

    The temporary file lies in the target folder, because a rename is atomic only within one file system. A crash, a
    full disk or an exception leaves an earlier ``path`` as it was.

    Args:
        path: The final name. Its folder must exist.

    Yields:
        The temporary path, an empty file.

    Raises:
        OSError: If the folder cannot be written to; nothing is swallowed.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        _open_mode(temporary)
        temporary.replace(path)
        fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; on success it becomes ``path``, and an earlier ``path`` is removed.

    Args:
        path: The final name. Its parent must exist.

    Yields:
        The temporary folder, empty.
    """
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    old = temporary.with_suffix(".old")
    try:
        filled = temporary / path.name
        filled.mkdir()
        yield filled
        for file in filled.rglob("*"):
            if file.is_file():
                _open_mode(file)
                with file.open("rb+") as opened:
                    os.fsync(opened.fileno())
        # A folder cannot replace a full folder in one step: the old one steps aside first.
        if path.exists():
            path.rename(old)
        filled.rename(path)
        fsync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def remove_unfinished(folder: Path, names: Iterable[str]) -> None:
    """Remove what a killed process had begun to write by ``atomic_file`` or ``atomic_folder``.

    Args:
        folder: Where it wrote; nothing may be writing there now.
        names: The final names.
    """
    for name in names:
        for path in [*folder.glob(f".{name}.*.tmp"), *folder.glob(f".{name}.*.old")]:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def require_writable(folder: Path, option: str) -> None:
    """Create ``folder`` and prove that a file can be made in it, before any compute is spent.

    Args:
        folder: The folder that will receive results.
        option: The option that named it, for the error.

    Raises:
        UsageError: If the folder cannot be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"`{option}` is {str(folder)!r}, which cannot be written to ({error.strerror}): "
            "name a folder that you may write to."
        ) from error


def require_new(path: Path, option: str) -> None:
    """Prove that a new file can be made at ``path``, before any compute is spent.

    Args:
        path: The file that will be written.
        option: The option that named it, for the error.

    Raises:
        UsageError: If it exists, or its folder cannot be created or written to.
    """
    if path.exists():
        raise UsageError(f"`{option}` {str(path)!r} exists already: delete it or give another name.")
    require_writable(path.parent, option)


def _open_mode(file: Path) -> None:
    """Temporary files are made for their owner's eyes only; results get the mode that any new file would have."""
    mask = os.umask(0)
    os.umask(mask)
    file.chmod(0o666 & ~mask)
