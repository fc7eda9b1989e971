"""The un-tuned model beside the tuned one, on the same test rows."""

import json
from typing import Any

from lightning.pytorch import Trainer, seed_everything

from yelp_lightning.checkpoint import find_checkpoint, read_checkpoint, require_stars
from yelp_lightning.checks import refuse_training_file, set_checkpoint_defaults
from yelp_lightning.data.datamodule import ReviewDataModule
from yelp_lightning.evaluation.table import print_metrics
from yelp_lightning.files import atomic_file, require_writable
from yelp_lightning.modeling.classifier import StarClassifier
from yelp_lightning.options import OptionParser
from yelp_lightning.quiet import quiet
from yelp_lightning.ranges import NonNegativeInt

COMPARISON = "comparison.json"


def main(arguments: list[str]) -> None:
    """Run ``compare``: a table on screen, ``comparison.json`` in the run folder.

    Args:
        arguments: What follows the command's name.

    Raises:
        UsageError: If an option, the checkpoint or the data are wrong.
    """
    parser = OptionParser(
        prog="python -m yelp_lightning compare",
        description="Measure the un-tuned model (the pretrained encoder with a fresh head) and the tuned one on the "
        "same test rows.",
    )
    parser.add_argument("--ckpt_path", type=str, required=True, help="A .ckpt file, or a run folder (its best).")
    parser.add_argument("--seed", type=NonNegativeInt, default=42, help="Seed of the un-tuned model's head.")
    parser.add_class_arguments(ReviewDataModule, "data", skip={"pretrained", "num_labels", "predict_path", "id_column"})
    path = find_checkpoint(parser.parse_args(arguments).ckpt_path)
    checkpoint = read_checkpoint(path)
    require_stars(checkpoint, path)
    set_checkpoint_defaults(parser, checkpoint)
    config = parser.parse_args(arguments)
    refuse_training_file(config.data.source, path, checkpoint)
    require_writable(path.parent, "--ckpt_path")

    quiet()
    options = _init_options(checkpoint)
    fixed = {name: options[name] for name in ("pretrained", "num_labels")}
    datamodule = ReviewDataModule(**fixed, **config.data.as_dict())
    datamodule.restore(str(path), checkpoint)
    datamodule.check("test")
    reports = {}
    for name, source in {"un-tuned": None, "tuned": str(path)}.items():
        seed_everything(config.seed, verbose=False)
        model = StarClassifier(**options)
        if source:
            model.restore(source)
        reports[name] = _measure(model, datamodule)
    with atomic_file(path.parent / COMPARISON) as temporary:
        temporary.write_text(json.dumps(reports, indent=2) + "\n", encoding="utf-8")
    print_metrics(f"{path} on the same test rows", reports, "test")


def _init_options(checkpoint: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in checkpoint["hyper_parameters"].items() if not name.startswith("_")}


def _measure(model: StarClassifier, datamodule: ReviewDataModule) -> dict[str, Any]:
    trainer = Trainer(logger=False, enable_checkpointing=False, devices=1, enable_model_summary=False)
    trainer.test(model, datamodule, verbose=False)
    return model.reports["test"]
