"""The embedded model: whole, small, the same in the reference libraries, and good at its pictures.

What it draws for a prompt is judged in tests/adherence, by tools/adherence.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core.inference.pipeline import Pipeline
from core.scenes.pool import to_tensor
from core.training.sets import open_set
from core.training.stages.autoencoder import psnr
from core.training.training_recipe import read_recipe
from core.weights.find import EMBEDDED

VAE_PSNR = 28.5  # dB, mean over held-out images; the model card has the measured figure


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline.load("tiny", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def held_out() -> Any:
    """Data of its recipe that it was not trained on."""
    return open_set(read_recipe(EMBEDDED / "recipe.toml"), "test")


def images(held_out: Any, count: int) -> Tensor:
    return to_tensor(np.stack([held_out.picture(i) for i in range(count)]))


def test_it_is_small_and_has_its_card() -> None:
    files = [path for path in EMBEDDED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 30e6
    known = {".safetensors", ".json", ".txt", ".md", ".toml", ".png"}
    assert {path.suffix for path in files} <= known
    assert (EMBEDDED / "README.md").read_text(encoding="utf-8").startswith("# tiny")


def test_its_notes_are_true_to_its_training(pipe: Pipeline, held_out: Any) -> None:
    notes = json.loads((EMBEDDED / "latentcanvas.json").read_text(encoding="utf-8"))
    assert frozenset(notes["words"]) == held_out.words()
    for prompt in pipe.model.examples:
        assert pipe.tokens(prompt).unknown == ()
        assert pipe.tokens(prompt).chunks == 1
    assert pipe.tokens("a red zyxgorb").unknown == ("zyxgorb",)


@torch.no_grad()
def test_each_network_gives_what_the_reference_gives_with_the_same_files(
    pipe: Pipeline, held_out: Any
) -> None:
    diffusers, transformers = pytest.importorskip("diffusers"), pytest.importorskip("transformers")
    text = transformers.CLIPTextModel.from_pretrained(EMBEDDED, subfolder="text_encoder", dtype=torch.float32)
    vae = diffusers.AutoencoderKL.from_pretrained(EMBEDDED, subfolder="vae", dtype=torch.float32)
    unet = diffusers.UNet2DConditionModel.from_pretrained(EMBEDDED, subfolder="unet", dtype=torch.float32)
    ids = torch.tensor([chunk.ids for chunk in pipe.model.tokenizer.chunks("a red house on a snowy hill")])
    states = pipe.text_encoder(ids)
    picture = images(held_out, 1)
    latents = torch.randn(
        (2, *pipe.vae.encode(picture).shape[1:]), generator=torch.Generator().manual_seed(0)
    )
    timesteps = torch.tensor([20.0, 900.0])
    context = states.expand(2, -1, -1)
    for ours, theirs in (
        (states, text(ids).last_hidden_state),
        (pipe.unet(latents, timesteps, context), unet(latents, timesteps, context).sample),
        (
            pipe.vae.encode(picture) / pipe.model.config.vae.scaling_factor,
            vae.encode(picture).latent_dist.mean,
        ),
        (pipe.vae.decode(latents), vae.decode(latents / pipe.model.config.vae.scaling_factor).sample),
    ):
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-4


@torch.no_grad()
def test_the_vae_restores_images_it_has_never_seen(pipe: Pipeline, held_out: Any) -> None:
    assert float(psnr(pipe.vae, images(held_out, 48)).mean()) > VAE_PSNR


def test_a_seed_is_a_picture(pipe: Pipeline, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"prompt": "a large red circle on a blue background", "steps": 10}
    one, again = (pipe.generate(**fields, seed=4).images[0] for _ in range(2))
    batch = pipe.generate(**fields, seed=3, batch=2)
    assert one.tobytes() == again.tobytes() == batch.images[1].tobytes()
    assert batch.images[0].tobytes() != one.tobytes()
