"""The grid of a comparison on the page: it fills as cells finish, and each image opens its run.

The value is a whole comparison; `news` holds the cells of the last few updates, so that a message skipped by
the browser does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.errors import UserError
from ui.page.widgets.data_uris import thumbnail_uri
from ui.page.widgets.player import Message

if TYPE_CHECKING:
    from ui.service.comparisons import GridRun, Spot

HERE = Path(__file__).parent
# The examples of the empty state: the button's text, and the axes that it fills in.
EXAMPLES: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("Steps against CFG scale", (("steps", "5, 10, 20"), ("cfg_scale", "1, 3, 6"))),
    ("Four seeds, three samplers", (("seed", "1-4"), ("sampler", "ddim, heun, dpmpp_2m"))),
    ("Every schedule", (("schedule", "all"),)),
    ("CFG scale against CFG rescale", (("cfg_scale", "4-12 (+4)"), ("cfg_rescale", "0, 0.5, 1"))),
)
Thumbnail = Callable[[str], bytes]


def grid() -> gr.HTML:
    """The grid, empty. Events: `open` with a run's id, `example` with the number of an example."""
    return gr.HTML(
        None,
        html_template=(HERE / "grid.html").read_text(encoding="utf-8").replace("EXAMPLES", _examples()),
        js_on_load=(HERE / "grid.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id="grid",
        news=None,
    )


def whole(run: GridRun, thumbnail: Thumbnail) -> Message:
    """A whole comparison, for a grid that is shown for the first time or again."""
    columns, rows, sheets = run.plan.shape
    return {
        "grid": run.id,
        "shape": [columns, rows, sheets],
        "axes": [
            {"title": axis.title, "values": [value.label for value in axis.values]} for axis in run.plan.axes
        ],
        "largest": max(max(cell.settings.width, cell.settings.height) for cell in run.plan.cells),
        **changed(run, run.spots, thumbnail),
    }


def changed(run: GridRun, spots: Iterable[Spot], thumbnail: Thumbnail) -> Message:
    """The changed cells and the overall progress."""
    return {
        "grid": run.id,
        "words": run.words(),
        "done": run.ended.is_set(),
        "share": sum(spot.state not in ("waiting", "running") for spot in run.spots) / len(run.spots),
        "cells": [_spot(run, spot, thumbnail) for spot in spots],
    }


def _examples() -> str:
    """Their buttons. They are in the template, since an event before the tab is first opened drops props."""
    return "".join(
        f'<button type="button" data-number="{number}">{escape(words)}</button>'
        for number, (words, _) in enumerate(EXAMPLES)
    )


def _spot(run: GridRun, spot: Spot, thumbnail: Thumbnail) -> dict[str, Any]:
    said: dict[str, Any] = {
        "at": list(spot.cell.at),
        "state": spot.state,
        "words": run.plan.label(spot.cell),
    }
    if spot.error:
        said["error"] = spot.error
    if spot.run_id is not None:
        said |= {"run": spot.run_id, "src": _source(spot.run_id, thumbnail)}
    return said


def _source(run_id: str, thumbnail: Thumbnail) -> str:
    try:
        small = thumbnail(run_id)
    except UserError:  # it was deleted meanwhile
        return ""
    return thumbnail_uri(small)
