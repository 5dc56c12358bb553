"""Runs that are stopped, killed and damaged: what is kept, and that they go on to the same losses."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor, nn

from core.errors import Cancelled, UserError
from core.inference.pipeline import Pipeline
from core.training import trainer
from core.training.log import read_lines
from core.training.resume import LOCK, only_one, unfinished
from core.training.stages.diffusion import DiffusionStage
from core.training.stages.text_encoder import TextStage
from core.training.trainer import train
from core.training.training_loop import LoopSettings, Precision, train_stage
from core.training.training_recipe import read_recipe
from ui import cli

CHECKOUT = Path(__file__).resolve().parents[2]
RECIPES = CHECKOUT / "data" / "recipes"
PIXELS = (
    "pictures.unet=24", "pictures.size=8", "defaults.width=8", "defaults.height=8", "defaults.steps=2",
    "unet.block_out_channels=[4,8]", "unet.norm_num_groups=2",
    "train.unet.batch=2", "train.unet.save_every=1000", "train.unet.measure_every=1000",
    "train.unet.sample_every=0", "train.unet.precision=float32", "train.unet.optimizer=adamw",
    "vocabulary.captions=50",
)  # fmt: skip
POINTS = (
    "pictures.unet=64", "unet.block_out_channels=[8]", "defaults.width=64", "defaults.height=64",
    "defaults.steps=2", "train.unet.batch=4", "train.unet.optimizer=adamw", "train.unet.steps=400",
    "train.unet.save_every=30", "train.unet.measure_every=200", "train.unet.sample_every=0",
)  # fmt: skip


@pytest.mark.parametrize("steps", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_a_run_is_its_two_halves_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Of pixels, with a text encoder that learns too."""
    stop, losses, real = threading.Event(), [], DiffusionStage.loss

    def loss(stage: DiffusionStage, step: int) -> Tensor:
        found = real(stage, step)
        losses.append(float(found.detach()))
        if step == steps // 2 - 1 and not resumed:
            stop.set()
        return found

    resumed = False
    monkeypatch.setattr(DiffusionStage, "loss", loss)
    path, changes = RECIPES / "conditional.toml", (*PIXELS, f"train.unet.steps={steps}")
    with pytest.raises(Cancelled, match=f"after step {steps // 2} "):
        train(path, changes, out=tmp_path / "parts", device="cpu", stop=stop)
    resumed = True
    train(path, changes, resume=True, out=tmp_path / "parts", device="cpu")
    parts = losses.copy()
    losses.clear()
    train(path, changes, out=tmp_path / "whole", device="cpu")
    assert len(losses) == steps
    assert parts == losses
    one, other = (torch.load(tmp_path / name / "unet.checkpoint") for name in ("parts", "whole"))
    for part in ("weights", "averaged"):
        assert all(torch.equal(one[part][key], value) for key, value in other[part].items())


