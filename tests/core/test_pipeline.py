"""The path from a request to pictures, on a small model with random weights."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops

from core import device
from core.errors import Cancelled, UserError
from core.inference.pipeline import Pipeline
from core.plugins import current
from core.recipes.png import read_recipe
from core.request.request import Request
from tests.small import write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Pipeline:
    return Pipeline.load(folder, device="cpu")


def test_neither_running_nor_checking_imports_torchs_compiler(folder: Path) -> None:
    """It takes longer than all the rest of a start."""
    code = f"""
import sys
from core.plugins import current
from core.inference.pipeline import Pipeline
from core.conformance import check_sampler
from core.models.config import ModelConfig, UNetConfig
from core.weights.parts import expected_shapes
expected_shapes(ModelConfig(unet=UNetConfig(addition_embed_type="text")))
Pipeline.load({str(folder)!r}, device="cpu").generate(prompt="a red circle", steps=1)
check_sampler(current.registry().sampler("euler"))
print([name for name in ("torch._dynamo", "sympy") if name in sys.modules])
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr


MIDPOINT = """
from itertools import pairwise
from latentcanvas import Step, hookimpl

def midpoint(denoise, x, sigmas, noise):
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        clean = denoise(x, sigma)
        denoise(x, (sigma + target) / 2)
        x = clean + target / sigma * (x - clean)
        yield Step(i, target, x, clean)

@hookimpl
def register_samplers(register):
    register("midpoint", midpoint, title="Midpoint", evals=2)
"""


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.size == b.size and ImageChops.difference(a, b).getbbox() is None


def test_a_picture_has_the_asked_size_and_every_step(pipe: Pipeline) -> None:
    result = pipe.generate(prompt="a red circle", steps=6, width=96, height=64, seed=1)
    assert result.images[0].size == (96, 64)
    assert [step.index for step in result.steps] == list(range(6))
    assert result.evals == 6
    assert result.steps[-1].sigma == 0
    assert result.settings.schedule == "leading"
    assert result.seconds.keys() == {"encode", "denoise", "decode"}


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_image_i_of_a_batch_is_the_picture_of_seed_plus_i(pipe: Pipeline, sampler: str) -> None:
    fields: dict[str, Any] = {"prompt": "a house", "sampler": sampler, "steps": 4}
    batch = pipe.generate(**fields, seed=7, batch=4)
    for i, image in enumerate(batch.images):
        assert same(image, pipe.generate(**fields, seed=7 + i).images[0])
    assert not same(batch.images[0], batch.images[1])


def test_prompt_negative_and_scale_matter(pipe: Pipeline) -> None:
    fields: dict[str, Any] = {"prompt": "a red circle", "seed": 1, "steps": 4, "cfg_scale": 4.0}

    def latents(**changes: Any) -> torch.Tensor:
        return pipe.generate(**fields | changes).steps[-1].x

    plain = latents()
    for changes in (
        {"prompt": "a house"},
        {"negative": "a large green star"},
        {"cfg_scale": 1.0},
        {"seed": 2},
    ):
        assert not torch.allclose(plain, latents(**changes), rtol=1e-4), changes
    assert torch.equal(plain, latents())


def test_steps_carry_both_estimates_and_guidance_is_their_combination(pipe: Pipeline) -> None:
    step = pipe.generate(prompt="a house", steps=3, cfg_scale=3.0, seed=0).steps[1]
    assert step.unconditional is not None
    guided = step.unconditional + 3.0 * (step.conditional - step.unconditional)
    assert torch.allclose(guided, step.denoised, atol=1e-5)
    assert pipe.generate(prompt="a house", steps=3, cfg_scale=1, seed=0).steps[1].unconditional is None


def test_a_run_that_was_ended_early_has_no_result(pipe: Pipeline) -> None:
    run = pipe.stream(prompt="a house", steps=5, seed=0)
    next(run)
    run.close()
    with pytest.raises(RuntimeError, match="ended early"):
        run.result()


def test_the_estimates_belong_to_the_evaluation_that_the_step_shows(pipe: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "midpoint.py").write_text(MIDPOINT)
    current.configure(directory=tmp_path)
    try:
        steps = pipe.generate(prompt="a house", sampler="midpoint", steps=3, cfg_scale=3.0, seed=0).steps
    finally:
        current.configure()
    assert [step.evals for step in steps] == [2, 4, 6]
    for step in steps:
        assert step.unconditional is not None
        guided = step.unconditional + 3.0 * (step.conditional - step.unconditional)
        assert torch.allclose(guided, step.denoised, atol=1e-5)


def test_without_guidance_the_negative_prompt_changes_nothing(pipe: Pipeline) -> None:
    fields: dict[str, Any] = {"prompt": "a house", "steps": 2, "cfg_scale": 1, "seed": 0}
    plain, other = pipe.generate(**fields), pipe.generate(**fields, negative="a large green star " * 20)
    assert torch.equal(plain.steps[-1].x, other.steps[-1].x)


