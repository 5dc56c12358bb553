"""The steps as a GIF and as a sheet."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from core.inference.animation import animation, contact_sheet, frames
from core.inference.pipeline import Pipeline
from core.inference.trajectory import VIEWS, Trajectory
from tests.core.pictures import noise, same
from tests.small import write_model


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline.load(write_model(tmp_path_factory.mktemp("model") / "small"), device="cpu")


@pytest.fixture(scope="module")
def steps(pipe: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    run = pipe.stream(prompt="a house", steps=5, width=96, seed=1)
    run.result()
    path: Path = tmp_path_factory.mktemp("steps") / "a"
    Trajectory.of(run).save(path)
    return Trajectory.open(path)


def near(a: Image.Image, b: Image.Image) -> float:
    x, y = (np.asarray(image.convert("RGB")).astype(float) for image in (a, b))
    return float(np.abs(x - y).mean())


@pytest.mark.parametrize("view", VIEWS)
def test_a_gif_has_every_step_and_then_the_picture(steps: Trajectory, view: str) -> None:
    final = noise((96, 64))
    with Image.open(io.BytesIO(animation(steps, view=view, milliseconds=80, final=final))) as gif:
        shown = [(frame.convert("RGB"), frame.info["duration"]) for frame in ImageSequence.Iterator(gif)]
        assert gif.info["loop"] == 0
    assert [duration for _, duration in shown] == [80, 80, 80, 80, 80, 1500]
    for k in range(1, 6):
        assert near(shown[k - 1][0], steps.preview(k, view)) < 9
    assert near(shown[-1][0], final) < 30


def test_frames_by_the_decoder_and_no_larger_than_asked(steps: Trajectory, pipe: Pipeline) -> None:
    whole = frames(steps, decode=pipe.decode)
    assert same(whole[2], pipe.decode(steps.latents(3))[0])
    assert {frame.size for frame in frames(steps, largest=48)} == {(48, 32)}


def test_a_sheet_has_every_step_in_its_place(steps: Trajectory) -> None:
    sheet = contact_sheet(steps, columns=2, largest=96)
    assert sheet.size == (2 * 102 + 6, 3 * 88 + 6)
    for i, (left, upper) in enumerate([(6, 6), (108, 6), (6, 94), (108, 94), (6, 182)]):
        assert same(sheet.crop((left, upper, left + 96, upper + 64)), steps.preview(i + 1))
        label = np.asarray(sheet.crop((left, upper + 64, left + 96, upper + 82)))
        assert label.min() < 100
    assert contact_sheet(steps, largest=16).size[0] < 120
