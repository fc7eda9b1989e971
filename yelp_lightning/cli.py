"""LightningCLI for fit, validate, test and predict: defaults, links, checks before compute, and what is left behind."""

import os
import sys
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from yelp_lightning.checkpoint import BEST, LAST, find_checkpoint, read_checkpoint, read_latest, require_stars
from yelp_lightning.checks import (
    refuse_idle_training,
    refuse_inputs,
    refuse_limits,
    refuse_other,
    refuse_other_task,
    refuse_training_file,
    set_checkpoint_defaults,
)
from yelp_lightning.data.datamodule import ReviewDataModule
from yelp_lightning.errors import UsageError
from yelp_lightning.evaluation.table import print_metrics
from yelp_lightning.files import require_writable
from yelp_lightning.inference.predictions import STDOUT, check_output, predictions_table, write_predictions
from yelp_lightning.inference.text import explain_text
from yelp_lightning.modeling.classifier import StarClassifier
from yelp_lightning.modeling.masked_words import MaskedWords
from yelp_lightning.options import OptionParser, refused_by_class, refused_by_trainer, refused_share
from yelp_lightning.quiet import quiet
from yelp_lightning.run_folder import SaveRunConfig, claim, finish, is_finished, write_metrics
from yelp_lightning.training.averaging import TopCheckpoints, refuse_averages
from yelp_lightning.training.dashboard import keep_model
from yelp_lightning.training.differences import compare_run, ends_at
from yelp_lightning.training.keeping import CheckpointOptions, check_monitor, require_score
from yelp_lightning.training.memory import memory_explained
from yelp_lightning.training.precision import AUTO, Precision
from yelp_lightning.training.trainer import TRAINER_DEFAULTS, complete, keeps_checkpoints, log_on, refuse_no_batch

PROGRAM = "python -m yelp_lightning"
# Parameters of the Trainer's methods that are no options here: ckpt_path takes more, the others are not to choose.
OUR_WAY = {"weights_only", "return_predictions", "verbose", "ckpt_path"}


def add_option_groups(parser: LightningArgumentParser) -> None:
    """Add the options of a run: ``model.*``, ``data.*``, ``checkpoint.*``, ``trainer.*``.

    Args:
        parser: Gains them.
    """
    # What is learned first, how fast after it: --help then starts with our own options.
    parser.add_argument(
        "--task",
        type=Literal["stars", "masked_words"],
        default="stars",
        help="What `fit` learns: the `stars` of reviews, or to guess `masked_words` in reviews without labels, which "
        "leaves an encoder for model.pretrained (configs/pretrain.yaml).",
    )
    parser.add_lightning_class_args(StarClassifier, "model")
    parser.add_lightning_class_args(ReviewDataModule, "data")
    parser.add_class_arguments(CheckpointOptions, "checkpoint")
    # As LightningCLI adds it, but for the precision, which has one more word here.
    parser.add_class_arguments(
        Trainer, "trainer", fail_untyped=False, instantiate=False, sub_configs=True, skip={"precision"}
    )
    parser.add_argument(
        "--trainer.precision",
        type=Precision,
        default=AUTO,
        help="Numbers to compute in. `auto`: in fit bf16-mixed where the device has units for bfloat16, 16-mixed on an "
        "older GPU, else 32-true; in the other commands 32-true. Weights and checkpoints are float32 in all of these, "
        "not in bf16-true, which loses small steps.",
    )
    parser.set_defaults({f"trainer.{name}": value for name, value in TRAINER_DEFAULTS.items()})


def link_groups(parser: LightningArgumentParser) -> None:
    """Give once what model and data both need.

    Args:
        parser: Has the groups already.
    """
    parser.link_arguments("model.pretrained", "data.pretrained")
    parser.link_arguments("model.num_labels", "data.num_labels")
    parser.link_arguments("data.label_names", "model.label_names")


