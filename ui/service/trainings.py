"""Trainings that the page starts: one at a time, on a separate thread, independent of any page.

A training belongs to the server, not to a page: it continues when the page is reloaded or closed, and every
page can follow it. Its files are in `runs/NAME`, as those of the command `train`, and an unfinished run there
can be resumed. The finished model is copied to the folder that the page lists models from. Nothing here
imports torch before a training starts.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import shutil
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from core.checks import check_whole
from core.errors import Cancelled, UserError
from core.files import check_writable, plain_errors
from core.learn.training import STAGES, StageSeen
from core.memory import release_memory
from core.toml_records import read_toml
from core.training.resume import RECIPE, only_one, unfinished
from core.weights import find
from ui.service.model_thread import sentence_of

if TYPE_CHECKING:
    from core.training.progress import TrainingProgress
    from core.training.training_recipe import TrainingRecipe

State = Literal["running", "stopping", "stopped", "done", "failed"]
RECIPES = {
    "points": "points: a cloud in the plane, half a minute",
    "toy": "toy: digits without words, minutes",
    "conditional": "conditional: digits by name, minutes",
    "ddpm": "ddpm: digits with attention, longer",
    "latent": "latent: coloured shapes, with a VAE first",
}
DENSITIES = ("moons", "spiral", "grid", "letters")
MOST_STEPS = 1_000_000
LOOKS = 8  # number of times that a run draws samples and measures the held-out loss
CLOSING_SECONDS = 20.0


class Training:
    """One training. Only its own thread changes it; any thread may read it.

    state: "running", "stopping" until its next step, and then "stopped", "done" or "failed". error: why it
    failed, in one sentence; trouble: a warning about a finished training. model: the name or path to load the
    finished model by. changes: grows whenever there is something new to draw.
    """

    def __init__(self, name: str, recipe: Path, folder: Path, overrides: tuple[str, ...] = ()) -> None:
        self.name, self.recipe, self.folder, self.overrides = name, recipe, folder, overrides
        self.state: State = "running"
        self.error = self.trouble = self.model = ""
        self.stop = threading.Event()
        self.stages: dict[str, StageSeen] = {}
        self.samples: tuple[int, Path] | None = None
        self.changes = 0
        self._lock = threading.Lock()
        self._now: StageSeen | None = None
        self._began = self._last = 0.0
        self._first = 0  # steps of this stage done before it was timed

    @property
    def going(self) -> bool:
        """Whether its thread still runs."""
        return self.state in ("running", "stopping")

    @property
    def words(self) -> str:
        """Its progress, in a sentence."""
        stage = self._now
        if stage is None:
            return "Preparing the data."
        where = f"Step {stage.done} of {stage.steps} of {stage.words}"
        if not self.going:
            return f"{where}."
        if stage.done == stage.steps:
            return f"{where}: saving the model."
        left = self.seconds_left
        return f"{where}." if left is None else f"{where}, about {_duration(left)} left."

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds left of this stage, samples included; None before its second step."""
        stage = self._now
        if stage is None or stage.done <= self._first:
            return None
        each = (self._last - self._began) / (stage.done - self._first)
        return max(each * (stage.steps - stage.done) - (time.monotonic() - self._last), 0.0)

    def take(self, progress: TrainingProgress) -> None:
        """Record the progress that the training reports."""
        stage = self.stages.setdefault(progress.stage, StageSeen(progress.stage, progress.steps))
        stage.done, stage.steps = progress.done, progress.steps
        self._last = time.monotonic()
        if stage is not self._now:
            self._now, self._began, self._first = stage, self._last, progress.done
        if progress.loss is not None:
            stage.losses.add(progress.done, float(progress.loss))
        held_out = progress.figures.get("test_loss", math.nan)
        if math.isfinite(held_out):
            before = [point for point in stage.held_out if point[0] < progress.done]
            stage.held_out = [*before, (progress.done, held_out)]
        if progress.samples is not None:
            self.samples = progress.done, progress.samples
        self.changes += 1

    def recall(self) -> None:
        """Read the losses in its folder's logs, if another process started it. Raises UserError.

        A line is the mean of some steps, plotted at the last of them.
        """
        from core.training.log import read_lines

        recipe = _read_recipe(self.recipe, self.overrides)
        for name in STAGES:
            settings, lines = getattr(recipe.train, name), read_lines(self.folder / f"{name}.jsonl")
            if settings is None or not lines:
                continue
            self.stages[name] = seen = StageSeen(name, settings.steps)
            for line in lines:
                seen.done = int(line["step"])
                if "loss" in line:
                    seen.losses.add(seen.done, line["loss"])
                if math.isfinite(line.get("test_loss", math.nan)):
                    seen.held_out.append((seen.done, line["test_loss"]))
        self.changes += 1

    def begin_again(self) -> None:
        """Set it to running again after a stop."""
        self.state, self.error, self.stop = "running", "", threading.Event()
        self._now = None

    def ask_to_stop(self) -> None:
        """Stop after the next step, if it runs."""
        with self._lock:
            if self.state == "running":
                self.state = "stopping"
                self.stop.set()

    def end(self, state: State, error: str = "") -> None:
        """Set its final state."""
        with self._lock:
            self.error = error
            self.changes += 1
            self.state = state  # last: a reader that sees it must find the rest


