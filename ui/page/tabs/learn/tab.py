"""The Learn tab: one view for each lesson, with controls, figure, text, formula and code.

Views without a model update as their controls move; views with one have a button and are queued. A view draws
when it is first opened, not at the page's start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.errors import UserError
from core.learn.forward import example_picture, forward_picture, forward_points
from core.learn.reverse import descents, shown
from core.learn.schedules import schedules
from core.learn.tables import tables
from ui.page.tabs.learn.models import MODEL_VIEWS
from ui.page.tabs.learn.train import Train
from ui.page.tabs.learn.view import Shelf, View, number, whole
from ui.page.widgets import text
from ui.page.widgets.fields import QUICK
from ui.page.widgets.sampler_controls import sampler_choices, schedule_choices
from ui.service.trainings import Trainer

if TYPE_CHECKING:
    from gradio.components import Component

    from core.learn.result import ViewResult
    from core.learn.reverse import Descent
    from core.sampling.registry import Registry
    from ui.page.tabs.compare import Base
    from ui.service.job_queue import Jobs

CLOUDS = (("Moons", "moons"), ("Spiral", "spiral"), ("Grid of Gaussians", "grid"), ("Letters", "letters"))
BETAS = (
    ("Scaled linear", "scaled_linear"),
    ("Linear", "linear"),
    ("Cosine", "cosine"),
    ("Sigmoid", "sigmoid"),
)
WALKERS = ("ddpm", "ddim", "heun", "dpmpp_2m")
PICTURE = "picture"


class Forward(View):
    """Noise added to points or an image."""

    name = "forward"

    def controls(self) -> list[Component]:
        choices = [*CLOUDS, ("An image", PICTURE)]
        what = gr.Radio(choices, value="moons", label="Data", elem_id="forward-data")
        image = gr.Image(
            label="Image (empty: an example)",
            type="pil",
            sources=["upload", "clipboard"],
            height=120,
            visible=False,
            elem_id="forward-picture",
        )
        what.change(lambda chosen: gr.Image(visible=chosen == PICTURE), what, image, **QUICK)
        return [
            what,
            image,
            gr.Slider(0, 999, 300, step=1, precision=0, label="Timestep t", buttons=[], elem_id="forward-t"),
            gr.Dropdown(_known_betas(), value="scaled_linear", label="Betas", elem_id="forward-betas"),
        ]

    def show(self, *values: Any) -> ViewResult:
        what, image, t, betas = values
        if what != PICTURE:
            return forward_points(what, t=whole("timestep", t), betas=betas)
        picture = example_picture() if image is None else image.convert("RGB")
        return forward_picture(picture, t=whole("timestep", t), betas=betas)


class Schedules(View):
    """Beta tables, and the noise levels of schedules."""

    name = "schedules"
    kinds = ("png",)

    def controls(self) -> list[Component]:
        registry = self.shelf.registry
        first = "leading" if "leading" in registry.schedules else next(iter(registry.schedules), None)
        return [
            gr.Dropdown(_known_betas(), value="scaled_linear", label="Betas", elem_id="schedules-betas"),
            gr.Dropdown(
                schedule_choices(registry), value=first, label="Schedule", elem_id="schedules-schedule"
            ),
            gr.Slider(1, 150, 20, step=1, precision=0, label="Steps", buttons=[], elem_id="schedules-steps"),
            gr.Slider(
                0.05, 1, 1, step=0.05, label="Denoising strength", buttons=[], elem_id="schedules-strength"
            ),
        ]

    def build_actions(self) -> None:
        """A button that takes the settings of the form."""
        self.form = gr.Button("Use the form's settings", size="sm", elem_id="schedules-form")

    def connect_form(
        self, owner: Component, base: Callable[..., Base], base_inputs: Sequence[Component]
    ) -> None:
        """Wire the button. base(owner, *values of base_inputs): the form's request; raises UserError."""

        def taken(*values: Any) -> tuple[Any, Any, Any, str]:
            try:
                asked = base(*values).request
            except UserError as error:
                return gr.skip(), gr.skip(), gr.skip(), text.error(f"in the form, {error}")
            strength = 1.0 if asked.strength is None else asked.strength
            steps = gr.skip() if asked.steps is None else asked.steps
            return asked.schedule or gr.skip(), steps, strength, ""

        outputs = [*self.asked[1:], self.notice]
        self.form.click(taken, [owner, *base_inputs], outputs, **QUICK)

    def show(self, *values: Any) -> ViewResult:

        betas, schedule, steps, strength = values
        return schedules(
            self.shelf.registry,
            betas=betas,
            schedule=schedule or "",
            steps=whole("steps", steps),
            strength=number("strength", strength),
        )


