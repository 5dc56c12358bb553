"""How what a run makes goes back into the picture that it started from.

It is kept small: the part around the mask alone. Everywhere else the run's finished picture is the one that
it started from, to the bit.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from core.checks import MAX_PIXELS, check_whole
from core.errors import UserError

if TYPE_CHECKING:
    from core.images.source_images import Box, Prepared

_MOST = 2**16  # pixels a side


@dataclass(frozen=True, eq=False)
class Paste:
    """What stands in `box` of a picture of `size`.

    canvas: the picture there (RGB). mask: how much of what is made shows (L). inner: where in the whole
    picture goes what is made; None for all over it.
    """

    canvas: Image.Image
    mask: Image.Image
    size: tuple[int, int]
    box: Box
    inner: Box | None

    @classmethod
    def of(cls, prepared: Prepared) -> Paste | None:
        """None where the result is shown as it is."""
        box = None if prepared.paste is None else prepared.paste.getbbox()
        if box is None or prepared.paste is None:
            return None
        canvas, mask = prepared.canvas.crop(box), prepared.paste.crop(box)
        return cls(canvas, mask, prepared.canvas.size, box, prepared.box)

    @property
    def whole(self) -> bool:
        """Whether nothing is missing around it."""
        return self.box == (0, 0, *self.size)

    def finish(self, made: Image.Image, picture: Image.Image | None = None) -> Image.Image:
        """What was made, pasted back into `picture`: any one that the same run has made.

        Without it, the part around the mask alone. Raises UserError for a picture of another size.
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
                f"the picture is {picture.width}x{picture.height}, and the run's is "
                f"{self.size[0]}x{self.size[1]}: give that"
            )
        whole = picture.convert("RGB")
        whole.paste(part, self.box[:2])
        return whole

    def to_png(self) -> bytes:
        """Canvas and mask in one PNG, the mask as its opacity."""
        image = self.canvas.copy()
        image.putalpha(self.mask)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Sizes and places, ready for JSON."""
        return {"size": self.size, "box": self.box, "inner": self.inner}

    @classmethod
    def read(cls, values: Any, png: bytes) -> Paste:
        """What `to_dict` and `to_png` made. Raises ValueError or UserError for anything else."""
        size, box = _numbers(values["size"], 2), _numbers(values["box"], 4)
        if size[0] * size[1] > MAX_PIXELS:
            raise ValueError("a picture that is larger than any that a run starts from")
        inner = None if values["inner"] is None else _numbers(values["inner"], 4)
        for left, upper, right, lower in filter(None, (box, inner)):
            if not (0 <= left < right <= size[0] and 0 <= upper < lower <= size[1]):
                raise ValueError("a box that is outside of its picture")
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
        raise ValueError("a picture that cannot be read") from error
    raise ValueError("not the picture that its notes say")


def _numbers(values: Any, count: int) -> Any:
    numbers = tuple(values)
    if len(numbers) != count:
        raise ValueError("not so many numbers")
    for number in numbers:
        check_whole("pixels", number, 0, _MOST)
    return numbers
