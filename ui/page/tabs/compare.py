"""The compare tab: a grid over any settings, or samplers at equal evaluations; the cost is shown first.

All other settings come from the workbench's form, which the page passes as `Base`. Each cell is a run in the
history; a click on it opens it in the workbench.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.compare import axes
from core.compare.grid import AxisRequest, GridPlan, Surroundings, cost_words, plan_grid, plan_race
from core.compare.ranges import Mistakes
from core.errors import UserError
from core.request.request import Request
from ui.page.widgets import grid as grid_widget
from ui.page.widgets import text
from ui.page.widgets.fields import LATEST, QUICK
from ui.page.widgets.grid_summary import base_html, cost_html, failures_html, mistakes_html
from ui.page.widgets.sampler_controls import sampler_choices, schedule_choices
from ui.service.comparisons import GridRun, Grids
from ui.web.served_files import Handing

if TYPE_CHECKING:
    from gradio.components import Component

    from core.images.source_images import Inputs
    from core.sampling.registry import Registry, SamplerInfo
    from ui.service.job_queue import Jobs

GRID, RACE = "Grid of settings", "Equal evaluations"
EACH_ITS_OWN = "Each sampler's default"
LIVE_SECONDS = 0.3
AXES = (("Columns", "steps"), ("Rows", "cfg_scale"), ("Sheets", ""))
RACERS = ("ddim", "euler", "heun", "dpmpp_2m", "unipc")


@dataclass(frozen=True)
class Base:
    """The form's request, and its init image and mask."""

    request: Request
    inputs: Inputs | None = None


