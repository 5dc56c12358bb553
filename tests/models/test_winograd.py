"""Convolutions by Winograd's way: the same numbers as the direct one's to rounding, taken where it pays."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.models.fast import winograd
from core.models.layers import Conv3x3, Upsample

Case = tuple[Tensor, Tensor, Tensor]


def case(channels: int, results: int, size: tuple[int, int] = (32, 32), batch: int = 1) -> Case:
    """Inputs and a convolution's weight and bias, so that results are about 1."""
    generator = torch.Generator().manual_seed(channels)
    x = torch.randn(batch, channels, *size, generator=generator)
    weight = torch.randn(results, channels, 3, 3, generator=generator) / (9 * channels) ** 0.5
    bias = torch.randn(results, generator=generator)
    return x.contiguous(memory_format=torch.channels_last), weight, bias


def exact(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x.double(), weight.double(), bias.double(), padding=1)


side = st.integers(1, 21)


@settings(max_examples=60, deadline=None)
@given(side, side, st.integers(1, 5), st.integers(1, 5), st.integers(1, 7), st.integers(1, 40))
def test_every_size_is_a_convolution(h: int, w: int, b: int, c: int, o: int, block: int) -> None:
    given = case(c, o, (h, w), b)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "CHUNK", 6)  # so that pictures go in groups of rows, and several at a time
        patch.setattr(winograd, "BLOCK", block)
        made = winograd.convolve(*given)
    assert torch.allclose(made.double(), exact(*given), atol=3e-5)
    assert made.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [256, 1280])
def test_little_is_lost(channels: int) -> None:
    given = case(channels, 32)
    error = (winograd.convolve(*given) - exact(*given)).square().mean().sqrt()
    assert error < 4e-6  # of results of about 1; less good points lose more


def test_it_is_taken_in_float32_where_channels_and_cells_are_many() -> None:
    x, weight, _ = case(256, 256)
    assert not winograd.suits(x, weight)  # a gradient may be wanted
    with torch.no_grad():
        assert winograd.suits(x, weight)
        assert not winograd.suits(x.bfloat16(), weight.bfloat16())
        assert not winograd.suits(x.to("meta"), weight.to("meta"))
        assert not winograd.suits(x[:, :, :28], weight)
        assert not winograd.suits(x[:, :255], weight[:, :255])
        assert not winograd.suits(x, weight[:3])


@pytest.mark.parametrize("layer", [Conv3x3(256, 256), Upsample(256)])
def test_layers_take_it(layer: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    x = case(256, 256)[0]
    with torch.no_grad():
        taken = layer(x)
        monkeypatch.setattr(winograd, "suits", lambda x, weight: False)
        direct = layer(x)
    assert not torch.equal(taken, direct)
    assert torch.allclose(taken, direct, atol=1e-4)
