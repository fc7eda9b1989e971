"""What a user can get wrong outside the options' own values: commands, files, checkpoints, run folders, outputs."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, fit_options, review, run_process, write_jsonl

from yelp_lightning import __version__
from yelp_lightning.__main__ import COMMANDS

WAY_OUT = "give a best.ckpt or last.ckpt that `fit` wrote."


def files(folder: Path) -> dict[str, int]:
    """Every file below a folder and when it was last written."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


# Commands


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help_lists_the_commands(
    cli: Callable[..., None], capfd: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    cli(*arguments)
    shown, errors = capfd.readouterr()
    assert shown.startswith("usage: python -m yelp_lightning COMMAND")
    assert all(f"\n  {command} " in shown for command in COMMANDS)
    assert "fit --config configs/quickstart.yaml" in shown
    assert errors == ""


def test_version(cli: Callable[..., None], capfd: pytest.CaptureFixture[str]) -> None:
    cli("--version")
    assert capfd.readouterr() == (f"yelp-lightning {__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(cli: Callable[..., None], capfd: pytest.CaptureFixture[str], command: str) -> None:
    for option in ("--help", "-h"):
        with pytest.raises(SystemExit) as stopped:
            cli(command, option)
        assert stopped.value.code == 0
        shown, errors = capfd.readouterr()
        assert f"usage: python -m yelp_lightning {command} " in shown
        assert "--data.source" in shown
        assert errors == ""


@pytest.mark.parametrize(
    ("typed", "end"),
    [
        ("fitt", "did you mean `fit`?"),
        ("prdict", "did you mean `predict`?"),
        ("Test", "did you mean `test`?"),
        ("xyz", "see python -m yelp_lightning --help."),
    ],
)
def test_misspelt_command(refused: Callable[..., str], typed: str, end: str) -> None:
    commands = ", ".join(COMMANDS)
    assert refused(typed, "--data.source", "x") == f"`{typed}` is no command; there are {commands}: {end}"


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        (["--config", "x", "fit"], "fit --config ..."),
        (["--config=x", "fit"], "fit --config ..."),
        (["--ckpt_path", "x", "predict"], "predict --ckpt_path ..."),
        (["--data.source", "x"], "fit --data.source ..."),
    ],
)
def test_option_before_the_command(refused: Callable[..., str], arguments: list[str], right: str) -> None:
    assert refused(*arguments) == (
        f"`{arguments[0]}` stands before the command, which must come first: write python -m yelp_lightning {right}"
    )


def test_a_process_prints_one_line_and_exits_with_2(tmp_path: Path) -> None:
    process = run_process("fit", "--data.trian_size", 5, "--trainer.default_root_dir", tmp_path / "run", cwd=ROOT)
    assert process.returncode == 2
    assert process.stdout == ""
    assert (
        process.stderr == "error: `--data.trian_size` is no option of this command: did you mean `--data.train_size`?\n"
    )
    assert not (tmp_path / "run").exists()


