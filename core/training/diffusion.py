"""The last stage: the UNet learns to undo noise (Ho et al. 2020, arXiv:2006.11239, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.models.clip import CLIPTextEncoder
from core.models.config import NoiseConfig
from core.models.unet import UNet
from core.models.vae import AutoencoderKL
from core.prompt import Tokenizer
from core.training.captions import caption
from core.training.loop import home, mixed_precision
from core.training.pool import Pool, to_tensor


@dataclass(frozen=True, kw_only=True)
class DiffusionLoss:
    """gamma: the most weight that the error of the clean estimate gets at little noise, as in min-SNR
    weighting (Hang et al. 2023, arXiv:2303.09556); dropout: captions left out, for guidance.
    """

    gamma: float = 5.0
    dropout: float = 0.1


class DiffusionStage:
    """Trains `modules`, a UNet that predicts epsilon or v, on stored latents and fresh captions of them."""

    name = "unet"

    def __init__(
        self, unet: UNet, encoder: CLIPTextEncoder, tokenizer: Tokenizer, noise: NoiseConfig,
        latents: NDArray[np.float16], pool: Pool, test: tuple[NDArray[np.float16], Pool],
        settings: DiffusionLoss, *, batch: int,
    ) -> None:  # fmt: skip
        self.modules: nn.Module = unet
        self.unet, self.encoder, self.tokenizer = unet, encoder, tokenizer
        self.alphas = torch.tensor(noise.schedule().alphas_cumprod, dtype=torch.float32, device=home(unet))
        self.prediction = noise.prediction_type
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
        """Weighted squared error of the prediction; x0 (B, C, h, w), t (B,)."""
        x0, t, noise = (each.to(self.alphas.device) for each in (x0, t, noise))
        alpha = self.alphas[t].view(-1, 1, 1, 1)
        signal, spread = alpha.sqrt(), (1 - alpha).sqrt()
        x = signal * x0 + spread * noise  # arXiv:2006.11239, eq. 4
        snr = self.alphas[t] / (1 - self.alphas[t])
        if self.prediction == "epsilon":
            target, weight = noise, (self.settings.gamma / snr).clamp(max=1)
        else:  # v, arXiv:2202.00512: pure noise weighs as much as any, and there the text alone decides
            target, weight = signal * noise - spread * x0, (self.settings.gamma / (snr + 1)).clamp(max=1)
        # The plain kernel: on a CPU the fused one spends a third of the step in its backward pass.
        with mixed_precision(self.unet), sdpa_kernel(SDPBackend.MATH):
            predicted = self.unet(x, t, context)
        error = (predicted.float() - target).square().mean(dim=(1, 2, 3))
        loss: Tensor = (error * weight).mean()
        return loss

    @torch.no_grad()
    def _encode(self, texts: list[str]) -> Tensor:
        chunks = [self.tokenizer.chunks(text)[0] for text in texts]
        ids = torch.tensor(chunks, device=self.alphas.device)
        with mixed_precision(self.unet):
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
    device = home(vae)
    with torch.no_grad(), mixed_precision(vae):
        parts = [
            vae.encode(to_tensor(pictures[i : i + batch]).to(device)) for i in range(0, len(pictures), batch)
        ]
    return torch.cat(parts).cpu().to(torch.float16)