def test_previews_have_the_pictures_size(pipe: Pipeline) -> None:
    step = next(pipe.stream(prompt="a house", steps=3, width=72, seed=0))
    for view in ("denoised", "noisy"):
        assert step.preview(view=view).size == step.decode(view=view).size == (72, 64)


def test_a_prompt_longer_than_a_chunk_is_read_to_its_end(pipe: Pipeline) -> None:
    long = "a red circle on a blue background " * 9
    count = pipe.tokens(long)
    assert (count.used, count.limit, count.chunks) == (63, 46, 2)
    whole, shorter = pipe.encode_prompts(long, "a house")
    assert whole.shape == shorter.shape == (1, 96, 16)
    changed, _ = pipe.encode_prompts(long.replace("blue", "large", 9), "a house")
    assert not torch.allclose(whole[:, 48:], changed[:, 48:])


def test_weights_change_the_states_of_their_words_alone(folder: Path) -> None:
    pipe = Pipeline.load(folder, device="cpu", dtype="float32")
    plain, weighted, dropped = pipe.encode_prompts(
        "a red circle", "a (red:1.5) circle", "a (red circle:0) BREAK a house"
    )
    factors = (weighted / plain).squeeze(
        0
    )  # (T, D): one number a token, that of its own chunk's mean times its weight
    mean = factors[0, 0]
    assert torch.allclose(factors[:2], mean.expand(2, 16), rtol=1e-4)
    assert torch.allclose(factors[2], (1.5 * mean).expand(16), rtol=1e-4)
    assert torch.equal(dropped[:, 2:4], torch.zeros(1, 2, 16))
    [house] = pipe.encode_prompts("a house")
    assert torch.allclose(dropped[:, 48:], house, atol=1e-6)


def test_a_shorter_prompt_is_filled_with_empty_chunks(pipe: Pipeline) -> None:
    _, short = pipe.encode_prompts("a red circle BREAK a house", "a large green star")
    star, empty = pipe.encode_prompts("a large green star", "")
    assert torch.allclose(short, torch.cat([star, empty], 1), atol=1e-6)


def test_clip_skip_stops_at_an_earlier_layer(pipe: Pipeline) -> None:
    prompt = "a red circle"
    [last], [before] = pipe.encode_prompts(prompt), pipe.encode_prompts(prompt, clip_skip=2)
    ids = torch.tensor([chunk.ids for chunk in pipe.model.tokenizer.chunks(prompt)])
    with torch.no_grad():
        assert torch.equal(before, pipe.text_encoder(ids, 1))
    assert not torch.allclose(before, last)
    fields: dict[str, Any] = {"prompt": prompt, "steps": 1, "seed": 0}
    one, two = pipe.generate(**fields), pipe.generate(**fields, clip_skip=2)
    assert not torch.allclose(one.steps[-1].x, two.steps[-1].x, rtol=1e-4)
    with pytest.raises(UserError, match="clip skip 3: the text encoder of small has 2 layers"):
        pipe.stream(prompt=prompt, clip_skip=3)


def test_saved_pictures_make_themselves_again(pipe: Pipeline, tmp_path: Path) -> None:
    result = pipe.generate(prompt="a red circle", batch=2, seed=5, steps=4, sampler="ddpm")
    paths = result.save(tmp_path)
    assert len(paths) == 2
    for i, path in enumerate(paths):
        recipe = read_recipe(path)
        assert recipe.settings.seed == 5 + i
        assert recipe.model.sha256 == pipe.sha256
        again = pipe.generate(Request.from_settings(recipe.settings))
        with Image.open(path) as saved:
            assert same(again.images[0], saved.convert("RGB"))


def test_a_cancel_ends_the_run_before_the_next_evaluation(pipe: Pipeline) -> None:
    cancel = threading.Event()
    run = pipe.stream(prompt="a house", steps=10, cancel=cancel, seed=0)
    next(run), next(run)
    cancel.set()
    with pytest.raises(Cancelled):
        next(run)
    assert len(run.steps) == 2


def test_two_runs_at_once_do_not_disturb_each_other(pipe: Pipeline) -> None:
    fields: dict[str, Any] = {"prompt": "a house", "steps": 4, "sampler": "ddpm"}
    one, two = pipe.stream(**fields, seed=1), pipe.stream(**fields, seed=2)
    pairs = list(zip(one, two, strict=True))
    alone = pipe.generate(**fields, seed=1)
    assert all(torch.equal(pair[0].x, step.x) for pair, step in zip(pairs, alone.steps, strict=True))