class Trainer:
    """The training of this server, one at a time.

    device: what to train on, called at each start; None for the fastest available. runs: the parent folder of
    trainings.
    """

    def __init__(self, device: Callable[[], str | None] = lambda: None, runs: Path = Path("runs")) -> None:
        self._device, self._runs = device, runs
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.current: Training | None = None

    def start(self, recipe: str, steps: int, density: str = "moons") -> Training:
        """Start a training in a new folder.

        Raises UserError for a bad value, if one runs already, and if the folder cannot be written.
        """
        asked = overrides_of(recipe, steps, density)
        with self._lock:
            self._check_free()
            name = self._claim(f"points-{density}" if recipe == "points" and density != "moons" else recipe)
            folder, overrides = self._runs / name, (*asked, f"name={json.dumps(name)}")
            try:
                _read_recipe(recipe_path(recipe), overrides)
                check_writable(folder)
            except UserError:
                with contextlib.suppress(OSError):
                    folder.rmdir()
                raise
            self.current = training = Training(name, recipe_path(recipe), folder, overrides)
            self._begin(training, resume=False)
        return training

    def stop(self) -> None:
        """Stop the running training, after its next step and a checkpoint."""
        if self.current is not None:
            self.current.ask_to_stop()

    def unfinished(self) -> list[str]:
        """The names of trainings that can be resumed: the one stopped or failed here, then runs with a
        checkpoint of earlier servers or the command, the newest first.
        """
        current, names = self.current, [folder.name for folder in unfinished(self._runs)]
        if current is None or current.state == "done":
            return names
        others = [name for name in names if name != current.name]
        return others if current.going else [current.name, *others]

    def go_on(self, name: str = "") -> Training:
        """Resume the unfinished training of that name, or else the first one.

        Raises UserError if there is none, if another process trains it, and if its recipe cannot be read.
        """
        with self._lock:
            self._check_free()
            known = self.unfinished()
            if not known:
                raise UserError("there is no unfinished training; press Train to start one")
            wanted = name or known[0]
            if wanted not in known:
                raise UserError(f"{wanted} is no longer among the unfinished runs; choose another")
            training = self.current
            if training is None or training.name != wanted:
                training = Training(wanted, self._runs / wanted / RECIPE, self._runs / wanted)
                try:
                    _read_recipe(training.recipe)
                except UserError as error:
                    raise UserError(f"{wanted} cannot be resumed: {error}") from None
            check_writable(training.folder)
            with only_one(training.folder):  # raises now, not after the data is prepared
                pass
            training.begin_again()
            self.current = training
            self._begin(training, resume=True)
        return training

    def close(self, seconds: float = CLOSING_SECONDS) -> None:
        """Stop, and wait until the checkpoint is written, when the server ends."""
        self.stop()
        if self._thread is not None:
            self._thread.join(seconds)

    def _check_free(self) -> None:
        if self.current is not None and self.current.going:
            raise UserError(f"{self.current.name} is in training; stop it first, or wait until it ends")

    def _claim(self, wanted: str) -> str:
        """An unused name of a run and model, with its folder created. Raises UserError."""
        with plain_errors(self._runs):
            self._runs.mkdir(parents=True, exist_ok=True)
        taken = {find.model_name(path) for path in find.installed()}
        for number in count(1):
            name = wanted if number == 1 else f"{wanted}-{number}"
            if name in taken:
                continue
            with plain_errors(self._runs / name), contextlib.suppress(FileExistsError):
                (self._runs / name).mkdir()
                return name
        raise AssertionError("there is always a next number")

    def _begin(self, training: Training, *, resume: bool) -> None:
        if self._thread is None:
            atexit.register(self.close)
        self._thread = threading.Thread(
            target=self._work, args=(training, resume), name="training", daemon=True
        )
        self._thread.start()

    # On the training's thread.

    def _work(self, training: Training, resume: bool) -> None:
        try:
            model = self._train(training, resume)
            training.model, training.trouble = installed(model, training.name)
            training.end("done")
        except Cancelled:
            training.end("stopped")
        except BaseException as error:  # whatever it was, the page must show the end
            training.end("failed", sentence_of(error, "the training failed"))
        finally:
            release_memory()

    def _train(self, training: Training, resume: bool) -> Path:
        from core.training.trainer import train

        if resume and not training.stages:
            training.recall()
        return train(
            training.recipe,
            training.overrides,
            resume,
            training.folder,
            self._device(),
            training.stop,
            watch=training.take,
        )


