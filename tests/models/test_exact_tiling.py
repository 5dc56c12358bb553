"""The VAE in exact tiles: the numbers of the whole picture, no seam, and a fraction of the memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.inference.pipeline import Pipeline
from core.models import vae
from core.models.config import VAEConfig
from core.models.fast import exact_tiling
from core.models.vae import AutoencoderKL
from core.weights.parts import laid_out
from tools.vae_memory import both

SMALL = VAEConfig(block_out_channels=(16, 24, 32, 32), norm_num_groups=8)


def network(dtype: torch.dtype = torch.float32, *, channels_last: bool = False) -> AutoencoderKL:
    """A VAE of four levels whose norms all do something."""
    torch.manual_seed(0)
    made = AutoencoderKL(SMALL)
    for weight in made.parameters():
        values = 1.5 * weight.data + (0.1 * torch.randn_like(weight) if weight.ndim == 1 else 0)
        weight.data = laid_out(values, torch.device("cpu"), dtype) if channels_last else values.to(dtype)
    return made.eval().requires_grad_(False)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that pictures of these tests take dozens of tiles, of 4 to 10 rows."""
    monkeypatch.setattr(vae, "LARGEST_WHOLE", 0)
    monkeypatch.setattr(exact_tiling, "WHOLE", 24 * 30 * 30)
    monkeypatch.setattr(exact_tiling, "TILE", 16 * 216 * 7)


def given(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A latent (1, 4, 33, 27) and a picture of the size that it has."""
    generator = torch.Generator().manual_seed(1)
    latent, picture = torch.randn(1, 4, 33, 27, generator=generator), torch.rand(1, 3, 264, 216)
    return (0.2 * latent).to(dtype), (2 * picture - 1).to(dtype)


@pytest.mark.parametrize("channels_last", [False, True])
@torch.no_grad()
def test_tiles_give_the_whole_picture(channels_last: bool, request: pytest.FixtureRequest) -> None:
    net = network(channels_last=channels_last)
    latent, picture = given(torch.float32)
    whole, latents = net.decode(latent), net.encode(picture)
    request.getfixturevalue("small_tiles")
    torch.testing.assert_close(net.decode(latent), whole, rtol=0, atol=2e-4)
    torch.testing.assert_close(net.encode(picture), latents, rtol=0, atol=2e-5)
    assert whole.std() > 0.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_in_half_precision_they_round_no_worse(dtype: torch.dtype, request: pytest.FixtureRequest) -> None:
    latent, _ = given(torch.float32)
    exact, net = network().decode(latent), network(dtype, channels_last=True)
    whole = (net.decode(latent.to(dtype)) - exact).abs().mean()
    request.getfixturevalue("small_tiles")
    assert (net.decode(latent.to(dtype)) - exact).abs().mean() < 1.1 * whole


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@torch.no_grad()
def test_no_seam_in_a_picture_of_the_embedded_model(dtype: str, request: pytest.FixtureRequest) -> None:
    pipe = Pipeline.load("tiny", device="cpu", dtype=dtype)
    latent = pipe.generate(prompt="a red house", steps=2, seed=1).steps[-1].x
    whole = pipe.vae.decode(latent.to(pipe.dtype)).float()
    request.getfixturevalue("small_tiles")
    error = 127.5 * (pipe.vae.decode(latent.to(pipe.dtype)).float() - whole).abs()  # in levels of 255
    assert error.mean() < 0.5
    rows = error.mean(dim=(0, 1, 3))  # a seam is a row that differs more than the others
    assert float(rows.max()) <= max(3 * float(rows.mean()), 1e-2)


@pytest.mark.usefixtures("small_tiles")
@torch.no_grad()
def test_a_batch_is_its_pictures() -> None:
    net, (latent, picture) = network(), given(torch.float32)
    assert torch.equal(net.decode(torch.cat([latent, -latent]))[1:], net.decode(-latent))
    assert torch.equal(net.encode(torch.cat([picture, -picture]))[1:], net.encode(-picture))


def test_the_size_decides() -> None:
    with torch.device("meta"):
        large, small = AutoencoderKL(VAEConfig()), AutoencoderKL(SMALL)
    with torch.no_grad():
        assert not large.tiled(512, 512)
        assert not large.tiled(768, 768)
        assert large.tiled(1024, 1024)
        assert large.tiled(768, 776)
        assert not small.tiled(1024, 1024)
    assert not large.tiled(1024, 1024)  # gradients need every map


@pytest.mark.parametrize(
    ("call", "shape", "most"),
    [("decode", (1, 4, 128, 128), 0.32), ("encode", (1, 3, 1024, 1024), 0.4)],
)
def test_stable_diffusion_at_1024_takes_a_fraction_of_the_memory(
    call: str, shape: tuple[int, ...], most: float
) -> None:
    tiled, whole = both(call, shape)
    assert tiled.peak < most * whole.peak
    assert tiled.operations < 1.5 * whole.operations
