"""Init images and masks: read any file, resize it, and paste the result back.

All images are PIL images of 8 bits a channel; core/inference/start.py encodes them to latents. A mask is
greyscale: white is repainted, black is kept. This module never imports torch, so that bad input is found
before the engine is loaded.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter, ImageOps, UnidentifiedImageError

from core.checks import MAX_PIXELS
from core.errors import UserError
from core.images.formats import eight_bits, enable_heic, fit_transparency, in_srgb
from core.request.image_settings import InputInfo, check_given
from core.request.request import Request
from core.request.settings import Settings

ImageSource = str | Path | Image.Image
Box = tuple[int, int, int, int]  # left, upper, right, lower, as PIL counts
_EMPTY = "the mask is all black: paint the area to change white, or invert the mask"
_WHITE = (255, 255, 255)
_LANCZOS, _BILINEAR = Image.Resampling.LANCZOS, Image.Resampling.BILINEAR


def read_picture(source: ImageSource) -> Image.Image:
    """Any image as RGB, 8 bits a channel: rotated by its EXIF, in sRGB, on white where it is transparent.

    Of an animation the first frame. Nothing else of the file is kept, such as its EXIF or profile. Raises
    UserError: no such file, not an image, damaged or cut off, more than 64 million pixels.
    """
    image = in_srgb(_read(source))
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, (*_WHITE, 255))
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    return _bare(image.convert("RGB"))


def read_mask(source: ImageSource) -> Image.Image:
    """A mask as 8-bit greyscale: the alpha of an image with transparent parts, else its lightness.

    Raises UserError as `read_picture` does.
    """
    image = _read(source)
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
        if alpha.getextrema() != (255, 255):
            return _bare(alpha)
    return _bare(image.convert("L"))


@dataclass(frozen=True, eq=False)
class Inputs:
    """The init image (RGB) and its mask (L, of the same aspect ratio)."""

    image: Image.Image
    mask: Image.Image | None = None

    @classmethod
    def read(cls, image: ImageSource | None, mask: ImageSource | None = None) -> Inputs | None:
        """Both from files or PIL images; None when neither is given. Raises UserError."""
        if image is None:
            if mask is not None:
                raise UserError("a mask has no effect without an init image (--image); give one")
            return None
        picture = read_picture(image)
        return cls(picture, None if mask is None else _of_shape(read_mask(mask), picture.size))

    @cached_property
    def given(self) -> InputInfo:
        """Sizes and hashes, for a request."""
        mask_sha256 = None if self.mask is None else _sha256(self.mask)
        return InputInfo(*self.image.size, _sha256(self.image), mask_sha256)


def check_inputs(request: Request, inputs: Inputs | None) -> None:
    """Check a request and its images before a model is loaded. Raises UserError."""
    check_given(request, None if inputs is None else inputs.given)
    if inputs is not None and inputs.mask is not None and not any(request.outpaint):
        mask = ImageOps.invert(inputs.mask) if request.invert_mask else inputs.mask
        if mask.getbbox() is None:
            raise UserError(_EMPTY)


@dataclass(frozen=True, eq=False)
class Prepared:
    """An init image and mask at the size of a run, and how to paste the result back.

    mask: 255 is repainted, 0 is kept, with the blur between; None without one.
    canvas: the whole image that the result is pasted on, at `box`, or over all of it when that is None.
    paste: the opacity of the result on the canvas; None to show only the result.
    """

    image: Image.Image
    mask: Image.Image | None
    canvas: Image.Image
    box: Box | None = None
    paste: Image.Image | None = None

    def finish(self, made: Image.Image) -> Image.Image:
        """The run's result, pasted back. Where `paste` is 0 the canvas is unchanged, bit for bit."""
        if self.paste is None:
            return made
        if self.box is not None:
            left, upper, right, lower = self.box
            whole = self.canvas.copy()
            whole.paste(made.resize((right - left, lower - upper), _LANCZOS), (left, upper))
            made = whole
        return Image.composite(made, self.canvas, self.paste)


