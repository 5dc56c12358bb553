"""The denoiser of a run: one function of a model and settings."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from core.inference.model import Model
from core.inference.start import Start
from core.request.settings import Settings
from core.sampling.denoiser import Denoiser
from core.sampling.feature_reuse import Savings
from core.sampling.guidance import interval


@dataclass(frozen=True)
class SelfGuided:
    """A model whose UNet reads the guidance scale, at one scale; `guidance` is the scale minus 1."""

    model: Model
    guidance: float

    def predict(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """As `Model.predict`."""
        return self.evaluate(x, timesteps, context)[0]

    def evaluate(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        *,
        deep: Tensor | None = None,
        merging: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """As `Model.evaluate`."""
        return self.model.evaluate(x, timesteps, context, deep=deep, merging=merging, guidance=self.guidance)


def build_denoiser(
    model: Model,
    settings: Settings,
    start: Start,
    *,
    grid: Sequence[float] | None = None,
    embeddings: Sequence[Tensor] | None = None,
    cancel: threading.Event | None = None,
) -> Denoiser:
    """The `denoise(x, sigma)` of a run of `settings` from `start`.

    grid: the levels of the whole schedule, for the guidance interval; None guides everywhere. embeddings:
    conditional and unconditional prompt embeddings (1, T, D), instead of those of the settings. Raises
    UserError.
    """
    guides_itself = model.config.unet.guides_itself
    guided = settings.cfg_scale != 1 and not guides_itself
    network = SelfGuided(model, settings.cfg_scale - 1) if guides_itself else model
    if embeddings is None:
        texts = (settings.prompt, settings.negative) if guided else (settings.prompt,)
        embeddings = model.encode_prompts(*texts, clip_skip=settings.clip_skip, emphasis=settings.emphasis)
    everywhere = (0.0, math.inf)
    return Denoiser(
        network.predict,
        model.noise_schedule,
        prediction=model.config.noise.prediction,
        conditional=embeddings[0],
        unconditional=embeddings[1] if guided else None,
        cfg_scale=settings.cfg_scale if guided else 1.0,
        cfg_rescale=settings.cfg_rescale,
        cfg_interval=everywhere if grid is None else interval(grid, settings.cfg_from, settings.cfg_to),
        blend=start.blend,
        extra=start.extra,
        savings=Savings.of(network, settings.feature_reuse, settings.token_merging),
        cancel=cancel,
        dtype=model.dtype,
    )
