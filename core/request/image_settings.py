"""The settings of a request with an init image or mask: checks, text forms and defaults.

Like core/request/request.py, which uses it, this module never imports torch, and sees only the size and hash
of images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.checks import MAX_SIDE, SIDE_MULTIPLE, hint, shown, spoken
from core.errors import UserError
from core.request.fields import NO_OUTPAINT, SIDES, RequestFields, check_outpaint
from core.request.model_defaults import Defaults

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


def check_room(record: RequestFields) -> None:
    """Refuse a strength that runs no step, and sides without room for the image inside the outpainting."""
    if record.strength is not None and record.steps is not None and int(record.steps * record.strength) < 1:
        least = math.ceil(1000 / record.steps) / 1000
        raise UserError(
            f"strength {record.strength:g}: runs none of {record.steps} steps; raise it to {least:g}"
        )
    left, right, up, down = NO_OUTPAINT if record.only_masked is not None else record.outpaint
    for name, side, around in (("width", record.width, left + right), ("height", record.height, up + down)):
        if side is not None and around and side - around < SIDE_MULTIPLE:
            raise UserError(
                f"{name} {side}: outpainting takes {around} of it and leaves no room for the image; raise it"
            )


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
    """The fields that the init image and mask set, or that have a default only with them, by name."""
    grows = any(request.outpaint)
    width, height = _size(request, defaults, given)
    values: dict[str, Any] = {
        "width": width if request.width is None else request.width,
        "height": height if request.height is None else request.height,
        "strength": request.strength or (1.0 if grows else STRENGTH),
        "resize": request.resize or "crop",
        "image_sha256": given.image_sha256,
        "mask_sha256": given.mask_sha256,
    }
    if grows or given.mask_sha256 is not None:
        values["mask_blur"] = BLUR if request.mask_blur is None else request.mask_blur
        values["masked_content"] = request.masked_content or ("fill" if grows else "original")
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
    return check_outpaint("outpaint", tuple(sides.values()))


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


def _missing(what: str, sha256: str, option: str) -> str:
    return f"{what} (SHA-256 of its pixels {sha256[:12]}...); give it with {option}"


def _refuse(request: RequestFields, names: Sequence[str], need: str) -> None:
    for name in names:
        value = getattr(request, name)
        if value is not None and value is not False and value != NO_OUTPAINT:
            raise UserError(f"{spoken(name)} {shown(value)}: has no effect without {need}; give one")
