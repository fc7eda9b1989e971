"""The search space: a yaml file that gives options of `fit` a range or choices."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from yelp_lightning.errors import UsageError

EXAMPLE = "configs/search/small.yaml"
# What the study decides itself: each trial has its own folder, and all are compared by one metric.
NOT_SEARCHED = {
    "config",
    "space",
    "trials",
    "output",
    "prune",
    "keep",
    "ckpt_path",
    "trainer.default_root_dir",
    "checkpoint.monitor",
}


def read_space(path: str, parse: Callable[[list[str]], Namespace]) -> dict[str, BaseDistribution]:
    """Read and check a search space.

    Args:
        path: What was typed for ``--space``.
        parse: Parses options of `fit` such as ``--data.batch_size=8`` over those of the study, and refuses wrong ones.

    Returns:
        What each option is drawn from, by its name.

    Raises:
        UsageError: If the file cannot be read, or says no range or choices, or `fit` would refuse an end of a range or
            a choice.
    """
    try:
        entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error.strerror if isinstance(error, OSError) else error).split())
        raise UsageError(
            f"`--space` is {path!r}, which cannot be read ({reason}): give a yaml file, as {EXAMPLE} is."
        ) from error
    if not isinstance(entries, dict) or not entries:
        raise UsageError(f"`--space` is {path!r}, which names no options: write it as {EXAMPLE} is.")
    try:
        space = {str(name): _distribution(str(name), entry) for name, entry in entries.items()}
        return _checked(space, parse)
    except UsageError as error:
        raise UsageError(f"In {path}: {error}") from error


def as_option(name: str, value: Any) -> str:
    """Write a drawn value as it is typed.

    Args:
        name: Name of the option, without dashes.
        value: A number, a text, true, false or null.

    Returns:
        The option.

    Example:
        >>> as_option("data.batch_size", 8), as_option("trainer.deterministic", None)
        ('--data.batch_size=8', '--trainer.deterministic=null')
    """
    return f"--{name}={value if isinstance(value, str) else json.dumps(value)}"


def _distribution(name: str, entry: Any) -> BaseDistribution:
    if name in NOT_SEARCHED:
        raise UsageError(f"`{name}` cannot be searched, because the study decides it: leave it out.")
    keys = set(entry) if isinstance(entry, dict) else set()
    if keys == {"choices"}:
        choices = entry["choices"]
        if not isinstance(choices, list) or not choices or not all(map(_is_plain, choices)):
            raise UsageError(
                f"`{name}` has the choices {choices!r}, but they must be a list of numbers or texts: "
                f"write `{name}: {{choices: [A, B]}}`."
            )
        return CategoricalDistribution(choices)
    if not {"low", "high"} <= keys <= {"low", "high", "log", "step"}:
        raise UsageError(
            f"`{name}` is {entry!r}, but must be a range or choices of one option: write "
            f"`{name}: {{low: A, high: B}}`, with `log: true` or `step: C` where you want it, or "
            f"`{name}: {{choices: [A, B]}}`."
        )
    low, high = (_number(name, key, entry[key]) for key in ("low", "high"))
    step = _number(name, "step", entry["step"]) if "step" in entry else None
    log = entry.get("log", False)
    if not isinstance(log, bool):
        raise UsageError(f"`{name}` has log {log!r}, but it must be true or false: give one of them.")
    whole = all(isinstance(number, int) for number in (low, high, step) if number is not None)
    try:
        # Optuna checks what numbers alone can tell: low over high, a logarithm of 0, a step with it.
        return IntDistribution(low, high, log, step or 1) if whole else FloatDistribution(low, high, log, step)
    except ValueError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UsageError(f"`{name}` is {entry!r}, which is no range ({reason}): mend its numbers.") from error


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _number(name: str, key: str, value: Any) -> Any:
    # To yaml, 1e-5 without a point is a text.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    elif isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise UsageError(f"`{name}` has {key} {value!r}, but it must be a number: give one, or give choices.")


def _ends(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return [distribution.low, distribution.high]


def _checked(
    space: dict[str, BaseDistribution], parse: Callable[[list[str]], Namespace]
) -> dict[str, BaseDistribution]:
    ends = {name: _ends(distribution) for name, distribution in space.items()}
    for number in range(max(map(len, ends.values()))):
        parsed = parse([as_option(name, values[number % len(values)]) for name, values in ends.items()])
        for name, distribution in space.items():
            # `{low: 0, high: 1}` of an option that takes decimals means those between, too.
            if isinstance(distribution, IntDistribution) and isinstance(parsed[name], float):
                step = distribution.step if distribution.step > 1 else None
                space[name] = FloatDistribution(distribution.low, distribution.high, distribution.log, step)
    return space
