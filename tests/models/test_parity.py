"""Each network against its reference implementation, with the reference's random weights."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from core.models.clip import CLIPTextEncoder, weigh
from core.models.config import TextConfig, UNetConfig, VAEConfig
from core.models.unet import UNet, guidance_embedding
from core.models.vae import AutoencoderKL

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

M = TypeVar("M", bound=nn.Module)
UNETS: dict[str, dict[str, Any]] = {
    "like SD 1.x": {"attention_head_dim": 4, "cross_attention_dim": 24},
    "like SD 2.x": {
        "attention_head_dim": (2, 4, 8),
        "cross_attention_dim": 32,
        "use_linear_projection": True,
    },
    "for inpainting": {"attention_head_dim": 4, "cross_attention_dim": 24, "in_channels": 9},
    "with the text added to the timestep": {
        "attention_head_dim": 4,
        "cross_attention_dim": 24,
        "addition_embed_type": "text",
        "addition_embed_type_num_heads": 3,
    },
}


def randomise(module: nn.Module) -> None:
    """Weights that leave no part of the network without effect, biases and norms included."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        spread = 0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
        parameter.data = torch.randn(parameter.shape, generator=generator) * spread
        if parameter.ndim == 1:
            parameter.data += 0.5


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("height", [16, 15])  # 15 is not halved evenly
@pytest.mark.parametrize("kind", UNETS)
@torch.no_grad()
def test_unet(kind: str, height: int) -> None:
    numbers: dict[str, Any] = {
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (32, 64, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 2,
        "norm_num_groups": 16,
        **UNETS[kind],
    }
    theirs = diffusers.UNet2DConditionModel(**numbers).eval()
    randomise(theirs)
    ours = UNet(UNetConfig(**numbers)).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, numbers["in_channels"], height, 24)
    timesteps = torch.tensor([3.0, 980.5])
    context = torch.randn(2, 7, numbers["cross_attention_dim"])
    assert relative(ours(x, timesteps, context), theirs(x, timesteps, context).sample) < 1e-5


@torch.no_grad()
def test_a_unet_that_reads_the_guidance_scale() -> None:
    numbers: dict[str, Any] = {
        "in_channels": 4,
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 48,
        "time_cond_proj_dim": 256,
    }
    theirs = diffusers.UNet2DConditionModel(**numbers).eval()
    randomise(theirs)
    ours = UNet(UNetConfig(**numbers)).eval()
    ours.load_state_dict(theirs.state_dict())
    x, timesteps, context = torch.randn(2, 4, 16, 16), torch.tensor([3.0, 980.5]), torch.randn(2, 7, 48)
    scales = guidance_embedding(torch.full((2,), 7.5), 256)
    expected = theirs(x, timesteps, context, timestep_cond=scales).sample
    assert relative(ours.evaluate(x, timesteps, context, guidance=7.5)[0], expected) < 1e-5
    assert relative(ours(x, timesteps, context), expected) > 1e-3


# As the folders of the published models say it: 1.5, 2.1 and 2 for inpainting.
FULL_UNETS: dict[str, dict[str, Any]] = {
    "SD 1.5": {"attention_head_dim": 8, "cross_attention_dim": 768},
    "SD 2.1": {
        "attention_head_dim": (5, 10, 20, 20),
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
    },
    "SD 2 inpainting": {
        "attention_head_dim": (5, 10, 20, 20),
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
        "in_channels": 9,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FULL_UNETS)
@torch.no_grad()
def test_unet_in_full_size(kind: str) -> None:
    numbers: dict[str, Any] = {"in_channels": 4, **FULL_UNETS[kind]}
    theirs = diffusers.UNet2DConditionModel(**numbers).eval()
    randomise(theirs)
    ours = without_memory(UNet, UNetConfig(**numbers))
    ours.load_state_dict(theirs.state_dict(), assign=True)
    x = torch.randn(1, numbers["in_channels"], 32, 32)  # so that the finest convolutions go by Winograd's way
    timesteps, context = torch.tensor([501.0]), torch.randn(1, 77, numbers["cross_attention_dim"])
    found, expected = ours(x, timesteps, context), theirs(x, timesteps, context).sample
    assert largest(found, expected) < 1e-4


@pytest.mark.slow
@torch.no_grad()
def test_vae_in_full_size() -> None:
    theirs = diffusers.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ).eval()
    randomise(theirs)
    ours = without_memory(AutoencoderKL, VAEConfig())
    ours.load_state_dict(theirs.state_dict(), assign=True)
    pictures, latents = torch.rand(1, 3, 128, 128) * 2 - 1, torch.randn(1, 4, 16, 16)
    assert largest(ours.moments(pictures)[0], theirs.encode(pictures).latent_dist.mean) < 1e-4
    assert largest(ours.decode(latents), theirs.decode(latents / 0.18215).sample) < 1e-4


FULL_TOWERS: dict[str, dict[str, Any]] = {
    "CLIP ViT-L/14": {},
    "OpenCLIP ViT-H/14, up to the last layer but one": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FULL_TOWERS)
