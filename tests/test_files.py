"""Files appear whole or not at all: after exceptions, a full disk and kill -9."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import ROOT

from yelp_lightning.errors import UsageError
from yelp_lightning.files import atomic_file, atomic_folder, require_writable


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with atomic_file(path) as temporary:
        temporary.write_text("new", encoding="utf-8")
        assert not path.exists()
        assert temporary.parent == path.parent  # a rename is atomic only within one file system
    assert path.read_text(encoding="utf-8") == "new"
    assert names(tmp_path) == ["result.json"]


def test_a_file_replaces_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("a longer old content", encoding="utf-8")
    with atomic_file(path) as temporary:
        temporary.write_text("new", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "a longer old content"
    assert path.read_text(encoding="utf-8") == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_exception_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, kind: str, error: type[BaseException]
) -> None:
    path = tmp_path / "result"
    old = path if kind == "file" else path / "old"
    old.parent.mkdir(exist_ok=True)
    old.write_text("old", encoding="utf-8")

    def write_half() -> None:
        with (atomic_file if kind == "file" else atomic_folder)(path) as temporary:
            (temporary if kind == "file" else temporary / "new").write_text("half", encoding="utf-8")
            raise error

    with pytest.raises(error):
        write_half()
    assert old.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["result"]
    assert kind == "file" or names(path) == ["old"]


def test_a_folder_replaces_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for content in ("first", "second"):
        with atomic_folder(path) as temporary:
            (temporary / f"{content}.txt").write_text(content, encoding="utf-8")
            (temporary / "deep").mkdir()
            (temporary / "deep" / "file").write_text(content, encoding="utf-8")
            assert not (path / f"{content}.txt").exists()
        assert names(path) == ["deep", f"{content}.txt"]
        assert (path / "deep" / "file").read_text(encoding="utf-8") == content
        assert names(tmp_path) == ["model"]


@pytest.mark.parametrize(("mask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_modes_follow_the_umask(tmp_path: Path, mask: int, file_mode: int, folder_mode: int) -> None:
    with umask(mask):
        with atomic_file(tmp_path / "file") as temporary:
            temporary.write_text("x", encoding="utf-8")
        with atomic_folder(tmp_path / "folder") as folder:
            (folder / "inside").write_text("x", encoding="utf-8")
            (folder / "inside").chmod(0o600)  # as libraries that write through temporary files leave it
            (folder / "deep").mkdir()
        assert os.umask(mask) == mask  # which was only read
    assert mode(tmp_path / "file") == mode(tmp_path / "folder" / "inside") == file_mode
    assert mode(tmp_path / "folder") == mode(tmp_path / "folder" / "deep") == folder_mode


def test_a_missing_parent_raises(tmp_path: Path) -> None:
    for atomic in (atomic_file, atomic_folder):
        with pytest.raises(FileNotFoundError), atomic(tmp_path / "missing" / "result"):
            raise AssertionError("nothing can be written")
    assert names(tmp_path) == []


def test_require_writable_makes_the_folder_and_leaves_nothing(tmp_path: Path) -> None:
    require_writable(tmp_path / "a" / "b", "trainer.default_root_dir")
    assert names(tmp_path / "a") == ["b"]
    assert names(tmp_path / "a" / "b") == []


def test_require_writable_refuses_what_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UsageError, match=rf"`--output` is '{folder}', which cannot be written to \(.+\): name a"):
            require_writable(folder, "--output")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "x"


WRITER = """
import sys, time
from pathlib import Path
from yelp_lightning.files import atomic_file, atomic_folder
path = Path(sys.argv[1])
with (atomic_folder if sys.argv[2] == "folder" else atomic_file)(path) as temporary:
    target = temporary / "file" if sys.argv[2] == "folder" else temporary
    with target.open("w") as file:
        file.write("half")
        file.flush()
        print("writing", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_writer_that_is_killed_leaves_the_old_content(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "result"
    old = path if kind == "file" else path / "file"
    old.parent.mkdir(exist_ok=True)
    old.write_text("old", encoding="utf-8")
    command = [sys.executable, "-c", WRITER, str(path), kind]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
    assert old.read_text(encoding="utf-8") == "old"
    (left,) = set(names(tmp_path)) - {"result"}
    assert left.startswith(".result.")
    assert left.endswith(".tmp")


# One process that saves and is killed, again and again, each time a little later: from before the first byte to after
# the rename. Children are forked, because importing takes seconds.
SAVER = """
import os, signal, sys, time
from pathlib import Path
import torch
from yelp_lightning.run_folder import AtomicCheckpointIO
torch.set_num_threads(1)
path = Path(sys.argv[1])
contents = [{"number": number, "weights": torch.full((5_000_000,), number)} for number in range(2)]
AtomicCheckpointIO().save_checkpoint(contents[0], path)
kept = 0
for delay in range(16):
    child = os.fork()
    if not child:
        AtomicCheckpointIO().save_checkpoint(contents[1 - kept], path)
        os._exit(0)
    time.sleep(0.004 * delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = torch.load(path, weights_only=True)
    assert found["weights"].eq(found["number"]).all(), found
    kept = found["number"]
    print(kept)
"""


def test_a_checkpoint_whose_writer_is_killed_stays_loadable(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SAVER, str(tmp_path / "last.ckpt")]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr
    assert len(process.stdout.split()) == 16
    left = set(names(tmp_path)) - {"last.ckpt"}
    assert left  # some were killed in the middle
    assert all(name.startswith(".last.ckpt.") and name.endswith(".tmp") for name in left)
