"""Whatever the parser or Lightning's Trainer refuses becomes one sentence: option, value found, what is allowed."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from yelp_lightning.checks import refuse_idle_training, refuse_limits
from yelp_lightning.errors import UsageError
from yelp_lightning.options import refused_by_trainer, sentence

TRAIN_SIZE = "`--data.train_size` is {}, but must be a whole number of at least 1: give such a value."
NO_OPTION = "`{}` is no option of this command: did you mean `{}`?"


@pytest.fixture
def config_refused(fit_refused: Callable[..., str], tmp_path: Path) -> Callable[..., str]:
    """The same with a config file of the given content, by the name c.yaml in the sentence."""

    def run(content: object) -> str:
        path = tmp_path / "c.yaml"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
        return fit_refused("--config", path).replace(str(path), "c.yaml")

    return run


def nested(option: str, value: object) -> dict[str, object]:
    """The option as a config file has it."""
    for name in reversed(option.removeprefix("--").split(".")):
        value = {name: value}
    return value  # type: ignore[return-value]


MISSPELT = [
    ("--data.trian_size", 5, "--data.train_size"),
    ("--trainer.max_epoch", 3, "--trainer.max_epochs"),
    ("--modle.learning_rate", 1, "--model.learning_rate"),
    ("--train_size", 5, "--data.train_size"),
    ("--learning_rate", 1, "--model.learning_rate"),
    ("--batchsize", 8, "--data.batch_size"),
    ("--trainer.batch_size", 8, "--data.batch_size"),
]


@pytest.mark.parametrize("joined", [False, True], ids=["space", "equals"])
@pytest.mark.parametrize(("option", "value", "meant"), MISSPELT)
def test_misspelt_option_says_what_was_meant(
    fit_refused: Callable[..., str], option: str, value: object, meant: str, joined: bool
) -> None:
    typed = [f"{option}={value}"] if joined else [option, value]
    assert fit_refused(*typed) == NO_OPTION.format(option, meant)


@pytest.mark.parametrize(("option", "value", "meant"), MISSPELT)
def test_misspelt_option_in_a_config_says_what_was_meant(
    config_refused: Callable[..., str], option: str, value: object, meant: str
) -> None:
    assert config_refused(nested(option, value)) == NO_OPTION.format(option, meant)


@pytest.mark.parametrize("command", ["validate", "test", "predict", "compare"])
def test_misspelt_option_of_every_command(refused: Callable[..., str], trained: Path, command: str) -> None:
    found = refused(command, "--ckpt_path", trained, "--data.max_lenght", 5)
    assert found == NO_OPTION.format("--data.max_lenght", "--data.max_length")


def test_unlike_any_option_lists_the_group_where_it_is_short(fit_refused: Callable[..., str]) -> None:
    assert fit_refused("--checkpoint.every", 5) == (
        "`--checkpoint.every` is no option of this command: there are --checkpoint.monitor, --checkpoint.patience, "
        "--checkpoint.every_n_steps, --checkpoint.average_best."
    )
    assert fit_refused("--model.lr", 1e-3) == "`--model.lr` is no option of this command: see --help for all of them."
    assert fit_refused("--qqqq", 1) == "`--qqqq` is no option of this command: see --help for all of them."
    assert "`--trainer.max_epochs`" in fit_refused("--epochs", 3)


@pytest.mark.parametrize("extra", [["stray"], ["--data.val_size", 5, "stray"], ["stray", "--data.trian_size", 5]])
def test_stray_value(fit_refused: Callable[..., str], extra: list[object]) -> None:
    assert fit_refused(*extra) == (
        "`stray` belongs to no option: write --OPTION before a value, and quotes around one that has spaces."
    )


@pytest.mark.parametrize("option", ["--data.train_size", "--config", "--trainer.max_epochs", "--ckpt_path"])
def test_option_without_its_value(fit_refused: Callable[..., str], option: str) -> None:
    expected = f"`{option}` has no value: write it after the option, as in {option} VALUE."
    assert fit_refused(option) == expected
    assert fit_refused(option, "--seed_everything", 1) == expected


@pytest.mark.parametrize("option", ["--data.source", "--ckpt_path", "--trainer.default_root_dir", "--config"])
def test_empty_value(fit_refused: Callable[..., str], option: str) -> None:
    # Such as --ckpt_path "$RUN" where RUN is not set: an empty path would mean the current folder.
    expected = f"`{option}` is '', which is empty: give it a value, or leave the option out."
    assert fit_refused(option, "") == expected
    assert fit_refused(f"{option}=") == expected


WRONG = [
    ("--data.train_size", 0, "a whole number of at least 1 or a share between 0 and 1"),
    ("--data.test_size", -5, "a whole number of at least 1 or a share between 0 and 1"),
    ("--data.train_size", "abc", "a whole number of at least 1 or a share between 0 and 1"),
    ("--data.train_size", 1.5, "a whole number of at least 1 or a share between 0 and 1"),
    ("--data.train_size", "it does not fit", "a whole number of at least 1 or a share between 0 and 1"),
    ("--data.max_length", 0, "a whole number of at least 1"),
    ("--data.num_workers", -1, "a whole number of at least 0"),
    ("--data.label_offset", "x", "a whole number"),
    ("--data.on_bad_row", "drop", "one of error, skip"),
    ("--data.on_duplicate", "drop", "one of remove, error, keep"),
    ("--data.truncation", "middle", "one of head, tail, head_tail"),
    ("--data.num_proc", 0, "a whole number of at least 1"),
    ("--data.sampling", "foo", "one of shuffle, stratified, first"),
    ("--model.warmup_ratio", 1.5, "a number from 0 to 1"),
    ("--model.learning_rate", -1, "a finite number above 0"),
    ("--model.learning_rate", "inf", "a finite number above 0"),
    ("--model.learning_rate", "fast", "a finite number above 0"),
    ("--model.weight_decay", -0.1, "a finite number of at least 0"),
    ("--seed_everything", "x", "a whole number or true or false"),
    ("--trainer.max_epochs", "foo", "a whole number"),
    ("--trainer.limit_train_batches", "foo", "a number"),
    ("--trainer.enable_checkpointing", "foo", "true or false"),
    ("--trainer.logger", "foo", "true or false or a Logger by its class_path"),
    (
        "--trainer.precision", "foo",
        "one of 64, 32, 16, auto, 32-true, bf16-mixed, 16-mixed, bf16-true, 16-true, 64-true, transformer-engine, "
        "transformer-engine-float16, bf16",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("option", "value", "allowed"), WRONG)
def test_wrong_value(fit_refused: Callable[..., str], option: str, value: object, allowed: str) -> None:
    assert fit_refused(option, value) == f"`{option}` is '{value}', but must be {allowed}: give such a value."


@pytest.mark.parametrize(("option", "value", "allowed"), WRONG)
def test_wrong_value_in_a_config(config_refused: Callable[..., str], option: str, value: object, allowed: str) -> None:
    found = config_refused(nested(option, value))
    assert found == f"In c.yaml: `{option}` is '{value}', but must be {allowed}: give such a value."


@pytest.mark.parametrize(("names", "found"), [([True, False], "True"), ([1, 2], "1")])
def test_names_that_yaml_does_not_read_as_texts(
    fit_refused: Callable[..., str], config_refused: Callable[..., str], names: list[object], found: str
) -> None:
    expected = (
        f"`--data.label_names` is '{found}', but must be a text: put it in quotes, without which yaml reads yes, no, "
        "on and off as true and false, and digits as numbers."
    )
    assert fit_refused("--data.label_names", names) == expected
    assert config_refused({"data": {"label_names": names}}) == f"In c.yaml: {expected}"


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range(fit_refused: Callable[..., str], seed: int) -> None:
    assert fit_refused("--seed_everything", seed) == (
        f"`--seed_everything` is {seed}, but must be a whole number from 0 to 4294967295: give such a value."
    )


def test_option_that_follows_another(fit_refused: Callable[..., str], config_refused: Callable[..., str]) -> None:
    expected = "`--data.num_labels` is always that of `--model.num_labels`: give --model.num_labels instead."
    assert fit_refused("--data.num_labels", 3) == expected
    # The parser would overwrite it without a word.
    assert config_refused({"data": {"num_labels": 3}}) == f"In c.yaml: {expected}"


@pytest.mark.parametrize("value", ["5", "missing.yaml"])
def test_group_instead_of_option(fit_refused: Callable[..., str], value: str) -> None:
    assert fit_refused("--data", value) == (
        f"`--data` is '{value}', but is a group of options: give those, as in --data.NAME VALUE."
    )


@pytest.mark.parametrize("content", ["data: 5\n", "trainer: null\nmodel: {}\n", "model: []\n"])
def test_group_without_options_in_a_config(config_refused: Callable[..., str], content: str) -> None:
    # The parser would drop `data: 5`, and with it every --data.* that was typed before, and train on the defaults.
    found = config_refused(content)
    assert found.startswith(f"In c.yaml: `{content.partition(':')[0]}` is ")
    assert found.endswith(", but is a group of options: write them below it, indented, or remove the line.")


@pytest.mark.parametrize("content", ["- a\n- b\n", "", "# no more than this\n", "hello\n", "data:\n"])
def test_config_without_options(config_refused: Callable[..., str], content: str) -> None:
    assert config_refused(content) == (
        "In c.yaml: these are no options with their values: see configs/quickstart.yaml for how they are written."
    )


def test_config_that_is_no_yaml(config_refused: Callable[..., str]) -> None:
    found = config_refused("data: [1,\nmodel: }")
    assert found.startswith("In c.yaml: this is no yaml (")
    assert "line 2" in found
    assert found.endswith("): mend the file.")


def test_config_that_is_no_text(config_refused: Callable[..., str]) -> None:
    found = config_refused(b"PK\x03\x04\xff\xfe\x81\x00\x92")
    assert found == "`--config` is c.yaml, which is no text file: give a yaml file in UTF-8."


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_config_that_is_no_file(fit_refused: Callable[..., str], tmp_path: Path, name: str) -> None:
    for option in ("--config", "-c"):
        found = fit_refused(option, tmp_path / name)
        assert found.startswith(f"`--config` is '{tmp_path / name}', which cannot be read (")
        assert found.endswith("): give a yaml file, as configs/quickstart.yaml is.")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"class_path": "foo.Bar"}, "Problem with given class_path 'foo.Bar': No module named 'foo'"),
        (
            {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitr": "val/loss"}},
            "`--monitr` is no option of this command: did you mean `--monitor`",
        ),
    ],
)
def test_class_that_is_none(config_refused: Callable[..., str], value: object, reason: str) -> None:
    found = config_refused({"trainer": {"callbacks": [value]}})
    assert found == f"In c.yaml: `--trainer.callbacks`: {reason}: mend its class_path and init_args."


@pytest.mark.parametrize(
    ("option", "value", "named", "reason"),
    [
        ("accelerator", "foo", ["accelerator"], "Available names are: "),
        ("precision", "transformer-engine", ["accelerator", "precision"], "transformer_engine"),
        ("devices", "0", ["accelerator", "devices"], "not a valid input using cpu accelerator"),
        ("devices", "foo", ["devices"], "should be an int > 0"),
        ("strategy", "foo", ["strategy"], "Example choices: auto, ddp"),
        ("strategy", "fsdp", ["accelerator", "strategy"], "requires a GPU accelerator"),
        ("num_nodes", 0, ["num_nodes"], "must be a positive integer"),
        ("limit_val_batches", 1.5, ["limit_val_batches"], "has to be in [0.0, 1.0] or an int"),
        ("gradient_clip_algorithm", "foo", ["gradient_clip_algorithm"], "['value', 'norm']"),
        ("profiler", "foo", ["profiler"], "'simple'"),
        ("max_time", "foo", ["max_time"], "DD:HH:MM:SS"),
    ],
)
def test_what_the_trainer_refuses(
    fit_refused: Callable[..., str], option: str, value: object, named: list[str], reason: str
) -> None:
    found = fit_refused(f"--trainer.{option}", value)
    head, _, rest = found.partition(", which Lightning refuses (")
    values = {"accelerator": "cpu", option: value}
    assert head == " and ".join(f"`--trainer.{name}` is {values[name]!r}" for name in named)
    assert reason in rest
    assert rest.endswith("): give another value, or leave the option out.")


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_what_the_trainer_refuses_to_other_commands(refused: Callable[..., str], trained: Path, command: str) -> None:
    found = refused(command, "--ckpt_path", trained, "--trainer.devices", 0)
    assert "`--trainer.devices` is '0', which Lightning refuses (" in found


def test_bugs_are_not_hidden(cli: Callable[..., None], trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bug = ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        refused_by_trainer(bug, {"devices": 1, "accelerator": "cpu"})

    def broken(self: object, stage: str, devices: int) -> None:
        raise bug

    # Beyond the Trainer's construction, no such error is the user's.
    monkeypatch.setattr("yelp_lightning.data.datamodule.ReviewDataModule.check", broken)
    with pytest.raises(ValueError, match="a bug"):
        cli("predict", "--ckpt_path", trained, "--data.predict_path", "x.txt")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_epochs", 0),
        ("max_epochs", -5),
        ("max_steps", 0),
        ("limit_train_batches", 0),
        ("limit_val_batches", 0),
        ("val_check_interval", 0),
        ("check_val_every_n_epoch", 0),
        ("accumulate_grad_batches", 0),
        ("accumulate_grad_batches", -2),
    ],
)
def test_training_of_nothing(fit_refused: Callable[..., str], option: str, value: int) -> None:
    # 0 may be read as 0.0: which type of a union comes first depends on what was imported before.
    assert fit_refused(f"--trainer.{option}", value).replace(" is 0.0,", " is 0,") == (
        f"`--trainer.{option}` is {value}, with which `fit` would train or validate nothing: "
        "give a number above 0, or leave the option out."
    )


def test_training_without_limit_or_validation_is_allowed() -> None:
    usual = {
        "max_epochs": -1, "max_steps": -1, "limit_train_batches": None, "limit_val_batches": 1.0,
        "val_check_interval": None, "check_val_every_n_epoch": None, "accumulate_grad_batches": 1,
        "enable_checkpointing": None,
    }  # fmt: skip
    refuse_idle_training(usual)
    # Without checkpoints there is no best one to choose.
    refuse_idle_training(usual | {"limit_val_batches": 0, "enable_checkpointing": False})
    with pytest.raises(UsageError, match="limit_val_batches` is 0,"):
        refuse_idle_training(usual | {"limit_val_batches": 0})


@pytest.mark.parametrize(
    ("command", "limits"),
    [("test", {"limit_test_batches": 0}), ("validate", {"limit_val_batches": 0.0})]
    + [("predict", {"limit_predict_batches": limit}) for limit in (0, 0.0, 0.5, 1, 7)]
    + [("predict", {"fast_dev_run": value}) for value in (True, 2)],
)
def test_limits_that_leave_nothing_or_rows_out(command: str, limits: dict[str, Any]) -> None:
    usual = {f"limit_{stage}_batches": None for stage in ("val", "test", "predict")} | {"fast_dev_run": False}
    ((name, value),) = limits.items()
    with pytest.raises(UsageError, match=rf"^`--trainer.{name}` is {value}, .*leave the option out"):
        refuse_limits(usual | limits, command)
    refuse_limits(usual, command)
    refuse_limits(usual | {f"limit_{stage}_batches": 1.0 for stage in ("val", "test", "predict")}, command)
    if command != "predict":  # a part of the rows is measured, and n says so
        refuse_limits(usual | {name: 3, "fast_dev_run": True}, command)


def test_processes_that_keep_results_to_themselves(fit_refused: Callable[..., str]) -> None:
    assert fit_refused("--trainer.strategy", "ddp_spawn") == (
        "`--trainer.strategy` is 'ddp_spawn', whose processes keep to themselves what they measure: give ddp."
    )


@pytest.mark.parametrize(("command", "name"), [("test", "limit_test_batches"), ("validate", "limit_val_batches")])
def test_a_share_of_less_than_a_batch(refused: Callable[..., str], trained: Path, command: str, name: str) -> None:
    # How many batches there are, Lightning alone knows, and late.
    said = refused(command, "--ckpt_path", trained, f"--trainer.{name}", 1e-6)
    ways = "give a larger share, or a number of batches."
    assert re.fullmatch(rf"`--trainer.{name}` is 1e-06, of \d+ batches less than one: {ways}", said)


def test_unforeseen_messages_stay_one_line() -> None:
    assert sentence("Something\n  new.\n", []) == "The options cannot be read: Something new; see --help."
    assert sentence('Parser key "a.b":\n  Something\n  new.\n', []) == "`--a.b`: Something new; see --help."
