"""Option errors: whatever the parser refuses becomes one sentence that says what was meant."""

import argparse
import difflib
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser
from typing_extensions import override

from yelp_lightning.errors import UsageError

# How the parser names a range, and how people do.
_ALLOWED = {
    "PositiveInt": "a whole number of at least 1",
    "NonNegativeInt": "a whole number of at least 0",
    "PositiveFloat": "a number above 0",
    "NonNegativeFloat": "a number of at least 0",
    "ClosedUnitInterval": "a number from 0 to 1",
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'bool'>": "true or false",
}
_VALUE = re.compile(r"(?:Given value: |Got value: |base 10: |to float: )'?(.*?)'?\s*$", re.MULTILINE)


class OptionParser(LightningArgumentParser):
    """LightningCLI's parser, whose errors are single sentences and which never guesses a shortened option."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # argparse would take --trainer.max_epoch for --trainer.max_epochs, and --data.val for the only match.
        super().__init__(*args, **kwargs, allow_abbrev=False)

    @override
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what the parser refused.

        Args:
            message: The parser's own words.
            ex: Its cause.

        Raises:
            UsageError: Always.
        """
        raise UsageError(sentence(message, list(option_names(self)))) from ex


def option_names(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Names of all options of a parser and of its commands.

    Args:
        parser: Any parser.

    Yields:
        Names with their dashes, such as ``--data.source``.
    """
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                if isinstance(command, argparse.ArgumentParser):
                    yield from option_names(command)


def sentence(message: str, options: list[str]) -> str:
    """Turn a message of the parser into one sentence.

    Args:
        message: As jsonargparse 4.53 words it, over several lines.
        options: Names of the options that there are.

    Returns:
        The option, the value found, what is allowed, the way out.
    """
    unknown = re.search(r"unrecognized arguments: (\S+)|does not accept option '([^']+)'", message)
    if unknown:
        name = unknown[1] or f"--{unknown[2]}"
        return f"`{name}` is no option of this command{_meant(name.partition('=')[0], options)}."
    key = re.match(r'Parser key "([^"]+)":\s*', message)
    if key is None:
        return f"The options cannot be read: {_one_line(message)}; see --help."
    value = _VALUE.search(message)
    allowed = [words for name, words in _ALLOWED.items() if name in message]
    allowed += [f"one of {names}" for names in re.findall(r"Literal\[([^\]]+)\]", message)]
    if value is None or not allowed:
        return f"`--{key[1]}`: {_one_line(message[key.end() :])}; see --help."
    return f"`--{key[1]}` is {value[1]!r}, but must be {' or '.join(allowed)}: give such a value."


def _meant(name: str, options: list[str]) -> str:
    last = name.rpartition(".")[2].lstrip("-")
    # The whole name first; else the part after the dot: --train_size means --data.train_size.
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.75) or [
        option for option in options if difflib.get_close_matches(last, [option.rpartition(".")[2]], cutoff=0.75)
    ]
    return f": did you mean `{close[0]}`?" if close else ": see --help for those that there are"


def _one_line(message: str) -> str:
    return re.sub(r"\s+", " ", message).strip().rstrip(".")
