"""The pictures that a run starts from: the picture and strength of img2img, the mask and sides of inpaint.

Both tabs share strength and size; each has a picture of its own. What a person sets is in `fields`, by the
names of `Request` where there is one; the pictures themselves are not, as they are files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import gradio as gr
from PIL import Image, ImageChops

from core.errors import UserError
from core.images.source_images import ImageSource, read_mask
from core.request.fields import NO_OUTPAINT
from core.request.image_settings import BLUR, CONTENTS, MAX_BLUR, SIDES, STRENGTH
from ui.page.widgets import fields, strength, text
from ui.page.widgets.fields import LATEST, QUICK

if TYPE_CHECKING:
    from gradio.components import Component

    from core.request.request import Request
    from core.sampling.registry import Registry
    from ui.service.model_thread import ModelThread

MASK_COLOUR = "#e5484d"
PADDING = 32
SOURCES: list[Any] = ["upload", "clipboard"]
_RESIZES = {"crop": "cut to fit", "pad": "keep whole, draw out the edges", "stretch": "stretch"}
_CONTENTS = {
    "original": "what was there",
    "fill": "the colours around it",
    "noise": "noise",
    "nothing": "nothing",
}


class InputFiles(NamedTuple):
    """What goes beside a request."""

    image: ImageSource | None = None
    mask: ImageSource | None = None


class InputImages:
    """The controls, inside the caller's column. CSS shows those of the chosen tab."""

    def __init__(self, engine: ModelThread, registry: Registry) -> None:
        self.engine, self.registry = engine, registry
        with gr.Column(elem_classes="lc-img2img"):
            self.image = gr.Image(
                type="filepath",
                image_mode=None,
                sources=SOURCES,
                label="Picture to start from",
                buttons=[],
                height=320,
                elem_id="picture",
            )
        # The editor is heavy: it comes to the page when its tab is first opened.
        with gr.Column(visible=False, elem_classes="lc-inpaint", elem_id="painting") as self.painting:
            self._build_editor()
        self._build_strength()
        with gr.Column(elem_classes="lc-inpaint", elem_id="mask-settings"):
            self._build_mask()
        self.fields: dict[str, Component] = {
            "strength": self.strength,
            "own_size": self.own_size,
            "resize": self.resize,
            "mask_blur": self.blur,
            "masked_content": self.content,
            "area": self.area,
            "padding": self.padding,
            "keep_unmasked": self.keep,
            "invert_mask": self.invert,
            **{f"outpaint_{side}": control for side, control in zip(SIDES, self.sides, strict=True)},
        }

    def _build_editor(self) -> None:
        self.editor = gr.ImageEditor(
            type="pil",
            sources=SOURCES,
            transforms=(),
            layers=False,
            brush=gr.Brush(default_size=32, colors=[MASK_COLOUR], color_mode="fixed"),
            eraser=gr.Eraser(default_size=32),
            label="Picture to paint on",
            show_label=False,
            buttons=[],
            placeholder="Drop a picture here\nthen paint over\nwhat is to change",
            height=340,
            elem_id="editor",
        )
        with gr.Accordion("A mask from a file", open=False, elem_id="mask-file"):
            self.mask = gr.Image(
                type="filepath",
                image_mode=None,
                sources=SOURCES,
                label="Mask: white is painted anew; it adds to what is painted",
                buttons=[],
                height=150,
                elem_id="mask",
            )

    def _build_strength(self) -> None:
        self.strength = fields.slider(
            "Strength",
            (0.01, 1, 0.01),
            STRENGTH,
            "How far to go from the picture: the share of the steps that run, and so how noisy it begins",
        )
        self.sentence = gr.HTML("", elem_id="strength-words")
        with gr.Row(elem_id="fitting"):
            self.own_size = gr.Checkbox(
                True,
                label="The picture's own size",
                info="Run at the picture's size, smaller where the model could not cope; else at the form's",
                elem_id="own-size",
                min_width=120,
            )
            self.resize = gr.Dropdown(
                [(_RESIZES[name], name) for name in ("crop", "pad", "stretch")],
                value="crop",
                label="Resize mode",
                info="How a picture fits a size of another shape",
                elem_id="resize",
                min_width=120,
                visible=False,
            )

    def _build_mask(self) -> None:
        with gr.Row():
            self.blur = fields.slider(
                "Mask blur", (0, MAX_BLUR, 1), BLUR, "Softens the mask's edge by so many pixels"
            )
            self.content = gr.Dropdown(
                [(_CONTENTS[name], name) for name in CONTENTS],
                value=CONTENTS[0],
                label="Masked content",
                info="What the steps start from in the mask; its shapes come back where strength is weak",
                elem_id="masked-content",
                min_width=120,
            )
        with gr.Row():
            self.area = gr.Dropdown(
                [("the whole picture", "whole"), ("only the masked part", "masked")],
                value="whole",
                label="Work on",
                info="The masked part alone is cut out, painted at full size and put back: detail in it",
                elem_id="area",
                min_width=150,
            )
            self.padding = fields.number(
                "Padding", PADDING, "Pixels around the masked part that are cut out with it"
            )
        with gr.Row(elem_classes="lc-ticks"):
            self.keep = gr.Checkbox(
                False,
                label="Keep the rest exactly",
                info="Every pixel outside the mask comes back as it was; else it is decoded by the model",
                elem_id="keep-unmasked",
                min_width=120,
            )
            self.invert = gr.Checkbox(
                False,
                label="Invert the mask",
                info="Keep what is marked, and paint all else anew",
                elem_id="invert-mask",
                min_width=120,
            )
        with gr.Row(elem_id="outpaint"):
            self.sides = [
                fields.number(
                    f"Add {side}", 0, f"Paint so many pixels beyond the picture's {side} side", step=8
                )
                for side in SIDES
            ]

    def connect(self, levels: Sequence[Any]) -> None:
        """Wire what the inputs do by themselves. `levels` are the form's schedule, steps and sigmas."""
        asked = [*levels, self.strength]
        gr.on([control.change for control in asked], self.on_strength, asked, self.sentence, **LATEST)
        self.own_size.change(
            None, self.own_size, self.resize, js="(own) => ({__type__: 'update', visible: !own})", **QUICK
        )
        for side in self.sides:
            side.input(
                self.on_outpaint,
                [*self.sides, self.strength, self.content],
                [self.strength, self.content],
                **LATEST,
            )

    def on_strength(self, schedule: str, steps: object, sigmas: str, value: float) -> str:
        """The line under the strength."""
        try:
            noise = self.engine.pipeline.noise_schedule if self.engine.ready else None
            return strength.line(strength.grid(self.registry, noise, schedule, steps, sigmas or ""), value)
        except UserError as error:
            return text.plain(str(error))

    def on_outpaint(self, *values: Any) -> tuple[Any, Any]:
        """There is nothing to keep in what is added: it is painted from scratch, in the colours beside it."""
        *sides, asked, content = values
        if not any(sides):
            return gr.skip(), gr.skip()
        return (
            1.0 if asked == STRENGTH else gr.skip(),
            "fill" if content == CONTENTS[0] else gr.skip(),
        )

    def img2img(self, named: Mapping[str, Any], image: str | None) -> tuple[dict[str, Any], InputFiles]:
        """What a request says of the picture, and the picture. Raises UserError."""
        if image is None:
            raise UserError("there is no picture to start from; drop one on the page, or paste one")
        return self._shared(named), InputFiles(image)

    def inpaint(
        self, named: Mapping[str, Any], painted: Mapping[str, Any] | None, mask_file: str | None
    ) -> tuple[dict[str, Any], InputFiles]:
        """The same with a mask: what was painted, what the file says, or both together. Raises UserError."""
        image = (painted or {}).get("background")
        if image is None:
            raise UserError("there is no picture to paint on; drop one on the page, or paste one")
        sides = tuple(named[f"outpaint_{side}"] or 0 for side in SIDES)
        mask = _together(_painted(painted or {}), mask_file, image.size)
        if mask is None and not any(sides):
            raise UserError("there is no mask: paint over what is to change, or add pixels at a side")
        said = self._shared(named) | {
            "outpaint": sides,
            "mask_blur": _whole("mask blur", named["mask_blur"]),
            "masked_content": named["masked_content"],
            "keep_unmasked": bool(named["keep_unmasked"]),
            "invert_mask": bool(named["invert_mask"]) and mask is not None,
        }
        if named["area"] == "masked":
            said |= {"only_masked": _whole("padding", named["padding"])}
        return said, InputFiles(image, mask)

    def _shared(self, named: Mapping[str, Any]) -> dict[str, Any]:
        own = {"width": None, "height": None} if named["own_size"] else {}
        return {"strength": named["strength"], "resize": named["resize"], **own}

    def files(self) -> list[Component]:
        """The pictures themselves: that of img2img, that to paint on, and the mask from a file."""
        return [self.image, self.editor, self.mask]

    def filled(self, tab: str, image: str, mask: str | None = None) -> list[Any]:
        """Updates for `files`: a picture file in one of the tabs, and its mask or none."""
        if tab == "img2img":
            return [image, gr.skip(), gr.skip()]
        return [gr.skip(), {"background": image, "layers": [], "composite": None}, mask]

    def values_of(self, request: Request) -> dict[str, Any]:
        """The settings that ask for what this request asks of its pictures."""
        said: dict[str, Any] = {
            "strength": request.strength,
            "resize": request.resize,
            "mask_blur": request.mask_blur,
            "masked_content": request.masked_content,
        }
        values = {name: value for name, value in said.items() if value is not None}
        return values | {
            "own_size": request.width is None and request.height is None,
            "area": "whole" if request.only_masked is None else "masked",
            "padding": PADDING if request.only_masked is None else request.only_masked,
            "keep_unmasked": request.keep_unmasked,
            "invert_mask": request.invert_mask,
            **{f"outpaint_{side}": pixels for side, pixels in zip(SIDES, request.outpaint, strict=True)},
        }


