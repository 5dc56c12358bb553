"""The denoiser of a run: one function of a model and settings."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

from torch import Tensor

from core.inference.model import Model
from core.inference.start import Start
from core.request.settings import Settings
from core.sampling.denoiser import Denoiser
from core.sampling.feature_reuse import Savings
from core.sampling.guidance import interval


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
    guided = settings.cfg_scale != 1
    if embeddings is None:
        texts = (settings.prompt, settings.negative) if guided else (settings.prompt,)
        embeddings = model.encode_prompts(*texts, clip_skip=settings.clip_skip)
    everywhere = (0.0, math.inf)
    return Denoiser(
        model.predict,
        model.noise_schedule,
        prediction=model.config.noise.prediction,
        conditional=embeddings[0],
        unconditional=embeddings[1] if guided else None,
        cfg_scale=settings.cfg_scale,
        cfg_rescale=settings.cfg_rescale,
        cfg_interval=everywhere if grid is None else interval(grid, settings.cfg_from, settings.cfg_to),
        blend=start.blend,
        extra=start.extra,
        savings=Savings.of(model, settings.feature_reuse, settings.token_merging),
        cancel=cancel,
        dtype=model.dtype,
    )
