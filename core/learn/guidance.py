"""Classifier-free guidance in detail: the estimates at one step, and images over a range of scales.

The grid has one row per prompt and one column per scale, all from the same noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from core.errors import UserError
from core.figures.contact_sheet import ImageRow, Plot, sheet
from core.figures.plots import Paper
from core.learn.latents import difference
from core.learn.recorder import Watch, evals_of, norm, rms, run, settings_of
from core.learn.result import ViewResult
from core.sampling.guidance import guide

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from core.inference.pipeline import Pipeline
    from core.inference.run import RunStep

SCALES = (1.0, 2.0, 3.0, 5.0, 8.0, 12.0)
MOST = 12  # scales, and also rows of a grid
MOST_CELLS = 60
CELL_SIDE = 256  # pixels of an image in a grid, so that a page can hold all of them


def guidance(
    pipeline: Pipeline,
    *,
    prompt: str,
    scales: Sequence[float] = SCALES,
    at: float = 0.3,
    watch: Watch | None = None,
    **fields: Any,
) -> ViewResult:
    """The estimates after a share `at` of the steps, guided with each scale; then each scale's final image.

    The estimates come from the run with the first of `scales` that is not 1. Raises UserError.
    """
    watch = watch or Watch()
    _check_words(pipeline)
    if pipeline.model.config.unet.guides_itself:
        raise UserError(f"{pipeline.name} reads the cfg scale itself: it has no estimate without the prompt")
    settings = settings_of(pipeline, prompt=prompt, **{"seed": 1, **fields, "batch": 1})
    all_settings = _each(settings, scales)
    looked = next((one for one in all_settings if one.cfg_scale != 1), None)
    if looked is None:
        raise UserError("scales: scale 1 is no guidance; add another scale")
    watch.expect(evals_of(settings) * (len(all_settings)))
    results = {one.cfg_scale: run(pipeline, one, watch, keep_steps=one is looked) for one in all_settings}
    steps = results[looked.cfg_scale].steps
    step = steps[min(max(round(at * (len(steps) - 1)), 0), len(steps) - 1)]
    estimates = _estimates(pipeline, step, [one.cfg_scale for one in all_settings])
    pulls = [_pull(one) for one in steps]
    words = [
        f"At step {step.index + 1} of {len(steps)}, noise level {step.sigma:.3g}, the estimates with and "
        f"without the prompt differ by {_pull(step):.3f} (root mean square). Guidance multiplies that "
        "difference by the scale.",
        "The second row guides this step with each scale; the third row is a whole run with each scale.",
    ]
    finished = [(f"scale {scale:g}", results[scale].images[0]) for scale in results]
    parts: list[ImageRow | Plot] = [
        ImageRow("the estimates", _apart(pipeline, step, looked.cfg_scale), 4),
        ImageRow(f"step {step.index + 1}, guided with", estimates, len(estimates)),
        ImageRow("the final image of each scale", finished, len(finished)),
        Plot("effect of the prompt at each step", lambda paper: _course(paper, steps, pulls, step)),
    ]
    numbers = {
        "step": step.index + 1,
        "sigma": step.sigma,
        "scales": list(results),
        "pull": pulls,
        "spread": {f"{scale:g}": norm(results[scale].steps[-1].x) for scale in results},
        "settings": looked.to_dict(),
    }
    return ViewResult(words, numbers, parts, lambda paper: [image for _, image in finished], milliseconds=500)


def check_grid(prompts: Sequence[str], scales: Sequence[float]) -> None:
    """Raises UserError for a grid that is too small or too large, or has repeated prompts or scales."""
    _check_scales(scales)
    if not 2 <= len(prompts) <= MOST:
        raise UserError(f"{len(prompts)} prompt{'s' * (len(prompts) != 1)}: a grid takes 2 to {MOST}")
    if len(set(prompts)) < len(prompts):
        raise UserError("prompts: give each prompt only once")
    cells = len(prompts) * len(scales)
    if cells > MOST_CELLS:
        raise UserError(
            f"{len(prompts)} prompts at {len(scales)} scales are {cells} images: at most {MOST_CELLS}"
        )


def guidance_grid(
    pipeline: Pipeline,
    *,
    prompts: Sequence[str] = (),
    scales: Sequence[float] = SCALES,
    watch: Watch | None = None,
    **fields: Any,
) -> ViewResult:
    """The final image of each prompt (rows) at each scale (columns), all with one seed.

    Without prompts, as many of the model's own examples as fit are taken; a model of labels has its classes
    there. The distance between the prompts at a scale is the root mean square difference of two final
    latents, averaged over all pairs. Raises UserError.
    """
    watch = watch or Watch()
    _check_words(pipeline)
    if not prompts:
        _check_scales(scales)
        prompts = pipeline.model.examples[: min(MOST, MOST_CELLS // len(scales))]
        if len(prompts) < 2:
            raise UserError("this model comes without example prompts: give 2 or more prompts")
    check_grid(prompts, scales)
    rows = [
        _each(settings_of(pipeline, prompt=prompt, **{"seed": 1, **fields, "batch": 1}), scales)
        for prompt in prompts
    ]
    watch.expect(sum(evals_of(one) for row in rows for one in row))
    made = [[run(pipeline, one, watch) for one in row] for row in rows]
    small = [[_small(result.images[0]) for result in row] for row in made]
    apart = [_apart_on_average([row[i].steps[-1].x for row in made]) for i in range(len(scales))]
    words = [
        "Each row is a prompt, each column a scale; all images start from the same noise.",
        f"The rows are {apart[0]:.2f} apart at scale {scales[0]:g} and {apart[-1]:.2f} apart at scale "
        f"{scales[-1]:g} (root mean square difference of their latents): the larger this distance, the more "
        "the prompt determines the image, and the less the noise does.",
        *_strange_words(pipeline, prompts),
    ]
    names = [f"scale {scale:g}" for scale in scales]
    strips = [
        ImageRow(prompt or "(no prompt)", list(zip(names, row, strict=True)), len(scales))
        for prompt, row in zip(prompts, small, strict=True)
    ]
    numbers = {
        "prompts": list(prompts),
        "scales": list(scales),
        "apart": apart,
        "settings": rows[0][0].to_dict(),
    }

    def frames(paper: Paper) -> list[Image.Image]:
        columns = [list(zip(prompts, column, strict=True)) for column in zip(*small, strict=True)]
        return [
            sheet(ImageRow(name, column, min(len(column), 4)), paper)
            for name, column in zip(names, columns, strict=True)
        ]

    return ViewResult(words, numbers, strips, frames, milliseconds=700)


def _check_words(pipeline: Pipeline) -> None:
    """Raises UserError for a model that was trained without prompts."""
    if pipeline.model.notes.words == ():
        raise UserError(
            f"{pipeline.name} was trained without words, so guidance has no effect: choose a model that "
            "takes prompts"
        )


def _strange_words(pipeline: Pipeline, prompts: Sequence[str]) -> list[str]:
    unknown = dict.fromkeys(word for prompt in prompts for word in pipeline.tokens(prompt).unknown)
    return [f"The model has not learned these words: {', '.join(unknown)}."] if unknown else []


def _apart_on_average(latents: Sequence[Tensor]) -> float:
    found = [rms(a, b) for a, b in combinations(latents, 2)]
    return sum(found) / len(found)


def _small(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.thumbnail((CELL_SIDE, CELL_SIDE), Image.Resampling.LANCZOS)
    return image


def _check_scales(scales: Sequence[float]) -> None:
    if not 2 <= len(scales) <= MOST:
        raise UserError(f"{len(scales)} scale{'s' * (len(scales) != 1)}: give 2 to {MOST} scales")
    if len(set(scales)) < len(scales):
        raise UserError("scales: give each scale only once")


def _each(settings: Any, scales: Sequence[float]) -> list[Any]:
    _check_scales(scales)
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
    """The estimates that guidance combines, as images."""
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
