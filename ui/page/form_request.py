"""From the values of the workbench's controls to a request, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.errors import UserError
from core.images.source_images import Inputs, check_inputs
from ui.page.widgets import fields, text
from ui.page.widgets.form import MAX_RUNS
from ui.page.widgets.pictures import InputFiles, tab_of

if TYPE_CHECKING:
    from gradio.components import Component

    from core.request.request import Request
    from ui.page.widgets.form import Form
    from ui.page.widgets.pictures import InputImages
    from ui.page.widgets.saved_prompts import KeptWords

# Fields of a request without a control: stored next to the form and shown under it.
REST = ("stop_after", "branch", "image_sha256", "mask_sha256")


class Asking:
    """Reads and fills the controls. `fields`: those of the form, the styles and the image inputs, by name."""

    def __init__(self, form: Form, pictures: InputImages, kept: KeptWords) -> None:
        self.form, self.pictures, self.kept = form, pictures, kept
        self.fields: dict[str, Component] = {**form.fields, "styles": kept.chosen, **pictures.fields}

    def files(self, tab: str) -> list[Component]:
        """The image inputs of a tab."""
        own: dict[str, list[Component]] = {
            "img2img": [self.pictures.image],
            "inpaint": [self.pictures.editor, self.pictures.mask],
        }
        return own.get(tab, [])

    def named(self, *values: Any) -> dict[str, Any]:
        """The values of `fields`, by name."""
        return dict(zip(self.fields, values, strict=True))

    def asked(
        self, owner: str, tab: str, rest: Mapping[str, Any], named: Mapping[str, Any], files: Sequence[Any]
    ) -> tuple[Request, Inputs | None]:
        """The checked request of a tab, and its images. Raises UserError."""
        said, given = self._picture(tab, named, files)
        inputs = Inputs.read(*given)
        known = rest if inputs is not None else {k: v for k, v in rest.items() if not k.endswith("sha256")}
        request = self.request(owner, named, {**said, **known})
        if inputs is not None or request.branch is None:
            check_inputs(request, inputs)
        return request, inputs

    def request(self, owner: str, named: Mapping[str, Any], said: Mapping[str, Any]) -> Request:
        """The form's request with the chosen styles; `said` holds fields from elsewhere. Raises UserError."""
        words = named["prompt"] or "", named["negative"] or ""
        prompt, negative = self.kept.applied(owner, named["styles"], *words)
        return self.form.read({**named, "prompt": prompt, "negative": negative}, **said)

    def _picture(
        self, tab: str, named: Mapping[str, Any], files: Sequence[Any]
    ) -> tuple[dict[str, Any], InputFiles]:
        if tab == "img2img":
            return self.pictures.img2img(named, *files)
        if tab == "inpaint":
            return self.pictures.inpaint(named, *files)
        return {}, InputFiles()

    def values_of(self, request: Request) -> dict[str, Any]:
        """The values of `fields`, by name, for this request."""
        return {**self.form.values_of(request), **self.pictures.values_of(request), "styles": []}

    def filling(self, request: Request, pictures_given: bool = False) -> list[Any]:
        """Updates for [the tabs, *fields, the notice, *the three outputs of the rest]. Raises UserError.

        pictures_given: the caller also fills in the init image and mask.
        """
        return [
            gr.Tabs(selected=tab_of(request)),
            *fields.updates(self.fields, self.values_of(request)),
            "",
            *rest_shown(rest_of(request, pictures_given)),
        ]


def rest_of(request: Request, pictures_given: bool = False) -> dict[str, Any]:
    """Fields of a request without a control: a branch, an early stop, and the hashes of missing images."""
    said = {name: getattr(request, name) for name in REST if getattr(request, name) is not None}
    return {name: value for name, value in said.items() if not (pictures_given and name.endswith("sha256"))}


def rest_shown(rest: dict[str, Any]) -> tuple[Any, ...]:
    """The rest, and updates for its row and its sentence."""
    said = []
    if "branch" in rest:
        said.append(f"continues another run after step {rest['branch'].step}")
    if "stop_after" in rest:
        said.append(f"stops after step {rest['stop_after']}")
    names = {"image_sha256": "init image", "mask_sha256": "mask"}
    pictures = [word for name, word in names.items() if name in rest]
    if pictures and "branch" not in rest:
        said.append(f"needs the same {' and '.join(pictures)} again")
    sentence = "this run " + ", ".join(said) if said else ""
    return rest, gr.Row(visible=bool(said)), text.note(sentence)


def repeated(request: Request, runs: object) -> list[Request]:
    """The request once for each run; the seeds continue from run to run.

    Raises UserError for a bad number of runs.
    """
    if not isinstance(runs, int) or not 1 <= runs <= MAX_RUNS:
        raise UserError(f"runs: must be a whole number between 1 and {MAX_RUNS}")
    if request.seed is None:
        return [request] * runs
    return [dataclasses.replace(request, seed=request.seed + i * request.batch) for i in range(runs)]