def recipe_path(recipe: str) -> Path:
    """The file of a built-in recipe."""
    return find.DATA / "recipes" / f"{recipe}.toml"


def usual_steps(recipe: str) -> int:
    """The UNet's training steps in a recipe, read without torch. Raises UserError."""
    steps: int = read_toml(recipe_path(recipe))["train"]["unet"]["steps"]
    return steps


def installed(model: Path, name: str) -> tuple[str, str]:
    """Copy a finished model to the folder that the page lists: (name to load it by, warning).

    If that folder cannot be written, the model is loaded from its own folder.
    """
    target, part = find.MODELS / name, find.MODELS / f".{name}"
    try:
        with plain_errors(target):
            find.MODELS.mkdir(parents=True, exist_ok=True)
            shutil.copytree(model, part, dirs_exist_ok=True)
            part.rename(target)  # whole, or not listed
    except UserError as error:
        shutil.rmtree(part, ignore_errors=True)
        return str(model), f"the model is in {model}, and could not be copied to data/models: {error}"
    return name, ""


def overrides_of(recipe: str, steps: int, density: str) -> tuple[str, ...]:
    """Overrides of the recipe, as for `--set`. Raises UserError."""
    if recipe not in RECIPES:
        raise UserError(f"recipe {recipe!r}: must be one of {', '.join(RECIPES)}")
    check_whole("steps", steps, 1, MOST_STEPS)
    often = max(math.ceil(steps / LOOKS), 1)
    changed = [
        f"train.unet.steps={steps}",
        f"train.unet.measure_every={often}",
        f"train.unet.sample_every={often}",
    ]
    if recipe == "points":
        if density not in DENSITIES:
            raise UserError(f"data {density!r}: must be one of {', '.join(DENSITIES)}")
        changed.append(f"data.density={density}")
    return tuple(changed)


def _read_recipe(path: Path, overrides: tuple[str, ...] = ()) -> TrainingRecipe:
    """Raises UserError for a damaged file, and for values that contradict each other."""
    from core.training.training_recipe import read_recipe

    return read_recipe(path, overrides)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
