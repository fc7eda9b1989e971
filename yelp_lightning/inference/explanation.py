"""Explanation: which words of a review spoke for its stars and which against, by integrated gradients."""

import importlib.util
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from yelp_lightning.data.truncation import Encoder
from yelp_lightning.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from yelp_lightning.pretrained import Classifier

# T tokens, C classes

# Steps of the integral are doubled until what the words add up to is off by at most this share of the difference that
# they explain, or by a logit of at most SMALL. On eight embedded reviews, each word's part at 32 steps is within 1 % of
# the strongest's of what it is at 256; at 16 steps, within 10 %.
SHARE, SMALL = 0.01, 0.001
FIRST_STEPS, MOST_STEPS = 32, 1024
# Steps are computed in batches of this many tokens: 1.4 GB beside the weights for BERT-base, at 512 tokens a review.
TOKENS_AT_ONCE = 2048


@dataclass(frozen=True)
class Word:
    """A word of a review, and what it did to the logit.

    Args:
        start: Its first character's place in the review.
        end: The place after its last character.
        part: What it added to the logit of the predicted class; below 0 where it spoke against it.
    """

    start: int
    end: int
    part: float


@dataclass(frozen=True)
class Explanation:
    """What each word of a review added to the logit of the class that was predicted.

    Args:
        text: The review.
        names: Names of the classes, ``(C,)``.
        probabilities: ``(C,)``, sums to 1.
        words: The words that the model read, in their order; none overlap.
        unread: Characters from and to, of the words that truncation left out; None where all were read.
        unread_words: How many these are.
        logit: Of the predicted class.
        baseline: The token that stands for "no word".
        baseline_logit: Of the predicted class, for a review of as many tokens that are all ``baseline``.
        steps: Of the integral.
    """

    text: str
    names: list[str]
    probabilities: npt.NDArray[np.float32]
    words: list[Word]
    unread: tuple[int, int] | None
    unread_words: int
    logit: float
    baseline: str
    baseline_logit: float
    steps: int

    @property
    def label(self) -> str:
        """The predicted class."""
        return self.names[self.probabilities.argmax()]

    @property
    def difference(self) -> float:
        """What the words are to explain: the logit less that of the baseline."""
        return self.logit - self.baseline_logit

    @property
    def error(self) -> float:
        """By how much the words' parts add up to another number than the difference, as a logit above 0."""
        return abs(sum(word.part for word in self.words) - self.difference)

    @property
    def is_exact(self) -> bool:
        """Whether the error is as small as the rule at the head of this file asks for."""
        return self.error <= max(SHARE * abs(self.difference), SMALL)

    def strength(self, word: Word) -> float:
        """How much a word did beside the one that did most.

        Args:
            word: One of ``words``.

        Returns:
            From -1 (nothing spoke more against the class) to 1.
        """
        return word.part / max(SMALL, *(abs(other.part) for other in self.words))


def require_captum() -> None:
    """Check that captum is installed.

    Raises:
        UsageError: If it is not.
    """
    if importlib.util.find_spec("captum") is None:
        raise UsageError(
            '`--explain` needs an extra that is not installed: run pip install "yelp-lightning[explain]", or leave '
            "the option out."
        )


