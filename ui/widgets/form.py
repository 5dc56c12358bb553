"""What is asked for: words, method, amount, size, chance, in the order in which one thinks of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.errors import UserError
from core.request import Request, parse_seed
from ui.widgets import text
from ui.widgets.examples import chips
from ui.widgets.sampler_controls import SamplerControls, cost, sampler_controls

if TYPE_CHECKING:
    from gradio.components import Component

    from core.registry import Registry
    from core.request import Defaults
    from ui.engine import Engine

MAX_STEPS = 150
NUMBERS = ("steps", "cfg scale", "width", "height", "batch")
DEFAULTED = ("sampler", "schedule", "steps", "cfg_scale", "width", "height")


class Form:
    """The form's controls, made inside the caller's layout with the values of `first`."""

    def __init__(self, engine: Engine, registry: Registry, first: Defaults) -> None:
        self.engine, self.registry, self.first = engine, registry, first
        self._build_words()
        self.method: SamplerControls = sampler_controls(registry, first.sampler, first.schedule)
        self._build_amounts()
        self._build_chance()

    def _build_words(self) -> None:
        self.prompt = gr.Textbox(
            label="Prompt",
            info="What the picture should show, in plain words",
            lines=2,
            max_lines=4,
            placeholder="What should be in the picture?",
            elem_id="prompt",
        )
        self.tokens = gr.HTML(text.plain("Loading the model"), elem_id="tokens")
        self.chips = chips()
        self.negative = gr.Textbox(
            label="Negative prompt",
            info="What guidance steers away from; it has no effect at CFG scale 1",
            lines=1,
            max_lines=3,
            placeholder="What should not be in it?",
            elem_id="negative",
        )

    def _build_amounts(self) -> None:
        with gr.Row():
            self.steps = gr.Slider(
                1,
                MAX_STEPS,
                self.first.steps,
                step=1,
                precision=0,
                label="Steps",
                info="How finely the way from noise to picture is cut; time grows with it",
                buttons=[],
                elem_id="steps",
            )
            self.cfg_scale = gr.Slider(
                0,
                20,
                self.first.cfg_scale,
                step=0.1,
                label="CFG scale",
                info="How hard the prompt pulls: low is loose and varied, high literal and garish; 1 is none",
                buttons=[],
                elem_id="cfg-scale",
            )
        words = cost(self.registry, self.first.sampler, self.first.steps)
        self.cost = gr.HTML(text.plain(words), elem_id="cost")
        with gr.Row():
            size = "Pixels, a multiple of 8; the model is best at its own size"
            self.width = _number("Width", self.first.width, 8, size)
            self.height = _number("Height", self.first.height, 8, size)
            batch = "Pictures at once, with seeds that count up; time grows with it"
            self.batch = _number("Batch", 1, 1, batch)

    def _build_chance(self) -> None:
        with gr.Row():
            self.seed = gr.Textbox(
                "-1",
                label="Seed",
                info="The same seed and settings give the same picture; -1 draws a new one each time",
                max_lines=1,
                scale=3,
                min_width=120,
                elem_id="seed",
            )
            self.random = _small_button("Random", "seed-random")
            self.reuse = _small_button("Reuse", "seed-reuse")

    def controls(self) -> list[Component]:
        """The controls whose values make a request, in the order that `read` takes them."""
        return [
            self.prompt,
            self.negative,
            self.method.sampler,
            self.method.schedule,
            self.steps,
            self.cfg_scale,
            self.width,
            self.height,
            self.batch,
            self.seed,
            *self.method.components(),
        ]

    def defaulted(self) -> list[Component]:
        """The controls that a model has defaults for, in the order of `DEFAULTED`."""
        return [
            self.method.sampler,
            self.method.schedule,
            self.steps,
            self.cfg_scale,
            self.width,
            self.height,
        ]

    def read(self, values: Sequence[Any]) -> Request:
        """The request that the form asks for. Raises UserError."""
        prompt, negative, sampler, schedule, steps, cfg_scale, width, height, batch, seed, *options = values
        for name, value in zip(NUMBERS, (steps, cfg_scale, width, height, batch), strict=True):
            if value is None:
                raise UserError(f"{name}: is empty; enter a number")
        return Request(
            prompt=prompt or "",
            negative=negative or "",
            sampler=sampler,
            schedule=schedule,
            steps=steps,
            cfg_scale=cfg_scale,
            width=width,
            height=height,
            batch=batch,
            seed=parse_seed(str(seed or "")),
            options=self.method.read(sampler, options),
        )

    def connect(self, quick: dict[str, Any]) -> None:
        """Wire what the form does by itself; `quick` are the event settings of what never waits for a run."""
        latest = {**quick, "trigger_mode": "always_last"}
        self.prompt.change(self.on_prompt, self.prompt, self.tokens, **latest)
        self.chips.pick(_picked, None, self.prompt, **quick)
        sampler, steps = self.method.sampler, self.steps
        if self.method.groups:
            sampler.change(self.method.show, sampler, list(self.method.groups.values()), **quick)
        for control in (sampler, steps):
            control.change(self.on_cost, [sampler, steps], self.cost, **latest)
        self.random.click(_random_seed, None, self.seed, **quick)

    def on_defaults(self, *values: Any) -> list[Any]:
        """The loaded model's defaults for `DEFAULTED`, where nobody has changed the form meanwhile."""
        if not self.engine.ready:
            return [gr.skip()] * len(values)
        defaults = self.engine.pipeline.defaults
        return [
            getattr(defaults, name) if value == getattr(self.first, name) else gr.skip()
            for name, value in zip(DEFAULTED, values, strict=True)
        ]

    def on_prompt(self, prompt: str) -> str:
        """The line under the prompt: tokens, and words that the model does not know."""
        if not self.engine.ready:
            return text.plain("" if self.engine.error else "Loading the model")
        try:
            return text.tokens(self.engine.pipeline.tokens(prompt or ""))
        except UserError as error:
            return text.error(str(error))

    def on_cost(self, sampler: str, steps: object) -> str:
        """The line under the steps."""
        return text.plain(cost(self.registry, sampler, steps))


def _number(label: str, value: int, step: int, info: str) -> gr.Number:
    """A whole number without bounds: what is out of range gets our own sentence, not a pop-up."""
    return gr.Number(
        value, label=label, info=info, precision=0, step=step, min_width=70, elem_id=label.lower()
    )


def _small_button(label: str, elem_id: str) -> gr.Button:
    return gr.Button(label, size="sm", min_width=80, elem_id=elem_id, elem_classes="lc-small")


def _picked(event: gr.EventData) -> str:
    return str(event.prompt)


def _random_seed() -> str:
    return "-1"
