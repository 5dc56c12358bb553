"""The k-diffusion family against diffusers' schedulers: whole trajectories on one grid, with one noise.

diffusers' Euler, Euler ancestral and multistep DPM-Solver compute in single precision whatever they are
given; the others are compared in double precision.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from itertools import pairwise
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from core.sampling.noise import BrownianNoise
from samplers.dpm2 import dpm2, dpm2_a
from samplers.dpmpp import dpmpp_2m, dpmpp_2s_a
from samplers.dpmpp_multistep_sde import dpmpp_2m_sde, dpmpp_3m_sde
from samplers.dpmpp_sde import dpmpp_sde
from samplers.euler import euler, euler_a
from samplers.heun import heun
from samplers.lms import lms
from tests.samplers.references import (
    COUNTS,
    DOUBLE,
    NUMPY_WARNINGS,
    SHAPE,
    SINGLE,
    Sampler,
    by_step,
    doubled,
    draw_from,
    drive,
    gap,
    grid,
    no_noise,
    ours,
    randn,
    scheduler,
    start,
    table,
)

pytestmark = NUMPY_WARNINGS


@pytest.mark.parametrize("count", COUNTS)
def test_euler(count: int) -> None:
    sigmas = grid(count)
    made = scheduler("euler_discrete", "EulerDiscrete", count)
    made.sigmas = table(sigmas)
    theirs = drive(made, start(sigmas, torch.float32), sigmas[:-1])
    assert gap(ours(euler, sigmas, dtype=torch.float32)[-1], theirs[-1]) < SINGLE


@pytest.mark.parametrize("count", COUNTS)
def test_euler_with_churn(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With churn the network is asked at the raised level here; diffusers asks it at the level before.

    So a constant network output is used there: its answer does not depend on where it is asked.
    """
    sigmas, draws = grid(count), randn(count, torch.float32)
    constant = randn(1, torch.float32, seed=8)[0]
    x = start(sigmas, torch.float32)
    options = {"s_churn": 4.0, "s_tmin": 0.1, "s_tmax": 9.0, "s_noise": 1.01}
    made = scheduler("euler_discrete", "EulerDiscrete", count)
    made.sigmas = table(sigmas)
    used = [draw for draw, sigma in zip(draws, sigmas[:-1], strict=True) if 0.1 <= sigma <= 9.0]
    draw_from(monkeypatch, "euler_discrete", used)
    theirs = x
    for t in made.timesteps:
        theirs = made.step(constant, t, theirs, **options).prev_sample
    steps = euler(lambda x, sigma: x - sigma * constant, x, sigmas, by_step(sigmas, draws), **options)
    mine = [step.x for step in steps][-1]
    assert gap(mine, theirs) < SINGLE
    assert gap(mine, x - sigmas[0] * constant) > 1e-3  # where it goes without churn


