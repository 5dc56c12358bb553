"""The judge of the storybook: what it counts, on images that are drawn and read without a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from core.scenes.painter import Painter
from core.scenes.storybook_scene import Item, StorybookSpec
from tools.storybook.measure import Figures, background, drawn_share, foreground, judge, steepness, table
from tools.storybook.prompts import GROUPS, Prompt, prompts
from tools.storybook.reader import NOTHING, THINGS, Network, Reading, read, targets

FOX_AND_BUS = StorybookSpec(
    "snow", "night", items=(Item("fox", None, 3, 0, 4), Item("bus", None, 3, 5, 4)), relation="left of"
)


def image(spec: StorybookSpec) -> Image.Image:
    return Image.fromarray(Painter().image(spec))


def perfect(spec: StorybookSpec) -> Reading:
    """What a reader without faults says."""
    cells, at = np.zeros(len(THINGS)), np.zeros((len(THINGS), 2))
    for item in spec.items:
        place = THINGS.index(item.kind)
        cells[place] += item.size**2
        at[place] = item.column + item.size / 2, item.row + item.size / 2
    return Reading(cells, at, spec.ground, spec.hour or "day")


@pytest.mark.parametrize("group", GROUPS)
def test_drawn_pages_are_right_in_every_row(group: str) -> None:
    figures = Figures()
    for prompt in prompts(group, 24):
        judge(figures, group, prompt, image(prompt.spec), perfect(prompt.spec))
    assert figures.marks
    for row, marks in figures.marks.items():
        assert np.mean(marks) > 0.9, row


def test_sides_that_are_exchanged_are_wrong() -> None:
    figures, prompt = Figures(), Prompt("a fox to the left of a bus", FOX_AND_BUS, False, False, True)
    turned = StorybookSpec("snow", "night", items=(Item("bus", None, 3, 0, 4), Item("fox", None, 3, 5, 4)))
    judge(figures, "two", prompt, image(turned), perfect(turned))
    assert figures.percent() == {"two: both": 100.0, "two: sides": 0.0}


def test_another_thing_is_wrong() -> None:
    figures = Figures()
    asked = Prompt("a fox", StorybookSpec("red", items=(Item("fox", None, 6, 1, 1),)), False, False, False)
    judge(
        figures,
        "one",
        asked,
        image(asked.spec),
        perfect(StorybookSpec("red", items=(Item("wolf", None, 6, 1, 1),))),
    )
    assert figures.percent() == {"one: noun": 0.0}


def test_colours_are_read_from_pixels() -> None:
    drawn = image(StorybookSpec("cyan", items=(Item("ring", "purple", 4, 2, 2),)))
    assert background(drawn) == "cyan"
    assert foreground(drawn) == "purple"
    assert foreground(image(StorybookSpec("cyan"))) == "cyan"


def test_blurred_pictures_are_less_steep() -> None:
    drawn = image(FOX_AND_BUS)
    assert steepness(drawn.filter(ImageFilter.GaussianBlur(3))) < 0.7 * steepness(drawn)


def test_the_reader_has_a_place_for_everything() -> None:
    torch.manual_seed(0)
    reading = read(Network().eval(), [image(FOX_AND_BUS)])[0]
    assert reading.cells.shape == (len(THINGS),)
    assert reading.at.shape == (len(THINGS), 2)
    cells = targets(FOX_AND_BUS)
    assert (cells == THINGS.index("fox")).sum() == (cells == THINGS.index("bus")).sum() == 9
    assert (cells == NOTHING).sum() == 64 - 18


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_reader_is_right_on_drawn_images() -> None:
    """It is trained first, which takes about seven minutes of one core with bfloat16."""
    found = drawn_share(256)
    assert found["one: noun"] >= 98
    assert found["two: both"] >= 95
    assert all(share >= 95 for row, share in found.items()), found


def test_the_table_has_a_column_for_each_measurement() -> None:
    assert table({"drawn": {"a": 1.0}, "painted": {"a": 2.0, "b": 3.0}}).splitlines()[2:] == [
        "| a | 1.0 | 2.0 |",
        "| b |  | 3.0 |",
    ]