class YelpCLI(LightningCLI):
    """fit, validate, test and predict, with ``StarClassifier`` and ``ReviewDataModule``."""

    def __init__(self) -> None:
        self.checkpoint: dict[str, Any] | None = None
        usage = f"{PROGRAM} {sys.argv[1]} [--config FILE ...] [--OPTION VALUE ...]"
        try:
            super().__init__(
                StarClassifier,
                ReviewDataModule,
                save_config_callback=SaveRunConfig,
                save_config_kwargs={"save_to_log_dir": False},
                seed_everything_default=42,
                parser_class=OptionParser,
                parser_kwargs={sys.argv[1]: {"usage": usage}},
                auto_configure_optimizers=False,
            )
        except MisconfigurationException as error:
            raise refused_share(error) from error

    @staticmethod
    @override
    def subcommands() -> dict[str, set[str]]:
        # Only the command that was typed: building four parsers would double the time of --help.
        skip = LightningCLI.subcommands()
        return {command: skip[command] | OUR_WAY for command in skip if command == sys.argv[1]}

    @override
    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        add_option_groups(parser)

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        link_groups(parser)
        fit = sys.argv[1] == "fit"
        resume = ", to go on from; `last` means last.ckpt of the run folder" if fit else ", or a run folder (its best)"
        parser.add_argument("--ckpt_path", type=str | None, help=f"A .ckpt file that `fit` wrote{resume}.")
        if sys.argv[1] == "predict":
            files = "a csv, jsonl or parquet file, or - for csv on standard output; with --explain a .html file"
            parser.add_argument("--output", default=STDOUT, help=f"Where the predictions go: {files}.")
            parser.add_argument("--text", type=str, help="One review to predict, instead of data.predict_path.")
            explain = "Mark the words of --text that spoke for and against its stars, by integrated gradients."
            parser.add_argument("--explain", type=bool, nargs="?", const=True, default=False, help=explain)

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        super().parse_arguments(parser, args)
        command = self.config.subcommand
        typed = self.config[command]
        folder = Path(typed.trainer.default_root_dir)
        if command == "fit" and "SLURM_RESTART_COUNT" in os.environ and (folder / LAST).exists():
            typed.ckpt_path = typed.ckpt_path or "last"  # SLURM types again what was typed at the start
        if typed.ckpt_path is None:
            if command != "fit":
                raise UsageError(
                    f"`{command}` needs --ckpt_path: give a .ckpt file or a run folder that `fit` wrote; "
                    "the un-tuned model is measured by `compare`."
                )
            return
        if command == "fit" and typed.ckpt_path == "last":
            path, self.checkpoint = read_latest(folder)
        else:
            path = find_checkpoint(typed.ckpt_path, folder)
            self.checkpoint = read_checkpoint(path)
        if command != "fit":
            require_stars(self.checkpoint, path)
        # Parsed again over the checkpoint's options. Lightning's own way lets them win over what was typed.
        set_checkpoint_defaults(self._subcommand_parsers[command], self.checkpoint)
        if command != "fit":
            self._subcommand_parsers[command].set_defaults({"trainer.default_root_dir": str(path.parent)})
        super().parse_arguments(parser, args)
        self.config[command].ckpt_path = str(path)
        refuse_other(self.config[command], command, path, self.checkpoint)
        if command == "test":
            refuse_training_file(self.config[command].data.source, path, self.checkpoint)

    @override
    def _set_seed(self) -> None:
        quiet()
        try:
            super()._set_seed()
        except ValueError as error:
            raise UsageError(
                f"`--seed_everything` is {self._get(self.config, 'seed_everything')}, but must be a whole number "
                "from 0 to 4294967295: give such a value."
            ) from error

    @override
    def _parse_ckpt_path(self) -> None:
        """Done in ``parse_arguments``."""

    @override
    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise refused_by_class(error) from error
        if self._get(self.config, "task") == "masked_words":
            self.model = MaskedWords.of(self.model.hparams)

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self._get(self.config_init, "trainer")
        assert self.subcommand is not None
        # Predictions and a progress bar would stand among each other.
        quiet_output = self.subcommand == "predict" and self._get(self.config, "output") == STDOUT
        keeping = self._get(self.config_init, "checkpoint")
        if self.subcommand == "fit":
            words, model = self._get(self.config, "task") == "masked_words", self._get(self.config, "model")
            check_monitor(keeping.monitor, model.ordered, words)
            refuse_idle_training(config)
            refuse_averages(config, keeping, model.lora)
        else:
            refuse_limits(config, self.subcommand)
        complete(config, self.subcommand, keeping, quiet_output)
        try:
            return super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ModuleNotFoundError, TypeError, ValueError) as error:
            raise refused_by_trainer(error, self._get(self.config, "trainer").as_dict()) from error

    @override
    def before_instantiate_classes(self) -> None:
        refuse_other_task(self.config[self.config.subcommand], self.config.subcommand, self.checkpoint)

    @override
    def after_instantiate_classes(self) -> None:
        if self.checkpoint is not None:
            path = self._get(self.config, "ckpt_path")
            self.model.restore(path)
            self.datamodule.restore(path, self.checkpoint)

    def fit(self, **kwargs: Any) -> None:
        """Fine-tune.

        Args:
            **kwargs: Of ``Trainer.fit``.
        """
        checkpointing = self._get(self.config, "model").gradient_checkpointing
        with memory_explained(self.datamodule.hparams, self.trainer.accumulate_grad_batches, checkpointing):
            self.trainer.fit(**kwargs, ckpt_path=self._get(self.config, "ckpt_path"))
        if not self._keeps_checkpoints():
            return
        # --trainer.max_steps or max_time may have ended the run before its first validation.
        best = Path(self.trainer.default_root_dir) / BEST
        if not self.trainer.strategy.broadcast(best.exists()):
            self.trainer.validate(self.model, self.datamodule, verbose=False)
            monitor = self._get(self.config, "checkpoint").monitor
            require_score(monitor, float(self.trainer.callback_metrics[monitor]))
            self.trainer.save_checkpoint(best, weights_only=False)
        if top := TopCheckpoints.of(self.trainer):
            top.average(self.trainer, self.model, self.datamodule)

    def before_fit(self) -> None:
        """Check run folder and data before anything is loaded or trained."""
        path = self._get(self.config, "ckpt_path")
        claim(self.trainer.default_root_dir, path)
        if self.checkpoint is not None:
            options = {group: self._get(self.config, group) for group in ("model", "data", "trainer")}
            compare_run(options, self._devices, path, self.checkpoint)
            # One that was killed at its very end is finished; one that is finished has nothing left to do.
            at_end = ends_at(self.checkpoint, self.trainer.max_epochs, self.trainer.max_steps)
            if at_end and is_finished(Path(path)):
                raise UsageError(
                    f"`--ckpt_path` {path} is at optimizer step {self.checkpoint['global_step']} already, where this "
                    "run ends too: give larger --trainer.max_epochs and --trainer.max_steps."
                )
        if self.datamodule.hparams["truncation"] == "head_tail":
            rank_zero_info("model/ will keep the head of longer reviews: plain transformers knows no head_tail")
        self.model.check()
        self.datamodule.check("fit", self._devices)
        refuse_no_batch(
            self.trainer, self.datamodule.train_batches(self._devices, self.trainer.accumulate_grad_batches)
        )
        if self.checkpoint is not None:
            log_on(self.trainer, self._get(self.config, "ckpt_path"))

    @property
    def _devices(self) -> int:
        return int(self.trainer.num_devices * self.trainer.num_nodes)

    def after_fit(self) -> None:
        """Write model/ and metrics.json, show what came out and what to type next."""
        folder = self.trainer.default_root_dir
        if not self._keeps_checkpoints() or not self.trainer.is_global_zero:
            return
        metrics, monitor = finish(folder), self._get(self.config, "checkpoint").monitor
        if top := TopCheckpoints.of(self.trainer):
            top.remove()
        keep_model(self.trainer)
        print_metrics(f"{folder}: the best validation, by {monitor} {metrics[monitor]:.3f}", {"tuned": metrics}, "val")
        if self._get(self.config, "task") == "masked_words":
            print(f"Use it:      python -m yelp_lightning fit --model.pretrained {folder} ...")
            return
        print(f"Measure it:  python -m yelp_lightning test --ckpt_path {folder}")
        print(f'Use it:      python -m yelp_lightning predict --ckpt_path {folder} --text "..."')

    def _keeps_checkpoints(self) -> bool:
        return keeps_checkpoints(self._get(self.config, "trainer"))

    def validate(self, **kwargs: Any) -> None:
        """Measure the checkpoint on the validation rows.

        Args:
            **kwargs: Of ``Trainer.validate``.
        """
        self._measure("val", "validate", kwargs)

    def test(self, **kwargs: Any) -> None:
        """Measure the checkpoint on the test rows.

        Args:
            **kwargs: Of ``Trainer.test``.
        """
        self._measure("test", "test", kwargs)

    def _measure(self, stage: str, command: str, kwargs: dict[str, Any]) -> None:
        folder = Path(self.trainer.default_root_dir)
        require_writable(folder, "trainer.default_root_dir")
        self.datamodule.check(command, self._devices)
        path = self._get(self.config, "ckpt_path")
        getattr(self.trainer, command)(**kwargs, ckpt_path=path, verbose=False)  # the table below has intervals too
        if self.trainer.is_global_zero:
            report = {**self.model.reports[stage], f"{stage}/source": self.datamodule.hparams["source"]}
            write_metrics(folder, stage, report)
            name = {"val": "validation", "test": "test"}[stage]
            print_metrics(f"{path} on the {name} rows", {"tuned": report}, stage)
            if stage == "test":
                from yelp_lightning.report.tested import report_test  # late: it imports scikit-learn

                print(f"wrote {report_test(folder, Path(path), self.model, self.datamodule)}")

    def predict(self, **kwargs: Any) -> None:
        """Write the stars of each review, in input order.

        Args:
            **kwargs: Of ``Trainer.predict``.
        """
        output, text, explain = (self._get(self.config, name) for name in ("output", "text", "explain"))
        refuse_inputs(text, explain, self.datamodule.predict_path, self.trainer.world_size)
        if explain:
            if self.trainer.is_global_zero:
                assert self.checkpoint is not None
                explain_text(self.checkpoint, self.datamodule.hparams, text, output)
            return
        check_output(output)
        if text is not None:
            self.datamodule.predict_texts([text])
        self.datamodule.check("predict", self._devices)
        inputs = self.datamodule.inputs
        check_output(output, inputs.id_column, self.model.hparams["num_labels"])
        if inputs.blank and self.trainer.is_global_zero:
            are = "is" if inputs.blank == 1 else "are"
            print(f"warning: {inputs.blank} of the reviews {are} blank; the stars mean nothing", file=sys.stderr)
        path = self._get(self.config, "ckpt_path")
        self.trainer.predict(**kwargs, ckpt_path=path, return_predictions=False)  # the model gathers them
        if self.trainer.is_global_zero:
            found = self.model.predicted
            assert len(found) == inputs.count, f"{len(found)} predictions for {inputs.count} rows"
            names, ordered = self.model.hparams["label_names"], self.model.hparams["ordered"]
            write_predictions(predictions_table(found, inputs.ids, inputs.id_column, names, ordered), output)
