"""What a run writes on TensorBoard, read back by TensorBoard; and nothing where that is not installed."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import IMAGES, EventAccumulator
from torch import Tensor, nn

from core.training.log import Log, read_lines
from core.training.training_loop import LoopSettings, train_stage

LOOP = LoopSettings(
    steps=200, batch=8, learning_rate=1e-2, save_every=45, measure_every=100, sample_every=100
)


class Killed(BaseException):
    pass


class Line:
    """A stage of one weight, which draws how large it is."""

    name = "line"

    def __init__(self, killed_at: int = -1) -> None:
        torch.manual_seed(0)
        self.modules: nn.Module = nn.Linear(1, 1)
        self.killed_at = killed_at

    def loss(self, step: int) -> Tensor:
        if step == self.killed_at:
            raise Killed
        x = torch.randn((8, 1), generator=torch.Generator().manual_seed(step))
        loss: Tensor = (self.modules(x) - x).square().mean()
        return loss

    def measure(self) -> dict[str, float]:
        return {"weight": round(float(next(self.modules.parameters()).detach()), 4)}

    def sample(self) -> list[Image.Image]:
        return [Image.new("L", (8, 8), round(255 * min(1.0, self.measure()["weight"] % 1)))]


def board(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder / "tensorboard" / "line"), size_guidance={IMAGES: 0})
    found.Reload()
    return found


def logged(folder: Path, name: str) -> list[tuple[int, float]]:
    return [(int(line["step"]), line[name]) for line in read_lines(folder / "line.jsonl") if name in line]


def test_tensorboard_shows_losses_figures_and_samples(tmp_path: Path) -> None:
    train_stage(Line(), LOOP, tmp_path, resume=False)
    shown = board(tmp_path)
    assert set(shown.Tags()["scalars"]) == {"loss", "weight"}
    for name in ("loss", "weight"):
        events = [(event.step, event.value) for event in shown.Scalars(name)]
        assert [step for step, _ in events] == [step for step, _ in logged(tmp_path, name)]
        assert [value for _, value in events] == pytest.approx([v for _, v in logged(tmp_path, name)])
    assert [step for step, _ in logged(tmp_path, "loss")] == [50, 100, 150, 200]
    drawn = shown.Images("samples")
    assert [event.step for event in drawn] == [100, 200]
    with (
        Image.open(io.BytesIO(drawn[1].encoded_image_string)) as there,
        Image.open(tmp_path / "samples" / "line-000200.png") as here,
    ):
        assert np.array_equal(np.asarray(there), np.asarray(here))


def test_a_resumed_run_is_one_curve(tmp_path: Path) -> None:
    """It is killed after step 105, and goes on from 90: nothing is there twice, on paper or on the board."""
    with pytest.raises(Killed):
        train_stage(Line(killed_at=105), LOOP, tmp_path, resume=False)
    assert [step for step, _ in logged(tmp_path, "loss")] == [50, 100]
    train_stage(Line(), LOOP, tmp_path, resume=True)
    shown = board(tmp_path)
    assert [event.step for event in shown.Scalars("loss")] == [50, 100, 150, 200]
    assert [event.step for event in shown.Scalars("weight")] == [100, 200]
    assert [event.step for event in shown.Images("samples")] == [100, 200]
    assert [step for step, _ in logged(tmp_path, "loss")] == [50, 100, 150, 200]


def test_without_tensorboard_the_rest_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    train_stage(Line(), LOOP, tmp_path, resume=False)
    assert not (tmp_path / "tensorboard").exists()
    assert [step for step, _ in logged(tmp_path, "loss")] == [50, 100, 150, 200]
    assert (tmp_path / "samples" / "line-000200.png").exists()


def test_a_log_of_another_process_writes_nothing(tmp_path: Path) -> None:
    log = Log(tmp_path / "line.jsonl", keep_below=0, writes=False)
    log.add(torch.ones(()))
    log.close()
    assert list(tmp_path.iterdir()) == []