class Reverse(View):
    """Points moved by several samplers, side by side."""

    name = "reverse"

    def __init__(self, shelf: Shelf) -> None:
        super().__init__(shelf)
        self._descents = lru_cache(maxsize=8)(self._made)

    def controls(self) -> list[Component]:
        registry = self.shelf.registry
        known = [name for name in WALKERS if name in registry.samplers]
        return [
            gr.Radio(CLOUDS, value="moons", label="Data", elem_id="reverse-data"),
            gr.Dropdown(
                sampler_choices(registry),
                value=known or list(registry.samplers)[:2],
                label="Samplers",
                multiselect=True,
                elem_id="reverse-samplers",
            ),
            gr.Slider(
                1,
                100,
                20,
                step=1,
                precision=0,
                label="Model evaluations per sampler",
                buttons=[],
                elem_id="reverse-evals",
            ),
            gr.Slider(
                0,
                100,
                100,
                step=1,
                precision=0,
                label="Progress (percent)",
                buttons=[],
                elem_id="reverse-share",
            ),
            gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31, elem_id="reverse-seed"),
            gr.Checkbox(
                False, label="Also use the loaded model's score (point models)", elem_id="reverse-model"
            ),
        ]

    def show(self, *values: Any) -> ViewResult:
        cloud, samplers, evals, share, seed, learned = values
        loaded: Any = self.shelf.jobs.engine.pipeline if learned else None
        asked = cloud, tuple(samplers or ()), whole("model evaluations", evals), whole("seed", seed)
        made = self._descents(*asked, loaded)
        return shown(made, cloud, int(seed), number("progress", share) / 100)

    def _made(
        self, cloud: str, samplers: tuple[str, ...], evals: int, seed: int, pipeline: Any
    ) -> list[Descent]:
        return descents(self.shelf.registry, samplers, name=cloud, evals=evals, seed=seed, pipeline=pipeline)


class LearnTab:
    """The tab: `build` it inside the caller's layout, then `connect` it.

    trainer: trains from the page. is_guest: whether a visitor may watch a training but not start one.
    """

    def __init__(
        self,
        jobs: Jobs,
        registry: Registry,
        trainer: Trainer | None = None,
        is_guest: Callable[[gr.Request], bool] = lambda request: False,
    ) -> None:
        self.shelf = Shelf(jobs, registry)
        kinds: tuple[type[View], ...] = (Forward, Schedules, Reverse, *MODEL_VIEWS)
        self.train = Train(self.shelf, trainer or Trainer(), is_guest)
        self.views = [*(kind(self.shelf) for kind in kinds), self.train]

    def build(self) -> None:
        """One tab for each view."""
        self.shelf.narrow = gr.Checkbox(False, visible=False)
        self.tabs: dict[str, gr.Tab] = {}
        with gr.Tabs(elem_id="learn", overflow_behavior="wrap"):
            for view in self.views:
                with gr.Tab(view.lesson.title.partition(":")[0], id=view.name) as self.tabs[view.name]:
                    view.build()

    def connect(
        self,
        owner: Component,
        shown: Callable[..., Any],
        base: Callable[..., Base],
        base_inputs: Sequence[Component] = (),
    ) -> None:
        """Wire it. owner: holds the owner token. shown: the event of the tab being opened.

        base(owner, *values of base_inputs): the form's request; raises UserError.
        """
        for i, view in enumerate(self.views):
            view.connect(owner, [self.tabs[view.name].select, *([shown] if i == 0 else [])])
            if isinstance(view, Schedules):
                view.connect_form(owner, base, base_inputs)


def _known_betas() -> list[tuple[str, str]]:

    known = tables()
    return [(title, name) for title, name in BETAS if name in known]
