"""The page, put together: a header and the tabs."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING

import gradio as gr

from core.request import Defaults
from ui.tabs.txt2img import Txt2img

if TYPE_CHECKING:
    from core.registry import Registry
    from ui.engine import Engine
    from ui.jobs import Jobs

FIRST = Defaults(sampler="ddim", schedule="leading", steps=20, cfg_scale=5.0, width=128, height=128)


def build_page(jobs: Jobs, registry: Registry, endpoints: Callable[[], None] = lambda: None) -> gr.Blocks:
    """The page over a model that may still be loading. `endpoints` adds those for programs."""
    page = gr.Blocks(title="LatentCanvas", analytics_enabled=False, fill_width=True)
    with page:
        header = gr.HTML(header_html("loading the model", registry), elem_id="header")
        with gr.Tabs(elem_id="tabs"), gr.Tab("txt2img", id="txt2img"):
            tab = Txt2img(jobs, registry, first_defaults(registry))
        tab.connect(page)
        endpoints()
        page.load(
            lambda: _loaded_header(jobs.engine, registry),
            None,
            header,
            show_progress="hidden",
            concurrency_limit=None,
            api_visibility="private",
        )
    return page


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


def header_html(model: str, registry: Registry) -> str:
    """The line at the top: the model, and what the plugins brought."""
    failed = [status for status in registry.plugins if status.error]
    plugins = f"{len(registry.samplers)} samplers, {len(registry.schedules)} schedules"
    trouble = ""
    if failed:
        names = "; ".join(f"{status.name}: {status.error}" for status in failed)
        count = f"{len(failed)} plugin{'' if len(failed) == 1 else 's'} failed"
        trouble = f' <span class="lc-warn" title="{escape(names, quote=True)}">{count}</span>'
    return (
        '<header class="lc-header"><h1>LatentCanvas</h1>'
        f"<span>model <b>{escape(model)}</b></span><span>{plugins}{trouble}</span>"
        '<button type="button" id="theme-switch" aria-label="Light or dark" title="Light or dark">'
        '<svg viewBox="0 0 16 16" aria-hidden="true">'
        '<circle cx="8" cy="8" r="6"/><path d="M8 2a6 6 0 0 1 0 12z"/></svg></button></header>'
    )


def _loaded_header(engine: Engine, registry: Registry) -> str:
    engine.wait()
    name = engine.pipeline.name if engine.ready else "none: it could not be loaded"
    return header_html(name, registry)