def explain(model: "Classifier", encoder: Encoder, text: str) -> Explanation:
    """Explain the most probable class of one review.

    Each word's part is the sum over its tokens of their integrated gradients: the way from a review without words to
    this one is walked in the space of word embeddings, and each step of the logit on it is credited to the tokens that
    made it. The parts add up to the whole difference of the logit (the method's completeness); special tokens, the same
    at both ends, have none.

    The review without words has ``[MASK]`` at each place between the special tokens: the encoder was pretrained to read
    it as "some word, unknown", whereas it never attended to ``[PAD]``, which is used where there is no mask.

    Args:
        model: From ``unpack_classifier``: in float32 and evaluation mode.
        encoder: Its tokenizer, and how long reviews are truncated.
        text: The review.

    Returns:
        The parts of its words, on the review's own characters.

    Raises:
        UsageError: If captum is not installed, or the tokenizer does not tell where its tokens come from.

    Source:
        Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks"; captum's ``LayerIntegratedGradients``.
    """
    require_captum()
    import torch

    if encoder.backend is None:
        raise UsageError(
            "`--explain` needs to know where in the review each token is, which this model's tokenizer does not tell: "
            "leave the option out."
        )
    encoded = encoder.backend.encode(text, add_special_tokens=False)
    spans, word_of = _words(text, encoded.word_ids, encoded.offsets)
    kept = encoder.cut(list(range(len(encoded.ids))))
    ids = encoder.prefix + [encoded.ids[token] for token in kept] + encoder.suffix
    baseline, baseline_id = _baseline(encoder.tokenizer)
    without = encoder.prefix + [baseline_id] * len(kept) + encoder.suffix

    input_ids = torch.tensor([ids, without])  # (2, T)
    with torch.inference_mode():
        logits = model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids)).logits.float()  # (2, C)
    label = int(logits[0].argmax())
    read = sorted({word_of[token] for token in kept})
    unread = [spans[word] for word in range(len(spans)) if word not in set(read)]

    steps = FIRST_STEPS
    while True:
        parts = dict.fromkeys(read, 0.0)
        if kept:
            first = len(encoder.prefix)
            tokens = _integrated_gradients(model, input_ids, label, steps)[first : first + len(kept)]
            for token, part in zip(kept, tokens.tolist(), strict=True):
                parts[word_of[token]] += part
        explanation = Explanation(
            text=text,
            names=[model.config.id2label[number] for number in range(logits.shape[1])],
            probabilities=logits.softmax(-1)[0].numpy(),
            words=[Word(*spans[word], part) for word, part in parts.items()],
            unread=(unread[0][0], unread[-1][1]) if unread else None,
            unread_words=len(unread),
            logit=float(logits[0, label]),
            baseline=baseline,
            baseline_logit=float(logits[1, label]),
            steps=steps,
        )
        if explanation.is_exact or steps == MOST_STEPS:
            return explanation
        steps *= 2


def _integrated_gradients(model: "Classifier", input_ids: "Tensor", label: int, steps: int) -> "Tensor":
    """What each token adds to a logit: ``(T,)``, from the ids of review and baseline, ``(2, T)``."""
    import torch
    from captum.attr import LayerIntegratedGradients

    def logits(ids: "Tensor", attention_mask: "Tensor") -> "Tensor":
        scores: Tensor = model(input_ids=ids, attention_mask=attention_mask).logits
        return scores

    method = LayerIntegratedGradients(logits, model.base_model.get_input_embeddings())
    review, baseline = input_ids[:1], input_ids[1:]
    parts: Tensor = method.attribute(
        review,
        baselines=baseline,
        target=label,
        additional_forward_args=(torch.ones_like(review),),
        n_steps=steps,
        internal_batch_size=max(1, TOKENS_AT_ONCE // review.shape[1]),
    )  # (1, T, D)
    return parts.detach().sum(-1)[0]


def _baseline(tokenizer: Any) -> tuple[str, int]:
    if tokenizer.mask_token is not None:
        return tokenizer.mask_token, tokenizer.mask_token_id
    return tokenizer.pad_token, tokenizer.pad_token_id


def _words(
    text: str, word_ids: list[int | None], offsets: list[tuple[int, int]]
) -> tuple[list[tuple[int, int]], list[int]]:
    """Characters of each word, and the number of each token's word."""
    spans: list[tuple[int, int]] = []
    word_of: list[int] = []
    before = None
    for word, (start, end) in zip(word_ids, offsets, strict=True):
        # Normalising may make several words of one character, as of ½: they are one here.
        if spans and ((word is not None and word == before) or start < spans[-1][1]):
            spans[-1] = (spans[-1][0], max(spans[-1][1], end))
        else:
            spans.append((start, end))
        word_of.append(len(spans) - 1)
        before = word
    limits = [*(start for start, _ in spans[1:]), len(text)]
    return [_whole(text, *span, limit) for span, limit in zip(spans, limits, strict=False)], word_of


def _whole(text: str, start: int, end: int, limit: int) -> tuple[int, int]:
    """A word without the space that some tokenizers count to it, and with the accents and joiners that some drop."""
    word = text[start:end]
    if word.strip():  # else the space is the word, such as an empty line
        start, end = end - len(word.lstrip()), start + len(word.rstrip())
    while end < limit and unicodedata.category(text[end]) in ("Mn", "Mc", "Me", "Cf"):
        end += 1
    return start, end
