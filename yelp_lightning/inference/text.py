"""The stars of one review, by torch and transformers alone: Lightning takes longer to import than this to answer."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from yelp_lightning.checkpoint import find_checkpoint, read_checkpoint
from yelp_lightning.errors import UsageError
from yelp_lightning.pretrained import unpack_classifier, unpack_tokenizer


def predict_text(ckpt_path: str, text: str, output: str | None = None) -> None:
    """Print, or write, the stars and the probabilities of one review.

    Args:
        ckpt_path: A ``.ckpt`` file that ``fit`` wrote, or a run folder (its best).
        text: The review.
        output: A csv, jsonl or parquet file, or ``-`` for csv on standard output; None prints words and bars.

    Raises:
        UsageError: If the checkpoint cannot be read or the output not be written.
    """
    if output is not None:  # imported here: words on the screen need no pyarrow
        from yelp_lightning.inference.predictions import check_output

        check_output(output)
    try:
        text.encode()
    except UnicodeEncodeError as error:  # Python keeps bytes of the command line that are not UTF-8 as surrogates
        raise UsageError(f"`--text` is not UTF-8 at its character {error.start + 1}: write it in UTF-8.") from error
    probabilities = star_probabilities(find_checkpoint(ckpt_path), text)
    if output is not None:
        from yelp_lightning.inference.predictions import predictions_table, write_predictions

        write_predictions(predictions_table(probabilities[None]), output)
        return
    stars, expected = probabilities.argmax() + 1, probabilities @ np.arange(1, len(probabilities) + 1)
    print(f"{stars} star{'s' if stars > 1 else ''}  (expected {expected:.2f})")
    for star, probability in enumerate(probabilities.tolist(), start=1):
        print(f"  {star} star{'s' if star > 1 else ' '}  {probability:.3f}  {'█' * round(40 * probability)}".rstrip())


def star_probabilities(checkpoint_file: Path, text: str) -> npt.NDArray[np.float32]:
    """Probabilities of the classes for one review.

    Args:
        checkpoint_file: A ``.ckpt`` file that ``fit`` wrote.
        text: The review; what is longer than the run's ``data.max_length`` loses its end.

    Returns:
        ``(C,)``, sums to 1.
    """
    import torch
    import transformers

    transformers.logging.disable_progress_bar()
    checkpoint = read_checkpoint(checkpoint_file)
    model, tokenizer = unpack_classifier(checkpoint), unpack_tokenizer(checkpoint["encoder"])
    max_length = checkpoint["datamodule_hyper_parameters"]["max_length"]
    batch = tokenizer([text], truncation=True, max_length=max_length, return_tensors="pt")
    with torch.inference_mode():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits.float().softmax(-1)[0].numpy()  # type: ignore[no-any-return]
