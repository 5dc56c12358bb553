"""The start of a run: noise only, or the latents of an init image and mask."""

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
    """The init latents and mask of a run; all None for a run from noise only.

    known: clean latents (1, C, h, w) of the init image. mask: (1, 1, h, w), 1 where all is new.
    content: the start inside the mask: "original", "fill", "noise" or "nothing".
    extra: (1, 1 + C, h, w), the additional channels of an inpainting network.
    """

    known: Tensor | None = None
    mask: Tensor | None = None
    content: str | None = None
    extra: Tensor | None = None

    @property
    def blend(self) -> Blend | None:
        """What to blend into every clean estimate; None for an inpainting network, which reads the mask."""
        if self.known is None or self.mask is None or self.extra is not None:
            return None
        return Blend(self.known, self.mask)

    def state(self, noise: Tensor, sigma: float) -> Tensor:
        """The start state (B, C, h, w) at `sigma` from unit noise: x0 + sigma * noise.

        Without an init image it is DDPM's prior: N(0, I) in its coordinates is sqrt(1 + sigma^2) N(0, I) in
        these.
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
    """The Start of a run, with everything encoded in one call. It uses the VAE's mean, not a draw from its
    posterior: this adds no noise to the unmasked part, and a seed's image does not depend on earlier draws.
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
    # A latent cell has the largest mask value of its pixels, so thin strokes are not lost.
    mask = F.max_pool2d(new, model.config.vae.reduction).to(model.device)
    return Start(known, mask, settings.masked_content, extra)


def _extra(model: Model, mask: Tensor, kept: Tensor) -> Tensor:
    """The 1 + C more channels of an inpainting network: a mask of 0 and 1, and the masked image's latents."""
    cells = F.max_pool2d((mask >= 0.5).float(), model.config.vae.reduction).to(model.device)
    return torch.cat([cells, kept], dim=1)
