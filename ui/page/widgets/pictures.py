"""The image inputs: init image and strength of img2img, mask and outpainting of inpaint.

Both tabs share strength and size; each has its own image. `fields` holds the settings, by the names of
`Request` where there is one; the images themselves are files and not in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import gradio as gr
from PIL import Image, ImageChops

from core.errors import UserError
from core.images.source_images import ImageSource, read_mask
from core.request.fields import CONTENTS, MAX_BLUR, NO_OUTPAINT, SIDES
from core.request.image_settings import BLUR, STRENGTH
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
_RESIZES = {"crop": "crop", "pad": "pad by repeating the edges", "stretch": "stretch"}
_CONTENTS = {
    "original": "original",
    "fill": "fill with nearby colours",
    "noise": "latent noise",
    "nothing": "latent nothing",
}


class InputFiles(NamedTuple):
    """The images that go with a request."""

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
                label="Init image",
                buttons=[],
                height=320,
                elem_id="picture",
            )
        # The editor is heavy: it is rendered when its tab is first opened.
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
            label="Image to paint on",
            show_label=False,
            buttons=[],
            placeholder="Drop an image here\nthen paint over\nthe area to change",
            height=340,
            elem_id="editor",
        )
        with gr.Accordion("Mask from a file", open=False, elem_id="mask-file"):
            self.mask = gr.Image(
                type="filepath",
                image_mode=None,
                sources=SOURCES,
                label="White areas change; added to the painted mask",
                buttons=[],
                height=150,
                elem_id="mask",
            )

    def _build_strength(self) -> None:
        self.strength = fields.slider(
            "Strength",
            (0.01, 1, 0.01),
            STRENGTH,
            "Denoising strength: the share of the steps that run; 1 ignores the init image",
        )
        self.sentence = gr.HTML("", elem_id="strength-words")
        with gr.Row(elem_id="fitting"):
            self.own_size = gr.Checkbox(
                True,
                label="Use the image's size",
                info="Run at the image's size, reduced if too large for the model; else at the form's size",
                elem_id="own-size",
                min_width=120,
            )
            self.resize = gr.Dropdown(
                [(_RESIZES[name], name) for name in ("crop", "pad", "stretch")],
                value="crop",
                label="Resize mode",
                info="How to fit an image of another aspect ratio",
                elem_id="resize",
                min_width=120,
                visible=False,
            )

    def _build_mask(self) -> None:
        with gr.Row():
            self.blur = fields.slider(
                "Mask blur", (0, MAX_BLUR, 1), BLUR, "Blurs the mask's edge by this many pixels"
            )
            self.content = gr.Dropdown(
                [(_CONTENTS[name], name) for name in CONTENTS],
                value=CONTENTS[0],
                label="Masked content",
                info="What the masked area holds before noise is added; at low strength it stays visible",
                elem_id="masked-content",
                min_width=120,
            )
        with gr.Row():
            self.area = gr.Dropdown(
                [("whole image", "whole"), ("only the masked area", "masked")],
                value="whole",
                label="Inpaint area",
                info="The masked area alone is cropped, inpainted at full size and pasted back: more detail",
                elem_id="area",
                min_width=150,
            )
            self.padding = fields.number(
                "Padding", PADDING, "Pixels around the masked area that are cropped with it"
            )
        with gr.Row(elem_classes="lc-ticks"):
            self.keep = gr.Checkbox(
                False,
                label="Keep unmasked pixels",
                info="Pixels outside the mask stay exactly the same; else they are decoded by the VAE",
                elem_id="keep-unmasked",
                min_width=120,
            )
            self.invert = gr.Checkbox(
                False,
                label="Invert mask",
                info="Keep the painted area and change everything else",
                elem_id="invert-mask",
                min_width=120,
            )
        with gr.Row(elem_id="outpaint"):
            self.sides = [
                fields.number(
                    f"Add {side}", 0, f"Outpaint this many pixels beyond the image's {side} side", step=8
                )
                for side in SIDES
            ]

    def connect(self, levels: Sequence[Any]) -> None:
        """Wire the inputs' own events. `levels` are the form's schedule, steps and sigmas."""
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
        """Defaults for outpainting: the new area has no original, so full strength and nearby colours."""
        *sides, asked, content = values
        if not any(sides):
            return gr.skip(), gr.skip()
        return (
            1.0 if asked == STRENGTH else gr.skip(),
            "fill" if content == CONTENTS[0] else gr.skip(),
        )

    def img2img(self, named: Mapping[str, Any], image: str | None) -> tuple[dict[str, Any], InputFiles]:
        """The request's image fields, and the init image. Raises UserError."""
        if image is None:
            raise UserError("there is no init image: drop one on the page or paste one")
        return self._shared(named), InputFiles(image)

    def inpaint(
        self, named: Mapping[str, Any], painted: Mapping[str, Any] | None, mask_file: str | None
    ) -> tuple[dict[str, Any], InputFiles]:
        """The same with a mask: painted, from a file, or both combined. Raises UserError."""
        image = (painted or {}).get("background")
        if image is None:
            raise UserError("there is no image to paint on: drop one on the page or paste one")
        sides = tuple(named[f"outpaint_{side}"] or 0 for side in SIDES)
        mask = _combined(_painted(painted or {}), mask_file, image.size)
        if mask is None and not any(sides):
            raise UserError("there is no mask: paint over the area to change, or add pixels to a side")
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
        """The image components: the init image of img2img, the editor of inpaint, the mask file."""
        return [self.image, self.editor, self.mask]

    def filled(self, tab: str, image: str, mask: str | None = None) -> list[Any]:
        """Updates for `files`: an image file in one of the tabs, and its mask or None."""
        if tab == "img2img":
            return [image, gr.skip(), gr.skip()]
        return [gr.skip(), {"background": image, "layers": [], "composite": None}, mask]

    def values_of(self, request: Request) -> dict[str, Any]:
        """The values of `fields` for this request."""
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
    """The paint on all layers as an 8-bit mask; None without any."""
    alphas = [layer.getchannel("A") for layer in painted.get("layers") or () if "A" in layer.getbands()]
    marks = [alpha for alpha in alphas if alpha.getbbox() is not None]
    if not marks:
        return None
    mask: Image.Image = marks[0]
    for mark in marks[1:]:
        mask = ImageChops.lighter(mask, mark)
    return mask


def _combined(
    painted: Image.Image | None, mask_file: str | None, size: tuple[int, int]
) -> Image.Image | str | None:
    """The mask of both sources combined. A file alone stays a path: its shape is checked where it is read."""
    if mask_file is None or painted is None:
        return painted if mask_file is None else mask_file
    drawn = read_mask(mask_file).resize(size, Image.Resampling.BILINEAR)
    return ImageChops.lighter(painted.resize(size, Image.Resampling.BILINEAR), drawn)


def _whole(name: str, value: Any) -> int:
    if value is None:
        raise UserError(f"{name}: enter a number")
    return int(value)
