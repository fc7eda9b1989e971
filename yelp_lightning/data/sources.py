"""Sources: which files `data.source` means for a split, on this machine or on the Hub."""

import glob
import os.path
import re
from importlib import resources
from pathlib import Path

from yelp_lightning.data.datafile import ENDINGS, TABLES, DataFile, zip_members
from yelp_lightning.errors import UsageError
from yelp_lightning.pretrained import EMBEDDED

# How a split's file may be called inside a folder or a zip; the first name is the one that messages use.
SPLIT_STEMS = {"train": ("train",), "validation": ("validation", "val", "dev"), "test": ("test",)}


def has_split(source: str, split: str, config_name: str | None = None, revision: str | None = None) -> bool:
    """Whether a source brings rows of its own for ``split``.

    Args:
        source: As ``data.source``.
        split: ``train``, ``validation`` or ``test``.
        config_name: As for ``split_files``.
        revision: As for ``split_files``.

    Returns:
        True if ``split_files`` finds files. A single file, a glob, and a zip without splits serve whichever split is
        asked for, except ``validation``, which is then cut from train.

    Raises:
        UsageError: If the source does not exist.
    """
    if (files := _local_files(source)) is None:
        return split in _hub_splits(source, config_name, revision)
    if _is_divided(source, files):
        return bool(_of_split(source, files, split))
    return split != "validation"


def is_divided(source: str) -> bool:
    """Whether the source itself says which rows train and which test.

    Args:
        source: As ``data.source``.

    Returns:
        False for a single file, a glob, and a zip without splits: what they hold is taken for whatever is asked.
    """
    files = _local_files(source)
    return files is None or _is_divided(source, files)


def split_files(
    source: str, split: str, config_name: str | None = None, revision: str | None = None
) -> tuple[DataFile, ...]:
    """The files that hold one split.

    Args:
        source: ``embedded``; a file; a folder or zip of ``train.*``, ``validation.*``, ``test.*`` (or shards such as
            ``train-00000-of-00004.parquet``); a glob of shards; or a Hub id.
        split: ``train``, ``validation`` or ``test``.
        config_name: Which of the data sets under a Hub id; None means its default.
        revision: Branch, tag or commit of a Hub id; None means its main branch.

    Returns:
        At least one file; those of a Hub id are what `datasets` keeps of it.

    Raises:
        UsageError: If there is no such source or split.
    """
    if (files := _local_files(source)) is None:
        return _hub_files(source, split, config_name, revision)
    if config_name or revision:
        option, value = ("config_name", config_name) if config_name else ("revision", revision)
        raise UsageError(
            f"`data.{option}` is {value!r}, but `data.source` {source!r} lies on this machine, where only a Hub id has "
            f"one: leave --data.{option} out."
        )
    if not _is_divided(source, files):
        return files
    if not (found := _of_split(source, files, split)):
        names = sorted({file.name for file in files} or {file.name for file in Path(source).iterdir()})[:10]
        pattern = f", write '{source}/*.csv' for one table of all files," if os.path.isdir(source) else ""
        raise UsageError(
            f"`data.source` is the {_kind(source)} {source!r}, which holds no {split}.csv, .tsv, .jsonl or .parquet "
            f"(found {names}): add that file{pattern} or give another source."
        )
    return found


