"""Unfinished runs on the page: found by another server, gone on with by name, left alone, damaged, guests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.training.stages.diffusion import DiffusionStage
from tests.ui.trainings import (
    GO_ON,
    GUEST,
    LEFT,
    ME,
    NOTICE,
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
from ui.service.trainings import Trainer


def another_server(view: Train, trainer: Trainer) -> None:
    """The page as a server shows it that was started after the one that trained."""
    trainer.close()
    view.trainer = Trainer(lambda: "cpu")


def interrupted(trainer: Trainer, steps: int, after: int) -> str:
    """The name of a training that the end of its server stopped."""
    name = trainer.start("points", steps).name
    until(lambda: steps_done(trainer) >= after)
    trainer.close()
    ended(trainer)  # a busy machine may take longer than a server waits
    return name


def opened(view: Train, who: Any = ME) -> tuple[Any, ...]:
    return collected(view.on_open(False, who))[-1]


def test_another_server_goes_on_with_what_was_not_finished(
    view: Train, trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DiffusionStage.loss
    begun(view, 1)  # one that is finished
    slow(monkeypatch, 0.02)
    assert interrupted(trainer, 120, after=52) == "points-2"
    done = steps_done(trainer)
    (tmp_path / "runs" / "without-a-checkpoint").mkdir()
    another_server(view, trainer)
    losing(monkeypatch, real)
    told = opened(view)
    assert (told[GO_ON].visible, told[LEFT].visible, told[USE].visible) == (True, True, False)
    assert told[LEFT].choices == [("points-2", "points-2")]
    assert told[LEFT].value == "points-2"
    told = collected(view.on_go_on(False, ME, "points-2"))[-1]  # pyrefly: ignore[bad-argument-type]
    assert "the model is named points-2" in told[NOTICE]
    assert (told[GO_ON].visible, told[LEFT].visible) == (False, False)
    stage = ended(view.trainer).stages["unet"]
    assert (stage.done, stage.steps) == (120, 120)  # as many as the first server was asked for
    assert [step for step, _ in stage.losses.points] == [50, *range(done + 1, 121)]  # 50: from the log
    assert (tmp_path / "models" / "points-2").is_dir()


def test_the_newest_unfinished_run_comes_first_and_any_can_be_chosen(
    view: Train, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DiffusionStage.loss
    slow(monkeypatch)
    for _ in range(2):
        interrupted(trainer, 8, after=1)
    another_server(view, trainer)
    losing(monkeypatch, real)
    assert opened(view)[LEFT].choices == [("points-2", "points-2"), ("points", "points")]
    told = collected(view.on_go_on(False, ME, "points"))[-1]  # pyrefly: ignore[bad-argument-type]
    assert "the model is named points " in told[NOTICE]
    assert told[LEFT].choices == [("points-2", "points-2")]
    assert (told[GO_ON].visible, told[USE].visible) == (True, True)


def test_a_run_that_another_process_trains_is_left_alone(
    view: Train, trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DiffusionStage.loss
    slow(monkeypatch)
    interrupted(trainer, 8, after=1)
    another_server(view, trainer)
    losing(monkeypatch, real)
    hold = (
        "import sys; from pathlib import Path; from core.training.resume import only_one\n"
        "with only_one(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / "runs" / "points")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], **pipes) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        told = collected(view.on_go_on(False, ME, "points"))[-1]  # pyrefly: ignore[bad-argument-type]
        assert "points is in training elsewhere: stop it there" in told[NOTICE]
        assert (told[TRAIN].interactive, told[LEFT].value) == (True, "points")
        assert view.trainer.current is None
        other.kill()  # as hard as can be: nothing stays locked
    assert "named points" in collected(view.on_go_on(False, ME, "points"))[-1][NOTICE]  # pyrefly: ignore[bad-argument-type]


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("recipe.json", "{", "recipe.json is damaged: it is not valid JSON"),
        ("recipe.json", "[]", "recipe.json is damaged: it must hold an object"),
        ("recipe.json", "{}", "oints cannot be resumed: recipe.json: name is missing"),
        ("unet.checkpoint", "cut", "unet.checkpoint is damaged or of another model"),
    ],
)
def test_a_damaged_run_is_one_sentence(
    view: Train,
    trainer: Trainer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    content: str,
    words: str,
) -> None:
    slow(monkeypatch)
    interrupted(trainer, 8, after=1)
    another_server(view, trainer)
    (tmp_path / "runs" / "points" / file).write_text(content)
    told = collected(view.on_go_on(False, ME, "points"))[-1]  # pyrefly: ignore[bad-argument-type]
    assert words in told[NOTICE]
    assert "Traceback" not in str(told)
    assert (told[TRAIN].interactive, told[GO_ON].visible) == (True, True)


def test_a_name_that_is_not_offered_is_refused(
    view: Train, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch)
    interrupted(trainer, 8, after=1)
    told = collected(view.on_go_on(False, ME, "../points"))[-1]  # pyrefly: ignore[bad-argument-type]
    assert "../points is no longer among the unfinished runs" in told[NOTICE]
    told = opened(view, GUEST)
    assert (told[GO_ON].visible, told[LEFT].visible, told[LEFT].choices) == (False, False, [])
