"""The whole training of a text-to-image model, a few steps a stage, and its interruptions."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.errors import UserError
from core.inference.pipeline import Pipeline
from core.models.config import NoiseConfig, PredictionType
from core.models.unet import UNet
from core.scenes.pool import Pool, to_tensor
from core.scenes.scene import split_of
from core.toml_records import read_toml
from core.training import training_loop
from core.training.stages.diffusion import DiffusionLoss, DiffusionStage
from core.training.trainer import train
from core.training.training_loop import LoopSettings, learning_rate, train_stage
from core.training.training_recipe import read_recipe

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "data" / "recipes" / "tiny.toml"
QUICK = (
    "name=quick",
    "pictures.size=64", "pictures.vae=16", "pictures.unet=24", "vocabulary.captions=200",
    "text.hidden_size=24", "text.intermediate_size=48", "text.num_hidden_layers=1",
    "vae.block_out_channels=[8,8,8,8]", "train.vae_loss.encoder=learned",
    "unet.block_out_channels=[16,16,16]", "unet.cross_attention_dim=24",
    "defaults.width=64", "defaults.height=64", "defaults.steps=2",
    *(f"train.{part}.{key}={value}" for part in ("text", "vae", "unet")
      for key, value in (("steps", 4), ("batch", 4), ("save_every", 2), ("measure_every", 4))),
)  # fmt: skip


class Line:
    """A stage of one weight: its losses are those of fitting a line through noisy points."""

    name = "line"

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.modules: nn.Module = nn.Linear(3, 1)
        self.losses: list[float] = []
        self.stop_at = -1

    def loss(self, step: int) -> Tensor:
        if step == self.stop_at:
            signal.raise_signal(signal.SIGINT)
        x = torch.randn((8, 3), generator=torch.Generator().manual_seed(step))
        loss = (self.modules(x) - x.sum(1, keepdim=True)).square().mean()
        self.losses.append(float(loss.detach()))
        return loss  # pyrefly: ignore[no-any-return-explicit]

    def measure(self) -> dict[str, float]:
        return {"weight": float(self.modules.weight[0, 0])}  # pyrefly: ignore[bad-index]


LOOP = LoopSettings(steps=200, batch=8, learning_rate=1e-2, save_every=30, measure_every=100)


def test_a_resumed_run_has_the_same_losses_bit_for_bit(tmp_path: Path) -> None:
    whole, first, second = Line(), Line(), Line()
    expected = train_stage(whole, LOOP, make(tmp_path / "whole"), resume=False)
    first.stop_at = 100
    with pytest.raises(KeyboardInterrupt):
        train_stage(first, LOOP, make(tmp_path / "parts"), resume=False)
    resumed = train_stage(second, LOOP, tmp_path / "parts", resume=True)
    assert first.losses + second.losses == whole.losses  # step 100 was finished before the stop
    assert all(torch.equal(expected[key], resumed[key]) for key in expected)
    lines = [json.loads(line) for line in (tmp_path / "parts" / "line.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "weight" in line] == [100, 200]


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    killed, second = Line(), Line()

    class Killed(BaseException):
        pass

    def loss(step: int) -> Tensor:
        if step == 100:
            raise Killed
        return Line.loss(killed, step)

    killed.loss = loss  # pyrefly: ignore[method-assign]
    with pytest.raises(Killed):
        train_stage(killed, LOOP, tmp_path, resume=False)
    train_stage(second, LOOP, tmp_path, resume=True)
    whole = Line()
    train_stage(whole, LOOP, make(tmp_path / "whole"), resume=False)
    assert killed.losses[:90] + second.losses == whole.losses


def make(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    stage = Line()
    good = stage.loss

    def loss(step: int) -> Tensor:
        return good(step) * (float("nan") if step == 70 else 1.0)

    stage.loss = loss  # pyrefly: ignore[method-assign]
    with pytest.raises(UserError, match="smaller learning_rate"):
        train_stage(stage, LOOP, tmp_path, resume=False)
    saved = torch.load(tmp_path / "line.checkpoint", weights_only=True)
    assert saved["step"] == 60
    assert all(bool(value.isfinite().all()) for value in saved["weights"].values())


def test_the_learning_rate_rises_stays_and_falls() -> None:
    settings = replace(LOOP, warmup=10, decay=0.5)
    rates = [learning_rate(step, settings) for step in range(200)]
    assert rates[0] == pytest.approx(1e-3)
    assert rates[10] == rates[99] == 1e-2
    assert rates[150] == pytest.approx(5e-3)
    assert 0 < rates[199] < 2e-4


def test_a_pool_gives_the_same_pictures_again_and_keeps_the_splits_apart(tmp_path: Path) -> None:
    pool = Pool(1, "seen", 5, 64)
    drawn: list[int] = []
    stored = pool.on_disk(tmp_path, drawn.append)
    assert np.array_equal(stored[3], pool.picture(3))
    assert drawn == [1] * 5
    assert np.array_equal(stored, pool.on_disk(tmp_path, drawn.append))
    assert all(split_of(pool.spec(i)) == "seen" for i in range(200))
    held_out = Pool(1, "held_out", 5)
    assert all(split_of(held_out.spec(i)) == "held_out" for i in range(200))
    tensor = to_tensor(stored)
    assert tensor.shape == (5, 3, 64, 64)
    assert -1 <= float(tensor.min()) < float(tensor.max()) <= 1


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(TINY, QUICK, out=tmp_path_factory.mktemp("run"))


def test_a_trained_model_loads_and_makes_a_picture(trained: Path) -> None:
    pipe = Pipeline.load(trained, dtype="float32")
    assert pipe.name == "quick"
    assert pipe.tokens("a red dragon").unknown == ("dragon",)
    assert pipe.generate(prompt="a red circle", seed=0).images[0].size == (64, 64)
    latents = pipe.vae.encode(to_tensor(Pool(1, "seen", 8, 64).picture(0)[None]))
    assert 0.2 < float(latents.std()) < 5  # scaled to about unit variance


class Oracle(nn.Module):
    """Predicts what the loss asks for, from the clean latents that it was told."""

    def __init__(self, prediction: PredictionType, x0: Tensor) -> None:
        super().__init__()
        self.prediction, self.x0 = prediction, x0
        self.weight = nn.Parameter(torch.zeros(1))  # a network has some, and they say where it is
        self.alphas = torch.tensor(NoiseConfig().schedule().alphas_cumprod, dtype=torch.float32)

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        alpha = self.alphas[t].view(-1, 1, 1, 1)
        noise = (x - alpha.sqrt() * self.x0) / (1 - alpha).sqrt()
        v = alpha.sqrt() * noise - (1 - alpha).sqrt() * self.x0  # arXiv:2202.00512, appendix D
        return noise if self.prediction == "epsilon" else v


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_right_prediction_has_no_loss(prediction: PredictionType) -> None:
    latents = np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float16)
    noise = NoiseConfig(prediction_type=prediction)
    pool, tokenizer = Pool(1, "seen", 1, 64), Mock(chunks=lambda text: [Mock(ids=[0])])
    encoder = Mock(return_value=torch.zeros(8, 1, 4))

    def loss(oracle: nn.Module) -> float:
        stage = DiffusionStage(
            cast(UNet, oracle), encoder, tokenizer, noise, latents, pool, (latents, pool), DiffusionLoss(),
            batch=8,
        )  # fmt: skip
        return float(stage.loss(0))

    x0 = torch.from_numpy(latents).float()
    assert loss(Oracle(prediction, x0)) < 1e-6
    assert loss(Oracle("v_prediction" if prediction == "epsilon" else "epsilon", x0)) > 0.1


def test_a_finished_run_is_not_trained_again_and_gives_the_same_model(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_loop, "one_step", None)
    before = {path: path.read_bytes() for path in trained.rglob("*.safetensors")}
    assert train(TINY, QUICK, resume=True, out=trained.parent) == trained
    assert {path: path.read_bytes() for path in before} == before


def test_a_run_is_not_resumed_as_another_model(trained: Path) -> None:
    with pytest.raises(UserError, match="another unet"):
        train(TINY, [*QUICK, "unet.attention_head_dim=2"], resume=True, out=trained.parent)


def test_a_run_may_be_renamed(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained.parent, folder)
    renamed = train(TINY, [*QUICK, "name=other"], resume=True, out=folder)
    assert Pipeline.load(renamed, device="cpu").name == "other"


def test_a_folder_with_a_run_is_not_overwritten(trained: Path) -> None:
    with pytest.raises(UserError, match="--resume"):
        train(TINY, QUICK, out=trained.parent)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("train.unet.stesp=3", "'steps'"),
        ("unet.block_out_chanels=[1]", "block_out_channels"),
        ("train.unet.steps=many", "whole number"),
        ("seed", "KEY=VALUE"),
        ("seed.more=1", "not a table"),
        ('noise.beta_schedule="cosinus"', "scaled_linear"),
        ("noise.beta_start=-1.0", "noise schedule"),
        ("vocabulary.size=500", "514"),
        ("vae.norm_num_groups=7", "groups must divide"),
        ("unet.in_channels=9", "latents"),
        ("train.vae_loss.crop=200", "multiple of 8"),
        ("train.text.save_every=0", "at least 1"),
        ('train.vae_loss.encoder="learned" train.vae_loss.noised=0.3', "need encoder"),
        ("train.vae_loss.averaged=3", "fewer than"),
        ('data.kind="storybook"', "pictures.size of 256"),
        ("latents.deviation=0", "above 0"),
        ("train.unet_loss.deviation=0", "above 0"),
    ],
)
def test_a_bad_recipe_is_one_sentence_that_names_the_nearest_key(change: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_recipe(TINY, change.split())


@pytest.mark.parametrize(("content", "words"), [("= 1", "not valid TOML"), (None, "cannot be read")])
def test_a_file_that_is_no_recipe_is_one_sentence(tmp_path: Path, content: Any, words: str) -> None:
    path = tmp_path / "recipe.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=words):
        read_toml(path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator on this machine")
def test_a_model_can_be_trained_on_an_accelerator(tmp_path: Path) -> None:
    folder = train(TINY, QUICK, out=tmp_path / "run", device="cuda")
    assert Pipeline.load(folder, device="cpu").generate(prompt="a red circle", seed=0).images
    assert train(TINY, QUICK, resume=True, out=tmp_path / "run", device="cpu") == folder
