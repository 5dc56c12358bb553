"""Samples while a model learns, from the same noise each time: raw and averaged weights side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw
from torch import Tensor

from core.figures.image_bytes import png
from core.images.tensors import to_images
from core.inference.start import Start
from core.models.build import Coder
from core.models.config import NoiseConfig
from core.plugins import current
from core.request.model_defaults import Defaults
from core.sampling.denoiser import Denoiser, Network
from core.sampling.loop import run_sampler
from core.sampling.noise import noise_source, start_noise

SIDE = 384  # approximate side of a sheet in pixels
_PAPER, _INK, _MARGIN, _TITLE = (255, 255, 255), (40, 44, 52), 8, 18


@dataclass(frozen=True)
class SampleRequest:
    """How samples are drawn: the model's defaults, one image per prompt, and the first one's seed."""

    defaults: Defaults
    texts: tuple[str, ...]
    seed: int


def draw_samples(
    network: Network,
    coder: Coder,
    noise: NoiseConfig,
    asked: SampleRequest,
    conditional: Tensor,
    unconditional: Tensor,
) -> list[Image.Image]:
    """One image for each row of `conditional` (B, T, D), as the pipeline would make it."""
    registry, defaults, table = current.registry(), asked.defaults, noise.schedule()
    sampler = registry.sampler(defaults.sampler)
    denoiser = Denoiser(
        network,
        table,
        prediction=noise.prediction,
        conditional=conditional,
        unconditional=unconditional.expand_as(conditional),
        cfg_scale=defaults.cfg_scale,
        batched=True,
    )
    cell, count = coder.config.reduction, len(conditional)
    shape = (coder.config.latent_channels, defaults.height // cell, defaults.width // cell)
    sigmas = registry.schedule(defaults.schedule).sigmas(table, defaults.steps)
    device = conditional.device
    x = Start().state(start_noise(asked.seed, count, shape).to(device), sigmas[0])
    fresh = noise_source(sampler.noise, asked.seed, count, shape, device)
    for step in run_sampler(sampler, denoiser, x, sigmas, fresh, sampler.check_options({})):
        x = step.x
    return to_images(coder.decode(x))


def side_by_side(raw: Sequence[Image.Image], averaged: Sequence[Image.Image]) -> bytes:
    """Two contact sheets with titles, side by side, as a PNG."""
    sheets = [_sheet(pictures) for pictures in (raw, averaged)]
    width, height = sheets[0].size
    whole = Image.new("RGB", (2 * width + 3 * _MARGIN, height + _TITLE + 2 * _MARGIN), _PAPER)
    pen = ImageDraw.Draw(whole)
    for i, (title, sheet) in enumerate(zip(("raw weights", "averaged weights"), sheets, strict=True)):
        left = _MARGIN + i * (width + _MARGIN)
        pen.text((left, _MARGIN // 2), title, fill=_INK)
        whole.paste(sheet, (left, _TITLE + _MARGIN))
    return png(whole)


def apart(whole: Image.Image) -> tuple[Image.Image, Image.Image]:
    """The two sheets that `side_by_side` put into one image, without their titles: raw, averaged."""
    width, top = (whole.width - 3 * _MARGIN) // 2, _TITLE + _MARGIN
    lefts = (_MARGIN, 2 * _MARGIN + width)
    raw, averaged = (whole.crop((left, top, left + width, whole.height - _MARGIN)) for left in lefts)
    return raw, averaged


def _sheet(pictures: Sequence[Image.Image]) -> Image.Image:
    """All images in rows and columns, small ones enlarged without smoothing."""
    columns = next(n for n in range(1, 65) if n * n >= len(pictures))
    rows = -(-len(pictures) // columns)
    width, height = pictures[0].size
    times = max(1, SIDE // (columns * width))
    sheet = Image.new("RGB", (columns * width * times, rows * height * times), _PAPER)
    for i, picture in enumerate(pictures):
        large = picture.resize((width * times, height * times), Image.Resampling.NEAREST)
        sheet.paste(large, (i % columns * width * times, i // columns * height * times))
    return sheet
