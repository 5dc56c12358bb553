"""Controls and events of one make, and setting a control to a kept value, whatever is wrong with that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gradio.components import Component


# How the page's own events are wired: they never wait for a run, and programs do not see them. No control
# shows their progress: else the page would tell each of their outputs of every stage of every event.
QUICK: dict[str, Any] = {
    "show_progress": "hidden",
    "show_progress_on": [],
    "concurrency_limit": None,
    "api_visibility": "private",
}
EACH: dict[str, Any] = {**QUICK, "trigger_mode": "multiple"}  # else what comes before an answer is lost
LATEST: dict[str, Any] = {**QUICK, "trigger_mode": "always_last"}


def slider(label: str, span: tuple[float, float, float], value: float, info: str) -> gr.Slider:
    """A slider over (low, high, step), known by its label."""
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
    """A whole number without bounds: what is out of range gets our own sentence, not a pop-up."""
    return gr.Number(value, label=label, info=info, precision=0, step=step, min_width=60, elem_id=_id(label))


def small_button(label: str, elem_id: str, **more: Any) -> gr.Button:
    """A button beside a control."""
    return gr.Button(label, size="sm", min_width=60, elem_id=elem_id, elem_classes="lc-small", **more)


def update(control: Component, value: Any) -> Any:
    """What sets `control` to `value`, or nothing where that is none of its values."""
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
    """What sets these controls to the values of their names, and leaves the others as they are."""
    return [
        update(control, values[name]) if name in values else gr.skip() for name, control in controls.items()
    ]


def _numeric(control: gr.Slider | gr.Number, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return gr.skip()
    if isinstance(control, gr.Number):
        return value
    # A slider refuses what is beyond its end, and a recipe may go further than the slider does.
    return gr.Slider(value=value, maximum=max(control.maximum, value), minimum=min(control.minimum, value))


def _id(label: str) -> str:
    return label.lower().replace(" ", "-")
