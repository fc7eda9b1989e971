"""The stand-in hub and the tiny BERT, seen by the real ``from_pretrained`` and ``load_dataset`` in fresh processes."""

import http.client
import json
import shutil
import string
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from hub import COMMIT, STARS, Hub, write_yelp_dataset
from safetensors.torch import load_file
from tiny_bert import WORDS_AND_ENDINGS, write_tiny_bert
from transformers import AutoModelForSequenceClassification, AutoTokenizer

BERT = "google-bert/bert-base-cased"
YELP = "Yelp/yelp_review_full"

LOAD_MODEL = f"""
import json, sys
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{BERT}")
model = AutoModelForSequenceClassification.from_pretrained("{BERT}", num_labels=5)
save_file(model.bert.state_dict(), sys.argv[1])
try:
    AutoTokenizer.from_pretrained("google-bert/unknown")
except OSError as error:
    unknown = str(error)
text = "The food was great!"
print(json.dumps([tokenizer(text)["input_ids"], model.config.num_labels, unknown]))
"""

LOAD_DATASET = f"""
import json, os
from datasets import load_dataset

def rows(name, **options):
    return {{split: reviews.to_list() for split, reviews in load_dataset(name, **options).items()}}

loaded = {{
    "default": rows("{YELP}"),
    "revision": rows("{YELP}", revision="{COMMIT}"),
    "train": load_dataset("{YELP}", split="train").to_list(),
    "names": load_dataset("{YELP}", split="train").features["label"].names,
    "no readme": rows("Yelp/no_readme"),
}}
if "HF_HUB_OFFLINE" not in os.environ:
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub import HfApi, snapshot_download

    for options in ({{"path": "Yelp/unknown"}}, {{"path": "{YELP}", "revision": "unknown"}}):
        try:
            load_dataset(**options)
        except DatasetNotFoundError as error:
            loaded.setdefault("errors", []).append(str(error))
    loaded["snapshot"] = snapshot_download("{YELP}", repo_type="dataset")
    found = HfApi().get_paths_info("{YELP}", ["README.md", "yelp_review_full", "unknown"], repo_type="dataset")
    loaded["paths"] = [[type(entry).__name__, entry.path] for entry in found]
print(json.dumps(loaded))
"""


