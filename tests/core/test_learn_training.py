"""The view of a training: curves of any length, what is said of them, and that they are drawn."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
from PIL import Image

from core.figures.contact_sheet import ImageRow, Plot
from core.figures.plots import DARK, LIGHT, Paper, svg
from core.learn.training import Curve, StageSeen, smoothed, training

RED, BLUE = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))


def test_a_short_curve_is_kept_as_it_is() -> None:
    curve = Curve()
    for step in range(1, 6):
        curve.add(step, 10.0 / step)
    assert curve.points == [(step, 10.0 / step) for step in range(1, 6)]


@pytest.mark.parametrize("steps", [1_000, 12_345])
def test_a_long_curve_has_few_points_and_the_same_means(steps: int) -> None:
    curve = Curve(most=40)
    for step in range(1, steps + 1):
        curve.add(step, float(step))
    assert 20 <= len(curve.points) < 40
    gaps = {later - earlier for (earlier, _), (later, _) in pairwise(curve.points)}
    assert gaps == {curve.width}
    for step, mean in curve.points:  # of the steps (step - width, step]
        assert mean == pytest.approx(step - (curve.width - 1) / 2)


def test_steps_that_are_made_again_replace_the_earlier_ones() -> None:
    curve = Curve()
    for step in range(1, 11):
        curve.add(step, 1.0)
    for step in range(8, 13):
        curve.add(step, 2.0)
    assert curve.points == [(step, 1.0 if step < 8 else 2.0) for step in range(1, 13)]


def test_the_bold_line_is_a_running_mean() -> None:
    points = [(1, 4.0), (2, 2.0), (3, 0.0)]
    assert smoothed(points, over=2) == [(1, 4.0), (2, 3.0), (3, 1.0)]


def seen(name: str, steps: int, losses: list[float]) -> StageSeen:
    stage = StageSeen(name, steps, done=len(losses))
    for step, loss in enumerate(losses, 1):
        stage.losses.add(step, loss)
    return stage


def test_what_trains_now_comes_first_and_then_the_samples() -> None:
    vae, unet = seen("vae", 3, [3.0, 2.0, 1.0]), seen("unet", 10, [0.5, 0.25])
    unet.held_out.append((2, 0.4))
    shown = training([vae, unet], (2, RED, BLUE))
    assert [type(part) for part in shown.parts] == [Plot, ImageRow, Plot]
    assert shown.words[0] == "Loss of the UNet after 2 of 10 steps: 0.375."
    assert shown.words[1] == "On held-out data with the averaged weights, at step 2: 0.4."
    assert shown.numbers["unet"] == {"done": 2, "steps": 10, "loss": 0.375, "held_out": 0.4}
    pictures = shown.parts[1]
    assert isinstance(pictures, ImageRow)
    assert [words for words, _ in pictures.pictures] == ["raw weights, step 2", "averaged weights, step 2"]
    with Image.open(io.BytesIO(shown.png(Paper(DARK)))) as image:
        assert image.width == 1000


@pytest.mark.parametrize("losses", [[0.5], [0.0, 0.5], [0.2, 0.21, 0.2]])
def test_any_losses_are_drawn(losses: list[float]) -> None:
    """One point, none that a logarithm has, a span of less than a power of ten."""
    [plot] = training([seen("unet", 3, losses)]).parts
    assert isinstance(plot, Plot)
    for narrow in (False, True):
        assert "var(--color-accent)" in svg(plot.draw(Paper(LIGHT, narrow)), plot.words)


def test_a_stage_that_has_only_begun_is_not_drawn() -> None:
    assert training([seen("unet", 3, [])]).parts == []
