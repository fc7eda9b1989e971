"""`model.compile`: the compiled network gives the logits of the plain one, and its checkpoints need no compiler."""

from pathlib import Path

import torch

from yelp_lightning.modeling.classifier import StarClassifier


def test_compiled_equals_plain(tiny_bert: Path) -> None:
    logits, names = [], []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = StarClassifier(str(tiny_bert), pooling="mean", compile=compiled)
        model.configure_model()
        model.eval()
        with torch.no_grad():
            logits.append([model(torch.full((3, width), 9), torch.ones(3, width).long()) for width in (8, 16)])
        names.append(list(model.state_dict()))
    assert names[0] == names[1]
    for plain, compiled in zip(*logits, strict=True):
        torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-5)
