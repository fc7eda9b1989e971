"""A small stand-in of the Hugging Face Hub on 127.0.0.1, for the real ``from_pretrained`` and ``load_dataset``.

No library is patched. A fresh process finds the hub through environment variables, which the libraries read when they
are imported; :meth:`Hub.environment` has them all. Besides ``HF_ENDPOINT`` and ``HF_HOME`` these need a reason:

- ``http_proxy`` and its like: ``load_dataset`` also asks a "datasets-server" host, whose name it makes by putting that
  word before the endpoint's: ``http://datasets-server.127.0.0.1:PORT``. Its failure is swallowed, but looking up the
  name takes 10 seconds where no DNS server answers. A client sends its request to a proxy without looking up the name,
  and the proxy is the hub itself. (``load_dataset`` with ``revision=`` other than "main", ``data_files=`` or
  ``data_dir=`` does not ask at all.) Requests to the real internet end here too, and ``Hub.requests`` names the host.
- ``HF_UPDATE_DOWNLOAD_COUNTS``: each ``load_dataset`` tells s3.amazonaws.com, whatever the endpoint and the telemetry
  switch say; another 10 seconds without DNS. With both, ``load_dataset`` takes 0.3 seconds, DNS or none.
- ``DISABLE_SAFETENSORS_CONVERSION``: for a repository without safetensors, transformers starts a background thread that
  talks to a Space on huggingface.co, whatever the endpoint is.
"""

import hashlib
import json
import os
import random
import re
import threading
from collections.abc import Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote

from datasets import ClassLabel, Dataset, Features, Value

# The commit of every repository's "main"; its revisions are "main", this hash, and the branches that a test gives.
COMMIT = "5ca1ab1e" * 5

# Of google-bert/bert-base-cased/resolve/main/config.json and datasets/Yelp/yelp_review_full/resolve/main/README.md.
FILE_URL = re.compile(
    r"/(?:(?P<kind>datasets)/)?(?P<repo>[^/]+(?:/[^/]+)?)/(?P<action>resolve)/(?P<revision>[^/]+)/(?P<name>.+)"
)
API_URL = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<repo>[^/]+(?:/[^/]+)?)"
    r"(?:/(?P<action>revision|tree|paths-info)/(?P<revision>[^/]+)(?:/(?P<name>.+))?)?"
)

