"""Muon against what it is defined by: the orthogonal matrix that the singular value decomposition gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from core.training.muon import Muon, orthogonal
from core.training.training_loop import LoopSettings, train_stage

LOOP = LoopSettings(steps=60, batch=8, learning_rate=3e-2, optimizer="muon", save_every=20, warmup=1)


@pytest.mark.parametrize("shape", [(24, 24), (64, 16), (16, 96)])
def test_the_update_has_the_vectors_of_the_matrix_and_singular_values_near_one(
    shape: tuple[int, int],
) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    seen = u.T @ orthogonal(matrix) @ vh.T  # diagonal where the vectors are the same
    values = seen.diagonal()
    assert (seen - torch.diag(values)).abs().max() < 0.05
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_a_step_has_the_size_of_adams_whatever_the_gradients_size() -> None:
    for scale in (1e-6, 1.0, 1e6):
        weight = nn.Parameter(torch.zeros(32, 16, 3, 3))
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * scale
        Muon([weight], 1e-2).step()
        assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.2e-2, rel=0.3)


def test_biases_and_narrow_matrices_take_adams_steps() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(8, 4), nn.Linear(8, 4)
    theirs.load_state_dict(ours.state_dict())
    first = Muon(ours.parameters(), 1e-2)
    second = torch.optim.Adam(theirs.parameters(), 1e-2, betas=(0.9, 0.99))
    x = torch.randn(5, 8)
    for _ in range(4):
        for module, optimizer in ((ours, first), (theirs, second)):
            module(x).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)
    assert torch.allclose(ours.bias, theirs.bias, atol=1e-6)


class Fit:
    """A linear map to be found."""

    name = "fit"

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.modules: nn.Module = nn.Linear(32, 24)
        self.wanted = torch.randn(24, 32) / 6

    def loss(self, step: int) -> Tensor:
        x = torch.randn(64, 32, generator=torch.Generator().manual_seed(step))
        error: Tensor = (self.modules(x) - x @ self.wanted.T).square().mean()
        return error

    def measure(self) -> dict[str, float]:
        return {}


def test_it_trains_and_goes_on_from_a_checkpoint_bit_for_bit(tmp_path: Path) -> None:
    whole, parts = Fit(), Fit()
    before = float(whole.loss(0).detach())
    expected = train_stage(whole, LOOP, _made(tmp_path / "whole"), resume=False)
    folder = _made(tmp_path / "parts")

    class Killed(BaseException):
        pass

    good = parts.loss

    def loss(step: int) -> Tensor:
        if step == 45:
            raise Killed
        return good(step)

    parts.loss = loss  # pyrefly: ignore[method-assign]
    with pytest.raises(Killed):
        train_stage(parts, LOOP, folder, resume=False)
    resumed = train_stage(Fit(), LOOP, folder, resume=True)
    assert all(torch.equal(expected[key], resumed[key]) for key in expected)
    assert float(whole.loss(0).detach()) < before / 10


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
