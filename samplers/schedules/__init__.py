"""The plugin of the built-in schedules: the noise levels of N steps, one file for each kind.

All end with 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentcanvas import hookimpl
from samplers.schedules.align_your_steps import align_your_steps
from samplers.schedules.curves import exponential, karras, kl_optimal, linear_quadratic, polyexponential
from samplers.schedules.quantiles import beta, laplace
from samplers.schedules.timesteps import leading, linspace, trailing
from samplers.schedules.uniform import normal, sgm_uniform, simple

if TYPE_CHECKING:
    from latentcanvas import RegisterSchedule


@hookimpl
def register_schedules(register: RegisterSchedule) -> None:
    spacings = "arXiv:2305.08891"
    register("leading", leading, title="Leading", paper=spacings)
    register("linspace", linspace, title="Linspace", paper=spacings)
    register("trailing", trailing, title="Trailing", paper=spacings)
    register("karras", karras, title="Karras", paper="arXiv:2206.00364")
    register("exponential", exponential, title="Exponential", paper="arXiv:2206.00927")
    register("polyexponential", polyexponential, title="Polyexponential")
    register("sgm_uniform", sgm_uniform, title="SGM Uniform", paper="arXiv:2307.01952")
    register("simple", simple, title="Simple")
    register("normal", normal, title="Normal")
    register("beta", beta, title="Beta", paper="arXiv:2407.12173")
    register("kl_optimal", kl_optimal, title="KL Optimal", paper="arXiv:2404.14507")
    register("align_your_steps", align_your_steps, title="Align Your Steps", paper="arXiv:2404.14507")
    register("laplace", laplace, title="Laplace", paper="arXiv:2407.03297")
    register("linear_quadratic", linear_quadratic, title="Linear Quadratic", paper="arXiv:2410.13720")
