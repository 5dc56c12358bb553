"""Sheets of images that a model paints.

`python -m tools.storybook.sheets sixteen OUT.png` for sixteen prompts, `... subjects OUT.png` for all that it
can paint, and `... pairs OUT.png --other FOLDER` for 64 prompts by two models, the other one's first.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from PIL import Image

from core.figures.contact_sheet import labelled
from core.inference.pipeline import Pipeline
from core.scenes.storybook_captions import EXAMPLES
from core.training.sets import Storybook
from tools.storybook.prompts import prompts

SIXTEEN = (
    *EXAMPLES,
    "a lighthouse by the sea at sunset",
    "three bees in a garden",
    "an elephant and a giraffe in the desert",
    "a purple butterfly over the hills",
    "a teddy bear in a room at night",
    "a yellow star on a black background",
)


def painted(model: str, texts: Sequence[str], seed: int, side: int) -> list[Image.Image]:
    """One image for each prompt, all with the same seed."""
    pipeline = Pipeline.load(model)
    images = (pipeline.generate(prompt=text, seed=seed).images[0] for text in texts)
    return [image.resize((side, side), Image.Resampling.BOX) for image in images]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.storybook.sheets")
    parser.add_argument("what", choices=("sixteen", "subjects", "pairs"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--other", default="tiny", help="the other model of `pairs`")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prompts", type=Path, help="a JSON list of prompts instead of the usual ones")
    options = parser.parse_args()
    usual = {
        "sixteen": SIXTEEN,
        "subjects": tuple(Storybook(0, "seen", 1).subjects()),
        "pairs": tuple(prompt.text for group in ("one", "two") for prompt in prompts(group, 32)),
    }
    columns, side = {"sixteen": (4, 256), "subjects": (14, 96), "pairs": (8, 160)}[options.what]
    texts = (
        json.loads(options.prompts.read_text(encoding="utf-8")) if options.prompts else usual[options.what]
    )
    cells = list(zip(texts, painted(options.model, texts, options.seed, side), strict=True))
    if options.what == "pairs":
        others = (("", image) for image in painted(options.other, texts, options.seed, side))
        cells = list(chain.from_iterable(zip(others, cells, strict=True)))
    labelled(cells, columns).save(options.out)


if __name__ == "__main__":
    main()
