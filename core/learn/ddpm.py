"""DDPM with all its steps against DDIM with a few: images, time, and distance to the ODE's solution."""

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
    """One run. rms, psnr: against the probability-flow ODE's solution from the same noise."""

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
    """DDPM and DDIM runs with the same seed and prompt. Raises UserError.

    DDIM with eta 0 solves the probability-flow ODE, so its error is its distance to the ODE's solution, for
    which a second-order solver with 100 steps stands in. DDPM adds noise at every step: it makes a different
    image, and its distance says how different, not how wrong.
    """
    watch = watch or Watch()
    if not ddim_steps:
        raise UserError("DDIM steps: give at least one number of steps")
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
    pictures.append(("the ODE's solution", goal.images[0]))
    slow, fast = entries[0], entries[1]
    words = [
        f"DDPM evaluated the network {slow.evals} times in {slow.seconds:.3g} s; DDIM with {fast.steps} "
        f"steps evaluated it {fast.evals} times in {fast.seconds:.3g} s. DDIM's distance to the ODE's "
        "solution is its error. DDPM adds fresh noise at every step, so it makes a different image of "
        "the same kind: its distance is not an error."
    ]
    numbers = {"entries": [asdict(entry) for entry in entries], "settings": asked[0].to_dict()}
    plot = Plot("seconds and distance of each run", lambda paper: _bars(paper, entries))
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
        (right, [entry.rms for entry in entries], "distance to the ODE's solution"),
    ):
        axes.barh(names, values, color=colors, height=0.6)
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        paper.title(axes, title)
    left.set_xscale("log")
    paper.few_figures(left.xaxis)
    return figure
