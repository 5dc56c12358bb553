"""What a training tells whoever watches: each loss, what was measured, where the samples are."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from core.errors import Cancelled
from core.training.progress import TrainingProgress
from core.training.samples import SIDE, apart, side_by_side
from core.training.stages.diffusion import attention_kernel
from core.training.training_loop import LoopSettings, train_stage

RED, BLUE = (255, 0, 0), (0, 0, 255)
LOOP = LoopSettings(steps=9, batch=1, learning_rate=1e-2, save_every=4, measure_every=3, sample_every=4)


class Slope:
    """A stage of one weight that can draw."""

    name = "slope"

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.modules: nn.Module = nn.Linear(1, 1)
        self.losses: list[float] = []

    def loss(self, step: int) -> Tensor:
        loss: Tensor = (self.modules(torch.ones(1, 1)) - step).square().mean()
        self.losses.append(float(loss.detach()))
        return loss

    def measure(self) -> dict[str, float]:
        return {"test_loss": 0.5}

    def sample(self) -> list[Image.Image]:
        return [Image.new("RGB", (8, 8), RED)]


def test_each_step_is_told_with_its_loss(tmp_path: Path) -> None:
    stage, told = Slope(), list[TrainingProgress]()
    train_stage(stage, LOOP, tmp_path, resume=False, watch=told.append)
    steps = [one for one in told if one.loss is not None]
    assert [one.done for one in steps] == list(range(1, 10))
    assert [float(one.loss) for one in steps if one.loss is not None] == stage.losses
    assert {(one.stage, one.steps) for one in told} == {("slope", 9)}
    assert not any(one.loss.requires_grad for one in steps if one.loss is not None)
    assert [(one.done, dict(one.figures)) for one in told if one.figures] == [
        (3, {"test_loss": 0.5}),
        (6, {"test_loss": 0.5}),
        (9, {"test_loss": 0.5}),
    ]
    samples = {one.done: one.samples for one in told if one.samples is not None}
    assert samples == {n: tmp_path / "samples" / f"slope-{n:06d}.png" for n in (4, 8, 9)}
    assert all(path.is_file() for path in samples.values())


def test_watching_changes_nothing(tmp_path: Path) -> None:
    for name in ("seen", "unseen"):
        (tmp_path / name).mkdir()
    seen = train_stage(Slope(), LOOP, tmp_path / "seen", resume=False, watch=lambda progress: None)
    unseen = train_stage(Slope(), LOOP, tmp_path / "unseen", resume=False)
    assert all(torch.equal(seen[key], unseen[key]) for key in seen)


def test_a_resumed_run_tells_from_where_it_goes_on(tmp_path: Path) -> None:
    stop, told = threading.Event(), list[TrainingProgress]()

    def watch(progress: TrainingProgress) -> None:
        told.append(progress)
        if progress.done == 5:
            stop.set()

    with pytest.raises(Cancelled, match=r"the training was stopped after step [56] of slope"):
        train_stage(Slope(), LOOP, tmp_path, resume=False, stop=stop, watch=watch)
    train_stage(Slope(), LOOP, tmp_path, resume=True, watch=told.append)
    assert [one.done for one in told if one.loss is not None] == list(range(1, 10))


def test_a_stage_without_pictures_tells_of_none(tmp_path: Path) -> None:
    class Blind(Slope):
        def sample(self) -> list[Image.Image]:
            return []

    told: list[TrainingProgress] = []
    train_stage(Blind(), replace(LOOP, steps=4), tmp_path, resume=False, watch=told.append)
    assert [one.samples for one in told if one.samples is not None] == []
    assert not (tmp_path / "samples").exists()


def test_the_two_sheets_come_apart_as_they_were_put_together(tmp_path: Path) -> None:
    sheets = [[Image.new("RGB", (16, 12), colour)] * 4 for colour in (RED, BLUE)]
    (tmp_path / "both.png").write_bytes(side_by_side(*sheets))
    with Image.open(tmp_path / "both.png") as whole:
        raw, averaged = apart(whole)
    assert raw.size == averaged.size == (SIDE, SIDE * 12 // 16)
    assert raw.getcolors() == [(raw.width * raw.height, RED)]
    assert averaged.getcolors() == [(raw.width * raw.height, BLUE)]


def test_beside_other_threads_the_kernel_of_attention_is_left_alone() -> None:
    def allowed() -> bool:
        with attention_kernel(torch.device("cpu")):
            return bool(torch.backends.cuda.flash_sdp_enabled())

    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(allowed()))
    thread.start()
    thread.join()
    assert found == [True]
    assert not allowed()
    assert torch.backends.cuda.flash_sdp_enabled()
