"""The other samplers against diffusers' schedulers: whole trajectories on one grid, with one noise."""

from __future__ import annotations

import math

import pytest
import torch

from samplers.deis import deis
from samplers.distilled import lcm, tcd
from samplers.pndm import ipndm, plms
from samplers.res_multistep import res_multistep
from samplers.sa_solver import sa_solver
from samplers.schedules import leading, trailing
from samplers.unipc import unipc
from tests.samplers.references import (
    COUNTS,
    DENOISE,
    DOUBLE,
    MODEL,
    NUMPY_WARNINGS,
    SINGLE,
    by_step,
    draw_from,
    drive,
    gap,
    grid,
    ours,
    randn,
    scheduler,
    start,
    table,
)

pytestmark = NUMPY_WARNINGS


@pytest.mark.parametrize("count", COUNTS)
def test_plms(count: int) -> None:
    """On the `leading` grid, the only one that diffusers' PNDM steps along, and to 0 (`set_alpha_to_one`)."""
    sigmas = leading(MODEL, count)
    made = scheduler("pndm", "PNDM", count, skip_prk_steps=True, set_alpha_to_one=True, steps_offset=1)
    made.alphas_cumprod = table(MODEL.alphas_cumprod)
    made.final_alpha_cumprod = table([1.0])[0]
    levels = [
        sigmas[0],
        sigmas[1],
        *sigmas[1:-1],
    ]  # the second one is asked twice: the first step has two slopes
    assert [MODEL.sigmas[int(t)] for t in made.timesteps] == levels
    x = start(sigmas) / math.sqrt(1 + sigmas[0] ** 2)
    for t, level in zip(made.timesteps, levels, strict=True):
        scale = math.sqrt(1 + level**2)
        x = made.step(DENOISE.epsilon(x * scale, level), int(t), x).prev_sample
    assert gap(ours(plms, sigmas)[-1], x) < DOUBLE


@pytest.mark.parametrize("count", COUNTS)
def test_ipndm(count: int) -> None:
    """Diffusers' network predicts another quantity: its output is turned until its noise is ours."""
    sigmas = grid(count)
    made = pytest.importorskip("diffusers.schedulers.scheduling_ipndm").IPNDMScheduler()
    made.set_timesteps(count)
    made._step_index = 0
    made.betas = table([level / math.sqrt(1 + level**2) for level in sigmas])
    made.alphas = table([1 / math.sqrt(1 + level**2) for level in sigmas])
    x = start(sigmas)
    for i, level in enumerate(sigmas[:-1]):
        sample = x / math.sqrt(1 + level**2)
        output = (DENOISE.epsilon(x, level) - sample * made.betas[i]) / made.alphas[i]
        x = made.step(output, made.timesteps[i], sample).prev_sample * math.sqrt(1 + sigmas[i + 1] ** 2)
    assert gap(ours(ipndm, sigmas)[-1], x) < DOUBLE


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
def test_unipc(count: int, order: int, variant: str) -> None:
    """With bh1 diffusers' last step, to 0, is not a number: there the state before it is compared."""
    sigmas = grid(count)
    made = scheduler(
        "unipc_multistep",
        "UniPCMultistep",
        count,
        solver_order=order,
        solver_type=variant,
        final_sigmas_type="zero",
    )
    made.sigmas = table(sigmas)
    theirs = drive(made, start(sigmas), sigmas[:-1], ddpm=True)
    mine = ours(unipc, sigmas, order=order, variant=variant)
    last = -2 if variant == "bh1" else -1
    assert gap(mine[last], theirs[last]) < DOUBLE


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis(count: int, order: int) -> None:
    """Diffusers' DEIS cannot go to 0 by more than one slope, as it would from 15 steps on.

    So the state before the last step is compared; the last step of ours is Euler's.
    """
    sigmas = grid(count)
    made = scheduler("deis_multistep", "DEISMultistep", count, solver_order=order, lower_order_final=False)
    made.sigmas = table([*sigmas[:-1], 0.01])
    theirs = drive(made, start(sigmas), sigmas[:-1], ddpm=True)
    mine = ours(deis, sigmas, order=order)
    assert gap(mine[-2], theirs[-2]) < DOUBLE
    assert gap(mine[-1], DENOISE(mine[-2], sigmas[-2])) < DOUBLE


