"""Memory: what to change where it does not suffice."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from yelp_lightning.errors import UsageError

# What torch says where a processor's memory is at its end; it has no class of its own for that.
CPU_WORDS = "DefaultCPUAllocator"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice.

    Args:
        error: Any error.

    Returns:
        True for those of GPUs and of processors.
    """
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or CPU_WORDS in str(error)


@contextmanager
def memory_explained(data: Mapping[str, Any], accumulate: int, checkpointing: bool) -> Iterator[None]:
    """Say what to change where memory does not suffice inside of the block.

    Args:
        data: As for ``out_of_memory``.
        accumulate: As for ``out_of_memory``.
        checkpointing: As for ``out_of_memory``.

    Yields:
        Nothing.

    Raises:
        UsageError: In place of an error that says so.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(data, accumulate, checkpointing) from error


def out_of_memory(data: Mapping[str, Any], accumulate: int, checkpointing: bool) -> UsageError:
    """What to change, in the order in which it costs.

    Args:
        data: The options ``data.*``.
        accumulate: ``trainer.accumulate_grad_batches``.
        checkpointing: ``model.gradient_checkpointing``.

    Returns:
        The error to raise.
    """
    size, ways = data["batch_size"], []
    if size > 1:
        ways.append(
            f"--data.batch_size {size // 2} --trainer.accumulate_grad_batches {2 * accumulate} (the same optimizer "
            "steps)"
        )
    if not checkpointing:
        ways.append("--model.gradient_checkpointing true (the same numbers, more time)")
    ways.append(f"a --data.max_length below {data['max_length']} (longer reviews are truncated)")
    return UsageError(
        f"`data.batch_size` {size}: memory does not suffice for that many reviews of up to {data['max_length']} tokens "
        f"at once: give {', or '.join(ways)}."
    )
