"""The noise tables that the views compare: kinds of betas, with the values of their papers."""

from __future__ import annotations

from typing import Any

from core.checks import hint
from core.errors import UserError
from core.models.config import NoiseConfig
from core.sampling.schedule import NoiseSchedule

# name -> the keys of `scheduler_config.json`
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
    """Every noise table that models can be trained with here, with 1,000 timesteps each."""
    made = {}
    for name, keys in _KNOWN.items():
        try:
            made[name] = NoiseConfig(**keys).schedule()
        except UserError:  # betas that NoiseConfig does not know
            continue
    return made


def table(name: str) -> NoiseSchedule:
    """The table called `name`. Raises UserError with the nearest name if there is none."""
    known = tables()
    if name not in known:
        raise UserError(f"There are no betas {name!r}{hint(name, known)}")
    return known[name]
