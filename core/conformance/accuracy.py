"""The two numerical rules: order of convergence, and mean and variance of the results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from core.conformance.subject import HIGH, MEAN, STD, Subject, Wrong, grid, normal, rms
from core.sampling.exact import Exact, gaussian, mixture
from core.sampling.noise import BrownianNoise

# --- Rule 2: the order of convergence ---

COUNTS = (48, 96, 192, 384)  # multiples of three, as some samplers take groups of three steps
END = 0.5  # where the error is measured: the step from there to 0 never shrinks
SLACK = 0.35  # of the observed order
ADAPTIVE_ERROR = 0.02


def order(subject: Subject) -> tuple[float, str]:
    """In float64, on a mixture of Gaussians, whose flow is known but not linear.

    A stochastic sampler runs with every draw 0. It then solves a different equation, without a closed form:
    its results for n and 2n steps are compared. That part may have a higher order than the whole, which the
    noise limits, so the declared order is a minimum there.
    """
    if subject.info.distilled:
        return _one_jump(subject)
    if subject.adaptive:
        return _adaptive(subject)
    if subject.draws:
        subject.insist_on_repeatable()  # else its draws cannot be set to 0
    subject = subject.as_declared()
    exact, x = mixture((-1.0, 0.5, 1.5), 0.5), _spread(HIGH)
    ends = [_end(subject, exact, x, count) for count in COUNTS]
    if subject.draws:
        return _at_least(subject.info.order, [rms(a - b) for a, b in pairwise(ends)])
    flow = exact.flow(x, HIGH, END)
    return _exactly(subject.info.order, [rms(end - flow) for end in ends])


def _exactly(declared: int, errors: Sequence[float]) -> tuple[float, str]:
    observed = _rate(errors[-2:])
    sentence = f"observed order, declared is {declared} (errors: {_shown(errors)})"
    if not abs(observed - declared) <= SLACK:
        raise Wrong(sentence, observed)
    return observed, sentence


def _at_least(declared: int, differences: Sequence[float]) -> tuple[float, str]:
    observed = _rate(differences)
    sentence = f"observed order without noise, declared is {declared} (differences: {_shown(differences)})"
    if not observed >= declared - SLACK:
        raise Wrong(sentence, observed)
    return observed, sentence


def _rate(errors: Sequence[float]) -> float:
    """The observed order from errors, each with twice the steps of the one before."""
    if errors[-1] == 0 or errors[0] == 0:
        raise Wrong("the error is 0, so no order can be observed", 0.0)
    return math.log2(errors[0] / errors[-1]) / (len(errors) - 1)


def _shown(errors: Sequence[float]) -> str:
    return ", ".join(f"{error:.1e}" for error in errors)


def _end(subject: Subject, exact: Exact, x: Tensor, count: int) -> Tensor:
    """The state at END after `count` steps, every draw 0."""
    sigmas = [*graded(count), 0.0]
    made = subject.run(sigmas, x=x, denoise=exact, noise=lambda sigma, target: torch.zeros_like(x))
    return made[count - 1].x


def graded(count: int) -> list[float]:
    """`count` intervals from HIGH to END, even in log sigma except for a slow start.

    The first steps are so short that a multistep method's start, where it has no history and a low order,
    does not hide its order.
    """
    span = math.log(HIGH / END)
    return [HIGH * math.exp(-span * (i / count) ** 2) for i in range(count + 1)]


def _spread(sigma: float) -> Tensor:
    """(1, 4, 4, 4) float64 latents over the range of values at noise level `sigma`."""
    return math.hypot(1.0, sigma) * torch.linspace(-2.5, 2.5, 64, dtype=torch.float64).view(1, 4, 4, 4)


def _adaptive(subject: Subject) -> tuple[float, str]:
    """An adaptive sampler chooses its own steps, so only its error is measured."""
    exact, x = gaussian(MEAN, STD), _spread(HIGH)
    error = rms(subject.run(grid(20), x=x, denoise=exact)[-1].x - exact.flow(x, HIGH)) / STD
    if not error <= ADAPTIVE_ERROR:
        raise Wrong(f"error against the closed form, relative to the spread (limit {ADAPTIVE_ERROR})", error)
    return error, f"adaptive: error against the closed form, relative to the spread (limit {ADAPTIVE_ERROR})"


def _one_jump(subject: Subject) -> tuple[float, str]:
    """A sampler for distilled models has no order; a single step must be exact."""
    exact, x = gaussian(MEAN, STD), _spread(HIGH)
    made = subject.run([HIGH, 0.0], x=x, denoise=subject.knowing(exact))
    error = rms(made[-1].x - exact.flow(x, HIGH)) / STD
    if not error <= 1e-6:
        raise Wrong("error of a single step against the closed form (limit 1e-6)", error)
    return error, "for distilled models: error of a single step against the closed form (limit 1e-6)"


# --- Rule 8: mean and variance ---

STEPS = 400
IMAGES, LARGE = 16, (4, 32, 32)
MEAN_BAR, VARIANCE_BAR = 0.03, 0.05


def statistics(subject: Subject) -> tuple[float | None, str]:
    """On 65,536 values of N(MEAN, STD^2), started from their exact distribution at the first level.

    Chance alone moves the mean by 0.004 STD and the variance by 0.55% (standard errors); the steps of a
    first-order method bias the variance by 1.9% (DDPM's, by the closed recursion). The limits of 0.03 STD
    and 5% are more than 5 standard errors away from that: a correct sampler fails with less than one seed in
    a million. A variance that is wrong by 8%, or a mean wrong by 0.05 STD, is found as surely. The seed is
    fixed, so the result never changes.
    """
    if not subject.draws:
        return None, "deterministic: rule 2 checks its result"
    if subject.info.distilled:
        return None, "for distilled models: the spread depends on the model"
    ratio, shift = moments(subject, grid(STEPS))
    mean = f"mean off by {shift:+.4f} std (limit {MEAN_BAR})"
    found = f"variance over the target's (1 within {VARIANCE_BAR:.0%}); {mean}"
    if not near(ratio, shift):
        raise Wrong(found, ratio)
    return ratio, found


def _on_a_coarse_node(sigma: float) -> float:
    """The nearest level that is a node at depth 13 of the tree of `BrownianNoise`: paths over such levels
    need a quarter of the draws.
    """
    cell = 2 * BrownianNoise.REACH / (1 << 13)
    return math.exp(round(math.log(sigma) / cell) * cell) if sigma > 0 else 0.0


def moments(subject: Subject, sigmas: Sequence[float]) -> tuple[float, float]:
    """(variance / target variance, mean error in STD) of the results from `sigmas[0]`."""
    sigmas = [_on_a_coarse_node(sigma) for sigma in sigmas]
    x = MEAN + math.hypot(STD, sigmas[0]) * normal(IMAGES, 0, LARGE)
    made = subject.run(sigmas, x=x, noise=subject.noise(0, IMAGES, LARGE))[-1].x.double()
    return float(made.var()) / STD**2, float(made.mean() - MEAN) / STD


def near(ratio: float, shift: float) -> bool:
    return abs(shift) <= MEAN_BAR and abs(ratio - 1) <= VARIANCE_BAR
