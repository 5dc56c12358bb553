"""A sampler that breaks the contract ends in one sentence that names it; a good one runs as it is."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from core.conformance import gaussian, seeded_noise
from core.errors import Cancelled, UserError
from core.sampling.contract import Denoise, GuidedDenoise, Noise, Step
from core.sampling.loop import in_sampler, run_sampler
from core.sampling.options import Option
from core.sampling.registry import SamplerInfo

SIGMAS = (8.0, 4.0, 2.0, 1.0, 0.0)
X = 8 * torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))


def good(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
    """Euler's method."""
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        clean = denoise(x, sigma)
        x = x + (target - sigma) * (x - clean) / sigma
        yield Step(i, target, x, clean)


def run(
    function: Callable[..., Iterator[Step]],
    *,
    denoise: Denoise | None = None,
    x: Tensor = X,
    sigmas: Sequence[float] = SIGMAS,
    **info: Any,
) -> Iterator[Step]:
    sampler = SamplerInfo(
        name="odd", function=function, title="Odd", plugin="latentcanvas-odd", version="1.2", **info
    )
    noise = seeded_noise(0, X.shape[0], (4, 3, 3))
    return run_sampler(sampler, denoise or gaussian(), x, sigmas, noise, {})


def changed(change: Callable[[Step], object]) -> Callable[..., Iterator[Step]]:
    """Euler's method, its second step spoilt."""

    def sampler(denoise: Any, x: Any, sigmas: Any, noise: Any) -> Iterator[Any]:
        for step in good(denoise, x, sigmas, noise):
            yield change(step) if step.index == 1 else step

    return sampler


