"""The views that take a model: what they show is what the pipeline itself makes, to the bit."""

from __future__ import annotations

import io
import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from core.errors import Cancelled, UserError
from core.figures.contact_sheet import ImageRow, Plot
from core.figures.plots import Paper, picture
from core.inference.pipeline import Pipeline
from core.learn.choices import check, numbers, prompts, whole_numbers
from core.learn.ddpm import ddpm_and_ddim
from core.learn.forward import example_picture
from core.learn.guidance import CELL_SIDE, check_grid, guidance, guidance_grid
from core.learn.interpolation import between_pictures, between_prompts, between_seeds, lerp, slerp
from core.learn.latents import colored, difference, latent_space
from core.learn.recorder import Watch
from core.learn.result import ViewResult
from core.sampling.guidance import guide
from tests.small import write_model

PROMPT, OTHER = "a red circle", "a large green star"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline.load(write_model(tmp_path_factory.mktemp("models") / "small"), device="cpu")


def row(shown: ViewResult, number: int) -> list[Image.Image]:
    part = shown.parts[number]
    assert isinstance(part, ImageRow)
    return [image for _, image in part.pictures]


def drawn(shown: ViewResult) -> None:
    """It can be drawn, said and, where it moves, filmed."""
    json.dumps(shown.numbers, allow_nan=False)
    with Image.open(io.BytesIO(shown.png(Paper()))) as image:
        assert image.width == 1000
    if shown.frames is not None:
        with Image.open(io.BytesIO(shown.gif(Paper()))) as film:
            assert film.n_frames > 1  # pyrefly: ignore[missing-attribute]


# Interpolation.


def test_slerp_keeps_the_length_that_lerp_loses() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn((1, 4, 32, 32), generator=generator) for _ in range(2))
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    for share in (0.25, 0.5, 0.75):
        assert abs(float(slerp(a, b, share).norm() / a.norm()) - 1) < 0.03
    assert abs(float(lerp(a, b, 0.5).norm() / a.norm()) - 0.5**0.5) < 0.03
    # One that is exact: between two unit vectors at a right angle, half way at 45 degrees.
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    torch.testing.assert_close(slerp(x, y, 0.5), torch.full((2,), 0.5**0.5))
    torch.testing.assert_close(slerp(x, 3 * x, 0.5), 2 * x)
    torch.testing.assert_close(slerp(x, -x, 0.25), 0.5 * x)


def test_the_ends_between_two_seeds_are_their_own_pictures(pipeline: Pipeline) -> None:
    heard: list[tuple[int, ...]] = []
    shown = between_seeds(
        pipeline, prompt=PROMPT, seeds=(3, 8), count=3, watch=Watch(told=lambda *now: heard.append(now))
    )
    arc, line = row(shown, 0), row(shown, 1)
    for seed, both in ((3, (arc[0], line[0])), (8, (arc[-1], line[-1]))):
        own = pipeline.generate(prompt=PROMPT, seed=seed).images[0]
        assert all(one.tobytes() == own.tobytes() for one in both)
    assert arc[1].tobytes() != line[1].tobytes()
    norms = shown.numbers["norms"]
    assert norms["lerp"][1] < 0.85 < norms["slerp"][1]
    assert heard[-1] == (20, 20)  # 5 steps of 3 pictures and of the one in the middle of the line
    drawn(shown)


def test_the_ends_between_two_prompts_are_their_own_pictures(pipeline: Pipeline) -> None:
    shown = between_prompts(pipeline, prompts=(PROMPT, OTHER), count=3, seed=4)
    made = row(shown, 0)
    for prompt, one in ((PROMPT, made[0]), (OTHER, made[-1])):
        assert one.tobytes() == pipeline.generate(prompt=prompt, seed=4).images[0].tobytes()
    drawn(shown)


def test_between_pictures_is_img2img_at_both_ends(pipeline: Pipeline) -> None:
    pair = example_picture(7, 64), example_picture(11, 64)
    shown = between_pictures(pipeline, pair, prompt=PROMPT, count=3, strength=0.6, seed=2)
    faded, mixed, redrawn = (row(shown, i) for i in range(3))
    assert faded[0].tobytes() == pair[0].tobytes()
    assert faded[-1].tobytes() == pair[1].tobytes()
    assert mixed[0].tobytes() != mixed[-1].tobytes()
    own = pipeline.generate(prompt=PROMPT, seed=2, strength=0.6, image=pair[1])
    assert redrawn[-1].tobytes() == own.images[0].tobytes()
    drawn(shown)
    with pytest.raises(UserError, match="run at least 1 step"):
        between_pictures(pipeline, pair, count=3, strength=0.1)


