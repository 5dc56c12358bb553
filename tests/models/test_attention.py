"""Attention by chunks of queries: the same to rounding, taken where it was found to be faster, for good."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from core import cache_folder
from core.models import attention as module
from core.models.attention import CHUNK, LEAST, attention, chunked


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and a process that has met no shape yet, on a processor with bfloat16."""
    monkeypatch.setattr(cache_folder, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(module, "chosen", {})
    monkeypatch.setattr(module, "has_bfloat16", lambda device: True)
    return tmp_path / "cache" / module.FILE


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What is measured from now on: the next one each time; those that were asked for are gone."""
    answers: list[bool] = []
    monkeypatch.setattr(module, "chunks_are_faster", lambda q, k, v: answers.pop(0))
    return answers


def qkv(n: int, *, width: int = 40, heads: int = 2, dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
    """As the UNet gives them: views of (B, N, heads, D)."""
    generator = torch.Generator().manual_seed(n)
    drawn = torch.randn(3, 2, n, heads, width, generator=generator).to(dtype)
    return [each.transpose(1, 2) for each in drawn]


@pytest.mark.parametrize("n", [1, CHUNK, 2 * CHUNK + 3])
@pytest.mark.parametrize("width", [40, 160])
def test_chunks_are_attention(n: int, width: int) -> None:
    q, k, v = qkv(n, width=width, dtype=torch.float32)
    exact = F.scaled_dot_product_attention(q, k, v)
    assert torch.allclose(chunked(q, k, v), exact, atol=1e-5)
    half = chunked(*(each.bfloat16() for each in (q, k, v)))
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).norm() < 0.01 * exact.norm()
    assert half.transpose(1, 2).is_contiguous()


def test_the_faster_way_is_taken_and_kept_for_good(cache: Path, asked: list[bool]) -> None:
    q, k, v = qkv(LEAST)
    kernel = F.scaled_dot_product_attention(q, k, v)
    asked[:] = [True]
    with torch.no_grad():
        assert torch.equal(attention(q, k, v), chunked(q, k, v))
        assert torch.equal(attention(q, k, v), chunked(q, k, v))  # not measured again
        module.chosen.clear()  # as in another process
        assert torch.equal(attention(q, k, v), chunked(q, k, v))
        asked[:] = [False]
        q, k, v = qkv(LEAST, width=80)
        assert torch.equal(attention(q, k, v), F.scaled_dot_product_attention(q, k, v))
    q, k, v = qkv(LEAST)
    assert not torch.equal(kernel, chunked(q, k, v))
    [shapes] = json.loads(cache.read_text()).values()
    assert sorted(shapes.values()) == [False, True]
    assert asked == []


@pytest.mark.parametrize("text", ["", "[1]", '{"here": 3}', '{"x": {"y": "z"}}', "\x00"])
def test_a_damaged_cache_is_measured_anew(cache: Path, asked: list[bool], text: str) -> None:
    cache.parent.mkdir()
    cache.write_text(text)
    asked[:] = [True]
    with torch.no_grad():
        attention(*qkv(LEAST))
    assert asked == []
    module.chosen.clear()
    with torch.no_grad():
        attention(*qkv(LEAST))  # kept now


def test_a_cache_that_cannot_be_written_is_done_without(cache: Path, asked: list[bool]) -> None:
    cache.parent.write_text("a file where the folder should be")
    asked[:] = [True]
    with torch.no_grad():
        assert attention(*qkv(LEAST)).shape == (2, 2, LEAST, 40)
    assert asked == []


@pytest.mark.parametrize(
    "change",
    [
        lambda q, k, v: (q.float(), k.float(), v.float()),
        lambda q, k, v: (q[:, :, : LEAST - 1], k, v),
        lambda q, k, v: (q, k[:, :, :77], v[:, :, :77]),
    ],
    ids=["float32", "few positions", "text"],
)
def test_elsewhere_it_is_torchs_and_nothing_is_measured(
    asked: list[bool], change: Callable[..., tuple[Tensor, Tensor, Tensor]]
) -> None:
    q, k, v = change(*qkv(LEAST))
    with torch.no_grad():
        assert torch.equal(attention(q, k, v), F.scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize("positions", [48, LEAST])  # by plain products; by torch's kernel
@pytest.mark.parametrize("is_causal", [False, True])
def test_gradients_are_torchs(asked: list[bool], positions: int, is_causal: bool) -> None:
    q, k, v = (each.double().requires_grad_() for each in qkv(positions))
    ours = torch.autograd.grad(attention(q, k, v, is_causal=is_causal).square().sum(), (q, k, v))
    kernel = F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
    for found, expected in zip(ours, torch.autograd.grad(kernel.square().sum(), (q, k, v)), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("slow_one", ["chunks", "kernel"])
def test_it_is_really_timed(slow_one: str) -> None:
    """Which is faster depends on the machine; that a slow way loses does not."""
    q, k, v = qkv(64)

    def slow(*few: Tensor) -> None:
        time.sleep(0.2)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        if slow_one == "chunks":
            patch.setattr(module, "chunked", slow)
        else:
            patch.setattr(F, "scaled_dot_product_attention", slow)
        assert module.chunks_are_faster(q, k, v) == (slow_one == "kernel")
