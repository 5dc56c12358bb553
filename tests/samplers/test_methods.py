"""What diffusers has no counterpart for: papers' own formulas, identities between samplers, convergence."""

from __future__ import annotations

import ast
import inspect
import math
import statistics
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from core.plugins.discovery import load_plugins
from core.sampling import solver_maths
from core.sampling.contract import Noise
from core.sampling.noise import BrownianNoise, SeededNoise
from samplers.cfg_pp import ddim_cfg_pp, euler_cfg_pp
from samplers.ddim import ddim
from samplers.ddpm import ddpm
from samplers.dpm_adaptive import dpm_adaptive
from samplers.dpm_fast import dpm_fast
from samplers.dpmpp_multistep_sde import dpmpp_2m_sde, dpmpp_3m_sde
from samplers.dpmpp_sde import dpmpp_sde
from samplers.er_sde import er_sde
from samplers.euler import euler, euler_a
from samplers.gradient_estimation import gradient_estimation
from samplers.heun import heun
from samplers.lms import lms
from samplers.restart import restart
from samplers.sa_solver import sa_solver
from samplers.schedules import exponential
from tests.samplers.references import (
    DENOISE,
    MODEL,
    SHAPE,
    Sampler,
    by_step,
    gap,
    grid,
    no_noise,
    ours,
    randn,
    start,
)

# Identities.

SAME: list[tuple[Sampler, dict[str, Any], Sampler, dict[str, Any]]] = [
    (ddim, {"eta": 0.0}, euler, {}),
    (ddpm, {}, euler_a, {"eta": 1.0}),
    (ddim, {"eta": 0.4}, euler_a, {"eta": 0.4}),
    (euler_cfg_pp, {}, euler, {}),
    (ddim_cfg_pp, {"eta": 0.7, "divisor": 12.5}, ddim, {"eta": 0.7}),
    (gradient_estimation, {"gamma": 1.0}, euler, {}),
    (restart, {"times": 0}, heun, {}),
]


@pytest.mark.parametrize(("one", "options", "other", "others"), SAME)
@pytest.mark.parametrize("count", [10, 30])
def test_two_names_for_one_method(
    one: Sampler, options: dict[str, Any], other: Sampler, others: dict[str, Any], count: int
) -> None:
    sigmas = grid(count)
    noise = by_step(sigmas, randn(count))
    mine, same = ours(one, sigmas, noise, **options), ours(other, sigmas, noise, **others)
    assert all(gap(a, b) < 1e-10 for a, b in zip(mine, same, strict=True))


class Guided:
    """A denoiser with guidance, as the host's is: its unguided estimate is an attribute."""

    def __init__(self, cfg_scale: float) -> None:
        self.cfg_scale = cfg_scale

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.unconditional = DENOISE(x, sigma)
        return self.unconditional + self.cfg_scale * 0.1 * torch.tanh(x)


@pytest.mark.parametrize("cfg_scale", [1.5, 5.0])
def test_cfg_pp_is_algorithm_2(cfg_scale: float) -> None:
    """Chung et al. 2024, algorithm 2, in the DDPM's coordinates, with lambda the cfg scale."""
    sigmas = grid(8)
    x = start(sigmas) / math.sqrt(1 + sigmas[0] ** 2)
    for sigma, target in pairwise(sigmas):
        alpha, alpha_next = 1 / (1 + sigma**2), 1 / (1 + target**2)
        state = x / math.sqrt(alpha)
        unguided = (state - DENOISE(state, sigma)) / sigma  # epsilon of the empty text
        guided = unguided - cfg_scale * 0.1 * torch.tanh(state) / sigma
        clean = (x - math.sqrt(1 - alpha) * guided) / math.sqrt(alpha)
        x = math.sqrt(alpha_next) * clean + math.sqrt(1 - alpha_next) * unguided
    *_, last = euler_cfg_pp(Guided(cfg_scale), start(sigmas), sigmas, no_noise)
    assert gap(last.x, x) < 1e-10
    *_, last = ddim_cfg_pp(Guided(12.5 * cfg_scale), start(sigmas), sigmas, no_noise, divisor=12.5)
    assert gap(last.x, x) < 1e-10


def test_gradient_estimation_is_adams_bashforth_where_its_gamma_says_so() -> None:
    """With gamma 3/2 and equal steps in sigma: the weights 3/2 and -1/2, but for the last step."""
    sigmas = [4 - 0.5 * i for i in range(9)]
    mine, adams = ours(gradient_estimation, sigmas, gamma=1.5), ours(lms, sigmas, order=2)
    assert all(gap(a, b) < 1e-12 for a, b in zip(mine[:-1], adams[:-1], strict=True))
    assert gap(ours(gradient_estimation, sigmas)[-2], adams[-2]) > 1e-3