@pytest.mark.parametrize("count", COUNTS)
def test_res_multistep(count: int) -> None:
    """RES in two steps is DPM-Solver++(2M) with its other weight, in diffusers "heun", there in float32."""
    sigmas = grid(count)
    made = scheduler(
        "dpmsolver_multistep", "DPMSolverMultistep", count, final_sigmas_type="zero", solver_type="heun"
    )
    made.sigmas = table(sigmas)
    theirs = drive(made, start(sigmas, torch.float32), sigmas[:-1], ddpm=True)
    assert gap(ours(res_multistep, sigmas, dtype=torch.float32)[-1], theirs[-1]) < SINGLE


@pytest.mark.parametrize("count", [3, *COUNTS])
@pytest.mark.parametrize("scaling", [10.0, 1e5])
def test_lcm(count: int, scaling: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deliberate difference: diffusers mixes a little of the state into the clean estimate (c_skip, c_out).

    At its own `timestep_scaling` of 10 that is seen at the last levels of many steps alone; at a high one it
    is gone.
    """
    sigmas, draws = trailing(MODEL, count), randn(count)
    made = scheduler("lcm", "LCM", 5, timestep_scaling=scaling, set_alpha_to_one=True, clip_sample=False)
    made.alphas_cumprod = table(MODEL.alphas_cumprod)
    made.timesteps = torch.tensor([round(MODEL.timestep(level)) for level in sigmas[:-1]])
    made.num_inference_steps = count
    draw_from(monkeypatch, "lcm", draws)
    theirs = drive(made, start(sigmas), sigmas[:-1], ddpm=True)
    mine = ours(lcm, sigmas, by_step(sigmas, draws))
    assert gap(mine[-1], theirs[-1]) < (DOUBLE if scaling > 10 else 1e-4)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_tcd(gamma: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a model whose log(1 + sigma^2) is t^2 up to a factor: there ours takes (1 - gamma) t for the jump.

    Deliberate difference: for other models ours still takes that, as a sampler knows no timesteps.
    """
    alphas = table([math.exp(-5.0 * (t / 1000) ** 2) for t in range(1001)])
    timesteps = list(range(1000, 0, -100))
    sigmas = [*(math.sqrt(math.expm1(5.0 * (t / 1000) ** 2)) for t in timesteps), 0.0]
    draws = randn(10)
    made = scheduler("tcd", "TCD", 10, set_alpha_to_one=True)
    made.alphas_cumprod, made.timesteps = alphas, torch.tensor(timesteps)
    made.num_inference_steps = 10
    draw_from(monkeypatch, "tcd", draws)
    theirs = drive(made, start(sigmas), sigmas[:-1], ddpm=True, eta=gamma)
    assert gap(ours(tcd, sigmas, by_step(sigmas, draws), gamma=gamma)[-1], theirs[-1]) < DOUBLE


def test_tcds_time_is_near_that_of_stable_diffusion() -> None:
    top = math.log1p(MODEL.sigma_max**2)
    for t in range(0, 1000, 10):
        assert math.sqrt(math.log1p(MODEL.sigmas[t] ** 2) / top) == pytest.approx(t / 999, abs=0.05)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("tau", [0.0, 0.6, 1.0])
def test_sa_solver(count: int, tau: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Diffusers' SA-Solver cannot go to 0: its last level is 1e-7."""
    sigmas, draws = grid(count), randn(count)
    low, high = MODEL.timestep(0.57), MODEL.timestep(5.12)
    made = scheduler("sasolver", "SASolver", count, tau_func=lambda t: tau if low < t <= high else 0.0)
    made.sigmas = table([*sigmas[:-1], 1e-7])
    made.tau_func = lambda t: torch.tensor(tau if low < t <= high else 0.0, dtype=torch.float64)
    made.timesteps = table([MODEL.timestep(level) for level in sigmas[:-1]])
    draw_from(monkeypatch, "sasolver", draws)
    theirs = drive(made, start(sigmas), sigmas[:-1], ddpm=True)
    mine = ours(sa_solver, sigmas, by_step(sigmas, draws), tau=tau, low=0.57, high=5.12)
    assert gap(mine[-1], theirs[-1]) < 1e-6
