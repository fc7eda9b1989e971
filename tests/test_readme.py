"""The README: its file tree is that of the docstrings, its commands and options exist."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from yelp_lightning.__main__ import COMMANDS

README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"
FOLDERS = ("yelp_lightning", "configs", "benchmarks", "docs", "tests")


def summary(path: Path) -> str:
    """First line of a file's docstring, or of its leading comment."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    return text.partition("\n")[0].removeprefix("# ")


def tree() -> str:
    """The README's file tree: one line a file."""
    lines = []
    for folder in FOLDERS:
        files = [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml")]
        files = [path for path in files if summary(path)]
        files.sort(key=lambda path: (path.parent, path.name))
        lines += [f"{path.relative_to(ROOT)!s:<39} {summary(path)}" for path in files]
    return "\n".join(lines)


def test_file_tree_is_that_of_the_docstrings() -> None:
    assert README.rstrip().endswith(f"```\n{tree()}\n```"), f"The README must end with this tree:\n{tree()}"


def test_every_module_says_what_it_is() -> None:
    modules = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    assert [path for path in modules if not summary(path)] == []


def test_commands_in_the_readme_exist() -> None:
    used = re.findall(r"(?:python -m yelp_lightning|yelp-lightning) (\w+)", README)
    assert set(COMMANDS) <= set(used)
    assert set(used) <= set(COMMANDS)


def test_files_in_the_readme_exist() -> None:
    named = re.findall(r"(?:configs|benchmarks|docs|tests|yelp_lightning)/[\w./-]+\.(?:yaml|py|md|json|png)", README)
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("command", ["fit", "predict", "tune"])
def test_options_in_the_readme_exist(command: str) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "yelp_lightning", command, "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    lines = [line for line in README.splitlines() if f"yelp_lightning {command} " in line]
    options = {option for line in lines for option in re.findall(r"(--[a-z_.]+)", line)}
    assert options
    assert [option for option in options if option not in process.stdout] == []


def test_every_option_of_ours_is_documented() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "yelp_lightning", "predict", "--help"], capture_output=True, text=True, check=True,
        cwd=ROOT, env={"COLUMNS": "1000", "PATH": ""},
    )  # fmt: skip
    entries = re.split(r"^  (?=--)", process.stdout, flags=re.MULTILINE)
    ours = [entry for entry in entries if re.match(r"--(data\.|model\.|output|text|explain|ckpt_path)", entry)]
    assert len(ours) >= 24
    for entry in ours:
        # Without the name, its placeholder, and what the parser adds about type and default.
        words = re.sub(r"^--\S+( [A-Z_]+| \{\S+\})?|\((type|default):.*|^  .*-->.*", "", entry).strip()
        assert len(words) > 20, f"no description: {entry}"


def test_recipe_table_is_that_of_the_results(tmp_path: Path) -> None:
    command = ["benchmarks/recipes.py", "--data", tmp_path, "--seeds", "0", "--results", RESULTS / "recipes.json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, check=True, cwd=ROOT, env=environment
    )
    table = process.stdout.rpartition("\n[")[0]
    assert table.startswith("| recipe |")
    assert table in README, f"The README must have this table:\n{table}"
