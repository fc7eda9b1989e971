"""Reading a checkpoint: what is meant, and a sentence for every file that is none; code in it never runs."""

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from yelp_lightning.checkpoint import find_checkpoint, read_checkpoint
from yelp_lightning.errors import UsageError
from yelp_lightning.modeling.classifier import StarClassifier

WAY_OUT = r"[:;] give a best\.ckpt or last\.ckpt that `fit` wrote\.$"


class Payload:
    """Pickled code that would leave a file behind."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def refusal(path: Path) -> str:
    """The sentence that refuses a file; it names the file and the way out."""
    with pytest.raises(UsageError, match=WAY_OUT) as caught:
        read_checkpoint(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"`--ckpt_path` {str(path)!r} ")
    assert "\n" not in sentence
    return sentence


def test_a_run_folder_means_its_best(trained: Path) -> None:
    assert find_checkpoint(str(trained)) == trained / "best.ckpt"
    assert find_checkpoint(str(trained / "last.ckpt")) == trained / "last.ckpt"


def test_the_words_best_and_last_mean_the_run_folders(trained: Path) -> None:
    assert find_checkpoint("best", trained) == trained / "best.ckpt"
    assert find_checkpoint("last", trained) == trained / "last.ckpt"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/best.ckpt", "https://example.org/m.ckpt", "s3://bucket/m.ckpt"])
def test_a_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=f"`--ckpt_path` is the URL '{url}', but only local files are read: download"):
        find_checkpoint(url)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    for typed in (tmp_path / "no.ckpt", tmp_path / "no_folder"):
        with pytest.raises(UsageError, match=f"`--ckpt_path` is '{typed}', but there is no file"):
            find_checkpoint(str(typed))
    with pytest.raises(UsageError, match=r"but there is no file '.*last\.ckpt'"):
        find_checkpoint("last", tmp_path)
    with pytest.raises(UsageError, match=r"but there is no file 'last'"):
        find_checkpoint("last")


def test_a_folder_without_best_is_refused(tmp_path: Path, trained: Path) -> None:
    shutil.copy(trained / "last.ckpt", tmp_path)
    with pytest.raises(UsageError, match=r"there is no file '.*best\.ckpt': give a \.ckpt file or a run folder"):
        find_checkpoint(str(tmp_path))


def test_another_ending_is_refused(trained: Path) -> None:
    for name in ("metrics.json", "model/model.safetensors"):
        with pytest.raises(UsageError, match=r"whose name does not end in \.ckpt"):
            find_checkpoint(str(trained / name))


def test_a_good_checkpoint_is_read_to_the_cpu(trained: Path) -> None:
    checkpoint = read_checkpoint(trained / "best.ckpt")
    assert set(checkpoint) >= {"encoder", "state_dict", "hyper_parameters", "datamodule_hyper_parameters", "reports"}
    assert {tensor.device.type for tensor in checkpoint["state_dict"].values()} == {"cpu"}


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"<!doctype html><title>404</title>" * 50, bytes(range(256)) * 16],
    ids=["zero bytes", "two bytes", "html page", "noise"],
)
def test_no_checkpoint_at_all_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.ckpt"
    path.write_bytes(content)
    assert f"is no checkpoint or is cut short ({len(content)} bytes)" in refusal(path)


@pytest.mark.parametrize("kept", [0.01, 0.5, 0.99, -1])
def test_a_cut_checkpoint_is_refused(trained: Path, tmp_path: Path, kept: float) -> None:
    content = (trained / "best.ckpt").read_bytes()
    path = tmp_path / "m.ckpt"
    path.write_bytes(content[: -1 if kept == -1 else int(kept * len(content))])
    assert "is no checkpoint or is cut short" in refusal(path)


def test_a_flipped_bit_is_refused_wherever_it_matters(trained: Path, tmp_path: Path) -> None:
    content = (trained / "best.ckpt").read_bytes()
    path = tmp_path / "m.ckpt"
    with zipfile.ZipFile(trained / "best.ckpt") as archive:
        records = {entry.filename: entry for entry in archive.infolist()}
        sizes = {name: entry.file_size for name, entry in records.items()}
        starts = {name: content.index(archive.read(name)) for name in records if sizes[name] > 64}
    pickled = next(name for name in starts if name.endswith("data.pkl"))
    largest = max(starts, key=lambda name: sizes[name])
    generator = np.random.default_rng(0)
    for name in (pickled, largest, *generator.choice(list(starts), 10)):
        damaged = bytearray(content)
        damaged[starts[name] + generator.integers(sizes[name])] ^= 1 << generator.integers(8)
        path.write_bytes(damaged)
        assert f"is damaged and cannot be read ({len(content)} bytes)" in refusal(path)
    path.write_bytes(content)
    assert read_checkpoint(path)["encoder"]


def test_a_zip_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.txt", "dear reader")
    assert "is damaged and cannot be read" in refusal(path)


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {"weight": torch.zeros(3)}, "epoch": 1},
        {"encoder": {"weight": torch.zeros(3)}, "decoder": {}},  # an autoencoder has an encoder, too
        [torch.zeros(3)],
        torch.zeros(3),
    ],
)
def test_a_file_of_another_program_is_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "m.ckpt"
    torch.save(content, path)
    assert "is a checkpoint of another program" in refusal(path)


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.ckpt"
    torch.save(torch.nn.Linear(2, 2), path)
    assert "carries code, which is never run" in refusal(path)


def test_a_payload_in_a_zip_never_runs(trained: Path, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "m.ckpt"
    # Everything else is in order, so only the payload can be the reason.
    torch.save({**torch.load(trained / "best.ckpt", weights_only=True), "extra": Payload(marker)}, path)
    assert "carries code, which is never run" in refusal(path)
    with pytest.raises(UsageError, match="carries code"):
        StarClassifier.load_from_checkpoint(path, weights_only=False)
    assert not marker.exists()
    torch.load(path, weights_only=False)  # the payload does work
    assert marker.exists()


def test_a_payload_in_a_legacy_pickle_never_runs(tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "m.ckpt"
    torch.save({"encoder": Payload(marker)}, path, _use_new_zipfile_serialization=False)
    assert "is no checkpoint" in refusal(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists()


def test_a_payload_among_the_hyperparameters_never_runs(trained: Path, tmp_path: Path) -> None:
    """CVE-2026-58659: names that a loader would import and call."""
    marker, path = tmp_path / "marker", tmp_path / "m.ckpt"
    checkpoint = torch.load(trained / "best.ckpt", weights_only=True)
    checkpoint["hyper_parameters"] |= {"_instantiator": "os.system", "_class_path": f"touch {marker}"}
    torch.save(checkpoint, path)
    StarClassifier.load_from_checkpoint(path)
    assert not marker.exists()
