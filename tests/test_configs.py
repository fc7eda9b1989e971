"""Every shipped config parses, instantiates, trains what it says, and round-trips."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT

from yelp_lightning.cli import YelpCLI
from yelp_lightning.errors import UsageError

CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
OVERLAY_GROUPS = {"logger": "trainer", "strategy": "trainer", "source": "data"}
# Overlays hold only differences; a whole config stands before them.
# Lightning makes these on GPUs only.
NEED_GPU = {"fsdp", "deepspeed_stage_2", "deepspeed_stage_3"}
OVERLAYS = [path for path in CONFIGS if path.parent.name in OVERLAY_GROUPS]


class ParsedOnly(YelpCLI):
    """The command line up to the point where it would run."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def run(*configs: Path) -> ParsedOnly:
        arguments = [argument for config in configs for argument in ("--config", str(config))]
        argv = ["yelp-lightning", "fit", *arguments, "--trainer.default_root_dir", str(tmp_path / "run")]
        monkeypatch.setattr(sys, "argv", argv)
        return ParsedOnly()

    return run


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_parses_instantiates_and_round_trips(path: Path, parse, tmp_path: Path) -> None:
    configs = [*([ROOT / "configs" / "quickstart.yaml"] if path in OVERLAYS else []), path]
    if path.stem in NEED_GPU and not torch.cuda.is_available():
        # Whatever is in the file is known; what is missing is said.
        installed = path.stem == "fsdp" or find_spec("deepspeed")
        missing = "No supported gpu backend found" if installed else r'pip install "yelp-lightning\[deepspeed\]"'
        with pytest.raises(UsageError, match=missing):
            parse(*configs)
        return
    cli = parse(*configs)
    dumped = tmp_path / "dumped.yaml"
    text = cli._subcommand_parsers["fit"].dump(cli.config["fit"], skip_none=False)
    dumped.write_text(text, encoding="utf-8")
    again = parse(dumped)
    assert again.config["fit"].as_dict() | {"config": None} == cli.config["fit"].as_dict() | {"config": None}
    # What the file says is what is used.
    for group, values in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        for name, value in values.items() if group in ("model", "data") else ():
            assert cli.config["fit"][group][name] == value, f"{group}.{name}"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_begins_with_what_it_is_and_its_command(path: Path) -> None:
    first, second = path.read_text(encoding="utf-8").splitlines()[:2]
    assert first.startswith("# ")
    assert second.startswith("#   python -m yelp_lightning fit --config configs/")
    assert str(path.relative_to(ROOT)) in second


def test_overlays_hold_no_more_than_their_group() -> None:
    for path in OVERLAYS:
        assert set(yaml.safe_load(path.read_text(encoding="utf-8"))) == {OVERLAY_GROUPS[path.parent.name]}


def test_tutorial_is_the_tutorial() -> None:
    config = yaml.safe_load((ROOT / "configs" / "tutorial.yaml").read_text(encoding="utf-8"))
    assert config["model"] == {
        "pretrained": "google-bert/bert-base-cased", "learning_rate": 5e-5, "weight_decay": 0.0, "warmup_ratio": 0.0,
    }  # fmt: skip
    data = config["data"]
    assert (data["train_size"], data["test_size"], data["batch_size"], data["max_length"]) == (1000, 1000, 8, 512)
    assert (data["sampling"], data["seed"]) == ("shuffle", 42)
    assert (config["trainer"]["max_epochs"], config["trainer"]["precision"]) == (3, "32-true")
