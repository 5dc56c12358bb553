"""Init images and masks, saved with the runs' results: each once, named by the hash of its pixels.

They are lossless, in their own folder, so that an img2img run can be opened, repeated and verified after its
original file is gone.
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
    """Save an init image and its mask in `folder`. Raises UserError."""
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
    """The init image and mask of a run with these settings; None without one, or where the files changed."""
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
    """Delete the images with these hashes. Raises UserError."""
    for sha256 in hashes:
        path = _path(folder, sha256)
        with plain_errors(path):
            path.unlink(missing_ok=True)


def _path(folder: Path, sha256: str) -> Path:
    return folder / FOLDER / f"{sha256}.png"
