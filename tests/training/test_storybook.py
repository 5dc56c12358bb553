"""The storybook: images that can be drawn and asked for, and latents that are drawn with them."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from core.models.config import VAEConfig
from core.models.vae import AutoencoderKL
from core.scenes.backdrops import PLACES
from core.scenes.nouns import TINTS, drawing, nouns
from core.scenes.painter import Painter
from core.scenes.pool import to_tensor
from core.scenes.scene import COLORS
from core.scenes.storybook_captions import EXAMPLES, caption
from core.scenes.storybook_scene import CELLS, Item, StorybookSpec, colors_of, held_out, kinds, sample
from core.training.sets.storybook import DrawnLatents, DrawnPictures, Storybook
from core.training.stages.principal import set_principal_encoder

IMAGES = 3000


@pytest.fixture(scope="module")
def specs() -> list[StorybookSpec]:
    rng = random.Random(5)
    return [sample(rng) for _ in range(IMAGES)]


@pytest.fixture(scope="module")
def painter() -> Painter:
    return Painter(16)


def test_there_is_enough_to_paint() -> None:
    assert len(kinds()) >= 160
    assert len(PLACES) >= 8
    names = [name for noun in nouns().values() for name in (noun.name, *noun.also)]
    assert len(set(names)) == len(names)


def test_every_noun_has_a_drawing_of_its_own(painter: Painter) -> None:
    drawn = {
        painter.image(StorybookSpec("white", items=(Item(kind, None, 4, 2, 2),))).tobytes()
        for kind in kinds()
    }
    assert len(drawn) == len(kinds())


def test_a_colour_replaces_the_main_one_alone() -> None:
    for noun in nouns().values():
        tinted = {drawing(noun, color) for color in TINTS}
        assert len(tinted) == (len(TINTS) if noun.tint else 1)
        assert colors_of(noun.name) == (tuple(TINTS) if noun.tint else ())


def test_things_stand_on_the_cells_and_inside(specs: list[StorybookSpec]) -> None:
    for spec in specs:
        for item in spec.items:
            assert 0 <= item.column <= CELLS - item.size
            assert 0 <= item.row <= CELLS - item.size


def test_sides_are_those_that_the_caption_says(specs: list[StorybookSpec]) -> None:
    for spec in specs:
        if spec.relation == "above":
            assert spec.items[0].row + spec.items[0].size <= spec.items[1].row + 1
        if spec.relation == "left of":
            columns = [item.column for item in spec.items]
            assert columns == sorted(columns)
            assert len(set(columns)) == len(columns)


def test_what_is_held_out_is_never_seen(specs: list[StorybookSpec]) -> None:
    assert not any(held_out(item.kind, spec.ground) for spec in specs if spec.is_scene for item in spec.items)
    rng = random.Random(1)
    asked = [sample(rng, "held_out") for _ in range(100)]
    assert all(held_out(spec.items[0].kind, spec.ground) for spec in asked)
    share = np.mean([held_out(kind, place) for kind in kinds() for place in PLACES])
    assert 0.05 < share < 0.12


def test_every_kind_of_page_is_there(specs: list[StorybookSpec]) -> None:
    assert {spec.ground for spec in specs} == {*PLACES, *COLORS}
    assert {spec.relation for spec in specs} == {"none", "left of", "above", "many"}
    assert {item.kind for spec in specs for item in spec.items} >= set(kinds())


def test_captions_are_one_line_of_plain_words(specs: list[StorybookSpec]) -> None:
    rng = random.Random(2)
    for spec in specs:
        text = caption(spec, rng)
        assert text == text.strip().lower()
        assert "  " not in text
        assert "{" not in text
        assert not any(f" a {vowel}" in f" {text}" for vowel in "aeio")
        assert " an u" not in f" {text.replace('an umbrella', '').replace('an under', '')}"


def test_a_caption_names_what_is_there(specs: list[StorybookSpec]) -> None:
    rng = random.Random(3)
    for spec in specs:
        text = caption(spec, rng)
        for item in spec.items:
            if item.kind in nouns():
                noun = nouns()[item.kind]
                assert any(word in text for word in (noun.name, noun.many, *noun.also))
            if item.color in ("red", "blue", "green"):
                assert item.color in text


def test_the_examples_say_only_what_captions_say() -> None:
    words = Storybook(0, "seen", 1).words()
    for text in EXAMPLES:
        assert {word.strip(",") for word in text.split()} <= words


def test_a_page_is_the_same_each_time_and_no_other() -> None:
    one, other = Storybook(1, "seen", 100), Storybook(2, "seen", 100)
    assert np.array_equal(one.picture(3), one.picture(3))
    assert one.caption(3, "a") == one.caption(3, "a")
    assert [one.spec(i) for i in range(5)] != [other.spec(i) for i in range(5)]


@pytest.mark.parametrize("cell", [16, 8])
def test_a_smaller_size_is_the_mean_of_pixels(cell: int, specs: list[StorybookSpec]) -> None:
    whole, small, side = Painter(32), Painter(cell), 8 * cell
    for spec in specs[:20]:
        mean = whole.paint(spec).reshape(side, 32 // cell, side, 32 // cell, 3).mean((1, 3))
        assert np.abs(mean - small.paint(spec)).mean() < 2e-3


@pytest.mark.parametrize(
    ("widths", "channels", "averaged"),
    [((16, 32, 64, 96, 112), 16, 1), ((16, 32, 48, 64, 96, 112), 48, 1), ((16, 32, 48, 80, 128, 160), 32, 2)],
)
def test_drawn_latents_are_the_encoders(widths: tuple[int, ...], channels: int, averaged: int) -> None:
    config = VAEConfig(
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=8,
        scaling_factor=0.5,
    )
    images = Storybook(4, "seen", 1000)
    torch.manual_seed(0)
    vae = AutoencoderKL(config)
    drawn = DrawnPictures(images)
    set_principal_encoder(vae, to_tensor(drawn[:24]), 0.05, averaged=averaged, whiten=0.5)
    latents = DrawnLatents(images, vae, averaged)
    side = 256 // config.reduction
    assert latents.shape == (1000, channels, side, side)
    with torch.no_grad():
        expected = vae.encode(to_tensor(drawn[:6]))
    found = torch.from_numpy(latents[np.arange(6)])
    assert float((found - expected).square().mean().sqrt()) < 0.01 * float(expected.std())


def test_what_is_offered_is_known_and_what_it_stands_for_is_not() -> None:
    images = Storybook(0, "seen", 1)
    words = images.words()
    for word, offered in images.nearest().items():
        assert word not in words
        assert {part for text in offered for part in text.split()} <= words