@torch.no_grad()
def test_text_encoder_in_full_size(kind: str) -> None:
    numbers = vars(TextConfig(**FULL_TOWERS[kind]))
    theirs = transformers.CLIPTextModel(transformers.CLIPTextConfig(**numbers)).eval()
    ours = without_memory(CLIPTextEncoder, TextConfig(**FULL_TOWERS[kind]))
    weights = {f"text_model.{key.removeprefix('text_model.')}": v for key, v in theirs.state_dict().items()}
    ours.load_state_dict(weights, assign=True)
    ids = torch.randint(0, 49406, (2, 77))
    assert largest(ours(ids), theirs(ids).last_hidden_state) < 1e-5


def without_memory(build: type[M], config: Any) -> M:
    """Our module on the meta device, for weights that another already holds."""
    with torch.device("meta"):
        return build(config).eval()


def largest(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("layers", [1, 2])
@torch.no_grad()
def test_vae(layers: int) -> None:
    numbers: dict[str, Any] = {
        "block_out_channels": (16, 32, 32, 48),
        "layers_per_block": layers,
        "latent_channels": 5,
        "norm_num_groups": 8,
    }
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    theirs = diffusers.AutoencoderKL(**numbers, **kinds).eval()
    randomise(theirs)
    ours = AutoencoderKL(VAEConfig(**numbers)).eval()
    ours.load_state_dict(theirs.state_dict())
    pictures = torch.rand(2, 3, 64, 48) * 2 - 1
    distribution = theirs.encode(pictures).latent_dist
    mean, log_variance = ours.moments(pictures)
    assert relative(mean, distribution.mean) < 1e-5
    assert relative(log_variance, distribution.logvar) < 1e-5
    latents = torch.randn(2, 5, 8, 6)
    expected = theirs.decode(latents / ours.config.scaling_factor).sample
    assert relative(ours.decode(latents), expected) < 1e-5


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@torch.no_grad()
def test_text_encoder(activation: Any) -> None:
    numbers: dict[str, Any] = {
        "vocab_size": 120,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 20,
        "hidden_act": activation,
        "bos_token_id": 118,
        "eos_token_id": 119,
    }
    theirs = transformers.CLIPTextModel(transformers.CLIPTextConfig(**numbers)).eval()
    randomise(theirs)
    ours = CLIPTextEncoder(TextConfig(**numbers)).eval()
    ours.load_state_dict(
        {f"text_model.{key.removeprefix('text_model.')}": v for key, v in theirs.state_dict().items()}
    )
    ids = torch.randint(0, 118, (2, 20))
    ids[:, -6:] = 119
    assert relative(ours(ids), theirs(ids).last_hidden_state) < 1e-5
    states = theirs(ids, output_hidden_states=True).hidden_states
    for skip in (1, 2):  # as diffusers does it: an earlier layer's states, and the last norm after all
        norm = getattr(theirs, "text_model", theirs).final_layer_norm
        assert relative(ours(ids, skip), norm(states[-1 - skip])) < 1e-5


def test_weights_multiply_token_vectors_and_keep_each_chunks_mean() -> None:
    states = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1)) + 0.5
    weights = torch.tensor([[1, 1.3, 1, 0.5, 1], [1, 1, 1, 1, 1], [1, 0, -1, 1, 1]])
    weighted = weigh(states, weights)
    for i in (0, 2):
        expected = states[i] * weights[i, :, None]
        assert torch.allclose(weighted[i], expected * (states[i].mean() / expected.mean()), rtol=1e-5)
        assert torch.allclose(weighted[i].mean(), states[i].mean(), rtol=1e-5)
    assert torch.equal(weighted[1], states[1])
    half = states.to(torch.bfloat16)
    assert torch.equal(weigh(half, torch.ones(3, 5)), half)


def test_a_mean_that_says_nothing_is_not_kept() -> None:
    states = torch.tensor([[[1.0, -1.0], [3.0, -3.0]], [[1.0, 2.0], [2.0, -4.9]], [[1.0, 1.0], [1.0, 1.0]]])
    weights = torch.tensor([[1.0, 2.0], [1.0, 1.04], [0.0, 0.0]])  # means of 0, next to 0, and gone to 0
    assert torch.equal(weigh(states, weights), states * weights[:, :, None])


@torch.no_grad()
def test_the_text_encoder_looks_only_backwards() -> None:
    encoder = CLIPTextEncoder(
        TextConfig(
            vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
        )
    )
    ids = torch.randint(0, 50, (1, 12))
    other = ids.clone()
    other[0, 8:] = (other[0, 8:] + 1) % 50
    before, after = encoder(ids), encoder(other)
    assert torch.equal(before[:, :8], after[:, :8])
    assert not torch.allclose(before[:, 8:], after[:, 8:])


def test_encoding_draws_from_the_distribution() -> None:
    vae = AutoencoderKL(VAEConfig(block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4))
    picture, noise = torch.rand(1, 3, 16, 16), torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        mean, log_variance = vae.moments(picture)
        scale = vae.config.scaling_factor
        assert torch.equal(vae.encode(picture), mean * scale)
        expected = (mean + (log_variance / 2).exp() * noise) * scale
        assert torch.allclose(vae.encode(picture, noise), expected)
