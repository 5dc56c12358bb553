"""A comparison as escaped HTML: the form's settings, the cost, the errors."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from core.compare.ranges import Mistakes
from ui.page.widgets.text import capital

if TYPE_CHECKING:
    from core.images.source_images import Inputs
    from core.request.request import Request
    from core.sampling.registry import Registry
    from ui.service.comparisons import GridRun


def base_html(request: Request, inputs: Inputs | None, registry: Registry) -> str:
    """The form's settings, in one sentence."""
    words = f"<b>{escape(request.prompt)}</b>" if request.prompt else "<b>no prompt</b>"
    sampler = registry.samplers.get(request.sampler or "")
    said = [sampler.title if sampler else request.sampler or "the model's sampler"]
    said += [f"{request.steps} steps"] if request.steps else []
    said += [f"CFG {request.cfg_scale:g}"] if request.cfg_scale is not None else []
    said += [f"{request.width}×{request.height}"] if request.width and request.height else []
    said.append("the same random seed for all" if request.seed is None else f"seed {request.seed}")
    if inputs is not None:
        said.append("with an init image" if inputs.mask is None else "with an init image and a mask")
    return f'<p class="lc-from">From the form: {words}, {escape(", ".join(said))}</p>'


def cost_html(words: str) -> str:
    """The cost of a valid plan."""
    return f'<p class="lc-cost" role="status">{escape(words)}</p>'


def mistakes_html(error: Mistakes) -> str:
    """One line for each error."""
    lines = "".join(f"<li>{escape(capital(line))}</li>" for line in error.sentences)
    return f'<ul class="lc-mistakes" role="alert">{lines}</ul>'


def failures_html(run: GridRun) -> str:
    """Why cells failed, each reason once."""
    reasons = dict.fromkeys(spot.error for spot in run.spots if spot.error)
    return mistakes_html(Mistakes(list(reasons)[:4])) if reasons else ""
