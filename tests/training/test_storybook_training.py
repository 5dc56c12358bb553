"""The storybook's recipe with small networks and few steps: all stages, and what reads the folder."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from core.errors import UserError
from core.inference.pipeline import Pipeline
from core.training import model_export, sets, trainer
from core.training.sets import storybook
from core.training.stages import autoencoder
from core.training.trainer import train
from core.training.training_recipe import read_recipe

RECIPE = Path(__file__).parents[2] / "data" / "recipes" / "storybook.toml"
SMALL = (
    *("vocabulary.captions=200", "vocabulary.size=700", "text.hidden_size=16", "text.intermediate_size=32"),
    *("text.num_attention_heads=2", "unet.block_out_channels=[8, 16]", "unet.cross_attention_dim=16"),
    *("unet.attention_head_dim=2", "unet.addition_embed_type_num_heads=2", "unet.norm_num_groups=4"),
    *("vae.block_out_channels=[8, 16, 16, 32, 48, 80]", "train.vae.batch=4", "train.unet.batch=4"),
    *("train.vae.steps=3", "train.unet.steps=3", "train.vae.save_every=2", "train.unet.save_every=2"),
    *("vae.norm_num_groups=8", "defaults.steps=2"),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autoencoder, "FITTED", 24)
        patch.setattr(trainer, "BLOCK", 8)
        patch.setattr(model_export, "PREVIEW_PICTURES", 24)
        patch.setattr(sets, "TEST_PICTURES", 8)
        patch.setattr(storybook, "CAPTIONS_READ", 2000)
        return train(RECIPE, SMALL, out=tmp_path_factory.mktemp("storybook"), device="cpu")


def test_without_the_library_that_draws_nothing_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(UserError, match="needs resvg: install it with"):
        train(RECIPE, SMALL, out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_the_latents_have_the_deviation_that_was_asked_for(model: Path) -> None:
    vae = Pipeline.load(model, device="cpu", dtype="float32").vae
    images = storybook.Storybook(1, "seen", 8)
    recipe = read_recipe(RECIPE)
    latents = storybook.DrawnLatents(images, vae, recipe.train.vae_loss.averaged)[:8]  # pyrefly: ignore[bad-argument-type]
    assert float(latents.std()) == pytest.approx(recipe.latents.deviation, rel=0.05)


def test_it_paints_and_knows_what_is_nearest(model: Path) -> None:
    pipeline = Pipeline.load(model, device="cpu", dtype="float32")
    result = pipeline.generate(prompt="a fox in the snow", steps=2, seed=1)
    assert result.images[0].size == (256, 256)
    count = pipeline.tokens("a coyote in the snow")
    assert count.unknown == ("coyote",)
    assert count.nearest["coyote"] == ("fox", "dog")


def test_the_folder_has_an_image_of_each_subject(model: Path) -> None:
    pipeline = Pipeline.load(model, device="cpu", dtype="float32")
    subjects, data = pipeline.subjects, pipeline.subject_sheet()
    assert {"a fox", "the moon", "an owl", "a red circle", "in the forest"} <= {*subjects}
    assert not any(pipeline.tokens(phrase).unknown for phrase in subjects)
    assert Image.open(io.BytesIO(data)).size == (64, 64 * len(subjects))
    assert len(data) < 200_000


def test_a_preview_shows_the_picture_small(model: Path) -> None:
    """The first components are the picture's own colours, so that a linear map of few of them is near it."""
    pipeline = Pipeline.load(model, device="cpu", dtype="float32")
    image = storybook.Storybook(7, "seen", 1).picture(0)
    latents = pipeline.vae.encode(torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1)
    shown = np.asarray(pipeline.preview(latents)[0], float)
    assert shown.shape == image.shape
    assert np.abs(shown - image).mean() < 12


@torch.no_grad()
def test_diffusers_runs_the_folder_and_paints_the_same(model: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(model, dtype=torch.float32)
    theirs.set_progress_bar_config(disable=True)
    pipeline = Pipeline.load(model, device="cpu", dtype="float32")
    unet = pipeline.model.config.unet
    noise = torch.randn((1, unet.in_channels, 8, 8), generator=torch.Generator("cpu").manual_seed(3))
    asked = {"num_inference_steps": 4, "guidance_scale": 2.5, "height": 256, "width": 256}
    painted = theirs("a fox in the snow", latents=noise, output_type="np", **asked).images[0]
    ours = pipeline.generate(
        prompt="a fox in the snow", steps=4, cfg_scale=2.5, sampler="ddim", schedule="leading", seed=3
    )
    assert np.abs(painted * 255 - np.asarray(ours.images[0], float)).max() < 4
