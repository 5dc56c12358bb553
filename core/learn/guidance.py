"""Classifier-free guidance taken apart: the estimates at one step, and pictures over a range of scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from core.errors import UserError
from core.guidance import guide
from core.learn.ink import Paper
from core.learn.latents import difference
from core.learn.running import Watch, evals_of, norm, run, settings_of
from core.learn.shown import Pictures, Plot, Shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from core.pipeline import Pipeline
    from core.run import RunStep

SCALES = (1.0, 2.0, 3.0, 5.0, 8.0, 12.0)
MOST = 12


def guidance(
    pipeline: Pipeline,
    *,
    prompt: str,
    scales: Sequence[float] = SCALES,
    at: float = 0.3,
    watch: Watch | None = None,
    **fields: Any,
) -> Shown:
    """The estimates after a share `at` of the steps, guided by each scale; then each scale's own picture.

    The first of `scales` that is not 1 makes the run that is looked into. Raises UserError.
    """
    watch = watch or Watch()
    settings = settings_of(pipeline, prompt=prompt, **{"seed": 1, **fields, "batch": 1})
    all_settings = _each(settings, scales)
    looked = next((one for one in all_settings if one.cfg_scale != 1), None)
    if looked is None:
        raise UserError("scales: guidance of 1 is none; give another scale, too")
    watch.expect(evals_of(settings) * (len(all_settings)))
    results = {one.cfg_scale: run(pipeline, one, watch, keep_steps=one is looked) for one in all_settings}
    steps = results[looked.cfg_scale].steps
    step = steps[min(max(round(at * (len(steps) - 1)), 0), len(steps) - 1)]
    estimates = _estimates(pipeline, step, [one.cfg_scale for one in all_settings])
    pulls = [_pull(one) for one in steps]
    words = [
        f"At step {step.index + 1} of {len(steps)}, noise level {step.sigma:.3g}, the estimates with and "
        f"without the prompt are {_pull(step):.3f} apart (root mean square). Guidance goes on along that "
        "difference.",
        "The second row is one step guided by each scale, the third a whole run of each.",
    ]
    finished = [(f"scale {scale:g}", results[scale].images[0]) for scale in results]
    parts: list[Pictures | Plot] = [
        Pictures("the estimates", _apart(pipeline, step, looked.cfg_scale), 4),
        Pictures(f"step {step.index + 1}, guided by", estimates, len(estimates)),
        Pictures("the finished picture of each scale", finished, len(finished)),
        Plot("how far the prompt pulls at each step", lambda paper: _course(paper, steps, pulls, step)),
    ]
    numbers = {
        "step": step.index + 1,
        "sigma": step.sigma,
        "scales": list(results),
        "pull": pulls,
        "spread": {f"{scale:g}": norm(results[scale].steps[-1].x) for scale in results},
        "settings": looked.to_dict(),
    }
    return Shown(words, numbers, parts, lambda paper: [image for _, image in finished], milliseconds=500)


def _each(settings: Any, scales: Sequence[float]) -> list[Any]:
    if not 2 <= len(scales) <= MOST:
        raise UserError(f"{len(scales)} scales: give 2 to {MOST}")
    if len(set(scales)) < len(scales):
        raise UserError("scales: each is wanted once")
    return [replace(settings, cfg_scale=float(scale)) for scale in scales]


def _split(step: RunStep) -> tuple[Tensor, Tensor]:
    """(conditional, unconditional), each (1, C, h, w)."""
    return step.conditional, step.conditional if step.unconditional is None else step.unconditional


def _pull(step: RunStep) -> float:
    conditional, unconditional = _split(step)
    return norm(conditional - unconditional)


def _estimates(pipeline: Pipeline, step: RunStep, scales: Sequence[float]) -> list[tuple[str, Image.Image]]:
    guided = [(scale, guide(*_split(step), scale)) for scale in scales]
    return [(f"scale {scale:g}", pipeline.decode(latents)[0]) for scale, latents in guided]


def _apart(pipeline: Pipeline, step: RunStep, scale: float) -> list[tuple[str, Image.Image]]:
    """What guidance is made of, as pictures."""
    conditional, unconditional = _split(step)
    with_prompt, without = (pipeline.decode(one)[0] for one in (conditional, unconditional))
    guided = pipeline.decode(guide(conditional, unconditional, scale))[0]
    apart = difference(with_prompt, without)
    shown = np.round((apart / max(apart.max(), 1e-6)) * 255).astype(np.uint8)
    return [
        ("without the prompt", without),
        ("with the prompt", with_prompt),
        ("where they differ", Image.fromarray(shown).convert("RGB")),
        (f"guided, scale {scale:g}", guided),
    ]


def _course(paper: Paper, steps: Sequence[RunStep], pulls: Sequence[float], chosen: RunStep) -> Figure:
    figure, (axes,) = paper.panels(1, across=1, shape=0.6 if paper.narrow else 0.18)
    axes.plot([step.index + 1 for step in steps], pulls, "-o", color=paper.ink.series[0], ms=4)
    axes.axvline(chosen.index + 1, color=paper.ink.accent, linestyle=(0, (4, 3)))
    axes.locator_params(axis="x", integer=True)
    paper.title(axes, "‖with − without‖ at each step")
    paper.labels(axes, "step")
    return figure
