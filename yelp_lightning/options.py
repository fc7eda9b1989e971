"""Option errors: whatever the parser or Lightning refuses becomes one sentence that says what was meant."""

import argparse
import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger
from typing_extensions import override

from yelp_lightning.errors import UsageError

# How the parser names what it allows, and how people do.
_ALLOWED = {
    "PositiveInt": "a whole number of at least 1",
    "NonNegativeInt": "a whole number of at least 0",
    "PositiveFloat": "a finite number above 0",
    "NonNegativeFloat": "a finite number of at least 0",
    "ClosedUnitInterval": "a number from 0 to 1",
    "RowCount": "a whole number of at least 1 or a share between 0 and 1",
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'bool'>": "true or false",
    "<class 'str'>": "a text",
}
_VALUE = re.compile(
    r"(?:Given value: |Got value: |base 10: |to float: |: (?=\S+ does not conform))'?(.*?)'?(?: does not conform.*)?$",
    re.M,
)
_NO_TEXT = "yes, no, on and off as true and false, and digits as numbers"
_MEND = ": mend its init_args."
# Groups of at most this many options are listed where none of them was meant.
_SHORT_GROUP = 20


class OptionParser(LightningArgumentParser):
    """LightningCLI's parser, whose errors are single sentences and which never guesses a shortened option."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # argparse would take --trainer.max_epoch for --trainer.max_epochs, and --data.val for the only match.
        super().__init__(*args, **kwargs, allow_abbrev=False)
        for kind in (Callback, Logger):
            self.add_instantiator(_make, kind)

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

    @override
    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Namespace:
        """Read a config file; what is wrong in it is said with its name.

        Args:
            path: What was typed for ``--config``.
            *args: As jsonargparse has them.
            **kwargs: As jsonargparse has them.

        Returns:
            What the file sets.

        Raises:
            UsageError: If it is no yaml, or sets what the parser would drop without a word.
        """
        try:
            config: Namespace = super().parse_path(path, *args, **kwargs)
            self._refuse_dropped(config)
        except UnicodeDecodeError as error:
            raise UsageError(f"`--config` is {path!s}, which is no text file: give a yaml file in UTF-8.") from error
        except UsageError as error:
            raise UsageError(f"In {path!s}: {error}") from error
        return config

    def _refuse_dropped(self, config: Namespace) -> None:
        for action in self._actions:
            target, source = getattr(action, "target", None), getattr(action, "source", None)
            if target and source and target[0] in config:
                self.error(f'Linked "{target[0]}" must be given via "{source[0][0]}"')
        for name, value in vars(config).items():
            inside = [option for option in option_names(self) if option.startswith(f"--{name}.")]
            if inside and not isinstance(value, Namespace):
                raise UsageError(
                    f"`{name}` is {value!r}, but is a group of options: write them below it, indented, "
                    "or remove the line."
                )


def _make(kind: type[Callback | Logger], *args: Any, **init_args: Any) -> Callback | Logger:
    """Make what the user chose by its class_path."""
    try:
        return kind(*args, **init_args)
    except (MisconfigurationException, ModuleNotFoundError, TypeError, ValueError) as error:
        option = "callbacks" if issubclass(kind, Callback) else "logger"
        raise UsageError(f"`--trainer.{option}`: {kind.__name__} refuses ({_one_line(str(error))}){_MEND}") from error


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
    if match := re.match(r'Parser key "([^"]+)":\s*', message):
        return _wrong_value(f"--{match[1]}", message[match.end() :])
    if match := re.search(r"unrecognized arguments: ([^-\s]\S*)", message):
        return (
            f"`{match[1]}` belongs to no option: write --OPTION before a value, and quotes around one that has spaces."
        )
    if match := re.search(r"unrecognized arguments: ([^\s=]+)|(?:accept option|Option) '([^']+)'", message):
        name = match[1] or f"--{match[2]}"
        return f"`{name}` is no option of this command: {_meant(name, options)}"
    if match := re.search(r"argument (?:-\w/)?(--[\w.]+): expected .*argument", message):
        return f"`{match[1]}` has no value: write it after the option, as in {match[1]} VALUE."
    if match := re.search(r"arguments are required: ([\w.]+)", message):
        return f"`--{match[1]}` is missing, which must be given: see --help for what it takes."
    if match := re.match(r'Linked "(.+)" must be given via "(.+)"', message):
        return f"`--{match[1]}` is always that of `--{match[2]}`: give --{match[2]} instead."
    if match := re.match(r"Problems parsing config: (.*)", message, re.DOTALL):
        reason = _one_line(re.sub(r'in "<.*?>", ', "at ", match[1]))
        return f"this is no yaml ({reason}): mend the file."
    if message.startswith("Unexpected config"):
        return "these are no options with their values: see configs/quickstart.yaml for how they are written."
    return f"The options cannot be read: {_one_line(message)}; see --help."


def refused_by_trainer(error: Exception, options: Mapping[str, Any]) -> UsageError:
    """Turn what Lightning's Trainer refused into one sentence.

    Args:
        error: From its constructor.
        options: All of ``trainer.*`` as parsed.

    Returns:
        The error that names the options which Lightning's message speaks of.

    Raises:
        Exception: ``error`` itself, if it speaks of none of them: that is no user's mistake.
    """
    reason = _one_line(str(error))
    named = [name for name in options if re.search(rf"\b{name}\b", reason)]
    named = named or [name for name, value in options.items() if isinstance(value, str) and value in reason]
    if not named and isinstance(error, ModuleNotFoundError):  # it names the library, and these are what needs one
        named = [name for name in ("accelerator", "strategy", "precision") if options[name] not in (None, "auto")]
    if not named:
        raise error
    found = " and ".join(f"`--trainer.{name}` is {options[name]!r}" for name in named)
    return UsageError(f"{found}, which Lightning refuses ({reason}): give another value, or leave the option out.")


def refused_share(error: Exception) -> Exception:
    """What Lightning's Trainer refused once it knew how many batches there are.

    Args:
        error: From one of its commands.

    Returns:
        The sentence about a share of the batches that is less than one; ``error`` itself where it is of anything else.
    """
    match = re.search(r"but (\S+) \* (\d+) < 1.*`(limit_\w+_batches)`", str(error))
    if match is None:
        return error
    return UsageError(
        f"`--trainer.{match[3]}` is {match[1]}, of {match[2]} batches less than one: give a larger share, or a number "
        "of batches."
    )


def refused_by_class(error: ValueError) -> Exception:
    """What a class of the user's choice refused, which the parser says among what else it tried.

    Args:
        error: From the parser.

    Returns:
        The sentence about the class; ``error`` itself where there is none.
    """
    match = re.search(rf"- (`--.*?{_MEND}|`trainer.logger`.*?)$", str(error), re.MULTILINE)
    return UsageError(match[1]) if match else error


def _wrong_value(option: str, message: str) -> str:
    if option == "--config":
        reason, _, path = _one_line(message).partition(": ")
        return (
            f"`--config` is {path}, which cannot be read ({reason}): give a yaml file, as configs/quickstart.yaml is."
        )
    if match := re.match(r"Unable to load config '(.*)'", message):
        return f"`{option}` is {match[1]!r}, but is a group of options: give those, as in {option}.NAME VALUE."
    # A class of the user's choice: what is wrong about it says more than that it is no class.
    if match := re.search(r"- (Problem with given class_path .*?|`--.*?)\s*\n\s*- ", message, re.DOTALL):
        return f"`{option}`: {_one_line(match[1]).rstrip('?')}: mend its class_path and init_args."
    types, _, _ = message.partition("Given value type")
    allowed = [words for name, words in _ALLOWED.items() if name in types]
    classes = re.findall(r"<class 'lightning\.[\w.]*\.(\w+)'>", types)
    allowed += [f"a {name} by its class_path" for name in dict.fromkeys(classes)]
    choices = ", ".join(re.findall(r"Literal\[([^\]]+)\]", types)).replace("'", "")
    if choices or "a number" in allowed:
        allowed = [words for words in allowed if words != "a whole number"]  # it is among those
    if choices:
        allowed.append(f"one of {', '.join(dict.fromkeys(choices.split(', ')))}")
    value = _VALUE.search(message)
    if value is None or not allowed:
        return f"`{option}`: {_one_line(message)}; see --help."
    if allowed == ["a text"]:  # only what yaml took for something else is refused
        return f"`{option}` is {value[1]!r}, but must be a text: put it in quotes, without which yaml reads {_NO_TEXT}."
    return f"`{option}` is {value[1]!r}, but must be {' or '.join(allowed)}: give such a value."


def _meant(name: str, options: list[str]) -> str:
    if "." in name:
        options = [option for option in options if "." in option]
    parts = {option.rpartition(".")[2].lstrip("-"): option for option in reversed(options)}
    last = name.rpartition(".")[2].lstrip("-")
    # Of the same group, the part after the dot: --model.lr is not near --model.lora. Then the whole name; else the part
    # after the dot in any group: --train_size means --data.train_size.
    group_name = name.rpartition(".")[0]
    group = {option.rpartition(".")[2]: option for option in options if option.rpartition(".")[0] == group_name}
    if group_name and group:
        close = [group[part] for part in difflib.get_close_matches(last, group, n=1, cutoff=0.75)]
    else:
        close = difflib.get_close_matches(name, options, n=1, cutoff=0.75)
    close = close or [
        parts[part] for part in difflib.get_close_matches(last, parts, n=1 if last in parts else 2, cutoff=0.75)
    ]
    if close:
        return f"did you mean {' or '.join(f'`{option}`' for option in close)}?"
    members = [option for option in options if "." in name and option.startswith(name.partition(".")[0] + ".")]
    return f"there are {', '.join(members)}." if 0 < len(members) <= _SHORT_GROUP else "see --help for all of them."


def _one_line(message: str) -> str:
    return re.sub(r"\s+", " ", message).strip().rstrip(".")