def test_a_run_killed_in_the_middle_goes_on(tmp_path: Path) -> None:
    """By SIGKILL, wherever it is just then, writing a checkpoint perhaps."""
    code = "import sys; from ui.cli import main; sys.exit(main())"
    changes = (*POINTS, "train.unet.steps=160")
    arguments = [text for change in changes for text in ("--set", change)]
    killed = subprocess.Popen(
        [sys.executable, "-c", code, "train", str(RECIPES / "points.toml"), *arguments,
         "--device", "cpu", "--out", str(tmp_path / "run")],
        cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (tmp_path / "run" / "unet.checkpoint").exists():
        assert killed.poll() is None, killed.communicate()[1]
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL  # before its end
    assert not (tmp_path / "run" / "model").exists()
    at = torch.load(tmp_path / "run" / "unet.checkpoint")["step"]
    assert 0 < at < 160
    model = train(RECIPES / "points.toml", changes, resume=True, out=tmp_path / "run", device="cpu")
    train(RECIPES / "points.toml", changes, out=tmp_path / "whole", device="cpu")
    parts, whole = (read_lines(tmp_path / name / "unet.jsonl") for name in ("run", "whole"))
    assert [line["step"] for line in parts] == [line["step"] for line in whole]
    # The mean that was being taken when it was killed has lost the steps before the checkpoint.
    settled = [i for i, line in enumerate(whole) if "test_loss" in line or line["step"] - 50 >= at]
    for i in settled:
        for name in whole[i].keys() - {"seconds"}:
            assert parts[i][name] == pytest.approx(whole[i][name], rel=1e-3)
    assert Pipeline.load(model, device="cpu").generate(seed=1).images


def test_a_run_goes_on_by_the_recipe_in_its_folder(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Cancelled, match="after step 1 of unet"):
        train(RECIPES / "points.toml", POINTS, out=tmp_path / "run", device="cpu", stop=stop)
    own = tmp_path / "run" / "recipe.json"
    with pytest.raises(UserError, match="already holds a run"):
        train(own, device="cpu")
    made = train(own, ("train.unet.steps=7",), resume=True, device="cpu")
    assert made == tmp_path / "run" / "model"
    assert torch.load(tmp_path / "run" / "unet.checkpoint")["step"] == 7
    assert read_recipe(own).train.unet.batch == 4  # as it was asked for at first
    assert unfinished(tmp_path) == []


def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """Its recipe lacks what that version did not know, which is then as it was."""
    short = (*POINTS, "train.unet.steps=2")
    train(RECIPES / "points.toml", short, out=tmp_path, device="cpu")
    own = tmp_path / "recipe.json"
    values = json.loads(own.read_text())
    del values["latents"]["patch"], values["train"]["unet_loss"]["tilt"]
    own.write_text(json.dumps(values))
    train(RECIPES / "points.toml", short, resume=True, out=tmp_path, device="cpu")
    assert json.loads(own.read_text())["latents"]["patch"] == 1
    own.write_text("{")
    with pytest.raises(UserError, match=r"recipe\.json"):
        train(RECIPES / "points.toml", short, resume=True, out=tmp_path, device="cpu")


def test_two_trainings_do_not_share_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    short = (*POINTS, "train.unet.steps=2")
    with only_one(folder), pytest.raises(UserError, match="run is in training elsewhere: stop it there"):
        train(RECIPES / "points.toml", short, out=folder, device="cpu")
    assert [path.name for path in folder.iterdir()] == [LOCK]
    assert train(RECIPES / "points.toml", short, out=folder, device="cpu").is_dir()


def test_a_file_system_without_locks_trains_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(lock: FileLock) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", none)
    with only_one(tmp_path):
        pass


def test_unfinished_runs_are_those_with_a_checkpoint_and_no_model(tmp_path: Path) -> None:
    for name, files in {
        "old": ("recipe.json", "unet.checkpoint"),
        "new": ("recipe.json", "vae.checkpoint"),
        "begun": ("recipe.json",),
        "strange": ("unet.checkpoint",),
        "done": ("recipe.json", "unet.checkpoint", "model/README.md"),
    }.items():
        for file in files:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).touch()
    os.utime(tmp_path / "old" / "unet.checkpoint", (1, 1))
    (tmp_path / "a-file").touch()
    assert [folder.name for folder in unfinished(tmp_path)] == ["new", "old"]
    assert unfinished(tmp_path / "nowhere") == []


class Line:
    """A stage of one matrix."""

    name = "line"

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.modules: nn.Module = nn.Linear(16, 16)

    def loss(self, step: int) -> Tensor:
        x = torch.randn((8, 16), generator=torch.Generator().manual_seed(step))
        loss: Tensor = (self.modules(x) - x).square().mean()
        return loss

    def measure(self) -> dict[str, float]:
        return {}


LOOP = LoopSettings(steps=20, batch=8, learning_rate=1e-2, save_every=10)