def prepare(inputs: Inputs, settings: Settings) -> Prepared:
    """Resize, extend, mask, blur and crop by the settings. Raises UserError for an empty mask."""
    picture, mask = inputs.image, inputs.mask
    if mask is not None:
        mask = ImageOps.invert(mask) if settings.invert_mask else mask
        mask = _fitted(mask, picture.size, "stretch")
    if settings.only_masked is None:
        left, right, up, down = settings.outpaint
        inner = (settings.width - left - right, settings.height - up - down)
        picture = _fitted(picture, inner, settings.resize)
        mask = None if mask is None else _fitted(mask, inner, settings.resize)
    canvas = _extended(picture, settings.outpaint)
    if mask is None and not any(settings.outpaint):
        return Prepared(canvas, None, canvas)
    return _masked(canvas, mask or Image.new("L", picture.size), settings)


def _masked(canvas: Image.Image, inside: Image.Image, settings: Settings) -> Prepared:
    """`inside` is the mask of the image before outpainting."""
    blur, sides = settings.mask_blur or 0, settings.outpaint
    around = _around(canvas.size, sides)
    hard = ImageChops.lighter(around, _extended(inside, sides))
    if hard.getbbox() is None:
        raise UserError(_EMPTY)
    # The outpainted border is blurred only inwards: there is nothing to keep outside.
    wider = ImageChops.lighter(hard, _around(canvas.size, [side and side + 2 * blur for side in sides]))
    soft = ImageChops.lighter(around, wider.filter(ImageFilter.GaussianBlur(blur)))
    whole = settings.only_masked is None
    paste = None
    if settings.keep_unmasked or not whole:
        paste = ImageChops.lighter(around, _feathered(_extended(inside, sides, grow=True), 2 * blur))
    if whole:
        return Prepared(canvas, soft, canvas, None, paste)
    size = (settings.width, settings.height)
    box = _box(hard, settings.only_masked or 0, size)
    cut, cut_mask = canvas.crop(box).resize(size, _LANCZOS), soft.crop(box).resize(size, _BILINEAR)
    return Prepared(cut, cut_mask, canvas, box, paste)


