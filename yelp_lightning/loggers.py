"""Weights & Biases that never stops a training: no key or no server means an offline run and one line that says so."""

import contextlib
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger as LightningWandbLogger
from lightning_utilities.core.imports import RequirementCache
from typing_extensions import override

from yelp_lightning.errors import UsageError

if TYPE_CHECKING:
    from wandb import Run
    from wandb.sdk.lib import RunDisabled

# 0.30 can look for a key without asking for one.
WANDB = RequirementCache("wandb>=0.30")
# Seconds at most to create the run on the server. Before that, wandb takes up to 10 to check the key
# (WANDB_HTTP_TIMEOUT) and twice up to 5 to learn whose it is: 30 in total.
INIT_TIMEOUT = 10.0
# Seconds at most to upload what is left at the end, unless WANDB_FINISH_TIMEOUT says otherwise.
FINISH_TIMEOUT = 300.0


class WandbLogger(LightningWandbLogger):
    """Lightning's logger for Weights & Biases, which goes offline instead of asking, hanging or failing.

    ``WANDB_MODE`` and ``offline`` are obeyed. Otherwise a run without an API key, or whose server refuses, fails or
    does not answer, is written to an offline folder within 30 seconds, and one line on standard error gives the
    reason and the command that uploads it later.

    Args:
        *args: Of Lightning's ``WandbLogger``.
        log_text: Whether the table of errors shows the texts of reviews, which then leave this machine.
        log_model: Whether the best model becomes an artifact of the run, ``best`` and ``latest``, once it is finished.
        **kwargs: Of Lightning's ``WandbLogger``; others, such as ``entity``, ``tags`` and ``group``, go to
            ``wandb.init``.

    Raises:
        UsageError: If wandb is missing or too old.
    """

    def __init__(self, *args: Any, log_text: bool = False, log_model: bool = False, **kwargs: Any) -> None:
        if not WANDB:
            raise UsageError(
                f"`trainer.logger` is yelp_lightning.loggers.WandbLogger, which needs {WANDB.requirement}: "
                'pip install "yelp-lightning[wandb]"'
            )
        super().__init__(*args, **kwargs)
        # Lightning has a method log_text, and would upload a whole checkpoint.
        self.has_text, self.has_model = log_text, log_model
        # From yaml, every option of wandb.init arrives, as None where it is not given. That would undo Lightning's
        # resume="allow", and wandb warns about a given `anonymous`, even None.
        given = {name: value for name, value in self._wandb_init.items() if value is not None}
        self._wandb_init = {"resume": "allow", **given}
        if self._offline:
            # Lightning would set WANDB_MODE, which is too late once wandb has read its settings.
            self._wandb_init["mode"] = "offline"
            self._offline = False

    @property
    @rank_zero_experiment
    @override
    def experiment(self) -> Union["Run", "RunDisabled"]:
        """The wandb run, started at the first use; online if that works, else offline."""
        import wandb

        # A run that exists already, here or in the process that this logger was pickled in, is not decided about again.
        if self._experiment is None and wandb.run is None and getattr(self, "_attach_id", None) is None:
            self._start(wandb)
        return super().experiment

    def go_on(self, run_id: str | None) -> None:
        """Log to an earlier run, unless an id was given.

        Args:
            run_id: Its id; None means a new run.
        """
        self._id = self._id or run_id
        if self._id is not None:
            self._wandb_init["id"] = self._id

    def _start(self, wandb: Any) -> None:
        if self._save_dir:
            with contextlib.suppress(OSError):
                # wandb creates it too, but warns before that it is not there; where it cannot, it uses another.
                os.makedirs(self._save_dir, exist_ok=True)
        settings = wandb.setup().settings
        mode = self._wandb_init.get("mode", settings.mode)
        init_timeout = min(settings.init_timeout, INIT_TIMEOUT)
        finish_timeout = settings.finish_timeout or FINISH_TIMEOUT
        wandb.setup(wandb.Settings(mode=mode, init_timeout=init_timeout, finish_timeout=finish_timeout))
        if mode in ("offline", "dryrun", "disabled"):
            return
        try:
            if wandb.login(prompt=False, verify=True):
                _ = super().experiment
                return
            reason = "no API key is configured, `wandb login` stores one"
        except (wandb.errors.CommError, TimeoutError) as error:
            reason = " ".join(str(error).split())
            if "did not respond in time" in reason:
                # wandb blames its own process here, which was waiting for the server.
                reason = f"no usable answer from {settings.base_url}"
        # For the whole process: wandb's other requests would wait for the same server. Silent: it would say the same
        # in many lines.
        wandb.setup(wandb.Settings(mode="offline", silent=True))
        self._wandb_init["mode"] = "offline"
        folder = Path(super().experiment.dir).parent
        print(
            f"warning: Weights & Biases is offline for this run ({reason}); "
            f"upload it later with: wandb sync {shlex.quote(str(folder))}",
            file=sys.stderr,
        )
