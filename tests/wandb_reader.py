"""Read back what a finished wandb run wrote, through wandb's own `wandb leet inspect`."""

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
        ``config``, nested as it was logged; ``history``, a dict per logged row; ``summary``, the last values;
        ``project`` and ``state`` ("finished").
    """

    def inspect(*options: str) -> str:
        command = [sys.executable, "-m", "wandb", "leet", "inspect", *options, "--json", str(folder.resolve())]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    records = [json.loads(line) for line in inspect().splitlines()]
    run = json.loads(inspect("--summary"))
    return {
        "history": [record["history"]["item"] for record in records if record["type"] == "history"],
        **{name: run[name] for name in ("config", "summary", "project", "state")},
    }
