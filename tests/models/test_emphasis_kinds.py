"""How the weights of a prompt act: each kind next to its formula, on the embeddings of the embedded model."""

from __future__ import annotations

import pytest
import torch

from core.inference.model import Model


@pytest.mark.parametrize("emphasis", ["a1111", "no_norm", "comfy"])
def test_weights_act_by_their_formula(emphasis: str) -> None:
    model = Model.load("tiny", device="cpu", dtype="float32")
    prompt, plain = "a (red:1.4) circle, [small]", "a red circle, small"
    z, empty = (states[0] for states in model.encode_prompts(plain, "", emphasis=emphasis))
    [chunk] = model.tokenizer.chunks(prompt)
    assert chunk.ids == model.tokenizer.chunks(plain)[0].ids
    w = torch.tensor(chunk.weights)[:, None]
    formulas = {
        "a1111": z * w * (z.mean() / (z * w).mean()),
        "no_norm": z * w,
        "comfy": empty + (z - empty) * w,
    }
    [found] = model.encode_prompts(prompt, emphasis=emphasis)
    assert (found[0] - formulas[emphasis]).abs().max() < 1e-5
    others = [other for name, other in formulas.items() if name != emphasis]
    assert all((found[0] - other).abs().max() > 1e-3 for other in others)
