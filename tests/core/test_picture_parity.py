"""Runs that start from a picture, and rescaled guidance, against diffusers' pipelines on the same weights."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from core.inference.pipeline import Pipeline
from core.inference.run import Result
from tests.small import write_model

diffusers = pytest.importorskip("diffusers")
PROMPT, NEGATIVE = "a red circle on a blue background", "a house"
OURS: dict[str, Any] = {
    "prompt": PROMPT,
    "negative": NEGATIVE,
    "cfg_scale": 7.5,
    "steps": 10,
    "seed": 11,
    "sampler": "ddim",
    "schedule": "leading",
    "options": {"eta": 0.0},
}
SIZE = (96, 64)
SIDES: dict[str, Any] = {"width": 96, "height": 64}


@dataclass(frozen=True)
class Both:
    """One model, opened by this project and by diffusers."""

    ours: Pipeline
    theirs: Any


def opened(folder: Path, *, inpainting: bool) -> Both:
    """Ours reads the folder as they save it."""
    write_model(folder, inpainting=inpainting)
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        for name, weight in theirs.unet.named_parameters():
            if "attn2.to_out.0.weight" in name:
                weight *= 100  # as they are drawn, the weights hardly hear the text
    theirs.save_pretrained(folder / "saved")
    return Both(Pipeline.load(folder / "saved", device="cpu", dtype="float32"), theirs)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Both:
    return opened(tmp_path_factory.mktemp("model") / "small", inpainting=False)


@pytest.fixture(scope="module")
def inpainting_model(tmp_path_factory: pytest.TempPathFactory) -> Both:
    return opened(tmp_path_factory.mktemp("model") / "inpainting", inpainting=True)


@pytest.fixture(autouse=True)
def _mean_of_the_posterior(monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs draws a latent of the picture from the VAE's posterior; ours takes its mean, on purpose."""
    vae = importlib.import_module("diffusers.models.autoencoders.vae")
    monkeypatch.setattr(vae.DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())


def picture() -> Image.Image:
    """Smooth colours, with an edge in them."""
    rows, columns = np.mgrid[0 : SIZE[1], 0 : SIZE[0]] / 64
    colours = np.stack([rows, columns / 2, (rows > columns) * 0.8], axis=-1)
    return Image.fromarray((colours.clip(0, 1) * 255).astype(np.uint8))


def mask() -> Image.Image:
    """White from the corner (32, 16) to (72, 48): whole cells of the latent, which theirs samples by their
    corners.
    """
    white = Image.new("L", SIZE)
    white.paste(255, (32, 16, 72, 48))
    return white


@torch.no_grad()
def assert_the_same(ours: Result, kind: str, model: Both, **arguments: Any) -> None:
    """Latents within 1e-3 of diffusers', and pictures within one level in 99.9% of the values."""
    pipeline = getattr(diffusers, kind)(**model.theirs.components, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(
        # Our grids end at sigma 0: alpha-bar 1 after the last step.
        pipeline.scheduler.config, set_alpha_to_one=True, timestep_spacing="leading", steps_offset=1,
        prediction_type=arguments.pop("prediction_type", "epsilon"),
    )  # fmt: skip
    latents = pipeline(
        PROMPT, negative_prompt=NEGATIVE, num_inference_steps=10, output_type="latent",
        generator=torch.Generator("cpu").manual_seed(11), **{"guidance_scale": 7.5, **arguments},
    ).images  # fmt: skip
    assert ours.steps[-1].x.shape == latents.shape
    assert float((ours.steps[-1].x - latents).norm() / latents.norm()) < 1e-3
    decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    levels = np.asarray(pipeline.image_processor.postprocess(decoded)[0]).astype(int)
    apart = np.abs(np.asarray(ours.images[0]).astype(int) - levels)
    assert (apart <= 1).mean() >= 0.999


def test_a_run_from_text(model: Both) -> None:
    ours = model.ours.generate(**OURS, **SIDES)
    alone: dict[str, Any] = {**OURS, **SIDES, "cfg_scale": 1.0}
    unguided = model.ours.generate(**alone).steps[-1].x
    assert float((ours.steps[-1].x - unguided).norm() / unguided.norm()) > 0.05
    assert_the_same(ours, "StableDiffusionPipeline", model, **SIDES)


@pytest.mark.parametrize("strength", [0.35, 1.0])
def test_a_run_from_a_picture(model: Both, strength: float) -> None:
    ours = model.ours.generate(**OURS, image=picture(), strength=strength)
    assert len(ours.steps) == int(10 * strength)
    arguments = {"image": picture(), "strength": strength}
    assert_the_same(ours, "StableDiffusionImg2ImgPipeline", model, **arguments)


@pytest.mark.parametrize("name", ["model", "inpainting_model"])
def test_inpainting_with_any_model_and_with_one_made_for_it(
    name: str, request: pytest.FixtureRequest
) -> None:
    model: Both = request.getfixturevalue(name)
    ours = model.ours.generate(**OURS, image=picture(), mask=mask(), mask_blur=0, strength=0.8)
    arguments = {"image": picture(), "mask_image": mask(), "strength": 0.8, **SIDES}
    assert_the_same(ours, "StableDiffusionInpaintPipeline", model, **arguments)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_rescaled_guidance(model: Both, prediction: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = replace(model.ours.model.config.noise, prediction_type=prediction)
    monkeypatch.setattr(model.ours.model, "config", replace(model.ours.model.config, noise=noise))
    strong: dict[str, Any] = {**OURS, **SIDES, "cfg_scale": 40.0}  # random weights hardly hear the text
    ours = model.ours.generate(**strong, cfg_rescale=0.7)
    latents, plain = ours.steps[-1].x, model.ours.generate(**strong).steps[-1].x
    assert float((latents - plain).norm() / plain.norm()) > 0.01
    arguments = {"guidance_scale": 40.0, "guidance_rescale": 0.7, "prediction_type": prediction, **SIDES}
    assert_the_same(ours, "StableDiffusionPipeline", model, **arguments)
