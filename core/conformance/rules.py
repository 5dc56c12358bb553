"""The rules of the sampler contract, each with its measurement.

docs/plugins/contract.md lists them by the same numbers, names and words, and a test compares the two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from core.conformance.accuracy import moments, near, order, statistics
from core.conformance.behaviour import memory, restored, stopping, surroundings
from core.conformance.report import Finding
from core.conformance.subject import (
    HIGH,
    SHAPE,
    Counted,
    NotJudged,
    Subject,
    Wrong,
    grid,
    largest,
    normal,
    rms,
    same,
    start,
)
from core.sampling.contract import Noise, Step

Judge = Callable[[Subject], tuple[float | None, str]]  # -> the figure and its sentence; Wrong, NotJudged


@dataclass(frozen=True)
class Rule:
    number: int
    name: str
    text: str
    judge: Judge


def judge(subject: Subject) -> Iterator[Finding]:
    """Check every rule. Where the first is broken, the others are not checked."""
    sound: bool | None = True
    for rule in RULES:
        with restored():  # whatever global state the sampler changes
            finding = _judged(rule, subject) if sound else _left_out(rule)
        sound = sound if rule.number > 1 else finding.passed
        yield finding


def _judged(rule: Rule, subject: Subject) -> Finding:
    passed: bool | None = True
    try:
        figure, sentence = rule.judge(subject)
    except NotJudged as reason:
        passed, figure, sentence = None, None, str(reason)
    except Wrong as wrong:
        passed, figure, sentence = False, wrong.figure, str(wrong)
    except (Exception, SystemExit) as error:
        shown = " ".join(f"{type(error).__name__}: {error}".split())
        passed, figure, sentence = False, None, f"stopped with {shown}"
    return Finding(rule.number, rule.name, passed, figure, sentence)


def _left_out(rule: Rule) -> Finding:
    return Finding(rule.number, rule.name, None, None, "depends on rule 1, which is broken")


def steps(subject: Subject) -> tuple[float, str]:
    """1: grids of one, two and nine intervals."""
    taken = 0
    for count in (1, 2, 9):
        sigmas, x = grid(count), start(2)
        made = subject.run(sigmas, x=x)
        taken += len(made)
        if not subject.adaptive and len(made) != count:
            number = f"{len(made)}" if len(made) < count else "more"
            raise Wrong(f"{number} steps for {count} intervals", len(made))
        for i, step in enumerate(made):
            _insist_on_step(step, i, x, None if subject.adaptive else sigmas[i + 1])
        if not made or made[-1].sigma != 0:
            raise Wrong("does not end at sigma 0", taken)
    shown = "steps, down to" if subject.adaptive else "steps, one per interval, to"
    return taken, f"{shown} sigma 0, each float32 {(2, *SHAPE)} and finite"


def _insist_on_step(step: Step, index: int, x: Tensor, sigma: float | None) -> None:
    if step.index != index:
        raise Wrong(f"step {index} has the index {step.index}", index)
    if sigma is not None and abs(step.sigma - sigma) > 1e-5 * sigma:
        raise Wrong(f"step {index} ends at sigma {step.sigma:g}, not {sigma:g}", index)
    for name, found in (("x", step.x), ("denoised", step.denoised)):
        if found.shape != x.shape or found.dtype != x.dtype or found.device != x.device:
            shown = f"{tuple(found.shape)} {str(found.dtype).removeprefix('torch.')} on {found.device}"
            raise Wrong(f"step {index} has {name} {shown}, not {tuple(x.shape)} float32 on {x.device}", index)
        if not bool(found.isfinite().all()):
            raise Wrong(f"step {index} has values in {name} that are not numbers", index)


def evaluations(subject: Subject) -> tuple[float, str]:
    """3: the most frequent count per step; of an adaptive sampler the smallest, as it may retry a step."""
    subject = subject.as_declared()
    counted, counts, before = Counted(subject.denoiser()), list[int](), 0
    sigmas = grid(12)
    made = subject.steps(counted, start(), sigmas, subject.noise())
    for _ in islice(made, subject.most(sigmas)):
        counts.append(counted.calls - before)
        before = counted.calls
    # The last step, to sigma 0, often has fewer.
    usual = min(counts[:-1] or counts) if subject.adaptive else Counter(counts).most_common(1)[0][0]
    if usual != subject.info.evals:
        raise Wrong(f"{usual} evaluations in a usual step, {subject.info.evals} declared", usual)
    return usual, f"as declared; {sum(counts)} in all for {len(counts)} steps"


def seeds(subject: Subject) -> tuple[float | None, str]:
    """4: the same initial latents with equal and with different noise."""
    if not subject.repeatable:
        raise Wrong("the same seed gives another result")
    if not subject.draws:
        return None, "the same seed gives the same result, bit for bit"
    x, sigmas = start(), grid(6)
    gap = rms(subject.run(sigmas, x=x, seed=0)[-1].x - subject.run(sigmas, x=x, seed=100)[-1].x)
    if gap == 0:
        raise Wrong("registered as stochastic, but different noise gives the same result", gap)
    return gap, "the same seed gives the same result; rms difference to another seed's result"


def batches(subject: Subject) -> tuple[float, str]:
    """5: seeds 0 and 1 in one batch, and alone."""
    subject.insist_on_repeatable()
    sigmas = grid(6)
    pair = subject.run(sigmas, x=start(2), noise=subject.noise(0, 2))
    alone = torch.cat([subject.run(sigmas, seed=seed)[-1].x for seed in (0, 1)])
    gap = largest(pair[-1].x - alone)
    if subject.adaptive:
        if gap > 0.05:
            raise Wrong("two batched images differ from each alone (limit 0.05 for an adaptive sampler)", gap)
        return (
            gap,
            "largest difference to each alone (limit 0.05 for an adaptive sampler, which shares its steps)",
        )
    if not same(pair[-1].x, alone):
        raise Wrong("two batched images differ from each alone", gap)
    return gap, "two batched images equal each alone, bit for bit"


def interleaving(subject: Subject) -> tuple[float, str]:
    """6: two runs interleaved, and one after the other."""
    subject.insist_on_repeatable()
    sigmas = grid(6)
    apart = [subject.run(sigmas, seed=seed)[-1].x for seed in (0, 1)]
    runs = [subject.steps(subject.denoiser(), start(1, s), sigmas, subject.noise(s)) for s in (0, 1)]
    last: list[Tensor] = [start(), start()]
    going = {0, 1}
    while going:
        for i in sorted(going):
            step = next(runs[i], None)
            if step is None:
                going.discard(i)
            else:
                last[i] = step.x.clone()
    gap = max(largest(a - b) for a, b in zip(apart, last, strict=True))
    if not all(same(a, b) for a, b in zip(apart, last, strict=True)):
        raise Wrong("two interleaved runs change each other", gap)
    return gap, "two interleaved runs equal each alone, bit for bit"


class _Noted:
    """A noise source that counts, and adds one to draw number `changed`."""

    def __init__(self, source: Noise, changed: int | None = None) -> None:
        self.source, self.changed, self.count = source, changed, 0

    def __call__(self, sigma: float, target: float) -> Tensor:
        drawn = self.source(sigma, target)
        self.count += 1
        return drawn + 1 if self.count - 1 == self.changed else drawn


def draws(subject: Subject) -> tuple[float, str]:
    """7: change every draw in turn; the result must change."""
    subject.insist_on_repeatable()
    sigmas = grid(5)
    noted = _Noted(subject.noise())
    plain = subject.run(sigmas, noise=noted)[-1].x
    if not subject.draws:
        if noted.count:
            raise Wrong("draws noise, but is not registered as stochastic", noted.count)
        return 0, "no draws"
    unused = 0
    for i in range(noted.count):
        other = subject.run(sigmas, noise=_Noted(subject.noise(), changed=i))[-1].x
        unused += same(plain, other)
    if unused:
        raise Wrong(f"of {noted.count} draws, {unused} have no effect", unused)
    return noted.count, "draws, each of which changes the result"


def middle(subject: Subject) -> tuple[float, str]:
    """9: resume a run from one of its steps, as resuming and branching do."""
    subject.insist_on_repeatable()
    sigmas = grid(80)
    whole = subject.run(sigmas)
    i = len(whole) // 2
    rest = [whole[i - 1].sigma, *(level for level in sigmas if level < whole[i - 1].sigma * 0.999)]
    resumed = subject.run(rest, x=whole[i - 1].x, noise=subject.noise())
    for number, step in enumerate(resumed):
        _insist_on_step(step, number, whole[0].x, None if subject.adaptive else rest[number + 1])
    gap = rms(resumed[-1].x - whole[-1].x)
    if not resumed or resumed[-1].sigma != 0:
        raise Wrong(f"resumed at step {i}, it does not reach sigma 0", gap)
    if gap <= MIDDLE:
        return gap, f"resumed at step {i}, it gives the same result, to an rms of {MIDDLE}"
    if subject.draws and not subject.info.distilled and near(*moments(subject, grid(400, high=rest[0]))):
        return gap, f"resumed at step {i}, the result differs, but has the right mean and variance"
    raise Wrong(f"resumed at step {i}, the result differs (limit {MIDDLE})", gap)


MIDDLE = 0.05  # rms; a multistep method loses its history there; the latents have std 0.7


def masks(subject: Subject) -> tuple[float, str]:
    """10: as in inpainting: half of every clean estimate has known values."""
    known = torch.linspace(-KNOWN, KNOWN, 8).expand(1, *SHAPE)
    inside = torch.zeros(1, *SHAPE)
    inside[..., :4, :] = 1
    exact = subject.denoiser()

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return torch.where(inside > 0, exact(x, sigma), known)

    x = torch.where(inside > 0, start(), known + HIGH * normal(1))
    gap = largest((subject.run(grid(12), x=x, denoise=denoise)[-1].x - known) * (1 - inside))
    if not gap <= EXACT:
        raise Wrong(f"known values are changed in the result (limit {EXACT:g})", gap)
    return gap, f"known values are unchanged in the result, to {EXACT:g}"


KNOWN = 10.0  # far outside the usual range of latents, to detect clipping
EXACT = 1e-4  # float32 arithmetic around values of that size

RULES = (
    Rule(
        1,
        "steps",
        "One step per interval, numbered from 0, finite, of the shape and dtype of `x`; the last at sigma 0.",
        steps,
    ),
    Rule(2, "order", "The error falls with the step size at the declared order.", order),
    Rule(3, "evaluations", "A usual step calls `denoise` as often as declared.", evaluations),
    Rule(
        4,
        "seeds",
        "The same seed gives the same result; another seed gives another, if the sampler is stochastic.",
        seeds,
    ),
    Rule(5, "batches", "Two batched images equal each alone, bit for bit.", batches),
    Rule(6, "interleaving", "Two interleaved runs equal each alone, bit for bit.", interleaving),
    Rule(7, "draws", "Every draw of noise has an effect; a deterministic sampler draws none.", draws),
    Rule(
        8,
        "statistics",
        "A stochastic sampler's results have the mean and the variance of the clean latents.",
        statistics,
    ),
    Rule(
        9,
        "middle",
        "A run can start at any noise level: resumed from one of its steps, it gives the same result.",
        middle,
    ),
    Rule(
        10,
        "masks",
        "Where `denoise` returns known values, as in inpainting, the result has exactly those.",
        masks,
    ),
    Rule(
        11, "memory", "Yielded tensors, `x`, and the results of `denoise` are never changed in place.", memory
    ),
    Rule(12, "stopping", "Closing the generator ends it, and so does a cancel inside `denoise`.", stopping),
    Rule(
        13,
        "surroundings",
        "Gradient mode, default dtype and device, autocast and every global random state are unchanged.",
        surroundings,
    ),
)
