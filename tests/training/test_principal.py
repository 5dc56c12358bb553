"""The encoder that is computed: exactly the principal components of blocks of pixels, in an ordinary VAE."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core.errors import UserError
from core.models.config import VAEConfig
from core.models.vae import AutoencoderKL
from core.scenes.pool import Pool, to_tensor
from core.training.stages.autoencoder import VAELoss, VAEStage, initialise
from core.training.stages.principal import BlockEncoder, block_map, set_principal_encoder
from core.training.training_loop import LoopSettings, train_stage

CONFIG = VAEConfig(
    block_out_channels=(16, 48, 64, 96), layers_per_block=1, latent_channels=16, norm_num_groups=8
)
SPREAD = 0.05


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    pool = Pool(5, "seen", 64, 64)
    return to_tensor(np.stack([pool.picture(i) for i in range(pool.count)]))


@pytest.fixture(scope="module")
def vae(pictures: Tensor) -> AutoencoderKL:
    torch.manual_seed(0)
    vae = AutoencoderKL(CONFIG)
    initialise(vae)
    set_principal_encoder(vae, pictures, SPREAD)
    return vae.requires_grad_(False)


def blocks(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N * H/8 * W/8, 192) in double precision."""
    n, c, h, w = pictures.shape
    cut = pictures.view(n, c, h // 8, 8, w // 8, 8).permute(0, 2, 4, 1, 3, 5)
    return cut.reshape(-1, c * 64).double()


def cells(latents: Tensor) -> Tensor:
    return latents.permute(0, 2, 3, 1).flatten(0, 2).double()


def test_it_is_affine_in_the_pixels(vae: AutoencoderKL, pictures: Tensor) -> None:
    one, other = pictures[:8], pictures[8:16]
    mixed = vae.moments(0.3 * one + 0.7 * other)[0]
    torch.testing.assert_close(
        mixed, 0.3 * vae.moments(one)[0] + 0.7 * vae.moments(other)[0], rtol=0, atol=5e-3
    )


def test_it_keeps_as_much_as_the_best_linear_map(vae: AutoencoderKL, pictures: Tensor) -> None:
    """The components of a pyramid of 2x2 cells are those of the block but for what its levels dropped."""
    pixels = blocks(pictures)
    spectrum = torch.linalg.eigvalsh(torch.cov(pixels.T)).flip(0)
    kept = torch.cov(cells(vae.moments(pictures)[0]).T).trace()
    assert float(kept / spectrum[: CONFIG.latent_channels].sum()) == pytest.approx(1, abs=0.01)


def test_channels_are_uncorrelated_the_widest_first(vae: AutoencoderKL, pictures: Tensor) -> None:
    covariance = torch.cov(cells(vae.moments(pictures)[0]).T)
    widths = covariance.diagonal().sqrt()
    correlation = covariance / widths[:, None] / widths[None]
    assert float((correlation - torch.eye(16)).abs().max()) < 0.01
    assert bool((widths[:-1] > 0.99 * widths[1:]).all())


def test_a_cell_knows_its_own_block_alone(vae: AutoencoderKL, pictures: Tensor) -> None:
    changed = pictures[:1].clone()
    changed[:, :, 16:24, 24:32] = 1 - changed[:, :, 16:24, 24:32]
    moved = (vae.moments(changed)[0] - vae.moments(pictures[:1])[0]).abs().amax(dim=(0, 1))
    assert float(moved[2, 3]) > 1
    moved[2, 3] = 0
    assert float(moved.max()) < 5e-3


def test_q_is_as_wide_as_asked(vae: AutoencoderKL, pictures: Tensor) -> None:
    mean, log_variance = vae.moments(pictures)
    deviation = float(torch.exp(0.5 * log_variance).mean())
    assert deviation == pytest.approx(SPREAD * float(cells(mean).std(0).square().mean().sqrt()), rel=0.01)


def test_half_precision_weights_give_the_same_latents(vae: AutoencoderKL, pictures: Tensor) -> None:
    """They are stored so."""
    stored = AutoencoderKL(CONFIG)
    stored.load_state_dict({key: value.half().float() for key, value in vae.state_dict().items()})
    with torch.no_grad():
        off = (stored.moments(pictures)[0] - vae.moments(pictures)[0]).square().mean().sqrt()
    assert float(off) < 0.01  # of latents between 6 and 0.3 wide


def test_groups_that_are_too_small_are_named(pictures: Tensor) -> None:
    narrow = VAEConfig(
        block_out_channels=(16, 32, 64, 32), layers_per_block=1, latent_channels=16, norm_num_groups=8
    )
    with pytest.raises(UserError, match="8 groups of 4 channels cannot hold 16 principal components"):
        set_principal_encoder(AutoencoderKL(narrow), pictures[:2], SPREAD)
    same = VAEConfig(
        block_out_channels=(16, 32, 96, 96), layers_per_block=1, latent_channels=16, norm_num_groups=8
    )
    with pytest.raises(UserError, match=r"last two of vae\.block_out_channels must differ"):
        set_principal_encoder(AutoencoderKL(same), pictures[:2], SPREAD)


def test_the_decoder_alone_is_trained(tmp_path: Path, pictures: Tensor) -> None:
    stored = ((pictures.permute(0, 2, 3, 1) + 1) * 127.5).round().byte().numpy()
    torch.manual_seed(1)
    vae = AutoencoderKL(CONFIG)
    initialise(vae)
    stage = VAEStage(
        vae, stored, VAELoss(encoder="principal", crop=32), batch=4, steps=30, seed=1, held_out=stored[:8],
        precision="float32",
    )  # fmt: skip
    before = {key: value.clone() for key, value in vae.state_dict().items()}
    with torch.no_grad():
        first = stage.measure()["psnr"]
    settings = LoopSettings(steps=30, batch=4, learning_rate=3e-3, warmup=5, ema=0.9, precision="float32")
    vae.load_state_dict(train_stage(stage, settings, tmp_path, resume=False))
    changed = {key for key, value in vae.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert all(key.startswith(("decoder.", "post_quant_conv.")) for key in changed)
    with torch.no_grad():
        assert stage.measure()["psnr"] > first + 3


def stage_of(pictures: Tensor, **changed: Any) -> VAEStage:
    stored = ((pictures.permute(0, 2, 3, 1) + 1) * 127.5).round().byte().numpy()
    torch.manual_seed(1)
    vae = AutoencoderKL(CONFIG)
    initialise(vae)
    loss = VAELoss(encoder="principal", spread=SPREAD, crop=32, **changed)
    return VAEStage(vae, stored, loss, batch=8, steps=30, seed=1, held_out=stored[:8], precision="float32")


def test_noised_latents_have_up_to_that_part_of_their_deviation(pictures: Tensor) -> None:
    stage, seen = stage_of(pictures, noised=0.5), list[Tensor]()
    stage.vae.post_quant_conv.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        stage.loss(0)
        mean, log_variance = stage.vae.moments(stage.crops(0))
    deviation = torch.exp(0.5 * log_variance) / SPREAD
    parts = ((seen[0] - mean) / deviation).std(dim=(1, 2, 3))
    assert float(parts.min()) >= 0
    assert 0.2 < float(parts.max()) < 0.55
    assert float(parts.std()) > 0.05  # different for each crop


def test_edges_are_added_by_their_weight(pictures: Tensor) -> None:
    with torch.no_grad():
        plain, once, twice = (float(stage_of(pictures, edges=weight).loss(0)) for weight in (0.0, 1.0, 2.0))
    assert once > plain
    assert twice - once == pytest.approx(once - plain, rel=1e-4)


def test_components_are_divided_by_a_power_of_their_deviation(pictures: Tensor) -> None:
    torch.manual_seed(0)
    plain, half = AutoencoderKL(CONFIG), AutoencoderKL(CONFIG)
    set_principal_encoder(plain, pictures, SPREAD)
    set_principal_encoder(half, pictures, SPREAD, whiten=0.5)
    with torch.no_grad():
        wide, narrow = (cells(vae.moments(pictures)[0]) for vae in (plain, half))
    torch.testing.assert_close(narrow.std(0), wide.std(0).sqrt(), rtol=0.01, atol=1e-3)


@torch.no_grad()
def test_with_a_mean_first_it_sees_half_the_size_alone(pictures: Tensor) -> None:
    """And then it is one product with the pixels of that size."""
    vae = AutoencoderKL(CONFIG)
    set_principal_encoder(vae, pictures, SPREAD, averaged=1, whiten=0.5)
    small = torch.nn.functional.avg_pool2d(pictures[:8], 2)
    doubled = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(vae.moments(doubled)[0], vae.moments(pictures[:8])[0], rtol=0, atol=5e-3)
    vae.config = replace(vae.config, scaling_factor=0.7)
    weights, offset = block_map(vae, 1)
    cut = small.view(8, 3, 8, 4, 8, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, 48)
    torch.testing.assert_close(cut @ weights + offset, cells(vae.encode(doubled)).float(), rtol=0, atol=5e-3)
    for found, expected in zip(BlockEncoder(vae, 1)(pictures[:8]), vae.moments(pictures[:8]), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=5e-3)
