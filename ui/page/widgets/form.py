"""The form: prompts, sampler and schedule, steps and guidance, size, seed.

`fields` maps names to controls; everything that fills, reads or stores the form uses it. The names are those
of `Request`; a sampler's options are named `sampler.option`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.errors import UserError
from core.request import aliases
from core.request.fields import MAX_MERGING, MAX_REUSE
from core.request.parse import parse_seed
from core.request.request import Request
from core.request.sigmas import parse_sigmas
from ui.page.widgets import fields, text
from ui.page.widgets.examples import added, chips, shown
from ui.page.widgets.fields import EACH, LATEST, QUICK
from ui.page.widgets.sampler_controls import SamplerControls, cost, sampler_controls

if TYPE_CHECKING:
    from gradio.components import Component

    from core.request.model_defaults import Defaults
    from core.sampling.registry import Registry
    from ui.service.model_thread import ModelThread

log = logging.getLogger(__name__)

MAX_STEPS, MAX_CFG_SCALE = 150, 30
MAX_RUNS = 100
NUMBERS = (
    *("steps", "cfg_scale", "width", "height", "batch", "cfg_rescale", "cfg_from", "cfg_to", "clip_skip"),
    *("feature_reuse", "token_merging"),
)
DEFAULTED = ("sampler", "schedule", "steps", "cfg_scale", "width", "height")


class Form:
    """The form's controls, made inside the caller's layout with the values of `first`."""

    def __init__(self, engine: ModelThread, registry: Registry, first: Defaults) -> None:
        self.engine, self.registry, self.first = engine, registry, first
        self._build_words()
        self.method: SamplerControls = sampler_controls(registry, first.sampler, first.schedule)
        self._build_amounts()
        self._build_size()
        self._build_chance()
        self._build_more()
        self.fields: dict[str, Component] = {
            "prompt": self.prompt,
            "negative": self.negative,
            "sampler": self.method.sampler,
            "schedule": self.method.schedule,
            "steps": self.steps,
            "cfg_scale": self.cfg_scale,
            "width": self.width,
            "height": self.height,
            "batch": self.batch,
            "seed": self.seed,
            "cfg_rescale": self.cfg_rescale,
            "cfg_from": self.cfg_from,
            "cfg_to": self.cfg_to,
            "clip_skip": self.clip_skip,
            "emphasis": self.emphasis,
            "feature_reuse": self.feature_reuse,
            "token_merging": self.token_merging,
            "sigmas": self.sigmas,
            "runs": self.runs,
            **self.method.fields(),
        }

    def _build_words(self) -> None:
        self.prompt = gr.Textbox(
            label="Prompt",
            info="What the image should show, in plain words; (word:1.2) sets the weight of a word",
            lines=2,
            max_lines=4,
            placeholder="What should the image show?",
            elem_id="prompt",
        )
        self.tokens = gr.HTML(text.plain("Loading the model..."), elem_id="tokens")
        self.chips = chips()
        self.negative = gr.Textbox(
            label="Negative prompt",
            info="What guidance steers away from; it has no effect at CFG scale 1",
            lines=1,
            max_lines=3,
            placeholder="What should the image not show?",
            elem_id="negative",
        )

    def _build_amounts(self) -> None:
        with gr.Row():
            self.steps = fields.slider(
                "Steps",
                (1, MAX_STEPS, 1),
                self.first.steps,
                "Inference steps: more steps follow the sampler's path more exactly; time grows with them",
            )
            self.cfg_scale = fields.slider(
                "CFG scale",
                (0, MAX_CFG_SCALE, 0.1),
                self.first.cfg_scale,
                "Strength of guidance: low is varied, high follows the prompt but oversaturates; 1 is off",
            )
        words = cost(self.registry, self.first.sampler, self.first.steps)
        self.cost = gr.HTML(text.plain(words), elem_id="cost")

    def _build_size(self) -> None:
        with gr.Row():
            size = "In pixels; the model is best at the size it was trained on"
            self.width = fields.number("Width", self.first.width, size, step=8)
            self.height = fields.number("Height", self.first.height, size, step=8)
            self.batch = fields.number(
                "Batch", 1, "Images per run, with consecutive seeds; time grows with it"
            )
            self.runs = fields.number("Runs", 1, "How many runs to queue; seeds continue from run to run")

    def _build_chance(self) -> None:
        with gr.Row():
            self.seed = gr.Textbox(
                "-1",
                label="Seed",
                info="The same seed and settings give the same image; -1 draws a new seed for each run",
                max_lines=1,
                scale=3,
                min_width=120,
                elem_id="seed",
            )
            self.random = fields.small_button("Random", "seed-random")
            self.reuse = fields.small_button("Reuse", "seed-reuse")

    def _build_more(self) -> None:
        with gr.Accordion("More", open=False, elem_id="more"):
            with gr.Row():
                self.cfg_from = fields.slider(
                    "Guide from", (0, 1, 0.01), 0.0, "Guidance starts at this fraction of the steps"
                )
                self.cfg_to = fields.slider(
                    "Guide to",
                    (0, 1, 0.01),
                    1.0,
                    "Guidance ends at this fraction of the steps; a step without it costs half",
                )
            self.cfg_rescale = fields.slider(
                "CFG rescale",
                (0, 1, 0.01),
                0.0,
                "Reduces the contrast that strong guidance adds; 0 is off",
            )
            with gr.Row():
                self.clip_skip = fields.number(
                    "Clip skip",
                    1,
                    "The text encoder layer to use, counted from the last; 1 is the last layer",
                )
                self.emphasis = gr.Dropdown(
                    [("A1111", "a1111"), ("A1111, no norm", "no_norm"), ("ComfyUI", "comfy")],
                    value="a1111",
                    label="Emphasis",
                    info="How the weights in the prompt act: as in which program",
                    elem_id="emphasis",
                    min_width=120,
                )
            with gr.Row():
                self.feature_reuse = fields.slider(
                    "Feature reuse",
                    (1, MAX_REUSE, 1),
                    1,
                    "Runs the deep layers once in N evaluations: faster, changes the image; 1 is off",
                )
                self.token_merging = fields.slider(
                    "Token merging",
                    (0, MAX_MERGING, 0.05),
                    0.0,
                    "Merges this share of similar tokens: faster at large sizes, changes the image; 0 is off",
                )
            self.sigmas = gr.Textbox(
                label="Sigmas",
                info="Noise levels that replace the schedule and steps, in falling order: 14.6, 7, 3, 1, 0.3",
                max_lines=2,
                placeholder="from the schedule",
                elem_id="sigmas",
            )

    def defaulted(self) -> list[Component]:
        """The controls with a model default, in the order of `DEFAULTED`."""
        return [self.fields[name] for name in DEFAULTED]

    def read(self, named: Mapping[str, Any], **picture: Any) -> Request:
        """The request of the form's values; `picture`: fields from the image inputs. Raises UserError."""
        for name in NUMBERS:
            if named[name] is None and picture.get(name, 0) is not None:
                raise UserError(f"{name.replace('_', ' ')}: enter a number")
        asked = {name: named[name] for name in (*NUMBERS, "emphasis", "sampler", "schedule")}
        if (named["sigmas"] or "").strip():
            asked |= {"sigmas": parse_sigmas(named["sigmas"]), "steps": None}
        return Request(
            prompt=named["prompt"] or "",
            negative=named["negative"] or "",
            seed=parse_seed(str(named["seed"] or "")),
            options=self.method.read(named["sampler"], named),
            **{**asked, **picture},
        )

    def values_of(self, request: Request) -> dict[str, Any]:
        """The form's values for this request, the inverse of `read`; fields left to the model are missing.

        Names of samplers and schedules are looked up; options of an unregistered sampler are dropped.
        """
        meant = aliases.resolve(request.sampler, request.schedule, self.registry)
        said = {name: getattr(request, name) for name in (*NUMBERS, "emphasis")}
        said |= {"sampler": meant.sampler, "schedule": meant.schedule}
        values = {name: value for name, value in said.items() if value is not None}
        if meant.sampler in self.registry.samplers:
            info = self.registry.samplers[meant.sampler]
            options = info.check_options({**meant.options, **request.options})
            values |= {f"{meant.sampler}.{name}": value for name, value in options.items()}
        sigmas = ", ".join(f"{sigma!r}" for sigma in request.sigmas) if request.sigmas else ""
        return values | {
            "prompt": request.prompt,
            "negative": request.negative,
            "seed": "-1" if request.seed is None else str(request.seed),
            "sigmas": sigmas,
        }

    def connect(self) -> None:
        """Wire the form's own events."""
        self.prompt.change(self.on_prompt, self.prompt, self.tokens, **LATEST)
        self.chips.pick(_picked, None, self.prompt, **QUICK)
        self.chips.append(_added, self.prompt, self.prompt, **EACH)
        self.chips.open(self.on_subjects, None, self.chips, **QUICK)
        sampler, steps = self.method.sampler, self.steps
        if self.method.groups:
            sampler.change(self.method.show, sampler, list(self.method.groups.values()), **QUICK)
        gr.on([sampler.change, steps.change], self.on_cost, [sampler, steps], self.cost, **LATEST)
        self.random.click(None, None, self.seed, js="() => '-1'", **QUICK)

    def on_defaults(self, *values: Any) -> list[Any]:
        """The loaded model's defaults for `DEFAULTED`, for controls that were not changed meanwhile."""
        if not self.engine.ready:
            return [gr.skip()] * len(values)
        defaults = self.engine.pipeline.defaults
        return [
            getattr(defaults, name) if value == getattr(self.first, name) else gr.skip()
            for name, value in zip(DEFAULTED, values, strict=True)
        ]

    def as_model(self) -> list[Any]:
        """The loaded model's defaults for `DEFAULTED`, replacing the form's values."""
        if not self.engine.ready:
            return [gr.skip()] * len(DEFAULTED)
        defaults, controls = self.engine.pipeline.defaults, {name: self.fields[name] for name in DEFAULTED}
        return fields.updates(controls, {name: getattr(defaults, name) for name in DEFAULTED})

    def on_subjects(self) -> Any:
        """The loaded model's examples, and its subjects with their images."""
        try:
            pipeline = self.engine.pipeline
            return shown(pipeline.examples, pipeline.subjects, pipeline.subject_sheet())
        except UserError as error:  # the phrases alone are shown
            log.warning("images of the subjects: %s", error)
            return gr.skip()

    def on_prompt(self, prompt: str) -> str:
        """The line under the prompt: the number of tokens, and words unknown to the model."""
        if not self.engine.ready:
            return text.plain("" if self.engine.error else "Loading the model...")
        try:
            return text.tokens(self.engine.pipeline.tokens(prompt or ""))
        except UserError as error:
            return text.error(str(error))

    def on_cost(self, sampler: str, steps: object) -> str:
        """The line under the steps."""
        return text.plain(cost(self.registry, sampler, steps))


def _added(event: gr.EventData, prompt: str | None) -> str:
    return added(prompt or "", str(event.phrase))


def _picked(event: gr.EventData) -> str:
    return str(event.prompt)
