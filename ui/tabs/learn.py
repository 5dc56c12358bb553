"""The Learn tab: a view a lesson, with its controls, what it draws, the text, the formula and the code.

Views that need no model answer as their controls move; those that do have a button, and wait in the queue.
At the page's start there are controls alone: a view draws when it is opened.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.errors import UserError
from core.learn.lessons import LESSONS, Lesson
from ui.handing import Handing
from ui.widgets import text
from ui.widgets.fields import LATEST, QUICK
from ui.widgets.sampler_controls import sampler_choices, schedule_choices

if TYPE_CHECKING:
    from gradio.components import Component

    from core.learn.code import Lines
    from core.learn.shown import Shown
    from core.registry import Registry
    from ui.jobs import Jobs

CLOUDS = (("Moons", "moons"), ("Spiral", "spiral"), ("Grid of Gaussians", "grid"), ("Letters", "letters"))
BETAS = (
    ("Scaled linear", "scaled_linear"),
    ("Linear", "linear"),
    ("Cosine", "cosine"),
    ("Sigmoid", "sigmoid"),
)
WALKERS = ("ddpm", "ddim", "heun", "dpmpp_2m")
PICTURE = "picture"
# What each event sends first: whether the window is that of a telephone.
_NARROW = "(narrow, ...rest) => [window.innerWidth < 700, ...rest]"
_TRAIN = """<section class="lc-panel"><h2>Train a model of your own</h2>
<p>Not from the page yet. In a terminal, <code>python launcher.py train RECIPE.toml</code> trains from a
recipe; the embedded model was made by <code>data/recipes/tiny.toml</code>. What it writes is a model like any
other.</p></section>"""


class View:
    """One lesson: `build` its part of the tab, then `connect` it. Subclasses have controls and `show`."""

    name: str

    def __init__(self, tab: LearnTab) -> None:
        self.tab = tab
        self.lesson: Lesson = LESSONS[self.name]

    def build(self) -> None:
        """The controls, the place of what is drawn, and the text."""
        name = self.name
        with gr.Row(elem_classes="lc-view", elem_id=f"learn-{name}", equal_height=False):
            with gr.Column(elem_classes="lc-view-asked", min_width=280):
                self.asked: list[Component] = self.controls()
                self.notice = gr.HTML(apply_default_css=False, elem_id=f"learn-{name}-notice")
                with gr.Row(elem_classes="lc-view-files"):
                    self.save = {
                        kind: gr.Button(f"Save {kind.upper()}", size="sm", elem_id=f"learn-{name}-{kind}")
                        for kind in self.kinds
                    }
                    self.file = gr.DownloadButton(
                        "Download", visible=False, size="sm", elem_id=f"learn-{name}-file"
                    )
            with gr.Column(elem_classes="lc-view-figure", min_width=280):
                self.figure = gr.HTML(apply_default_css=False, elem_id=f"learn-{name}-figure")
            with gr.Column(elem_classes="lc-view-text", min_width=280):
                gr.Markdown(
                    f"### {self.lesson.title}\n\n{self.lesson.text}\n\nSource: {self.lesson.source}",
                    latex_delimiters=[
                        {"left": "$$", "right": "$$", "display": True},
                        {"left": "$", "right": "$", "display": False},
                    ],
                    elem_classes="lc-lesson",
                )
                self.code = gr.HTML(apply_default_css=False, elem_id=f"learn-{name}-code")

    kinds: Sequence[str] = ("png", "gif")

    def controls(self) -> list[Component]:
        """Make them."""
        raise NotImplementedError

    def show(self, *values: Any) -> Shown:
        """What the controls' values ask for. Raises UserError."""
        raise NotImplementedError

    def connect(self, opened: Sequence[Callable[..., Any]]) -> None:
        """Draw when it is opened and when a control changes: one event, so that the newest answer stays."""
        changes = [control.change for control in self.asked]  # type: ignore[attr-defined]
        inputs, outputs = [self.tab.narrow, *self.asked], [self.figure, self.code, self.notice]
        gr.on([*opened, *changes], self.on_draw, inputs, outputs, js=_NARROW, **LATEST)
        self.connect_files(inputs)

    def connect_files(self, inputs: Sequence[Component]) -> None:
        """The buttons that save what is shown."""
        for kind, button in self.save.items():
            button.click(self._saver(kind), list(inputs), [self.file, self.notice], js=_NARROW, **QUICK)

    def on_draw(self, narrow: bool, *values: Any) -> tuple[Any, Any, str]:
        """(what is drawn, the code, what is wrong)"""
        try:
            return *self.drawn(self.show(*values), narrow), ""
        except UserError as error:
            return gr.skip(), gr.skip(), text.error(str(error))

    def drawn(self, shown: Shown, narrow: bool) -> tuple[str, str]:
        """As HTML, with the code that does it."""
        from ui.widgets.learn import code_html, shown_html

        with self.tab.drawing:
            return shown_html(shown, narrow), code_html(self.lines(shown))

    def lines(self, shown: Shown) -> list[Lines]:
        """The lines of code of the lesson, and those that this view adds."""
        from core.learn.code import lines

        return [lines(target, words) for target, words in self.lesson.code]

    def _saver(self, kind: str) -> Callable[..., tuple[Any, str]]:
        def save(narrow: bool, *values: Any) -> tuple[Any, str]:
            return self.saved(kind, lambda: self.show(*values))

        return save

    def saved(self, kind: str, make: Callable[[], Shown]) -> tuple[Any, str]:
        """The file as a button to download it, or what is wrong."""
        from core.learn.ink import Paper

        name = f"{self.name}.{kind}"
        try:
            shown = make()
            with self.tab.drawing:
                data = shown.png(Paper()) if kind == "png" else shown.gif(Paper())
            file = self.tab.handing.out(data, name)
        except UserError as error:
            return gr.skip(), text.error(str(error))
        label = f"Download {name}, {len(data) / 1e6:.1f} MB"
        return gr.DownloadButton(label, value=file["path"], visible=True), ""


