"""`check_sampler` passes what is right, and catches each lie by the rule that forbids it and by no other."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Annotated, Any

import pytest
import torch
from torch import Tensor

from core.conformance import Report, check_sampler
from core.conformance.accuracy import COUNTS, graded
from core.conformance.rules import RULES
from core.errors import UserError
from core.sampling.contract import Denoise, Noise, Range, Step

Steps = Iterator[Step]


# --- Samplers that are right ---


def euler(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        clean = denoise(x, sigma)
        x = x + (target - sigma) * (x - clean) / sigma
        yield Step(i, target, x, clean)


def heun(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        clean = denoise(x, sigma)
        slope = (x - clean) / sigma
        guess = x + (target - sigma) * slope
        if target > 0:
            end = (guess - denoise(guess, target)) / target
            guess = x + (target - sigma) * (slope + end) / 2
        x = guess
        yield Step(i, target, x, clean)


def multistep(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    """DPM-Solver++(2M), arXiv:2211.01095: its history is a local variable."""
    before: tuple[Tensor, float] | None = None
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        clean = denoise(x, sigma)
        x, before = two_step(x, clean, sigma, target, before)
        yield Step(i, target, x, clean)


def two_step(
    x: Tensor, clean: Tensor, sigma: float, target: float, before: tuple[Tensor, float] | None
) -> tuple[Tensor, tuple[Tensor, float] | None]:
    if target == 0:
        return clean, None
    h = math.log(sigma / target)
    ahead = clean if before is None else clean + h / before[1] / 2 * (clean - before[0])
    return target / sigma * x - math.expm1(-h) * ahead, (clean, h)


def ancestral(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    noise: Noise,
    *,
    eta: Annotated[float, Range(0, 1)] = 1.0,
    scale: float = 1.0,
) -> Steps:
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        clean = denoise(x, sigma)
        up = eta * math.sqrt(target**2 * (sigma**2 - target**2) / sigma**2)
        down = math.sqrt(target**2 - up**2)
        x = clean + down / sigma * (x - clean)
        if up > 0:
            x = x + scale * up * noise(sigma, target)
        yield Step(i, target, x, clean)


def one_step_model(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    """LCM, arXiv:2310.04378: to the end and back up."""
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        x = clean = denoise(x, sigma)
        if target > 0:
            x = clean + target * noise(sigma, target)
        yield Step(i, target, x, clean)


def adaptive(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    """Heun's method with an Euler step inside: as long a step as their difference allows."""
    sigma, i, rate = sigmas[0], 0, 0.1
    while sigma > sigmas[-1]:
        target = sigma * (1 - rate) if sigma > 0.02 else 0.0
        clean = denoise(x, sigma)
        slope = (x - clean) / sigma
        guess = x + (target - sigma) * slope
        if target > 0:
            better = x + (target - sigma) * (slope + (guess - denoise(guess, target)) / target) / 2
            error = float((better - guess).abs().max())
            if error > 0.01 * (1 + target) and rate > 0.01:
                rate /= 2
                continue
            rate, guess = min(rate * 1.2, 0.5), better
        x, sigma = guess, target
        yield Step(i, sigma, x, clean)
        i += 1


@pytest.mark.parametrize(
    ("function", "declared"),
    [
        (euler, {}),
        (heun, {"order": 2, "evals": 2}),
        (multistep, {"order": 2}),
        (ancestral, {"stochastic": "eta"}),
        (one_step_model, {"stochastic": True, "distilled": True}),
        (adaptive, {"adaptive": True, "order": 2, "evals": 2}),
    ],
)
def test_what_is_right_passes(function: Callable[..., Steps], declared: dict[str, Any]) -> None:
    report = check_sampler(function, **declared)
    assert report.passed, str(report)
    assert [finding.passed for finding in report.findings] == [True] * 13


@pytest.mark.parametrize("eta", [0, 0.5])
def test_options_are_those_of_the_run(eta: float) -> None:
    report = check_sampler(ancestral, stochastic="eta", options={"eta": eta})
    assert report.passed, str(report)
    assert report.options == {"eta": eta, "scale": 1.0}
    draws = report.findings[6].figure
    assert draws is not None
    assert (draws > 0) == (eta > 0)


# --- Samplers that lie, each in one way ---