def test_a_view_is_stopped_and_bad_counts_are_a_sentence(pipeline: Pipeline) -> None:
    watch = Watch(cancel=threading.Event())
    watch.cancel.set()
    with pytest.raises(Cancelled):
        between_seeds(pipeline, prompt=PROMPT, count=3, watch=watch)
    with pytest.raises(UserError, match="count 2: must be between 3 and 24"):
        between_prompts(pipeline, prompts=(PROMPT, OTHER), count=2)


# Guidance.


def test_guidance_shows_the_runs_own_estimates_and_pictures(pipeline: Pipeline) -> None:
    shown = guidance(pipeline, prompt=PROMPT, scales=(1, 4, 9), at=0.5, seed=6)
    run = pipeline.generate(prompt=PROMPT, seed=6, cfg_scale=4)
    step = run.steps[2]
    assert shown.numbers["step"] == 3
    assert step.unconditional is not None
    without, with_prompt, _, guided = row(shown, 0)
    assert with_prompt.tobytes() == pipeline.decode(step.conditional)[0].tobytes()
    assert without.tobytes() == pipeline.decode(step.unconditional)[0].tobytes()
    assert guided.tobytes() == pipeline.decode(guide(step.conditional, step.unconditional, 4))[0].tobytes()
    assert row(shown, 1)[0].tobytes() == with_prompt.tobytes()
    assert row(shown, 2)[1].tobytes() == run.images[0].tobytes()
    pull = float((step.conditional - step.unconditional).square().mean().sqrt())
    assert shown.numbers["pull"][2] == pytest.approx(pull, rel=1e-5)
    drawn(shown)


@pytest.mark.parametrize(
    ("scales", "words"), [((3.0,), "give 2 to 12"), ((3.0, 3.0), "only once"), ((1.0, 101.0), "cfg scale")]
)
def test_bad_scales_are_a_sentence(pipeline: Pipeline, scales: tuple[float, ...], words: str) -> None:
    with pytest.raises(UserError, match=words):
        guidance(pipeline, prompt=PROMPT, scales=scales)


def test_a_grid_holds_the_picture_of_each_prompt_at_each_scale(pipeline: Pipeline) -> None:
    heard: list[tuple[int, ...]] = []
    shown = guidance_grid(
        pipeline,
        prompts=(PROMPT, OTHER),
        scales=(0, 1, 6),
        seed=6,
        watch=Watch(told=lambda *now: heard.append(now)),
    )
    assert [part.title for part in shown.parts if isinstance(part, ImageRow)] == [PROMPT, OTHER]
    latents = {}
    for number, prompt in enumerate((PROMPT, OTHER)):
        for column, scale in enumerate((0, 1, 6)):
            own = pipeline.generate(prompt=prompt, seed=6, cfg_scale=scale)
            assert row(shown, number)[column].tobytes() == own.images[0].tobytes(), (prompt, scale)
            latents[prompt, scale] = own.steps[-1].x
    assert heard[-1] == (30, 30)  # 5 steps of 6 pictures
    apart = float((latents[PROMPT, 6] - latents[OTHER, 6]).square().mean().sqrt())
    assert shown.numbers["apart"] == pytest.approx([0, shown.numbers["apart"][1], apart], abs=1e-5)
    assert 0 < shown.numbers["apart"][1] < apart  # without the prompt there is one picture for both
    drawn(shown)
    assert shown.frames is not None
    assert len(shown.frames(Paper())) == 3


def test_a_grid_of_the_models_own_examples(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.model, "examples", tuple(f"a circle {i}" for i in range(20)))
    shown = guidance_grid(pipeline, scales=tuple(range(1, 13)), steps=1)
    assert shown.numbers["prompts"] == [f"a circle {i}" for i in range(5)]  # 5 rows of 12 are 60
    monkeypatch.setattr(pipeline.model, "examples", ("one",))
    with pytest.raises(UserError, match="comes without example prompts"):
        guidance_grid(pipeline)


def test_a_grid_names_the_words_that_the_model_does_not_know(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.model.tokenizer, "words", frozenset(PROMPT.split()))
    shown = guidance_grid(pipeline, prompts=(PROMPT, "a red floof"), scales=(1, 3), steps=1)
    assert shown.words[-1] == "The model has not learned these words: floof."


