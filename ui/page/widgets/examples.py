"""Example prompts: a row of buttons under the prompt, with the subjects of the model behind a link, and cards
with images in the empty player.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
from PIL import Image

from core.errors import UserError
from core.recipes.png import read_recipe
from ui.page.widgets.data_uris import jpeg_uri, png_uri
from ui.page.widgets.player import Message

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
CARDS = 3


def chips() -> gr.HTML:
    """Example prompts, and behind a link the subjects that the model can paint. Its value is `shown`.

    Events: `pick` with an example's `prompt`, `append` with a subject's `phrase`, and `open` when the images
    of the subjects are needed.
    """
    return gr.HTML(
        shown(),
        html_template=(HERE / "examples.html").read_text(encoding="utf-8"),
        js_on_load=(HERE / "examples.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id="examples",
    )


def shown(prompts: Sequence[str] = (), phrases: Sequence[str] = (), sheet: bytes = b"") -> Message:
    """A value of `chips`. sheet: a PNG with an image of each phrase, one below the other."""
    return {
        "prompts": list(prompts),
        "phrases": list(phrases),
        "sheet": png_uri(sheet) if sheet else "",
    }


def added(prompt: str, phrase: str) -> str:
    """The prompt with another subject or place."""
    joint = " and " if phrase.startswith(("a ", "an ", "the ")) else " "
    return f"{prompt.rstrip()}{joint}{phrase}" if prompt.strip() else phrase


def cards(prompts: Sequence[str], pictures: Path, model: str) -> list[Message]:
    """Cards for the empty player: images that this model made, with their prompts; else prompts alone."""
    shown = [card for path in sorted(pictures.glob("*.png")) if (card := _picture_card(path, model))]
    return (shown or [{"prompt": prompt, "picture": ""} for prompt in prompts])[:CARDS]


def _picture_card(path: Path, model: str) -> Message | None:
    try:
        recipe = read_recipe(path)
        if recipe.model.name != model:
            return None
        with Image.open(path) as image:
            return {"prompt": recipe.settings.prompt, "picture": jpeg_uri(image)}
    except (OSError, UserError) as error:
        log.warning("example image %s: %s", path, error)
        return None
