"""What a view gives: sentences, numbers, pictures and plots, in the order to be read; as one PNG or a GIF."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PIL import Image

from core.errors import UserError
from core.figures.contact_sheet import ImageRow, Plot, _drawn, _stacked
from core.figures.image_bytes import gif
from core.figures.plots import Paper

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, eq=False)
class ViewResult:
    """A view's answer. `numbers` are ready for JSON; `frames` draws a moving picture, where there is one."""

    words: Sequence[str]
    numbers: Mapping[str, Any]
    parts: Sequence[Plot | ImageRow]
    frames: Callable[[Paper], Sequence[Image.Image]] | None = None
    milliseconds: int = 120
    code: Sequence[tuple[str, str]] = field(default=())  # more lines to show: (what does it, words in it)

    def png(self, paper: Paper) -> bytes:
        """All parts below each other."""
        buffer = io.BytesIO()
        _stacked([_drawn(part, paper) for part in self.parts], self.words, paper).save(buffer, "PNG")
        return buffer.getvalue()

    def gif(self, paper: Paper) -> bytes:
        """The moving picture. Raises UserError where there is none."""
        if self.frames is None:
            raise UserError("this view has no moving picture: give the file the ending .png")
        return gif(self.frames(paper), milliseconds=self.milliseconds)
