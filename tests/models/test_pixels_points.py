"""Models whose latents are pixels or points: loaded, run, shown, kept and repeated like any other."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.nn.functional import avg_pool2d

from core.errors import UserError
from core.images.tensors import from_image
from core.inference.pipeline import Pipeline
from core.inference.trajectory import Trajectory
from core.models.config import ModelConfig, PixelsConfig, PointsConfig, UNetConfig
from core.models.layers import Conv3x3
from core.models.pixel_space import Pixels
from core.models.point_model import EXTENT, Points, PointwiseUNet, draw_points
from core.models.unet import UNet
from core.recipes.png import read_recipe
from core.request.request import Request
from core.weights.convert import convert
from core.weights.inspect import inspect
from tests.tiny_models import COLOURS, PIXELS, POINTS, write_wordless


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    made = {"grey": PIXELS, "colours": COLOURS, "points": POINTS}
    return {name: write_wordless(root / name, latents) for name, latents in made.items()}


def load(folders: dict[str, Path], name: str) -> Pipeline:
    return Pipeline.load(folders[name], device="cpu")


@pytest.mark.parametrize("name", ["grey", "colours", "points"])
def test_a_model_makes_its_picture_its_steps_and_its_recipe(
    folders: dict[str, Path], name: str, tmp_path: Path
) -> None:
    pipe = load(folders, name)
    run = pipe.stream(seed=3, batch=2)
    result = run.result()
    side = pipe.defaults.width
    assert [image.size for image in result.images] == [(side, side)] * 2
    assert len(result.steps) == 4
    assert result.steps[0].preview(1).size == result.steps[0].decode(1).size == (side, side)
    alone = pipe.generate(seed=4).images[0]
    assert alone.tobytes() == result.images[1].tobytes()
    path = result.save(tmp_path)[0]
    recipe = read_recipe(path)
    assert recipe is not None
    again = pipe.generate(Request.from_settings(recipe.settings))
    assert again.images[0].tobytes() == result.images[0].tobytes()
    kept = Trajectory.of(run)
    before, after = (np.asarray(each, int) for each in (result.steps[1].preview(), kept.preview(2)))
    assert np.abs(after - before).max() <= 1  # estimates are kept in float16, and one may round otherwise


def test_it_knows_no_words_and_says_so(folders: dict[str, Path]) -> None:
    pipe = load(folders, "grey")
    assert pipe.tokens("seven").unknown == ("seven",)
    assert pipe.model.examples == ()


@pytest.mark.parametrize("name", ["grey", "colours"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_preview_of_pixels_is_the_picture_itself(folders: dict[str, Path], name: str, dtype: str) -> None:
    pipe = Pipeline.load(folders[name], device="cpu", dtype=dtype)
    last = pipe.generate(seed=1).steps[-1]
    assert last.preview().tobytes() == last.decode().tobytes()


@pytest.mark.parametrize("name", ["grey", "colours"])
def test_a_run_of_pixels_starts_from_a_picture(folders: dict[str, Path], name: str) -> None:
    pipe = load(folders, name)
    picture = Image.effect_noise((12, 12), 60).convert("RGB")
    made = pipe.generate(seed=1, image=picture, strength=0.5)
    assert len(made.steps) == 2
    assert made.images[0].size == (12, 12)
    given = pipe.stream(seed=1, image=picture, strength=0.5)
    next(given)
    assert given.given.known is not None
    assert torch.allclose(given.given.known, pipe.vae.encode(from_image(picture)))


def test_points_cannot_start_from_a_picture(folders: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="points in the plane"):
        load(folders, "points").generate(seed=1, image=Image.new("RGB", (64, 64)))


def test_sizes_are_the_models_own(folders: dict[str, Path]) -> None:
    assert load(folders, "grey").generate(seed=1, width=9, height=15).images[0].size == (9, 15)
    with pytest.raises(UserError, match="whole number between 8 and 2048"):
        load(folders, "grey").generate(seed=1, width=7)
    with pytest.raises(UserError, match="multiple of 8"):
        load(folders, "points").generate(seed=1, width=60)


def test_a_single_file_cannot_hold_them(folders: dict[str, Path], tmp_path: Path) -> None:
    assert inspect(folders["points"]).loads
    with pytest.raises(UserError, match="has no VAE"):
        convert(folders["grey"], tmp_path / "grey.safetensors")


def test_the_model_lies_beside_its_card_and_its_recipe(folders: dict[str, Path]) -> None:
    card = (folders["grey"] / "README.md").read_text()
    assert (folders["grey"] / "recipe.toml").read_text() in card
    assert "takes no prompts" in card


def test_pixels_are_the_picture() -> None:
    picture = torch.rand(2, 3, 5, 7) * 2 - 1
    assert torch.equal(Pixels(PixelsConfig(latent_channels=3)).encode(picture), picture)
    grey = Pixels(PixelsConfig())
    encoded = grey.encode(picture)
    assert encoded.shape == (2, 1, 5, 7)
    assert torch.allclose(grey.encode(grey.decode(encoded)), encoded, atol=1e-6)
    bytes_ = Image.fromarray(((picture[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()).convert("L")
    assert np.abs(np.asarray(bytes_) - ((encoded[0, 0] + 1) * 127.5).numpy()).max() < 1.5


@pytest.mark.parametrize("colors", [1, 3])
def test_a_cell_of_several_pixels_is_its_pixels(colors: int) -> None:
    """One after the other, row by row, one colour after the other; the preview is their mean."""
    picture = torch.rand(2, 3, 4, 6) * 2 - 1
    plain = Pixels(PixelsConfig(latent_channels=colors)).encode(picture)
    cells = Pixels(PixelsConfig(latent_channels=4 * colors, patch=2))
    encoded = cells.encode(picture)
    assert encoded.shape == (2, 4 * colors, 2, 3)
    assert encoded[1, :4, 1, 2].tolist() == plain[1, 0, 2:, 4:].flatten().tolist()
    assert torch.equal(cells.decode(encoded), plain.expand(-1, 3, -1, -1))
    rows = torch.tensor(cells.preview())
    seen = torch.einsum("bchw,cd->bdhw", encoded, rows[:-1]) + rows[-1].view(-1, 1, 1)
    assert torch.allclose(seen, avg_pool2d(plain.expand(-1, 3, -1, -1), 2), atol=1e-6)


@pytest.mark.parametrize(("channels", "patch"), [(2, 1), (4, 1), (1, 2), (3, 2), (1, 0)])
def test_channels_that_are_no_pixels_are_refused(channels: int, patch: int) -> None:
    with pytest.raises(UserError, match=r"pixels have 1 channel or 3|downsample images by"):
        ModelConfig(vae=PixelsConfig(latent_channels=channels, patch=patch))


def test_points_are_drawn_where_they_are() -> None:
    """X to the right, y upwards; what is outside is not seen; not a number is not drawn."""
    cloud = torch.tensor([[0.9 * EXTENT, 0.9 * EXTENT], [99.0, 0.0], [float("nan"), 0.0], [-2.0, -1.0]])
    picture = draw_points(cloud.T.reshape(1, 2, 2, 2), 8)[0]
    dark = (picture.mean(0) < 0.5).nonzero().tolist()
    assert [0, 15] in dark  # 0.9 of 3.0 to the right and up, on 16 pixels: the last column but none
    assert [10, 2] in dark
    assert 0 < len(dark) < 30
    assert Points(PointsConfig()).decode(cloud.T.reshape(1, 2, 2, 2)).shape == (1, 3, 16, 16)


def small_unet(**changes: object) -> UNetConfig:
    values: dict[str, object] = {
        "in_channels": 2, "out_channels": 2, "block_out_channels": (16,),
        "down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",),
        "layers_per_block": 1, "cross_attention_dim": 8, "attention_head_dim": 2, "norm_num_groups": 4,
    }  # fmt: skip
    return UNetConfig(**{**values, **changes})  # pyrefly: ignore[bad-argument-type]


def test_each_point_is_denoised_alone() -> None:
    torch.manual_seed(0)
    net = PointwiseUNet(small_unet()).eval()
    x, context = torch.randn(2, 2, 3, 4), torch.randn(2, 5, 8)
    times = torch.tensor([10.0, 700.0])
    with torch.no_grad():
        whole = net(x, times, context)
        moved = x.clone()
        moved[1, :, 2, 3] += 5
        changed = net(moved, times, context)
        plain = copy.copy(net)
        plain.__class__ = UNet  # pyrefly: ignore[bad-argument-type]
        one = plain(x[1:, :, :1, 1:2], times[1:], context[1:])
    assert whole.shape == x.shape
    assert torch.allclose(one[0, :, 0, 0], whole[1, :, 0, 1], atol=1e-6)
    differs = (changed - whole).abs().amax(1) > 1e-6
    assert differs.nonzero().tolist() == [[1, 2, 3]]


def test_on_one_cell_a_convolution_is_its_middle() -> None:
    torch.manual_seed(0)
    layer = Conv3x3(6, 5)
    x = torch.randn(7, 6, 1, 1)
    expected = F.conv2d(x, layer.weight, layer.bias, padding=1)
    assert torch.allclose(layer(x), expected, atol=1e-6)
    larger = torch.randn(2, 6, 2, 1)
    assert torch.equal(layer(larger), F.conv2d(larger, layer.weight, layer.bias, padding=1))


def test_a_unet_without_attention_is_that_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    numbers = {
        "in_channels": 1, "out_channels": 1, "block_out_channels": (8, 16), "layers_per_block": 2,
        "cross_attention_dim": 8, "attention_head_dim": 1, "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "mid_block_type": "UNetMidBlock2D",
    }  # fmt: skip
    torch.manual_seed(0)
    theirs = diffusers.UNet2DConditionModel(**numbers).eval()
    ours = UNet(UNetConfig(**numbers)).eval()  # pyrefly: ignore[bad-argument-type]
    ours.load_state_dict(theirs.state_dict())
    x, t, context = torch.randn(2, 1, 14, 14), torch.tensor([3.0, 600.0]), torch.randn(2, 4, 8)
    with torch.no_grad():
        assert torch.allclose(ours(x, t, context), theirs(x, t, context).sample, atol=1e-5)
