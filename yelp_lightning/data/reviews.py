"""Reviews: the chosen rows of each split, and what was refused or left out on the way."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from yelp_lightning.data.formats import CsvLayout
from yelp_lightning.data.labels import LabelMap
from yelp_lightning.data.rows import Rows, Table, scan
from yelp_lightning.data.sources import has_split, is_divided, split_files
from yelp_lightning.data.splits import Hashes, Order, cut_validation, known, row_order, take
from yelp_lightning.errors import UsageError
from yelp_lightning.pretrained import EMBEDDED, class_names

# How many reviews of a batch are named.
PLACES = 10


class Reviews:
    """Train, validation and test rows of one source.

    Args:
        options: Those of ``ReviewDataModule``, by name.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options
        self.rows: dict[str, Rows] = {}
        """What is known of each split's table."""
        self.chosen: dict[str, Order] = {}
        """Rows of each split, numbers in its table, in rising order."""
        self.summary: dict[str, dict[str, Any]] = {}
        """What was read, refused, left out and chosen of each split, in the form of json."""
        self.seen: dict[str, Hashes] = {}
        """Hashes of the texts that a checkpoint was trained (``train``) and chosen (``val``) on."""

    @property
    def cache_dir(self) -> Path:
        """Folder of the token cache."""
        return Path(self.options["cache_dir"]).expanduser()

    @property
    def layout(self) -> CsvLayout:
        """What a csv or tsv does not say of itself."""
        return CsvLayout(tuple(self.options["column_names"] or ()), self.options["backslash_escapes"])

    def choose(self, split: str) -> None:
        """Read a split's table and choose its rows, unless that is done already.

        Args:
            split: ``train``, ``val`` or ``test``.

        Raises:
            UsageError: If the source, a row or an option is wrong.
        """
        if split in self.chosen:
            return
        if split == "test":
            self._choose_test()
        elif split == "val" and self._has_split("validation"):
            self._choose_val()
        else:
            self._choose_train()

    def texts(self, split: str) -> Iterator[str]:
        """The chosen texts of a split, read from its table.

        Args:
            split: ``train``, ``val`` or ``test``.

        Returns:
            Its texts, in the order of its table.

        Raises:
            UsageError: If the source, a row or an option is wrong.
        """
        self.choose(split)
        return self.rows[split].table.texts(self.chosen[split])

    def places(self, split: str, rows: list[int]) -> str:
        """Where the reviews of a batch stand, in words.

        Args:
            split: ``train``, ``val`` or ``test``.
            rows: Their numbers, the batch's ``row``.

        Returns:
            The first ten lines, and their files.
        """
        table, numbers = self.rows[split].table, np.sort(self.chosen[split][rows])
        more = f" and {len(rows) - PLACES} more" if len(rows) > PLACES else ""
        found = groupby(table.places(numbers[:PLACES]), key=lambda place: place[0])
        lines = (f"{file.unit}s {', '.join(str(line) for _, line in places)} of {file}" for file, places in found)
        return f"{'; '.join(lines)}{more}"

    def require_same(self, split: str) -> None:
        """Stop where a split's rows are not those that the checkpoint had, although the options are.

        Args:
            split: ``train`` or ``val``.

        Raises:
            UsageError: If a file's content has changed since.
        """
        if split in self.seen and not np.array_equal(self.seen[split], self.hashes(split)):
            raise UsageError(
                f"`data.source` {self.options['source']!r} no longer holds the {split} rows that the checkpoint had "
                f"({len(self.seen[split]):,} then, {len(self.chosen[split]):,} now, of other content or order): give "
                "the files as they were, train a new run, or measure other reviews by `test`."
            )

    def hashes(self, split: str) -> Hashes:
        """What the chosen texts of a split are known by.

        Args:
            split: ``train``, ``val`` or ``test``.

        Returns:
            ``(n,)`` uint64; none where the split was not read.
        """
        return self.rows[split].texts[self.chosen[split]] if split in self.rows else np.empty(0, np.uint64)

    @property
    def _label_map(self) -> LabelMap | None:
        if self.options["label_column"] is None:
            return None
        if self.options["source"] == EMBEDDED:
            return LabelMap("label", self.options["num_labels"])
        names = "label_column", "num_labels", "label_offset", "label_names"
        return LabelMap(*(self.options[name] for name in names))

    def _table(self, split: str, with_label: bool = True) -> Table:
        files = split_files(self.options["source"], split, self.options["config_name"], self.options["revision"])
        if self.options["source"] == EMBEDDED:
            return Table(files, "text", "label" if with_label and self._label_map else None)
        label_column = self.options["label_column"] if with_label else None
        columns = self.options["text_column"], label_column, self.options["group_column"]
        return Table(files, *columns, layout=self.layout)

    def _scan(self, split: str) -> Rows:
        label_map = self._label_map
        rows = scan(self._table(split), label_map, self.cache_dir, split)
        rows.require(self.options["on_bad_row"], label_map)
        return rows

    def _order(self, rows: Rows) -> Order:
        usable = rows.usable
        return usable[row_order(rows.labels[usable], self.options["sampling"], self.options["seed"])]

    def _has_split(self, split: str) -> bool:
        names = "config_name", "revision"
        return has_split(self.options["source"], split, *(self.options[name] for name in names))

    def _choose_train(self) -> None:
        """Train rows, and where the source has no validation rows of its own, those that are cut from them."""
        train = self._scan("train")
        order, beside = self._order(train), ""
        removed: dict[str, int] = {}
        if self._has_split("validation"):
            self.choose("val")
        else:
            order, removed = self._without_known("train", train, order, self._test_rows)
            order, cut = cut_validation(train.labels, order, self.options["val_size"], train.groups)
            beside = f" beside the {len(cut)} for validation"
            self._keep("val", train, cut, {})
        others = [(self.rows["val"], self.chosen["val"]), *self._test_rows]
        order, more = self._without_known("train", train, order, others)
        removed = {what: count + removed.get(what, 0) for what, count in more.items()}
        self._keep("train", train, take(order, self.options["train_size"], "data.train_size", beside), removed)

    def _choose_val(self) -> None:
        """Validation rows of the source's own."""
        val = self._scan("validation")
        order, removed = self._without_known("val", val, self._order(val), self._test_rows)
        self._keep("val", val, take(order, self.options["val_size"], "data.val_size"), removed)

    @cached_property
    def _test_rows(self) -> list[tuple[Rows, Order]]:
        """The texts of the source's own test rows, without their labels."""
        if self.options["on_duplicate"] == "keep" or not is_divided(self.options["source"]):
            return []
        if not self._has_split("test"):
            return []
        try:
            rows = scan(self._table("test", with_label=False), None, self.cache_dir, "test")
        except UsageError as error:
            if self.options["on_duplicate"] == "error":
                raise
            rank_zero_info(f"warning: test rows were not looked for among the training rows: {error}")
            return []
        return [(rows, rows.usable)]

    def _without_known(
        self, split: str, rows: Rows, order: Order, others: list[tuple[Rows, Order]]
    ) -> tuple[Order, dict[str, int]]:
        """The order without rows whose text or group stands in a split that is measured, and how many those were."""
        if self.options["on_duplicate"] == "keep":
            return order, {}
        found = known(rows.texts, order, [other.texts[chosen] for other, chosen in others])
        removed = {"text": int(found.sum())}
        if rows.groups is not None:
            groups = [other.groups[chosen] for other, chosen in others if other.groups is not None]
            in_group = known(rows.groups, order, groups) & ~found
            removed["group"] = int(in_group.sum())
            found |= in_group
        or_group = "" if rows.groups is None else " or a group"
        if found.any() and self.options["on_duplicate"] == "error":
            first = ", ".join(str(row + 1) for row in np.sort(order[found])[:10])
            raise UsageError(
                f"`data.on_duplicate` is 'error', and {found.sum():,} {split} rows of {rows.table} have a "
                f"text{or_group} that other splits have too (rows {first}{', ...' if found.sum() > 10 else ''}): mend "
                "the files, or leave those rows out by --data.on_duplicate remove."
            )
        if len(order) and found.all():
            raise UsageError(
                f"`data.source`: all {len(order):,} {split} rows of {rows.table} have a text{or_group} that other "
                "splits have too, so none is left: give other rows."
            )
        return order[~found], removed

    def _choose_test(self) -> None:
        rows = self._scan("test")
        order = take(self._order(rows), self.options["test_size"], "data.test_size")
        seen = int(known(rows.texts, order, list(self.seen.values())).sum())
        self._keep("test", rows, order, {})
        self.summary["test"]["seen_in_training"] = seen
        if seen:
            message = f"{seen:,} of the {len(order):,} test rows have a text that the model was trained or chosen on"
            if self.options["on_duplicate"] == "error":
                raise UsageError(
                    f"`data.on_duplicate` is 'error', and {message}: give other test rows, or measure all the same by "
                    "--data.on_duplicate keep."
                )
            rank_zero_info(f"warning: {message}, which flatters it")

    def _keep(self, split: str, rows: Rows, order: Order, removed: dict[str, int]) -> None:
        self.rows[split], self.chosen[split] = rows, np.sort(order)
        labels, texts = rows.labels[order], rows.texts[rows.usable]
        classes = [int((labels == label).sum()) for label in range(self.options["num_labels"])]
        texts.sort()
        self.summary[split] = {
            "source": str(rows.table),
            "read": len(rows),
            "refused": rows.refused,
            "removed": removed,
            "repeated_texts": int((texts[1:] == texts[:-1]).sum()),
            "rows": len(order),
            "rows_per_class": classes,
        }
        names = list(class_names(self.options["num_labels"], self.options["label_names"]).values())
        # Said of the first split: the others' labels are taken in the same way.
        if self._label_map is not None and len(self.summary) == 1:
            rank_zero_info(self._label_map.describe(names))
        said = [f", {count:,} refused ({kind})" for kind, count in rows.refused.items()]
        if repeated := self.summary[split]["repeated_texts"]:
            said.append(f", {repeated:,} texts repeated")
        if gone := sum(removed.values()):
            said.append(f", {gone:,} left out: their text or group stands in another split")
        per_class = " ".join(f"{count:,}" for count in classes)
        taken = f"{len(order):,} of {len(rows):,} rows of {rows.table}"
        if self._label_map is not None:
            taken += f"; {per_class} per class"
        rank_zero_info(f"{split}: {taken}{''.join(said)}")
