"""Several processes that train one model give the losses of one: by shares here, and for real with two."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from core.errors import UserError
from core.inference.pipeline import Pipeline
from core.models.build import unet_class
from core.models.clip import CLIPTextEncoder
from core.models.config import VAEConfig
from core.models.vae import AutoencoderKL
from core.prompts.tokenizer import Tokenizer
from core.scenes.vocabulary import learn_vocabulary
from core.training.log import read_lines
from core.training.processes import Processes, Share, together
from core.training.stage import Stage
from core.training.stages.autoencoder import VAELoss, VAEStage
from core.training.stages.diffusion import DiffusionStage
from core.training.stages.text_encoder import TextStage
from core.training.trainer import TrainingRun, train
from core.training.training_recipe import read_recipe

CHECKOUT = Path(__file__).resolve().parents[2]
RECIPES = CHECKOUT / "data" / "recipes"
JOINT = (
    "pictures.unet=24", "pictures.size=8", "defaults.width=8", "defaults.height=8", "train.unet.batch=5",
    "unet.block_out_channels=[8,16]", "unet.norm_num_groups=4", "vocabulary.captions=50",
    "train.unet.precision=float32",
)  # fmt: skip
# A batch of 7 has no halves.
POINTS = (
    "pictures.unet=64", "unet.block_out_channels=[8]", "defaults.width=64", "defaults.height=64",
    "defaults.steps=2", "train.unet.batch=7", "train.unet.optimizer=adamw", "train.unet.steps=100",
    "train.unet.save_every=50", "train.unet.measure_every=50", "train.unet.sample_every=100",
)  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("batch", [1, 2, 5, 12])
def test_shares_are_the_batch_and_their_weighted_means_are_its_mean(batch: int, count: int) -> None:
    examples = np.random.default_rng(batch).standard_normal(batch)
    shares = [Share(rank, count) for rank in range(count)]
    assert all(len(examples[share.of(batch)]) for share in shares)
    parts = [examples[share.of(batch)] for share in shares if share.weight(batch)]
    assert np.array_equal(np.concatenate(parts), examples)
    means = [examples[share.of(batch)].mean() * share.weight(batch) for share in shares]
    assert np.mean(means) == pytest.approx(examples.mean())
    assert Share().weight(batch) == 1.0  # exactly: alone, nothing changes


def joint(tmp_path: Path, share: Share) -> Stage:
    recipe = read_recipe(RECIPES / "conditional.toml", JOINT)
    run = TrainingRun(recipe, tmp_path, False)
    encoder = run.text_encoder()
    latents = np.random.default_rng(0).standard_normal((24, 4, 4, 4)).astype(np.float32)
    torch.manual_seed(1)
    return DiffusionStage(
        unet_class(recipe.coder)(recipe.unet), encoder, run.tokenizer, recipe.noise, latents, run.data,
        (latents, run.data), recipe.train.unet_loss, batch=5, joint=True, precision="float32", share=share,
    )  # fmt: skip


def reading(_: Path, share: Share) -> Stage:
    captions = ("a red circle on a blue background", "a house on a hill")
    vocab, merges = learn_vocabulary(captions, 600)
    config = read_recipe(RECIPES / "tiny.toml").text
    small = replace(
        config, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        vocab_size=len(vocab), bos_token_id=len(vocab) - 2, eos_token_id=len(vocab) - 1,
    )  # fmt: skip
    torch.manual_seed(1)
    encoder = CLIPTextEncoder(small)
    tokenizer = Tokenizer(vocab, merges, config.max_position_embeddings, frozenset())
    return TextStage(encoder, tokenizer, batch=5, seed=3, precision="float32", share=share)


def learned_coder(_: Path, share: Share) -> Stage:
    return coder(VAELoss(crop=16), share)


def computed_coder(_: Path, share: Share) -> Stage:
    return coder(VAELoss(crop=16, encoder="principal"), share)


def coder(settings: VAELoss, share: Share) -> Stage:
    pictures = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    torch.manual_seed(1)
    vae = AutoencoderKL(
        VAEConfig(block_out_channels=(8, 16, 32), layers_per_block=1, latent_channels=4, norm_num_groups=4)
    )
    return VAEStage(
        vae,
        pictures,
        settings,
        batch=5,
        steps=10,
        seed=3,
        held_out=pictures,
        precision="float32",
        share=share,
    )


@pytest.mark.parametrize("make", [joint, reading, learned_coder, computed_coder])
@pytest.mark.parametrize("count", [2, 6])
def test_losses_and_gradients_of_the_shares_average_to_those_of_one_process(
    make: type, count: int, tmp_path: Path
) -> None:
    def found(share: Share) -> tuple[float, list[Tensor]]:
        stage = make(tmp_path, share)
        loss = stage.loss(4)
        loss.backward()
        return float(loss.detach()), [p.grad for p in stage.modules.parameters() if p.grad is not None]

    whole, gradients = found(Share())
    parts = [found(Share(rank, count)) for rank in range(count)]
    assert np.mean([loss for loss, _ in parts]) == pytest.approx(whole, rel=1e-5)
    assert len({loss for loss, _ in parts}) > 1  # they did not all compute the same
    for i, gradient in enumerate(gradients):
        mean = torch.stack([each[i] for _, each in parts]).mean(0)
        torch.testing.assert_close(mean, gradient, rtol=1e-3, atol=1e-5)


def test_one_process_needs_no_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.setenv("WORLD_SIZE", "1")
    with together("cpu") as processes:
        assert processes.main
        assert processes.share == Share()
        assert processes.first(lambda: 3) == processes.alone(lambda: 3) == 3
        assert processes.agree(torch.ones(()), True) == (torch.ones(()), True)


def test_several_without_accelerate_are_told_once_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match=r"accelerate, which is not installed.*\.\[train\]"), together("cpu"):
        pass
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit), together("cpu"):
        pass


def test_an_error_goes_through_where_there_is_one_process() -> None:
    def fail() -> None:
        raise UserError("no space")

    with pytest.raises(UserError, match="no space"):
        Processes().alone(fail)


def launch(*arguments: str) -> subprocess.Popen[str]:
    """Two processes that train, as the guide says they are started."""
    launcher = [
        sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu",
        "--num_processes", "2", "--main_process_port", "0", "--module", "ui.cli", "train",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.Popen(
        [*launcher, *arguments, "--device", "cpu"], cwd=CHECKOUT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def changes(*more: str) -> list[str]:
    return [text for change in (*POINTS, *more) for text in ("--set", change)]


POINTS_RECIPE = str(RECIPES / "points.toml")


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(tmp_path: Path) -> None:
    two = launch(POINTS_RECIPE, *changes(), "--out", str(tmp_path / "two"))
    said, _ = two.communicate(timeout=280)
    assert two.returncode == 0, said
    assert said.count("unet 100:") == 1  # one of them speaks
    train(RECIPES / "points.toml", POINTS, out=tmp_path / "one", device="cpu")
    ours, theirs = (read_lines(tmp_path / name / "unet.jsonl") for name in ("two", "one"))
    assert [line.keys() for line in ours] == [line.keys() for line in theirs]
    for name in ("loss", "test_loss"):
        values = [[line[name] for line in lines if name in line] for lines in (ours, theirs)]
        assert values[0] == pytest.approx(values[1], abs=1e-4)
    assert len(list((tmp_path / "two" / "tensorboard" / "unet").iterdir())) == 1
    assert Pipeline.load(tmp_path / "two" / "model", device="cpu").generate(seed=1).images


@pytest.mark.slow
def test_ctrl_c_ends_both_after_the_same_step_and_the_run_goes_on(tmp_path: Path) -> None:
    long = "train.unet.steps=100000", "train.unet.sample_every=0"
    two = launch(POINTS_RECIPE, *changes(*long), "--out", str(tmp_path))
    while not (tmp_path / "unet.checkpoint").exists():
        assert two.poll() is None, two.communicate()[0]
        time.sleep(0.1)
    two.send_signal(signal.SIGINT)
    said, _ = two.communicate(timeout=120)
    stopped = re.findall(r"stopped after step (\d+)", said)
    assert len(stopped) == 1, said
    done = int(stopped[0])
    assert torch.load(tmp_path / "unet.checkpoint", weights_only=True)["step"] == done
    more = f"train.unet.steps={done + 1}", "train.unet.sample_every=0"
    assert train(RECIPES / "points.toml", [*POINTS, *more], resume=True, out=tmp_path, device="cpu").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "sentence"),
    [("train.unet.stesp=3", "did you mean 'steps'"), ("seed=1", "a file is in the way where a folder")],
)
def test_an_error_ends_both_and_is_said_once(tmp_path: Path, change: str, sentence: str) -> None:
    """One that all meet, and one of the main process alone, which cannot write its samples."""
    (tmp_path / "samples").write_text("in the way")
    two = launch(POINTS_RECIPE, *changes(change), "--out", str(tmp_path))
    said, _ = two.communicate(timeout=280)
    assert two.returncode != 0
    assert said.count("latentcanvas: error:") == said.count(sentence) == 1, said
    kept = tmp_path / "unet.checkpoint"
    assert kept.exists() == (change == "seed=1")
