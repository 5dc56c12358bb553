"""The last stage: the UNet learns to undo noise (Ho et al. 2020, arXiv:2006.11239, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.models.clip import CLIPTextEncoder
from core.models.unet import UNet
from core.models.vae import AutoencoderKL
from core.prompt import Tokenizer
from core.schedule import NoiseSchedule
from core.training.captions import caption
from core.training.pool import Pool, to_tensor


@dataclass(frozen=True, kw_only=True)
class DiffusionLoss:
    """gamma: min-SNR weighting (Hang et al. 2023, arXiv:2303.09556); dropout: captions left out, for
    guidance.
    """

    gamma: float = 5.0
    dropout: float = 0.1


class DiffusionStage:
    """Trains `modules`, a UNet that predicts epsilon, on stored latents and fresh captions of them."""

    name = "unet"

    def __init__(
        self, unet: UNet, encoder: CLIPTextEncoder, tokenizer: Tokenizer, noise: NoiseSchedule,
        latents: NDArray[np.float16], pool: Pool, test: tuple[NDArray[np.float16], Pool],
        settings: DiffusionLoss, *, batch: int,
    ) -> None:  # fmt: skip
        self.modules: nn.Module = unet
        self.unet, self.encoder, self.tokenizer = unet, encoder, tokenizer
        self.alphas = torch.tensor(noise.alphas_cumprod, dtype=torch.float32)
        self.latents, self.pool, self.test = latents, pool, test
        self.settings, self.batch = settings, batch

    def loss(self, step: int) -> Tensor:
        rng = np.random.default_rng((self.pool.seed, step))
        indices = rng.integers(len(self.latents), size=self.batch)
        dropped = rng.random(self.batch) < self.settings.dropout
        texts = [
            "" if drop else caption(self.pool.spec(int(i)), self.pool.rng(int(i), f"caption {step}"))
            for i, drop in zip(indices, dropped, strict=True)
        ]
        # One timestep from each of `batch` equal parts of the range: less variance than independent ones.
        t = torch.from_numpy(
            (np.arange(self.batch) + rng.random(self.batch)) / self.batch * len(self.alphas)
        ).long()
        noise = torch.from_numpy(rng.standard_normal((self.batch, *self.latents.shape[1:]), dtype=np.float32))
        return self._loss(torch.from_numpy(self.latents[indices]).float(), t, noise, self._encode(texts))

    def _loss(self, x0: Tensor, t: Tensor, noise: Tensor, context: Tensor) -> Tensor:
        """min-SNR weighted squared error of epsilon; x0 (B, C, h, w), t (B,)."""
        alpha = self.alphas[t].view(-1, 1, 1, 1)
        x = alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise  # arXiv:2006.11239, eq. 4
        with torch.autocast("cpu", torch.bfloat16):
            predicted = self.unet(x, t, context)
        error = (predicted.float() - noise).square().mean(dim=(1, 2, 3))
        snr = self.alphas[t] / (1 - self.alphas[t])
        loss: Tensor = (error * (self.settings.gamma / snr).clamp(max=1)).mean()
        return loss

    @torch.no_grad()
    def _encode(self, texts: list[str]) -> Tensor:
        ids = torch.tensor([self.tokenizer.chunks(text)[0].ids for text in texts])
        with torch.autocast("cpu", torch.bfloat16):
            states: Tensor = self.encoder(ids)
        return states.float()

    def measure(self) -> Mapping[str, float]:
        """The same loss on 512 held-out pictures with fixed noise and captions."""
        latents, pool = self.test
        rng = np.random.default_rng(pool.seed)
        losses = []
        for first in range(0, len(latents), 64):
            part = range(first, min(first + 64, len(latents)))
            texts = [caption(pool.spec(i), pool.rng(i, "caption")) for i in part]
            t = torch.from_numpy(rng.integers(len(self.alphas), size=len(part)))
            noise = torch.from_numpy(rng.standard_normal((len(part), *latents.shape[1:]), dtype=np.float32))
            x0 = torch.from_numpy(latents[part.start : part.stop]).float()
            losses.append(float(self._loss(x0, t, noise, self._encode(texts))))
        return {"test_loss": round(sum(losses) / len(losses), 5)}


def encode_pool(vae: AutoencoderKL, pictures: NDArray[np.uint8], batch: int = 32) -> Tensor:
    """Scaled latents of one block of pictures (N, H, W, 3), as float16 (N, C, h, w)."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        parts = [vae.encode(to_tensor(pictures[i : i + batch])) for i in range(0, len(pictures), batch)]
    return torch.cat(parts).to(torch.float16)
