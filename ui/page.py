"""The page, put together: a header, the strip of tabs, the workbench that three of them share, and panels."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.request import Defaults
from ui.tabs.plugins import PluginsTab
from ui.tabs.recipe import RecipeTab
from ui.viewer import Viewer
from ui.workbench import TABS, Workbench, model_names

if TYPE_CHECKING:
    from core.registry import Registry
    from ui.engine import Engine
    from ui.jobs import Jobs
    from ui.styles import Styles

FIRST = Defaults(sampler="ddim", schedule="leading", steps=20, cfg_scale=5.0, width=128, height=128)


def build_page(
    jobs: Jobs,
    registry: Registry,
    endpoints: Callable[[], None] = lambda: None,
    *,
    styles: Callable[[str], Styles] | None = None,
) -> gr.Blocks:
    """The page over a model that may still be loading.

    endpoints: adds those for programs. styles: gives the store of an owner's styles; one for all when None.
    """
    page = gr.Blocks(title="LatentCanvas", analytics_enabled=False, fill_width=True)
    with page:
        model, status = _header(registry)
        with gr.Tabs(elem_id="tabs") as tabs:
            strip = {name: gr.Tab(name, id=name) for name in TABS}
            panels = _Panels(jobs, registry)
        viewer = Viewer(jobs.engine, jobs.runs, jobs)
        bench = Workbench(jobs, registry, viewer, first_defaults(registry), styles or _one_store())
        bench.connect(page, tabs, model, status)
        viewer.connect(bench.owner)
        panels.connect(bench)
        for name, tab in {**strip, **panels.tabs}.items():
            _connect_tab(name, tab, bench)
        endpoints()
    return page


class _Panels:
    """The tabs that have a panel of their own, made inside the strip."""

    def __init__(self, jobs: Jobs, registry: Registry) -> None:
        self.recipe = RecipeTab(registry, loaded=lambda: _loaded(jobs.engine))
        self.plugins = PluginsTab(registry)
        self.tabs: dict[str, gr.Tab] = {}
        for name, build in (
            ("recipe", self.recipe.build),
            ("plugins", self.plugins.build),
            ("learn", _learn),
        ):
            with gr.Tab(name, id=name) as self.tabs[name]:
                build()

    def connect(self, bench: Workbench) -> None:
        """Wire them to each other and to the workbench."""
        self.recipe.connect(bench.opened_recipe, bench.recipe_outputs())
        self.plugins.connect()


def _connect_tab(name: str, tab: gr.Tab, bench: Workbench) -> None:
    """Switching is the browser's own work: a name on the workbench, which the style sheet goes by.

    The editor of masks is made when it is first wanted.
    """
    shows = "{__type__: 'update', visible: true}" if name == "inpaint" else "{__type__: 'update'}"
    script = f"() => {{ window.latentcanvas.tab({name!r}); return [{name!r}, {shows}]; }}"
    outputs = [bench.tab, bench.pictures.painting]
    tab.select(None, None, outputs, js=script, show_progress="hidden", api_visibility="private")


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
    """What the form holds before the model is loaded: the usual, or the first thing registered."""
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
    """What the plugins brought, and which failed."""
    failed = [status for status in registry.plugins if status.error]
    brought = f"{len(registry.samplers)} samplers, {len(registry.schedules)} schedules"
    if not failed:
        return f"<span>{brought}</span>"
    names = "; ".join(f"{status.name}: {status.error}" for status in failed)
    count = f"{len(failed)} plugin{'' if len(failed) == 1 else 's'} failed"
    return f'<span>{brought}, <span class="lc-warn" title="{escape(names, quote=True)}">{count}</span></span>'


def _loaded(engine: Engine) -> tuple[str, str] | None:
    """Name and hash of the model that is there."""
    pipeline: Any = engine.pipeline if engine.ready else None
    return None if pipeline is None else (pipeline.name, pipeline.sha256)


def _learn() -> None:
    gr.HTML(_LEARN, elem_id="learn")


def _one_store() -> Callable[[str], Styles]:
    from ui.styles import Styles

    store = Styles()
    return lambda owner: store


_LEARN = """<section class="lc-panel"><h2>Lessons are on their way</h2>
<p>Until they are here: generate a picture, then drag the slider under it back in time. <b>Clean</b> is what the model
expects at that step, <b>Noisy</b> what the sampler holds, <b>Difference</b> where the prompt pulls.</p></section>"""
_THEME_SWITCH = (
    '<button type="button" id="theme-switch" aria-label="Light or dark" title="Light or dark">'
    '<svg viewBox="0 0 16 16" aria-hidden="true">'
    '<circle cx="8" cy="8" r="6"/><path d="M8 2a6 6 0 0 1 0 12z"/></svg></button>'
)