class CompareTab:
    """The tab: `build` it inside the caller's layout, then `connect` it.

    models: gives the names of all models, called on demand.
    """

    def __init__(self, jobs: Jobs, registry: Registry, models: Callable[[], Sequence[str]]) -> None:
        self.jobs, self.registry, self.models = jobs, registry, models
        self.grids, self._handing = Grids(jobs), Handing()
        self._fit = lru_cache(maxsize=2048)(self._fitted)

    # The controls.

    def build(self) -> None:
        """The controls and the grid."""
        with gr.Row(elem_id="compare", equal_height=False):
            with gr.Column(scale=4, min_width=320, elem_id="compare-asked"):
                self.base_words = gr.HTML(apply_default_css=False, elem_id="compare-base")
                self.mode = gr.Radio(
                    [GRID, RACE], value=GRID, label="Compare", show_label=False, elem_id="compare-mode"
                )
                with gr.Column(elem_id="compare-axes") as self.axes_part:
                    self.axes = [self._axis(i, name, first) for i, (name, first) in enumerate(AXES)]
                with gr.Column(visible=False, elem_id="compare-race") as self.race_part:
                    self._build_race()
                self.cost = gr.HTML(apply_default_css=False, elem_id="compare-cost")
                with gr.Row(elem_id="compare-actions"):
                    self.start = gr.Button("Compare", variant="primary", scale=3, elem_id="compare-start")
                    idle: dict[str, Any] = {"variant": "stop", "interactive": False}
                    self.stop = gr.Button("Stop", **idle, scale=1, min_width=72, elem_id="compare-stop")
                    self.save = gr.Button(
                        "Save sheet", interactive=False, scale=2, min_width=100, elem_id="compare-save"
                    )
                self.file = gr.DownloadButton(
                    "Download the sheet", visible=False, size="sm", elem_id="compare-file"
                )
                self.notice = gr.HTML(apply_default_css=False, elem_id="compare-notice")
            with gr.Column(scale=9, min_width=320):
                self.grid = grid_widget.grid()

    def _axis(self, number: int, name: str, first: str) -> tuple[gr.Dropdown, gr.Textbox, gr.Button]:
        with gr.Row(elem_classes="lc-axis"):
            setting = gr.Dropdown(
                [("none", ""), *axes.choices(self.registry)],
                value=first,
                label=name,
                filterable=True,
                scale=4,
                min_width=110,
                elem_id=f"axis-{number}",
            )
            values = gr.Textbox(
                label="Values",
                info="Numbers: 10, 20 or 1-4 or 10-30 (+5) or 0-1 [5]. Names and texts: separated by commas; "
                "put a text that holds a comma in double quotes",
                placeholder=axes.example(first, self.registry),
                max_lines=3,
                lines=1,
                scale=6,
                min_width=120,
                elem_id=f"values-{number}",
            )
            fill = gr.Button(
                "All",
                size="sm",
                visible=bool(axes.every(first, self.registry, ("x",))),
                scale=0,
                min_width=48,
                elem_id=f"all-{number}",
                elem_classes="lc-small",
            )
        return setting, values, fill

    def _build_race(self) -> None:
        self.evals = gr.Slider(
            1,
            200,
            20,
            step=1,
            precision=0,
            label="Model evaluations per sampler",
            info="Equal cost: a second-order sampler gets half the steps of a first-order one",
            buttons=[],
            elem_id="race-evals",
        )
        known = [name for name in RACERS if name in self.registry.samplers]
        self.samplers = gr.Dropdown(
            sampler_choices(self.registry),
            value=known or list(self.registry.samplers)[:4],
            label="Samplers",
            multiselect=True,
            elem_id="race-samplers",
        )
        self.schedule = gr.Dropdown(
            [(EACH_ITS_OWN, ""), *schedule_choices(self.registry)],
            value="",
            label="Schedule",
            elem_id="race-schedule",
        )

    def controls(self) -> list[Component]:
        """The controls, in the order that `plan` takes their values."""
        pairs = [control for setting, values, _ in self.axes for control in (setting, values)]
        return [self.mode, *pairs, self.evals, self.samplers, self.schedule]

    # Wiring.

    def connect(
        self,
        page: gr.Blocks,
        owner: Component,
        base: Callable[..., Base],
        base_inputs: Sequence[Component],
        *,
        shown: Callable[..., Any],
        open_run: Callable[[str, str], Sequence[Any]],
        open_outputs: Sequence[Component] = (),
    ) -> None:
        """Wire the tab.

        owner: holds the owner token. base(owner, *values of base_inputs): the form's request and images;
        raises UserError. shown: the event of the tab being opened, `gr.Tab.select`. open_run(owner, run id):
        updates for `open_outputs` that open the run in the workbench; raises UserError.
        """
        self._base = base
        asked = [owner, *self.controls(), *base_inputs]
        told = [self.base_words, self.cost]
        # One event for all: of two in flight, the reply to the older could arrive last.
        changes = [control.change for control in self.controls()]  # pyrefly: ignore[missing-attribute]
        gr.on([*changes, shown], self.on_plan, asked, told, **LATEST)
        self.mode.change(_parts, self.mode, [self.axes_part, self.race_part], **QUICK)
        for setting, values, fill in self.axes:
            setting.input(None, None, values, js="() => ''", **QUICK)  # at once: the user may start to type
            setting.input(self.on_setting, setting, [values, fill], **QUICK)
            fill.click(self.on_fill, setting, values, **QUICK)
        self.grid.example(example, None, self.controls()[:7], **QUICK)
        self._connect_runs(page, owner, asked)
        opened = _opener(open_run, len(open_outputs))
        self.grid.open(opened, owner, [*open_outputs, self.notice], **QUICK)

    def _connect_runs(self, page: gr.Blocks, owner: Component, asked: Sequence[Component]) -> None:
        shown = [self.grid, self.notice, self.start, self.stop, self.save]
        self.start.click(self.on_compare, list(asked), [*shown, self.file], **QUICK)
        page.load(self.on_load, owner, [*shown, self.base_words], **QUICK).then(
            self.on_watch, owner, shown, **QUICK
        )
        self.stop.click(self.on_stop, owner, None, **QUICK)
        self.save.click(self.on_save, owner, [self.file, self.notice], **QUICK)

    # Planning.

    def plan(self, owner: str, *values: Any) -> tuple[Base, GridPlan]:
        """The planned runs. Raises Mistakes, a sentence for each error."""
        count = len(self.controls())
        mode, *rest = values[:count]
        base = self._asked_base(owner, values[count:])
        pipeline = self.jobs.engine.pipeline
        around = Surroundings(
            self.registry,
            pipeline.defaults,
            tuple(self.models()),
            self.jobs.engine.name,
            None if base.inputs is None else base.inputs.given,
        )
        if mode == RACE:
            plan = self._race(base, rest[-3:], around)
        else:
            pairs = zip(rest[0:6:2], rest[1:6:2], strict=True)
            axes = [AxisRequest(setting or "", typed or "") for setting, typed in pairs]
            plan = plan_grid(base.request, axes, around)
        self._check(plan)
        return base, plan

    def _asked_base(self, owner: str, values: Sequence[Any]) -> Base:
        try:
            return self._base(owner, *values)
        except UserError as error:
            raise Mistakes([f"in the form, {error}"]) from error

    def _race(self, base: Base, values: Sequence[Any], around: Surroundings) -> GridPlan:
        evals, samplers, schedule = values
        if not isinstance(evals, int | float):
            raise Mistakes(["model evaluations per sampler: enter a number"])

        def fit(info: SamplerInfo, chosen: str, strength: float) -> tuple[int, int]:
            return self._fit(around.loaded, int(evals), info.name, chosen, strength)

        return plan_race(base.request, samplers or [], int(evals), around, fit, schedule=schedule or None)

    def _fitted(
        self, model: str, evals: int, sampler: str, schedule: str, strength: float
    ) -> tuple[int, int]:
        """Cached by all arguments; `model` is the loaded one and stands for its noise schedule."""
        from core.compare.race import fit

        levels = self.jobs.engine.pipeline.noise_schedule
        info = self.registry.sampler(sampler)
        return fit(evals, info, self.registry.schedule(schedule), levels, strength)

    def _check(self, plan: GridPlan) -> None:
        """Raises Mistakes for cells beyond this page's limits."""
        mistakes = []
        for cell in plan.cells:
            try:
                self.jobs.check(cell.settings)
            except UserError as error:
                mistakes.append(str(error))
        if mistakes:
            raise Mistakes(mistakes)

    # Handlers.

    def on_plan(self, owner: str, *values: Any) -> tuple[str, str]:
        """The form's settings, and the cost or the errors."""
        mode, typed = values[0], values[2 : 2 * len(self.axes) + 1 : 2]
        if mode == GRID and not any(typed):
            return self._from(owner, values), text.plain("Type values to see the cost here.")
        try:
            base, plan = self.plan(owner, *values)
        except Mistakes as error:
            return self._from(owner, values), mistakes_html(error)
        except UserError as error:
            return self._from(owner, values), text.plain(str(error))
        words = cost_words(plan, self.grids.speed(owner))
        return base_html(base.request, base.inputs, self.registry), cost_html(words)

    def _from(self, owner: str, values: Sequence[Any]) -> Any:
        try:
            base = self._base(owner, *values[len(self.controls()) :])
        except UserError:
            return gr.skip()
        return base_html(base.request, base.inputs, self.registry)

    def on_setting(self, setting: str) -> tuple[Any, Any]:
        """Another setting on an axis: its example values, and whether it has the All button."""
        example = axes.example(setting, self.registry)
        listed = bool(axes.every(setting, self.registry, self.models()))
        return gr.Textbox(placeholder=example), gr.Button(visible=listed)

    def on_fill(self, setting: str) -> Any:
        """All values of a setting."""
        return axes.every(setting, self.registry, self.models()) or gr.skip()

    async def on_compare(self, owner: str, *values: Any) -> AsyncIterator[tuple[Any, ...]]:
        """Start, and follow the comparison to its end; if it cannot start, the error stays."""
        begun = await asyncio.to_thread(self.on_start, owner, *values)
        yield begun
        if begun[0] != gr.skip():
            async for told in self.on_watch(owner):
                yield *told, gr.skip()

    def on_start(self, owner: str, *values: Any) -> tuple[Any, ...]:
        """Start. (grid, notice, start, stop, save, file)"""
        try:
            base, plan = self.plan(owner, *values)
            run = self.grids.start(owner, plan, base.inputs)
        except UserError as error:
            wrong = mistakes_html(error) if isinstance(error, Mistakes) else text.error(str(error))
            return gr.skip(), wrong, *[gr.skip()] * 4
        return *self._shown(run), gr.DownloadButton(visible=False)

    def on_load(self, owner: str) -> tuple[Any, ...]:
        """A reloaded page shows its latest comparison again."""
        run = self.grids.latest(owner)
        words = text.plain("All other settings come from the form in txt2img, img2img or inpaint.")
        if run is None:
            return *[gr.skip()] * 5, words
        return *self._shown(run), words

    async def on_watch(self, owner: str) -> AsyncIterator[tuple[Any, ...]]:
        """The cells as they finish. (grid, notice, start, stop, save)"""
        run = self.grids.latest(owner)
        if run is None or run.ended.is_set():
            yield (gr.skip(),) * 5 if run is None else self._shown(run)
            return
        versions = [run.version] * 3
        words = ""
        while not run.ended.is_set():
            await asyncio.sleep(LIVE_SECONDS)
            if run.version == versions[-1] and run.words() == words:
                continue
            words, seen = run.words(), versions.pop(0)
            versions.append(run.version)
            news = await asyncio.to_thread(self._news, run, seen)
            yield news, gr.skip(), gr.skip(), gr.skip(), gr.Button(interactive=run.made > 0)
        yield await asyncio.to_thread(self._shown, run)

    def on_stop(self, owner: str) -> None:
        """Stop the comparison; the watcher shows its end."""
        self.grids.stop(owner)

    def on_save(self, owner: str) -> tuple[Any, str]:
        """The contact sheet as a file to download."""
        run = self.grids.latest(owner)
        if run is None:
            return gr.skip(), text.error("there is no comparison to save yet: press Compare first")
        name = f"comparison-{run.id[:6].lower()}.png"
        try:
            data, words = self.grids.sheet(run)
            file = self._handing.out(data, name)
        except UserError as error:
            return gr.skip(), text.error(str(error))
        label = f"Download {name}, {len(data) / 1e6:.1f} MB"
        button = gr.DownloadButton(label, value=file["path"], visible=True)
        return button, text.plain(f"The sheet has {words}.")

    def _news(self, run: GridRun, since: int) -> Any:
        return gr.HTML(news=grid_widget.changed(run, run.since(since), self._thumbnail(run)))

    def _shown(self, run: GridRun) -> tuple[Any, ...]:
        """The whole grid, and the buttons as they are now. (grid, notice, start, stop, save)"""
        ended = run.ended.is_set()
        return (
            grid_widget.whole(run, self._thumbnail(run)),
            failures_html(run),
            gr.Button(interactive=ended),
            gr.Button(interactive=not ended),
            gr.Button(interactive=run.made > 0),
        )

    def _thumbnail(self, run: GridRun) -> Callable[[str], bytes]:
        return lambda run_id: self.jobs.runs.open(run.owner, run_id).thumbnail(0)


def _opener(open_run: Callable[[str, str], Sequence[Any]], width: int) -> Callable[..., list[Any]]:
    """The handler of a click on an image: the workbench's updates, and the tab's notice."""

    def opened(owner: str, event: gr.EventData) -> list[Any]:
        try:
            return [*open_run(owner, str(event.run)), ""]
        except UserError as error:  # it was deleted
            return [*[gr.skip()] * width, text.error(str(error))]

    return opened


def _parts(mode: str) -> tuple[Any, Any]:
    return gr.Column(visible=mode == GRID), gr.Column(visible=mode == RACE)


def example(event: gr.EventData) -> list[Any]:
    number = event.number if isinstance(event.number, int) else 0
    _, axes = grid_widget.EXAMPLES[number % len(grid_widget.EXAMPLES)]
    filled = [part for pair in (*axes, ("", ""), ("", ""))[:3] for part in pair]
    return [GRID, *filled]
