"""Where memory does not suffice: the sentence that says what to change, and the longest batch first."""

import os
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, fit_options, run_process
from lightning.pytorch import Callback, LightningModule, Trainer

from yelp_lightning.data.batching import TrainBatches
from yelp_lightning.training.memory import is_out_of_memory, out_of_memory

DATA = {"batch_size": 32, "max_length": 512}


def test_what_to_change() -> None:
    assert str(out_of_memory(DATA, 2, False)) == (
        "`data.batch_size` 32: memory does not suffice for that many reviews of up to 512 tokens at once: give "
        "--data.batch_size 16 --trainer.accumulate_grad_batches 4 (the same optimizer steps), or "
        "--model.gradient_checkpointing true (the same numbers, more time), or a --data.max_length below 512 (longer "
        "reviews are truncated)."
    )
    last = str(out_of_memory({**DATA, "batch_size": 1}, 1, True))
    assert last.endswith("at once: give a --data.max_length below 512 (longer reviews are truncated).")


def test_which_errors_are_meant() -> None:
    with pytest.raises(RuntimeError) as found:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(found.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes differ"))


class Limit(Callback):
    """Ends the address space a little above what the process has when its training begins."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + 2_000_000
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit the address space")
def test_a_fit_without_memory_says_what_to_change(tiny_bert: Path, reviews: Path, tmp_path: Path) -> None:
    options = fit_options(tiny_bert, reviews, tmp_path / "run")
    larger = ["--data.batch_size", 180, "--data.pad_to_multiple_of", 256, "--data.max_length", 256]
    config = tmp_path / "limit.yaml"
    config.write_text("trainer:\n  callbacks:\n  - class_path: test_memory.Limit\n", encoding="utf-8")
    path = os.pathsep.join([str(Path(__file__).parent), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    process = run_process("fit", *options, *larger, "--config", config, cwd=ROOT,
                          env={**os.environ, "PYTHONPATH": path})  # fmt: skip
    assert process.returncode == 2, process.stderr
    assert process.stderr.strip().splitlines()[-1].startswith("error: `data.batch_size` 180: memory does not suffice")


@pytest.mark.parametrize("rows", [40, 1000])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_longest_step_is_the_first(rows: int, accumulate: int) -> None:
    lengths = np.random.default_rng(0).integers(3, 500, rows).astype(np.int32)
    batches = TrainBatches(lengths, 4, seed=1, accumulate=accumulate)
    first = next(iter(batches))
    assert lengths[first].max() == lengths.max()
    batches.set_epoch(1)
    assert sorted(row for batch in batches for row in batch) == list(range(rows))
