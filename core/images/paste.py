"""Pastes a run's result back into its init image.

Only the part around the mask is stored. Everywhere else the finished image equals the init image, bit for
bit.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from core.checks import MAX_PIXELS, check_whole
from core.errors import UserError
from core.figures.image_bytes import png

if TYPE_CHECKING:
    from core.images.source_images import Box, Prepared

_MOST = 2**16  # pixels a side


@dataclass(frozen=True, eq=False)
class Paste:
    """The content of `box` in an image of `size`.

    canvas: the init image there (RGB). mask: the opacity of the result (L). inner: where the result goes in
    the whole image; None for all of it.
    """

    canvas: Image.Image
    mask: Image.Image
    size: tuple[int, int]
    box: Box
    inner: Box | None

    @classmethod
    def of(cls, prepared: Prepared) -> Paste | None:
        """None where the result is shown without pasting."""
        box = None if prepared.paste is None else prepared.paste.getbbox()
        if box is None or prepared.paste is None:
            return None
        canvas, mask = prepared.canvas.crop(box), prepared.paste.crop(box)
        return cls(canvas, mask, prepared.canvas.size, box, prepared.box)

    @property
    def whole(self) -> bool:
        """Whether `box` is the whole image."""
        return self.box == (0, 0, *self.size)

    def finish(self, made: Image.Image, picture: Image.Image | None = None) -> Image.Image:
        """The result, pasted back into `picture`: any image that the same run has made.

        Without it, only the part around the mask. Raises UserError for an image of another size.
        """
        left, upper = (0, 0) if self.inner is None else self.inner[:2]
        if self.inner is not None:
            size = (self.inner[2] - left, self.inner[3] - upper)
            made = made.resize(size, Image.Resampling.LANCZOS)
        part = self.canvas.copy()
        part.paste(made, (left - self.box[0], upper - self.box[1]))
        part = Image.composite(part, self.canvas, self.mask)
        if picture is None or self.whole:
            return part
        if picture.size != self.size:
            raise UserError(
                f"the image is {picture.width}x{picture.height}, but the run's is "
                f"{self.size[0]}x{self.size[1]}: give the run's image"
            )
        whole = picture.convert("RGB")
        whole.paste(part, self.box[:2])
        return whole

    def to_png(self) -> bytes:
        """Canvas and mask in one PNG, the mask as its opacity."""
        image = self.canvas.copy()
        image.putalpha(self.mask)
        return png(image)

    def to_dict(self) -> dict[str, Any]:
        """Sizes and positions, ready for JSON."""
        return {"size": self.size, "box": self.box, "inner": self.inner}

    @classmethod
    def read(cls, values: Any, png: bytes) -> Paste:
        """The object that `to_dict` and `to_png` wrote. Raises ValueError or UserError for anything else."""
        size, box = _numbers(values["size"], 2), _numbers(values["box"], 4)
        if size[0] * size[1] > MAX_PIXELS:
            raise ValueError("the image is larger than any init image")
        inner = None if values["inner"] is None else _numbers(values["inner"], 4)
        for left, upper, right, lower in filter(None, (box, inner)):
            if not (0 <= left < right <= size[0] and 0 <= upper < lower <= size[1]):
                raise ValueError("a box is outside its image")
        image = _opened(png, (box[2] - box[0], box[3] - box[1]))
        return cls(image.convert("RGB"), image.getchannel("A"), size, box, inner)


def _opened(png: bytes, size: tuple[int, int]) -> Image.Image:
    """A PNG of this size with opacity. Raises ValueError for anything else, before it is decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(png), formats=["PNG"])
        if image.mode == "RGBA" and image.size == size:
            image.load()
            return image
    except Exception as error:  # decoders raise almost anything on damaged files
        raise ValueError("the image cannot be read") from error
    raise ValueError("the image's mode or size is wrong")


def _numbers(values: Any, count: int) -> Any:
    numbers = tuple(values)
    if len(numbers) != count:
        raise ValueError("wrong count of numbers")
    for number in numbers:
        check_whole("pixels", number, 0, _MOST)
    return numbers
