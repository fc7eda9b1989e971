"""What the libraries say to everybody and what means nothing here is not said."""

import logging
import warnings

import transformers


def quiet() -> None:
    """Silence what the libraries say to everybody and what means nothing here."""
    # Reviews are tokenized before training: collating them takes microseconds, and no worker process is missed.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # The run folder has been claimed: it holds no other run.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    # Lightning 2.6.6 uses a name that torch 2.13 deprecates.
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
    warnings.filterwarnings("ignore", message=".*is smaller than the logging interval.*")
    # A run that ends inside its first epoch is validated after it (YelpCLI.fit).
    warnings.filterwarnings("ignore", message=".*could not find the monitored key in the returned metrics.*")
    # A best checkpoint remembers the callback that chose it, which only `fit` has.
    warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`, callbacks used")
    # It stands in config.yaml, and would come before any error.
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
    # The batch sampler starts after the batches that are trained (ReviewDataModule.restore).
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
    # Models are shared out by another strategy, which EMAWeightAveraging does not know.
    warnings.filterwarnings("ignore", message=".*WeightAveraging callback with a model that overrides.*")
    # Advertisements.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: "💡" not in str(record.msg))
    # transformers reports the fresh head as missing weights, which it is; `load_classifier` refuses other gaps.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