@pytest.mark.parametrize("count", COUNTS)
def test_euler_a(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sigmas, draws = grid(count), randn(count, torch.float32)
    made = scheduler("euler_ancestral_discrete", "EulerAncestralDiscrete", count)
    made.sigmas = table(sigmas)
    draw_from(monkeypatch, "euler_ancestral_discrete", draws)
    theirs = drive(made, start(sigmas, torch.float32), sigmas[:-1])
    mine = ours(euler_a, sigmas, by_step(sigmas, draws), torch.float32)
    assert gap(mine[-1], theirs[-1]) < SINGLE


@pytest.mark.parametrize("count", COUNTS)
def test_heun(count: int) -> None:
    sigmas = grid(count)
    made = scheduler("heun_discrete", "HeunDiscrete", count)
    made.sigmas = doubled(table(sigmas))
    levels = [level for pair in pairwise(sigmas) for level in pair if level > 0]
    assert gap(ours(heun, sigmas)[-1], drive(made, start(sigmas), levels)[-1]) < DOUBLE


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_lms(count: int, order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Diffusers integrates with scipy, which need not be here: Simpson's rule is exact for its cubics."""

    def quad(f: Callable[[float], Any], a: float, b: float, epsrel: float) -> tuple[Any, float]:
        return (b - a) / 6 * (f(a) + 4 * f((a + b) / 2) + f(b)), 0.0

    home = pytest.importorskip("diffusers.schedulers.scheduling_lms_discrete")
    monkeypatch.setattr(home, "integrate", SimpleNamespace(quad=quad), raising=False)
    sigmas = grid(count)
    made = scheduler("lms_discrete", "LMSDiscrete", count)
    made.sigmas = table(sigmas)
    theirs = drive(made, start(sigmas), sigmas[:-1], order=order)
    assert gap(ours(lms, sigmas, order=order)[-1], theirs[-1]) < DOUBLE


def halfway(sigma: float, target: float) -> list[float]:
    return [sigma, math.sqrt(sigma * target)] if target > 0 else [sigma]


@pytest.mark.parametrize("count", COUNTS)
def test_dpm2(count: int) -> None:
    sigmas = grid(count)
    made = scheduler("k_dpm_2_discrete", "KDPM2Discrete", count)
    levels = table(sigmas)
    made.sigmas = torch.cat([levels[:1], levels[1:].repeat_interleave(2), levels[-1:]])
    between = (levels * levels.roll(1)).sqrt()
    made.sigmas_interpol = torch.cat([between[:1], between[1:].repeat_interleave(2), between[-1:]])
    asked = [level for pair in pairwise(sigmas) for level in halfway(*pair)]
    assert gap(ours(dpm2, sigmas)[-1], drive(made, start(sigmas), asked)[-1]) < DOUBLE


@pytest.mark.parametrize("count", COUNTS)
def test_dpm2_a(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sigmas, draws = grid(count), randn(count)
    made = scheduler("k_dpm_2_ancestral_discrete", "KDPM2AncestralDiscrete", count)
    levels = table(sigmas)
    following = torch.cat([levels[1:], levels.new_zeros(1)])
    up = (following**2 * (levels**2 - following**2) / levels**2).nan_to_num().sqrt()
    down = (following**2 - up**2).sqrt()
    between = (levels * down).sqrt()
    for name, values in (
        ("sigmas", levels),
        ("sigmas_up", up),
        ("sigmas_down", down),
        ("sigmas_interpol", between),
    ):
        setattr(made, name, torch.cat([values[:1], values[1:].repeat_interleave(2), values[-1:]]))
    draw_from(monkeypatch, "k_dpm_2_ancestral_discrete", draws)
    asked = [level for sigma, low in zip(sigmas, down.tolist(), strict=True) for level in halfway(sigma, low)]
    theirs = drive(made, start(sigmas), asked[:-1])
    assert gap(ours(dpm2_a, sigmas, by_step(sigmas, draws))[-1], theirs[-1]) < DOUBLE


def multistep(count: int, **config: Any) -> Any:
    made = scheduler("dpmsolver_multistep", "DPMSolverMultistep", count, final_sigmas_type="zero", **config)
    made.sigmas = table(grid(count))
    return made


@pytest.mark.parametrize("count", COUNTS)
def test_dpmpp_2m(count: int) -> None:
    """In float32, as diffusers computes it."""
    sigmas = grid(count)
    theirs = drive(multistep(count), start(sigmas, torch.float32), sigmas[:-1], ddpm=True)
    assert gap(ours(dpmpp_2m, sigmas, dtype=torch.float32)[-1], theirs[-1]) < SINGLE


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("solver", ["midpoint", "heun"])
def test_dpmpp_2m_sde(count: int, solver: str) -> None:
    """In float32, as diffusers computes it."""
    sigmas, draws = grid(count), randn(count, torch.float32)
    made = multistep(count, algorithm_type="sde-dpmsolver++", solver_type=solver)
    x = start(sigmas, torch.float32)
    rest = iter(draws)
    step = made.step
    made.step = lambda *args: step(*args, variance_noise=next(rest))
    theirs = drive(made, x, sigmas[:-1], ddpm=True)
    mine = ours(dpmpp_2m_sde, sigmas, by_step(sigmas, draws), torch.float32, solver=solver)
    assert gap(mine[-1], theirs[-1]) < SINGLE


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_dpmpp_3m_sde_but_for_the_second_difference(count: int, eta: float) -> None:
    """Deliberate difference: the weight of the second difference, d2 below.

    Integrating the parabola gives -2 phi_3. diffusers has -phi_3 without noise (as k-diffusion has always),
    and -phi_3 - 1 with noise. With that put right in it, the two are one.
    """
    sigmas, draws = grid(count), randn(count, torch.float32)

    def run(*, mended: bool) -> torch.Tensor:
        kind = "sde-dpmsolver++" if eta else "dpmsolver++"
        made = multistep(
            count, algorithm_type=kind, solver_type="heun", solver_order=3, lower_order_final=False
        )
        rest, step, third = iter(draws), made.step, made.multistep_dpm_solver_third_order_update

        def update(outputs: list[torch.Tensor], *, sample: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
            h, h_0, h_1 = (
                math.log(sigmas[i] / sigmas[i + 1]) for i in range(made.step_index, made.step_index - 3, -1)
            )
            m0, m1, m2 = reversed(outputs)
            d2 = ((m0 - m1) * h / h_0 - (m1 - m2) * h / h_1) * h / (h_0 + h_1)
            a = (1 + eta) * h
            phi_3 = (math.exp(-a) - 1 + a) / a**2 - 0.5
            missing = (-2 * phi_3) - (-phi_3 - eta)
            alpha = 1 / math.sqrt(1 + sigmas[made.step_index + 1] ** 2)
            plain: torch.Tensor = third(outputs, sample=sample, noise=noise)
            return plain + alpha * missing * d2

        if mended:
            made.multistep_dpm_solver_third_order_update = update
        made.step = lambda *args: step(*args, variance_noise=next(rest))
        return drive(made, start(sigmas, torch.float32), sigmas[:-1], ddpm=True)[-1]

    noise = by_step(sigmas, draws) if eta else no_noise
    mine = ours(dpmpp_3m_sde, sigmas, noise, torch.float32, eta=eta)[-1]
    assert gap(mine, run(mended=True)) < SINGLE
    assert gap(mine, run(mended=False)) > 1e-4
    if not eta:
        form = ours(dpmpp_3m_sde, sigmas, noise, torch.float32, eta=eta, form="k-diffusion")[-1]
        assert gap(form, run(mended=False)) < SINGLE


@pytest.mark.parametrize("count", COUNTS)
def test_dpmpp_2s_without_noise(count: int) -> None:
    """Diffusers' single-step 2S has its middle on the grid: it is given a grid with our middles in it."""
    sigmas = grid(count)
    levels = [level for pair in pairwise(sigmas) for level in halfway(*pair)]
    made = scheduler(
        "dpmsolver_singlestep",
        "DPMSolverSinglestep",
        len(levels),
        final_sigmas_type="zero",
        lower_order_final=True,
        solver_order=2,
    )
    made.sigmas = table([*levels, 0.0])
    made.order_list = [1, 2] * (len(levels) // 2) + [1]
    theirs = drive(made, start(sigmas), levels, ddpm=True)
    assert gap(ours(dpmpp_2s_a, sigmas, eta=0.0)[-1], theirs[-1]) < SINGLE


@pytest.mark.parametrize("count", COUNTS)
def test_dpmpp_sde_on_one_brownian_path(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Diffusers' own path, of the package torchsde, is replaced by ours."""
    monkeypatch.setitem(sys.modules, "torchsde", ModuleType("torchsde"))
    monkeypatch.delitem(sys.modules, "diffusers.schedulers.scheduling_dpmsolver_sde", raising=False)
    sigmas = grid(count)
    made = scheduler("dpmsolver_sde", "DPMSolverSDE", count)
    monkeypatch.delitem(sys.modules, "diffusers.schedulers.scheduling_dpmsolver_sde")
    made.sigmas = doubled(table(sigmas))
    noise = BrownianNoise(5, SHAPE[0], SHAPE[1:])
    made.noise_sampler = lambda sigma, target: noise(float(sigma), float(target))
    levels = [level for pair in pairwise(sigmas) for level in halfway(*pair)]
    theirs = drive(made, start(sigmas), levels)
    assert gap(ours(dpmpp_sde, sigmas, noise)[-1], theirs[-1]) < DOUBLE


IDENTITIES: list[tuple[Sampler, dict[str, Any], Sampler, dict[str, Any]]] = [
    (dpmpp_2m_sde, {"eta": 0.0}, dpmpp_2m, {}),
    (dpmpp_sde, {"eta": 0.0}, dpmpp_2s_a, {"eta": 0.0}),
    (dpm2_a, {"eta": 0.0}, dpm2, {}),
    (euler_a, {"eta": 0.0}, euler, {}),
    (lms, {"order": 1}, euler, {}),
]


@pytest.mark.parametrize(("one", "options", "other", "others"), IDENTITIES)
def test_without_noise_the_stochastic_ones_are_the_deterministic(
    one: Sampler, options: dict[str, Any], other: Sampler, others: dict[str, Any]
) -> None:
    sigmas = grid(12)
    assert gap(ours(one, sigmas, **options)[-1], ours(other, sigmas, **others)[-1]) < 1e-12
