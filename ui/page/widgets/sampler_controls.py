"""Sampler, schedule and the sampler's options, as controls made from the registry.

Every sampler has its group of controls, built once with the page; only the chosen sampler's group is visible.
So a plugin's options appear on the page without page code in the plugin, and each sampler keeps its values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gradio as gr

if TYPE_CHECKING:
    from gradio.components import Component

    from core.checks import OptionValue
    from core.sampling.options import Option
    from core.sampling.registry import Registry


@dataclass
class SamplerControls:
    """The two lists and, for each sampler with options, its group and its controls by option name."""

    registry: Registry
    sampler: gr.Dropdown
    schedule: gr.Dropdown
    groups: dict[str, gr.Row] = field(default_factory=dict)
    options: dict[str, dict[str, Component]] = field(default_factory=dict)

    def fields(self) -> dict[str, Component]:
        """Every option control of every sampler, by `sampler.option`."""
        return {
            f"{sampler}.{name}": control
            for sampler, controls in self.options.items()
            for name, control in controls.items()
        }

    def read(self, sampler: str, values: Mapping[str, Any]) -> dict[str, OptionValue]:
        """The chosen sampler's options out of all values by name."""
        return {name: values[f"{sampler}.{name}"] for name in self.options.get(sampler, {})}

    def show(self, sampler: str) -> Any:
        """Updates for all groups: only the chosen sampler's is visible."""
        updates = [gr.Row(visible=name == sampler) for name in self.groups]
        return updates[0] if len(updates) == 1 else updates  # for one output Gradio takes a list as its value


def sampler_controls(registry: Registry, sampler: str, schedule: str) -> SamplerControls:
    """The controls, inside the caller's layout."""
    with gr.Row():
        controls = SamplerControls(
            registry,
            gr.Dropdown(
                sampler_choices(registry),
                value=sampler,
                label="Sampler",
                info="The method that turns noise into an image, step by step",
                elem_id="sampler",
            ),
            gr.Dropdown(
                schedule_choices(registry),
                value=schedule,
                label="Schedule",
                info="The noise levels of the steps",
                elem_id="schedule",
            ),
        )
    for name, info in registry.samplers.items():
        if info.options:
            with gr.Row(visible=name == sampler) as group:
                controls.options[name] = {
                    option.name: option_control(option, name) for option in info.options
                }
            controls.groups[name] = group
    return controls


def sampler_choices(registry: Registry) -> list[tuple[str, str]]:
    """Pairs of (label, name); an external plugin is marked with its distribution."""
    return _choices(registry, registry.samplers)


def schedule_choices(registry: Registry) -> list[tuple[str, str]]:
    """The same for schedules."""
    return _choices(registry, registry.schedules)


def _choices(registry: Registry, known: Mapping[str, Any]) -> list[tuple[str, str]]:
    builtin = {status.distribution for status in registry.plugins if status.builtin}

    def label(info: Any) -> str:
        title = info.title or info.name
        return title if info.plugin in builtin else f"{title} (plugin {info.plugin})"

    return [(label(info), name) for name, info in known.items()]


def option_control(option: Option, sampler: str) -> Component:
    """A slider, number field, checkbox or list for one option. Unbounded numbers get a number field."""
    shared: dict[str, Any] = {
        "value": option.default,
        "label": option.name.replace("_", " "),
        "info": option.help or None,
        "elem_id": f"option-{sampler}-{option.name}".replace("/", "-"),
    }
    if option.kind == "bool":
        return gr.Checkbox(**shared)
    if option.kind == "choice":
        return gr.Dropdown(list(option.choices or ()), **shared)
    whole = option.kind == "int"
    if option.low is None or option.high is None:
        return gr.Number(precision=0 if whole else None, **shared)
    step = option.step or (1 if whole else round((option.high - option.low) / 100, 6))
    return gr.Slider(option.low, option.high, step=step, precision=0 if whole else None, buttons=[], **shared)


def cost(registry: Registry, sampler: str, steps: object) -> str:
    """The cost of the steps as text, in model evaluations, which take most of the time."""
    info = registry.samplers.get(sampler)
    if info is None or not isinstance(steps, int | float):
        return ""
    count = int(steps)
    evals = f"{count * info.evals} model evaluation{'' if count * info.evals == 1 else 's'}"
    if info.adaptive:
        return f"adaptive: the sampler chooses its steps, about {evals}"
    return f"{count} step{'' if count == 1 else 's'} = {evals}"