def too_few(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    """Merges the last two intervals."""
    yield from euler(denoise, x, [*sigmas[:-2], 0.0] if len(sigmas) > 2 else sigmas, noise)


def for_ever(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    for step in euler(denoise, x, sigmas, noise):
        yield step
    while True:
        yield step


def single_precision_lost(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    for step in euler(denoise, x, sigmas, noise):
        yield Step(step.index, step.sigma, step.x.double(), step.denoised)


def nan_at_the_end(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    for step in euler(denoise, x, sigmas, noise):
        yield Step(step.index, step.sigma, step.x / (step.sigma > 0), step.denoised)


def old_slope(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    """Heun's method with the second slope divided by the wrong noise level: it converges, slowly."""
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        clean = denoise(x, sigma)
        slope = (x - clean) / sigma
        guess = x + (target - sigma) * slope
        if target > 0:
            end = (guess - denoise(guess, target)) / sigma
            guess = x + (target - sigma) * (slope + end) / 2
        x = guess
        yield Step(i, target, x, clean)


def own_generator(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    """Draws from a generator that nobody can seed."""
    generator = torch.Generator()
    generator.seed()

    def own(sigma: float, target: float) -> Tensor:
        return torch.randn(x.shape, generator=generator).to(x)

    yield from ancestral(denoise, x, sigmas, own)


def normalised(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    """Pulls every image a little towards what the batch has in common."""
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        clean = denoise(x, sigma)
        x = x + (target - sigma) * (x - clean) / sigma
        x = x + 1e-4 * target * (x.mean(0, keepdim=True) - x)
        yield Step(i, target, x, clean)


HISTORY: dict[str, Any] = {}


def global_history(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    """Keeps its history where all runs see it."""
    HISTORY["before"] = None
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        clean = denoise(x, sigma)
        x, HISTORY["before"] = two_step(x, clean, sigma, target, HISTORY["before"])
        yield Step(i, target, x, clean)


def draws_for_nothing(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    """Draws for the last step too, where the noise is multiplied by 0."""
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        clean = denoise(x, sigma)
        up = math.sqrt(target**2 * (sigma**2 - target**2) / sigma**2)
        down = math.sqrt(target**2 - up**2)
        x = clean + down / sigma * (x - clean) + up * noise(sigma, target)
        yield Step(i, target, x, clean)


def draws_and_drops(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    for step in euler(denoise, x, sigmas, noise):
        noise(step.sigma, step.sigma)
        yield step


def too_loud(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    yield from ancestral(denoise, x, sigmas, noise, scale=1.06)


def whole_grid_only(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    """Takes it that every run begins at the model's highest noise level, and scales the start to it."""
    yield from euler(denoise, x * (14.6 / sigmas[0]), sigmas, noise)


def clipping(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    yield from euler(lambda x, sigma: denoise(x, sigma).clamp(-5, 5), x, sigmas, noise)


def in_place(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    x = x.clone()
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        clean = denoise(x, sigma)
        x += (target - sigma) * (x - clean) / sigma
        yield Step(i, target, x, clean)


def spoils_the_estimate(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        clean = denoise(x, sigma)
        kept = clean.clone()
        slope = clean.sub_(x).div_(-sigma)
        x = x + (target - sigma) * slope
        yield Step(i, target, x, kept)


def spoils_the_start(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    given, x = x, x.clone()
    yield from euler(denoise, x, sigmas, noise)
    given.zero_()


def deaf(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    """Goes on when denoise fails."""

    def stubborn(x: Tensor, sigma: float) -> Tensor:
        with contextlib.suppress(Exception):
            return denoise(x, sigma)
        return x

    yield from euler(stubborn, x, sigmas, noise)


def clinging(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    """Yields once more when it is closed."""
    for step in euler(denoise, x, sigmas, noise):
        try:
            yield step
        except GeneratorExit:
            yield step


def renaming(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    try:
        yield from euler(denoise, x, sigmas, noise)
    except Exception as error:
        raise ValueError("it did not work") from error


def leaks_grad_mode(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    with torch.no_grad():
        yield from euler(denoise, x, sigmas, noise)


def seeds_the_world(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    torch.manual_seed(0)
    yield from euler(denoise, x, sigmas, noise)


def changes_dtype(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
    torch.set_default_dtype(torch.float64)
    yield from euler(denoise, x, sigmas, noise)


LIES: list[tuple[int, Callable[..., Steps], dict[str, Any]]] = [
    (1, too_few, {}),
    (1, for_ever, {}),
    (1, single_precision_lost, {}),
    (1, nan_at_the_end, {}),
    (2, euler, {"order": 2}),
    (2, heun, {"order": 3, "evals": 2}),
    (2, old_slope, {"order": 2, "evals": 2}),
    (3, heun, {"order": 2}),
    (3, euler, {"evals": 2}),
    (4, own_generator, {"stochastic": True}),
    (4, euler, {"stochastic": True}),
    (5, normalised, {}),
    (6, global_history, {"order": 2}),
    (7, draws_for_nothing, {"stochastic": True}),
    (7, draws_and_drops, {}),
    (8, too_loud, {"stochastic": True}),
    (9, whole_grid_only, {}),
    (10, clipping, {}),
    (11, in_place, {}),
    (11, spoils_the_estimate, {}),
    (11, spoils_the_start, {}),
    (12, deaf, {}),
    (12, clinging, {}),
    (12, renaming, {}),
    (13, leaks_grad_mode, {}),
    (13, seeds_the_world, {}),
    (13, changes_dtype, {}),
]


@pytest.mark.parametrize(
    ("number", "function", "declared"), LIES, ids=[f"{number}-{lie.__name__}" for number, lie, _ in LIES]
)
def test_a_lie_is_caught_by_its_rule_and_no_other(
    number: int, function: Callable[..., Steps], declared: dict[str, Any]
) -> None:
    before = (torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_rng_state().tolist())
    report = check_sampler(function, **declared)
    assert report.failed == [number], str(report)
    assert not report.passed
    left = [finding for finding in report.findings if finding.passed is None]
    assert all(f"depends on rule {number}" in finding.sentence for finding in left), str(report)
    # Whatever it did to the process is put right again.
    assert before == (torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_rng_state().tolist())


def test_every_rule_has_its_lie() -> None:
    assert [rule.number for rule in RULES] == list(range(1, 14))
    assert {number for number, _, _ in LIES} == set(range(1, 14))


def test_a_sampler_that_crashes_is_a_sentence() -> None:
    def crashing(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Steps:
        yield from euler(denoise, x, sigmas, noise)
        raise KeyError("slope")

    report = check_sampler(crashing)
    assert report.failed == [1]
    assert "KeyError: 'slope'" in report.findings[0].sentence


# --- What is asked, and what comes back ---


def test_a_report_in_words_and_as_data() -> None:
    report = check_sampler("ddim", options={"eta": 1})
    assert isinstance(report, Report)
    lines = str(report).splitlines()
    assert lines[0].startswith("ddim (latentcanvas ")
    assert lines[0].endswith("eta=1.0")
    assert [line.split()[:2] for line in lines[1:-1]] == [[str(r.number), r.name] for r in RULES]
    assert lines[-1] == "13 of 13 rules hold"
    found = report.to_dict()
    assert (found["sampler"], found["passed"], found["options"]) == ("ddim", True, {"eta": 1.0})
    assert [set(finding) for finding in found["findings"]] == [
        {"number", "name", "passed", "figure", "sentence"}
    ] * 13


@pytest.mark.parametrize(
    ("sampler", "keywords", "reason"),
    [
        ("dim", {}, "There is no sampler 'dim'; did you mean 'ddim'?"),
        ("ddim", {"options": {"eta": 3}}, "eta must be a number from 0 to 1"),
        (lambda x: x, {}, "is not a generator function"),
        (euler, {"order": 0}, "order must be a whole number"),
    ],
)
def test_bad_input_is_a_sentence(sampler: Any, keywords: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError) as caught:
        check_sampler(sampler, **keywords)
    assert reason in str(caught.value)


def test_what_is_registered_cannot_be_declared_anew() -> None:
    with pytest.raises(TypeError, match="order"):
        check_sampler("ddim", order=2)


def test_the_same_check_gives_the_same_figures() -> None:
    assert check_sampler("ddpm") == check_sampler("ddpm")


def test_the_graded_grid_begins_slowly() -> None:
    for count in COUNTS:
        levels = graded(count)
        gaps = [math.log(a / b) for a, b in pairwise(levels)]
        assert len(levels) == count + 1
        assert all(a < b for a, b in pairwise(gaps))
        assert gaps[0] < 4 / count**2