def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    train_stage(Line(), LOOP, tmp_path, resume=False)
    path = tmp_path / "line.checkpoint"
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no checkpoint"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"line\.checkpoint is damaged .*delete it") as refusal:
            train_stage(Line(), LOOP, tmp_path, resume=True)
        assert "\n" not in str(refusal.value)


def test_a_run_goes_on_with_its_optimizer_and_with_the_weight_decay_that_is_asked_for(tmp_path: Path) -> None:
    train_stage(Line(), LOOP, tmp_path, resume=False)
    with pytest.raises(UserError, match="optimizer adamw"):
        train_stage(Line(), replace(LOOP, optimizer="muon"), tmp_path, resume=True)
    heavy = replace(LOOP, steps=200, weight_decay=20.0, decay=0.0)
    plain = train_stage(Line(), replace(heavy, weight_decay=0.0), tmp_path, resume=True)["weight"]
    train_stage(Line(), LOOP, tmp_path, resume=False)
    assert train_stage(Line(), heavy, tmp_path, resume=True)["weight"].norm() < 0.8 * plain.norm()


def test_a_loss_that_is_no_number_is_one_sentence_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = DiffusionStage.loss
    monkeypatch.setattr(
        DiffusionStage, "loss", lambda stage, step: real(stage, step) * (1.0 if step < 35 else float("nan"))
    )
    arguments = [text for change in POINTS for text in ("--set", change)]
    code = cli.main(
        ["train", str(RECIPES / "points.toml"), *arguments, "--device", "cpu", "--out", str(tmp_path)]
    )
    assert code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith("is not a number at step 35: resume with a smaller learning_rate.")
    assert torch.load(tmp_path / "unet.checkpoint")["step"] == 30


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("train.unet.clip=0.0", "clip, the maximum gradient norm, must be above 0"),
        ("train.unet.learning_rate=-1.0", "learning_rate must be above 0"),
        ("train.unet.ema=1.0", "ema must be"),
        ("train.unet.decay=20.0", "decay, a share of the run, must be between 0 and 1"),
        ("train.unet.warmup=-1", "must not be negative"),
        ("train.unet_loss.dropout=10.0", "dropout must be between 0 and 1"),
        ("train.unet_loss.gamma=0.0", "gamma must be above 0"),
    ],
)
def test_settings_that_would_not_learn_are_refused(change: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_recipe(RECIPES / "toy.toml", [change])


@pytest.mark.parametrize(
    ("change", "words"), [("defaults.sampler=eulr", "euler"), ("defaults.schedule=karas", "karras")]
)
def test_a_sampler_that_is_not_there_is_found_before_anything_is_trained(
    tmp_path: Path, change: str, words: str
) -> None:
    with pytest.raises(UserError, match=f"'{words}'"):
        train(RECIPES / "toy.toml", [change], out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_pictures_without_captions_can_be_trained_with_words(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        Image.new("RGB", (8, 8), (40 * i, 10, 10)).save(tmp_path / "pictures" / f"{i}.png")
    changes = [
        *PIXELS, "data.kind=folder", f"data.path={tmp_path / 'pictures'}", "train.unet.steps=2",
        "train.unet.sample_every=2",
    ]  # fmt: skip
    model = train(RECIPES / "conditional.toml", changes, out=tmp_path / "run", device="cpu")
    assert Pipeline.load(model, device="cpu").model.examples == ()


def test_the_text_encoders_precision_is_the_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Precision] = []

    class Asked(TextStage):
        def __init__(self, *_: object, precision: Precision, **__: object) -> None:
            asked.append(precision)
            raise Cancelled

    monkeypatch.setattr(trainer, "TextStage", Asked)
    for precision in ("float32", "bfloat16"):
        changes = [f"train.text.precision={precision}", "vocabulary.captions=50"]
        with pytest.raises(Cancelled):
            train(RECIPES / "tiny.toml", changes, out=tmp_path / precision, device="cpu")
    assert asked == ["float32", "bfloat16"]
