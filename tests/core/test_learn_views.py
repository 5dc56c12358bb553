"""The views that need no model: their numbers against formulas, and that what is drawn is a picture."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from core.errors import UserError
from core.figures.contact_sheet import ImageRow, Plot
from core.figures.plots import DARK, Paper, picture, svg
from core.learn import code
from core.learn.clouds import as_latent, as_points, cloud, distance, exact_denoiser, quantiles
from core.learn.forward import example_picture, forward_picture, forward_points, level, noised
from core.learn.lessons import LESSONS
from core.learn.result import ViewResult
from core.learn.reverse import descents, reverse_points, shown
from core.learn.schedules import grids, schedules
from core.learn.tables import table, tables
from core.models.config import UNetConfig
from core.plugins.discovery import load_plugins
from core.request.model_defaults import Defaults
from core.sampling.contract import Step
from core.sampling.exact import points
from core.sampling.registry import Registry
from core.sampling.schedule import NoiseSchedule, last_part
from core.training.densities import DENSITIES


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_plugins()


def picture_of(shown: ViewResult, paper: Paper | None = None) -> Image.Image:
    image = Image.open(io.BytesIO(shown.png(paper or Paper())))
    image.load()
    return image


# Clouds.


@pytest.mark.parametrize("name", DENSITIES)
def test_a_cloud_is_of_the_size_that_noise_is(name: str) -> None:
    found = cloud(name, 4000)
    assert found.shape == (4000, 2)
    assert np.abs(found.mean(0)).max() < 0.4
    assert 0.6 < float(np.sqrt(np.square(found).mean())) < 1.4
    assert np.array_equal(found, cloud(name, 4000))
    assert not np.array_equal(found, cloud(name, 4000, seed=1))


def test_the_exact_denoiser_is_that_of_single_points_when_there_is_no_spread() -> None:
    known = cloud("moons", 50)
    x = torch.randn((1, 2, 3, 7), generator=torch.Generator().manual_seed(1))
    ours = exact_denoiser(known, spread=0.0)(x, 0.4)
    each = x.movedim(1, -1).reshape(-1, 2, 1, 1)
    theirs = points(torch.from_numpy(known).float()[:, :, None, None])(each, 0.4)
    torch.testing.assert_close(ours.movedim(1, -1).reshape(-1, 2, 1, 1), theirs, rtol=1e-4, atol=1e-5)


def test_the_exact_denoiser_gives_the_score_of_its_density() -> None:
    known, spread, sigma = cloud("spiral", 40), 0.3, 0.5
    x = torch.tensor([[0.3, -0.4]], dtype=torch.float64, requires_grad=True)
    gaps = (x[:, None] - torch.from_numpy(known)).square().sum(-1)
    log_density = torch.logsumexp(-gaps / (2 * (spread**2 + sigma**2)), dim=1).sum()
    (score,) = torch.autograd.grad(log_density, x)
    place = x.detach()[:, :, None, None]
    ours = (exact_denoiser(known, spread)(place, sigma) - place) / sigma**2
    torch.testing.assert_close(ours[:, :, 0, 0], score)


def test_a_cloud_goes_through_a_latent_and_back() -> None:
    found = cloud("grid", 12)
    assert as_latent(found).shape == (1, 2, 1, 12)
    np.testing.assert_allclose(as_points(as_latent(found)), found, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 7, 2000])
def test_quantiles_are_those_of_numpy(count: int) -> None:
    values = np.random.default_rng(1).normal(size=(3, count))
    expected = np.quantile(values, (np.arange(512) + 0.5) / 512, axis=1).T
    np.testing.assert_allclose(quantiles(values), expected, rtol=1e-12, atol=1e-12)


def test_the_distance_of_a_shift_is_its_length_over_the_root_of_two() -> None:
    found = cloud("moons", 3000)
    assert distance(found, found) == 0
    assert distance(found, found + np.array([0.3, 0.4])) == pytest.approx(0.5 / math.sqrt(2), rel=1e-3)
    assert distance(found, cloud("moons", 3000, seed=1)) < 0.1 < distance(found, cloud("grid", 3000))


# Forward.


def test_a_level_says_what_the_table_says() -> None:
    at = level(table("scaled_linear"), 500)
    assert at.snr == pytest.approx(at.alpha_bar / (1 - at.alpha_bar))
    assert at.decibels == pytest.approx(10 * math.log10(at.snr))
    assert "the noise is" in at.words
    assert "the signal is" in level(table("scaled_linear"), 10).words
    with pytest.raises(UserError, match="t 1000: must be between 0 and 999"):
        level(table("scaled_linear"), 1000)


def test_noised_keeps_the_spread_of_what_has_one() -> None:
    chance = np.random.default_rng(0)
    clean, noise = chance.normal(size=(2, 200_000))
    for t in (10, 400, 990):
        assert noised(clean, level(table("linear"), t), noise).std() == pytest.approx(1, abs=0.01)


def test_forward_draws_points_and_pictures() -> None:
    of_points = forward_points("letters", t=200)
    assert picture_of(of_points).width == 1000
    assert picture_of(of_points, Paper(DARK, narrow=True)).width == 460
    of_picture = forward_picture(example_picture(size=64), t=0)
    [row, _] = of_picture.parts
    assert isinstance(row, ImageRow)
    clean, spoilt = (np.asarray(image, dtype=float) for _, image in row.pictures[:2])
    assert np.abs(clean - spoilt).mean() < 5
    with Image.open(io.BytesIO(of_picture.gif(Paper()))) as film:
        assert film.n_frames == 24  # pyrefly: ignore[missing-attribute]


# Schedules.


def test_every_table_falls_from_signal_to_noise() -> None:
    assert {"linear", "scaled_linear"} <= set(tables())
    for model in tables().values():
        assert model.alphas_cumprod[0] > 0.99
        assert model.alphas_cumprod[-1] < 0.01
    with pytest.raises(UserError, match="did you mean 'linear'"):
        table("liner")


def test_every_registered_schedule_is_there_and_a_strength_says_where_it_starts(registry: Registry) -> None:
    found = schedules(registry, schedule="karras", steps=12, strength=0.5)
    assert set(found.numbers["grids"]) == set(registry.schedules)
    own = found.numbers["grids"]["karras"]
    assert found.numbers["starts_at"] == last_part(own, 0.5)[0] == own[6]
    assert "strength 0.5 x 12 = 6 steps" in found.words[1]
    assert picture_of(found).height > 500
    with pytest.raises(UserError, match="no animation"):
        found.gif(Paper())


def test_a_schedule_that_fails_is_named_and_left_out(registry: Registry) -> None:
    def broken(model: NoiseSchedule, steps: int) -> list[float]:
        return [1.0]

    bad = replace(registry.schedules["karras"], name="broken", function=broken)
    more = replace(registry, schedules={**registry.schedules, "broken": bad})
    found = grids(more, steps=7)
    assert found.numbers["failed"] == ["broken"]
    assert "broken" in found.words[-1]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"schedule": "karas"}, "did you mean 'karras'"),
        ({"steps": 0}, "steps 0: must be between 1 and 1000"),
        ({"steps": 4, "strength": 0.2}, "run at least 1 step"),
        ({"strength": 1.5}, "strength 1.5"),
        ({"betas": "x"}, "There are no betas 'x'"),
    ],
)
def test_what_cannot_be_drawn_is_a_sentence(registry: Registry, asked: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        schedules(registry, **asked)  # pyrefly: ignore[bad-argument-type]


# Reverse.


def test_samplers_have_equal_evaluations_and_end_near_the_data(registry: Registry) -> None:
    made = descents(registry, ["ddpm", "ddim", "heun", "dpmpp_2m"], evals=24, points=300)
    assert [one.evals for one in made] == [24, 24, 23, 24]
    for one in made:
        assert one.states.shape == (one.steps + 1, 300, 2)
        assert one.clean.shape == (one.steps, 300, 2)
        assert one.sigmas[-1] == 0
        assert all(high > low for high, low in pairwise(one.sigmas))
        assert one.apart < 0.2 < distance(one.shown(0), cloud("moons", 2000))
    assert np.array_equal(made[0].states[0], made[1].states[0])


def test_more_evaluations_come_nearer(registry: Registry) -> None:
    few, many = (descents(registry, ["ddim"], evals=evals, points=1500)[0] for evals in (4, 60))
    assert many.apart < few.apart / 2


def test_a_sampler_that_fails_leaves_the_others_in(registry: Registry) -> None:
    def broken(denoise: object, x: object, sigmas: list[float], noise: object) -> Iterator[Step]:
        if sigmas:
            raise RuntimeError("no such luck")
        yield from ()

    bad = replace(registry.samplers["ddim"], name="broken", function=broken, options=())
    more = replace(registry, samplers={**registry.samplers, "broken": bad})
    found = reverse_points(more, ["broken", "ddim"], evals=6, points=50)
    assert any("no such luck" in sentence for sentence in found.words)
    assert found.numbers["descents"][0]["apart"] is None
    json.dumps(found.numbers, allow_nan=False)
    with pytest.raises(UserError, match="no sampler finished"):
        reverse_points(more, ["broken"], evals=6, points=50)


def test_a_model_that_has_learned_the_exact_score_walks_as_it_does(registry: Registry) -> None:
    model = table("linear")
    exact = exact_denoiser(cloud("grid", 2000, 3))

    def network(x: torch.Tensor, t: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        sigma = model.sigma(float(t[0]))
        state = x * math.sqrt(1 + sigma**2)
        return (state - exact(state, sigma)) / sigma

    config = SimpleNamespace(
        unet=UNetConfig(), vae=SimpleNamespace(latent_channels=2), noise=SimpleNamespace(prediction="epsilon")
    )
    pipeline: Any = SimpleNamespace(
        name="mine",
        config=config,
        defaults=Defaults(sampler="ddim", schedule="leading", steps=10, cfg_scale=5, width=64, height=64),
        predict=network,
        noise_schedule=model,
        dtype=torch.float32,
        encode_prompts=lambda *prompts, clip_skip, emphasis: [torch.zeros((1, 2, 4))],
    )
    pipeline.model = pipeline
    asked: dict[str, Any] = {"name": "grid", "evals": 10, "points": 40, "seed": 3}
    ours, learned = descents(registry, ["ddim"], **asked, pipeline=pipeline)
    assert (ours.score, learned.score) == ("the exact score", "mine")
    np.testing.assert_allclose(learned.states[-1], ours.states[-1], atol=1e-2)
    assert picture_of(shown([ours, learned], "grid")).width == 1000
    config.vae.latent_channels = 4
    with pytest.raises(UserError, match="mine makes images"):
        descents(registry, ["ddim"], **asked, pipeline=pipeline)


def test_a_part_of_the_way_is_drawn_and_filmed(registry: Registry) -> None:
    made = descents(registry, ["ddim", "heun"], name="grid", evals=8, points=60)
    halfway, done = shown(made, "grid", share=0.5), shown(made, "grid")
    assert picture_of(halfway).tobytes() != picture_of(done).tobytes()
    frames = list(done.frames(Paper())) if done.frames else []
    assert len(frames) == 32
    assert frames[0].tobytes() != frames[-1].tobytes()


@pytest.mark.parametrize(
    ("samplers", "more", "words"),
    [
        ([], {}, "choose at least one sampler"),
        (["dim"], {}, "did you mean 'ddim'"),
        (["ddim"] * 9, {}, "at most 8"),
        (["ddim"], {"evals": 0}, "evaluations 0"),
        (["ddim"], {"points": 0}, "points 0"),
        (["ddim"], {"name": "moon"}, "did you mean 'moons'"),
    ],
)
def test_bad_input_for_the_walk(
    registry: Registry, samplers: list[str], more: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        descents(registry, samplers, **more)  # pyrefly: ignore[bad-argument-type]


# Drawing and code.


def test_a_figure_for_the_page_has_its_colours_from_the_style_sheet() -> None:
    [plot] = forward_points(t=10).parts
    assert not isinstance(plot, ImageRow)
    drawn = svg(plot.draw(Paper()), 'points & "more"')
    assert drawn.startswith('<svg role="img" aria-label="points &amp; &quot;more&quot;"')
    assert "var(--body-text-color)" in drawn
    assert "#1c1917" not in drawn
    assert "http" not in drawn.replace("http://www.w3.org", "")
    assert drawn.rstrip().endswith("</svg>")


@pytest.mark.parametrize("name", LESSONS)
def test_every_lesson_points_at_code_that_is_there(name: str) -> None:
    lesson = LESSONS[name]
    assert lesson.title
    assert "$" in lesson.text
    assert "arXiv" in lesson.source
    assert lesson.code
    for target, words in lesson.code:
        found = code.lines(target, words)
        path, _, number = found.where.partition(":")
        lines = (code.ROOT / path).read_text(encoding="utf-8").splitlines()
        assert words in lines[int(number) - 1]
        assert words in found.text


def test_code_that_has_changed_is_seen(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="no line with 'such words'"):
        code.lines("core.sampling.schedule:last_part", "such words")


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize(("samplers", "share"), [(["ddim", "heun"], 0.5), (["ddim", "heun", "euler"], 1.0)])
def test_no_word_of_the_ways_is_cut_off(
    registry: Registry, samplers: list[str], share: float, narrow: bool
) -> None:
    [part] = reverse_points(registry, samplers, evals=4, points=20, share=share).parts
    assert isinstance(part, Plot)
    figure = part.draw(Paper(narrow=narrow))
    picture(figure)  # which lays it out
    inches = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert inches.x0 >= -0.01
    assert inches.y0 >= -0.01
    assert inches.x1 <= width + 0.01
    assert inches.y1 <= height + 0.01
