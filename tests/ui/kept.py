"""Kept runs of the small model for the player's tests: a family of them, in memory."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from core.errors import UserError
from core.images.source_images import Inputs
from core.inference.trajectory import Trajectory
from core.plugins import current
from core.request.request import Request
from core.request.settings import Settings
from tests.ui.fakes import FakePipeline

OWNER = "someone"
PROMPT = "a red house on a snowy hill under a full moon"


@dataclass(frozen=True)
class FakeKept:
    """A kept run, as `ui.service.run_store` gives one."""

    id: str
    trajectory: Trajectory | None
    settings: Settings
    pngs: Sequence[bytes]
    seconds: Mapping[str, float] = field(default_factory=dict)
    evals: int = 0
    stopped: bool = False
    saved: bool = True
    parent: str | None = None
    parent_step: int | None = None
    owner: str = OWNER
    paths: Sequence[Path] = ()

    @property
    def names(self) -> list[str]:
        return [f"{self.id}-{i}.png" for i in range(len(self.pngs))]

    @property
    def steps(self) -> Trajectory:
        assert self.trajectory is not None
        return self.trajectory

    def inputs(self) -> Inputs | None:
        return None

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

    def open(self, owner: str, run: object) -> FakeKept:
        kept = self.runs.get(str(run))
        if kept is None or kept.owner != owner:
            raise UserError("this run is gone; generate it again from its seed")
        return kept

    def family(self, owner: str, run: str) -> Sequence[Any]:
        related = {self.open(owner, run).id}
        for _ in self.runs:  # as deep as can be
            related |= {kept.id for kept in self.runs.values() if kept.parent in related}
            related |= {kept.parent for kept in self.runs.values() if kept.id in related and kept.parent}
        return [kept for kept in self.runs.values() if kept.id in related]

    def covers(self, owner: str, runs: Sequence[str]) -> dict[str, bytes]:
        return {run: self.open(owner, run).thumbnail(0) for run in runs}


@dataclass(frozen=True)
class FakeEngine:
    """A model that decodes."""

    pipeline: Any


@cache
def pipeline() -> FakePipeline:
    """The small model, loaded once."""
    return FakePipeline(current.registry())


def kept(run_id: str, request: Request, *, steps: bool = True, **fields: Any) -> FakeKept:
    """A run, kept with its steps or without."""
    run = pipeline().stream(request)
    result = run.result()
    return FakeKept(
        id=run_id,
        trajectory=Trajectory.of(run) if steps else None,
        settings=result.settings,
        pngs=result.pngs(),
        seconds=result.seconds,
        evals=result.evals,
        stopped=run.stopped,
        **fields,
    )


def family(size: int = 64) -> FakeRuns:
    """A run, two branches of it, one of a branch, one of other people, and some that are special."""
    first = Request(prompt=PROMPT, seed=7, steps=20, batch=3, width=size, height=size)
    other = replace(first, cfg_scale=9.0)
    blue = replace(first, prompt=PROMPT.replace("red", "blue"))
    return FakeRuns(
        [
            kept("first", first),
            kept("guided", other, parent="first", parent_step=8),
            kept("blue", replace(blue, batch=1), parent="first", parent_step=12),
            kept("deep", replace(other, seed=9, batch=1), parent="guided", parent_step=14),
            kept("theirs", replace(first, batch=1), owner="somebody else"),
            kept("plain", replace(first, cfg_scale=1.0, width=size + 64, batch=1)),
            kept("bare", replace(first, batch=1), steps=False),
            kept("stopped", replace(first, batch=1, stop_after=9)),
        ]
    )


def decoded(uri: str) -> bytes:
    """The bytes in a data address."""
    return base64.b64decode(uri.split(",")[1])


def rms(x: Tensor) -> float:
    """The root mean square."""
    return float(x.square().mean().sqrt())
