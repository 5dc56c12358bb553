"""The views of the Learn tab that use the loaded model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.learn import interpolation
from core.learn.choices import check, numbers, prompts, whole_numbers
from core.learn.ddpm import ddpm_and_ddim
from core.learn.forward import example_picture
from core.learn.guidance import check_grid, guidance, guidance_grid
from core.learn.latents import latent_space
from ui.page.tabs.learn.view import ModelView, View, number, whole
from ui.page.widgets.fields import QUICK

if TYPE_CHECKING:
    from gradio.components import Component
    from PIL.Image import Image

    from core.learn.recorder import Watch
    from core.learn.result import ViewResult

PROMPT, OTHER = "a red house under a full moon", "a green tree under a full moon"
ONE, GRID = "One prompt in detail", "Several prompts over the scales"
SEEDS, PROMPTS, PICTURES = "Two seeds", "Two prompts", "Two images"
Task = Callable[[Any, "Watch"], "ViewResult"]


class Ddpm(ModelView):
    """DDPM in many steps next to DDIM in few."""

    name = "ddpm"
    kinds = ("png",)
    action = "Run both"

    def controls(self) -> list[Component]:
        return [
            gr.Textbox(PROMPT, label="Prompt", lines=1, max_lines=3, elem_id="ddpm-prompt"),
            gr.Dropdown([1000, 250, 100], value=1000, label="DDPM steps", elem_id="ddpm-steps"),
            gr.Textbox("50, 20, 10", label="DDIM steps", max_lines=1, elem_id="ddpm-others"),
            gr.Number(1, label="Seed", precision=0, elem_id="ddpm-seed"),
        ]

    def task(self, *values: Any) -> Task:
        prompt, steps, others, seed = values
        few = whole_numbers("DDIM steps", others)
        asked: dict[str, Any] = {
            "ddpm_steps": whole("DDPM steps", steps),
            "ddim_steps": few,
            "seed": whole("seed", seed),
        }
        check(prompt, seed=asked["seed"], steps=max(few, default=1))
        return lambda pipeline, watch: ddpm_and_ddim(pipeline, prompt=prompt, watch=watch, **asked)


class Guidance(ModelView):
    """The effect of the CFG scale: one prompt in detail, or several prompts."""

    name = "guidance"
    action = "Run"

    def controls(self) -> list[Component]:
        what = gr.Radio([ONE, GRID], value=ONE, label="Show", elem_id="guidance-what")
        prompt = gr.Textbox(PROMPT, label="Prompt", lines=1, max_lines=3, elem_id="guidance-prompt")
        many = gr.Textbox(
            label="Prompts, one per line",
            placeholder="Empty: the loaded model's examples",
            lines=4,
            max_lines=12,
            visible=False,
            elem_id="guidance-prompts",
        )
        scales = gr.Textbox("1, 2, 3, 5, 8, 12", label="CFG scales", max_lines=1, elem_id="guidance-scales")
        at = gr.Slider(
            0,
            100,
            30,
            step=5,
            precision=0,
            label="Show the step at (percent)",
            buttons=[],
            elem_id="guidance-at",
        )
        seed = gr.Number(1, label="Seed", precision=0, elem_id="guidance-seed")
        what.change(
            lambda chosen: (
                gr.Textbox(visible=chosen == ONE),
                gr.Textbox(visible=chosen == GRID),
                gr.Slider(visible=chosen == ONE),
            ),
            what,
            [prompt, many, at],
            **QUICK,
        )
        return [what, prompt, many, scales, at, seed]

    def task(self, *values: Any) -> Task:
        what, prompt, typed, typed_scales, at, seed = values
        scales, own = numbers("scales", typed_scales), whole("seed", seed)
        rows = prompts(typed) if what == GRID else [prompt]
        for row in rows or [""]:
            for scale in scales:
                check(row, seed=own, cfg_scale=scale)
        if what == GRID:
            if rows:
                check_grid(rows, scales)
            return lambda pipeline, watch: guidance_grid(
                pipeline, prompts=rows, scales=scales, seed=own, watch=watch
            )
        share = number("how far", at) / 100
        return lambda pipeline, watch: guidance(
            pipeline, prompt=prompt, scales=scales, at=share, seed=own, watch=watch
        )


class Interpolation(ModelView):
    """Interpolation between two seeds, prompts or images."""

    name = "interpolation"
    action = "Interpolate"

    def controls(self) -> list[Component]:
        what = gr.Radio([SEEDS, PROMPTS, PICTURES], value=SEEDS, label="Between", elem_id="between-what")
        with gr.Row():
            first = gr.Number(1, label="First seed", precision=0, min_width=60, elem_id="between-first")
            second = gr.Number(2, label="Second seed", precision=0, min_width=60, elem_id="between-second")
        prompt = gr.Textbox(PROMPT, label="Prompt", lines=1, max_lines=3, elem_id="between-prompt")
        other = gr.Textbox(
            OTHER, label="Second prompt", lines=1, max_lines=3, visible=False, elem_id="between-other"
        )
        with gr.Row(visible=False) as row:
            pictures = [
                gr.Image(
                    label=label,
                    type="pil",
                    sources=["upload", "clipboard"],
                    height=110,
                    min_width=110,
                    elem_id=f"between-picture-{i}",
                )
                for i, label in enumerate(("First (empty: an example)", "Second (empty: an example)"))
            ]
        count = gr.Slider(3, 11, 7, step=1, precision=0, label="Images", buttons=[], elem_id="between-count")
        what.change(
            lambda chosen: (
                gr.Number(visible=chosen != PICTURES),
                gr.Number(visible=chosen == SEEDS),
                gr.Textbox(visible=chosen == PROMPTS),
                gr.Row(visible=chosen == PICTURES),
            ),
            what,
            [first, second, other, row],
            **QUICK,
        )
        return [what, first, second, prompt, other, *pictures, count]

    def task(self, *values: Any) -> Task:
        what, first, second, prompt, other, a, b, count = values
        seeds = whole("first seed", first), whole("second seed", second)
        many = whole("images", count)
        for seed in seeds:
            check(prompt, seed=seed)
        check(other, seed=1)
        if what == SEEDS:
            return lambda pipeline, watch: interpolation.between_seeds(
                pipeline, prompt=prompt, seeds=seeds, count=many, watch=watch
            )
        if what == PROMPTS:
            return lambda pipeline, watch: interpolation.between_prompts(
                pipeline, prompts=(prompt, other), count=many, seed=seeds[0], watch=watch
            )
        pair = a or example_picture(7), b or example_picture(11)
        return lambda pipeline, watch: interpolation.between_pictures(
            pipeline, pair, count=many, prompt=prompt, watch=watch
        )


class Latents(ModelView):
    """The latent channels, and what the VAE loses."""

    name = "latents"
    kinds = ("png",)
    action = "Encode and decode"

    def controls(self) -> list[Component]:
        return [
            gr.Image(
                label="Image (empty: an example)",
                type="pil",
                sources=["upload", "clipboard"],
                height=160,
                elem_id="latents-picture",
            )
        ]

    def task(self, *values: Any) -> Task:
        image: Image = values[0] or example_picture()
        return lambda pipeline, watch: latent_space(pipeline, image, watch=watch)


MODEL_VIEWS: tuple[type[View], ...] = (Ddpm, Guidance, Interpolation, Latents)
