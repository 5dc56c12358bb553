"""The second stage: a VAE that knows the pictures' forms and colours (arXiv:2112.10752, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.errors import UserError
from core.models.build import Coder
from core.models.vae import AutoencoderKL
from core.scenes.pool import Pool, to_tensor
from core.training.processes import Share
from core.training.sets.storybook import DrawnPictures
from core.training.stages.principal import BlockEncoder, set_principal_encoder
from core.training.training_loop import Precision, home, mixed_precision

FITTED = 1024  # pictures that a principal encoder is computed from


@dataclass(frozen=True, kw_only=True)
class VAELoss:
    """Reconstruction is root mean square error a crop, or with `error` "absolute" the mean absolute error;
    the KL term only keeps the latents' scale from drifting.

    edges: the weight of the absolute error of differences between neighbours, which blurred edges have.

    encoder: "principal" for one that is computed, not learned (core.training.stages.principal); `spread` is
    then the width of q(z | picture), as a part of the latents' own, and the decoder alone is trained.
    averaged: how many of its downsampling levels take the mean of 2x2 pixels; whiten: each component is
    divided by this power of its standard deviation; noised: the decoder learns from latents with noise of up
    to this part of their deviation, different for each crop, as a UNet's latents are not exact either.
    """

    encoder: Literal["learned", "principal"] = "learned"
    spread: float = 0.05
    error: Literal["root_mean_square", "absolute"] = "root_mean_square"
    edges: float = 0.0
    noised: float = 0.0
    averaged: int = 0
    whiten: float = 0.0
    crop: int = 64
    whole_from: float = (
        0.85  # from this part of the run on, whole pictures: group norms see what they will see
    )
    kl_weight: float = 1e-6

    def __post_init__(self) -> None:
        if min(self.edges, self.noised, self.averaged, self.whiten) < 0:
            raise UserError("vae_loss.edges, noised, averaged and whiten must not be below 0.")
        if self.encoder == "learned" and (self.noised or self.averaged or self.whiten):
            raise UserError('vae_loss.noised, averaged and whiten need encoder = "principal".')


def initialise(vae: AutoencoderKL) -> None:
    """He's initialisation (arXiv:1502.01852), and a narrow q(z | x) to begin with.

    Torch's own initial weights shrink the signal at every layer; from them the first 500 steps learn only
    the mean.
    """
    for module in vae.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            pointwise = module.kernel_size == (1, 1)
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if pointwise else "relu")
            nn.init.zeros_(module.bias)
    moments, channels = vae.quant_conv.state_dict(keep_vars=True), vae.config.latent_channels
    with torch.no_grad():
        moments["weight"][channels:] *= 0.1
        moments["bias"][channels:] = -6.0


class VAEStage:
    """Trains `modules`, an AutoencoderKL, on crops of stored pictures."""

    name = "vae"

    def __init__(
        self,
        vae: AutoencoderKL,
        pictures: NDArray[np.uint8] | DrawnPictures,
        settings: VAELoss,
        *,
        batch: int,
        steps: int,
        seed: int,
        held_out: NDArray[np.uint8] | None = None,
        precision: Precision = "bfloat16",
        share: Share | None = None,
    ) -> None:
        """held_out: pictures to measure with; scenes where there are none. share: the part of each batch that
        this process computes.
        """
        self.modules: nn.Module = vae
        self.vae = vae
        self.pictures = pictures
        self.settings = settings
        self.batch, self.steps, self.seed = batch, steps, seed
        self.precision = precision
        self.share = Share() if share is None else share
        self.computed = settings.encoder == "principal"
        self._linear: BlockEncoder | None = None  # made when weights are in place that a resumed run has read
        if self.computed:
            set_principal_encoder(
                vae,
                to_tensor(pictures[:FITTED]).to(home(vae)),
                settings.spread,
                averaged=settings.averaged,
                whiten=settings.whiten,
            )
            vae.encoder.requires_grad_(False)
            vae.quant_conv.requires_grad_(False)
        self.held_out = _held_out(seed, pictures.shape[1]) if held_out is None else to_tensor(held_out)

    def loss(self, step: int) -> Tensor:
        """The loss of step `step`, a scalar: see VAELoss."""
        crops = self.crops(step)
        mine, weight = self.share.of(len(crops)), self.share.weight(len(crops))
        x = crops[mine].to(home(self.vae))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        mean, log_variance = self._moments(x)
        noise = torch.randn((len(crops), *mean.shape[1:]), generator=generator)
        if self.computed and self.settings.noised:
            amounts = torch.rand(len(crops), 1, 1, 1, generator=generator) * self.settings.noised
            noise = noise * amounts / self.settings.spread
        z = mean + torch.exp(0.5 * log_variance) * noise[mine].to(mean.device)
        with mixed_precision(self.vae, self.precision):
            y = self.vae.decoder(self.vae.post_quant_conv(z))
        error = self._error(y.float() - x) * weight
        if self.computed:
            return error
        mean, log_variance = mean.float(), log_variance.float()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=(1, 2, 3)).mean()
        return error + self.settings.kl_weight * kl / x[0, 0].numel() * weight

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A computed encoder is one product, which takes a fraction of the network's time."""
        if self.computed:
            if self._linear is None:
                self._linear = BlockEncoder(self.vae, self.settings.averaged)
            return self._linear(x)
        with mixed_precision(self.vae, self.precision):
            return self.vae.moments(x)

    def _error(self, difference: Tensor) -> Tensor:
        """Of the pixels and their edges, a scalar."""
        absolute = self.settings.error == "absolute"
        error = difference.abs().mean() if absolute else _root_mean_square(difference)
        if self.settings.edges:
            steps = (difference.diff(dim=axis).abs().mean() for axis in (2, 3))
            error = error + self.settings.edges * sum(steps)
        return error

    def crops(self, step: int) -> Tensor:
        """What step `step` learns from, (B, 3, crop, crop) in [-1, 1]: crops that start at multiples of a
        latent cell, of at least 8; near the end fewer of them, whole pictures.
        """
        rng = np.random.default_rng((self.seed, step))
        side = self.pictures.shape[1]
        crop = self.settings.crop if step < self.settings.whole_from * self.steps else side
        count = max(1, self.batch * self.settings.crop**2 // crop**2)
        indices = rng.integers(len(self.pictures), size=count)
        cell = max(8, self.vae.config.reduction)
        corners = rng.integers((side - crop) // cell + 1, size=(count, 2)) * cell
        cut = [
            self.pictures[i, y : y + crop, x : x + crop] for i, (y, x) in zip(indices, corners, strict=True)
        ]
        return to_tensor(np.stack(cut))

    def measure(self) -> Mapping[str, float]:
        return {"psnr": round(float(psnr(self.vae, self.held_out).mean()), 3)}


def _held_out(seed: int, size: int) -> Tensor:
    """64 pictures that no part of the VAE is trained on, (64, 3, size, size)."""
    pool = Pool(seed, "held_out", 64, size)
    return to_tensor(np.stack([pool.picture(i) for i in range(pool.count)]))


def _root_mean_square(error: Tensor) -> Tensor:
    """The root of each picture's mean square, averaged: a plain mean would listen to the busiest pictures
    alone.
    """
    return (error.square().mean(dim=(1, 2, 3)) + 1e-6).sqrt().mean()


def psnr(vae: Coder, pictures: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each reconstructed picture, (B,); pictures (B, 3, H, W) in [-1,
    1].
    """
    device = home(vae)
    parts = [vae.decode(vae.encode(pictures[i : i + 8].to(device))).cpu() for i in range(0, len(pictures), 8)]
    restored = torch.cat(parts).clamp(-1, 1)
    return -10 * torch.log10((restored - pictures).square().mean(dim=(1, 2, 3)) / 4)
