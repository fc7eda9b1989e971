"""What is seen of each optimizer step: when it ended, its reviews, their tokens; and the rates that follow."""

import time
from dataclasses import dataclass, field
from typing import Any

# Optimizer steps that are not timed, for every way: first allocations, kernels built per shape.
WARMUP_STEPS = 2


@dataclass
class Steps:
    """What was seen of each optimizer step, one entry a step.

    Args:
        ends: Seconds on ``time.perf_counter`` when the step ended.
        lengths: Real tokens of each review of its batch.
        padded: Tokens that each review of its batch was padded to.
        first_end: Seconds on ``time.time`` when the first step ended.
        devices: Processes of which each had a batch of about this size; lengths are those of one of them.
    """

    ends: list[float] = field(default_factory=list)
    lengths: list[Any] = field(default_factory=list)
    padded: list[int] = field(default_factory=list)
    first_end: float = 0.0
    devices: int = 1

    def add_end(self, last: bool = False) -> None:
        """Note that a step ended.

        Args:
            last: Whether no other follows. Where an accelerator works behind the program, it is waited for where the
                clock starts and where it stops, and not in between, where that would slow it down.
        """
        import torch

        if torch.accelerator.is_available() and (last or len(self.ends) < WARMUP_STEPS):
            torch.accelerator.synchronize()
        self.ends.append(time.perf_counter())
        self.first_end = self.first_end or time.time()

    def add_batch(self, attention_mask: Any) -> None:
        """Note the lengths of a batch, without waiting for an accelerator.

        Args:
            attention_mask: ``(B, T)``, 1 for real tokens.
        """
        lengths = attention_mask.sum(1)
        # On a processor, a small tensor kept from each step keeps the memory between them from being reused.
        self.lengths.append(lengths.tolist() if lengths.device.type == "cpu" else lengths)
        self.padded.append(attention_mask.shape[1])

    def plain(self) -> dict[str, Any]:
        """The same as what json knows."""
        lengths = [one if isinstance(one, list) else one.tolist() for one in self.lengths]
        return {**vars(self), "lengths": lengths}

    def timed(self, steps: int) -> tuple[float, list[list[int]]]:
        """The steps after the warm-up.

        Args:
            steps: Optimizer steps that were ordered.

        Returns:
            Their seconds, and the lengths of their reviews, tokens.

        Raises:
            RuntimeError: If another number of steps was seen: the speed would be of something else.
        """
        if len(self.ends) != steps:
            raise RuntimeError(f"{steps} optimizer steps were ordered, {len(self.ends)} were seen.")
        return self.ends[-1] - self.ends[WARMUP_STEPS - 1], self.plain()["lengths"][WARMUP_STEPS:steps]

    def rates(self, steps: int) -> dict[str, float]:
        """Reviews and real tokens per second of the steps after the warm-up.

        Where batches are of reviews of like length, the first one is the longest, and the timed ones have shorter
        reviews than all have. So the clock gives padded tokens per second, and those divided by the padded tokens per
        review of all steps are the reviews per second. With padding to 512 tokens that changes nothing.

        Args:
            steps: Optimizer steps that were ordered.
        """
        seconds, timed = self.timed(steps)
        lengths = self.plain()["lengths"][:steps]  # a loader may have fetched a batch that was never trained on

        def padded(batches: list[list[int]], first: int) -> int:
            return sum(len(batch) * width for batch, width in zip(batches, self.padded[first:steps], strict=True))

        reviews = sum(map(len, lengths))
        rate = self.devices * padded(timed, WARMUP_STEPS) / seconds / (padded(lengths, 0) / reviews)
        return {"reviews_per_s": rate, "tokens_per_s": rate * sum(map(sum, lengths)) / reviews}
