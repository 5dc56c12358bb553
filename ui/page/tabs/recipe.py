"""The recipe tab: drop an image or paste text, see which of its settings are supported, and open it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import gradio as gr

from core.errors import UserError
from core.recipes.opened_recipe import PROGRAMS, OpenedRecipe, ReportLine
from core.recipes.reader import read_any
from core.request.fields import OPTIONAL
from core.request.image_settings import STRENGTH
from core.request.request import Request
from core.weights.find import installed_model
from ui.page.widgets import text
from ui.page.widgets.fields import LATEST, QUICK

if TYPE_CHECKING:
    from gradio.components import Component

    from core.sampling.registry import Registry

Where = Literal["txt2img", "img2img", "inpaint"]
_HEADS = "".join(f'<th scope="col">{head}</th>' for head in ("Key", "Value", "Status", "Result and reason"))
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif")
_TEACH = """<section class="lc-recipe-teach"><h3>How was this image made?</h3>
<p>Most programs write the prompt, sampler, seed and other settings into the file. Drop an image from
LatentCanvas, A1111 or Forge, ComfyUI, InvokeAI or Fooocus, or paste the text that came with one. A table
shows which keys are <b>kept</b>, which are <b>mapped</b> to something similar and which are <b>ignored</b>,
each with the reason.</p>
<p>Screenshots, and images sent through most messengers, no longer contain this data.</p></section>"""
_NEEDED = {"picture": "init image"}
_PLACEHOLDER = "a red house\nNegative prompt: blurry\nSteps: 20, Sampler: DPM++ 2M Karras, ..."
_OF_PICTURES = {
    *("strength", "resize", "outpaint", "mask_blur", "masked_content", "only_masked"),
    *("keep_unmasked", "invert_mask", "image_sha256", "mask_sha256"),
    "branch",  # its first steps used those images
}


@dataclass(frozen=True)
class Opening:
    """A button's request to the workbench: a request to open in one of its tabs.

    `model`: an installed model of the name that the recipe gives. `picture`: the init image, if asked for.
    """

    request: Request
    where: Where
    model: str | None = None
    picture: Path | None = None


@dataclass(frozen=True)
class ShownRecipe:
    """The recipe that the tab shows, and the image that it was found in."""

    found: OpenedRecipe
    picture: Path | None = None


class RecipeTab:
    """The tab: `build` it inside the caller's layout, then `connect` it.

    loaded: gives (name, SHA-256) of the loaded model, or None.
    """

    def __init__(
        self, registry: Registry, *, loaded: Callable[[], tuple[str, str] | None] = lambda: None
    ) -> None:
        self.registry, self.loaded = registry, loaded

    def build(self) -> None:
        """The controls."""
        self.shown = gr.State(None)
        with gr.Row(elem_id="recipe", equal_height=False):
            with gr.Column(scale=4, min_width=320, elem_id="recipe-source"):
                self.file = gr.File(
                    label="An image, or a text or JSON file", height=120, elem_id="recipe-file"
                )
                self.text = gr.Textbox(
                    label="Or paste text",
                    placeholder=_PLACEHOLDER,
                    lines=6,
                    max_lines=12,
                    elem_id="recipe-text",
                )
                self.picture = gr.Image(
                    type="filepath",
                    image_mode=None,
                    interactive=False,
                    visible=False,
                    label="The image",
                    show_label=False,
                    buttons=["fullscreen"],
                    elem_id="recipe-picture",
                )
            with gr.Column(scale=7, min_width=320, elem_id="recipe-found"):
                self.summary = gr.HTML(_TEACH, apply_default_css=False, elem_id="recipe-summary")
                with gr.Row(visible=False, elem_id="recipe-actions") as self.actions:
                    self.open = gr.Button("Open in txt2img", variant="primary", elem_id="recipe-open")
                    self.start = gr.Button("Use as init image", elem_id="recipe-start", visible=False)
                self.notice = gr.HTML("", elem_id="recipe-notice")
                self.report = gr.HTML("", apply_default_css=False, elem_id="recipe-report")

    def connect(self, opened: Callable[[Opening], Sequence[Any]], outputs: Sequence[Component]) -> None:
        """Wire the controls. `opened` gives the updates of `outputs` that open a recipe in the workbench.

        A UserError that it raises is shown in the tab.
        """
        shown = [self.shown, self.picture, self.summary, self.actions, self.open, self.start]
        shown += [self.notice, self.report]
        self.file.upload(self.on_file, self.file, shown, **QUICK)
        self.file.clear(self.on_nothing, None, shown, **QUICK)
        self.text.change(self.on_text, self.text, shown, **LATEST)
        for button, asked in ((self.open, self.recipe_opening), (self.start, self.picture_opening)):
            button.click(opener(opened, asked, len(outputs)), self.shown, [*outputs, self.notice], **QUICK)

    def on_file(self, path: str | None) -> list[Any]:
        """Show the recipe of the dropped file."""
        if path is None:
            return self.on_nothing()
        file = Path(path)
        picture = file if file.suffix.lower() in PICTURES else None
        try:
            found = read_any(file, self.registry)
        except UserError as error:  # the name alone: the path of the upload means nothing to the user
            return self._wrong(str(error).replace(str(file), file.name), picture)
        return self._found(ShownRecipe(found, picture))

    def on_text(self, pasted: str) -> list[Any]:
        """Show the recipe of the pasted text."""
        if not pasted.strip():
            return self.on_nothing()
        try:
            return self._found(ShownRecipe(read_any(pasted, self.registry)))
        except UserError as error:
            return self._wrong(str(error), None)

    def on_nothing(self) -> list[Any]:
        """The empty tab."""
        return [None, _picture(None), _TEACH, gr.Row(visible=False), gr.skip(), gr.skip(), "", ""]

    def recipe_opening(self, shown: ShownRecipe) -> Opening:
        """The recipe in the tab that it belongs to."""
        request = shown.found.request
        return Opening(request, where_of(shown.found), installed_model(shown.found.model))

    def picture_opening(self, shown: ShownRecipe) -> Opening:
        """The recipe's prompt and settings, with the image itself as the init image."""
        plain = without_pictures(shown.found.request)
        request = dataclasses.replace(plain, strength=_strength(plain), width=None, height=None)
        return Opening(request, "img2img", installed_model(shown.found.model), shown.picture)

    def _found(self, shown: ShownRecipe) -> list[Any]:
        found = shown.found
        return [
            shown,
            _picture(shown.picture),
            summary_html(found, self.loaded()),
            gr.Row(visible=True),
            gr.Button(f"Open in {where_of(found)}"),
            gr.Button(visible=shown.picture is not None),
            "",
            report_html(found.report),
        ]

    def _wrong(self, sentence: str, picture: Path | None) -> list[Any]:
        hidden = gr.Row(visible=False)
        return [None, _picture(picture), "", hidden, gr.skip(), gr.skip(), text.error(sentence), ""]


