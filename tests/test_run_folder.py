"""The run folder: `model/` loads without this package, metrics.json keeps the contract, a folder holds one run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import review

from yelp_lightning.checkpoint import read_checkpoint
from yelp_lightning.errors import UsageError
from yelp_lightning.pretrained import class_names, unpack_classifier, unpack_tokenizer
from yelp_lightning.run_folder import AtomicCheckpointIO, BestCheckpoint, claim, finish, write_metrics

TEXTS = [str(review(number)["text"]) for number in range(7)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def own_logits(checkpoint_file: Path) -> torch.Tensor:
    checkpoint = read_checkpoint(checkpoint_file)
    model, tokenizer = unpack_classifier(checkpoint), unpack_tokenizer(checkpoint["encoder"])
    with torch.inference_mode():
        return model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits


def test_model_loads_with_transformers_alone(trained: Path, tmp_path: Path) -> None:
    code = """
import json, sys
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
with torch.inference_mode():
    logits = model(**tokenizer(json.loads(sys.argv[2]), padding=True, return_tensors="pt")).logits
assert "yelp_lightning" not in sys.modules and "lightning" not in sys.modules
print(json.dumps({"logits": logits.tolist(), "names": model.config.id2label, "dtype": str(logits.dtype)}))
"""
    command = [sys.executable, "-c", code, str(trained / "model"), json.dumps(TEXTS)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    torch.testing.assert_close(torch.tensor(found["logits"]), own_logits(trained / "best.ckpt"), atol=1e-5, rtol=0)
    assert {int(label): name for label, name in found["names"].items()} == class_names(5)
    assert found["dtype"] == "torch.float32"


def test_model_holds_no_pickle(trained: Path) -> None:
    assert {path.suffix for path in (trained / "model").iterdir()} <= {".json", ".safetensors", ".txt", ".md"}


def test_metrics_keep_the_contract(trained: Path) -> None:
    metrics = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))
    for name in ("loss", "accuracy", "macro_f1", "mae", "within_1", "qwk", "ece"):
        assert isinstance(metrics[f"val/{name}"], float), name
    assert metrics["stage"] == "val"
    assert metrics["n"] == metrics["val/n"] == 20  # data.val_size
    matrix = np.array(metrics["confusion_matrix"])
    assert matrix.shape == (5, 5)
    assert matrix.sum() == 20
    errors = np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    assert metrics["val/accuracy"] == pytest.approx(np.trace(matrix) / 20)
    assert metrics["val/mae"] == pytest.approx((matrix * errors).sum() / 20)
    for name in ("accuracy", "mae"):
        low, high = metrics[f"val/{name}_interval"]
        assert low <= metrics[f"val/{name}"] <= high
        # Without one error, the bootstrap of the mae has no width.
        assert low < high or metrics[f"val/{name}"] == 0


def test_best_is_the_best_epoch(trained: Path) -> None:
    metrics = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))
    (callback,) = (
        state for name, state in read_checkpoint(trained / "last.ckpt")["callbacks"].items() if "BestCheckpoint" in name
    )
    assert metrics["val/accuracy"] == pytest.approx(callback["best_model_score"].item())


def test_finish_is_idempotent(trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    # As after a crash between the last epoch and the end.
    shutil.rmtree(run / "model")
    (run / "metrics.json").unlink()
    results = []
    for _ in range(2):
        assert finish(str(run)) == json.loads((trained / "metrics.json").read_text(encoding="utf-8"))
        results.append(contents(run))
    assert results[0] == results[1]
    # tokenizer_config.json says, besides, whether the process that wrote it was offline.
    environment = "model/tokenizer_config.json"
    assert results[0] | {environment: b""} == contents(trained) | {environment: b""}


def test_finish_without_a_best_model_is_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copy(trained / "last.ckpt", tmp_path)
    with pytest.raises(UsageError, match=rf"The run in '{tmp_path}' ended before its first validation, so there is no"):
        finish(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_each_stage_keeps_its_own_metrics(trained: Path, tmp_path: Path) -> None:
    shutil.copy(trained / "metrics.json", tmp_path)
    val = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    report = {"test/accuracy": 0.5, "test/n": 4, "test/confusion_matrix": [[2, 2], [0, 0]]}
    returned = write_metrics(tmp_path, "test", report)
    written = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert written == returned
    assert (written["stage"], written["n"], written["confusion_matrix"]) == ("test", 4, [[2, 2], [0, 0]])
    assert {name: written[name] for name in val if name.startswith("val/")} == {
        name: val[name] for name in val if name.startswith("val/")
    }
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_a_new_folder_is_claimed(tmp_path: Path) -> None:
    claim(str(tmp_path / "a" / "run"))
    assert list((tmp_path / "a" / "run").iterdir()) == []
    claim(str(tmp_path / "a" / "run"))  # still empty


def test_a_finished_run_is_refused(trained: Path) -> None:
    before = contents(trained)
    with pytest.raises(
        UsageError, match=rf"`trainer\.default_root_dir` is '{trained}', which already holds a finished"
    ):
        claim(str(trained))
    claim(str(trained), str(trained / "last.ckpt"))
    assert contents(trained) == before


def test_an_unfinished_run_is_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copy(trained / "last.ckpt", tmp_path)
    with pytest.raises(UsageError, match=r"which holds an unfinished run: go on with it by --ckpt_path last, or give"):
        claim(str(tmp_path), str(trained / "last.ckpt"))
    claim(str(tmp_path), str(tmp_path / "last.ckpt"))


def test_an_unwritable_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        for checkpoint in (None, str(folder / "last.ckpt")):
            with pytest.raises(UsageError, match=r"`trainer\.default_root_dir` is .* cannot be written to \("):
                claim(str(folder), checkpoint)


def test_checkpoint_io_reads_what_it_wrote(trained: Path, tmp_path: Path) -> None:
    plugin = AtomicCheckpointIO()
    content = torch.load(trained / "best.ckpt", weights_only=True)
    path = tmp_path / "deep" / "copy.ckpt"
    plugin.save_checkpoint(content, path)
    assert [file.name for file in path.parent.iterdir()] == ["copy.ckpt"]
    found = plugin.load_checkpoint(path, weights_only=False)
    assert found["global_step"] == content["global_step"]
    assert all(torch.equal(found["state_dict"][name], content["state_dict"][name]) for name in content["state_dict"])
    plugin.remove_checkpoint(path)
    plugin.remove_checkpoint(path)
    assert list(path.parent.iterdir()) == []


def test_checkpoint_io_never_swallows_an_error(tmp_path: Path) -> None:
    # Lightning's own says nothing when the target cannot be written.
    (tmp_path / "taken.ckpt").mkdir()
    with pytest.raises(OSError, match=r"taken\.ckpt"):
        AtomicCheckpointIO().save_checkpoint({"number": 1}, tmp_path / "taken.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.ckpt"]


def test_what_is_to_be_beaten_stands_in_the_best_checkpoint(trained: Path, tmp_path: Path) -> None:
    # The folder is moved, and its best.ckpt is newer than the state.
    shutil.copy(trained / "best.ckpt", tmp_path)
    state = {**BestCheckpoint("elsewhere", "val/accuracy").state_dict(), "best_model_score": torch.tensor(0.1)}
    callback = BestCheckpoint(str(tmp_path), "val/accuracy")
    callback.load_state_dict(state)
    best = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))["val/accuracy"]
    assert callback.best_model_score == pytest.approx(best)
    assert callback.best_k_models == {str(tmp_path / "best.ckpt"): callback.best_model_score}