def run(script: str, environment: dict[str, str], *arguments: str) -> Any:
    """Run a script in a fresh process and read the JSON of its last line."""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def ask(hub: Hub, method: str, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    """Send one request, without any of the libraries."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.server_port, timeout=10)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def assert_same_tensors(path: Path, expected: Path) -> None:
    """Check that two safetensors files hold the same tensors, bit for bit."""
    tensors, expected_tensors = load_file(path), load_file(expected)
    assert tensors.keys() == expected_tensors.keys()
    assert all(torch.equal(tensors[name], expected_tensors[name]) for name in tensors)


def test_from_pretrained_then_offline(tmp_path: Path) -> None:
    """Model and tokenizer load from the hub, and from the cache when the hub is gone."""
    bert = write_tiny_bert(tmp_path / "bert")
    ids = AutoTokenizer.from_pretrained(bert)("The food was great!")["input_ids"]

    with Hub(models={BERT: bert}, datasets={}) as hub:
        loaded = run(LOAD_MODEL, hub.environment(tmp_path / "home"), str(tmp_path / "online.safetensors"))
    assert loaded[:2] == [ids, 5]
    assert "google-bert/unknown is not a local folder and is not a valid model identifier" in loaded[2]
    assert_same_tensors(tmp_path / "online.safetensors", bert / "model.safetensors")
    assert any(request.startswith("GET") and request.endswith("/model.safetensors") for request in hub.requests)
    assert all(request.split()[1].startswith("/") for request in hub.requests), "a request to another host"

    offline = hub.environment(tmp_path / "home") | {"HF_HUB_OFFLINE": "1"}
    loaded = run(LOAD_MODEL, offline, str(tmp_path / "offline.safetensors"))
    assert loaded[:2] == [ids, 5]
    assert_same_tensors(tmp_path / "offline.safetensors", bert / "model.safetensors")


def test_load_dataset_then_offline(tmp_path: Path) -> None:
    """Datasets load with and without a dataset card, and from the cache when the hub is gone."""
    yelp = write_yelp_dataset(tmp_path / "yelp", train=23, test=7)
    parts = {split: yelp / "yelp_review_full" / f"{split}-00000-of-00001.parquet" for split in ("train", "test")}
    rows = {split: pyarrow.parquet.read_table(part).to_pylist() for split, part in parts.items()}
    no_readme = shutil.copytree(yelp, tmp_path / "no_readme", ignore=shutil.ignore_patterns("README.md"))
    expected = {"default": rows, "revision": rows, "train": rows["train"], "names": STARS, "no readme": rows}

    with Hub(models={}, datasets={YELP: yelp, "Yelp/no_readme": no_readme}) as hub:
        loaded = run(LOAD_DATASET, hub.environment(tmp_path / "home"))
    assert {key: loaded[key] for key in expected} == expected
    assert loaded["errors"] == [
        "Dataset 'Yelp/unknown' doesn't exist on the Hub or cannot be accessed.",
        f"Revision 'unknown' doesn't exist for dataset '{YELP}' on the Hub.",
    ]
    assert loaded["paths"] == [["RepoFile", "README.md"], ["RepoFolder", "yelp_review_full"]]
    for path in ["README.md", *(part.relative_to(yelp) for part in parts.values())]:
        assert (Path(loaded["snapshot"]) / path).read_bytes() == (yelp / path).read_bytes()
    # The datasets-server, reached through the hub as a proxy, is the only other host that was asked for.
    elsewhere = {request.split("?")[0] for request in hub.requests if not request.split()[1].startswith("/")}
    assert elsewhere == {f"GET http://datasets-server.127.0.0.1:{hub.server_port}/info"}

    offline = hub.environment(tmp_path / "home") | {"HF_HUB_OFFLINE": "1"}
    assert run(LOAD_DATASET, offline) == expected


def test_files_by_head_get_and_range(tmp_path: Path) -> None:
    """The client relies on the size and ETag of HEAD, and resumes a broken download by Range."""
    (tmp_path / "letters.txt").write_bytes(b"abcdefghij")
    with Hub(models={"org/model": tmp_path}, datasets={}) as hub:
        url = "/org/model/resolve/main/letters.txt"
        head, nothing = ask(hub, "HEAD", url)
        whole, content = ask(hub, "GET", url)
        middle, middle_content = ask(hub, "GET", url, Range="bytes=2-4")
        rest, rest_content = ask(hub, "GET", url, Range="bytes=7-")
        beyond, _ = ask(hub, "GET", url, Range="bytes=10-")
    assert (head.status, nothing, whole.status, content) == (200, b"", 200, b"abcdefghij")
    # The ETag is what `printf abcdefghij | git hash-object --stdin` prints.
    expected = {"X-Repo-Commit": COMMIT, "Content-Length": "10", "ETag": '"c76a96421b967235e3e3c307c8fe4ff16fbef402"'}
    assert {name: head.headers[name] for name in expected} == expected
    assert head.headers["ETag"] == whole.headers["ETag"]
    assert (middle.status, middle_content, middle.headers["Content-Range"]) == (206, b"cde", "bytes 2-4/10")
    assert (rest.status, rest_content, rest.headers["Content-Range"]) == (206, b"hij", "bytes 7-9/10")
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, "bytes */10")
    assert hub.requests == [f"HEAD {url}", *[f"GET {url}"] * 4]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/org/unknown/resolve/main/config.json", "RepoNotFound"),
        ("/datasets/org/model/resolve/main/config.json", "RepoNotFound"),
        ("/org/model/resolve/v2/config.json", "RevisionNotFound"),
        ("/org/model/resolve/main/unknown.json", "EntryNotFound"),
        ("/org/model/resolve/main/../model/config.json", "EntryNotFound"),
        ("/api/models/org/unknown", "RepoNotFound"),
        ("/api/models/org/model/tree/main/unknown", "EntryNotFound"),
        ("/api/unknown", None),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, path: str, code: str | None) -> None:
    """The client tells a missing repository, revision and file apart by one header."""
    model = write_tiny_bert(tmp_path / "model")
    with Hub(models={"org/model": model}, datasets={}) as hub:
        response, _ = ask(hub, "GET", path)
    assert (response.status, response.headers["X-Error-Code"]) == (404, code)
    # Only then does the client note in its cache that this commit has no such file.
    assert response.headers["X-Repo-Commit"] == (COMMIT if code == "EntryNotFound" else None)


def test_faults_and_the_end_of_the_hub(tmp_path: Path) -> None:
    """A fault lasts as long as the test wants, and nothing answers after the ``with`` block."""
    with Hub(models={"org/model": tmp_path}, datasets={}, status={"/api/": 503}) as hub:
        assert ask(hub, "GET", "/api/models/org/model")[0].status == 503
        hub.status.clear()
        assert json.loads(ask(hub, "GET", "/api/models/org/model/revision/main")[1])["sha"] == COMMIT
    with pytest.raises(ConnectionRefusedError):
        ask(hub, "GET", "/api/models/org/model")


def test_environment_leaves_out_inherited_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the machine the tests run on do not reach the process."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TRANSFORMERS_CACHE", "/elsewhere")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with Hub(models={}, datasets={}) as hub:
        environment = hub.environment(tmp_path)
    assert not {"HF_HUB_OFFLINE", "TRANSFORMERS_CACHE"} & environment.keys()
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["HF_ENDPOINT"] == hub.endpoint


def test_yelp_dataset_is_balanced_and_without_repeats(tmp_path: Path) -> None:
    """The made-up reviews are balanced, shuffled, distinct and the same each time."""
    for folder in ("one", "two"):
        write_yelp_dataset(tmp_path / folder, train=203, test=50)
    texts = []
    for split, counts in (("train", [41, 41, 41, 40, 40]), ("test", [10] * 5)):
        name = f"yelp_review_full/{split}-00000-of-00001.parquet"
        reviews = pyarrow.parquet.read_table(tmp_path / "one" / name)
        assert reviews.column_names == ["label", "text"]
        labels = reviews["label"].to_pylist()
        assert [Counter(labels)[label] for label in range(5)] == counts
        assert labels != sorted(labels)
        assert reviews.equals(pyarrow.parquet.read_table(tmp_path / "two" / name))
        texts += reviews["text"].to_pylist()
    assert len(set(texts)) == 253


def test_tiny_bert_tokenizer(tmp_path: Path) -> None:
    """The tokenizer is fast, lower-cases, and knows every ASCII word."""
    tokenizer = AutoTokenizer.from_pretrained(write_tiny_bert(tmp_path))
    assert tokenizer.is_fast
    assert tokenizer.model_max_length == 512
    assert tokenizer.tokenize("The Friendly COOKS served zest!") == [
        "the", "friendly", "cook", "##s", "serve", "##d", "z", "##est", "!",
    ]  # fmt: skip
    words = [*WORDS_AND_ENDINGS.replace("#", "").split(), *string.printable, string.ascii_letters + string.digits]
    assert tokenizer.unk_token not in tokenizer.tokenize(" ".join(words))


def test_tiny_bert_weights_follow_the_seed_alone(tmp_path: Path) -> None:
    """Same seed, same file; the random numbers of the caller are not touched."""
    state = torch.get_rng_state()
    files = [
        write_tiny_bert(tmp_path / name, seed=seed) / "model.safetensors"
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert torch.equal(torch.get_rng_state(), state)
    first, second, other_seed = (file.read_bytes() for file in files)
    assert first == second
    assert first != other_seed


@pytest.mark.parametrize(("num_labels", "options"), [(None, {"num_labels": 5}), (5, {})])
def test_tiny_bert_classifies(tmp_path: Path, num_labels: int | None, options: dict[str, int]) -> None:
    """A classifier loads with a new head or with the saved one, up to 512 tokens."""
    folder = write_tiny_bert(tmp_path, num_labels=num_labels, hidden_size=16)
    model = AutoModelForSequenceClassification.from_pretrained(folder, **options)
    batch = AutoTokenizer.from_pretrained(folder)("Nice food. " * 300, truncation=True, return_tensors="pt")
    assert batch["input_ids"].shape == (1, 512)
    assert model(**batch).logits.shape == (1, 5)
    assert model.config.hidden_size == 16
