"""What the tests share: a tiny BERT on disk, review files, an isolated home, and the command line in-process."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# Before torch is imported, here and in the processes that tests start: on tensors this small, threads only wait for
# each other.
os.environ["OMP_NUM_THREADS"] = "1"
# The libraries read these when they are imported: nothing asks the network.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0", "WANDB_MODE": "offline"}
os.environ["TOKENIZERS_PARALLELISM"] = "true"

import lightning.pytorch
import pytest
from tiny_bert import write_tiny_bert

# Lightning's log goes to what was the standard error at its import: here that of all tests, else that of the first one.
assert lightning.pytorch

ROOT = Path(__file__).resolve().parent.parent
REAL = ROOT.parent / "shared" / "yelp"
# Made-up reviews that a tiny model can learn: the opinion tells the stars.
OPINIONS = ["terrible and rude", "bad and cold", "okay and plain", "good and friendly", "amazing and perfect"]
PLACES = ["pizza", "coffee", "hotel", "garage", "doctor", "salon", "burger", "soup", "store", "dinner"]


def review(number: int) -> dict[str, object]:
    """Made-up review ``number``: its label is ``number % 5``, its length varies, its text is unique."""
    label = number % 5
    tail = " the staff was nice" * (number % 7)
    return {"label": label, "text": f"the {PLACES[number % 10]} was {OPINIONS[label]} on day {number}{tail}"}


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the home of whoever runs it."""
    home = tmp_path_factory.getbasetemp() / "home"
    home.mkdir(exist_ok=True)
    for name, value in {"HOME": str(home), "HF_HOME": str(home / "huggingface"), "COLUMNS": "200"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random BERT, 2 layers, 32 wide."""
    return write_tiny_bert(tmp_path_factory.mktemp("tiny_bert"))


@pytest.fixture(scope="session")
def tiny_bert_without_dropout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same BERT without dropout: what it learns depends on its rows alone, not on how they are cut."""
    folder = write_tiny_bert(tmp_path_factory.mktemp("tiny_bert_without_dropout"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with train.jsonl (200 rows) and test.jsonl (41 rows)."""
    folder = tmp_path_factory.mktemp("reviews")
    write_jsonl(folder / "train.jsonl", [review(number) for number in range(200)])
    write_jsonl(folder / "test.jsonl", [review(number) for number in range(1000, 1041)])
    return folder


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a command in this process, as `python -m yelp_lightning` does."""
    from yelp_lightning.__main__ import main

    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["yelp-lightning", *map(str, arguments)])
        main()

    return run


@pytest.fixture
def refused(cli: Callable[..., None], capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must stop before any compute: status 2 and one sentence, which is returned."""

    def run(*arguments: object) -> str:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli(*arguments)
        assert stopped.value.code == 2
        err = capfd.readouterr().err
        sentence = err.strip().splitlines()[-1]
        assert sentence.startswith("error: "), err
        assert "Traceback" not in err
        return sentence.removeprefix("error: ")

    return run


def run_process(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run `python -m yelp_lightning` in a process of its own."""
    command = [sys.executable, "-m", "yelp_lightning", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)  # type: ignore[call-overload,no-any-return]


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def fit_options(tiny_bert: Path, reviews: Path, run: Path) -> list[object]:
    """Options of a training that takes a second."""
    return [
        "--model.pretrained", tiny_bert, "--data.source", reviews, "--data.max_length", 32,
        "--model.learning_rate", 1e-2, "--data.val_size", 20, "--data.cache_dir", run.parent / "cache",
        "--trainer.max_epochs", 2, "--trainer.precision", "32-true",
        "--trainer.accelerator", "cpu", "--trainer.default_root_dir", run,
        "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false",
    ]  # fmt: skip


@pytest.fixture
def fit_refused(refused: Callable[..., str], tiny_bert: Path, reviews: Path, tmp_path: Path) -> Callable[..., str]:
    """Run a `fit` that would succeed but for the options given; it must leave nothing in its run folder."""

    def run(*arguments: object) -> str:
        found = refused("fit", *fit_options(tiny_bert, reviews, tmp_path / "run"), *arguments)
        assert not list((tmp_path / "run").glob("*"))
        return found

    return run


@pytest.fixture(scope="session")
def trained(tiny_bert: Path, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a finished training. Not to be written to: copy it."""
    run = tmp_path_factory.mktemp("trained") / "run"
    environment = {**os.environ, "HOME": str(run.parent)}
    process = run_process("fit", *fit_options(tiny_bert, reviews, run), env=environment, cwd=ROOT)
    assert process.returncode == 0, process.stderr
    return run


@pytest.fixture
def real_yelp() -> Path:
    """The folder of real reviews."""
    if not REAL.is_dir():
        pytest.skip("the real reviews are not in ../shared/yelp")
    return REAL
