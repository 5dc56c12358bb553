"""Features of earlier evaluations and merged tokens: what is left out, and that a run stays what its recipe
says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.inference.pipeline import Pipeline
from core.inference.trajectory import Trajectory
from core.models.config import UNetConfig
from core.models.fast.token_merging import Merge
from core.models.point_model import PointwiseUNet
from core.models.unet import UNet
from core.plugins import current, discovery
from core.recipes.png import png_bytes, read_recipe
from core.request.request import Request
from core.sampling.denoiser import Denoiser
from core.sampling.feature_reuse import Savings
from core.sampling.schedule import NoiseSchedule
from tests.core.pictures import box_mask, noise, same
from tests.small import write_model

MODEL = NoiseSchedule.from_betas("scaled_linear")
FIELDS: dict[str, Any] = {"prompt": "a house", "steps": 5, "cfg_scale": 3.0, "seed": 1, "sampler": "ddim"}
SAVING: list[dict[str, Any]] = [
    {"feature_reuse": 2},
    {"token_merging": 0.5},
    {"feature_reuse": 3, "token_merging": 0.75},
]
CONFIG = UNetConfig(
    block_out_channels=(32, 64),
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    layers_per_block=2,
    cross_attention_dim=16,
    attention_head_dim=4,
    norm_num_groups=8,
)


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline.load(write_model(tmp_path_factory.mktemp("model") / "small"), device="cpu")


@pytest.fixture
def unet() -> Iterator[UNet]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet(CONFIG).eval().requires_grad_(False)
    with torch.no_grad():
        yield network


def given(seed: int = 0, side: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """X (2, 4, side, side), timesteps (2,), context (2, 7, 16)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 4, side, side, generator=generator)
    return x, torch.tensor([400.0, 400.0]), torch.randn(2, 7, 16, generator=generator)


# The network.


def test_an_evaluation_with_its_own_features_is_the_whole_one(unet: UNet) -> None:
    whole, deep = unet.evaluate(*given())
    assert torch.equal(whole, unet(*given()))
    assert torch.equal(unet.evaluate(*given(), deep=deep)[0], whole)
    other, _ = unet.evaluate(*given(1), deep=deep)
    assert not torch.equal(other, unet(*given(1)))


def test_what_is_deeper_is_not_run(unet: UNet) -> None:
    _, deep = unet.evaluate(*given())
    ran: list[str] = []
    for name, module in unet.named_modules():
        if name.rpartition(".")[0].endswith("resnets"):
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    unet.evaluate(*given(1), deep=deep)
    assert ran == ["down_blocks.0.resnets.0", "up_blocks.1.resnets.1", "up_blocks.1.resnets.2"]


def test_points_reuse_features_of_each_alone() -> None:
    with torch.no_grad():
        network = PointwiseUNet(CONFIG).eval()
        x, times, context = given(side=3)
        whole, deep = network.evaluate(x, times, context)
        assert torch.equal(network.evaluate(x, times, context, deep=deep)[0], whole)


def test_only_the_finest_attention_merges(unet: UNet, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int]] = []
    plain = Merge.__init__

    def init(self: Merge, x: Tensor, size: tuple[int, int], share: float) -> None:
        made.append(size)
        plain(self, x, size, share)

    monkeypatch.setattr(Merge, "__init__", init)
    unet.evaluate(*given(side=8), merging=0.5)
    assert made == [(8, 8)] * 5
    made.clear()
    unet(*given())
    assert made == []


# Merging.


def test_tokens_that_are_equal_are_merged_without_loss() -> None:
    cells = torch.randn(2, 4, 3, 16, generator=torch.Generator().manual_seed(0))
    x = cells.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2).flatten(1, 2)  # (2, 8 * 6, 16)
    merge = Merge(x, (8, 6), 0.75)
    merged = merge(x)
    assert merged.shape == (2, 12, 16)
    torch.testing.assert_close(merge.undone(merged), x)


def test_the_most_alike_are_averaged_into_the_upper_left() -> None:
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.2], [-1.0, 0.0]]])  # a map of 2x2
    merge = Merge(x, (2, 2), 0.25)
    assert merge(x).tolist() == [[[0.0, 1.0], [-1.0, 0.0], [1.0, pytest.approx(0.1)]]]
    back = merge.undone(merge(x))
    assert back[0, 0].tolist() == back[0, 2].tolist() == [1.0, pytest.approx(0.1)]
    assert torch.equal(back[0, [1, 3]], x[0, [1, 3]])


@pytest.mark.parametrize(("size", "share"), [((5, 7), 0.75), ((1, 1), 0.75), ((4, 6), 0.0), ((1, 5), 0.3)])
def test_maps_of_any_size_come_back_whole(size: tuple[int, int], share: float) -> None:
    count = size[0] * size[1]
    x = torch.randn(3, count, 8, generator=torch.Generator().manual_seed(0))
    merge = Merge(x, size, share)
    back = merge.undone(merge(x))
    assert back.shape == x.shape
    changed = (back != x).any(dim=-1).sum(dim=-1)
    assert bool((changed <= 2 * int(share * count)).all())
    assert torch.equal(back, x) == (int(share * count) == 0 or count == 1)


# Which evaluations are whole.


class Told:
    """A network that notes for each call whether it was whole; its features are the images of the call."""

    def __init__(self) -> None:
        self.calls: list[bool] = []

    def evaluate(
        self, x: Tensor, timesteps: Tensor, context: Tensor, *, deep: Tensor | None, merging: float
    ) -> tuple[Tensor, Tensor]:
        assert deep is None or deep.shape == x.shape
        self.calls.append(deep is None)
        return x, x if deep is None else deep


