"""Verify that a run can be reproduced: step by step if its steps are saved, else by its image."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor

from core.recipes.recipe import PluginRef, Recipe
from core.request.request import Request

if TYPE_CHECKING:
    from core.images.source_images import ImageSource
    from core.inference.pipeline import Pipeline
    from core.inference.run import Run
    from core.inference.trajectory import Trajectory
    from core.request.settings import Settings


@dataclass(frozen=True)
class StepCheck:
    """One step that was run again, counted from 1; 0 is the start.

    difference: the largest absolute one of the states, 0 if bit-identical; None if no steps were saved.
    """

    step: int
    sigma: float
    difference: float | None


@dataclass(frozen=True)
class SetUp:
    """A change in the set-up since the run."""

    name: str
    then: str
    now: str

    def __str__(self) -> str:
        return f"{self.name} {self.then or 'unknown'}, now {self.now or 'unknown'}"


@dataclass(frozen=True)
class Verdict:
    """The result of running a recipe again.

    steps: how many were compared, 0 if none were saved. first: the first one that differs. last: the largest
    difference in the last step. pixels: how many pixels of the image differ, by at most `levels` of 255; None
    if it was not compared. setup: what changed since the run.
    """

    steps: int
    first: StepCheck | None
    last: float
    pixels: int | None
    levels: int
    setup: tuple[SetUp, ...]

    @property
    def identical(self) -> bool:
        """Whether everything that was compared is bit-identical."""
        return self.first is None and not self.pixels

    @property
    def words(self) -> str:
        """The verdict in a sentence or two."""
        if self.identical:
            what = [_count(self.steps, "step")] if self.steps else []
            what += [] if self.pixels is None else ["the image"]
            return f"identical: {' and '.join(what)}, to the bit."
        reasons = "; ".join(map(str, self.setup)) or (
            "nothing recorded; another processor or number of threads may be the cause"
        )
        return f"{'; '.join(self._differences())}. Changed since: {reasons}."

    def _differences(self) -> Iterator[str]:
        if self.first is not None:
            where = "the start" if self.first.step == 0 else f"step {self.first.step}"
            by = f"by {_by(self.first.difference or 0.0)}; in the end by {_by(self.last)}"
            yield f"differs from {where} on (sigma {self.first.sigma:.3g}, {by})"
        if self.pixels == 0:
            yield "every pixel of the image is the same"
        elif self.pixels is not None:
            verb = "differs" if self.pixels == 1 else "differ"
            yield f"{_count(self.pixels, 'pixel')} of the image {verb}, by at most {self.levels} of 255"

    def to_dict(self) -> dict[str, Any]:
        """Everything by name, ready for JSON."""
        first = self.first
        return {
            "identical": self.identical,
            "steps": self.steps,
            "first_difference": None
            if first is None
            else {"step": first.step, "sigma": first.sigma, "difference": _finite(first.difference)},
            "last_difference": _finite(self.last),
            "pixels": self.pixels,
            "levels": self.levels,
            "setup": [{"name": one.name, "then": one.then, "now": one.now} for one in self.setup],
            "words": self.words,
        }


class Verification:
    """A run repeated and compared with the saved one: an iterator of StepChecks; `verdict` runs the rest.

    total: the number of checks. Raises what the run raises: Cancelled and UserError.
    """

    def __init__(
        self, run: Run, then: Recipe, trajectory: Trajectory | None, picture: Image.Image | None
    ) -> None:
        self.run, self.total = run, run.total + 1
        self._then, self._trajectory, self._picture = then, trajectory, picture
        self._first: StepCheck | None = None
        self._last: StepCheck | None = None
        self._count = 0
        self._checks = self._check()

    def __iter__(self) -> Iterator[StepCheck]:
        return self

    def __next__(self) -> StepCheck:
        check = next(self._checks)
        self._count += check.difference is not None
        if check.difference and self._first is None:
            self._first = check
        self._last = check
        return check

    def verdict(self) -> Verdict:
        """Run the remaining steps and return the verdict."""
        for _ in self:
            pass
        pixels, levels = (None, 0) if self._picture is None else self._pixels(self._picture)
        last = 0.0 if self._last is None else self._last.difference or 0.0
        return Verdict(max(self._count - 1, 0), self._first, last, pixels, levels, self._setup())

    def _check(self) -> Iterator[StepCheck]:
        begun = False
        for step in self.run:
            if not begun and self.run.start is not None:
                begun = True
                yield StepCheck(0, self.run.sigmas[0], self._difference(self.run.start, 0))
            yield StepCheck(step.index + 1, step.sigma, self._difference(step.x, step.index + 1))
        trajectory = self._trajectory
        made = self.run.steps[-1].index + 1
        if trajectory is not None and len(trajectory.steps) > made:  # an adaptive sampler took fewer
            yield StepCheck(made + 1, trajectory.sigma(made + 1), math.inf)

    def _difference(self, state: Tensor, k: int) -> float | None:
        if self._trajectory is None:
            return None
        if k > len(self._trajectory.steps):
            return math.inf
        wanted, made = self._trajectory.state(k), state.cpu()
        if made.equal(wanted):
            return 0.0
        largest = float((made - wanted).abs().max())
        # They differ, even if NaN hides by how much.
        return largest if largest > 0 else math.inf

    def _pixels(self, picture: Image.Image) -> tuple[int, int]:
        """How many pixels differ, and by how many levels at most."""
        made = self.run.result().images[0]
        if made.size != picture.size:
            return picture.width * picture.height, 255
        a, b = (np.asarray(image.convert("RGB")).astype(np.int16) for image in (made, picture))
        off = np.abs(a - b)
        return int((off.max(axis=2) > 0).sum()), int(off.max())

    def _setup(self) -> tuple[SetUp, ...]:
        return tuple(differences(self._then, self.run.model.recipe(self._then.settings)))


def verify(
    pipeline: Pipeline,
    kept: Trajectory | Recipe,
    *,
    picture: Image.Image | None = None,
    image: ImageSource | None = None,
    mask: ImageSource | None = None,
    cancel: threading.Event | None = None,
) -> Verification:
    """Run a recipe again, all images of its batch, and compare its steps, and its first image to `picture`.

    image, mask: the run's init image and mask. Raises UserError if they are missing, and for a recipe that
    cannot be run here.
    """
    trajectory, recipe = (None, kept) if isinstance(kept, Recipe) else (kept, kept.recipe)
    settings: Settings = recipe.settings if trajectory is None else trajectory.settings
    run = pipeline.stream(
        Request.from_settings(settings), image=image, mask=mask, cancel=cancel, keep_steps=False
    )
    return Verification(run, recipe, trajectory, picture)


def differences(then: Recipe, now: Recipe) -> Iterator[SetUp]:
    """The differences between the set-ups of two recipes."""
    pairs = {
        "model": (then.model.name, now.model.name) if then.model.sha256 != now.model.sha256 else ("", ""),
        "model hash": (then.model.sha256[:10], now.model.sha256[:10]),
        "VAE hash": (then.model.vae_sha256[:10], now.model.vae_sha256[:10]),
        "averaged weights": (str(then.model.ema).lower(), str(now.model.ema).lower()),
        "device": (then.device, now.device),
        "dtype": (then.dtype, now.dtype),
        "sampler's plugin": (_plugin(then.plugin), _plugin(now.plugin)),
        "schedule's plugin": (_plugin(then.schedule_plugin), _plugin(now.schedule_plugin)),
    }
    for name in sorted({*then.versions, *now.versions}):
        pairs[name] = (then.versions.get(name, ""), now.versions.get(name, ""))
    for name, (before, after) in pairs.items():
        if before != after:
            yield SetUp(name, before, after)


def _plugin(plugin: PluginRef) -> str:
    return f"{plugin.name} {plugin.version}".strip()


def _by(difference: float) -> str:
    return f"{difference:.2g}" if math.isfinite(difference) else "an infinite amount"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _finite(value: float | None) -> float | None:
    """JSON has no infinity."""
    return value if value is not None and math.isfinite(value) else None