def test_a_grids_pictures_are_small_enough_for_a_page(pipeline: Pipeline) -> None:
    asked = {"prompts": (PROMPT, OTHER), "scales": (1, 3), "steps": 1, "width": 512, "height": 256}
    assert row(guidance_grid(pipeline, **asked), 0)[0].size == (CELL_SIDE, CELL_SIDE // 2)


def test_a_model_without_words_cannot_be_guided(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.model, "notes", replace(pipeline.model.notes, words=()))
    with pytest.raises(UserError, match="trained without words"):
        guidance(pipeline, prompt=PROMPT)
    with pytest.raises(UserError, match="trained without words"):
        guidance_grid(pipeline, prompts=(PROMPT, OTHER))


@pytest.mark.parametrize(
    ("rows", "scales", "words"),
    [
        (1, 3, "^1 prompt: a grid takes 2 to 12$"),
        (13, 2, "^13 prompts: a grid takes 2 to 12$"),
        (2, 1, "^1 scale: give 2 to 12 scales$"),
        (11, 6, "^11 prompts at 6 scales are 66 images: at most 60$"),
    ],
)
def test_a_grid_of_a_bad_size_is_a_sentence(rows: int, scales: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_grid([f"{i}" for i in range(rows)], list(range(scales)))


def test_a_grid_has_no_row_twice() -> None:
    with pytest.raises(UserError, match="prompts: give each prompt only once"):
        check_grid(["one", "one"], [1, 2])


# Latents.


def test_latents_are_those_of_the_vae_and_the_error_is_measured(pipeline: Pipeline) -> None:
    shown = latent_space(pipeline, example_picture(size=64))
    assert shown.numbers["shape"] == [4, 8, 8]
    assert shown.numbers["times_fewer"] == 64 * 64 * 3 / (4 * 8 * 8)
    picture, decoded, error, _ = row(shown, 0)
    apart = difference(picture, decoded)
    assert shown.numbers["error"]["mean"] == pytest.approx(float(apart.mean()))
    assert error.size == picture.size == decoded.size == (64, 64)
    assert len(row(shown, 1)) == 4
    drawn(shown)


def test_the_colours_of_a_channel_say_its_sign() -> None:
    low, none, high = np.asarray(colored(np.array([[-3.0, 0.0, 99.0]])))[0].tolist()
    assert (low, none, high) == ([13, 148, 136], [245, 245, 244], [217, 119, 6])


# DDPM and DDIM.


def test_ddpm_and_ddim_are_timed_and_measured(pipeline: Pipeline) -> None:
    shown = ddpm_and_ddim(pipeline, prompt=PROMPT, ddpm_steps=30, ddim_steps=(20, 4), seed=5)
    entries = shown.numbers["entries"]
    assert [(one["sampler"], one["steps"], one["evals"]) for one in entries] == [
        ("ddpm", 30, 30),
        ("ddim", 20, 20),
        ("ddim", 4, 4),
    ]
    assert entries[1]["rms"] < entries[2]["rms"]
    assert shown.words[0].startswith("DDPM evaluated the network 30 times in ")
    assert " DDIM with 20 steps evaluated it 20 times in " in shown.words[0]
    plot = shown.parts[1]
    assert isinstance(plot, Plot)
    figure = plot.draw(Paper())
    picture(figure)
    said = [label.get_text() for label in figure.axes[0].get_xticklabels(which="both")]
    assert any(said)
    assert not any("$" in one for one in said)  # plain figures, no powers
    own = pipeline.generate(prompt=PROMPT, seed=5, sampler="ddim", schedule="trailing", steps=4)
    assert row(shown, 0)[2].tobytes() == own.images[0].tobytes()
    drawn(shown)
    with pytest.raises(UserError, match="at least one number of steps"):
        ddpm_and_ddim(pipeline, ddim_steps=())


# What is typed.


def test_numbers_are_read_and_refused() -> None:
    assert numbers("scales", " 1, 2.5;3 ") == [1, 2.5, 3]
    assert whole_numbers("steps", "50,20") == [50, 20]
    for wrong, words in (("1,x", "commas between"), ("1.5", "whole numbers"), ("inf", "whole numbers")):
        with pytest.raises(UserError, match=words):
            whole_numbers("steps", wrong)
    assert prompts("a\n\n  b \n") == ["a", "b"]
    assert prompts(None) == []
    with pytest.raises(UserError, match="steps 0"):
        check(PROMPT, steps=0)


def test_nothing_of_torch_or_matplotlib_is_loaded_before_it_is_used(tmp_path: Path) -> None:
    import subprocess
    import sys

    program = (
        "import sys, ui.page.tabs.learn.tab, core.learn.forward, core.learn.schedules, core.learn.reverse\n"
        "import core.learn.guidance, core.learn.ddpm, core.learn.choices, ui.commands.visualize_model\n"
        "print([name for name in ('torch', 'matplotlib') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
