"""The sheet of a comparison: every picture in its place, labels inside, sizes that other programs open."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from core.compare import grid_image
from core.compare.grid import AxisRequest, Cell, GridPlan, Surroundings, plan_grid
from core.compare.grid_image import GRID_CHUNK, draw_sheet, sheet_png
from core.plugins import discovery
from core.recipes.infotext import parse_infotext
from core.sampling.registry import Registry
from tests.core.test_grid import BASE, DEFAULTS


@pytest.fixture(scope="module")
def registry() -> Registry:
    return discovery.load_plugins(enabled=False)


Make = Callable[..., GridPlan]


@pytest.fixture
def make(registry: Registry) -> Make:
    return lambda *asked: plan_grid(
        BASE, [AxisRequest(*one) for one in asked], Surroundings(registry, DEFAULTS, ("tiny",), "tiny")
    )


def colour(cell: Cell) -> tuple[int, int, int]:
    x, y, z = cell.at
    return 40 + x * 30, 40 + y * 30, 40 + z * 60


def painted(cell: Cell) -> Image.Image:
    return Image.new("RGB", (cell.settings.width, cell.settings.height), colour(cell))


def count(image: Image.Image, wanted: tuple[int, int, int]) -> int:
    return int((np.asarray(image) == wanted).all(axis=2).sum())


def test_every_picture_is_there_whole_once(make: Make) -> None:
    plan = make(("steps", "1-5"), ("cfg_scale", "1, 2, 3"), ("seed", "1, 2"))
    drawn = draw_sheet(plan, painted, "a caption")
    assert drawn.scale == 1
    for cell in plan.cells:
        assert count(drawn.image, colour(cell)) == 128 * 128
    assert str(drawn.image.width) in drawn.words()


def test_columns_and_rows_stand_as_the_axes_say(make: Make) -> None:
    plan = make(("steps", "1-3"), ("cfg_scale", "1, 2"))
    pixels = np.asarray(draw_sheet(plan, painted).image)
    where = {}
    for cell in plan.cells:
        ys, xs = np.nonzero((pixels == colour(cell)).all(axis=2))
        where[cell.at] = (int(xs.min()), int(ys.min()))
    assert where[0, 0, 0][1] == where[2, 0, 0][1] < where[0, 1, 0][1]
    assert where[0, 0, 0][0] == where[0, 1, 0][0] < where[1, 0, 0][0] < where[2, 0, 0][0]


def test_labels_without_end_are_cut(make: Make) -> None:
    long = ", ".join(f'"{i} {"words " * 3000}"' for i in range(40))
    plan = make(("seed", "1"), ("prompt", f"red, {long}"))
    began = time.process_time()
    drawn = draw_sheet(plan, painted)
    assert time.process_time() - began < 5
    assert drawn.image.height < 41 * 600


def test_a_single_axis_wraps(make: Make) -> None:
    drawn = draw_sheet(make(("seed", "1-13")), painted)
    assert drawn.image.width < 7 * (128 + 20)
    assert drawn.image.height > 3 * 128


def test_labels_are_inside_and_long_ones_wrap(make: Make) -> None:
    long = "an extraordinarily long replacement, unbreakable" + "x" * 90
    plan = make(("prompt", f'red, "{long}"'), ("cfg_scale", "1"))
    short = make(("prompt", "red, blue"), ("cfg_scale", "1"))
    image, other = draw_sheet(plan, painted).image, draw_sheet(short, painted).image
    assert image.width == other.width
    assert image.height > other.height
    edges = np.concatenate([np.asarray(image)[:, :8].ravel(), np.asarray(image)[:, -8:].ravel()])
    assert (edges == 255).all()


def test_what_was_not_made_is_said(make: Make) -> None:
    plan = make(("seed", "1, 2"))
    drawn = draw_sheet(plan, lambda cell: painted(cell) if cell.at == (0, 0, 0) else None)
    assert count(drawn.image, colour(plan.cells[0])) == 128 * 128
    assert count(drawn.image, colour(plan.cells[1])) == 0


def test_a_huge_sheet_is_drawn_smaller_and_says_so(make: Make) -> None:
    plan = make(("seed", "1-20"), ("cfg_scale", "1-10"))
    drawn = draw_sheet(plan, painted, most=1_000_000)
    assert drawn.image.width * drawn.image.height <= 1_000_000
    assert drawn.scale < 0.6
    assert "of their size" in drawn.words()
    wide = make(("seed", "1-150"), ("cfg_scale", "1"))
    assert max(draw_sheet(wide, painted).image.size) <= grid_image.MOST_SIDE


def test_a_sheet_can_be_opened_with_pillows_guard_on(make: Make) -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    assert grid_image.MOST_PIXELS < Image.MAX_IMAGE_PIXELS
    plan = make(("steps", "10, 20"), ("prompt", 'red, "blue, dark"'))
    data = sheet_png(draw_sheet(plan, painted), plan, {(0, 0, 0): "000001.png"}, "a cat\nSteps: 10, Seed: 7")
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        texts = dict(image.text)  # pyrefly: ignore[missing-attribute]
    read = parse_infotext(texts["parameters"])
    assert read.prompt == "a cat"
    assert read.params["Script"] == "X/Y/Z plot"
    assert (read.params["X Type"], read.params["X Values"]) == ("Steps", "10, 20")
    assert (read.params["Y Type"], read.params["Y Values"]) == ("Prompt S/R", 'red, "blue, dark"')
    said = json.loads(texts[GRID_CHUNK])
    assert said["cells"][0]["picture"] == "000001.png"
    assert said["cells"][1]["picture"] is None