# Data and the pretrained model


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.csv", "", ["`data.source`", "a.csv", "empty"]),
        ("a.csv", "label,text\n", ["`data.source`", "a.csv", "0 rows"]),
        ("a.csv", "label,body\n1,x\n", ["`data.text_column` is 'text'", "['label', 'body']", "--data.text_column"]),
        ("a.csv", "label,texts\n1,x\n", ["`data.text_column` is 'text'", "did you mean 'texts'?"]),
        ("a.csv", "stars,text\n1,x\n", ["`data.label_column` is 'label'", "['stars', 'text']", "--data.label_column"]),
        ("a.csv", "label,text\n5,x\n", ["`data.source`", "line 2: 'label' is '5'", "0..4", "--data.label_offset"]),
        ("a.jsonl", '{"label": 1.5, "text": "x"}\n', ["`data.source`", "line 1: 'label' is 1.5", "0..4"]),
        ("a.jsonl", "no json\n", ["`data.source`", "a.jsonl", "line 1: no json object: Expecting value"]),
        ("a.parquet", "PAR1 no parquet", ["`data.source`", "a.parquet", "cannot be read as parquet"]),
        ("a.xlsx", "x", ["`data.source`", "a.xlsx", "ending", "csv, tsv, jsonl or parquet"]),
    ],
)
def test_file_to_train_on(
    fit_refused: Callable[..., str], tmp_path: Path, name: str, content: str, parts: list[str]
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    found = fit_refused("--data.source", tmp_path / name)
    assert all(part in found for part in parts), found


def test_source_that_is_not_there(fit_refused: Callable[..., str], tmp_path: Path) -> None:
    found = fit_refused("--data.source", tmp_path / "missing.csv")
    assert found.startswith(f"`data.source` is '{tmp_path / 'missing.csv'}', but there is no such file or folder: ")


def test_folder_without_train(fit_refused: Callable[..., str], tmp_path: Path, reviews: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(reviews / "test.jsonl", folder)
    found = fit_refused("--data.source", folder)
    assert found.startswith(f"`data.source` is the folder '{folder}', which holds no train.csv")
    assert "['test.jsonl']" in found


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--data.train_size", 5000], ["`data.train_size` is 5000", "180 rows beside the 20", "at most 180"]),
        (["--data.train_size", 190], ["`data.train_size` is 190", "180 rows beside the 20", "at most 180"]),
        (["--data.val_size", 200], ["`data.val_size` is 200", "199 rows", "at most 199"]),
        (["--data.max_length", 513], ["`data.max_length` is 513", "512 tokens", "at most 512"]),
        (["--data.max_length", 2], ["`data.max_length` is 2", "at least 3"]),
        (["--model.num_labels", 3], ["`data.source`", "line 4: 'label' is 3", "0..2"]),
        (["--data.text_column", "txt"], ["`data.text_column` is 'txt'", "did you mean 'text'?"]),
        (["--data.label_offset", 1], ["`data.source`", "line 1: 'label' is 0", "1..5"]),
    ],
)
def test_option_that_the_data_do_not_allow(
    fit_refused: Callable[..., str], options: list[object], parts: list[str]
) -> None:
    found = fit_refused(*options)
    assert all(part in found for part in parts), found


def test_more_test_rows_than_there_are(refused: Callable[..., str], trained: Path, tmp_path: Path) -> None:
    for command in ("test", "compare"):
        run = shutil.copytree(trained, tmp_path / command)
        before = files(run)
        found = refused(command, "--ckpt_path", run, "--data.test_size", 42)
        assert found.startswith("`data.test_size` is 42, but the data hold only 41 rows")
        assert files(run) == before


