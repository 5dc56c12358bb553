"""Sheets of pictures that a model paints.

`python -m tests.storybook.sheets sixteen OUT.png` for sixteen prompts, `... nouns OUT.png` for everything it
can paint, and `... beside OUT.png --other FOLDER` for 64 prompts by two models, side by side.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from core.inference.pipeline import Pipeline
from core.scenes.nouns import nouns
from core.scenes.scene import SHAPE_KINDS
from core.scenes.storybook_captions import EXAMPLES
from core.scenes.storybook_scene import BUILT
from tests.storybook.prompts import prompts

SIXTEEN = (
    *EXAMPLES,
    "a lighthouse by the sea at sunset",
    "three bees in a garden",
    "an elephant and a giraffe in the desert",
    "a purple butterfly over the hills",
    "a teddy bear in a room at night",
    "a yellow star on a black background",
)
_PAPER, _INK = (255, 255, 255), (40, 44, 52)


def painted(pipeline: Pipeline, asked: Sequence[str], seed: int) -> Iterator[Image.Image]:
    """One picture for each prompt, all with the same seed."""
    for text in asked:
        yield pipeline.generate(prompt=text, seed=seed).images[0]


def sheet(pictures: Sequence[Image.Image], titles: Sequence[str], columns: int, side: int) -> Image.Image:
    """Rows of pictures of `side` pixels, each with its title below."""
    title = side // 9
    font = ImageFont.load_default(size=max(9, title * 0.62))
    rows = -(-len(pictures) // columns)
    whole = Image.new("RGB", (columns * side, rows * (side + title)), _PAPER)
    pen = ImageDraw.Draw(whole)
    for i, (picture, text) in enumerate(zip(pictures, titles, strict=True)):
        x, y = i % columns * side, i // columns * (side + title)
        whole.paste(picture.resize((side, side), Image.Resampling.LANCZOS), (x, y))
        while text and font.getlength(text) > side - 4:
            text = text[:-1]
        pen.text((x + 2, y + side + 1), text, fill=_INK, font=font)
    return whole


def things() -> dict[str, str]:
    """A prompt for everything that can be painted, by its name."""
    named = {name: f"{'an' if name[0] in 'aeio' else 'a'} {name}" for name in (*nouns(), *BUILT)}
    rng = random.Random(2)
    colors = ("red", "orange", "yellow", "green", "blue", "purple", "pink")
    return named | {name: f"a {rng.choice(colors)} {name}" for name in SHAPE_KINDS}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.storybook.sheets")
    parser.add_argument("what", choices=("sixteen", "nouns", "beside"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--other", help="the second model of `beside`")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prompts", type=Path, help="a JSON list of prompts instead of the usual ones")
    options = parser.parse_args()
    pipeline = Pipeline.load(options.model)
    if options.what == "nouns":
        asked = things()
        made = list(painted(pipeline, list(asked.values()), options.seed))
        sheet(made, list(asked), 14, 96).save(options.out)
        return
    own = json.loads(options.prompts.read_text(encoding="utf-8")) if options.prompts else None
    if options.what == "sixteen":
        texts = own or SIXTEEN
        sheet(list(painted(pipeline, texts, options.seed)), texts, 4, 256).save(options.out)
        return
    texts = own or [prompt.text for group in ("one", "two") for prompt in prompts(group, 32)]
    ours = list(painted(pipeline, texts, options.seed))
    theirs = list(painted(Pipeline.load(options.other), texts, options.seed))
    pairs = [picture for pair in zip(theirs, ours, strict=True) for picture in pair]
    titles = [title for text in texts for title in (text, "")]
    sheet(pairs, titles, 8, 160).save(options.out)


if __name__ == "__main__":
    main()
