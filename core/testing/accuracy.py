"""The two rules about numbers: how fast the error falls, and whether the results have the right spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from core.testing.exact import Exact, gaussian, mixture
from core.testing.subject import HIGH, MEAN, STD, Subject, Wrong, grid, normal, rms

# --- Rule 2: the order of convergence ---

COUNTS = (40, 80, 160, 320)
END = 0.5  # where the error is looked at: the step to 0 beyond it never shrinks
SLACK = 0.35  # of the observed order
ADAPTIVE_ERROR = 0.02


def order(subject: Subject) -> tuple[float, str]:
    """In float64, on a mixture of Gaussians, whose flow is known but not linear.

    A stochastic sampler is looked at with every draw 0, where it solves an equation of its own: there is no
    closed form, so its results for n and 2n steps are compared with each other.
    """
    if subject.info.distilled:
        return _one_jump(subject)
    if subject.adaptive:
        return _adaptive(subject)
    if subject.draws:
        subject.insist_on_repeatable()  # else the draws cannot be made 0
    exact, x = mixture((-1.0, 0.5, 1.5), 0.5), _spread(HIGH)
    ends = [_end(subject, exact, x, count) for count in COUNTS]
    if subject.draws:
        errors = [rms(a - b) for a, b in pairwise(ends)]
    else:
        flow = exact.flow(x, HIGH, END)
        errors = [rms(end - flow) for end in ends]
    observed = _observed(errors)
    shown = ", ".join(f"{error:.1e}" for error in errors)
    what = f"differences between {COUNTS[0]} to {COUNTS[-1]} steps, draws 0" if subject.draws else "errors"
    if not abs(observed - subject.info.order) <= SLACK:
        raise Wrong(f"observed order, declared is {subject.info.order} ({what}: {shown})", observed)
    return observed, f"observed order, declared is {subject.info.order} ({what}: {shown})"


def _end(subject: Subject, exact: Exact, x: Tensor, count: int) -> Tensor:
    """The state at END after `count` steps."""
    sigmas = graded(count)
    made = subject.run([*sigmas, 0.0], x=x, denoise=exact, noise=lambda sigma, target: torch.zeros_like(x))
    return made[count - 1].x


def graded(count: int) -> list[float]:
    """`count` intervals from HIGH to END, even in log sigma but for a slow start.

    The first steps are so short that a multistep method's beginning, where it has no history and a low order,
    does not hide its order.
    """
    span = math.log(HIGH / END)
    return [HIGH * math.exp(-span * (i / count) ** 2) for i in range(count + 1)]


def _spread(sigma: float) -> Tensor:
    """(1, 4, 4, 4) float64 latents from the far left to the far right of what is met at `sigma`."""
    return math.hypot(1.0, sigma) * torch.linspace(-2.5, 2.5, 64, dtype=torch.float64).reshape(1, 4, 4, 4)


def _observed(errors: Sequence[float]) -> float:
    """The order that the two finest results show. An error that cannot shrink any more has none."""
    if errors[-1] == 0 or errors[-2] == 0:
        raise Wrong("the error vanishes, so that there is no order to observe", 0.0)
    return math.log2(errors[-2] / errors[-1])


def _adaptive(subject: Subject) -> tuple[float, str]:
    """It chooses its own steps, so its error is measured as it comes."""
    exact, x = gaussian(MEAN, STD), _spread(HIGH)
    error = rms(subject.run(grid(20), x=x, denoise=exact)[-1].x - exact.flow(x, HIGH)) / STD
    if not error <= ADAPTIVE_ERROR:
        raise Wrong(f"error against the closed form, relative to the spread (bar {ADAPTIVE_ERROR})", error)
    return error, f"adaptive: error against the closed form, relative to the spread (bar {ADAPTIVE_ERROR})"


def _one_jump(subject: Subject) -> tuple[float, str]:
    """A sampler for distilled models has no order; one step of it is the whole way."""
    exact, x = gaussian(MEAN, STD), _spread(HIGH)
    made = subject.run([HIGH, 0.0], x=x, denoise=subject.knowing(exact))
    error = rms(made[-1].x - exact.flow(x, HIGH)) / STD
    if not error <= 1e-6:
        raise Wrong("error of a single step against the closed form (bar 1e-6)", error)
    return error, "for distilled models: error of a single step against the closed form (bar 1e-6)"


# --- Rule 8: mean and variance ---

STEPS = 400
IMAGES, LARGE = 16, (4, 32, 32)
MEAN_BAR, VARIANCE_BAR = 0.03, 0.05


def statistics(subject: Subject) -> tuple[float | None, str]:
    """On 65,536 numbers that are N(MEAN, STD^2), started from exactly what they are at the first level.

    Chance alone moves the mean by 0.004 STD and the variance by 0.55% (standard errors); the steps of a
    first-order method bias the variance by 1.9% (DDPM's, by the closed recursion). The bars of 0.03 STD and
    5% are more than 5 standard errors away from that: a right sampler fails with less than one seed in a
    million. One whose results have a variance that is wrong by 8%, or a mean wrong by 0.05 STD, is caught as
    surely. The seed is fixed, so a verdict never changes.
    """
    if not subject.draws:
        return None, "deterministic: rule 2 says where it ends"
    x = MEAN + math.hypot(STD, HIGH) * normal(IMAGES, 0, LARGE)
    made = subject.run(grid(STEPS), x=x, noise=subject.noise(0, IMAGES, LARGE))[-1].x.double()
    shift = float(made.mean() - MEAN) / STD
    ratio = float(made.var()) / STD**2
    mean = f"mean off by {shift:+.4f} std (bar {MEAN_BAR})"
    found = f"variance over the target's (1 within {VARIANCE_BAR:.0%}); {mean}"
    if not (abs(shift) <= MEAN_BAR and abs(ratio - 1) <= VARIANCE_BAR):
        raise Wrong(found, ratio)
    return ratio, found
