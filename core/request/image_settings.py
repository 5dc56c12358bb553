"""The settings of a request that starts from a picture: their checks, their text forms, and what fills gaps.

Like core/request/request.py, which uses it, this module never imports torch, and knows of images only their
size and hash.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.checks import (
    MAX_SIDE,
    MIN_SIDE,
    SIDE_MULTIPLE,
    check_flag,
    check_number,
    check_one_of,
    check_sha256,
    check_whole,
    hint,
    shown,
)
from core.errors import UserError
from core.request.fields import NO_OUTPAINT, RequestFields
from core.request.model_defaults import Defaults

if TYPE_CHECKING:
    from core.request.model_defaults import Defaults

RESIZES = ("stretch", "crop", "pad")
CONTENTS = ("original", "fill", "noise", "nothing")
SIDES = ("left", "right", "up", "down")
MAX_OUTPAINT = 1024
MAX_BLUR = 64
MAX_PADDING = 1024
STRENGTH = 0.75  # where none is asked for; 1 with outpainting, whose borders hold nothing to keep
BLUR = 4
# An image that is larger than what the model likes, by more than this a side, is made smaller.
LARGEST = 1.5
_PICTURE = (
    *("strength", "resize", "outpaint", "mask_blur", "masked_content", "only_masked"),
    *("keep_unmasked", "invert_mask"),
)
_MASK = ("mask_blur", "masked_content", "only_masked", "keep_unmasked")


@dataclass(frozen=True)
class InputInfo:
    """The images given beside a request: size of the one to start from, and hashes of their pixels."""

    width: int
    height: int
    image_sha256: str
    mask_sha256: str | None = None


def check_image_settings(record: RequestFields) -> None:
    """Refuse bad values, and sizes and step counts that leave nothing to do. Raises UserError."""
    if record.strength is not None:
        _check_strength(record)
    if record.resize is not None:
        check_one_of("resize", record.resize, RESIZES)
    object.__setattr__(record, "outpaint", _checked_outpaint(record.outpaint))
    if record.mask_blur is not None:
        check_whole("mask blur", record.mask_blur, 0, MAX_BLUR)
    if record.masked_content is not None:
        check_one_of("masked content", record.masked_content, CONTENTS)
    if record.only_masked is not None:
        check_whole("only masked", record.only_masked, 0, MAX_PADDING)
    check_flag("keep unmasked", record.keep_unmasked)
    check_flag("invert mask", record.invert_mask)
    for name in ("image_sha256", "mask_sha256"):
        if getattr(record, name) is not None:
            check_sha256(name.replace("_", " "), getattr(record, name))
    if record.only_masked is None:
        _check_room(record)


def check_given(request: RequestFields, given: InputInfo | None) -> None:
    """Refuse a request whose images are not there, and settings that have nothing to work on."""
    if given is None:
        if request.image_sha256 is not None:
            raise UserError(_missing("the recipe needs an init image", request.image_sha256, "--image"))
        _refuse(request, _PICTURE, "an init image (--image)")
        return
    if given.mask_sha256 is None:
        if request.mask_sha256 is not None:
            raise UserError(_missing("the recipe needs a mask", request.mask_sha256, "--mask"))
        _refuse(request, ("invert_mask",), "a mask (--mask)")
        if not any(request.outpaint):
            _refuse(request, _MASK, "a mask (--mask) or outpainting (--outpaint)")


def picture_values(request: RequestFields, defaults: Defaults, given: InputInfo) -> dict[str, Any]:
    """What Settings say about size and images when there is one: everything filled in that has a use."""
    grows = any(request.outpaint)
    width, height = _size(request, defaults, given)
    values: dict[str, Any] = {
        "width": width if request.width is None else request.width,
        "height": height if request.height is None else request.height,
        "strength": request.strength or (1.0 if grows else STRENGTH),
        "resize": request.resize or "crop",
        "outpaint": request.outpaint,
        "image_sha256": given.image_sha256,
    }
    if grows or given.mask_sha256 is not None:
        values |= {
            "mask_blur": BLUR if request.mask_blur is None else request.mask_blur,
            "masked_content": request.masked_content or ("fill" if grows else "original"),
            "only_masked": request.only_masked,
            "keep_unmasked": request.keep_unmasked,
            "invert_mask": request.invert_mask,
            "mask_sha256": given.mask_sha256,
        }
    return values


def parse_outpaint(text: str) -> tuple[int, int, int, int]:
    """Pixels (left, right, up, down) from "left=64,down=32". Raises UserError."""
    sides = dict.fromkeys(SIDES, 0)
    for part in text.split(","):
        name, equals, pixels = (piece.strip() for piece in part.partition("="))
        if not equals or not pixels.isascii() or not pixels.isdigit() or len(pixels) > 9:
            raise UserError(f"outpaint {shown(text)}: write it as SIDE=PIXELS, for example left=64,right=64")
        if name not in sides:
            raise UserError(f"outpaint: side {shown(name)} is not known{hint(name, sides)}")
        if sides[name]:
            raise UserError(f"outpaint: {name} is given twice; give it once")
        sides[name] = int(pixels)
    return _checked_outpaint(tuple(sides.values()))


def _size(request: RequestFields, defaults: Defaults, given: InputInfo) -> tuple[int, int]:
    """The size to run at when none is asked for.

    The image's own, made smaller where the model could not cope with it, plus what is painted around it;
    or the model's, for a part that is cut out around the mask.
    """
    if request.only_masked is not None:
        return defaults.width, defaults.height
    left, right, up, down = request.outpaint
    scale = min(
        1.0,
        LARGEST * math.sqrt(defaults.width * defaults.height / (given.width * given.height)),
        (MAX_SIDE - left - right) / given.width,
        (MAX_SIDE - up - down) / given.height,
    )
    wide, high = given.width * scale + left + right, given.height * scale + up + down
    return _side(wide, defaults), _side(high, defaults)


def _side(pixels: float, defaults: Defaults) -> int:
    """The nearest side that the model can make."""
    multiple = defaults.multiple
    largest, least = MAX_SIDE // multiple * multiple, -(-defaults.smallest // multiple) * multiple
    return min(max(multiple * round(pixels / multiple), least), largest)


def _check_strength(record: RequestFields) -> None:
    strength = check_number("strength", record.strength, 0.0, 1.0)
    if strength == 0:
        raise UserError("strength 0: would change nothing; must be above 0 and at most 1")
    if record.steps is not None and int(record.steps * strength) < 1:
        least = math.ceil(1000 / record.steps) / 1000
        raise UserError(f"strength {strength:g}: runs none of {record.steps} steps; raise it to {least:g}")
    object.__setattr__(record, "strength", strength)


def _checked_outpaint(sides: object) -> tuple[int, int, int, int]:
    if not isinstance(sides, Sequence) or isinstance(sides, str) or len(sides) != len(SIDES):
        raise UserError(f"outpaint {shown(sides)}: must be four numbers of pixels: {', '.join(SIDES)}")
    for name, pixels in zip(SIDES, sides, strict=True):
        check_whole(f"outpaint {name}", pixels, 0, MAX_OUTPAINT)
    left, right, up, down = sides
    for names, pixels in (("left and right", left + right), ("up and down", up + down)):
        if pixels > MAX_SIDE - MIN_SIDE:
            raise UserError(f"outpaint {names} {pixels}: must be at most {MAX_SIDE - MIN_SIDE} in total")
    return left, right, up, down


def _check_room(record: RequestFields) -> None:
    """The asked size must have room for the image inside what is painted around it."""
    left, right, up, down = record.outpaint
    for name, side, around in (("width", record.width, left + right), ("height", record.height, up + down)):
        if side is not None and around and side - around < SIDE_MULTIPLE:
            raise UserError(
                f"{name} {side}: outpainting takes {around} of it and leaves no room for the image; raise it"
            )


def _missing(what: str, sha256: str, option: str) -> str:
    return f"{what} (SHA-256 of its pixels {sha256[:12]}...); give it with {option}"


def _refuse(request: RequestFields, names: Sequence[str], need: str) -> None:
    for name in names:
        value = getattr(request, name)
        if value is not None and value is not False and value != NO_OUTPAINT:
            spoken = name.replace("_", " ")
            raise UserError(f"{spoken} {shown(value)}: has no effect without {need}; give one")
