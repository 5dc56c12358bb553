"""The whole page: a header, the tabs, the workbench that three of them share, and the other tabs' panels."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.request.model_defaults import Defaults
from core.weights.find import model_names
from ui.page.live_view import LIVE_SECONDS
from ui.page.tabs.compare import CompareTab
from ui.page.tabs.history import HistoryPanel
from ui.page.tabs.learn.tab import LearnTab
from ui.page.tabs.plugins import PluginsTab
from ui.page.tabs.recipe import RecipeTab
from ui.page.tabs.settings import SettingsPanel, is_guest
from ui.page.viewer import Viewer
from ui.page.widgets.fields import QUICK
from ui.page.workbench import TABS, Workbench
from ui.service.styles import Styles, styles_path
from ui.service.trainings import Trainer

if TYPE_CHECKING:
    from core.sampling.registry import Registry
    from ui.service.job_queue import Jobs
    from ui.service.model_thread import ModelThread
    from ui.service.page_settings import SettingsStore

FIRST = Defaults(sampler="ddim", schedule="leading", steps=20, cfg_scale=5.0, width=128, height=128)


def build_page(
    jobs: Jobs,
    registry: Registry,
    endpoints: Callable[[], None] = lambda: None,
    *,
    settings: SettingsStore | None = None,
    plugins: PluginsTab | None = None,
) -> gr.Blocks:
    """The page over a model that may still be loading.

    endpoints: adds the API endpoints. settings: for the settings tab; None for no such tab. plugins: the
    plugins tab, which must know how plugins were loaded.
    """
    page = gr.Blocks(title="LatentCanvas", analytics_enabled=False, fill_width=True)
    with page:
        model, status = _header(registry)
        with gr.Tabs(elem_id="tabs") as tabs:
            strip = {name: gr.Tab(name, id=name, elem_id=f"tab-{name}") for name in TABS}
            panels = _Panels(jobs, registry, settings, plugins or PluginsTab(registry))
        viewer = Viewer(jobs.engine, jobs.runs, jobs)
        bench = Workbench(
            jobs, registry, viewer, first_defaults(registry), _styles_of(settings), _between(settings)
        )
        bench.connect(page, tabs, model, status)
        viewer.connect(bench.owner)
        panels.connect(page, bench)
        for name, tab in {**strip, **panels.tabs}.items():
            _connect_tab(name, tab, bench)
        endpoints()
    return page


class _Panels:
    """The tabs that have their own panel."""

    def __init__(
        self, jobs: Jobs, registry: Registry, settings: SettingsStore | None, plugins: PluginsTab
    ) -> None:
        runs = jobs.runs
        self.compare = CompareTab(jobs, registry, model_names)
        self.history = HistoryPanel(
            lambda: runs.history, lambda token: runs.scope(token) if token else "", runs.forget
        )
        self.recipe = RecipeTab(registry, loaded=lambda: _loaded(jobs.engine))
        self.plugins = plugins
        self.learn = LearnTab(jobs, registry, Trainer(_device(settings)), _guests(settings))
        self.settings = None if settings is None else SettingsPanel(settings)
        builds = {
            "compare": self.compare.build,
            "history": self.history.build,
            "recipe": self.recipe.build,
            "plugins": self.plugins.build,
            "learn": self.learn.build,
        }
        if self.settings is not None:
            builds["settings"] = self.settings.build
        self.tabs: dict[str, gr.Tab] = {}
        for name, build in builds.items():
            with gr.Tab(name, id=name, elem_id=f"tab-{name}") as self.tabs[name]:
                build()

    def connect(self, page: gr.Blocks, bench: Workbench) -> None:
        """Wire them to each other and to the workbench."""
        self.compare.connect(
            page,
            bench.owner,
            bench.base,
            bench.base_inputs(),
            shown=self.tabs["compare"].select,
            open_run=bench.opened_run,
            open_outputs=bench.run_outputs(),
        )
        self.history.connect(bench.owner, bench.opened_run, bench.run_outputs(), self.tabs["history"])
        self.recipe.connect(bench.opened_recipe, bench.recipe_outputs())
        self.plugins.connect()
        self.learn.connect(bench.owner, self.tabs["learn"].select, bench.base, bench.base_inputs())
        train = self.learn.train
        bench.connect_use(train.use, train.trained, train.followed)
        if self.settings is not None:
            self.settings.connect(page)


def _connect_tab(name: str, tab: gr.Tab, bench: Workbench) -> None:
    """Tabs switch in the browser: a data attribute on the workbench selects what the style sheet shows.

    The mask editor is rendered when its tab is first opened.
    """
    outputs, values = [bench.tab], [repr(name)]
    if name in TABS:
        outputs.append(bench.mode)
        values.append(repr(name))
    script = f"() => {{ window.latentcanvas.tab({name!r}); return [{', '.join(values)}]; }}"
    tab.select(None, None, outputs, js=script, **QUICK)
    if name == "inpaint":
        painting = bench.pictures.painting
        tab.select(None, None, painting, js="() => ({__type__: 'update', visible: true})", **QUICK)


def _header(registry: Registry) -> tuple[gr.Dropdown, gr.HTML]:
    with gr.Row(elem_id="header"):
        gr.HTML("<h1>LatentCanvas</h1>", elem_id="brand")
        model = gr.Dropdown(
            model_names(),
            value=None,
            label="Model",
            container=False,
            min_width=120,
            elem_id="model",
        )
        status = gr.HTML("", elem_id="status")
        gr.HTML(plugins_html(registry), elem_id="plugins-line")
        gr.HTML(_THEME_SWITCH, elem_id="theme")
    return model, status


def first_defaults(registry: Registry) -> Defaults:
    """The form's values before the model is loaded: the usual ones, or the first registered."""
    sampler = (
        FIRST.sampler if FIRST.sampler in registry.samplers else next(iter(registry.samplers), FIRST.sampler)
    )
    schedule = (
        FIRST.schedule
        if FIRST.schedule in registry.schedules
        else next(iter(registry.schedules), FIRST.schedule)
    )
    return Defaults(
        sampler=sampler,
        schedule=schedule,
        steps=FIRST.steps,
        cfg_scale=FIRST.cfg_scale,
        width=FIRST.width,
        height=FIRST.height,
    )


