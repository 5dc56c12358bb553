"""Training from the page: begun, watched, stopped, gone on with, refused to guests, and what goes wrong."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from core.figures.plots import Paper
from core.inference.pipeline import Pipeline
from core.training.densities import DENSITIES as KNOWN_DENSITIES
from core.training.stages.diffusion import DiffusionStage
from core.training.training_recipe import read_recipe
from core.weights.find import model_names
from tests.ui.trainings import (
    FIGURE,
    GO_ON,
    GUEST,
    ME,
    NOTICE,
    STOP,
    TRAIN,
    USE,
    begun,
    collected,
    ended,
    losing,
    slow,
    steps_done,
    until,
)
from tests.ui.trainings import trainer as trainer
from tests.ui.trainings import view as view
from ui.page.tabs.learn.train import Train
from ui.service import trainings
from ui.service.trainings import DENSITIES, RECIPES, Trainer, recipe_path, usual_steps

# To the end.


def test_a_training_is_watched_to_its_end(view: Train, trainer: Trainer) -> None:
    told = begun(view, 9)
    assert "Starting..." in told[0][NOTICE]
    assert told[0][TRAIN].interactive is False
    last = told[-1]
    assert "the model is named points" in last[NOTICE]
    assert (last[TRAIN].interactive, last[STOP].interactive) == (True, False)
    assert (last[GO_ON].visible, last[USE].visible) == (False, True)
    assert "Loss of the UNet after 9 of 9 steps" in last[FIGURE]
    assert "svg" in last[FIGURE]
    assert "raw weights, step 9" in last[FIGURE]
    assert "averaged weights, step 9" in last[FIGURE]
    stage = ended(trainer).stages["unet"]
    assert [step for step, _ in stage.losses.points] == list(range(1, 10))
    assert [step for step, _ in stage.held_out] == [2, 4, 6, 8, 9]  # an eighth of the run, and its end
    with Image.open(io.BytesIO(view.show().png(Paper()))) as sheet:
        assert sheet.width == 1000


def test_the_model_stands_among_the_others_and_makes_pictures(view: Train, tmp_path: Path) -> None:
    before = model_names()
    begun(view, 2, "spiral")
    assert view.trained() == "points-spiral"
    assert set(model_names()) - set(before) == {"points-spiral"}
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["points-spiral"]
    pipe = Pipeline.load("points-spiral", device="cpu")
    assert pipe.name == "points-spiral"
    assert pipe.generate(seed=1).images[0].size == (64, 64)
    assert 'density = "spiral"' in (tmp_path / "runs/points-spiral/model/recipe.toml").read_text()


def test_no_run_goes_into_the_folder_of_another(view: Train, trainer: Trainer, tmp_path: Path) -> None:
    (tmp_path / "runs" / "points").mkdir(parents=True)
    (tmp_path / "models" / "points-2").mkdir(parents=True)
    begun(view, 1)
    assert ended(trainer).name == "points-3"
    begun(view, 1)
    assert view.trained() == "points-4"
    assert list((tmp_path / "runs" / "points").iterdir()) == []


def test_one_training_at_a_time(view: Train, trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    slow(monkeypatch)
    trainer.start("points", 500)
    [_, refused] = begun(view, 5)
    assert "points is in training; stop it first" in refused[NOTICE].lower()
    assert refused[STOP].interactive is True
    assert "stop it first" in collected(view.on_go_on(False, ME))[1][NOTICE]  # pyrefly: ignore[bad-argument-type]


def test_a_page_that_is_opened_again_follows_what_runs(
    view: Train, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, 0.2)
    assert "Choose a recipe" in collected(view.on_open(False, ME))[0][FIGURE]  # pyrefly: ignore[bad-argument-type]
    trainer.start("points", 8)
    until(lambda: steps_done(trainer) >= 2)
    told = collected(view.on_open(True, ME))  # pyrefly: ignore[bad-argument-type]
    assert "Loss of the UNet" in told[0][FIGURE]
    assert "core/training/stages/diffusion.py:" in told[0][1]
    assert "Step " in told[0][NOTICE]
    assert "left" in told[0][NOTICE]
    assert told[0][STOP].interactive is True
    assert told[-1][USE].visible is True


# Stopped, and gone on with.


def test_a_stopped_training_goes_on_where_it_was(
    view: Train, trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch)
    trainer.start("points", 40)
    until(lambda: steps_done(trainer) >= 3)
    told = view.on_stop(ME)  # pyrefly: ignore[bad-argument-type]
    assert "Stopping after the next step" in told[NOTICE]
    assert (told[TRAIN].interactive, told[STOP].interactive) == (False, False)
    stopped = ended(trainer)
    assert stopped.state == "stopped"
    done = steps_done(trainer)
    assert 3 <= done < 40
    saved = torch.load(tmp_path / "runs/points/unet.checkpoint", weights_only=True)
    assert saved["step"] == done
    [told] = collected(view.on_open(False, ME))  # pyrefly: ignore[bad-argument-type]
    assert "Stopped; a checkpoint is saved." in told[NOTICE]
    assert (told[GO_ON].visible, told[USE].visible) == (True, False)
    last = collected(view.on_go_on(False, ME))[-1]  # pyrefly: ignore[bad-argument-type]
    assert "the model is named points" in last[NOTICE]
    assert [step for step, _ in ended(trainer).stages["unet"].losses.points] == list(range(1, 41))


def test_the_end_of_the_server_leaves_a_checkpoint(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch)
    trainer.start("points", 500)
    until(lambda: steps_done(trainer) >= 1)
    trainer.close()
    assert ended(trainer).state == "stopped"
    assert (tmp_path / "runs/points/unet.checkpoint").is_file()


def test_there_is_nothing_to_go_on_with(view: Train) -> None:
    for _ in range(2):  # before any, and after one that is finished
        told = collected(view.on_go_on(False, ME))[-1]  # pyrefly: ignore[bad-argument-type]
        assert "no unfinished training" in told[NOTICE]
        begun(view, 1)


# What goes wrong.


@pytest.mark.parametrize(
    ("steps", "density", "words"),
    [
        (0, "moons", "steps 0: must be"),
        (-5, "moons", "steps -5: must be"),
        (2.5, "moons", "steps 2.5: must be"),
        (1e300, "moons", "must be a whole number"),
        (10_000_000, "moons", "must be a whole number"),
        (None, "moons", "steps: enter a number"),
        ("many", "moons", "steps: enter a number"),
        (5, "stars", "must be one of moons"),
    ],
)
def test_a_bad_value_is_said_and_nothing_begins(
    view: Train, trainer: Trainer, tmp_path: Path, steps: Any, density: str, words: str
) -> None:
    _, last = begun(view, steps, density)
    assert 'role="alert"' in last[NOTICE]
    assert words in last[NOTICE].lower()
    assert last[TRAIN].interactive is True
    assert trainer.current is None
    assert not (tmp_path / "runs").exists()


def test_a_recipe_that_is_not_offered_is_refused(view: Train, trainer: Trainer) -> None:
    told = collected(view.on_start(False, ME, "../../etc/passwd", 5, "moons"))  # pyrefly: ignore[bad-argument-type]
    assert "must be one of points" in told[-1][NOTICE]
    assert trainer.current is None


def test_a_folder_that_cannot_be_written_is_said(view: Train, trainer: Trainer, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    _, last = begun(view)
    assert "a file is in the way" in last[NOTICE]
    assert trainer.current is None


def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_room(
    view: Train, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, sync = [False], os.fsync
    real = DiffusionStage.loss

    def loss(stage: DiffusionStage, step: int) -> Tensor:
        full[0] = full[0] or step == 3
        return real(stage, step)

    def fsync(descriptor: int) -> None:
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    losing(monkeypatch, loss)
    told = begun(view, 6)
    assert "no space left on the disk" in told[-1][NOTICE]
    assert ended(trainer).state == "failed"
    assert told[-1][GO_ON].visible is True
    assert "no space left" in collected(view.on_go_on(False, ME))[-1][NOTICE]  # pyrefly: ignore[bad-argument-type]
    losing(monkeypatch, real)
    full[0] = False
    assert "named points" in collected(view.on_go_on(False, ME))[-1][NOTICE]  # pyrefly: ignore[bad-argument-type]
    assert [step for step, _ in ended(trainer).stages["unet"].losses.points] == list(range(1, 7))


def test_a_loss_that_is_no_number_is_said(
    view: Train, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DiffusionStage.loss
    losing(monkeypatch, lambda stage, step: real(stage, step) * (float("nan") if step == 2 else 1.0))
    told = begun(view)
    assert "not a number at step 2" in told[-1][NOTICE]
    assert ended(trainer).state == "failed"
    assert "Loss of the UNet after 2 of 6 steps" in told[-1][FIGURE]


def test_what_nobody_expected_is_one_sentence(view: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(stage: DiffusionStage, step: int) -> Tensor:
        raise RuntimeError("boom")

    losing(monkeypatch, broken)
    told = begun(view)
    assert "The training failed: RuntimeError: boom" in told[-1][NOTICE]
    assert "Traceback" not in str(told)


def test_a_model_that_cannot_be_put_among_the_others_is_used_where_it_is(
    view: Train, trainer: Trainer, tmp_path: Path
) -> None:
    (tmp_path / "models").write_text("a file")
    told = begun(view, 1)
    assert "could not be copied to data/models" in told[-1][NOTICE]
    assert told[-1][USE].visible is True
    assert Pipeline.load(view.trained(), device="cpu").name == "points"


# Guests.


def test_a_guest_may_watch_and_change_nothing(
    view: Train, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    [told] = begun(view, who=GUEST)
    assert "only the person at the machine" in told[NOTICE].lower()
    slow(monkeypatch)
    running = trainer.start("points", 500)  # nothing ran yet, or this would be refused
    until(lambda: steps_done(trainer) >= 2)
    told = view.on_stop(GUEST)  # pyrefly: ignore[bad-argument-type]
    assert (told[TRAIN].interactive, told[STOP].interactive) == (False, False)
    assert running.state == "running"
    trainer.stop()
    told = collected(view.on_open(False, GUEST))[-1]  # pyrefly: ignore[bad-argument-type]
    assert "Loss of the UNet" in told[FIGURE]
    assert (told[TRAIN].interactive, told[GO_ON].visible) == (False, False)
    [told] = collected(view.on_go_on(False, GUEST))  # pyrefly: ignore[bad-argument-type]
    assert "only the person" in told[NOTICE].lower()
    assert ended(trainer).state == "stopped"


def test_a_guest_is_not_told_what_is_on_the_machine(view: Train, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    assert str(tmp_path) in begun(view, 1)[-1][NOTICE]
    [told] = collected(view.on_open(False, GUEST))  # pyrefly: ignore[bad-argument-type]
    assert str(tmp_path) not in str(told)


# The recipes that come with the project.


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_recipe_can_be_asked_for(recipe: str) -> None:
    steps = usual_steps(recipe)
    made = read_recipe(recipe_path(recipe), trainings.overrides_of(recipe, steps, "letters"))
    assert made.train.unet.steps == steps == read_recipe(recipe_path(recipe)).train.unet.steps
    assert made.train.unet.sample_every < steps
    assert made.data.kind != "points" or made.data.density == "letters"


def test_every_density_is_offered() -> None:
    assert set(DENSITIES) == set(KNOWN_DENSITIES)


def test_what_the_page_asks_before_a_training_needs_no_torch() -> None:
    code = (
        "import sys; from ui.service.trainings import usual_steps; usual_steps('toy'); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
