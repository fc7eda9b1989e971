"""The command `data`: read, check, tokenize and describe, or clear the cache."""

import json
from pathlib import Path

from yelp_lightning.card.facts import describe
from yelp_lightning.card.page import write_page
from yelp_lightning.card.screen import print_card
from yelp_lightning.cli import PROGRAM, add_option_groups, link_groups
from yelp_lightning.data.cache import clear_cache
from yelp_lightning.data.datamodule import ReviewDataModule
from yelp_lightning.data.sources import has_split, is_divided
from yelp_lightning.files import atomic_file, require_writable
from yelp_lightning.options import OptionParser
from yelp_lightning.quiet import quiet

JSON, HTML = "data.json", "data.html"


def main(arguments: list[str]) -> None:
    """Run ``data``: the card on screen, ``data.json`` and ``data.html``, and the token cache filled for ``fit``.

    Args:
        arguments: What follows the command's name.

    Raises:
        UsageError: If an option, a file or a row is wrong.
    """
    parser = OptionParser(
        prog=f"{PROGRAM} data",
        usage=f"{PROGRAM} data [--config FILE ...] [--OPTION VALUE ...]",
        description="Read, check and tokenize the data, and describe them, before anything is trained: the options are "
        "those of `fit`.",
    )
    parser.add_argument("-c", "--config", action="config", help="A configuration of `fit`, in yaml.")
    folder = "Folder for data.json and data.html; null means trainer.default_root_dir."
    parser.add_argument("--output", type=str | None, help=folder)
    parser.add_argument("--clear-cache", action="store_true", help="Empty data.cache_dir instead.")
    parser.add_argument("--seed_everything", type=bool | int, default=True, help="As for `fit`; changes nothing here.")
    parser.add_argument("--ckpt_path", type=str | None, help="As for `fit`; changes nothing here.")
    add_option_groups(parser)
    link_groups(parser)
    config = parser.parse_args(arguments)
    if config.clear_cache:
        cache_dir = Path(config.data.cache_dir).expanduser()
        files, size = clear_cache(cache_dir)
        print(f"Removed {files} cached file{'' if files == 1 else 's'}, {size / 1e6:,.1f} MB, from {cache_dir}")
        return
    quiet()
    output = Path(config.output or config.trainer.default_root_dir)
    require_writable(output, "--output" if config.output else "trainer.default_root_dir")
    data = ReviewDataModule(**config.data.as_dict())
    source = config.data.source
    has_test = is_divided(source) and has_split(source, "test", config.data.config_name, config.data.revision)
    stages = ("fit", "test") if has_test else ("fit",)
    for stage in stages:
        data.check(stage)
    for stage in stages:
        data.setup(stage)
    facts = describe(data)
    for name, text in {JSON: json.dumps(facts, indent=2, ensure_ascii=False) + "\n", HTML: write_page(facts)}.items():
        with atomic_file(output / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print_card(facts)
    print(f"wrote {output / JSON} and {output / HTML}")