@pytest.mark.parametrize("name", ["no/such", "./missing", "empty", "best.ckpt"])
def test_pretrained_that_is_not_there(
    fit_refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    # As the environment says, which this library reads when it is imported: offline, it does not try again and again.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    found = fit_refused("--model.pretrained", name)
    assert found.startswith(f"`model.pretrained` is '{name}', ")
    assert "embedded" in found


# Checkpoints


class Payload:
    """Pickled code that would leave a file behind."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def damaged(kind: str, trained: Path, folder: Path) -> Path | str:
    """What is typed for --ckpt_path."""
    path = folder / "x.ckpt"
    if kind == "url":
        return "https://127.0.0.1:1/best.ckpt"
    if kind == "text":
        path.write_text("label,text\n", encoding="utf-8")
    elif kind == "cut short":
        content = (trained / "best.ckpt").read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif kind == "code":
        torch.save({"encoder": Payload(folder / "marker")}, path)
    elif kind == "another program":
        torch.save({"state_dict": {}}, path)
    elif kind == "folder without best.ckpt":
        return folder
    return path


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("missing", ["`--ckpt_path` is '{path}', but there is no file", "give a .ckpt file or a run folder"]),
        ("folder without best.ckpt", ["`--ckpt_path` is '{path}'", "best.ckpt'", "give a .ckpt file or a run folder"]),
        ("url", ["`--ckpt_path` is the URL '{path}'", "only local files", "download it"]),
        ("text", ["`--ckpt_path` '{path}' is no checkpoint or is cut short (11 bytes)", WAY_OUT]),
        ("cut short", ["`--ckpt_path` '{path}' is no checkpoint or is cut short (", WAY_OUT]),
        ("code", ["`--ckpt_path` '{path}' carries code, which is never run", WAY_OUT]),
        ("another program", ["`--ckpt_path` '{path}' is a checkpoint of another program", WAY_OUT]),
    ],
)
def test_checkpoint_that_is_none(
    refused: Callable[..., str],
    fit_refused: Callable[..., str],
    trained: Path,
    tmp_path: Path,
    kind: str,
    parts: list[str],
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = damaged(kind, trained, folder)
    text = ["predict", "--text", "good food", "--ckpt_path", path]
    before = files(folder)
    sentences = {
        fit_refused("--ckpt_path", path),
        refused("validate", "--ckpt_path", path),
        refused("test", "--ckpt_path", path),
        refused("compare", "--ckpt_path", path),
        refused(*text),
        refused(*text, "--trainer.devices", 1),
    }
    assert len(sentences) == 1  # the same words from every command, with and without Lightning
    (found,) = sentences
    assert all(part.format(path=path) in found for part in parts), found
    assert files(folder) == before


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_no_checkpoint(refused: Callable[..., str], command: str) -> None:
    expected = f"`{command}` needs --ckpt_path: give a .ckpt file or a run folder that `fit` wrote"
    assert refused(command).startswith(expected)
    if command == "predict":
        assert refused(command, "--text", "good food").startswith(expected)


def test_compare_without_checkpoint(refused: Callable[..., str]) -> None:
    assert refused("compare").startswith("`--ckpt_path` is missing")


def test_nothing_to_go_on_from(fit_refused: Callable[..., str], tmp_path: Path) -> None:
    found = fit_refused("--ckpt_path", "last")
    assert found.startswith(f"`--ckpt_path` is 'last', but there is no file '{tmp_path / 'run' / 'last.ckpt'}'")


@pytest.mark.parametrize(
    ("option", "value", "saved"), [("model.pretrained", "'other'", None), ("model.num_labels", "3", "5")]
)
def test_another_architecture_than_the_checkpoints(
    refused: Callable[..., str], trained: Path, tiny_bert: Path, tmp_path: Path, option: str, value: str, saved: str
) -> None:
    for command in ("test", "validate", "predict", "fit"):
        found = refused(
            command,
            "--ckpt_path",
            trained,
            f"--{option}",
            value.strip("'"),
            "--trainer.default_root_dir",
            tmp_path / "run",
        )
        assert found == (
            f"`{option}` is {value}, but {trained / 'best.ckpt'} was trained with {saved or repr(str(tiny_bert))}: "
            "leave the option out (the run's own config.yaml has the same value), or train a new run."
        )
        assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def trained_on_one_file(trained: Path, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `trained` as if it had been trained on a single file."""
    path = tmp_path_factory.mktemp("one_file") / "best.ckpt"
    checkpoint = torch.load(trained / "best.ckpt", weights_only=True)
    checkpoint["datamodule_hyper_parameters"]["source"] = str(reviews / "train.jsonl")
    torch.save(checkpoint, path)
    return path


@pytest.mark.parametrize("typed", [None, "{reviews}/train.jsonl", "train.jsonl", "./train.jsonl"])
def test_measuring_on_the_training_file(
    refused: Callable[..., str],
    trained_on_one_file: Path,
    reviews: Path,
    monkeypatch: pytest.MonkeyPatch,
    typed: str | None,
) -> None:
    monkeypatch.chdir(reviews)
    options = ["--data.source", typed.format(reviews=reviews)] if typed else []
    source = options[-1] if typed else str(reviews / "train.jsonl")
    for command in ("test", "compare"):
        found = refused(command, "--ckpt_path", trained_on_one_file, *options)
        assert found == (
            f"`data.source` is '{source}', the file that {trained_on_one_file} was trained on: "
            "give --data.source a file or folder with reviews that it has not seen."
        )


# Run folders and outputs


def test_folder_of_a_finished_run(refused: Callable[..., str], trained: Path, tiny_bert: Path, reviews: Path) -> None:
    before = files(trained)
    found = refused("fit", *fit_options(tiny_bert, reviews, trained))
    assert found.startswith(f"`trainer.default_root_dir` is '{trained}', which already holds a finished run: ")
    assert "--trainer.default_root_dir checkpoints/NAME" in found
    assert files(trained) == before


def test_folder_of_an_unfinished_run(
    refused: Callable[..., str], trained: Path, tiny_bert: Path, reviews: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(trained / "last.ckpt", run)
    before = files(run)
    found = refused("fit", *fit_options(tiny_bert, reviews, run))
    assert found.startswith(f"`trainer.default_root_dir` is '{run}', which holds an unfinished run: ")
    assert "--ckpt_path last" in found
    assert files(run) == before


def test_folder_that_cannot_be_written_to(
    refused: Callable[..., str], trained: Path, tiny_bert: Path, reviews: Path, tmp_path: Path
) -> None:
    # Below a regular file: tests may run as root, who may write anywhere else.
    (tmp_path / "file").touch()
    for run in (tmp_path / "file", tmp_path / "file" / "run"):
        for command in (
            ["fit", *fit_options(tiny_bert, reviews, run)],
            ["test", "--ckpt_path", trained, "--trainer.default_root_dir", run],
            ["validate", "--ckpt_path", trained, "--trainer.default_root_dir", run],
        ):
            found = refused(*command)
            assert found.startswith(f"`trainer.default_root_dir` is '{run}', which cannot be written to (")
            assert found.endswith("): name a folder that you may write to.")
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize("quick", [True, False], ids=["without Lightning", "with Lightning"])
@pytest.mark.parametrize(
    ("output", "parts"),
    [
        ("file/p.csv", ["`--output` is '", "cannot be written to"]),
        ("p.xyz", ["`--output` is '{path}'", "ending", ".csv, .jsonl, .parquet"]),
        ("p", ["`--output` is '{path}'", "ending", ".csv, .jsonl, .parquet"]),
        ("exists.csv", ["`--output` '{path}' exists already: delete it or give another name."]),
    ],
)
def test_output_of_predict(
    refused: Callable[..., str], trained: Path, tmp_path: Path, output: str, parts: list[str], quick: bool
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "exists.csv").write_text("mine", encoding="utf-8")
    before = files(tmp_path)
    options = [] if quick else ["--trainer.devices", 1]
    found = refused("predict", "--ckpt_path", trained, "--text", "good", "--output", tmp_path / output, *options)
    assert all(part.format(path=tmp_path / output) in found for part in parts), found
    assert files(tmp_path) == before


# What predict reads


def test_nothing_to_predict(refused: Callable[..., str], trained: Path) -> None:
    assert refused("predict", "--ckpt_path", trained) == (
        "`predict` needs --data.predict_path FILE (or - for standard input), or --text."
    )


@pytest.mark.parametrize("name", ["missing.csv", "missing.txt", "missing.xyz", "."])
def test_missing_file_to_predict(refused: Callable[..., str], trained: Path, tmp_path: Path, name: str) -> None:
    found = refused("predict", "--ckpt_path", trained, "--data.predict_path", tmp_path / name)
    assert found.startswith(f"`--data.predict_path` is '{tmp_path / name}', which ")


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("in.xyz", "good\n", ["`--data.predict_path` is '{path}'", "ending", "csv, tsv, jsonl or parquet"]),
        ("in.csv", "", ["`--data.predict_path`", "{path}", "empty"]),
        ("in.csv", "text\n", ["`--data.predict_path`", "{path}", "0 rows"]),
        ("in.jsonl", "no json\n", ["`--data.predict_path`", "{path}", "line 1: no json object"]),
        ("in.csv", "id,texts\n1,x\n", ["`data.text_column` is 'text'", "did you mean 'texts'?", "--data.text_column"]),
    ],
)
def test_file_to_predict(
    refused: Callable[..., str], trained: Path, tmp_path: Path, name: str, content: str, parts: list[str]
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    output = tmp_path / "out.csv"
    found = refused("predict", "--ckpt_path", trained, "--data.predict_path", path, "--output", output)
    assert all(part.format(path=path) in found for part in parts), found
    assert not output.exists()


def test_columns_to_predict(refused: Callable[..., str], trained: Path, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", [review(1)])
    command = ["predict", "--ckpt_path", trained, "--data.predict_path", path]
    found = refused(*command, "--data.text_column", "txt")
    assert found.startswith("`data.text_column` is 'txt', but ")
    assert "did you mean 'text'?" in found
    assert refused(*command, "--data.id_column", "nr").startswith("`data.id_column` is 'nr', but ")


def test_text_and_file_together(refused: Callable[..., str], trained: Path) -> None:
    found = refused("predict", "--ckpt_path", trained, "--text", "good", "--data.predict_path", "in.csv")
    assert found == "`--text` is given together with --data.predict_path in.csv: give one of them."


@pytest.mark.parametrize("options", [[], ["--trainer.devices", "1"]], ids=["without Lightning", "with Lightning"])
@pytest.mark.parametrize(
    ("typed", "end"),
    [
        (["--text", ""], "is '', which is empty: give it a value, or leave the option out."),
        (["--text="], "is '', which is empty: give it a value, or leave the option out."),
        (["--text", " \n"], "is ' \\n', which is empty: give it a value, or leave the option out."),
        (["--text", "--output", "p.csv"], "has no value: write it after the option, as in --text VALUE."),
        (["--output", "p.csv", "--text"], "has no value: write it after the option, as in --text VALUE."),
    ],
)
def test_text_without_words(
    refused: Callable[..., str], trained: Path, typed: list[str], end: str, options: list[str]
) -> None:
    assert refused("predict", "--ckpt_path", trained, *options, *typed) == f"`--text` {end}"


def test_text_without_quotes(refused: Callable[..., str], trained: Path) -> None:
    found = refused("predict", "--ckpt_path", trained, "--text", "good", "food")
    assert found.startswith("`food` belongs to no option: ")


@pytest.mark.parametrize("text", ["null", "5", "[1]", "a: b", "-5 stars", "it = good", "'quoted'"])
def test_any_words_are_a_text(cli: Callable[..., None], trained: Path, tmp_path: Path, text: str) -> None:
    for name, options in {"quick.csv": [], "full.csv": ["--trainer.devices", 1]}.items():
        cli("predict", "--ckpt_path", trained, "--text", text, "--output", tmp_path / name, *options)
    (head, quick), (names, full) = (
        [line.split(",") for line in (tmp_path / name).read_text(encoding="utf-8").splitlines()]
        for name in ("quick.csv", "full.csv")
    )
    assert head == names
    # The temperature is part of the head in the one and divides in the other.
    assert [float(value) for value in quick] == pytest.approx([float(value) for value in full], abs=1e-6)


def test_going_on_without_anything_to_do(refused: Callable[..., str], trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    options = ["--ckpt_path", "last", "--trainer.default_root_dir", run]
    found = refused("fit", "--config", run / "config.yaml", *options)
    assert "already, where this run ends too: give larger --trainer.max_epochs" in found


def test_resuming_in_another_runs_folder(refused: Callable[..., str], trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "other")
    before = (run / "best.ckpt").stat().st_mtime_ns
    options = ["--ckpt_path", trained / "last.ckpt", "--trainer.default_root_dir", run]
    found = refused("fit", "--config", trained / "config.yaml", *options)
    assert "which already holds a finished run" in found
    assert (run / "best.ckpt").stat().st_mtime_ns == before


@pytest.mark.parametrize("command", ["fit", "validate"])
def test_other_rows_than_the_run_had(refused: Callable[..., str], trained: Path, tmp_path: Path, command: str) -> None:
    other = write_jsonl(tmp_path / "other.jsonl", [review(number) for number in range(50)])
    options = ["--ckpt_path", trained / "last.ckpt", "--trainer.default_root_dir", tmp_path / "run"]
    found = refused(command, *options, "--data.source", other)
    assert found.startswith(f"`data.source` is {str(other)!r}, but {trained / 'last.ckpt'} was trained with ")


def test_training_file_of_the_folder(refused: Callable[..., str], trained: Path, reviews: Path) -> None:
    found = refused("test", "--ckpt_path", trained, "--data.source", reviews / "train.jsonl")
    assert f"the file that {trained / 'best.ckpt'} was trained on" in found


def test_text_and_label_in_one_column(fit_refused: Callable[..., str]) -> None:
    found = fit_refused("--data.text_column", "label")
    assert found.startswith("`data.text_column` and `data.label_column` are both 'label'")