def test_it_is_known_whose_code_runs() -> None:
    """What Stop goes by: a sampler that never comes back is left behind, a slow network is waited for."""
    seen: list[tuple[str, bool]] = []

    def look(where: str) -> None:
        seen.append((where, in_sampler(sys._getframe())))

    def denoise(x: Tensor, sigma: float) -> Tensor:
        look("network")
        return x / 2

    def sampler(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        for step in good(denoise, x, sigmas, noise):
            look("sampler")
            yield step

    for _ in run(sampler, denoise=denoise):
        look("host")
    assert set(seen) == {("network", False), ("sampler", True), ("host", False)}


def test_a_good_sampler_is_not_touched() -> None:
    ours = list(run(good))
    plain = list(good(gaussian(), X, SIGMAS, seeded_noise(0, 2, (4, 3, 3))))
    assert [(step.index, step.sigma) for step in ours] == [(0, 4.0), (1, 2.0), (2, 1.0), (3, 0.0)]
    assert all(
        torch.equal(a.x, b.x) and torch.equal(a.denoised, b.denoised)
        for a, b in zip(ours, plain, strict=True)
    )


def test_a_sampler_sees_the_unconditional_estimate_of_each_call() -> None:
    class Guided:
        unconditional: Tensor

        def __call__(self, x: Tensor, sigma: float) -> Tensor:
            self.unconditional = x / (1 + sigma)
            return gaussian()(x, sigma)

    seen: list[tuple[Tensor, Tensor, Tensor, float]] = []

    def looking(denoise: GuidedDenoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        for i, (sigma, target) in enumerate(pairwise(sigmas)):
            clean = denoise(x, sigma)
            seen.append((x, clean, denoise.unconditional, sigma))
            yield Step(i, target, x, clean)

    list(run(looking, denoise=Guided()))
    assert all(torch.equal(unconditional, x / (1 + sigma)) for x, _, unconditional, sigma in seen)
    seen.clear()
    list(run(looking))  # a denoiser without one
    assert len(seen) == 4
    assert all(unconditional is clean for _, clean, unconditional, _ in seen)


def test_a_grid_without_intervals_is_no_steps() -> None:
    assert list(run(good, sigmas=[0.0])) == []


BAD_STEPS: dict[str, tuple[Callable[[Step], object], str]] = {
    "nan": (lambda s: Step(s.index, s.sigma, s.x * math.nan, s.denoised), "infinite values in step 2"),
    "nan estimate": (lambda s: Step(s.index, s.sigma, s.x, s.denoised / 0), "infinite values in step 2"),
    "shape": (lambda s: Step(s.index, s.sigma, s.x[:1], s.denoised), r"yielded x: \(1, 4, 3, 3\)"),
    "estimate's shape": (lambda s: Step(s.index, s.sigma, s.x, s.denoised[0]), "yielded denoised"),
    "dtype": (lambda s: Step(s.index, s.sigma, s.x.double(), s.denoised), "float64 on cpu instead of"),
    "index": (lambda s: Step(7, s.sigma, s.x, s.denoised), "yielded step index 7 instead of 1"),
    "sigma": (lambda s: Step(s.index, 3.0, s.x, s.denoised), "at sigma 3, not 2"),
    "nan sigma": (lambda s: Step(s.index, math.nan, s.x, s.denoised), "at sigma nan"),
    "no step": (lambda s: s.x, "a Tensor instead of a Step"),
    "no tensor": (lambda s: Step(s.index, s.sigma, 3, s.denoised), "a int instead of a tensor"),  # pyrefly: ignore[bad-argument-type]
}


@pytest.mark.parametrize("case", BAD_STEPS)
def test_a_bad_step_is_a_sentence_with_the_plugin(case: str) -> None:
    change, reason = BAD_STEPS[case]
    steps = run(changed(change))
    assert next(steps).index == 0
    with pytest.raises(UserError, match=rf"^Sampler odd \(latentcanvas-odd 1\.2\) .*{reason}.*\.$"):
        next(steps)


def forever(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
    yield from good(denoise, x, sigmas, noise)
    while True:
        yield Step(4, 0.0, x, x)


def endless_step(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
    while sigmas:
        x = denoise(x, sigmas[0])
    yield Step(0, 0.0, x, x)


def short(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
    yield from list(good(denoise, x, sigmas, noise))[:2]


def crashing(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
    yield next(good(denoise, x, sigmas, noise))
    raise KeyError("slope")


def leaving(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
    if sigmas:
        raise SystemExit(3)
    yield from good(denoise, x, sigmas, noise)


def at_zero(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
    denoise(x, 0.0)
    yield from good(denoise, x, sigmas, noise)


def one_image(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
    denoise(x[0], 1.0)
    yield from good(denoise, x, sigmas, noise)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (forever, "does not stop: it continued after 4 steps"),
        (endless_step, "does not stop: it called denoise 1000 times without a step"),
        (short, "stopped after 2 of 4 steps"),
        (crashing, "failed at step 2 with KeyError: 'slope'"),
        (leaving, "failed at step 1 with SystemExit: 3"),
        (at_zero, "called denoise at sigma 0.0"),
        (one_image, r"called denoise with \(4, 3, 3\)"),
    ],
)
def test_a_sampler_that_goes_wrong_is_a_sentence(
    function: Callable[..., Iterator[Step]], reason: str
) -> None:
    with pytest.raises(UserError, match=rf"^Sampler odd \(latentcanvas-odd 1\.2\) {reason}.*\.$"):
        list(run(function))


def test_an_adaptive_sampler_may_take_any_steps_down_to_zero() -> None:
    def halves(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        yield from good(denoise, x, (8.0, 3.0, 0.0), noise)

    def half_way(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        yield from good(denoise, x, (8.0, 3.0, 1.0), noise)

    assert len(list(run(halves, adaptive=True))) == 2
    with pytest.raises(UserError, match="before it reached sigma 0"):
        list(run(half_way, adaptive=True))


def test_options_are_checked_before_anything_runs() -> None:
    seen: list[object] = []

    def sampler(denoise: Any, x: Any, sigmas: Any, noise: Any, *, eta: float) -> Iterator[Step]:
        seen.append(eta)
        yield from good(denoise, x, sigmas, noise)

    info = SamplerInfo(
        name="odd", function=sampler, title="Odd", options=(Option("eta", "float", 0.5, 0, 1),)
    )
    noise = seeded_noise(0, 2, (4, 3, 3))
    with pytest.raises(UserError, match="eta must be a number from 0 to 1"):
        run_sampler(info, gaussian(), X, SIGMAS, noise, {"eta": 2})
    with pytest.raises(UserError, match=r"Sampler odd has no option 'etta'; did you mean 'eta'\?"):
        run_sampler(info, gaussian(), X, SIGMAS, noise, {"etta": 1})
    assert seen == []
    list(run_sampler(info, gaussian(), X, SIGMAS, noise, {"eta": "0.25"}))
    list(run_sampler(info, gaussian(), X, SIGMAS, noise, {}))
    assert seen == [0.25, 0.5]


def test_what_denoise_raises_is_not_blamed_on_the_sampler() -> None:
    def broken(x: Tensor, sigma: float) -> Tensor:
        raise RuntimeError("the network's own")

    with pytest.raises(RuntimeError, match="the network's own"):
        list(run(good, denoise=broken))


def test_a_network_that_gives_nan_is_not_blamed_on_the_sampler() -> None:
    with pytest.raises(UserError, match="The model gave NaN or infinite values at sigma 8"):
        list(run(good, denoise=lambda x, sigma: x / 0))


def stubborn(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
    """Takes no notice of a cancel."""
    for i, target in enumerate(sigmas[1:]):
        with contextlib.suppress(Exception):
            x = denoise(x, sigmas[i])
        yield Step(i, target, x, x)


def deaf(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
    """Tries again for ever."""
    for step in good(denoise, x, sigmas, noise):
        yield step
        with contextlib.suppress(Exception):
            denoise(x, step.sigma or 1.0)
        while step.index == 0:
            with contextlib.suppress(Exception):
                denoise(x, 1.0)


def renaming(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
    try:
        yield from good(denoise, x, sigmas, noise)
    except Exception as error:
        raise ValueError("something") from error


def giving_up(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
    try:
        yield from good(denoise, x, sigmas, noise)
    except Exception:
        return


@pytest.mark.parametrize("function", [good, stubborn, deaf, renaming, giving_up])
def test_a_cancel_stops_any_sampler(function: Callable[..., Iterator[Step]]) -> None:
    cancel = threading.Event()

    def denoise(x: Tensor, sigma: float) -> Tensor:
        if cancel.is_set():
            raise Cancelled
        return gaussian()(x, sigma)

    steps = run(function, denoise=denoise)
    next(steps)
    cancel.set()
    with pytest.raises(Cancelled):
        list(steps)


@pytest.mark.parametrize("consume", [0, 1, 2])
def test_closing_the_run_closes_the_sampler(consume: int) -> None:
    events: list[str] = []

    def sampler(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Iterator[Step]:
        events.append("opened")
        try:
            yield from good(denoise, x, sigmas, noise)
        finally:
            events.append("closed")

    steps = run(sampler)
    for _ in range(consume):
        next(steps)
    steps.close()  # pyrefly: ignore[missing-attribute]
    assert events == (["opened", "closed"] if consume else [])


def test_grad_mode_is_off_inside_and_untouched_outside() -> None:
    modes: list[bool] = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        modes.append(torch.is_grad_enabled())
        return gaussian()(x, sigma)

    x = X.clone().requires_grad_()
    for step in run(good, denoise=denoise, x=x):
        assert torch.is_grad_enabled()
        assert not step.x.requires_grad
    assert modes == [False] * 4


def test_a_run_may_go_on_in_another_thread() -> None:
    steps = run(good)
    first = next(steps)
    rest: list[Step] = []
    thread = threading.Thread(target=lambda: rest.extend(steps))
    thread.start()
    thread.join()
    assert torch.is_grad_enabled()
    assert [step.index for step in (first, *rest)] == [0, 1, 2, 3]