def _box(mask: Image.Image, padding: int, size: tuple[int, int]) -> Box:
    """The box of the white area with `padding`, extended to the aspect ratio of `size` if possible."""
    found = mask.getbbox()
    assert found is not None
    edges = []
    spans = [(found[0] - padding, found[2] + padding), (found[1] - padding, found[3] + padding)]
    spans = [(max(low, 0), min(high, room)) for (low, high), room in zip(spans, mask.size, strict=True)]
    lengths = [high - low for low, high in spans]
    unit = max(length / side for length, side in zip(lengths, size, strict=True))
    for (low, high), side, room in zip(spans, size, mask.size, strict=True):
        length = min(max(round(unit * side), high - low), room)
        start = min(max(low - (length - (high - low)) // 2, 0), room - length)
        edges.append((start, start + length))
    (left, right), (upper, lower) = edges
    return left, upper, right, lower


def _feathered(mask: Image.Image, width: int) -> Image.Image:
    """The mask, feathered inwards over `width` pixels: black stays black."""
    found = mask.getbbox()
    if found is None:
        return mask
    left, upper, right, lower = found  # one pixel more, where possible: the black next to the edge
    box = (max(left - 1, 0), max(upper - 1, 0), min(right + 1, mask.width), min(lower + 1, mask.height))
    eroded = np.asarray(mask.crop(box))
    total = eroded.astype(np.uint16)
    for _ in range(width):
        eroded = _eroded(eroded)
        total += eroded
    feathered = Image.new("L", mask.size)
    feathered.paste(Image.fromarray((total // (width + 1)).astype(np.uint8)), box)
    return feathered


def _eroded(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The darkest of each pixel and its eight neighbours."""
    padded = np.pad(mask, 1, mode="edge")
    rows = np.minimum(np.minimum(padded[:-2], padded[1:-1]), padded[2:])
    return np.minimum(np.minimum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])


def _fitted(image: Image.Image, size: tuple[int, int], resize: str | None) -> Image.Image:
    """The image at another size: stretched, cropped, or filled by repeating its edges."""
    filtering = _BILINEAR if image.mode == "L" else _LANCZOS
    if image.size == size:
        return image
    if resize == "crop":
        return ImageOps.fit(image, size, filtering)
    if resize == "stretch":
        return image.resize(size, filtering)
    scale = min(size[0] / image.width, size[1] / image.height)
    inner = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    left, up = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    sides = (left, size[0] - inner[0] - left, up, size[1] - inner[1] - up)
    return _extended(image.resize(inner, filtering), sides, grow=True)


def _extended(image: Image.Image, sides: Sequence[int], *, grow: bool = False) -> Image.Image:
    """Larger by (left, right, up, down): with repeated edges, or black for a mask without `grow`."""
    if not any(sides):
        return image
    left, right, up, down = sides
    widths = [(up, down), (left, right)] + [(0, 0)] * (image.mode == "RGB")
    mode: Any = "edge" if grow or image.mode == "RGB" else "constant"
    return Image.fromarray(np.pad(np.asarray(image), widths, mode=mode))


def _around(size: tuple[int, int], sides: Sequence[int]) -> Image.Image:
    """A mask of that size, white on (left, right, up, down) pixels from its edges."""
    left, right, up, down = sides
    mask = Image.new("L", size, 255)
    box = (left, up, size[0] - right, size[1] - down)
    if box[0] < box[2] and box[1] < box[3]:
        mask.paste(0, box)
    return mask


def _of_shape(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The mask, if it has the image's aspect ratio. Raises UserError when not."""
    (width, height), (w, h) = mask.size, size
    if abs(width * h - height * w) > max(width * h, height * w) * 0.02:
        raise UserError(
            f"the mask is {width}x{height} and the image {w}x{h}; make the mask the size of the image"
        )
    return mask


def _read(source: ImageSource) -> Image.Image:
    name = "the image" if isinstance(source, Image.Image) else str(source)
    try:
        if isinstance(source, Image.Image):
            return _decoded(source, name)
        with _opened(source) as image:
            return _decoded(image, name)
    except UserError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserError(_too_large(name)) from None
    except UnidentifiedImageError:
        raise UserError(f"{name}: is not an image of a known format; save it as PNG or JPEG") from None
    except FileNotFoundError:
        raise UserError(f"{name}: there is no such file; choose another") from None
    except Exception as error:  # decoders raise almost anything on damaged files
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{name}: cannot be read as an image ({reason}); choose another") from error


def _bare(image: Image.Image) -> Image.Image:
    """Without what Pillow would write into the next file."""
    image = image.copy()
    image.info.clear()
    return image


def _opened(path: str | Path) -> Image.Image:
    """Reads the header, not the pixels. Pillow's warning of a very large image is an error here."""
    enable_heic(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(path)


def _decoded(image: Image.Image, name: str) -> Image.Image:
    """A copy, upright and of 8 bits a channel."""
    if image.width * image.height > MAX_PIXELS:
        raise UserError(_too_large(name))
    fit_transparency(image)
    image.load()
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF does not make the image unusable
        upright = image.copy()
    return eight_bits(upright)


def _too_large(name: str) -> str:
    return f"{name}: has more than {MAX_PIXELS // 1024**2} million pixels; make it smaller first"


def _sha256(image: Image.Image) -> str:
    """Over the decoded pixels, so that the same image in another lossless file has the same hash."""
    head = f"{image.mode} {image.width}x{image.height}\n".encode()
    return hashlib.sha256(head + image.tobytes()).hexdigest()
