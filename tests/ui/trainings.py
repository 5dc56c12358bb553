"""What the tests of training from the page share: a trainer of small models, its view, waiting for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from torch import Tensor

from core.plugins import current
from core.training.stages.diffusion import DiffusionStage
from core.weights import find
from tests.ui.fakes import in_blocks
from tests.ui.recipes import small_points
from ui.page.tabs.learn.tab import LearnTab
from ui.page.tabs.learn.train import Train
from ui.service import trainings
from ui.service.trainings import Trainer, Training

ME, GUEST = SimpleNamespace(guest=False), SimpleNamespace(guest=True)
FIGURE, NOTICE, TRAIN, STOP, GO_ON, USE, LEFT = 0, 2, 3, 4, 5, 6, 7
Loss = Callable[[DiffusionStage, int], Tensor]


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trainer]:
    """Trains small models, in a current folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(find, "MODELS", tmp_path / "models")
    small = small_points(tmp_path)
    monkeypatch.setattr(trainings, "recipe_path", lambda recipe: small)
    made = Trainer(lambda: "cpu")
    yield made
    made.close()
    assert made.current is None or not made.current.going


@pytest.fixture
def view(trainer: Trainer) -> Train:
    def build() -> Train:
        jobs: Any = SimpleNamespace(engine=None)
        tab = LearnTab(jobs, current.registry(), trainer, lambda request: request.guest)
        with gr.Tab("learn") as outer:
            tab.build()
        tab.connect(gr.State("me"), outer.select, lambda owner: None)  # pyrefly: ignore[bad-argument-type]
        return tab.train

    return in_blocks(build)


def until(seen: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < end
        time.sleep(0.01)


def ended(trainer: Trainer) -> Training:
    until(lambda: trainer.current is not None and not trainer.current.going)
    assert trainer.current is not None
    return trainer.current


def steps_done(trainer: Trainer) -> int:
    stages = trainer.current.stages if trainer.current else {}
    return stages["unet"].done if "unet" in stages else 0


def collected(events: AsyncIterator[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    async def collect() -> list[tuple[Any, ...]]:
        return [told async for told in events]

    return asyncio.run(collect())


def begun(view: Train, steps: Any = 6, density: str = "moons", who: Any = ME) -> list[tuple[Any, ...]]:
    return collected(view.on_start(False, who, "points", steps, density))


def slow(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.05) -> None:
    """Steps that leave time to look."""
    real = DiffusionStage.loss

    def loss(stage: DiffusionStage, step: int) -> Tensor:
        time.sleep(seconds)
        return real(stage, step)

    losing(monkeypatch, loss)


def losing(monkeypatch: pytest.MonkeyPatch, loss: Loss) -> None:
    monkeypatch.setattr(DiffusionStage, "loss", loss)
