"""The pictures that runs started from, kept beside what came of them: each once, under its pixels' hash.

They are lossless, in a folder of their own, so that a run of img2img can be opened, made again and verified
later, when the picture it began with is long gone from where it was.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UserError
from core.files import plain_errors, write_whole
from core.images.source_images import Inputs

if TYPE_CHECKING:
    from core.request.settings import Settings

FOLDER = "inputs"


def keep_inputs(folder: Path, inputs: Inputs) -> None:
    """Keep a picture and its mask among the runs of `folder`. Raises UserError."""
    pictures = {inputs.given.image_sha256: inputs.image, inputs.given.mask_sha256: inputs.mask}
    for sha256, picture in pictures.items():
        path = _path(folder, str(sha256))
        if picture is None or path.exists():
            continue
        with plain_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        write_whole(path, buffer.getvalue())


def kept_inputs(folder: Path, settings: Settings) -> Inputs | None:
    """What a run with these settings started from; None where it was nothing, or is not there as it was."""
    if settings.image_sha256 is None:
        return None
    mask = None if settings.mask_sha256 is None else _path(folder, settings.mask_sha256)
    try:
        inputs = Inputs.read(_path(folder, settings.image_sha256), mask)
    except UserError:
        return None
    wanted = settings.image_sha256, settings.mask_sha256
    if inputs is None or (inputs.given.image_sha256, inputs.given.mask_sha256) != wanted:
        return None
    return inputs


def forget_inputs(folder: Path, hashes: Iterable[str]) -> None:
    """Delete the pictures with these hashes. Raises UserError."""
    for sha256 in hashes:
        path = _path(folder, sha256)
        with plain_errors(path):
            path.unlink(missing_ok=True)


def _path(folder: Path, sha256: str) -> Path:
    return folder / FOLDER / f"{sha256}.png"
