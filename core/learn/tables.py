"""The noise tables that the views compare: the ways to choose betas, as their papers have them."""

from __future__ import annotations

from typing import Any

from core.checks import hint
from core.errors import UserError
from core.models.config import NoiseConfig
from core.sampling.schedule import NoiseSchedule

# How people call it -> the keys of `scheduler_config.json`, and where it comes from.
_KNOWN: dict[str, dict[str, Any]] = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "scaled_linear": {"beta_schedule": "scaled_linear"},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "sigmoid": {"beta_schedule": "sigmoid", "beta_start": 1e-4, "beta_end": 0.02},
}
TITLES = {
    "linear": "linear (DDPM)",
    "scaled_linear": "scaled linear (Stable Diffusion)",
    "cosine": "cosine (Improved DDPM)",
    "sigmoid": "sigmoid",
}


def tables() -> dict[str, NoiseSchedule]:
    """Every table that models of this project may be trained with, of 1,000 timesteps."""
    made = {}
    for name, keys in _KNOWN.items():
        try:
            made[name] = NoiseConfig(**keys).schedule()
        except UserError:  # betas that NoiseConfig does not know
            continue
    return made


def table(name: str) -> NoiseSchedule:
    """One of them. Raises UserError with the nearest name for another."""
    known = tables()
    if name not in known:
        raise UserError(f"There are no betas {name!r}{hint(name, known)}")
    return known[name]
