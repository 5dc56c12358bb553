"""Pictures and masks at the size of a run, and pasted back: to the bit where nothing is to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageDraw

from core.errors import UserError
from core.images.source_images import Inputs, check_inputs, prepare
from core.request.model_defaults import Defaults
from core.request.request import Request
from core.request.settings import Settings
from tests.core.pictures import box_mask, noise, same
from tests.core.recipes import patient
from tests.core.test_request import REGISTRY

DEFAULTS = Defaults(sampler="ddim", schedule="leading", steps=20, cfg_scale=5.0, width=128, height=96)
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def resolved(inputs: Inputs, **fields: Any) -> Settings:
    return Request(**fields).resolve(DEFAULTS, REGISTRY, inputs.given)


# What belongs together.


def test_the_hash_is_of_the_pixels_not_of_the_file(tmp_path: Path) -> None:
    picture = noise((16, 16))
    hashes = set()
    for name in ("a.png", "b.bmp", "c.tiff"):
        picture.save(tmp_path / name)
        inputs = Inputs.read(tmp_path / name)
        assert inputs is not None
        hashes.add(inputs.given.image_sha256)
    assert len(hashes) == 1
    assert Inputs(noise((16, 16), 1)).given.image_sha256 not in hashes
    assert Inputs(picture.transpose(Image.Transpose.ROTATE_90)).given.image_sha256 not in hashes


def test_a_mask_of_another_size_is_resized_and_of_another_shape_refused() -> None:
    inputs = Inputs.read(noise((64, 64)), box_mask((32, 32), (0, 0, 16, 32)))
    assert inputs is not None
    prepared = prepare(inputs, resolved(inputs, mask_blur=0))
    assert prepared.mask is not None
    levels = np.asarray(prepared.mask)
    assert levels[:, :28].min() == 255
    assert levels[:, 36:].max() == 0
    with pytest.raises(UserError, match="the mask is 48x64 and the image 64x48"):
        Inputs.read(noise((64, 48)), Image.new("L", (48, 64)))
    with pytest.raises(UserError, match="a mask has no effect without an init image"):
        Inputs.read(None, Image.new("L", (48, 64)))
    assert Inputs.read(None) is None


PICTURE = Inputs(noise((64, 64)))
MASKED = Inputs(noise((64, 64)), box_mask((64, 64), (8, 8, 16, 16)))
EMPTY = Inputs(noise((64, 64)), Image.new("L", (64, 64)))
FULL = Inputs(noise((64, 64)), Image.new("L", (64, 64), 255))


@pytest.mark.parametrize(
    ("fields", "inputs", "words"),
    [
        ({"strength": 0.5}, None, r"^strength 0.5: has no effect without an init image"),
        ({"outpaint": (8, 0, 0, 0)}, None, r"^outpaint \(8, 0, 0, 0\): has no effect without an init image"),
        ({"image_sha256": "ab" * 32}, None, r"^the recipe needs an init image .*abababababab.* --image$"),
        ({"mask_sha256": "ab" * 32}, PICTURE, r"^the recipe needs a mask .*abababababab.* --mask$"),
        ({"mask_blur": 0}, PICTURE, r"^mask blur 0: has no effect without a mask"),
        ({"only_masked": 0}, PICTURE, r"^only masked 0: has no effect without a mask"),
        ({"keep_unmasked": True}, PICTURE, r"^keep unmasked True: has no effect without a mask"),
        ({"invert_mask": True, "outpaint": (8, 0, 0, 0)}, PICTURE, r"^invert mask True: has no effect"),
        ({}, EMPTY, r"^the mask is all black"),
        ({"invert_mask": True}, FULL, r"^the mask is all black"),
    ],
)
def test_what_does_not_fit_together_is_one_sentence(
    fields: dict[str, Any], inputs: Inputs | None, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        check_inputs(Request(**fields), inputs)


@pytest.mark.parametrize(
    ("fields", "inputs"),
    [
        ({}, None),
        ({"strength": 0.5, "image_sha256": "ab" * 32}, PICTURE),
        ({"mask_blur": 0, "outpaint": (8, 0, 0, 0)}, PICTURE),
        ({"only_masked": 0, "invert_mask": True}, MASKED),
        ({"outpaint": (8, 0, 0, 0)}, EMPTY),
        ({"invert_mask": True}, EMPTY),
    ],
)
def test_what_fits_together_is_taken(fields: dict[str, Any], inputs: Inputs | None) -> None:
    check_inputs(Request(**fields), inputs)


# Sizes.


@pytest.mark.parametrize(
    ("size", "fields", "expected"),
    [
        ((128, 96), {}, (128, 96)),
        ((101, 77), {}, (104, 80)),
        ((20, 300), {}, (64, 304)),  # no narrower than 64
        ((4000, 3000), {}, (192, 144)),  # one and a half times what the model likes, a side
        ((128, 96), {"outpaint": (64, 0, 8, 8)}, (192, 112)),
        ((1000, 750), {"only_masked": 4}, (128, 96)),
        ((1000, 750), {"width": 256}, (256, 144)),
        ((1000, 750), {"width": 512, "height": 64}, (512, 64)),
    ],
)
def test_the_size_is_the_pictures_own_unless_asked(
    size: tuple[int, int], fields: dict[str, Any], expected: tuple[int, int]
) -> None:
    inputs = Inputs(Image.new("RGB", size), Image.new("L", size, 255))
    chosen = resolved(inputs, **fields)
    assert (chosen.width, chosen.height) == expected
    prepared = prepare(inputs, chosen)
    assert prepared.image.size == expected
    assert prepared.mask is not None
    assert prepared.mask.size == expected


HALVES = Image.new("RGB", (128, 64), RED)
HALVES.paste(BLUE, (64, 0, 128, 64))


@pytest.mark.parametrize(
    ("resize", "middle", "corner"), [("stretch", 32, (0, 0)), ("crop", 32, (0, 0)), ("pad", 32, (0, 0))]
)
def test_every_way_to_resize_fills_the_size(resize: str, middle: int, corner: tuple[int, int]) -> None:
    inputs = Inputs(HALVES)
    picture = prepare(inputs, resolved(inputs, width=64, height=64, resize=resize)).image
    assert picture.size == (64, 64)
    assert picture.getpixel(corner) == RED
    assert picture.getpixel((63, 63)) == BLUE
    levels = np.asarray(picture).astype(int)
    assert (levels.sum(axis=2) == 255).mean() > 0.8  # red or blue, no bars


def test_crop_keeps_the_middle_and_pad_keeps_all() -> None:
    picture = Image.new("RGB", (192, 64), GREEN)
    picture.paste(RED, (64, 0, 128, 64))
    inputs = Inputs(picture)
    crop, pad = (
        prepare(inputs, resolved(inputs, width=64, height=64, resize=mode)).image for mode in ("crop", "pad")
    )
    assert same(crop, Image.new("RGB", (64, 64), RED))
    assert pad.getpixel((0, 32)) == pad.getpixel((0, 0)) == GREEN
    assert pad.getpixel((32, 0)) == RED


# Masks.


def test_a_blurred_mask_is_soft_and_black_far_from_what_is_masked() -> None:
    inputs = Inputs(noise((128, 96)), box_mask((128, 96), (48, 32, 80, 64)))
    prepared = prepare(inputs, resolved(inputs, mask_blur=4))
    assert prepared.mask is not None
    levels = np.asarray(prepared.mask)
    assert levels[48, 64] == 255
    assert 100 < levels[48, 48] < 155  # the edge is about half
    assert levels[48, 44] > 0
    assert levels[:, :28].max() == levels[:12].max() == 0
    sharp = prepare(inputs, resolved(inputs, mask_blur=0)).mask
    assert sharp is not None
    assert same(sharp, box_mask((128, 96), (48, 32, 80, 64)))
    inverted = prepare(inputs, resolved(inputs, mask_blur=0, invert_mask=True)).mask
    assert inverted is not None
    assert same(inverted, ImageChops.invert(sharp))


def test_what_is_painted_around_is_new_to_the_seam_and_beyond_it() -> None:
    inputs = Inputs(noise((96, 96)))
    prepared = prepare(inputs, resolved(inputs, outpaint=(32, 0, 0, 16), mask_blur=4))
    assert prepared.image.size == (128, 112)
    assert same(prepared.image.crop((32, 0, 128, 96)), inputs.image)
    assert prepared.mask is not None
    levels = np.asarray(prepared.mask)
    assert levels[:, :32].min() == levels[96:].min() == 255
    assert levels[20, 34] > 200
    assert levels[:60, 64:].max() == 0


boxes = st.tuples(*[st.integers(0, 95)] * 4).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]) + 1, max(b[1], b[3]) + 1)
)


@settings(patient, max_examples=60)
@given(
    st.lists(boxes, min_size=1, max_size=3),
    st.integers(0, 12),
    st.sampled_from([None, 0, 8, 100]),
    st.sampled_from([(0, 0, 0, 0), (24, 0, 8, 0), (0, 16, 0, 40)]),
)
def test_what_is_masked_out_comes_back_to_the_bit(
    areas: list[tuple[int, int, int, int]],
    blur: int,
    only_masked: int | None,
    outpaint: tuple[int, int, int, int],
) -> None:
    mask = Image.new("L", (96, 96))
    for area in areas:
        ImageDraw.Draw(mask).ellipse(area, fill=255)
    if mask.getbbox() is None:
        return
    inputs = Inputs(noise((96, 96)), mask)
    asked: dict[str, Any] = {"mask_blur": blur, "only_masked": only_masked, "outpaint": outpaint}
    chosen = resolved(inputs, **asked, keep_unmasked=True)
    made = Image.new("RGB", (chosen.width, chosen.height), GREEN)
    result = prepare(inputs, chosen).finish(made)
    left, right, up, down = outpaint
    assert result.size == (96 + left + right, 96 + up + down)
    inner = np.asarray(result)[up : up + 96, left : left + 96]
    kept = np.asarray(mask) == 0
    assert np.array_equal(inner[kept], np.asarray(inputs.image)[kept])
    changed = np.asarray(result) != np.asarray(prepare(inputs, chosen).canvas)
    assert changed.any()


def test_without_keeping_the_result_is_what_the_model_made() -> None:
    made = Image.new("RGB", (64, 64), GREEN)
    assert same(prepare(MASKED, resolved(MASKED)).finish(made), made)


def test_the_feather_rises_inside_the_mask_alone() -> None:
    inputs = Inputs(Image.new("RGB", (96, 96)), box_mask((96, 96), (16, 16, 80, 80)))
    prepared = prepare(inputs, resolved(inputs, mask_blur=4, keep_unmasked=True))
    row = np.asarray(prepared.finish(Image.new("RGB", (96, 96), (255, 255, 255))))[48, :, 0].astype(int)
    assert row[15] == row[80] == 0
    assert row[24] == row[48] == 255
    assert 0 < row[16] < row[18] < row[22] < 255


def test_only_masked_cuts_the_mask_out_at_the_ratio_of_the_size() -> None:
    inputs = Inputs(noise((400, 300)), box_mask((400, 300), (190, 100, 210, 140)))
    prepared = prepare(inputs, resolved(inputs, only_masked=12, mask_blur=0))
    assert prepared.box is not None
    left, upper, right, lower = prepared.box
    assert left <= 190 - 12
    assert upper == 100 - 12
    assert right >= 210 + 12
    assert lower == 140 + 12
    assert (right - left) / (lower - upper) == pytest.approx(128 / 96, abs=0.02)
    assert prepared.image.size == (128, 96)
    result = np.asarray(prepared.finish(Image.new("RGB", (128, 96), GREEN)))
    assert result.shape == (300, 400, 3)
    assert (result[100:140, 190:210] == GREEN).all()
    outside = np.asarray(inputs.mask) == 0
    assert np.array_equal(result[outside], np.asarray(inputs.image)[outside])


@pytest.mark.parametrize(
    "box", [(0, 0, 2, 2), (398, 298, 400, 300), (0, 0, 400, 300), (0, 140, 400, 150), (199, 0, 201, 300)]
)
def test_what_is_cut_out_stays_inside_the_picture(box: tuple[int, int, int, int]) -> None:
    inputs = Inputs(noise((400, 300)), box_mask((400, 300), box))
    prepared = prepare(inputs, resolved(inputs, only_masked=20))
    assert prepared.box is not None
    left, upper, right, lower = prepared.box
    assert 0 <= left <= box[0] < box[2] <= right <= 400
    assert 0 <= upper <= box[1] < box[3] <= lower <= 300
    assert prepared.finish(Image.new("RGB", (128, 96))).size == (400, 300)
