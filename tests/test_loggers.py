"""Weights & Biases: what is written offline, and that no key or a bad server never stops, delays or asks anything."""

import contextlib
import json
import logging
import os
import pickle
import pty
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import wandb
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning_utilities.core.imports import RequirementCache
from wandb_reader import read_wandb

from yelp_lightning import loggers
from yelp_lightning.errors import UsageError
from yelp_lightning.loggers import WandbLogger

ROOT = Path(__file__).resolve().parent.parent
CONFIG = {"model": {"learning_rate": 1e-4, "layers": [1, 2]}, "data": {"source": "embedded", "size": 8}}


class LoggingModel(BoringModel):
    def training_step(self, batch, batch_idx):
        self.log("train/number", float(batch_idx + 1))
        return super().training_step(batch, batch_idx)


def train(logger: WandbLogger, folder: Path) -> None:
    """Two optimizer steps."""
    Trainer(
        logger=logger,
        max_steps=2,
        limit_val_batches=0,
        log_every_n_steps=1,
        accelerator="cpu",
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(LoggingModel())


# --- In this process, with WANDB_MODE=offline


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    wandb.teardown()
    yield
    wandb.finish()
    wandb.teardown()


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec")
@pytest.mark.parametrize("how", ["WANDB_MODE", "option"])
def test_a_run_is_written_and_read_back(
    offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], how: str
) -> None:
    if how == "option":
        monkeypatch.delenv("WANDB_MODE")
    # As from yaml, where jsonargparse adds wandb.init's own options as None.
    logger = WandbLogger(
        project="stars",
        save_dir=tmp_path / "new",
        offline=how == "option",
        anonymous=None,
        resume=None,
        entity=None,
        tags=["a", "b"],
    )
    logger.log_hyperparams(CONFIG)
    train(logger, tmp_path)
    run = logger.experiment
    assert (run.settings.mode, run.settings.resume, run.tags) == ("offline", "allow", ("a", "b"))
    folder = Path(run.dir).parent
    wandb.finish()
    assert folder.parent == tmp_path / "new" / "wandb"
    read = read_wandb(folder)
    assert read["config"] == CONFIG
    assert [(row["trainer/global_step"], row["train/number"]) for row in read["history"]] == [(0, 1.0), (1, 2.0)]
    assert read["summary"]["train/number"] == 2.0
    assert (read["project"], read["state"]) == ("stars", "finished")
    # It was asked for, so there is nothing to warn about: neither for us, nor for wandb.
    assert "warning" not in capfd.readouterr().err.lower()


