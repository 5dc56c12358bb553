"""Example prompts: a row of buttons under the prompt, and cards with images in the empty player."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
from PIL import Image

from core.errors import UserError
from core.recipes.png import read_recipe
from ui.page.widgets.data_uris import jpeg_uri
from ui.page.widgets.player import Message

log = logging.getLogger(__name__)

CARDS = 3

_TEMPLATE = '<div class="lc-chips" role="group" aria-label="Example prompts"></div>'
_SCRIPT = """
const row = element.querySelector(".lc-chips");
function draw() {
  row.replaceChildren();
  for (const prompt of props.value || []) {
    const chip = document.createElement("button");
    chip.type = "button";
    chip.textContent = prompt;
    chip.title = prompt;
    chip.addEventListener("click", () => trigger("pick", { prompt }));
    row.append(chip);
  }
}
watch("value", draw);
draw();
"""


def chips(prompts: Sequence[str] = ()) -> gr.HTML:
    """A row of prompts; a click sends the event `pick` with the prompt."""
    return gr.HTML(
        list(prompts),
        html_template=_TEMPLATE,
        js_on_load=_SCRIPT,
        apply_default_css=False,
        elem_id="examples",
    )


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