def where_of(found: OpenedRecipe) -> Where:
    """The tab of the workbench that a recipe belongs to."""
    if not found.needs:
        return "txt2img"
    return "inpaint" if "mask" in found.needs or any(found.request.outpaint) else "img2img"


def without_pictures(request: Request) -> Request:
    """The request without its init image and mask settings."""
    plain: dict[str, Any] = {name: OPTIONAL[name] for name in _OF_PICTURES}
    return dataclasses.replace(request, **plain)


def summary_html(found: OpenedRecipe, loaded: tuple[str, str] | None) -> str:
    """The program, the model and whether it is installed, and the images that the run needs."""
    needs = ""
    if found.needs:
        given = " and ".join(_NEEDED.get(name, name) for name in found.needs)
        needs = f'<p class="lc-recipe-needs">To run it, add its {given}.</p>'
    return (
        f'<section class="lc-recipe-source" aria-label="The recipe that was found">'
        f"<h3>{escape(PROGRAMS[found.source])}</h3><p>{model_sentence(found, loaded)}</p>{needs}</section>"
    )


def model_sentence(found: OpenedRecipe, loaded: tuple[str, str] | None) -> str:
    """The model, and whether it is loaded, installed or neither; as HTML."""
    if found.model is None and found.model_hash is None:
        return "It does not name the model that it was made with."
    made = f"Made with <b>{escape(found.model or found.model_hash or '')}</b>"
    name, sha256 = loaded or ("", "")
    same_weights = bool(found.model_hash) and sha256.startswith(found.model_hash or "")
    if same_weights:
        return f"{made}, which is the loaded model."
    here = installed_model(found.model)
    if here is not None and here == name:
        if found.model_hash is None:
            return f"{made}: a model of that name is loaded."
        return f"{made}: the loaded model of that name has other weights, so the image will differ."
    if here is not None:
        return f"{made}: a model of that name is installed; choose it at the top of the page."
    return f"{made}, which is not installed: another model makes another image."


def report_html(report: Sequence[ReportLine]) -> str:
    """Every key: its value, its status, its new value and the reason."""
    count = Counter(line.fate for line in report)
    said = ", ".join(f"{count[fate]} {fate}" for fate in ("kept", "mapped", "ignored") if count[fate])
    rows = "".join(_row(line) for line in report)
    return (
        f'<div class="lc-recipe-scroll" tabindex="0" role="region" aria-label="Report of every key">'
        f'<table class="lc-recipe-table"><caption>{said}</caption><thead><tr>{_HEADS}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(line: ReportLine) -> str:
    became = f'<span class="lc-to">{escape(line.to)}</span>' if line.to else ""
    return (
        f'<tr><th scope="row">{escape(line.key)}</th>'
        f'<td><div class="lc-value">{escape(line.value)}</div></td>'
        f'<td><span class="lc-fate lc-{line.fate}">{line.fate}</span></td>'
        f"<td>{became}{escape(line.note)}</td></tr>"
    )


def opener(
    opened: Callable[[Opening], Sequence[Any]], asked: Callable[[ShownRecipe], Opening], width: int
) -> Callable[[ShownRecipe | None], list[Any]]:
    """The handler of a button: the workbench's updates, and the tab's notice."""

    def click(shown: ShownRecipe | None) -> list[Any]:
        try:
            if shown is None:
                raise UserError("there is no recipe to open: drop an image or paste text first")
            return [*opened(asked(shown)), ""]
        except UserError as error:
            return [*[gr.skip()] * width, text.error(str(error))]

    return click


def _picture(path: Path | None) -> Any:
    """The file itself, sent to the browser unchanged."""
    return gr.Image(value=None if path is None else str(path), visible=path is not None)


def _strength(request: Request) -> float:
    """The default denoising strength, or 1 if too few steps would leave none to run."""
    return STRENGTH if request.steps is None or int(request.steps * STRENGTH) else 1.0