def tab_of(request: Request) -> str:
    """The tab that a request belongs to."""
    masked = request.mask_sha256 or request.mask_blur is not None or request.only_masked is not None
    if masked or tuple(request.outpaint) != NO_OUTPAINT:
        return "inpaint"
    return "img2img" if request.image_sha256 or request.strength is not None else "txt2img"


def _painted(painted: Mapping[str, Any]) -> Image.Image | None:
    """Where there is paint on any layer, in 8 bits of grey; None where there is none."""
    alphas = [layer.getchannel("A") for layer in painted.get("layers") or () if "A" in layer.getbands()]
    marks = [alpha for alpha in alphas if alpha.getbbox() is not None]
    if not marks:
        return None
    mask: Image.Image = marks[0]
    for mark in marks[1:]:
        mask = ImageChops.lighter(mask, mark)
    return mask


def _together(
    painted: Image.Image | None, mask_file: str | None, size: tuple[int, int]
) -> Image.Image | str | None:
    """The mask of both sources. A file alone stays one: its shape is checked where it is read."""
    if mask_file is None or painted is None:
        return painted if mask_file is None else mask_file
    drawn = read_mask(mask_file).resize(size, Image.Resampling.BILINEAR)
    return ImageChops.lighter(painted.resize(size, Image.Resampling.BILINEAR), drawn)


def _whole(name: str, value: Any) -> int:
    if value is None:
        raise UserError(f"{name}: is empty; enter a number")
    return int(value)
