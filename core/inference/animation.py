"""The steps of a run as one file: an animated GIF or a contact sheet."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from PIL import Image

from core.figures.contact_sheet import labelled
from core.figures.image_bytes import gif

if TYPE_CHECKING:
    from torch import Tensor

    from core.inference.trajectory import Trajectory

Decode = Callable[["Tensor"], list[Image.Image]]


def frames(
    trajectory: Trajectory,
    view: str = "clean",
    image: int = 0,
    *,
    largest: int = 512,
    decode: Decode | None = None,
) -> list[Image.Image]:
    """One image per step, at most `largest` pixels a side: by the preview map, or by `decode` (the VAE's)."""
    made = []
    for k in range(1, len(trajectory.steps) + 1):
        if decode is None:
            frame = trajectory.preview(k, view, image)
        else:
            frame = decode(trajectory.latents(k, view, image))[0]
        frame.thumbnail((largest, largest), Image.Resampling.LANCZOS)
        made.append(frame)
    return made


def animation(
    trajectory: Trajectory,
    *,
    view: str = "clean",
    image: int = 0,
    milliseconds: int = 120,
    hold: int = 1500,
    largest: int = 512,
    final: Image.Image | None = None,
    decode: Decode | None = None,
) -> bytes:
    """The steps as a looping GIF, `milliseconds` for each and `hold` milliseconds for the last.

    final: the finished image, shown last.
    """
    shown = frames(trajectory, view, image, largest=largest, decode=decode)
    if final is not None:
        shown.append(final.convert("RGB").resize(shown[0].size, Image.Resampling.LANCZOS))
    return gif(shown, milliseconds=milliseconds, hold=hold, dither=True)


def contact_sheet(
    trajectory: Trajectory,
    *,
    view: str = "clean",
    image: int = 0,
    columns: int | None = None,
    largest: int = 192,
    decode: Decode | None = None,
) -> Image.Image:
    """The steps in rows, each labelled with its number and noise level."""
    shown = frames(trajectory, view, image, largest=largest, decode=decode)
    across = min(columns or math.ceil(math.sqrt(len(shown) * 1.4)), len(shown))
    labels = [f"{i}: sigma {step.sigma:.3g}" for i, step in enumerate(trajectory.steps, 1)]
    return labelled(list(zip(labels, shown, strict=True)), across)
