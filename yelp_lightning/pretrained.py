"""Where an encoder and its tokenizer come from: `embedded`, a Hub id, a folder, or one of our checkpoints."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from yelp_lightning.checkpoint import read_checkpoint
from yelp_lightning.embedded.encoder import embedded_folder
from yelp_lightning.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from yelp_lightning.network.pooling import PooledClassifier, Pooling

Classifier: TypeAlias = "PreTrainedModel | PooledClassifier"
"""What `fit` trains: a transformers model with its own head, or an encoder with ours."""


EMBEDDED = "embedded"
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


def encoder_config(source: str) -> "PretrainedConfig":
    """The config of an encoder.

    Args:
        source: As for ``load_tokenizer``.

    Returns:
        What its config.json says, and the architecture's defaults for the rest, under the names that all share.

    Raises:
        UsageError: If there is none.
    """
    from transformers import AutoConfig

    if source.endswith(".ckpt"):
        return AutoConfig.for_model(**json.loads(_read_checkpoint(source)["encoder"]["config"]))
    try:
        return AutoConfig.from_pretrained(_resolve(source))
    except (OSError, ValueError) as error:
        raise _not_loaded(source, "a model", error) from error


def max_positions(source: str) -> int:
    """Longest input that the encoder takes.

    Args:
        source: As for ``load_tokenizer``.

    Returns:
        Tokens, the special ones included.
    """
    limits = [getattr(encoder_config(source), "max_position_embeddings", None), load_tokenizer(source).model_max_length]
    return min(int(limit) for limit in limits if limit)


def load_classifier(
    source: str, num_labels: int, label_names: Sequence[str] | None = None, pooling: "Pooling" = "cls"
) -> "Classifier":
    """Load an encoder with a classification head.

    Args:
        source: ``embedded``, a Hub id or a folder: the head is fresh, drawn from torch's global generator. Or a
            ``.ckpt`` file that ``fit`` wrote: the head is the tuned one, and so is the pooling; adapters are kept.
        num_labels: Classes ``C`` of a fresh head.
        label_names: Names of its classes; None means stars.
        pooling: ``cls`` means the head that transformers has for the architecture.

    Returns:
        A model in float32 and evaluation mode: ``input_ids (B, T)``, ``attention_mask (B, T)`` to ``logits (B, C)``.

    Raises:
        UsageError: If nothing can be loaded from ``source``, tensors of the encoder are missing, or its own head has
            another number of classes.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoModelForSequenceClassification

    if source.endswith(".ckpt"):
        tuned = unpack_classifier(_read_checkpoint(source), merged=False)
        if tuned.config.num_labels != num_labels:
            raise _other_head(source, tuned.config.num_labels, num_labels)
        return tuned
    names = class_names(num_labels, label_names)
    kind = AutoModelForSequenceClassification if pooling == "cls" else AutoModel
    try:
        # transformers 5 takes the dtype of the file by default; half weights would lose the small updates of AdamW.
        # Tensors of another size are refused below: its own error does not say which they are.
        model, loading = kind.from_pretrained(
            _resolve(source), num_labels=num_labels, id2label=names, label2id={n: i for i, n in names.items()},
            dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _not_loaded(source, f"a model with {num_labels} classes", error) from error
    encoder = f"{model.base_model_prefix}." if pooling == "cls" else ""
    for name, found, expected in sorted(loading["mismatched_keys"]):
        if name.startswith(encoder):
            reason = f"{name} has the shape {tuple(found)}, but its config.json says {tuple(expected)}"
            raise _not_loaded(source, "a model", ValueError(reason))
        raise _other_head(source, found[0], num_labels)
    # A pooler is part of the head: encoders pretrained on masked words alone have none.
    missing = [name for name in loading["missing_keys"] if name.startswith(encoder)]
    fresh = [name for name in missing if not name.startswith(f"{encoder}pooler.")]
    if fresh:
        raise UsageError(
            f"`model.pretrained` is {source!r}, whose weights lack {len(fresh)} of the encoder's tensors "
            f"({fresh[0]} for one): give a complete encoder."
        )
    return model if pooling == "cls" else _pooled(model, pooling).eval()


def load_masked_words(source: str) -> "PreTrainedModel":
    """Load an encoder with a head that guesses masked words; fresh where the encoder comes without one.

    Args:
        source: ``embedded``, a Hub id or a folder.

    Returns:
        A transformers model in float32 and evaluation mode.

    Raises:
        UsageError: If nothing can be loaded.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForMaskedLM

    try:
        return AutoModelForMaskedLM.from_pretrained(_resolve(source), dtype=torch.float32)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _not_loaded(source, "a model for masked words", error) from error


def unpack_masked_words(checkpoint: dict[str, Any]) -> "PreTrainedModel":
    """Rebuild the model of a run on masked words from its checkpoint alone.

    Args:
        checkpoint: From ``read_checkpoint``.

    Returns:
        The transformers model, in float32 and evaluation mode.
    """
    import torch
    from transformers import MODEL_FOR_MASKED_LM_MAPPING, AutoConfig

    config = AutoConfig.for_model(**json.loads(checkpoint["encoder"]["config"]))
    return MODEL_FOR_MASKED_LM_MAPPING[type(config)].from_pretrained(
        None, config=config, state_dict=_weights(checkpoint), dtype=torch.float32
    )


def _weights(checkpoint: dict[str, Any]) -> dict[str, "Tensor"]:
    state = checkpoint["state_dict"].items()
    return {name.removeprefix(STATE_PREFIX): tensor for name, tensor in state if name.startswith(STATE_PREFIX)}


def unpack_classifier(checkpoint: dict[str, Any], merged: bool = True) -> "Classifier":
    """Rebuild the tuned model from a checkpoint alone, or, of a model with LoRA, from it and its base.

    Args:
        checkpoint: From ``read_checkpoint``.
        merged: Whether adapters become part of the encoder's own matrices, and the temperature part of the head's: the
            model to use. Otherwise the model to train.

    Returns:
        The model, in float32 and evaluation mode.

    Raises:
        UsageError: If the base of its adapters cannot be loaded, or is another one than it was.
    """
    from yelp_lightning.network.head import divide_logits

    model = _unpack(checkpoint, merged)
    if merged:
        divide_logits(model, checkpoint["encoder"].get("temperature", 1.0))  # early runs had none
    return model


def _unpack(checkpoint: dict[str, Any], merged: bool) -> "Classifier":
    import torch
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, MODEL_MAPPING, AutoConfig

    packed = checkpoint["encoder"]
    config = AutoConfig.for_model(**json.loads(packed["config"]))
    weights = _weights(checkpoint)
    pooling = packed.get("pooling", "cls")  # those of early runs have no such key
    if adapters := packed.get("adapters"):
        return _with_adapters(adapters, config, pooling, weights, merged)
    if pooling == "cls":
        return MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)].from_pretrained(
            None, config=config, state_dict=weights, dtype=torch.float32
        )
    model = _pooled(MODEL_MAPPING[type(config)](config), pooling)
    model.load_state_dict(weights)
    return model.eval()


def _pooled(encoder: "PreTrainedModel", pooling: "Pooling") -> "PooledClassifier":
    from yelp_lightning.network.pooling import PooledClassifier

    if hasattr(encoder, "pooler"):
        encoder.pooler = None  # it looks at the first token alone
    return PooledClassifier(encoder, pooling)


def _with_adapters(
    adapters: dict[str, Any],
    config: "PretrainedConfig",
    pooling: "Pooling",
    weights: dict[str, "Tensor"],
    merged: bool,
) -> "Classifier":
    from yelp_lightning.network.lora import add_lora, fingerprint, merge_lora, require_peft

    require_peft()
    base = adapters["base"]
    model = load_classifier(base["source"], config.num_labels, list(config.id2label.values()), pooling)
    if fingerprint(model) != base["fingerprint"]:
        raise UsageError(
            f"`--ckpt_path` holds adapters of {base['source']!r}, which has other weights than when they were trained: "
            "put the encoder back that it was."
        )
    add_lora(model, adapters["options"])
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    assert not any("lora_" in name for name in missing), missing
    if merged:
        merge_lora(model)
    return model.eval()


def _read_checkpoint(source: str) -> dict[str, Any]:
    if not Path(source).is_file():
        raise _not_loaded(source, "a model", FileNotFoundError("there is no such file"))
    return read_checkpoint(Path(source))


def _resolve(source: str) -> str:
    if source == EMBEDDED:
        return str(embedded_folder())
    # Of a run folder, the model that it left.
    return f"{source}/model" if (Path(source) / "model" / "config.json").is_file() else source


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