def plugins_html(registry: Registry) -> str:
    """How many samplers and schedules are registered, and which plugins failed."""
    failed = [status for status in registry.plugins if status.error]
    brought = f"{len(registry.samplers)} samplers, {len(registry.schedules)} schedules"
    if not failed:
        return f"<span>{brought}</span>"
    names = "; ".join(f"{status.name}: {status.error}" for status in failed)
    count = f"{len(failed)} plugin{'' if len(failed) == 1 else 's'} failed"
    return f'<span>{brought}, <span class="lc-warn" title="{escape(names, quote=True)}">{count}</span></span>'


def _loaded(engine: ModelThread) -> tuple[str, str] | None:
    """Name and hash of the loaded model."""
    pipeline: Any = engine.pipeline if engine.ready else None
    return None if pipeline is None else (pipeline.name, pipeline.sha256)


def _styles_of(settings: SettingsStore | None) -> Callable[[str], Styles]:
    """The styles of the person at this machine, or on a shared page of each guest."""

    def styles(owner: str) -> Styles:
        shared = settings is not None and settings.current.shared
        return Styles(styles_path(owner if shared else None))

    return styles


def _device(settings: SettingsStore | None) -> Callable[[], str | None]:
    """The device to train on: that of the page's model."""
    return lambda: None if settings is None else settings.current.page.device


def _guests(settings: SettingsStore | None) -> Callable[[gr.Request], bool]:
    """Whether a request comes from a guest of the page."""
    return lambda request: settings is not None and is_guest(settings, request)


def _between(settings: SettingsStore | None) -> Callable[[], float]:
    """The minimum seconds between two previews of a run."""
    if settings is None:
        return lambda: LIVE_SECONDS
    return lambda: 1 / settings.current.page.previews_per_second


_THEME_SWITCH = (
    '<button type="button" id="theme-switch" aria-label="Light or dark theme" title="Light or dark theme">'
    '<svg viewBox="0 0 16 16" aria-hidden="true">'
    '<circle cx="8" cy="8" r="6"/><path d="M8 2a6 6 0 0 1 0 12z"/></svg></button>'
)
