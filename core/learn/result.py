"""What a view returns: sentences, numbers, images and plots, in reading order; saved as PNG or GIF."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from core.errors import UserError
from core.figures.contact_sheet import ImageRow, Plot, _drawn, _stacked
from core.figures.image_bytes import gif
from core.figures.plots import Paper


@dataclass(frozen=True, eq=False)
class ViewResult:
    """The result of a view. `numbers` are ready for JSON; `frames` draws the animation, if there is one."""

    words: Sequence[str]
    numbers: Mapping[str, Any]
    parts: Sequence[Plot | ImageRow]
    frames: Callable[[Paper], Sequence[Image.Image]] | None = None
    milliseconds: int = 120
    code: Sequence[tuple[str, str]] = field(default=())  # more code to show: (target, words in the line)

    def png(self, paper: Paper) -> bytes:
        """All parts, one below the other, as a PNG."""
        buffer = io.BytesIO()
        _stacked([_drawn(part, paper) for part in self.parts], self.words, paper).save(buffer, "PNG")
        return buffer.getvalue()

    def gif(self, paper: Paper) -> bytes:
        """The animation as a GIF. Raises UserError if the view has none."""
        if self.frames is None:
            raise UserError("this view has no animation: save it as .png")
        return gif(self.frames(paper), milliseconds=self.milliseconds)
