"""Kept runs for the player's tests, made by the fake pipeline: what the real ones give, without torch."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from core import plugins
from core.errors import UserError
from core.images import Recipe
from core.request import Request, Settings
from tests.ui.fakes import Array, FakePipeline, FakeResult, to_image

if TYPE_CHECKING:
    from core.pipeline import Pipeline

VIEWS = ("clean", "noisy", "noise", "conditional", "unconditional", "difference")
OWNER = "someone"


@dataclass(frozen=True)
class FakeTrajectory:
    """The steps of a fake run, by the contract of core.trajectory."""

    result: FakeResult
    total: int
    stopped: bool = False
    words: str = ""

    @property
    def recipe(self) -> Recipe:
        return self.result.recipe

    @property
    def settings(self) -> Settings:
        return self.result.settings

    @property
    def steps(self) -> Sequence[Any]:
        return self.result.steps

    def views(self) -> list[str]:
        return list(VIEWS if self.steps[-1].unconditional is not None else VIEWS[:4])

    def latents(self, k: int, view: str = "clean", image: int = 0) -> Array:
        step = self.steps[k - 1]
        plain = step.conditional if step.unconditional is None else step.unconditional
        made = {
            "clean": step.denoised,
            "noisy": step.x / math.sqrt(1 + step.sigma**2),
            "noise": (step.x - step.denoised) / max(step.sigma, 0.1),
            "conditional": step.conditional,
            "unconditional": plain,
            "difference": step.conditional - plain,
        }[view]
        return np.asarray(made[image : image + 1], np.float32)

    def preview(self, k: int, view: str = "clean", image: int = 0) -> Image.Image:
        return to_image(self.latents(k, view, image)[0])

    def curves(self, image: int = 0) -> dict[str, list[float]]:
        count = range(1, len(self.steps) + 1)
        last = self.latents(len(self.steps), "clean", image)
        return {
            "sigma": [step.sigma for step in self.steps],
            "guidance": [size(self.latents(k, "difference", image)) for k in count],
            "distance": [size(self.latents(k, "clean", image) - last) for k in count],
        }


@dataclass(frozen=True)
class FakeKept:
    """A kept run."""

    id: str
    trajectory: Any
    settings: Settings
    pngs: Sequence[bytes]
    seconds: Mapping[str, float] = field(default_factory=dict)
    evals: int = 0
    stopped: bool = False
    saved: bool = True
    parent: str | None = None
    parent_step: int | None = None
    owner: str = OWNER

    @property
    def names(self) -> list[str]:
        return [f"{self.id}-{i}.png" for i in range(len(self.pngs))]

    def png(self, image: int) -> bytes:
        return self.pngs[image]

    def thumbnail(self, image: int) -> bytes:
        small = Image.open(io.BytesIO(self.pngs[image])).convert("RGB")
        small.thumbnail((96, 96))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG")
        return buffer.getvalue()


class FakeRuns:
    """Where they are kept."""

    def __init__(self, runs: Sequence[FakeKept]) -> None:
        self.runs = {run.id: run for run in runs}

    def open(self, owner: str, run_id: object) -> FakeKept:
        run = self.runs.get(str(run_id))
        if run is None or run.owner != owner:
            raise UserError("this run is gone; generate it again from its seed")
        return run

    def family(self, owner: str, run_id: str) -> Sequence[Any]:
        related = {self.open(owner, run_id).id}
        for _ in self.runs:  # as deep as can be
            related |= {run.id for run in self.runs.values() if run.parent in related}
            related |= {run.parent for run in self.runs.values() if run.id in related and run.parent}
        return [run for run in self.runs.values() if run.id in related]


@dataclass(frozen=True)
class FakeEngine:
    """A model that decodes."""

    pipeline: Any


class DecodingPipeline(FakePipeline):
    """The fake pipeline with what the player asks of one."""

    def decode(self, latents: Any) -> list[Image.Image]:
        return [to_image(one) for one in latents]


def pipeline() -> DecodingPipeline:
    return DecodingPipeline(plugins.registry())


def kept(
    run_id: str, request: Request, *, steps: bool = True, stopped_at: int | None = None, **fields: Any
) -> FakeKept:
    """A run of the fake model, kept. stopped_at: the step that it was stopped after."""
    run = pipeline().stream(request)
    made = list(run)
    run.steps = made[:stopped_at]
    result = replace(run.result(), seconds={"encode": 0.01, "denoise": 0.83, "decode": 0.05})
    return FakeKept(
        id=run_id,
        trajectory=FakeTrajectory(result, run.total, stopped_at is not None) if steps else None,
        settings=result.settings,
        pngs=result.pngs(),
        seconds=result.seconds,
        evals=len(run.steps),
        stopped=stopped_at is not None,
        **fields,
    )


def really_kept(
    model: Pipeline, run_id: str, request: Request, *, steps: bool = True, **fields: Any
) -> FakeKept:
    """A run of a real model, kept."""
    from core.trajectory import Trajectory

    run = model.stream(request)
    result = run.result()
    return FakeKept(
        id=run_id,
        trajectory=Trajectory.of(run) if steps else None,
        settings=result.settings,
        pngs=result.pngs(),
        seconds=result.seconds,
        evals=result.evals,
        **fields,
    )


PROMPT = "a red house on a snowy hill under a full moon"


def family(make: Callable[..., FakeKept] = kept) -> FakeRuns:
    """A run, two branches of it, one of a branch, one of other people, and some that are special."""
    first = Request(prompt=PROMPT, seed=7, steps=20, batch=3)
    other = replace(first, cfg_scale=9.0)
    return FakeRuns(
        [
            make("first", first),
            make("guided", other, parent="first", parent_step=8),
            make(
                "blue", replace(first, prompt=PROMPT.replace("red", "blue")), parent="first", parent_step=12
            ),
            make("deep", replace(other, seed=9), parent="guided", parent_step=14),
            make("theirs", replace(first, batch=1), owner="somebody else"),
            make("plain", replace(first, cfg_scale=1.0, width=192, batch=1)),
            make("bare", replace(first, batch=1), steps=False),
        ]
    )


def size(x: Array) -> float:
    """The root mean square."""
    return float(np.sqrt(np.mean(x**2)))