# Label names as the real dataset has them, "2 star" included.
STARS = ["1 star", "2 star", "3 stars", "4 stars", "5 stars"]
OPINIONS = [
    ["terrible", "horrible", "awful", "disgusting", "dirty", "rude"],
    ["bad", "bland", "cold", "slow", "overpriced", "disappointing"],
    ["okay", "average", "decent", "mediocre", "plain", "fair"],
    ["good", "nice", "tasty", "friendly", "fresh", "clean"],
    ["great", "amazing", "perfect", "excellent", "wonderful", "delicious"],
]
THINGS = ["food", "service", "staff", "pizza", "salad", "soup", "coffee", "music", "menu", "waiter"]
MEALS = ["breakfast", "brunch", "lunch", "dinner", "drinks", "dessert"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


class Hub(ThreadingHTTPServer):
    """Folders served as repositories for as long as the ``with`` block lasts.

    Args:
        models: Folder of each model repository, by its id, such as ``google-bert/bert-base-cased``.
        datasets: Folder of each dataset repository, by its id.
        status: HTTP status to answer by the start of the path, such as ``{"/api/": 503}``; a test may change it while
            the hub runs.
        branches: Folder of each branch beside main, by the id of its repository and its name.

    Attributes:
        endpoint: Address of the hub, ``http://127.0.0.1:PORT``.
        requests: ``"METHOD path"`` of each request so far, in order of arrival.

    Example:
        >>> with Hub(models={}, datasets={}) as hub:
        ...     hub.requests
        []
    """

    def __init__(
        self,
        models: dict[str, Path],
        datasets: dict[str, Path],
        status: dict[str, int] | None = None,
        branches: dict[str, dict[str, Path]] | None = None,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.folders = {"models": models, "datasets": datasets}
        self.branches = branches or {}
        self.status = {} if status is None else status
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[str] = []

    def __enter__(self) -> Self:
        """Start to answer, in threads of their own."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop, and close the port: from here on connections are refused."""
        self.shutdown()
        self.server_close()

    def find(self, kind: str, repo: str, revision: str) -> tuple[Path | None, str]:
        """Find what a repository holds at a revision.

        Args:
            kind: ``models`` or ``datasets``.
            repo: Id of a repository that there is.
            revision: A branch or a commit; empty means main.

        Returns:
            Its folder, None if there is no such revision, and its commit.
        """
        if revision in ("", "main", COMMIT):
            return self.folders[kind][repo], COMMIT
        for branch, folder in self.branches.get(repo, {}).items():
            commit = hashlib.sha1(branch.encode(), usedforsecurity=False).hexdigest()
            if revision in (branch, commit):
                return folder, commit
        return None, ""

    def environment(self, home: Path) -> dict[str, str]:
        """Make the environment of a fresh process that knows this hub and no other.

        Args:
            home: Folder for the process's caches (``HF_HOME``).

        Returns:
            This process's environment, with the variables of the Hugging Face libraries replaced.
        """
        theirs = ("HF_", "HUGGING", "TRANSFORMERS_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
        return inherited | {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "DISABLE_SAFETENSORS_CONVERSION": "1",
            # In lower case, which wins over the same names in upper case.
            "http_proxy": self.endpoint,
            "https_proxy": self.endpoint,
            "all_proxy": self.endpoint,
            "no_proxy": "127.0.0.1",
        }


class _Request(BaseHTTPRequestHandler):
    """One request, answered with the status, headers and body of the real hub."""

    server: Hub

    def answer(self) -> None:
        """Note the request, find what its path names, and answer."""
        # Read even if not needed: closing a connection with unread bytes resets it, and the client may miss the answer.
        form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        self.server.requests.append(f"{self.command} {self.path}")
        path, _, query = self.path.partition("?")
        fault = next((status for start, status in self.server.status.items() if path.startswith(start)), None)
        url = FILE_URL.fullmatch(path) or API_URL.fullmatch(path)
        if fault is not None or url is None:
            self.reply(fault or HTTPStatus.NOT_FOUND)
            return

        kind, action = url["kind"] or "models", url["action"]
        repo, revision, name = (unquote(url[group] or "") for group in ("repo", "revision", "name"))
        if repo not in self.server.folders[kind]:
            self.reply_not_found("RepoNotFound")
            return
        folder, commit = self.server.find(kind, repo, revision)
        if folder is None:
            self.reply_not_found("RevisionNotFound")
            return
        target = folder / name
        if ".." in name.split("/") or not (target.is_file() if action == "resolve" else target.is_dir()):
            # With the commit, so that the client may note in its cache that this commit has no such file.
            self.reply_not_found("EntryNotFound", {"X-Repo-Commit": commit})
            return

        if action == "resolve":
            self.reply_file(target, commit)
        elif action == "tree":
            recursive = parse_qs(query).get("recursive", [""])[0].lower() == "true"
            self.reply_json(_entries(folder, target.rglob("*") if recursive else target.iterdir()))
        elif action == "paths-info":
            asked = [folder / path for path in form.get("paths", [])]
            self.reply_json(_entries(folder, [path for path in asked if path.exists()]))
        else:
            files = [{"rfilename": path.relative_to(folder).as_posix()} for path in folder.rglob("*") if path.is_file()]
            self.reply_json(
                {"id": repo, "sha": commit, "private": False, "gated": False, "tags": [], "siblings": files}
            )

    # CONNECT is how a client asks a proxy for an https host: noted like the others, and refused.
    do_GET = do_HEAD = do_POST = do_CONNECT = answer

    def reply_file(self, path: Path, commit: str) -> None:
        """Send a file, or the part of it that a ``Range: bytes=first-last`` header asks for."""
        content = path.read_bytes()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_blob_id(path)}"', "Accept-Ranges": "bytes"}
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if part is None:
            self.reply(HTTPStatus.OK, content, headers)
            return
        first = int(part[1])
        last = min(int(part[2] or len(content)), len(content) - 1)
        if first > last:
            unsatisfied = headers | {"Content-Range": f"bytes */{len(content)}"}
            self.reply(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b"", unsatisfied)
            return
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self.reply(HTTPStatus.PARTIAL_CONTENT, content[first : last + 1], headers)

    def reply_json(self, value: Any) -> None:
        """Send a value of the hub's API."""
        self.reply(HTTPStatus.OK, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def reply_not_found(self, code: str, headers: dict[str, str] | None = None) -> None:
        """Send 404 with the header from which the client tells what is missing."""
        self.reply(HTTPStatus.NOT_FOUND, b"", {"X-Error-Code": code, **(headers or {})})

    def reply(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Send a whole answer; to HEAD the same without the body."""
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing: ``Hub.requests`` is the log."""


def _entries(folder: Path, paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Describe files and folders as the hub's API describes them, in order of path."""
    return [
        {
            "type": "file" if path.is_file() else "directory",
            "path": path.relative_to(folder).as_posix(),
            "size": path.stat().st_size if path.is_file() else 0,
            "oid": _blob_id(path) if path.is_file() else COMMIT,
        }
        for path in sorted(paths)
    ]


def _blob_id(path: Path) -> str:
    """Compute the id git gives to a file's content, which is also the hub's ETag."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def write_yelp_dataset(folder: Path, train: int, test: int) -> Path:
    """Write a dataset repository laid out like ``Yelp/yelp_review_full``, with made-up reviews.

    The same sizes give the same reviews. No two are equal, across both splits, and their words tell the label.

    Args:
        folder: Where to write; made if it is missing.
        train: Reviews of the train split, their labels balanced to within one and shuffled.
        test: Reviews of the test split, likewise.

    Returns:
        ``folder``, which holds README.md and one parquet file a split with the columns label and text.
    """
    rng = random.Random(0)
    features = Features({"label": ClassLabel(names=STARS), "text": Value("string")})
    seen: set[str] = set()
    splits = ""
    (folder / "yelp_review_full").mkdir(parents=True, exist_ok=True)
    for split, count in {"train": train, "test": test}.items():
        labels = [i % len(STARS) for i in range(count)]
        rng.shuffle(labels)
        texts = []
        for label in labels:
            text = _review(label, rng)
            while text in seen:
                text = _review(label, rng)
            seen.add(text)
            texts.append(text)
        reviews = Dataset.from_dict({"label": labels, "text": texts}, features=features)
        reviews.to_parquet(folder / "yelp_review_full" / f"{split}-00000-of-00001.parquet")
        splits += f"\n  - name: {split}\n    num_bytes: {reviews.data.nbytes}\n    num_examples: {count}"
    names = "".join(f"\n          '{label}': {name}" for label, name in enumerate(STARS))
    (folder / "README.md").write_text(f"""---
dataset_info:
  config_name: yelp_review_full
  features:
  - name: label
    dtype:
      class_label:
        names:{names}
  - name: text
    dtype: string
  splits:{splits}
configs:
- config_name: yelp_review_full
  data_files:
  - split: train
    path: yelp_review_full/train-*
  - split: test
    path: yelp_review_full/test-*
  default: true
---
Made-up reviews for tests.
""")
    return folder


def _review(label: int, rng: random.Random) -> str:
    """Make up a review of 4 to 14 short sentences, whose opinions all agree with the label."""
    opening = f"We came here for {rng.choice(MEALS)} on {rng.choice(DAYS)}."
    opinions = [f"The {rng.choice(THINGS)} was {rng.choice(OPINIONS[label])}." for _ in range(rng.randint(2, 12))]
    closing = rng.choice(["I will tell my friends.", "You have been told.", "That is all."])
    return " ".join([opening, *opinions, closing])
