"""The settings of a request with an init image or mask: checks, text forms and defaults.

Like core/request/request.py, which uses it, this module never imports torch, and sees only the size and hash
of images.
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
STRENGTH = 0.75  # the default; 1 with outpainting, whose borders have no content to keep
BLUR = 4
# An image is made smaller if its sides are more than this times the model's default.
LARGEST = 1.5
_PICTURE = (
    *("strength", "resize", "outpaint", "mask_blur", "masked_content", "only_masked"),
    *("keep_unmasked", "invert_mask"),
)
_MASK = ("mask_blur", "masked_content", "only_masked", "keep_unmasked")


@dataclass(frozen=True)
class InputInfo:
    """The images that come with a request: the init image's size, and hashes of the pixels."""

    width: int
    height: int
    image_sha256: str
    mask_sha256: str | None = None


def check_image_settings(record: RequestFields) -> None:
    """Refuse bad values, and sizes and step counts that leave nothing to run. Raises UserError."""
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
    """Refuse a request without its images, and settings without an effect. Raises UserError."""
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
    """The fields of Settings about size and images when there is an init image, with defaults filled in."""
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
    """The default size of a run.

    The init image's own, made smaller if it is too large for the model, plus the outpainting; or the model's
    default with `only_masked`.
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
    """The nearest side that the model supports."""
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
    """The requested size must have room for the image inside the outpainting."""
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