# The papers' own formulas.


def dpm_solver_3(x: Tensor, sigma: float, target: float) -> Tensor:
    """Lu et al. 2022, algorithm 2, with alpha = 1, r1 = 1/3, r2 = 2/3."""
    h = math.log(sigma / target)
    s1, s2 = sigma * math.exp(-h / 3), sigma * math.exp(-2 * h / 3)
    epsilon = DENOISE.epsilon(x, sigma)
    u1 = x - s1 * math.expm1(h / 3) * epsilon
    d1 = DENOISE.epsilon(u1, s1) - epsilon
    u2 = x - s2 * math.expm1(2 * h / 3) * epsilon - s2 * 2 * (math.expm1(2 * h / 3) / (2 * h / 3) - 1) * d1
    d2 = DENOISE.epsilon(u2, s2) - epsilon
    return x - target * math.expm1(h) * epsilon - target * 3 / 2 * (math.expm1(h) / h - 1) * d2


def test_dpm_fast_is_dpm_solver_3_on_a_grid_that_is_even_in_lambda() -> None:
    sigmas = exponential(MODEL, 10)
    mine = ours(dpm_fast, sigmas)
    x = start(sigmas)
    for first in (0, 3, 6):
        x = dpm_solver_3(x, sigmas[first], sigmas[first + 3])
        assert gap(mine[first + 2], x) < 1e-10
    assert gap(mine[-1], DENOISE(x, sigmas[9])) < 1e-12


@pytest.mark.parametrize("count", range(1, 12))
def test_dpm_fast_takes_any_number_of_steps(count: int) -> None:
    assert len(ours(dpm_fast, exponential(MODEL, count))) == count


def test_dpm_adaptive_takes_more_steps_and_errs_less_when_told_to() -> None:
    sigmas = exponential(MODEL, 10)
    exact = ours(dpm_fast, exponential(MODEL, 601))[-1]
    errors, counts = [], []
    for rtol in (0.2, 0.02, 0.002):
        steps = list(dpm_adaptive(DENOISE, start(sigmas), sigmas, no_noise, rtol=rtol, atol=rtol / 6))
        assert steps[-1].sigma == 0
        assert all(a.sigma > b.sigma for a, b in pairwise(steps))
        assert [step.index for step in steps] == list(range(len(steps)))
        errors.append(gap(steps[-1].x, exact))
        counts.append(len(steps))
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert counts[0] < counts[1] < counts[2]


def test_restart_goes_up_as_often_and_as_far_as_it_is_told_to() -> None:
    sigmas = grid(14)
    drawn: list[tuple[float, float]] = []
    asked: list[float] = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        asked.append(sigma)
        return torch.zeros_like(x)

    def noise(sigma: float, target: float) -> Tensor:
        drawn.append((sigma, target))
        return torch.ones(SHAPE, dtype=torch.float64)

    steps = list(restart(denoise, 0 * start(sigmas), sigmas, noise, times=2, inner=3, low=0.1, high=2.0))
    level = next(sigma for sigma in sigmas if sigma <= 0.1)
    assert drawn == [(level, 2.0)] * 2
    assert len(asked) == 2 * 13 + 1 + 2 * 2 * 3
    assert asked.count(2.0) == 2
    # A clean latent of 0 makes every way down a scaling: noise of 2^2 - level^2 in variance, twice.
    at = sigmas.index(level) - 1
    up, down = math.sqrt(2.0**2 - level**2), level / 2.0
    assert steps[at].x.max().item() == pytest.approx((up * down + up) * down, rel=1e-9)
    drawn.clear()
    list(restart(denoise, 0 * start(sigmas), sigmas[at + 1 :], noise))  # from there on, it has been done
    assert drawn == []


def phi(u: float) -> float:
    return u * (math.exp(u**0.3) + 10.0)


def simpson(f: Callable[[float], float], a: float, b: float, pieces: int = 4000) -> float:
    h = (b - a) / pieces
    inner = sum((4 if i % 2 else 2) * f(a + i * h) for i in range(1, pieces))
    return h / 3 * (f(a) + inner + f(b))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_er_sde_solves_its_sde_for_polynomials(order: int) -> None:
    """Cui et al. 2023, eq. 9 in the variance-exploding case, for a clean latent that is a power of sigma.

    x_t = phi(t) / phi(s) x_s + phi(t) * integral of x0(u) phi'(u) / phi(u)^2 + noise; by parts, with 1 / phi.
    """
    sigmas = [9.0, 6.0, 4.0, 3.0, 0.0]
    sigma, target = sigmas[order - 1], sigmas[order]

    def clean(u: float) -> float:
        return u ** (order - 1)

    x = torch.full((1, 1, 1, 1), 5.0, dtype=torch.float64)
    z = torch.tensor(0.3, dtype=torch.float64)
    steps = list(
        er_sde(lambda x, u: torch.full_like(x, clean(u)), x, sigmas, lambda *_: z.expand_as(x), order=order)
    )
    before = x if order == 1 else steps[order - 2].x
    slope = simpson(lambda u: (order - 1) * u ** (order - 2) / phi(u), target, sigma) if order > 1 else 0.0
    inside = clean(target) / phi(target) - clean(sigma) / phi(sigma) + slope
    keep = phi(target) / phi(sigma)
    spread = math.sqrt(target**2 - (sigma * keep) ** 2)
    expected = keep * before.item() + phi(target) * inside + 0.3 * spread
    assert steps[order - 1].x.item() == pytest.approx(expected, rel=1e-9)