def _local_files(source: str) -> tuple[DataFile, ...] | None:
    """All tables of a source on this machine; None if it can only be a Hub id."""
    if source == EMBEDDED:
        source = str(resources.files("yelp_lightning.embedded"))
    # os.path instead of Path: a name too long for the file system is no file, rather than an exception.
    if os.path.isdir(source):
        paths = sorted(Path(source).iterdir())
        if broken := [path.name for path in paths if path.is_symlink() and not path.exists()]:
            raise UsageError(
                f"`data.source` is the folder {source!r}, in which {broken[0]} is a link to a file that is not there: "
                "mend or remove it."
            )
        return _expand(paths)
    if os.path.isfile(source):
        if not (files := _expand([Path(source)])):
            found = "in which no file's ending is" if source.endswith(".zip") else "whose ending is not"
            raise UsageError(f"`data.source` is {source!r}, {found} one of {ENDINGS}: rename or convert it.")
        return files
    if glob.has_magic(source):
        if not (files := _expand([Path(path) for path in sorted(glob.glob(source, recursive=True))])):
            raise UsageError(f"`data.source` is {source!r}, but no {ENDINGS} has such a name: mend the pattern.")
        return files
    is_name = DataFile(Path(source)).format in (*TABLES, ".txt", ".zip")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source) or source.startswith(".") or is_name:
        raise UsageError(
            f"`data.source` is {source!r}, but there is no such file or folder: give an existing one, a Hub id such as "
            "Yelp/yelp_review_full, or embedded."
        )
    return None


def _expand(paths: list[Path]) -> tuple[DataFile, ...]:
    files: list[DataFile] = []
    for path in filter(Path.is_file, paths):
        files += zip_members(path, "data.source") if path.suffix == ".zip" else [DataFile(path)]
    return tuple(file for file in files if file.format in TABLES)


def _is_divided(source: str, files: tuple[DataFile, ...]) -> bool:
    named = any(_stem(file) in stems for file in files for stems in SPLIT_STEMS.values())
    return source == EMBEDDED or os.path.isdir(source) or (source.endswith(".zip") and len(files) > 1 and named)


def _of_split(source: str, files: tuple[DataFile, ...], split: str) -> tuple[DataFile, ...]:
    found = tuple(file for file in files if _stem(file) in SPLIT_STEMS[split])
    where = f"`data.source` is the {_kind(source)} {source!r}"
    whole = [file for file in found if not _is_shard(file)]
    if whole and len(found) > 1:
        raise UsageError(f"{where}, which holds both {found[0].name} and {found[1].name}: leave one file for {split}.")
    # A shard that was not downloaded would be missed by nobody.
    numbered = [match for file in found if (match := re.search(r"-(\d+)-of-(\d+)", file.name))]
    numbers, totals = sorted(int(match[1]) for match in numbered), {int(match[2]) for match in numbered}
    if totals and (len(totals) > 1 or numbers not in (list(range(max(totals))), list(range(1, max(totals) + 1)))):
        raise UsageError(
            f"{where}, which holds {len(found)} files for {split} {[file.name for file in found][:10]}, but their "
            f"names promise each of {max(totals)} shards once: add the missing ones, or remove the others."
        )
    return found


def _kind(source: str) -> str:
    return "zip" if os.path.isfile(source) else "folder"


def _stem(file: DataFile) -> str:
    """``train`` of train.csv, train.csv.gz and train-00000-of-00004.parquet."""
    return file.name.partition(".")[0].partition("-")[0]


def _is_shard(file: DataFile) -> bool:
    return "-" in file.name.partition(".")[0]


def _hub_splits(source: str, config_name: str | None, revision: str | None) -> list[str]:
    from datasets import get_dataset_split_names

    try:
        return list(get_dataset_split_names(source, config_name, revision=revision))
    except Exception as error:  # the library raises a dozen classes here, all meaning the same to a user
        raise _not_on_hub(source, error) from error


def _hub_files(source: str, split: str, config_name: str | None, revision: str | None) -> tuple[DataFile, ...]:
    from datasets import load_dataset

    try:
        splits = load_dataset(source, config_name, revision=revision)
    except Exception as error:
        raise _not_on_hub(source, error) from error
    if split not in splits:
        raise UsageError(f"`data.source` {source!r} has no split {split!r}, only {list(splits)}: give another source.")
    return tuple(DataFile(Path(file["filename"])) for file in splits[split].cache_files)


def _not_on_hub(source: str, error: Exception) -> UsageError:
    reason = str(error).strip().split("\n")[0].rstrip(".")
    return UsageError(
        f"`data.source` is {source!r}, which is neither a file or folder here nor loads from the Hub "
        f"({type(error).__name__}: {reason}): check the name and the network, or give a file, a folder or embedded."
    )
