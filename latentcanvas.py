"""LatentCanvas for scripts, notebooks and plugins: latent diffusion that can be inspected.

    from latentcanvas import Pipeline
    pipe = Pipeline.load("tiny")
    pipe.generate(prompt="a red house under a full moon", steps=20, seed=1).images[0].save("house.png")

Names are loaded when they are first used: a plugin that imports `Step` and `hookimpl` does not load torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from core import conformance as testing
from core.sampling import solver_maths as maths

if TYPE_CHECKING:
    from core.errors import Cancelled, UserError
    from core.inference.pipeline import Pipeline
    from core.inference.trajectory import Trajectory
    from core.plugins.current import samplers, schedules
    from core.plugins.hookspecs import hookimpl
    from core.recipes.reader import read_any
    from core.request.request import Request
    from core.sampling.contract import Denoise, GuidedDenoise, Noise, Range, RegisterSampler, Sampler, Step
    from core.sampling.schedule import NoiseSchedule, RegisterSchedule, Schedule

__all__ = [
    "Cancelled",
    "Denoise",
    "GuidedDenoise",
    "Noise",
    "NoiseSchedule",
    "Pipeline",
    "Range",
    "RegisterSampler",
    "RegisterSchedule",
    "Request",
    "Sampler",
    "Schedule",
    "Step",
    "Trajectory",
    "UserError",
    "hookimpl",
    "maths",
    "read_any",
    "samplers",
    "schedules",
    "testing",
]

_HOMES = {
    "core.errors": ("Cancelled", "UserError"),
    "core.plugins.hookspecs": ("hookimpl",),
    "core.inference.pipeline": ("Pipeline",),
    "core.plugins.current": ("samplers", "schedules"),
    "core.recipes.reader": ("read_any",),
    "core.request.request": ("Request",),
    "core.sampling.contract": (
        "Denoise",
        "GuidedDenoise",
        "Noise",
        "Range",
        "RegisterSampler",
        "Sampler",
        "Step",
    ),
    "core.sampling.schedule": ("NoiseSchedule", "RegisterSchedule", "Schedule"),
    "core.inference.trajectory": ("Trajectory",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

# As `os` does for os.path: `from latentcanvas.testing import gaussian` works though this is a single file.
sys.modules[f"{__name__}.testing"] = testing
sys.modules[f"{__name__}.maths"] = maths


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("latentcanvas")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
