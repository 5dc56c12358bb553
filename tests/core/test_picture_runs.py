"""Runs that start from a picture: what runs, what stays exactly as it was, and that a recipe repeats them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops

from core.errors import Cancelled, UserError
from core.images.tensors import fill_in, from_image, to_images
from core.inference.pipeline import Pipeline
from core.inference.run import Result
from core.plugins import current
from core.recipes.png import read_recipe
from core.request.request import Request
from core.request.settings import Settings
from tests.core.pictures import box_mask, noise, same
from tests.core.test_pipeline import MIDPOINT
from tests.small import write_model

SIZE = (64, 64)
PICTURE = noise(SIZE)
MASK = box_mask(SIZE, (0, 0, 32, 64))  # the left half
FIELDS: dict[str, Any] = {"prompt": "a red circle", "steps": 5, "seed": 3}


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline.load(write_model(tmp_path_factory.mktemp("model") / "small"), device="cpu")


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder = write_model(tmp_path_factory.mktemp("model") / "inpainting", inpainting=True)
    return Pipeline.load(folder, device="cpu")


def last(result: Result) -> torch.Tensor:
    return result.steps[-1].x


# img2img.


def test_strength_says_how_many_of_the_steps_run(pipe: Pipeline) -> None:
    whole = pipe.stream(**FIELDS)
    run = pipe.stream(**FIELDS, image=PICTURE, strength=0.6)
    assert run.sigmas == whole.sigmas[2:]
    assert run.total == 3
    assert run.words == f"strength 0.6 x 5 = 3 steps, from sigma {run.sigmas[0]:.3g}"
    result = run.result()
    assert len(result.steps) == result.evals == 3
    assert result.words == run.words
    assert whole.words == ""
    one = pipe.stream(**FIELDS, image=PICTURE, strength=0.2)
    assert one.words.startswith("strength 0.2 x 5 = 1 step, ")


def test_a_run_starts_at_the_picture_with_noise_on_it(pipe: Pipeline) -> None:
    step = next(pipe.stream(**FIELDS, image=PICTURE, strength=0.6, sampler="ddim"))
    sigma = pipe.stream(**FIELDS, image=PICTURE, strength=0.6).sigmas[0]
    clean = pipe.encode(from_image(PICTURE))
    drawn = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    # DDIM's step is x' = x0 + sigma' / sigma (x - x0): taken back.
    start = step.denoised + sigma / step.sigma * (step.x - step.denoised)
    torch.testing.assert_close(start, clean + sigma * drawn, rtol=1e-4, atol=1e-4)


def test_the_weaker_the_nearer_to_the_picture(pipe: Pipeline) -> None:
    clean = pipe.encode(from_image(PICTURE))
    far = [
        float((last(pipe.generate(**FIELDS, image=PICTURE, strength=s)) - clean).norm())
        for s in (0.2, 0.6, 1)
    ]
    assert far[0] < far[1] < far[2]


def test_at_strength_1_the_picture_is_still_there(pipe: Pipeline) -> None:
    """All steps run, but from the picture under the noise of the first sigma, not from noise alone."""
    full = pipe.generate(**FIELDS, image=PICTURE, strength=1.0)
    assert full.evals == 5
    assert not torch.equal(last(full), last(pipe.generate(**FIELDS)))
    assert not torch.equal(last(full), last(pipe.generate(**FIELDS, image=noise(SIZE, 1), strength=1.0)))


def test_a_white_mask_over_noise_is_a_run_without_a_picture(pipe: Pipeline) -> None:
    white = Image.new("L", SIZE, 255)
    masked = pipe.generate(**FIELDS, image=PICTURE, mask=white, strength=1.0, masked_content="noise")
    assert torch.equal(last(masked), last(pipe.generate(**FIELDS)))


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("mask", [None, MASK])
def test_image_i_of_a_batch_is_the_picture_of_seed_plus_i(
    pipe: Pipeline, sampler: str, mask: Image.Image | None
) -> None:
    fields: dict[str, Any] = {"prompt": "a house", "sampler": sampler, "steps": 4, "strength": 0.75}
    pictures: dict[str, Any] = {"image": PICTURE, "mask": mask}
    batch = pipe.generate(**fields, **pictures, seed=7, batch=3)
    for i in range(3):
        alone = pipe.generate(**fields, **pictures, seed=7 + i)
        assert torch.equal(last(alone)[0], last(batch)[i])
        assert same(batch.images[i], alone.images[0])
    assert not same(batch.images[0], batch.images[1])


# Inpainting.


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "midpoint"])
@pytest.mark.parametrize("changes", [{}, {"cfg_rescale": 0.7}, {"cfg_to": 0.5}, {"cfg_scale": 1}])
def test_outside_the_mask_latents_are_the_pictures_own(
    pipe: Pipeline, tmp_path: Path, sampler: str, changes: dict[str, Any]
) -> None:
    (tmp_path / "midpoint.py").write_text(MIDPOINT)
    current.configure(directory=tmp_path)
    try:
        result = pipe.generate(
            **FIELDS, **changes, image=PICTURE, mask=MASK, mask_blur=0, sampler=sampler, batch=2
        )
    finally:
        current.configure()
    clean = pipe.encode(from_image(PICTURE)).expand(2, -1, -1, -1)
    assert torch.equal(last(result)[..., 4:], clean[..., 4:])
    assert not torch.isclose(last(result)[..., :4], clean[..., :4], atol=1e-3).any(dim=1).all()
    for step in result.steps:
        for estimate in (step.denoised, step.conditional, step.unconditional):
            assert estimate is None or torch.equal(estimate[..., 4:], clean[..., 4:])


def test_a_thin_stroke_is_not_lost_between_the_cells(pipe: Pipeline) -> None:
    stroke = box_mask(SIZE, (27, 0, 28, 64))  # one pixel wide, inside the fourth column of cells
    result = pipe.generate(**FIELDS, image=PICTURE, mask=stroke, mask_blur=0)
    same_cells = (last(result) == pipe.encode(from_image(PICTURE))).all(dim=1)[0]
    assert same_cells.all(dim=0).tolist() == [True] * 3 + [False] + [True] * 4


@pytest.mark.parametrize("changes", [{}, {"mask_blur": 0}, {"only_masked": 8}, {"batch": 2}])
@pytest.mark.parametrize("invert", [False, True])
def test_pixels_that_are_masked_out_come_back_identical(
    pipe: Pipeline, changes: dict[str, Any], invert: bool
) -> None:
    fields: dict[str, Any] = {**FIELDS, **changes, "keep_unmasked": True, "invert_mask": invert}
    result = pipe.generate(**fields, image=PICTURE, mask=MASK, strength=1.0)
    kept = np.asarray(MASK) == (255 if invert else 0)
    for image in result.images:
        levels = np.asarray(image)
        assert np.array_equal(levels[kept], np.asarray(PICTURE)[kept])
        assert (levels[~kept] != np.asarray(PICTURE)[~kept]).mean() > 0.5


def test_without_keeping_they_come_through_the_vae(pipe: Pipeline) -> None:
    result = pipe.generate(**FIELDS, image=PICTURE, mask=MASK)
    assert not np.array_equal(np.asarray(result.images[0])[:, 40:], np.asarray(PICTURE)[:, 40:])


def test_what_the_mask_starts_from_makes_a_difference(pipe: Pipeline) -> None:
    made = {
        content: last(pipe.generate(**FIELDS, image=PICTURE, mask=MASK, strength=0.6, masked_content=content))
        for content in ("original", "fill", "noise", "nothing")
    }
    for content, latents in made.items():
        others = [other for name, other in made.items() if name != content]
        assert not any(torch.allclose(latents[..., :4], other[..., :4], atol=1e-3) for other in others)


def test_outpainting_is_larger_and_keeps_what_was_there(pipe: Pipeline) -> None:
    result = pipe.generate(**FIELDS, image=PICTURE, outpaint=(24, 0, 0, 16), keep_unmasked=True)
    assert result.images[0].size == (88, 80)
    assert (result.settings.width, result.settings.height) == (88, 80)
    assert (result.settings.strength, result.settings.masked_content) == (1.0, "fill")
    assert same(result.images[0].crop((24, 0, 88, 64)), PICTURE)


def test_filling_takes_the_colours_around() -> None:
    picture = Image.new("RGB", (48, 40), (200, 40, 40))
    picture.paste((0, 0, 255), (16, 8, 32, 24))
    known = 1 - from_image(box_mask((48, 40), (16, 8, 32, 24)))
    filled = to_images(fill_in(from_image(picture), known))[0]
    apart = ImageChops.difference(filled, Image.new("RGB", (48, 40), (200, 40, 40)))
    assert max(high for _, high in apart.getextrema()) <= 1  # pyrefly: ignore[not-iterable]
    nothing = fill_in(from_image(picture), torch.zeros(1, 1, 40, 48))
    assert float(nothing.abs().max()) == 0


# An inpainting network.


def test_an_inpainting_model_sees_mask_and_picture(inpainting: Pipeline) -> None:
    def latents(**arguments: Any) -> torch.Tensor:
        return last(inpainting.generate(**FIELDS, **arguments))

    plain = latents()
    from_picture = latents(image=PICTURE, strength=1.0)
    masked = latents(image=PICTURE, mask=MASK, strength=1.0, masked_content="noise")
    other = latents(image=noise(SIZE, 1), mask=MASK, strength=1.0, masked_content="noise")
    for a, b in ((plain, from_picture), (from_picture, masked), (masked, other)):
        assert not torch.allclose(a, b, atol=1e-4)
    # It is shown what is kept and free to make it fit: nothing is put into its estimates.
    assert not torch.equal(masked[..., 4:], inpainting.encode(from_image(PICTURE))[..., 4:])
    kept = inpainting.generate(**FIELDS, image=PICTURE, mask=MASK, keep_unmasked=True).images[0]
    assert same(kept.crop((32, 0, 64, 64)), PICTURE.crop((32, 0, 64, 64)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_dtypes_start_from_pictures_too(tmp_path: Path, dtype: str) -> None:
    model = Pipeline.load(write_model(tmp_path / "model", inpainting=True), device="cpu", dtype=dtype)
    result = model.generate(**FIELDS, image=PICTURE, mask=MASK, cfg_rescale=0.5)
    assert last(result).dtype == torch.float32
    assert last(result).isfinite().all()


# Guidance in a part of the steps.


def test_outside_the_interval_one_half_is_skipped(pipe: Pipeline) -> None:
    always, never = pipe.generate(**FIELDS), pipe.generate(**FIELDS, cfg_scale=1)
    assert (always.evals, always.passes) == (5, 10)
    assert (never.evals, never.passes) == (5, 5)
    some = pipe.generate(**FIELDS, cfg_from=0.2, cfg_to=0.6)
    assert [step.unconditional is not None for step in some.steps] == [False, True, True, False, False]
    assert (some.evals, some.passes) == (5, 7)
    assert torch.equal(some.steps[0].x, never.steps[0].x)
    assert not torch.equal(some.steps[1].x, never.steps[1].x)
    assert torch.equal(last(pipe.generate(**FIELDS, cfg_from=0, cfg_to=1, cfg_rescale=0)), last(always))


def test_the_interval_is_of_the_whole_grid(pipe: Pipeline) -> None:
    part = pipe.generate(**FIELDS, image=PICTURE, strength=0.6, cfg_from=0.5)
    assert [step.unconditional is not None for step in part.steps] == [False, True, True]  # steps 2, 3 and 4


# Recipes.


def test_a_recipe_repeats_a_picture_with_the_same_inputs(pipe: Pipeline, tmp_path: Path) -> None:
    fields: dict[str, Any] = FIELDS | {"sampler": "ddpm", "keep_unmasked": True, "mask_blur": 2}
    fields["cfg_rescale"] = 0.3
    PICTURE.save(tmp_path / "in.bmp")
    MASK.save(tmp_path / "mask.bmp")
    first = pipe.generate(**fields, image=PICTURE, mask=MASK, masked_content="fill", outpaint=(8, 0, 0, 0))
    recipe = read_recipe(first.save(tmp_path)[0])
    again = pipe.generate(
        Request.from_settings(recipe.settings), image=tmp_path / "in.bmp", mask=str(tmp_path / "mask.bmp")
    )
    assert again.pngs() == first.pngs()
    with pytest.raises(UserError, match=r"^the recipe needs an init image .*; give it with --image$"):
        pipe.generate(Request.from_settings(recipe.settings))
    with pytest.raises(UserError, match=r"^the recipe needs a mask .*; give it with --mask$"):
        pipe.generate(Request.from_settings(recipe.settings), image=PICTURE)
    other = pipe.generate(Request.from_settings(recipe.settings), image=noise(SIZE, 1), mask=MASK)
    assert other.settings.image_sha256 != recipe.settings.image_sha256


def test_an_old_recipe_is_read_and_a_plain_one_stays_as_it_was(pipe: Pipeline) -> None:
    settings = pipe.stream(**FIELDS).settings
    assert set(settings.to_dict()) == {
        *("prompt", "negative", "sampler", "schedule", "steps", "cfg_scale", "width", "height", "batch"),
        *("seed", "options"),
    }
    assert Settings.from_dict(settings.to_dict()) == settings


# What a run keeps, and how it ends.


def test_steps_need_not_be_kept(pipe: Pipeline) -> None:
    run = pipe.stream(**FIELDS, keep_steps=False)
    seen = [step.index for step in run]
    assert seen == [0, 1, 2, 3, 4]
    assert [step.index for step in run.steps] == [4]
    assert same(run.result().images[0], pipe.generate(**FIELDS).images[0])


def test_a_stop_is_honoured_before_the_pictures_are_decoded(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancel = threading.Event()
    run = pipe.stream(**FIELDS, cancel=cancel)
    for _ in run:
        pass
    cancel.set()
    monkeypatch.setattr(pipe.model, "decode", lambda latents: pytest.fail("decoded"))
    with pytest.raises(Cancelled):
        run.result()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"strength": 0.5}, "strength 0.5: has no effect without an init image"),
        ({"image": PICTURE, "keep_unmasked": True}, "keep unmasked True: has no effect without a mask"),
        ({"image": PICTURE, "mask": Image.new("L", SIZE)}, "the mask is all black"),
        ({"image": "nowhere.png"}, "nowhere.png: there is no such file"),
        ({"mask": MASK}, "without an init image"),
        (
            {"image": PICTURE, "strength": 0.1},
            "runs none of 5 steps; raise it to 0.2",
        ),
    ],
)
def test_bad_pictures_are_one_sentence_before_anything_runs(
    pipe: Pipeline, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        pipe.stream(**FIELDS | fields)
