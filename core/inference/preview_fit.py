"""The preview map of a model that has none: fitted to its VAE once, and cached.

It is fitted to encoded images: drawn scenes, and fields of colour with the spectrum of photographs (power
falls with the square of the frequency; Field 1987). It is saved next to the model, or in the user's cache
folder if that cannot be written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.errors import UserError
from core.files import cache_folder, write_whole
from core.inference.preview import fit
from core.sampling.noise import start_noise
from core.scenes.pool import Pool, to_tensor
from core.weights.model_files import ModelFiles

FORMAT = 1
NAME = "latentcanvas-preview.json"
COUNT, SIZE = 8, 128  # images of each kind, and their side: in total as many pixels as one of 512x512

Rows = list[list[float]]
Coded = Callable[[Tensor], Tensor]


def preview_map(files: ModelFiles, encode: Coded, decode: Coded) -> Rows:
    """(C + 1) rows of red, green, blue for a model's VAE: from the cache, or fitted and cached.

    encode: images to scaled latents; may raise UserError. decode: the inverse, without a check for NaN.
    """
    mark = _mark(files)
    places = (_beside(files), cache_folder() / "previews" / f"{mark}.json")
    for place in places:
        rows = _read(place, mark, files.config.vae.latent_channels)
        if rows is not None:
            return rows
    rows = [
        [round(value, 5) for value in row]
        for row in fitted(encode, decode, files.config.vae.latent_channels).tolist()
    ]
    text = json.dumps({"format": FORMAT, "vae": mark, "preview": rows}).encode()
    for place in places:
        with suppress(UserError, OSError):  # a preview is never worth an error
            place.parent.mkdir(parents=True, exist_ok=True)
            write_whole(place, text)
            break
    return rows


@torch.no_grad()
def fitted(encode: Coded, decode: Coded, channels: int) -> Tensor:
    """The map with the least squared error, (C + 1, 3)."""
    pictures = torch.cat([scenes(COUNT, SIZE), fields(COUNT, SIZE)])
    try:
        return fit(encode(pictures).cpu(), pictures)
    except UserError:  # the encoder overflows, as some do in float16: fit to decoded noise instead
        latents = start_noise(0, 4, (channels, 16, 16))
        made = decode(latents).float().cpu()
        return fit(latents, made.nan_to_num(0.0, 1.0, -1.0).clamp(-1, 1))


def scenes(count: int, size: int) -> Tensor:
    """Drawn images (count, 3, size, size) in [-1, 1], with the flat colours that `fields` lack."""
    pool = Pool(5, "seen", count, size)
    return to_tensor(np.stack([pool.picture(i) for i in range(count)])).contiguous()


def fields(count: int, size: int) -> Tensor:
    """Clouds of colour (count, 3, size, size) in [-1, 1] with the spectrum of photographs.

    Variance is largest from dark to bright, then from blue to orange, then from green to magenta, as in
    photographs (Ruderman et al. 1998).
    """
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]
    amplitude = 1 / (rows**2 + columns**2).sqrt().clamp(min=1 / size)
    spectrum = torch.fft.rfft2(torch.randn(count, 3, size, size, generator=generator)) * amplitude
    clouds = torch.fft.irfft2(spectrum, s=(size, size))
    clouds = clouds / clouds.std(dim=(2, 3), keepdim=True) + torch.randn(count, 3, 1, 1, generator=generator)
    colours = torch.tensor([[1.0, 1.0, 1.0], [0.35, 0.0, -0.35], [0.2, -0.4, 0.2]])
    return torch.tanh(0.6 * torch.einsum("bchw,cd->bdhw", clouds, colours))


def _beside(files: ModelFiles) -> Path:
    """The cache next to the VAE: in a model's folder, or next to a file with its name."""
    path = files.vae_path or files.path
    return path / NAME if path.is_dir() else path.with_name(f"{path.name}.{NAME}")


def _mark(files: ModelFiles) -> str:
    """Identifies a VAE without reading it all: sizes and times of its files, and its scaling factor."""
    seen = [f"{FORMAT} {files.config.vae.scaling_factor}"]
    for path in files.vae.files:
        stat = path.stat()
        seen.append(f"{path.name} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(seen).encode()).hexdigest()[:32]


def _read(path: Path, mark: str, channels: int) -> Rows | None:
    """The rows in a cache file; None if it has none for this VAE."""
    try:
        values = json.loads(path.read_bytes())
        if values["vae"] != mark:
            return None
        rows = [[float(value) for value in row] for row in values["preview"]]
        sound = len(rows) == channels + 1 and all(len(row) == 3 for row in rows)
        return rows if sound and bool(np.isfinite(rows).all()) else None
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