def test_disabled(offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    WandbLogger(save_dir=tmp_path).log_metrics({"a": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_a_pickled_logger_goes_on_with_the_same_run(offline: None, tmp_path: Path) -> None:
    logger = WandbLogger(project="stars", save_dir=tmp_path)
    copy = pickle.loads(pickle.dumps(logger))
    with pytest.warns(UserWarning, match="already in progress"):
        assert copy.experiment is logger.experiment
    logger.log_metrics({"a": 1.0}, step=0)
    copy.log_metrics({"a": 2.0}, step=1)
    wandb.finish()
    assert [row["a"] for row in read_wandb(tmp_path / "wandb")["history"]] == [1.0, 2.0]


@pytest.mark.parametrize(("given", "used"), [({}, (10.0, 300.0)), ({"INIT": "3", "FINISH": "4"}, (3.0, 4.0))])
def test_start_and_end_are_bounded(
    offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], used: tuple[float, float]
) -> None:
    for name, seconds in given.items():
        monkeypatch.setenv(f"WANDB_{name}_TIMEOUT", seconds)
    settings = WandbLogger(save_dir=tmp_path).experiment.settings
    assert (settings.init_timeout, settings.finish_timeout) == used


def test_without_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "WANDB", RequirementCache("wandb>=9999"))
    with pytest.raises(UsageError, match=re.escape('pip install "yelp-lightning[wandb]"')):
        WandbLogger()


# --- In processes of their own, with a server of every kind


# As much of a W&B server as a run needs, whatever it asks.
ANSWERS = {
    "viewer": {"id": "1", "username": "u", "email": "e", "entity": "u", "teams": {"edges": []}, "flags": "{}"},
    "model": {"bucket": None},
    "upsertBucket": {
        "bucket": {"id": "1", "name": "r", "project": {"name": "p", "entity": {"name": "u"}}},
        "inserted": True,
    },
    "serverInfo": {"features": []},
    "createRunFiles": {"runID": "r", "uploadHeaders": [], "files": []},
}


class Handler(BaseHTTPRequestHandler):
    """W&B's server; its ``behaviour`` says from where on it fails."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        behaviour = self.server.behaviour
        if behaviour.isdigit():
            status, reply = int(behaviour), {"errors": [{"message": "no, thank you"}]}
        elif "otel" in self.path:
            status, reply = 404, {}
        elif (
            behaviour == "hangs"
            or (behaviour == "hangs after the login" and b"viewer" not in body)
            or (behaviour == "hangs after the start" and self.path != "/graphql")
        ):
            self.server.closing.wait()
            return
        else:
            status, reply = 200, {"data": ANSWERS}
        content = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, behaviour: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour = behaviour
        self.closing = threading.Event()

    def handle_error(self, *_: object) -> None:
        """A client that gave up is what is tested here."""


@contextlib.contextmanager
def base_url(behaviour: str) -> Iterator[str]:
    """URL of a server."""
    if behaviour == "refuses":
        # Bound but not listening: nobody else gets the port.
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            yield f"http://127.0.0.1:{taken.getsockname()[1]}"
        return
    with Server(behaviour) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.closing.set()
        server.shutdown()


@dataclass
class Case:
    """A server, what it is met with, and the reason that is given."""

    server: str
    reason: str
    environment: dict[str, str] = field(default_factory=lambda: {"WANDB_API_KEY": "k" * 40})


CASES = {
    "no key": Case("refuses", "no API key is configured", {}),
    "refuses": Case("refuses", "no usable answer from http://127.0.0.1:"),
    "hangs": Case("hangs", "no usable answer from http://127.0.0.1:"),
    "401": Case("401", "no, thank you"),
    "500": Case("500", "no usable answer from http://127.0.0.1:"),
    "hangs after the login": Case(
        "hangs after the login",
        "deadline exceeded",
        # wandb's own lines about the login, which went well, and its telemetry, which waits at the end.
        {"WANDB_API_KEY": "k" * 40, "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"},
    ),
    # Online to the end, which does not wait for ever for an upload.
    "hangs after the start": Case(
        "hangs after the start",
        "",
        {"WANDB_API_KEY": "k" * 40, "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"},
    ),
}


@dataclass
class Outcome:
    """What a case's process left."""

    where: Path
    returncode: int
    err: str

    def __getitem__(self, name: str) -> object:
        return json.loads((self.where / "outcome.json").read_text())[name]


def train_as_a_user() -> None:
    """What every case's process does, in a folder and with an environment of its own."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logger = WandbLogger(project="stars", save_dir="runs and more", mode="online")
    started = time.monotonic()
    run = logger.experiment
    outcome = {"seconds": time.monotonic() - started, "mode": run.settings.mode, "folder": str(Path(run.dir).parent)}
    logger.log_hyperparams(CONFIG)
    train(logger, Path())
    Path("outcome.json").write_text(json.dumps(outcome))


def fork_cases(cases: list[tuple[str, int, dict[str, str]]]) -> None:
    """Run all cases side by side, each in a child that ends as every process does, and print their exit statuses.

    Lightning and torch, seconds of import, are there already.
    """
    children = []
    for where, terminal, environment in cases:
        child = os.fork()
        if child == 0:
            os.chdir(where)
            os.environ.update(environment)
            for standard in (0, 1, 2):
                # wandb says its last words on standard output.
                os.dup2(os.open("stdout", os.O_WRONLY | os.O_CREAT) if standard == 1 else terminal, standard)
            train_as_a_user()
            return
        children.append(child)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Each case with an empty home and a terminal, on which nobody ever types."""
    folders = [tmp_path_factory.mktemp("case") for _ in CASES]
    terminals = [pty.openpty() for _ in CASES]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "XDG_"))}
    with contextlib.ExitStack() as servers:
        cases = [
            (
                str(folder),
                end,
                {
                    "HOME": str(folder),
                    "NETRC": str(folder / "netrc"),
                    "WANDB_BASE_URL": servers.enter_context(base_url(case.server)),
                    # The logger's own limits are 10, 10 and 300 seconds.
                    "WANDB_HTTP_TIMEOUT": "2",
                    "WANDB_INIT_TIMEOUT": "2",
                    "WANDB_FINISH_TIMEOUT": "2",
                    **case.environment,
                },
            )
            for case, folder, (_, end) in zip(CASES.values(), folders, terminals, strict=True)
        ]
        code = """
import sys, yelp_lightning.loggers
assert "wandb" not in sys.modules, "importing the logger imports wandb"
import json, test_loggers
test_loggers.fork_cases(json.loads(sys.argv[1]))
"""
        process = subprocess.run(
            [sys.executable, "-c", code, json.dumps(cases)],
            env=inherited | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
            pass_fds=[end for _, end in terminals],
            stdout=subprocess.PIPE,
            text=True,
            timeout=120,
            check=True,
        )
    outcomes = {}
    for name, folder, (terminal, end), status in zip(
        CASES, folders, terminals, json.loads(process.stdout), strict=True
    ):
        os.write(end, b"\0")  # so that there is something to read
        outcomes[name] = Outcome(folder, status, os.read(terminal, 1 << 16).decode().rstrip("\0"))
        os.close(end)
        os.close(terminal)
    return outcomes


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.reason])
def test_goes_offline_and_says_so_in_one_line(outcomes: dict[str, Outcome], name: str) -> None:
    outcome = outcomes[name]
    assert outcome.returncode == 0, outcome.err
    assert outcome["mode"] == "offline"
    assert outcome["seconds"] < 30
    # All of standard error: no prompt, no word of wandb's.
    assert len(outcome.err.splitlines()) == 1, outcome.err
    line = outcome.err.strip()
    assert line.startswith("warning: Weights & Biases is offline for this run ("), outcome.err
    assert CASES[name].reason in line
    _, command = line.split("; upload it later with: ")
    assert shlex.split(command) == ["wandb", "sync", outcome["folder"]]
    # The training went on as if nothing were.
    read = read_wandb(outcome.where / str(outcome["folder"]))
    assert read["config"] == CONFIG
    assert [row["train/number"] for row in read["history"]] == [1.0, 2.0]
    assert read["state"] == "finished"


def test_stays_online_and_ends_although_the_upload_hangs(outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes["hangs after the start"]
    assert outcome.returncode == 0, outcome.err
    assert outcome["mode"] == "online"
    assert "warning: Weights & Biases" not in outcome.err
    assert [row["train/number"] for row in read_wandb(outcome.where / "runs and more" / "wandb")["history"]] == [
        1.0,
        2.0,
    ]
