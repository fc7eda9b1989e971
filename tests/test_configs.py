"""Every shipped config parses, instantiates, trains what it says, and round-trips; every search is one of `fit`."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from yelp_lightning.cli import YelpCLI
from yelp_lightning.errors import UsageError
from yelp_lightning.training.keeping import direction
from yelp_lightning.tuning.command import tune_parser
from yelp_lightning.tuning.space import read_space

SWEEP = ROOT / "configs" / "sweep.yaml"
SPACES = sorted((ROOT / "configs" / "search").glob("*.yaml"))
CONFIGS = sorted({*(ROOT / "configs").rglob("*.yaml")} - {SWEEP, *SPACES})
OVERLAY_GROUPS = {"logger": "trainer", "strategy": "trainer", "source": "data", "averaging": "trainer"}
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
            used = cli.config["fit"][group][name]
            if isinstance(value, dict):  # such as model.lora, whose other options have their defaults
                used = {key: used[key] for key in value}
            assert used == value, f"{group}.{name}"


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


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.name)
def test_search_space_is_one_of_fit(path: Path) -> None:
    first, second = path.read_text(encoding="utf-8").splitlines()[:2]
    assert first.startswith("# ")
    assert second.startswith("#   python -m yelp_lightning tune --config configs/")
    assert str(path.relative_to(ROOT)) in second
    parser, config = tune_parser(), second.split()[second.split().index("--config") + 1]
    base = ["--config", str(ROOT / config), "--space", str(path)]
    space = read_space(str(path), lambda options: parser.parse_args([*base, *options]))
    assert set(space) == set(yaml.safe_load(path.read_text(encoding="utf-8")))


def ends(parameter: dict[str, object]) -> list[object]:
    values = parameter.get("values")
    return list(values) if isinstance(values, list) else [parameter["min"], parameter["max"]]


def test_sweep_runs_fit_with_options_that_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sweep = yaml.safe_load(SWEEP.read_text(encoding="utf-8"))
    assert {"max": "maximize", "min": "minimize"}[direction(sweep["metric"]["name"])] == sweep["metric"]["goal"]
    # What an agent starts, with a `python` that only says what it was given.
    fake = tmp_path / "bin" / "python"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', encoding="utf-8")
    fake.chmod(0o755)
    environment = {"PATH": f"{fake.parent}:{os.environ['PATH']}", "WANDB_RUN_ID": "abc123"}
    for which in (0, -1):
        drawn = {name: {"value": ends(parameter)[which]} for name, parameter in sweep["parameters"].items()}
        filled = {**create_sweep_command_args({"args": drawn}), "env": ["/usr/bin/env"]}
        chunks = create_sweep_command(list(sweep["command"]))
        command = [part for chunk in chunks for part in (filled[chunk[2:-1]] if chunk.startswith("${") else [chunk])]
        process = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        module, package, *arguments = process.stdout.splitlines()
        assert (module, package, arguments[0]) == ("-m", "yelp_lightning", "fit")
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", ["yelp-lightning", *arguments])
        config = ParsedOnly().config["fit"]
        assert config.trainer.default_root_dir == "checkpoints/sweep-abc123"
        assert {name: config[name] for name in drawn} == {name: value["value"] for name, value in drawn.items()}