class Forward(View):
    """Noise added to points or a picture."""

    name = "forward"

    def controls(self) -> list[Component]:
        choices = [*CLOUDS, ("A picture", PICTURE)]
        what = gr.Radio(choices, value="moons", label="Data", elem_id="forward-data")
        image = gr.Image(
            label="Picture, or a drawn one if there is none",
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

    def show(self, *values: Any) -> Shown:
        from core.learn.forward import example_picture, forward_picture, forward_points

        what, image, t, betas = values
        if what != PICTURE:
            return forward_points(what, t=_whole("timestep", t), betas=betas)
        picture = example_picture() if image is None else image.convert("RGB")
        return forward_picture(picture, t=_whole("timestep", t), betas=betas)


class Schedules(View):
    """Noise tables, and the levels that schedules visit."""

    name = "schedules"
    kinds = ("png",)

    def controls(self) -> list[Component]:
        registry = self.tab.registry
        first = "leading" if "leading" in registry.schedules else next(iter(registry.schedules), None)
        return [
            gr.Dropdown(_known_betas(), value="scaled_linear", label="Betas", elem_id="schedules-betas"),
            gr.Dropdown(
                schedule_choices(registry), value=first, label="Schedule", elem_id="schedules-schedule"
            ),
            gr.Slider(1, 100, 20, step=1, precision=0, label="Steps", buttons=[], elem_id="schedules-steps"),
            gr.Slider(
                0.05, 1, 1, step=0.05, label="Strength of img2img", buttons=[], elem_id="schedules-strength"
            ),
        ]

    def show(self, *values: Any) -> Shown:
        from core.learn.schedules import schedules

        betas, schedule, steps, strength = values
        return schedules(
            self.tab.registry,
            betas=betas,
            schedule=schedule or "",
            steps=_whole("steps", steps),
            strength=_number("strength", strength),
        )


class Reverse(View):
    """Points on their way, samplers side by side."""

    name = "reverse"

    def __init__(self, tab: LearnTab) -> None:
        super().__init__(tab)
        self._descents = lru_cache(maxsize=8)(self._made)

    def controls(self) -> list[Component]:
        registry = self.tab.registry
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
                1, 100, 20, step=1, precision=0, label="Evaluations each", buttons=[], elem_id="reverse-evals"
            ),
            gr.Slider(
                0,
                100,
                100,
                step=1,
                precision=0,
                label="How far, in percent",
                buttons=[],
                elem_id="reverse-share",
            ),
            gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31, elem_id="reverse-seed"),
        ]

    def show(self, *values: Any) -> Shown:
        from core.learn.reverse import shown

        cloud, samplers, evals, share, seed = values
        made = self._descents(
            cloud, tuple(samplers or ()), _whole("evaluations", evals), _whole("seed", seed)
        )
        return shown(made, cloud, int(seed), _number("how far", share) / 100)

    def lines(self, shown: Shown) -> list[Lines]:
        """Also the loop of the first sampler."""
        from core.learn.code import lines_of

        own = [lines_of(self.tab.registry.sampler(name).function) for name, _ in shown.code]
        return [*super().lines(shown), *own]

    def _made(self, cloud: str, samplers: tuple[str, ...], evals: int, seed: int) -> Any:
        from core.learn.reverse import descents

        return descents(self.tab.registry, samplers, name=cloud, evals=evals, seed=seed)


class LearnTab:
    """The tab: `build` it inside the caller's layout, then `connect` it."""

    def __init__(self, jobs: Jobs, registry: Registry) -> None:
        self.jobs, self.registry, self.handing = jobs, registry, Handing()
        self.drawing = threading.Lock()  # matplotlib draws one figure at a time
        self.views: list[View] = [Forward(self), Schedules(self), Reverse(self)]

    def build(self) -> None:
        """A tab a view, and one for training."""
        self.narrow = gr.Checkbox(False, visible=False)
        self.tabs: dict[str, gr.Tab] = {}
        with gr.Tabs(elem_id="learn"):
            for view in self.views:
                with gr.Tab(view.lesson.title.partition(":")[0], id=view.name) as self.tabs[view.name]:
                    view.build()
            with gr.Tab("Train", id="train"):
                gr.HTML(_TRAIN, apply_default_css=False, elem_id="learn-train")

    def connect(self, owner: Component, shown: Callable[..., Any]) -> None:
        """Wire it. owner: holds whose page it is. shown: the event of the tab being chosen."""
        for i, view in enumerate(self.views):
            opened = [self.tabs[view.name].select, *([shown] if i == 0 else [])]
            view.connect(opened)


def _known_betas() -> list[tuple[str, str]]:
    from core.learn.tables import tables

    known = tables()
    return [(title, name) for title, name in BETAS if name in known]


def _whole(what: str, value: Any) -> int:
    return int(_number(what, value))


def _number(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise UserError(f"{what}: enter a number")
    return float(value)
