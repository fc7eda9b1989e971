"""Search spaces: what they mean, and what is refused before the first trial."""

from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from yelp_lightning.tuning.command import tune_parser
from yelp_lightning.tuning.space import read_space


def write_space(folder: Path, text: str) -> Path:
    path = folder / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_is_drawn(tmp_path: Path) -> None:
    path = write_space(
        tmp_path,
        "model.learning_rate: {low: 1e-5, high: 5.0e-4, log: true}\n"  # to yaml, 1e-5 is a text
        "model.weight_decay: {low: 0, high: 1}\n"  # takes decimals
        "model.warmup_ratio: {low: 0.0, high: 0.2, step: 0.1}\n"
        "trainer.max_epochs: {low: 2, high: 6}\n"
        "data.max_length: {low: 64, high: 256, step: 64}\n"
        "data.truncation: {choices: [head, tail]}\n"
        "data.train_size: {choices: [null, 0.5, 100]}\n",
    )
    parser = tune_parser()
    assert read_space(str(path), lambda options: parser.parse_args(["--space", str(path), *options])) == {
        "model.learning_rate": FloatDistribution(1e-5, 5e-4, log=True),
        "model.weight_decay": FloatDistribution(0, 1),
        "model.warmup_ratio": FloatDistribution(0, 0.2, step=0.1),
        "trainer.max_epochs": IntDistribution(2, 6),
        "data.max_length": IntDistribution(64, 256, step=64),
        "data.truncation": CategoricalDistribution(["head", "tail"]),
        "data.train_size": CategoricalDistribution([None, 0.5, 100]),
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("model.learning_rat: {low: 1.0e-5, high: 1.0e-4}", "`--model.learning_rat` is no option of this command: did "
         "you mean `--model.learning_rate`?"),
        ("data.batch_size: {low: 0, high: 8}", "`--data.batch_size` is '0', but must be a whole number of at least 1: "
         "give such a value."),
        ("model.warmup_ratio: {choices: [0.1, 0.2, 1.5]}", "`--model.warmup_ratio` is '1.5', but must be a number from "
         "0 to 1: give such a value."),
        ("trainer.max_epochs: {low: 2.5, high: 4}", "`--trainer.max_epochs` is '2.5', but must be a whole number: give "
         "such a value."),
        ("model.learning_rate: {low: 0.1, high: 0.01}", "`model.learning_rate` is {'low': 0.1, 'high': 0.01}, which is "
         "no range ("),
        ("model.learning_rate: {low: 0.0, high: 0.01, log: true}", "`model.learning_rate` is {"),
        ("model.learning_rate: {low: tiny, high: 0.01}", "`model.learning_rate` has low 'tiny', but it must be a "
         "number: give one, or give choices."),
        ("model.learning_rate: {low: 0.1, high: 0.2, log: 3}", "`model.learning_rate` has log 3, but it must be true "
         "or false: give one of them."),
        ("model.learning_rate: {choices: []}", "`model.learning_rate` has the choices [], but they must be a list of "
         "numbers or texts: write `model.learning_rate: {choices: [A, B]}`."),
        ("model: {learning_rate: {low: 0.1, high: 0.2}}", "`model` is {'learning_rate': {'low': 0.1, 'high': 0.2}}, "
         "but must be a range or choices of one option: write `model: {low: A, high: B}`, with `log: true` or "
         "`step: C` where you want it, or `model: {choices: [A, B]}`."),
        ("model.learning_rate: 0.1", "`model.learning_rate` is 0.1, but must be a range or choices of one option"),
        ("checkpoint.monitor: {choices: [val/loss, val/mae]}", "`checkpoint.monitor` cannot be searched, because the "
         "study decides it: leave it out."),
        ("trials: {low: 1, high: 9}", "`trials` cannot be searched, because the study decides it: leave it out."),
    ],
)  # fmt: skip
def test_refused_with_the_files_name(refused: Callable[..., str], tmp_path: Path, text: str, found: str) -> None:
    path = write_space(tmp_path, text)
    assert refused("tune", "--space", path, "--output", tmp_path / "out").startswith(f"In {path}: {found}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "just words", "- a list", "a: [unclosed", "\ta: 1"])
def test_no_space(refused: Callable[..., str], tmp_path: Path, text: str) -> None:
    path = write_space(tmp_path, text)
    assert refused("tune", "--space", path).startswith(f"`--space` is {str(path)!r}, which ")


def test_no_file(refused: Callable[..., str]) -> None:
    assert refused("tune", "--space", "none.yaml") == (
        "`--space` is 'none.yaml', which cannot be read (No such file or directory): give a yaml file, as "
        "configs/search/small.yaml is."
    )
    assert refused("tune") == "`--space` is missing, which must be given: see --help for what it takes."
