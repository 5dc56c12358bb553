"""What a run starts from, as latents: noise alone, or an image and what its mask leaves of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from core.images.tensors import fill_in, from_image
from core.sampling.denoiser import Blend

if TYPE_CHECKING:
    from core.images.source_images import Prepared
    from core.inference.model import Model
    from core.request.settings import Settings


@dataclass(frozen=True, eq=False)
class Start:
    """The latents behind a run; all None for a run from noise alone.

    known: clean latents (1, C, h, w) of the image. mask: (1, 1, h, w), 1 where all is new.
    content: what the run starts from in the mask: "original", "fill", "noise" or "nothing".
    extra: (1, 1 + C, h, w), what an inpainting network reads beside the noisy latents.
    """

    known: Tensor | None = None
    mask: Tensor | None = None
    content: str | None = None
    extra: Tensor | None = None

    @property
    def blend(self) -> Blend | None:
        """What to put into every clean estimate; nothing for an inpainting network, which sees it itself."""
        if self.known is None or self.mask is None or self.extra is not None:
            return None
        return Blend(self.known, self.mask)

    def state(self, noise: Tensor, sigma: float) -> Tensor:
        """The state (B, C, h, w) to start from at `sigma`, out of unit noise: x0 + sigma * noise.

        Without an image the DDPM's prior: N(0, I) in its coordinates is sqrt(1 + sigma^2) N(0, I) in ours.
        """
        prior = noise * math.sqrt(1 + sigma**2)
        if self.known is None:
            return prior
        x0 = self.known.expand_as(noise)
        if self.mask is not None and self.content == "nothing":
            x0 = torch.lerp(x0, torch.zeros_like(x0), self.mask)
        x = x0 + sigma * noise
        if self.mask is not None and self.content == "noise":
            x = torch.lerp(x, prior, self.mask)
        return x


@torch.no_grad()
def start_of(model: Model, prepared: Prepared | None, settings: Settings) -> Start:
    """Encode what the settings ask for, in one call. The VAE's mean is taken, not a draw from its posterior:
    the image of a seed does not depend on the order of draws, and nothing is added to what is kept.
    """
    inpaints = model.config.unet.in_channels != model.config.vae.latent_channels
    if prepared is None:
        if not inpaints:
            return Start()
        size = (1, 1, settings.height, settings.width)
        (empty,) = model.encode(torch.zeros(1, 3, *size[2:])).split(1)
        return Start(extra=_extra(model, torch.ones(size), empty))
    picture = from_image(prepared.image)  # (1, 3, H, W)
    new = torch.ones_like(picture[:, :1]) if prepared.mask is None else from_image(prepared.mask)
    first = picture
    if prepared.mask is not None and settings.masked_content == "fill":
        first = fill_in(picture, (new < 0.5).float())
    kept = [picture * (new < 0.5).float()] if inpaints else []
    known, *others = model.encode(torch.cat([first, *kept])).split(1)
    extra = _extra(model, new, others[0]) if inpaints else None
    if prepared.mask is None:
        return Start(known, extra=extra)
    # A cell of the latent is as new as the newest of its pixels: thin strokes are not lost.
    mask = F.max_pool2d(new, model.config.vae.reduction).to(model.device)
    return Start(known, mask, settings.masked_content, extra)


def _extra(model: Model, mask: Tensor, kept: Tensor) -> Tensor:
    """What a network with 1 + C more channels reads: its mask, 0 or 1, and the latents of what is kept."""
    cells = F.max_pool2d((mask >= 0.5).float(), model.config.vae.reduction).to(model.device)
    return torch.cat([cells, kept], dim=1)
