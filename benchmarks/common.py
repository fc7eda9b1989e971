"""What the benchmarks share: a fresh child process for each measurement, its peak memory, and where they ran."""

import importlib.metadata
import json
import math
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
from statistics import NormalDist
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
    command = [sys.executable, script, "--child", name, json.dumps(asdict(settings))]
    given = environment(settings.folder)
    child = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, errors="replace")
    if child.returncode:
        sys.exit(f"{child.stdout}{child.stderr}\n`{name}` failed with exit status {child.returncode}; see above.")
    result: dict[str, Any] = json.loads((Path(settings.folder) / RESULT).read_text())
    return result


def environment(folder: str) -> dict[str, str]:
    """Variables of a child process: it finds this project and the benchmarks' callbacks, wherever it runs.

    Args:
        folder: Where its datasets cache goes: nothing is found ready, nothing is left behind.
    """
    path = [str(ROOT / "benchmarks"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path), "HF_DATASETS_CACHE": f"{folder}/datasets"}


def call(command: str, options: dict[str, Any], **more: Any) -> None:
    """Run one of this project's commands in a process of its own, as a user would.

    Args:
        command: ``fit``, ``test`` or another.
        options: Names without dashes, and their values.
        **more: Of ``subprocess.run``.

    Raises:
        subprocess.CalledProcessError: If it fails; what it said is on standard error.
    """
    words = [f"--{name}={value}" for name, value in options.items()]
    given = {"check": True, "stdout": sys.stderr} | more
    subprocess.run([sys.executable, "-m", "yelp_lightning", command, *words], **given)


def callback(class_path: str, **init_args: Any) -> str:
    """A callback as an option of the command line takes it.

    Args:
        class_path: ``module.Class``; the modules of this folder are found.
        **init_args: Of the class.
    """
    return json.dumps({"class_path": class_path, "init_args": init_args})


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share.

    Args:
        share: Observed, from 0 to 1.
        n: Of how many.
    """
    z = NormalDist().inv_cdf(0.975)
    centre, spread = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = ((centre + sign * spread) / (1 + z**2 / n) for sign in (-1, 1))
    return low, high


def significant(report: Any) -> Any:
    """The same report with five digits of every measured number."""
    return json.loads(json.dumps(report), parse_float=lambda number: float(f"{float(number):.5g}"))


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
