"""The page, put together: a header, the strip of tabs, the workbench that three of them share, and panels."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.request import Defaults
from ui.viewer import Viewer
from ui.workbench import TABS, Workbench, model_names

if TYPE_CHECKING:
    from core.registry import Registry
    from ui.jobs import Jobs
    from ui.styles import Styles

FIRST = Defaults(sampler="ddim", schedule="leading", steps=20, cfg_scale=5.0, width=128, height=128)


def build_page(jobs: Jobs, registry: Registry, styles: Callable[[str], Styles] | None = None) -> gr.Blocks:
    """The page over a model that may still be loading. `styles` gives the store of an owner's styles."""
    page = gr.Blocks(title="LatentCanvas", analytics_enabled=False, fill_width=True)
    with page:
        model, status = _header(registry)
        with gr.Tabs(elem_id="tabs") as tabs:
            strip = {name: gr.Tab(name, id=name) for name in TABS}
            panels = _panels(registry)
        viewer = Viewer(jobs.engine, jobs.runs)
        bench = Workbench(jobs, registry, viewer, first_defaults(registry), styles or _one_store())
        bench.connect(page, tabs, model, status)
        viewer.connect(bench.owner)
        for name, tab in {**strip, **panels}.items():
            _connect_tab(name, tab, bench)
    return page


def _connect_tab(name: str, tab: gr.Tab, bench: Workbench) -> None:
    """Switching is the browser's own work: a name on the body, which the style sheet goes by.

    The editor of masks is made when it is first wanted.
    """
    shows = "{__type__: 'update', visible: true}" if name == "inpaint" else "{__type__: 'update'}"
    script = f"() => {{ window.latentcanvas.tab({name!r}); return [{name!r}, {shows}]; }}"
    tab.select(
        None,
        None,
        [bench.tab, bench.pictures.painting],
        js=script,
        show_progress="hidden",
        api_visibility="private",
    )


def _header(registry: Registry) -> tuple[gr.Dropdown, gr.HTML]:
    with gr.Row(elem_id="header"):
        gr.HTML("<h1>LatentCanvas</h1>", elem_id="brand")
        model = gr.Dropdown(
            model_names(),
            value=None,
            label="Model",
            info="Another one is loaded when its turn in the queue comes; if it cannot be, this one stays",
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


def _panels(registry: Registry) -> dict[str, gr.Tab]:
    """The tabs that have a panel of their own."""
    panels = {}
    with gr.Tab("learn", id="learn") as panels["learn"]:
        gr.HTML(_LEARN, elem_id="learn")
    return panels


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
