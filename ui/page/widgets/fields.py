"""Shared controls and event options, and updates that set a control to a stored value if it is valid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gradio.components import Component


# Options of the page's own events: they never wait for a run and are not in the API. No control shows their
# progress: else the page would update each output at every stage of every event.
QUICK: dict[str, Any] = {
    "show_progress": "hidden",
    "show_progress_on": [],
    "concurrency_limit": None,
    "api_visibility": "private",
}
# Without it, events sent before the reply to an earlier one are lost.
EACH: dict[str, Any] = {**QUICK, "trigger_mode": "multiple"}
LATEST: dict[str, Any] = {**QUICK, "trigger_mode": "always_last"}


def slider(label: str, span: tuple[float, float, float], value: float, info: str) -> gr.Slider:
    """A slider over (low, high, step); its element id comes from its label."""
    low, high, step = span
    return gr.Slider(
        low,
        high,
        value,
        step=step,
        precision=0 if step == 1 else None,
        label=label,
        info=info,
        buttons=[],
        min_width=120,
        elem_id=_id(label),
    )


def number(label: str, value: int, info: str, *, step: int = 1) -> gr.Number:
    """A whole number without bounds: a value out of range gets our own message, not a pop-up."""
    return gr.Number(value, label=label, info=info, precision=0, step=step, min_width=60, elem_id=_id(label))


def small_button(label: str, elem_id: str, **more: Any) -> gr.Button:
    """A small button next to a control."""
    return gr.Button(label, size="sm", min_width=60, elem_id=elem_id, elem_classes="lc-small", **more)


def update(control: Component, value: Any) -> Any:
    """An update that sets `control` to `value`, or a skip if the value is not valid for it."""
    if isinstance(control, gr.Slider | gr.Number):
        return _numeric(control, value)
    if isinstance(control, gr.Checkbox):
        return bool(value)
    if isinstance(control, gr.Dropdown | gr.Radio):
        known = [choice for _, choice in control.choices]
        if isinstance(control, gr.Dropdown) and control.multiselect:
            return [one for one in value if one in known] if isinstance(value, list) else gr.skip()
        return value if value in known else gr.skip()
    return value if isinstance(value, str) else gr.skip()


def updates(controls: Mapping[str, Component], values: Mapping[str, Any]) -> list[Any]:
    """Updates that set these controls to the values of their names; others are skipped."""
    return [
        update(control, values[name]) if name in values else gr.skip() for name, control in controls.items()
    ]


def _numeric(control: gr.Slider | gr.Number, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return gr.skip()
    if isinstance(control, gr.Number):
        return value
    # A slider rejects values beyond its range, and a recipe may hold such a value.
    return gr.Slider(value=value, maximum=max(control.maximum, value), minimum=min(control.minimum, value))


def _id(label: str) -> str:
    return label.lower().replace(" ", "-")
