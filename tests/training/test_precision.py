"""What `trainer.precision auto` means, by what the device can do."""

import pytest
import torch

from yelp_lightning.training.precision import choose, has_bf16_units


@pytest.mark.parametrize(
    ("units", "found"),
    [({}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx2": True}, False)],
)
def test_auto_asks_the_processor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], units: dict[str, bool], found: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    assert has_bf16_units() is found
    assert choose("auto", "cpu", "fit") == ("bf16-mixed" if found else "32-true")
    # Whatever trained them, all read the same numbers.
    assert {choose("auto", "cpu", command) for command in ("validate", "test", "predict")} == {"32-true"}
    assert choose("16-mixed", "cpu", "fit") == "16-mixed"


def test_what_was_asked_for_is_kept_but_not_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    with pytest.warns(UserWarning, match="no units for bfloat16"):
        assert choose("bf16-mixed", "cpu", "fit") == "bf16-mixed"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    with pytest.warns(UserWarning, match="bf16-mixed keeps them in float32"):
        assert choose("bf16-true", "cpu", "fit") == "bf16-true"
