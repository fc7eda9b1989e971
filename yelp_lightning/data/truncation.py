"""Truncation: the tokens of a review, and which of them are kept where it is too long."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Truncation = Literal["head", "tail", "head_tail"]
Token = TypeVar("Token")
# Sun et al. 2019, "How to Fine-Tune BERT for Text Classification?", section 5.3.1: of 510 tokens the first 128 and the
# last 382; other lengths keep the proportion.
HEAD_SHARE = 128 / 510


class Encoder:
    """Texts to token numbers, by a tokenizer's own rules.

    Args:
        tokenizer: The model's own; its truncation and padding are switched off, since both are done here.
        max_length: Most tokens of a text, special ones included.
        truncation: What a longer text keeps: its beginning, its end, or some of both.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", max_length: int, truncation: Truncation) -> None:
        self.tokenizer = tokenizer
        self.backend = getattr(tokenizer, "backend_tokenizer", None)
        if self.backend is not None:
            # Files of tokenizers may carry both.
            self.backend.no_truncation()
            self.backend.no_padding()
        self.prefix, self.suffix = _special_tokens(tokenizer)
        room = max_length - len(self.prefix) - len(self.suffix)
        head = {"head": room, "tail": 0, "head_tail": round(room * HEAD_SHARE)}[truncation]
        self.room, self.head, self.tail = room, head, room - head

    def __call__(self, texts: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        """Encode texts.

        Args:
            texts: Any texts.

        Returns:
            Token numbers of each text, special ones included; and how many each would have had untruncated.
        """
        if self.backend is not None:
            # `fast` leaves out the characters that each token came from.
            ids = [encoded.ids for encoded in self.backend.encode_batch_fast(texts, add_special_tokens=False)]
        else:
            ids = self.tokenizer(
                list(texts), add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False,
                verbose=False,
            )["input_ids"]  # fmt: skip
        around = len(self.prefix) + len(self.suffix)
        return [self.prefix + self.cut(tokens) + self.suffix for tokens in ids], [len(one) + around for one in ids]

    def cut(self, tokens: list[Token]) -> list[Token]:
        """Leave out what is too long.

        Args:
            tokens: One per token of a text, special ones excluded: their numbers, or their places.

        Returns:
            Those that are kept.
        """
        if len(tokens) <= self.room:
            return tokens
        return tokens[: self.head] + tokens[len(tokens) - self.tail :]


def _special_tokens(tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], list[int]]:
    """What stands before and after every text, such as ``[CLS]`` and ``[SEP]``."""
    alone = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    start = next(i for i in range(len(whole)) if whole[i : i + len(alone)] == alone)
    return whole[:start], whole[start + len(alone) :]
