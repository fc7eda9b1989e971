"""Checkpoints: which file is meant, and how it is read without running anything that it carries."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

from yelp_lightning.errors import UsageError

BEST = "best.ckpt"
LAST = "last.ckpt"


def find_checkpoint(ckpt_path: str, run_folder: Path | None = None) -> Path:
    """Turn what was typed for ``--ckpt_path`` into a file.

    Args:
        ckpt_path: A ``.ckpt`` file; a run folder, which means its ``best.ckpt``; or the word ``best`` or ``last``.
        run_folder: The folder that the words ``best`` and ``last`` refer to.

    Returns:
        The path of an existing file.

    Raises:
        UsageError: If it is a URL, does not exist, is a folder without ``best.ckpt``, or has another ending.
    """
    if "://" in ckpt_path:
        raise UsageError(
            f"`--ckpt_path` is the URL {ckpt_path!r}, but only local files are read: "
            "download it first and give the path of the file."
        )
    path = Path(ckpt_path)
    if ckpt_path in ("best", "last") and run_folder is not None:
        path = run_folder / f"{ckpt_path}.ckpt"
    elif path.is_dir():
        path = path / BEST
    if not path.is_file():
        raise UsageError(
            f"`--ckpt_path` is {ckpt_path!r}, but there is no file {str(path)!r}: "
            "give a .ckpt file or a run folder that holds best.ckpt."
        )
    if path.suffix != ".ckpt":
        raise UsageError(f"`--ckpt_path` is {ckpt_path!r}, whose name does not end in .ckpt: give a .ckpt file.")
    return path


def requeued_checkpoint(run_folder: Path) -> Path | None:
    """The checkpoint that a job goes on from which SLURM took back into its queue and started again.

    Args:
        run_folder: The run's folder.

    Returns:
        Its ``last.ckpt``; None where there is none, or where this is no such job.
    """
    last = run_folder / LAST
    return last if os.environ.get("SLURM_RESTART_COUNT", "0") != "0" and last.exists() else None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint that ``fit`` wrote; only tensors, numbers and text, never code.

    Args:
        path: An existing file.

    Returns:
        Lightning's checkpoint mapping, tensors on the CPU and mapped from the file, not copied.

    Raises:
        UsageError: If the file is no checkpoint, is cut short, has a changed byte, carries code, or was not written by
            this project.
    """
    import torch  # here, because this module must import in milliseconds

    if not zipfile.is_zipfile(path):
        raise UsageError(
            f"`--ckpt_path` {str(path)!r} is no checkpoint or is cut short ({path.stat().st_size} bytes): "
            "give a best.ckpt or last.ckpt that `fit` wrote."
        )
    try:
        # A checkpoint is a zip with a checksum per tensor, which torch does not compare; 3 GB take about a second.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise zipfile.BadZipFile(f"the checksum of {damaged} differs")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"`--ckpt_path` {str(path)!r} carries code, which is never run: a checkpoint holds only tensors, numbers "
            "and text; give a best.ckpt or last.ckpt that `fit` wrote."
        ) from error
    except Exception as error:  # a damaged zip or pickle fails in any way
        raise UsageError(
            f"`--ckpt_path` {str(path)!r} is damaged and cannot be read ({path.stat().st_size} bytes): "
            "give a best.ckpt or last.ckpt that `fit` wrote."
        ) from error
    if not isinstance(checkpoint, dict) or "yelp_lightning_version" not in checkpoint:
        raise UsageError(
            f"`--ckpt_path` {str(path)!r} is a checkpoint of another program: "
            "give a best.ckpt or last.ckpt that `fit` wrote."
        )
    return checkpoint
