"""What the benchmarks share: a fresh child process for each measurement, its peak memory, and where they ran."""

import importlib.metadata
import json
import os
import platform
import re
import resource
import shlex
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = "result.json"


def measure(script: str, name: str, settings: Any) -> dict[str, Any]:
    """Run one contestant in a fresh process; if it fails, show its stderr and end the benchmark.

    Args:
        script: The benchmark, which takes ``--child NAME SETTINGS``.
        name: The contestant.
        settings: A dataclass whose ``folder`` is an empty folder to write to.

    Returns:
        What the contestant left by ``leave_result``.
    """
    path = [str(ROOT / "benchmarks"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    # The datasets cache is the run's own: nothing is found ready, nothing is left behind.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path), "HF_DATASETS_CACHE": f"{settings.folder}/datasets"}
    command = [sys.executable, script, "--child", name, json.dumps(asdict(settings))]
    child = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace")
    if child.returncode:
        sys.exit(f"{child.stdout}{child.stderr}\n`{name}` failed with exit status {child.returncode}; see above.")
    result: dict[str, Any] = json.loads((Path(settings.folder) / RESULT).read_text())
    return result


def leave_result(folder: str, result: dict[str, Any]) -> None:
    """Leave a contestant's result, and the peak memory of its largest process, in its folder."""
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    (Path(folder) / RESULT).write_text(json.dumps({**result, "peak_rss_mb": peak * unit / 1e6}))


def resolve_model(model: str) -> str:
    """The model as the contestants, which run in the project's root, find it."""
    is_folder = model != "embedded" and Path(model).is_dir()
    return str(Path(model).resolve()) if is_folder else model


def circumstances(script: str, packages: tuple[str, ...]) -> dict[str, Any]:
    """Machine, versions, date and command, for the JSON line."""
    return {
        "machine": machine(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in packages},
        "date": datetime.now(UTC).date().isoformat(),
        "command": shlex.join(["python", f"benchmarks/{Path(script).name}", *sys.argv[1:]]),
    }


def machine() -> dict[str, Any]:
    """CPU model and the number of cores that this process may use."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", info.read_text()) if info.exists() else None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": found[1] if found else platform.processor(), "cores": cores}
