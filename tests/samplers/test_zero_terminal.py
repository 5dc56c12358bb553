"""Every sampler and schedule from a level where nothing of the picture is left (zero-terminal SNR)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from core.errors import UserError
from core.inference.start import Start
from core.models.config import NoiseConfig
from core.plugins import current
from core.sampling.denoiser import Denoiser
from core.sampling.loop import run_sampler
from core.sampling.noise import noise_source, start_noise

MODEL = NoiseConfig(rescale_betas_zero_snr=True, prediction_type="v_prediction").schedule()
SHAPE = (2, 16, 16)
MEAN, SPREAD = 0.6, 0.25
REGISTRY = current.registry()


def exact_v(x: Tensor, t: Tensor, context: Tensor) -> Tensor:
    """V of data N(MEAN, SPREAD^2), from the DDPM state x: what a perfect network says."""
    sigma = MODEL.sigma(float(t[0]))
    signal, noise = 1 / math.sqrt(1 + sigma**2), sigma / math.sqrt(1 + sigma**2)
    variance = (signal * SPREAD) ** 2 + noise**2
    x0 = MEAN + signal * SPREAD**2 / variance * (x - signal * MEAN)
    epsilon = noise / variance * (x - signal * MEAN)
    return signal * epsilon - noise * x0


def run(sampler: str, schedule: str, steps: int = 30) -> Tensor:
    info = REGISTRY.sampler(sampler)
    text = torch.zeros(1, 2, 4)
    denoiser = Denoiser(exact_v, MODEL, prediction="v", conditional=text, unconditional=None, cfg_scale=1.0)
    levels = REGISTRY.schedule(schedule).sigmas(MODEL, steps)
    x = Start().state(start_noise(0, 1, SHAPE), levels[0])
    noise = noise_source(info.noise, 0, 1, SHAPE)
    *_, last = run_sampler(info, denoiser, x, levels, noise, info.check_options({}))
    return last.x


@pytest.mark.parametrize("sampler", [name for name, info in REGISTRY.samplers.items() if not info.distilled])
def test_every_sampler_comes_to_the_data(sampler: str) -> None:
    x = run(sampler, "trailing")
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.06)
    assert 0.15 < float(x.std()) < 0.4


@pytest.mark.parametrize("schedule", list(REGISTRY.schedules))
def test_every_schedule_starts_where_it_can_be_started(schedule: str) -> None:
    x = run("dpmpp_2m", schedule)
    assert bool(x.isfinite().all())
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.06)


def test_the_noise_cannot_be_what_is_predicted() -> None:
    with pytest.raises(UserError, match="v_prediction or sample"):
        NoiseConfig(rescale_betas_zero_snr=True).schedule()
