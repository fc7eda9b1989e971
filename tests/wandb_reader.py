"""Read back what a finished wandb run wrote: its records through wandb's own `wandb leet inspect`, and its tables."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def read_wandb(folder: Path) -> dict[str, Any]:
    """What an offline or online run left on disk. `wandb.finish()` or the end of its process must have come before.

    Args:
        folder: A run's folder or .wandb file; a folder ``wandb`` of several runs means the latest.

    Returns:
        ``config``, nested as it was logged; ``history``, a dict per logged row; ``tables``, what each table held at
        each step, ``{key: {step: {columns, data}}}``; ``summary``, the last and best values; ``artifacts``, the
        records of those that are no tables; ``project`` and ``state`` ("finished").
    """

    def inspect(*options: str) -> str:
        command = [sys.executable, "-m", "wandb", "leet", "inspect", *options, "--json", str(folder.resolve())]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    records = [json.loads(line) for line in inspect().splitlines()]
    run = json.loads(inspect("--summary"))
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    tables: dict[str, dict[int, Any]] = {}
    for row in history:
        for key in [name.removesuffix("._type") for name, value in row.items() if value == "table-file"]:
            path = Path(run["file"]).parent / "files" / row[f"{key}.path"]
            tables.setdefault(key, {})[row["trainer/global_step"]] = json.loads(path.read_text(encoding="utf-8"))
    artifacts = [record["artifact"] for record in records if record["type"] == "artifact"]
    return {
        "history": history,
        "tables": tables,
        "artifacts": [artifact for artifact in artifacts if artifact["type"] != "run_table"],
        **{name: run[name] for name in ("config", "summary", "project", "state")},
    }