# Weights.


def test_history_weights_integrate_polynomials_exactly() -> None:
    nodes = [1.3, 1.1, 2.0, 2.4]
    for power in range(4):
        weights = solver_maths.history_weights(nodes, 1.0, 0.4)
        mine = sum(w * node**power for w, node in zip(weights, nodes, strict=True))
        assert mine == pytest.approx((0.4 ** (power + 1) - 1) / (power + 1), rel=1e-10)


@pytest.mark.parametrize("h", [1e-4, 0.3, 4.0])
@pytest.mark.parametrize("rate", [1.0, 2.0])
def test_exponential_weights_are_the_phi_functions(h: float, rate: float) -> None:
    """For nodes at the start and one step before: rate * h times phi_1 and phi_2, here by their series."""
    a = rate * h
    weights = solver_maths.exponential_weights([0.0, -h], 0.0, h, rate)
    phi_1 = sum((-a) ** k / math.factorial(k + 1) for k in range(60))
    phi_2 = sum((-a) ** k / math.factorial(k + 2) for k in range(60))
    assert sum(weights) == pytest.approx(a * phi_1, rel=1e-10)
    assert weights[1] == pytest.approx(-a * phi_2, rel=1e-8)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_the_ancestral_split_adds_up(eta: float) -> None:
    for sigma, target in pairwise(grid(9)):
        down, up = solver_maths.ancestral(sigma, target, eta)
        assert math.hypot(down, up) == pytest.approx(target)
        assert (up > 0) == (eta > 0 and target > 0)


# Brownian noise: one seed converges to one picture.


def distances(sampler: Sampler, source: type[SeededNoise] | type[BrownianNoise]) -> list[float]:
    """Between the results of n and 2n steps, for n = 25, 50, 100, 200, at the last level above 0."""

    def run(count: int) -> Tensor:
        sigmas = [*exponential(MODEL, count + 1)[:-1], 0.0]
        noise: Noise = source(4, SHAPE[0], SHAPE[1:])
        return ours(sampler, sigmas, noise)[-2]

    ends = [run(count) for count in (25, 50, 100, 200, 400)]
    return [gap(a, b) for a, b in pairwise(ends)]


@pytest.mark.parametrize("sampler", [dpmpp_sde, dpmpp_2m_sde, dpmpp_3m_sde, er_sde, sa_solver])
def test_one_seed_converges_to_one_picture(sampler: Sampler) -> None:
    """In the strong sense, of order 1/2 or better: four times the steps at least halve what is left."""
    brownian, fresh = distances(sampler, BrownianNoise), distances(sampler, SeededNoise)
    assert brownian[2] < 0.6 * brownian[0]
    assert brownian[3] < 0.6 * brownian[1]
    assert brownian[3] < 0.06
    assert min(fresh) > 0.2  # with noise that is new at each level there is no such picture


# The house.


def test_a_solver_is_short() -> None:
    """Median under 40 lines with its docstring, and no file of them over 120."""
    lengths = []
    for info in load_plugins(enabled=False).samplers.values():
        source, _ = inspect.getsourcelines(info.function)
        lengths.append(len(source))
        module = inspect.getmodule(info.function)
        assert module is not None
        assert len(inspect.getsource(module).splitlines()) <= 120
        (tree,) = ast.parse("".join(source)).body
        assert ast.get_docstring(tree)  # pyrefly: ignore[bad-argument-type]
    assert statistics.median(lengths) < 40
    assert max(lengths) <= 60


def test_every_file_of_samplers_is_a_plugin_or_shared() -> None:
    modules = {status.module for status in load_plugins(enabled=False).plugins}
    files = {f"samplers.{path.stem}" for path in _files()}
    assert files - modules == {"samplers.__init__", "samplers.shared_options"}
    assert modules <= files


def _files() -> Sequence[Any]:
    from pathlib import Path

    folder = Path(__file__).parents[2] / "samplers"
    return sorted((*folder.glob("*.py"), *(file.parent for file in folder.glob("*/__init__.py"))))
