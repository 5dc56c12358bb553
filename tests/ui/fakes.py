"""A small model for the page's tests: the real pipeline, with networks so small that a run takes a moment.

Its pictures are colours without a meaning, deterministic as ever; `delay` makes each evaluation take longer.
"""

from __future__ import annotations

import asyncio
import atexit
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
import numpy as np
from PIL import Image

from core.inference.pipeline import Pipeline
from core.request.model_defaults import Defaults
from core.sampling.registry import Registry
from core.weights.layouts.model_folder import SUBJECTS
from tests.small import write_model
from ui.app import no_application
from ui.service.job_queue import Jobs
from ui.service.model_thread import ModelThread
from ui.service.run_store import RunStore

T = TypeVar("T")
KNOWN = {"a", "red", "blue", "green", "circle", "star", "house", "on", "hill", "under", "the", "moon"}


@dataclass(frozen=True)
class FakeTokens:
    used: int
    limit: int
    unknown: tuple[str, ...]
    chunks: int = 1
    nearest: Mapping[str, Sequence[str]] = field(default_factory=dict)


@cache
def small_model() -> Path:
    """The folder of the model, written once."""
    folder = Path(tempfile.mkdtemp(prefix="latentcanvas-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    model = write_model(folder / "small")
    sheet = np.repeat(np.array([(220, 0, 0), (240, 200, 0), (0, 160, 0)], np.uint8), 8 * 8, axis=0)
    Image.fromarray(sheet.reshape(3 * 8, 8, 3)).save(model / SUBJECTS)
    return model


class FakePipeline(Pipeline):
    """The small model with defaults, examples and words of its own."""

    def __init__(self, registry: Registry | None = None, delay: float = 0.0) -> None:
        made = Pipeline.load(small_model(), device="cpu", dtype="float32")
        super().__init__(made.model)
        self.model.name, self.delay = "fake", delay
        self.model.defaults = Defaults(
            sampler="ddim", schedule="leading", steps=20, cfg_scale=5.0, width=128, height=128
        )
        self.model.examples = (
            "a red circle on a blue background",
            "a house on a green hill under the moon",
            "a yellow star",
        )
        self.model.notes = replace(self.model.notes, subjects=("a red circle", "a star", "on a hill"))
        self.unet.register_forward_pre_hook(lambda *_: time.sleep(self.delay))

    def tokens(self, prompt: str) -> Any:
        words = prompt.lower().split()
        return FakeTokens(len(words) + 2, 77, tuple(word for word in words if word not in KNOWN))


def loaded(pipeline: Pipeline) -> ModelThread:
    engine = ModelThread(lambda name: pipeline)
    engine.start()
    assert engine.wait(60)
    return engine


def jobs_of(pipeline: Pipeline, outputs: Path) -> Jobs:
    return Jobs(loaded(pipeline), RunStore(outputs))


def in_blocks(build: Callable[[], T]) -> T:
    """Make components inside a running event loop, as without one Gradio makes two that it never closes; and
    without the web application that it makes of each page.
    """

    async def inside() -> T:
        with no_application(), gr.Blocks():
            return build()

    return asyncio.run(inside())
