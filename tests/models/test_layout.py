"""How a loaded network's maps lie in memory: channels last on a CPU, with the same numbers either way."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from core.inference.pipeline import Pipeline
from core.models.layers import ResnetBlock
from core.models.unet import SpatialTransformer
from tests.small import write_model

M = TypeVar("M", bound=nn.Module)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "small")


def channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


def contiguous(network: M) -> M:
    """A copy whose weights lie as files have them."""
    made = copy.deepcopy(network)
    for weight in made.parameters():
        weight.data = weight.data.contiguous()
    return made


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@torch.no_grad()
def test_every_map_of_a_loaded_network_has_its_channels_last(folder: Path, dtype: str) -> None:
    pipe = Pipeline.load(folder, device="cpu", dtype=dtype)
    seen: dict[str, bool] = {}

    def watch(name: str, layer: nn.Module) -> None:
        layer.register_forward_hook(lambda _layer, _given, out: seen.update({name: channels_last(out)}))

    for part in (pipe.unet, pipe.vae):
        for name, layer in part.named_modules():
            # The VAE's quant convolutions mix a latent's few channels: they are on either side of the change.
            if isinstance(layer, nn.Conv2d | nn.GroupNorm) and not name.endswith("quant_conv"):
                watch(f"{type(part).__name__}.{name}", layer)
    pipe.generate(prompt="a red circle", steps=1, seed=0)
    assert len(seen) > 40
    assert [name for name, last in seen.items() if not last] == []


@torch.no_grad()
def test_it_computes_what_it_computes_in_the_other_layout(folder: Path) -> None:
    pipe = Pipeline.load(folder, device="cpu", dtype="float32")
    plain = contiguous(pipe.unet)
    assert not channels_last(plain.conv_in.weight)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    context = torch.randn(2, 77, pipe.model.config.unet.cross_attention_dim)
    given = x, torch.tensor([20.0, 900.0]), context
    expected = plain(*given)
    assert float((pipe.unet(*given) - expected).norm() / expected.norm()) < 1e-5
    coder = contiguous(pipe.vae)
    expected = coder.decode(x)
    assert float((pipe.vae.decode(x) - expected).norm() / expected.norm()) < 1e-5


def test_samplers_and_encoders_give_the_usual_layout(folder: Path) -> None:
    pipe = Pipeline.load(folder, device="cpu")
    steps = pipe.generate(prompt="a red circle", steps=2, seed=0).steps
    assert all(step.x.is_contiguous() and step.denoised.is_contiguous() for step in steps)
    assert all(step.conditional.is_contiguous() for step in steps)
    assert pipe.encode(torch.rand(1, 3, 64, 64)).is_contiguous()


def test_float16_on_a_cpu_stays_as_the_file_has_it(folder: Path) -> None:
    pipe = Pipeline.load(folder, device="cpu", dtype="float16")
    assert pipe.unet.conv_in.weight.is_contiguous()


@torch.no_grad()
def test_maps_that_lie_plainly_stay_so(folder: Path) -> None:
    plain = contiguous(Pipeline.load(folder, device="cpu", dtype="float32").unet)
    seen: dict[str, bool] = {}
    for name, layer in plain.named_modules():
        if isinstance(layer, ResnetBlock | SpatialTransformer):
            layer.register_forward_hook(
                lambda _layer, _given, out, name=name: seen.update({name: out.is_contiguous()})
            )
    plain(torch.randn(2, 4, 8, 8), torch.tensor([20.0, 900.0]), torch.randn(2, 77, 16))
    assert len(seen) > 5
    assert [name for name, whole in seen.items() if not whole] == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_computed_in_place_is_nobody_elses(
    folder: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With gradients nothing is in place: the numbers are the same, and what was given is as it was."""
    monkeypatch.setattr("core.models.attention.FEW", 0)  # the same kernel with gradients as without
    pipe = Pipeline.load(folder, device="cpu", dtype=dtype)
    kind = pipe.dtype
    x, context = torch.randn(2, 4, 8, 8).to(kind), torch.randn(2, 77, 16).to(kind)
    times = torch.tensor([20.0, 900.0])
    expected, deep = pipe.unet.evaluate(x, times, context)
    part, _ = pipe.unet.evaluate(x, times, context, deep=deep)
    decoded, encoded = pipe.vae.decode(x), pipe.vae.encode(torch.ones(1, 3, 32, 32, dtype=kind))
    given = [each.clone() for each in (x, context, deep)]
    with torch.no_grad():
        for deeper, wanted in ((None, expected), (deep, part)):
            assert torch.equal(pipe.unet.evaluate(x, times, context, deep=deeper)[0], wanted)
        assert torch.equal(pipe.vae.decode(x), decoded)
        assert torch.equal(pipe.vae.encode(torch.ones(1, 3, 32, 32, dtype=kind)), encoded)
    assert all(torch.equal(a, b) for a, b in zip((x, context, deep), given, strict=True))
