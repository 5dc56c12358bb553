"""How well a model paints the storybook: `python -m tools.storybook.measure --count 512`.

The rows, and what each counts:

- noun: prompts for one thing; the thing that fills most is the one that was asked for;
- background, place: the colour behind it, by the picture's edge; the kind of scene, where the prompt says it;
- hour: where the prompt says it;
- both: prompts for two things; these two fill most; sides: and each is on the side that was asked for;
- shape, colour: prompts for one shape; on a plain background its colour, by the pixels that are unlike that;
- edges: the steepest decile of gradients, by that of the drawn images of the same prompts.

A network that was trained on drawn images reads the pictures (tools/storybook/reader.py).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.scenes.backdrops import PLACES
from core.scenes.painter import Painter
from core.scenes.scene import COLORS
from core.scenes.storybook_scene import StorybookSpec
from tools.storybook.prompts import GROUPS, Prompt, prompts
from tools.storybook.reader import Reading, read, reader

EDGE = 12  # pixels of the border that say the background's colour
UNLIKE = 60.0  # of 441, how far a pixel is from the background's colour to be of something else


class Model(Protocol):
    """What is measured: a Pipeline, or anything that paints a prompt."""

    def generate(self, **fields: Any) -> Any: ...


@dataclass
class Figures:
    """Of each row, what was right."""

    marks: dict[str, list[bool]] = field(default_factory=dict)
    edges: list[tuple[float, float]] = field(default_factory=list)

    def add(self, row: str, right: bool) -> None:
        self.marks.setdefault(row, []).append(right)

    def percent(self) -> dict[str, float]:
        """Of each row; the edges as a part of the drawn ones'."""
        shares = {row: round(100 * float(np.mean(marks)), 1) for row, marks in self.marks.items()}
        if self.edges:
            painted, drawn = np.mean(self.edges, axis=0)
            shares["edges"] = round(float(painted / drawn), 3)
        return shares


def nearest(color: NDArray[Any]) -> str:
    """The name of the colour that is nearest."""
    return min(COLORS, key=lambda name: float(np.square(color - np.array(COLORS[name])).sum()))


def background(image: Image.Image) -> str:
    """The colour of the picture's border."""
    pixels = np.asarray(image.convert("RGB"), float)
    border = np.concatenate([pixels[:EDGE].reshape(-1, 3), pixels[-EDGE:].reshape(-1, 3)])
    return nearest(np.median(border, axis=0))


def foreground(image: Image.Image) -> str:
    """The colour of what is unlike the border."""
    pixels = np.asarray(image.convert("RGB"), float).reshape(-1, 3)
    behind = np.median(pixels[: EDGE * image.width], axis=0)
    other = pixels[np.linalg.norm(pixels - behind, axis=1) > UNLIKE]
    return nearest(np.median(other, axis=0)) if len(other) else nearest(behind)


def steepness(image: Image.Image) -> float:
    """The mean of the steepest decile of differences between neighbours."""
    grey = np.asarray(image.convert("L"), float)
    steps = np.concatenate([np.abs(np.diff(grey, axis=axis)).ravel() for axis in (0, 1)])
    return float(np.sort(steps)[-len(steps) // 10 :].mean())


def judge(figures: Figures, group: str, prompt: Prompt, image: Image.Image, reading: Reading) -> None:
    """Count one picture."""
    spec = prompt.spec
    asked = [item.kind for item in spec.items]
    found = reading.found(len(asked))
    if group in ("one", "held_out"):
        figures.add(f"{group}: noun", found[:1] == asked)
        if prompt.ground and spec.ground in PLACES:
            figures.add(f"{group}: place", reading.ground == spec.ground)
        elif prompt.ground and spec.pattern == "plain":
            figures.add(f"{group}: background", background(image) == spec.ground)
        if prompt.hour and spec.is_scene and len(PLACES[spec.ground].hours) > 1:
            figures.add(f"{group}: hour", reading.hour == spec.hour)
    elif group == "two":
        both = set(found) == set(asked)
        figures.add("two: both", both)
        if prompt.sides:
            figures.add("two: sides", both and _in_relation(spec, reading))
    else:
        figures.add("shape", found[:1] == asked)
        if spec.pattern == "plain":  # dots are unlike the background too
            figures.add("colour", foreground(image) == spec.items[0].color)


def _in_relation(spec: StorybookSpec, reading: Reading) -> bool:
    first, second = (reading.middle(item.kind) for item in spec.items)
    axis = 1 if spec.relation == "above" else 0
    return first[axis] < second[axis]


def measure(
    model: Model, asked: Mapping[str, Sequence[Prompt]], *, judge_file: str = "", **settings: Any
) -> Figures:
    """Paint every prompt once (the n-th of a group with seed n) and judge it."""
    figures, painter, network = Figures(), Painter(), reader(judge_file)
    for group, group_prompts in asked.items():
        for number, prompt in enumerate(group_prompts):
            image = model.generate(prompt=prompt.text, seed=number, **settings).images[0]
            judge(figures, group, prompt, image, read(network, [image])[0])
            drawn = Image.fromarray(painter.image(prompt.spec))
            figures.edges.append((steepness(image), steepness(drawn)))
    return figures


def drawn_share(count: int, judge_file: str = "") -> dict[str, float]:
    """How well the reader reads drawn images: what is judged, of what cannot be better."""
    figures, painter, network = Figures(), Painter(), reader(judge_file)
    for group in GROUPS:
        for prompt in prompts(group, count, seed=1):
            image = Image.fromarray(painter.image(prompt.spec))
            judge(figures, group, prompt, image, read(network, [image])[0])
    return figures.percent()


def table(columns: dict[str, dict[str, float]]) -> str:
    """Markdown."""
    rows: Iterable[str] = dict.fromkeys(row for column in columns.values() for row in column)
    lines = ["| % | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for row in rows:
        lines.append(f"| {row} | " + " | ".join(str(c.get(row, "")) for c in columns.values()) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.storybook.measure")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--count", type=int, default=512, help="prompts of each group")
    parser.add_argument("--judge", default="", help="a file to keep the trained reader in")
    parser.add_argument("--set", nargs="*", default=[], help="settings as NAME=VALUE, such as cfg_scale=3")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    from core.inference.pipeline import Pipeline

    settings = {name: json.loads(value) for name, _, value in (text.partition("=") for text in options.set)}
    asked = {group: prompts(group, options.count) for group in GROUPS}
    columns = {
        "drawn": drawn_share(options.count, options.judge),
        "painted": measure(
            Pipeline.load(options.model), asked, judge_file=options.judge, **settings
        ).percent(),
    }
    print(json.dumps(columns, indent=2) if options.json else table(columns))


if __name__ == "__main__":
    main()
