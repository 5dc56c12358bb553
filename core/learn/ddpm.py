"""DDPM in all its steps beside DDIM in a few: pictures, time, and distance to where the ODE leads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from core.figures.contact_sheet import ImageRow, Plot
from core.figures.plots import Paper
from core.learn.recorder import Watch, decibels, evals_of, rms, run, settings_of
from core.learn.result import ViewResult
from core.plugins import current

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

    from core.inference.pipeline import Pipeline
    from core.request.settings import Settings

REFERENCE_STEPS = 100


@dataclass(frozen=True)
class SamplerCost:
    """One run. rms, psnr: against the solution of the probability-flow ODE from the same noise."""

    sampler: str
    steps: int
    evals: int
    seconds: float
    rms: float
    psnr: float

    @property
    def words(self) -> str:
        return f"{self.sampler.upper()} {self.steps}: {self.seconds:.3g} s, {self.rms:.3f}"


def ddpm_and_ddim(
    pipeline: Pipeline,
    *,
    prompt: str = "",
    ddpm_steps: int = 1000,
    ddim_steps: Sequence[int] = (50, 20, 10),
    watch: Watch | None = None,
    **fields: Any,
) -> ViewResult:
    """One seed and prompt for all. Raises UserError.

    DDIM with eta 0 follows the probability-flow ODE, so its error is its distance to the ODE's solution,
    taken from a solver of second order in 100 steps. DDPM adds noise at every step: its picture is another
    one, and its distance says how different, not how wrong.
    """
    watch = watch or Watch()
    if not ddim_steps:
        raise UserError("choose how many steps DDIM takes")
    common = {"prompt": prompt, "seed": 1, "schedule": "trailing", **fields, "batch": 1}
    solver = next(name for name in ("dpmpp_2m", "heun", "ddim") if name in current.registry().samplers)
    reference = settings_of(pipeline, **common, sampler=solver, steps=REFERENCE_STEPS)
    asked = [settings_of(pipeline, **common, sampler="ddpm", steps=ddpm_steps)]
    asked += [settings_of(pipeline, **common, sampler="ddim", steps=steps) for steps in ddim_steps]
    watch.expect(sum(map(evals_of, [reference, *asked])))
    goal = run(pipeline, reference, watch)
    entries, pictures = [], []
    for settings in asked:
        entry, picture = _entry(pipeline, settings, goal, watch)
        entries.append(entry)
        pictures.append((entry.words, picture))
    pictures.append(("where the ODE leads", goal.images[0]))
    slow, fast = entries[0], entries[1]
    words = [
        f"DDPM asked the network {slow.evals} times and took {slow.seconds:.3g} s; DDIM in {fast.steps} "
        f"steps asked {fast.evals} times and took {fast.seconds:.3g} s. DDIM's distance to the ODE's "
        "solution is its error. DDPM draws noise at every step, so its picture is another one of the "
        "same kind, and its distance is no error."
    ]
    numbers = {"entries": [asdict(entry) for entry in entries], "settings": asked[0].to_dict()}
    plot = Plot("seconds and distance of each", lambda paper: _bars(paper, entries))
    return ViewResult(words, numbers, [ImageRow("", pictures, len(pictures)), plot])


def _entry(
    pipeline: Pipeline, settings: Settings, goal: Any, watch: Watch
) -> tuple[SamplerCost, Image.Image]:
    made = run(pipeline, settings, watch)
    picture = made.images[0]
    entry = SamplerCost(
        settings.sampler,
        settings.steps,
        made.evals,
        made.seconds["denoise"],
        rms(made.steps[-1].x, goal.steps[-1].x),
        decibels(picture, goal.images[0]),
    )
    return entry, picture


def _bars(paper: Paper, entries: Sequence[SamplerCost]) -> Figure:
    figure, (left, right) = paper.panels(2, across=2, shape=0.6 if paper.narrow else 0.34)
    names = [f"{entry.sampler.upper()} {entry.steps}" for entry in entries]
    colors = [paper.ink.series[1], *[paper.ink.series[0]] * (len(entries) - 1)]
    for axes, values, title in (
        (left, [entry.seconds for entry in entries], "seconds"),
        (right, [entry.rms for entry in entries], "distance to where the ODE leads"),
    ):
        axes.barh(names, values, color=colors, height=0.6)
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        paper.title(axes, title)
    left.set_xscale("log")
    paper.few_figures(left.xaxis)
    return figure
