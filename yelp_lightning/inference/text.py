"""The stars of one review, by torch and transformers alone: Lightning takes longer to import than this to answer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yelp_lightning.checkpoint import find_checkpoint, read_checkpoint, require_stars
from yelp_lightning.data.truncation import Encoder
from yelp_lightning.errors import UsageError
from yelp_lightning.modeling.rounding import expected_stars
from yelp_lightning.pretrained import Classifier, class_names, load_classifier, unpack_classifier, unpack_tokenizer


def predict_text(ckpt_path: str, text: str, output: str | None = None, explained: bool = False) -> None:
    """Print, or write, the stars and the probabilities of one review.

    Args:
        ckpt_path: A ``.ckpt`` file that ``fit`` wrote, or a run folder (its best).
        text: The review.
        output: A csv, jsonl or parquet file, or ``-`` for csv on standard output; None prints words and bars.
        explained: Whether the words that carried the prediction are marked; ``output`` is then as in ``explain_text``.

    Raises:
        UsageError: If the checkpoint cannot be read or the output not be written.
    """
    if output is not None and not explained:  # imported here: words on the screen need no pyarrow
        from yelp_lightning.inference.predictions import check_output

        check_output(output)
    require_utf8(text)
    path = find_checkpoint(ckpt_path)
    checkpoint = read_checkpoint(path)
    require_stars(checkpoint, path)
    if explained:
        explain_text(checkpoint, checkpoint["datamodule_hyper_parameters"], text, output)
        return
    probabilities = star_probabilities(checkpoint, text)
    options = checkpoint["hyper_parameters"]
    label_names, ordered = options.get("label_names"), options.get("ordered", True)
    if output is not None:
        from yelp_lightning.inference.predictions import predictions_table, write_predictions

        write_predictions(predictions_table(probabilities[None], None, None, label_names, ordered), output)
        return
    print_stars(probabilities, list(class_names(len(probabilities), label_names).values()), ordered)


def require_utf8(text: str) -> None:
    """Refuse a text that holds other bytes, which Python keeps as surrogates.

    Args:
        text: ``--text``.

    Raises:
        UsageError: If it does.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"`--text` is not UTF-8 at its character {error.start + 1}: write it in UTF-8.") from error


def explain_text(checkpoint: dict[str, Any], data: Mapping[str, Any], text: str, output: str | None = None) -> None:
    """Print, or write, the stars of one review with the words that carried them.

    Args:
        checkpoint: From ``read_checkpoint``.
        data: Options ``max_length`` and ``truncation`` of the data.
        text: The review.
        output: A ``.html`` file; None and ``-`` print.

    Raises:
        UsageError: If captum is not installed, or the output cannot be written.
    """
    from yelp_lightning.inference.explanation import explain
    from yelp_lightning.inference.marking import check_page, print_marked, write_page

    check_page(output)
    require_utf8(text)
    explanation = explain(*_model_and_encoder(checkpoint, data), text)
    if output is not None and output != "-":
        write_page(explanation, output)
        return
    print_stars(explanation.probabilities, explanation.names, checkpoint["hyper_parameters"].get("ordered", True))
    print()
    print_marked(explanation)


def print_stars(probabilities: npt.NDArray[np.float32], names: Sequence[str], ordered: bool) -> None:
    """Print the most probable class, and a bar for each.

    Args:
        probabilities: ``(C,)``, sums to 1.
        names: Of the classes, ``(C,)``.
        ordered: Whether the classes are ordered, as stars are.
    """
    expected = f"  (expected {expected_stars(probabilities[None])[0]:.2f})" if ordered else ""
    print(names[int(probabilities.argmax())] + expected)
    width = max(map(len, names))
    for name, probability in zip(names, probabilities.tolist(), strict=True):
        print(f"  {name:<{width}}  {probability:.3f}  {'█' * round(40 * probability)}".rstrip())


def star_probabilities(checkpoint: dict[str, Any], text: str) -> npt.NDArray[np.float32]:
    """Probabilities of the classes for one review.

    Args:
        checkpoint: From ``read_checkpoint``.
        text: The review; a longer one than the run's ``data.max_length`` is truncated as the run's reviews were.

    Returns:
        ``(C,)``, sums to 1.
    """
    return _probabilities(*_model_and_encoder(checkpoint, checkpoint["datamodule_hyper_parameters"]), text)


def before_and_after(paths: Mapping[str, Path], text: str, seed: int) -> tuple[dict[str, dict[str, float]], str | None]:
    """Probabilities of the classes for one review, by the model that a run has started from and by tuned ones.

    Args:
        paths: Name to checkpoint file of each tuned model.
        text: The review.
        seed: Of the head of the un-tuned model, which is that of the first.

    Returns:
        Model's name, ``un-tuned`` first, to class name to probability; and why the un-tuned model is left out.

    Raises:
        UsageError: If a checkpoint cannot be read, or two have other classes.
    """
    import torch

    from yelp_lightning.network.head import draw_head

    require_utf8(text)
    found: dict[str, dict[str, float]] = {}
    left_out, names = None, None
    for name, path in paths.items():
        checkpoint = read_checkpoint(path)
        require_stars(checkpoint, path)
        model, encoder = _model_and_encoder(checkpoint, checkpoint["datamodule_hyper_parameters"])
        models, own = {name: model}, list(model.config.id2label.values())
        if names is None:
            names, options = own, checkpoint["hyper_parameters"]
            kind = options["pretrained"], options["num_labels"], options["label_names"], options.get("pooling", "cls")
            try:
                models = {"un-tuned": load_classifier(*kind), **models}
            except UsageError as error:
                left_out = str(error)
            else:
                torch.manual_seed(seed)
                draw_head(models["un-tuned"])
        if own != names:
            raise UsageError(
                f"`--ckpt_path` {path} has the classes {own}, but the first one {names}: give runs with the same."
            )
        for each, network in models.items():
            found[each] = dict(zip(names, _probabilities(network, encoder, text).tolist(), strict=True))
    return found, left_out


def _probabilities(model: Classifier, encoder: Encoder, text: str) -> npt.NDArray[np.float32]:
    import torch

    (ids,), _ = encoder([text])
    with torch.inference_mode():
        input_ids = torch.tensor([ids])
        logits = model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids)).logits
    return logits.float().softmax(-1)[0].numpy()  # type: ignore[no-any-return]


def _model_and_encoder(checkpoint: dict[str, Any], data: Mapping[str, Any]) -> tuple[Classifier, Encoder]:
    import transformers

    transformers.logging.disable_progress_bar()
    model, tokenizer = unpack_classifier(checkpoint), unpack_tokenizer(checkpoint["encoder"])
    return model, Encoder(tokenizer, data["max_length"], data.get("truncation", "head"))