@pytest.mark.parametrize(
    ("every", "evaluations", "whole"),
    [
        (1, "9g 8g 7g", "www"),
        (2, "9g 8g 7g 6g 5g", "w-w-w"),
        (3, "9g 8g 7g 6g 5g", "w--w-"),
        (9, "9g 8g 8g 7g 3g", "w----"),
        (9, "9g 5g 9g 8g 5g", "w----"),  # not above the latest whole one
        (9, "5g 3g 9g 8g", "w-w-"),  # back up, as in Restart
        (9, "9n 8g 7g 6n 5n 4g", "ww---w"),  # guidance comes, goes, and comes
        (2, "9g 8n 7n 6n", "w-w-"),
    ],
)
def test_which_evaluations_are_whole(every: int, evaluations: str, whole: str) -> None:
    network = Told()
    savings = Savings(network, every)
    for evaluation in evaluations.split():
        halves = 2 if evaluation[1] == "g" else 1
        savings.begin(float(evaluation[0]), halves)
        for first in range(2):  # two images, one at a time
            savings(first, *[torch.zeros(halves, 1)] * 3)
    assert "".join("w" if call else "-" for call in network.calls[::2]) == whole
    assert network.calls[::2] == network.calls[1::2]


def test_images_of_a_batch_keep_their_own_features(unet: UNet) -> None:
    x, _, context = given()
    settings: dict[str, Any] = {"prediction": "epsilon", "cfg_scale": 3.0}

    def run(pictures: Tensor) -> Tensor:
        denoise = Denoiser(
            unet, MODEL, conditional=context[:1], unconditional=context[1:],
            savings=Savings(unet, 2, 0.5), cfg_interval=(1.0, math.inf), **settings,
        )  # fmt: skip
        for sigma in (9.0, 5.0, 2.0, 0.5):
            pictures = denoise(pictures * sigma, sigma)
        assert (denoise.evals, denoise.passes, denoise.reused) == (4, 7, 3)
        return pictures

    assert torch.equal(run(x), torch.cat([run(x[:1]), run(x[1:])]))


# Runs.


@pytest.mark.parametrize("sampler", sorted(discovery.load_plugins(enabled=False).samplers))
def test_every_sampler_runs_again_bit_for_bit(pipe: Pipeline, sampler: str) -> None:
    fields = FIELDS | {"sampler": sampler, "cfg_from": 0.2, "cfg_to": 0.8}
    exact = pipe.generate(**fields)
    result, again = (pipe.generate(**fields, feature_reuse=2, token_merging=0.5) for _ in range(2))
    assert torch.equal(result.steps[-1].x, again.steps[-1].x)
    assert not torch.equal(result.steps[-1].x, exact.steps[-1].x)
    assert 0 < result.reused < result.passes
    assert exact.reused == 0
    if not current.registry().sampler(sampler).adaptive:
        assert (result.evals, result.passes) == (exact.evals, exact.passes)


@pytest.mark.parametrize("changes", SAVING, ids=str)
def test_a_picture_is_made_again_from_its_recipe(
    pipe: Pipeline, tmp_path: Path, changes: dict[str, Any]
) -> None:
    result = pipe.generate(**FIELDS, **changes, batch=2)
    paths = result.save(tmp_path)
    for image, path in enumerate(paths):  # each alone, as a batch has made it
        recipe = read_recipe(path)
        assert {name: getattr(recipe.settings, name) for name in changes} == changes
        again = pipe.generate(Request.from_settings(recipe.settings))
        assert png_bytes(again.images[0], again.recipe) == path.read_bytes()
        assert same(again.images[0], result.images[image])


def test_two_runs_at_once_do_not_meet(pipe: Pipeline) -> None:
    changes: list[dict[str, Any]] = [
        {"feature_reuse": 3},
        {"seed": 2, "token_merging": 0.5, "feature_reuse": 2},
    ]
    fields = [FIELDS | each for each in changes]
    alone = [pipe.generate(**each).steps for each in fields]
    together = list(zip(*(pipe.stream(**each) for each in fields), strict=True))
    for i, pair in enumerate(together):
        assert all(torch.equal(step.x, steps[i].x) for step, steps in zip(pair, alone, strict=True))
    assert not torch.equal(alone[0][0].x, alone[1][0].x)


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_a_branch_begins_with_a_whole_evaluation(pipe: Pipeline, tmp_path: Path, step: int) -> None:
    run = pipe.stream(**FIELDS, feature_reuse=3)
    run.result()
    branch = pipe.branch(Trajectory.of(run), step, feature_reuse=4)
    result = branch.result()
    assert [made.reused for made in branch.steps] == [2 * (i - i // 4) for i in range(5 - step)]
    (path,) = result.save(tmp_path)
    again = pipe.stream(Request.from_settings(read_recipe(path).settings))
    assert same(again.result().images[0], result.images[0])


@pytest.mark.parametrize("changes", SAVING, ids=str)
def test_inpainting_keeps_what_is_known(pipe: Pipeline, changes: dict[str, Any]) -> None:
    picture = noise((64, 64))
    mask = box_mask((64, 64), (16, 16, 48, 48))
    fields: dict[str, Any] = {**FIELDS, "image": picture, "mask": mask, "mask_blur": 0, "strength": 0.8}
    result, exact = pipe.generate(**fields, **changes), pipe.generate(**fields)
    found, wanted = result.steps[-1].x, exact.steps[-1].x
    assert not torch.equal(found, wanted)
    assert torch.equal(found[:, :, :1], wanted[:, :, :1])


def test_off_says_nothing() -> None:
    assert Request(feature_reuse=1, token_merging=0).to_dict() == Request().to_dict()
    assert "feature_reuse" not in Request().to_dict()