def test_request_and_fields_together_are_refused(pipe: Pipeline) -> None:
    with pytest.raises(TypeError):
        pipe.stream(Request(prompt="a"), prompt="b")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"steps": 0}, "steps 0"),
        ({"width": 130}, "multiple of 8"),
        ({"sampler": "ddimm"}, "ddim"),
        ({"schedule": "none"}, "schedule"),
        ({"options": {"eat": 1}}, "eta"),
        ({"promt": "x"}, "prompt"),
        ({"prompt": "a (house:1000)"}, "prompt: the weight 1000"),
        ({"negative": "(" * 60 + "a"}, "negative prompt: the weight"),
        ({"clip_skip": 0}, "clip skip 0"),
    ],
)
def test_bad_requests_are_one_sentence(pipe: Pipeline, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        pipe.stream(**fields)


@pytest.mark.parametrize(
    "name",
    [
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "html"])
def test_a_damaged_model_is_one_sentence(tmp_path: Path, name: str, damage: str) -> None:
    folder = write_model(tmp_path / "model")
    path = folder / name
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "html": b"<html>404</html>"}[damage])
    with pytest.raises(UserError, match=re.escape(path.name)):
        Pipeline.load(folder)


def test_weights_of_another_model_are_refused_by_name(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    vae, unet = (folder / part / "diffusion_pytorch_model.safetensors" for part in ("vae", "unet"))
    unet.write_bytes(vae.read_bytes())
    with pytest.raises(UserError, match=r"lacks conv_in\.bias"):
        Pipeline.load(folder)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"source": "nothing/here"}, "was not found"),
        ({"device": "warp"}, "warp"),
        ({"device": "meta"}, "meta"),
        ({"source": __file__}, "is not a checkpoint"),
        ({"dtype": "float8"}, "float32"),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence(folder: Path, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Pipeline.load(**(dict[str, Any](source=folder) | arguments))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_dtypes_run_and_keep_the_state_in_float32(folder: Path, dtype: str) -> None:
    pipe = Pipeline.load(folder, device="cpu", dtype=dtype)
    result = pipe.generate(prompt="a house", steps=2, seed=0)
    assert result.steps[-1].x.dtype == torch.float32
    assert result.recipe.dtype == dtype


@pytest.mark.parametrize("own", [True, False])
def test_the_processor_chooses_the_dtype_and_says_why(
    folder: Path, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "has_bfloat16", lambda _device: own)
    chosen = Pipeline.load(folder, device="cpu")
    wanted, why = ("bfloat16", "native on this processor") if own else ("float32", "only emulates bfloat16")
    assert str(chosen.dtype) == f"torch.{wanted}"
    assert {str(weight.dtype) for weight in chosen.unet.parameters()} == {f"torch.{wanted}"}
    assert wanted in chosen.about
    assert why in chosen.about
    asked = Pipeline.load(folder, device="cpu", dtype="float16")
    assert asked.dtype == torch.float16
    assert asked.about.endswith("float16, as requested")


def test_the_dtype_of_an_accelerator_is_float16() -> None:
    assert device.find_dtype(None, torch.device("cuda")) == torch.float16
    assert device.find_dtype("float32", torch.device("cuda")) == torch.float32


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_seed_gives_one_picture_alone_and_in_a_batch_in_every_dtype(folder: Path, dtype: str) -> None:
    pipe = Pipeline.load(folder, device="cpu", dtype=dtype)
    fields: dict[str, Any] = {"prompt": "a red circle", "steps": 3, "sampler": "euler_ancestral"}
    batch = pipe.generate(**fields, seed=7, batch=3)
    for i in range(3):
        alone = pipe.generate(**fields, seed=7 + i)
        assert torch.equal(alone.steps[-1].x[0], batch.steps[-1].x[i])
        assert alone.images[0].tobytes() == batch.images[i].tobytes()


@torch.no_grad()
def test_the_folder_is_one_that_diffusers_loads_and_the_latents_agree(folder: Path) -> None:
    pipe = Pipeline.load(folder, device="cpu", dtype="float32")
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    theirs.set_progress_bar_config(disable=True)
    theirs.scheduler = diffusers.DDIMScheduler.from_config(
        # Our grids end at sigma 0: alpha-bar 1 after the last step.
        theirs.scheduler.config, set_alpha_to_one=True, timestep_spacing="leading", steps_offset=1
    )  # fmt: skip
    expected = theirs(
        "a red circle on a blue background", negative_prompt="a house", num_inference_steps=10,
        guidance_scale=5.0, width=64, height=64, output_type="latent",
        generator=torch.Generator("cpu").manual_seed(11),
    ).images  # fmt: skip
    ours = pipe.generate(
        prompt="a red circle on a blue background", negative="a house", steps=10, cfg_scale=5.0,
        width=64, height=64, seed=11, sampler="ddim", schedule="leading", options={"eta": 0.0},
    )  # fmt: skip
    assert float((ours.steps[-1].x - expected).norm() / expected.norm()) < 1e-4
