"""How well a model draws what is asked: `python -m tools.adherence.measure --count 512 --cfg 1 2 4 7`.

The rows, and what each counts:

- background, pattern: pictures of shapes whose prompt names the background;
- object colour, object shape: every shape that is asked for, in all pictures of shapes. Colour is right on
  whatever shape and shape in whatever colour; a shape too many makes one wrong;
- two objects: pictures of two different shapes, one asked to be left of or above the other, each with its own
  colour and shape ("bound"), and also in that relation ("in relation"); nothing else may be there;
- one in another: the same for a shape inside another;
- sky: scenes whose prompt says it;
- scene object: every thing asked for in a scene, of its kind and in its colour, wherever it stands;
- all right: pictures with nothing wrong that was asked.

Sizes and places are not judged.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Protocol, cast, get_args

import numpy as np
from PIL import Image

from core.scenes.scene import Shapes, Spec, Split, Thing
from tools.adherence.detector import Verdict, judge
from tools.adherence.prompts import Prompt, prompts

ROWS = {
    "background": "background colour",
    "pattern": "pattern",
    "color": "object colour",
    "shape": "object shape",
    "bound": "two objects, bound",
    "relation": "two objects, in relation",
    "inside": "one in another",
    "sky": "sky",
    "scene_object": "scene object",
    "right": "all right",
}


class Pictures(Protocol):
    """What a generation gives."""

    @property
    def images(self) -> list[Image.Image]: ...


class Model(Protocol):
    """What is measured: a Pipeline, or anything that draws a prompt."""

    def generate(self, **fields: Any) -> Pictures: ...


@dataclass(frozen=True)
class Share:
    """So many right of so many."""

    right: int
    count: int

    @property
    def percent(self) -> float:
        """NaN when nothing was counted."""
        return 100 * self.right / self.count if self.count else math.nan


Figures = Mapping[str, Share]
"""A Share for each of ROWS."""


def measure(
    model: Model,
    asked: Sequence[Prompt],
    *,
    cfg_scale: float | None = None,
    steps: int = 20,
    sampler: str = "ddim",
    seed: int = 0,
) -> Figures:
    """Draw every prompt once (the n-th with seed `seed` + n) and judge what it says.

    cfg_scale None leaves the scale to the model.
    """
    settings = {"steps": steps, "sampler": sampler, "cfg_scale": cfg_scale}
    verdicts = []
    for number, prompt in enumerate(asked):
        result = model.generate(prompt=prompt.text, seed=seed + number, **settings)
        verdicts.append((prompt.spec, judge(result.images[0], prompt.spec, prompt.stated)))
    return figures(verdicts)


def figures(verdicts: Iterable[tuple[Spec, Verdict]]) -> Figures:
    """The share that is right of each row."""
    marks: dict[str, list[bool]] = {row: [] for row in ROWS}
    for spec, verdict in verdicts:
        for row, values in _marks(spec, verdict).items():
            marks[row] += [value for value in values if value is not None]
    return {row: Share(sum(values), len(values)) for row, values in marks.items()}


def _marks(spec: Spec, verdict: Verdict) -> dict[str, Iterable[bool | None]]:
    if not isinstance(spec, Shapes):
        return {"sky": [verdict.sky], "scene_object": verdict.colors, "right": [verdict.right]}
    marks: dict[str, Iterable[bool | None]] = {
        "background": [verdict.background],
        "pattern": [verdict.pattern],
        "color": verdict.colors,
        "shape": verdict.kinds,
        "right": [verdict.right],
    }
    if spec.relation == "inside":
        marks["inside"] = [verdict.relation]
    elif verdict.relation is not None:
        marks |= {"bound": [verdict.bound], "relation": [verdict.relation]}
    return marks


@dataclass(frozen=True)
class Variety:
    """Pictures of one prompt: the smallest distance of two (RMS, 0..255), and how many of them are right."""

    closest: float
    right: Share


def variety(model: Model, prompt: Prompt, seeds: int = 16, **fields: Any) -> Variety:
    """Draw a prompt with seeds 0 to `seeds` - 1."""
    images = [model.generate(prompt=prompt.text, seed=seed, **fields).images[0] for seed in range(seeds)]
    verdicts = [judge(image, prompt.spec, prompt.stated).right for image in images]
    pixels = [np.asarray(image, np.float32) for image in images]
    closest = min(float(np.sqrt(((a - b) ** 2).mean())) for a, b in combinations(pixels, 2))
    return Variety(closest, Share(sum(verdicts), len(verdicts)))


# ---------------------------------------------------------------- command line

SPLITS: tuple[Split, ...] = get_args(Split)
VARIETY_PROMPT = Prompt(
    "a large red circle on a blue background",
    Shapes("blue", "plain", None, (Thing("circle", "red", "large"),)),
    frozenset({"background", "pattern", "pattern_color"}),
)


def main() -> None:
    options = _options()
    from core.inference.pipeline import Pipeline

    model = cast(Model, Pipeline.load(options.folder))
    runs = [(cfg, split) for cfg in options.cfg or [None] for split in options.split]
    results = {
        (cfg, split): measure(
            model, prompts(options.count, split, options.seed), cfg_scale=cfg, steps=options.steps,
            sampler=options.sampler, seed=options.seed,
        )
        for cfg, split in runs
    }  # fmt: skip
    varied = variety(model, VARIETY_PROMPT, steps=options.steps, sampler=options.sampler)
    print(as_json(results, varied) if options.json else as_table(results, varied))


def as_table(results: Mapping[tuple[float | None, str], Figures], varied: Variety) -> str:
    """Markdown, a column a run: percent, and of how many."""
    heads = [f"{split.replace('_', '-')}{'' if cfg is None else f', CFG {cfg:g}'}" for cfg, split in results]
    lines = ["| % | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    for row, title in ROWS.items():
        cells = [f"{figure.percent:.1f} (of {figure.count})" for figure in (f[row] for f in results.values())]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    right = f"{varied.right.right} of {varied.right.count} right"
    return "\n".join(
        [*lines, "", f"Variety, {VARIETY_PROMPT.text!r}: closest two {varied.closest:.1f}, {right}."]
    )


def as_json(results: Mapping[tuple[float | None, str], Figures], varied: Variety) -> str:
    runs = [
        {
            "cfg_scale": cfg,
            "split": split,
            "rows": {
                row: {"percent": f.percent if f.count else None, **asdict(f)} for row, f in shares.items()
            },
        }
        for (cfg, split), shares in results.items()
    ]
    return json.dumps({"runs": runs, "variety": asdict(varied)}, indent=2)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.adherence.measure", description="How well a model obeys."
    )
    parser.add_argument("--count", type=int, default=512, help="prompts of each split")
    parser.add_argument("--split", nargs="+", choices=SPLITS, default=list(SPLITS))
    parser.add_argument(
        "--cfg", nargs="+", type=float, help="guidance scales; the model's own when not given"
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--sampler", default="ddim")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the prompts and, from there on, of the pictures"
    )
    parser.add_argument("--folder", default="tiny", help="a model folder; the embedded model when not given")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
