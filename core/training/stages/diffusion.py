"""The last stage: the UNet learns to undo noise (Ho et al. 2020, arXiv:2006.11239, section 3.2)."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.errors import UserError
from core.models.build import Coder
from core.models.clip import CLIPTextEncoder
from core.models.config import NoiseConfig, PredictionType
from core.models.unet import UNet
from core.prompts.tokenizer import Tokenizer
from core.scenes.pool import to_tensor
from core.training.processes import Share
from core.training.samples import SampleRequest, draw_samples
from core.training.sets.storybook import DrawnLatents
from core.training.training_loop import Precision, home, mixed_precision

Latents = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class DiffusionLoss:
    """min_snr: weigh timesteps by how much can be learned there (Hang et al. 2023, arXiv:2303.09556); without
    it the error of the prediction counts the same everywhere. gamma: the most weight that the error of the
    clean estimate gets at little noise; tilt: how far the weight of v falls towards pure noise, 0 not at all
    and 1 to where the error of epsilon has it; dropout: captions left out, for guidance.

    levels: how timesteps are drawn; "uniform", or "log_normal" so that the logarithm of sigma is normal with
    this mean and deviation (Karras et al. 2022, arXiv:2206.00364, table 1), which weighs by how often.
    """

    min_snr: bool = True
    gamma: float = 5.0
    tilt: float = 0.0
    dropout: float = 0.1
    levels: Literal["uniform", "log_normal"] = "uniform"
    mean: float = -0.5
    deviation: float = 1.3

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise UserError("unet_loss.gamma must be above 0.")
        if not 0 <= self.tilt <= 1:
            raise UserError("unet_loss.tilt must be between 0 and 1.")
        if not 0 <= self.dropout <= 1:
            raise UserError("unet_loss.dropout must be between 0 and 1, a part of the captions.")
        if not self.deviation > 0:
            raise UserError("unet_loss.deviation must be above 0.")

    def timesteps(self, quantiles: NDArray[np.float64], log_sigmas: NDArray[np.float64]) -> Tensor:
        """Timesteps (B,) at these parts of their distribution, of a table of ascending log sigmas."""
        if self.levels == "uniform":
            return torch.from_numpy(quantiles * len(log_sigmas)).long()
        normal = torch.special.ndtri(torch.from_numpy(quantiles).clamp(1e-6, 1 - 1e-6))
        wanted = normal * self.deviation + self.mean
        middles = torch.from_numpy((log_sigmas[1:] + log_sigmas[:-1]) / 2)
        return torch.searchsorted(middles, wanted)

    def weight(self, snr: Tensor, prediction: PredictionType) -> Tensor:
        """Of the squared error of the prediction, by the signal-to-noise ratio; both (B,)."""
        if not self.min_snr:
            return torch.ones_like(snr)
        if prediction == "epsilon":
            return (self.gamma / snr).clamp(max=1)
        if prediction == "sample":
            return snr.clamp(max=self.gamma)
        # v, arXiv:2202.00512: untilted, pure noise weighs as much as any, and there the text alone decides
        return (self.gamma / (snr + 1)).clamp(max=1) * (snr / (snr + 1)) ** self.tilt


class Captioned(Protocol):
    """What the stage has to know of its data, apart from the latents."""

    @property
    def seed(self) -> int: ...

    def caption(self, index: int, purpose: str) -> str:
        """What picture `index` is called, the same for the same purpose."""


class DiffusionStage:
    """Trains a UNet that predicts epsilon, v or x0, on stored latents and fresh captions of them.

    joint: the text encoder learns with it, and is in `modules` next to it. wordless: every caption is the
    empty one. coder, asked: how samples are drawn; none are where they are not given. share: the part of each
    batch that this process computes.
    """

    name = "unet"

    def __init__(
        self, unet: UNet, encoder: CLIPTextEncoder, tokenizer: Tokenizer, noise: NoiseConfig,
        latents: Latents | DrawnLatents, pool: Captioned, test: tuple[Latents | DrawnLatents, Captioned],
        settings: DiffusionLoss, *, batch: int, joint: bool = False, wordless: bool = False,
        precision: Precision = "bfloat16", coder: Coder | None = None, asked: SampleRequest | None = None,
        share: Share | None = None,
    ) -> None:  # fmt: skip
        self.modules: nn.Module = nn.ModuleDict({"unet": unet, "text": encoder}) if joint else unet
        self.unet, self.encoder, self.tokenizer = unet, encoder, tokenizer
        self.noise, self.prediction = noise, noise.prediction_type
        self.alphas = torch.tensor(noise.schedule().alphas_cumprod, dtype=torch.float32, device=home(unet))
        self.latents, self.pool, self.test = latents, pool, test
        self.settings, self.batch, self.precision = settings, batch, precision
        self.joint, self.wordless, self.coder, self.asked = joint, wordless, coder, asked
        self.share = Share() if share is None else share

    def loss(self, step: int) -> Tensor:
        """The loss of step `step`, a scalar: see DiffusionLoss."""
        rng = np.random.default_rng((self.pool.seed, step))
        mine = self.share.of(self.batch)
        indices = rng.integers(len(self.latents), size=self.batch)
        dropped = rng.random(self.batch) < self.settings.dropout
        texts = [
            "" if drop or self.wordless else self.pool.caption(int(i), f"caption {step}")
            for i, drop in list(zip(indices, dropped, strict=True))[mine]
        ]
        # One timestep from each of `batch` equal parts of the range: less variance than independent ones.
        t = self._timesteps((np.arange(self.batch) + rng.random(self.batch)) / self.batch)
        noise = torch.from_numpy(rng.standard_normal((self.batch, *self.latents.shape[1:]), dtype=np.float32))
        x0 = torch.from_numpy(self.latents[indices[mine]]).float()
        return self._loss(x0, t[mine], noise[mine], self._encode(texts)) * self.share.weight(self.batch)

    def _timesteps(self, quantiles: NDArray[np.float64]) -> Tensor:
        alphas = self.alphas.double().cpu().numpy()
        return self.settings.timesteps(quantiles, np.log((1 - alphas) / alphas) / 2)

    def _loss(self, x0: Tensor, t: Tensor, noise: Tensor, context: Tensor) -> Tensor:
        """Weighted squared error of the prediction; x0 (B, C, h, w), t (B,)."""
        x0, t, noise = (each.to(self.alphas.device) for each in (x0, t, noise))
        alpha = self.alphas[t].view(-1, 1, 1, 1)
        signal, spread = alpha.sqrt(), (1 - alpha).sqrt()
        x = signal * x0 + spread * noise  # arXiv:2006.11239, eq. 4
        target = noise if self.prediction == "epsilon" else signal * noise - spread * x0
        if self.prediction == "sample":
            target = x0
        weight = self.settings.weight(self.alphas[t] / (1 - self.alphas[t]), self.prediction)
        with mixed_precision(self.unet, self.precision), attention_kernel(x0.device):
            predicted = self.unet(x, t, context)
        error = (predicted.float() - target).square().mean(dim=(1, 2, 3))
        loss: Tensor = (error * weight).mean()
        return loss

    def _encode(self, texts: list[str]) -> Tensor:
        """Text states (B, T, D), with gradients when the encoder learns too."""
        if not self.joint and not self.wordless:
            return self._states(texts)
        distinct = list(dict.fromkeys(texts))  # few: each is encoded once
        states = self._states(distinct, frozen=not self.joint)
        return states[[distinct.index(text) for text in texts]]

    def _states(self, texts: list[str], *, frozen: bool = True) -> Tensor:
        chunks = [self.tokenizer.chunks(text)[0].ids for text in texts]
        ids = torch.tensor(chunks, device=self.alphas.device)
        grad = torch.is_grad_enabled() and not frozen
        with torch.set_grad_enabled(grad), mixed_precision(self.unet, self.precision):
            states: Tensor = self.encoder(ids)
        return states.float()

    def measure(self) -> Mapping[str, float]:
        """The same loss on up to 512 held-out pictures with fixed noise and captions."""
        latents, pool = self.test
        rng = np.random.default_rng(pool.seed)
        losses = []
        for first in range(0, len(latents), 64):
            part = range(first, min(first + 64, len(latents)))
            texts = ["" if self.wordless else pool.caption(i, "caption") for i in part]
            t = (
                torch.from_numpy(rng.integers(len(self.alphas), size=len(part)))
                if self.settings.levels == "uniform"
                else self._timesteps(rng.random(len(part)))
            )
            noise = torch.from_numpy(rng.standard_normal((len(part), *latents.shape[1:]), dtype=np.float32))
            x0 = torch.from_numpy(latents[part.start : part.stop]).float()
            losses.append(len(part) * float(self._loss(x0, t, noise, self._encode(texts))))
        return {"test_loss": round(sum(losses) / len(latents), 5)}

    @torch.no_grad()
    def sample(self) -> list[Image.Image]:
        """Pictures from the same noise each time, with the weights as they are now."""
        if self.coder is None or self.asked is None:
            return []
        conditional = self._encode(list(self.asked.texts))
        unconditional = self._encode([""])
        return draw_samples(self.unet, self.coder, self.noise, self.asked, conditional, unconditional)


def attention_kernel(device: torch.device) -> AbstractContextManager[object]:
    """On a CPU the plain kernel: the fused one spends a third of a step in its backward pass there. Elsewhere
    torch chooses.

    The choice is one for the whole process. On a thread among others it is left alone, for pictures that are
    made meanwhile would come out with other last digits.
    """
    alone = threading.current_thread() is threading.main_thread()
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" and alone else nullcontext()


def encode_pool(vae: Coder, pictures: NDArray[np.uint8], batch: int = 32) -> Tensor:
    """Scaled latents of one block of pictures (N, H, W, 3), as float16 (N, C, h, w)."""
    device = home(vae)
    with torch.no_grad(), mixed_precision(vae):
        parts = [
            vae.encode(to_tensor(pictures[i : i + batch]).to(device)) for i in range(0, len(pictures), batch)
        ]
    return torch.cat(parts).cpu().to(torch.float16)
