"""`model.compile`: one program for all lengths gives what the plain network gives, and checkpoints need no compiler."""

from pathlib import Path
from typing import Any

import torch
from torch._dynamo import config as compiler
from torch._dynamo import explain

from yelp_lightning.modeling.classifier import StarClassifier


def network(tiny_bert: Path, compiled: bool, **options: Any) -> StarClassifier:
    torch.manual_seed(0)
    model = StarClassifier(str(tiny_bert), compile=compiled, **options)
    model.configure_model()
    return model


def logits_and_gradients(model: StarClassifier, rows: int, width: int) -> list[torch.Tensor]:
    mask = torch.ones(rows, width).long()
    mask[0, width // 2 :] = 0
    found = model(torch.full((rows, width), 9), mask)
    model.zero_grad()
    found.sin().sum().backward()
    return [found.detach(), *(one.grad for one in model.parameters() if one.grad is not None)]


def test_compiled_equals_plain(tiny_bert: Path) -> None:
    plain, compiled = (network(tiny_bert, compiled, dropout=0.0) for compiled in (False, True))
    assert list(plain.state_dict()) == list(compiled.state_dict())
    torch._dynamo.reset()
    for number, shape in enumerate([(3, 8), (4, 16), (2, 12), (5, 40)]):
        with compiler.patch(error_on_recompile=number > 0):
            found = logits_and_gradients(compiled, *shape)
        for one, other in zip(found, logits_and_gradients(plain, *shape), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_dropout_is_part_of_the_program(tiny_bert: Path) -> None:
    model = network(tiny_bert, False, dropout=0.5).model
    found = explain(model)(input_ids=torch.full((3, 8), 9), attention_mask=torch.ones(3, 8).long())
    assert model.training
    assert (found.graph_count, found.graph_break_count) == (1, 0)
