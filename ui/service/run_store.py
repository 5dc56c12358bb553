"""Finished runs: their image files, the steps next to them, and a row in the history.

They are written in that order, so a process killed in between leaves whole files, and images that the history
adds at its next sync. What could not be written stays in memory for a while; writing a row is retried in the
background.
"""

from __future__ import annotations

import io
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from core.errors import UserError
from core.files import write_numbered
from core.history import History, RunRow
from core.history.rows import run_id
from core.history.thumbnails import thumbnail
from core.images.saved_inputs import keep_inputs, kept_inputs
from core.images.source_images import ImageSource, Inputs, read_picture
from ui.service.model_thread import sentence_of
from ui.service.retry import Later

if TYPE_CHECKING:
    from core.inference.run import Result, Run
    from core.inference.trajectory import Trajectory
    from core.recipes.recipe import ModelRef
    from core.request.settings import Settings

MAX_RUNS = 32
MAX_BYTES = 256 * 2**20
MAX_OPEN = 16  # files of steps that stay open
NOT_SAVED = "not-saved.png"


@dataclass(frozen=True, eq=False)
class KeptRun:
    """A finished run.

    row: its row of the history, also if that could not be written. trajectory: its steps, None if they were
    not saved. pngs: the image files in memory, if they could not be written.
    """

    row: RunRow
    trajectory: Trajectory | None
    folder: Path
    pngs: tuple[bytes, ...] = ()

    @property
    def id(self) -> str:
        """The id that it is opened by."""
        return self.row.id

    @property
    def owner(self) -> str:
        """The token of its owner."""
        return self.row.owner

    @property
    def settings(self) -> Settings:
        """The settings of the whole batch."""
        return self.row.settings

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the image files."""
        return self.row.names

    @property
    def evals(self) -> int:
        """The model evaluations of the run."""
        return self.row.evals

    @property
    def stopped(self) -> bool:
        """Whether it was stopped before its last step."""
        return self.row.stopped

    @property
    def saved(self) -> bool:
        """Whether the images are saved as files."""
        return not self.pngs

    @property
    def seconds(self) -> Mapping[str, float]:
        """Its duration, by part if the steps were saved."""
        return {"total": self.row.seconds} if self.trajectory is None else self.trajectory.seconds

    @property
    def paths(self) -> list[Path]:
        """The image files; empty for a run that was not saved."""
        return [self.folder / name for name in self.names] if self.saved else []

    def png(self, image: int) -> bytes:
        """An image file, byte for byte. Raises UserError if it is missing."""
        if self.pngs:
            return self.pngs[image]
        try:
            return self.paths[image].read_bytes()
        except FileNotFoundError:
            raise UserError(
                f"{self.paths[image]}: the image file is missing; generate it again from its seed"
            ) from None
        except OSError as error:
            raise UserError(f"{self.paths[image]}: cannot be read ({error.strerror or error})") from error

    def picture(self, image: int) -> Image.Image | None:
        """An image, decoded; None if its file is missing."""
        try:
            return read_picture(Image.open(io.BytesIO(self.png(image))))
        except (UserError, OSError):
            return None

    def inputs(self) -> Inputs | None:
        """Its init image and mask; None if it had none, or they are missing."""
        return kept_inputs(self.folder, self.settings)

    def thumbnail(self, image: int) -> bytes:
        """An image as a small JPEG; empty if its file is missing."""
        source = io.BytesIO(self.pngs[image]) if self.pngs else self.paths[image]
        return thumbnail(source) or b""

    @property
    def nbytes(self) -> int:
        """The memory that it uses, roughly."""
        return sum(map(len, self.pngs)) + (0 if self.trajectory is None else self.trajectory.nbytes)


class RunStore:
    """The runs in a folder, and their history. Thread-safe.

    keep_steps says whether steps are saved; see_all whether all users see all runs, as on a page that is not
    shared. Both are called each time. The newest runs that are not completely on the disk are kept in memory,
    at most `max_runs` and `max_bytes` of them.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep_steps: Callable[[], bool] = lambda: True,
        see_all: Callable[[], bool] = lambda: True,
        max_runs: int = MAX_RUNS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.folder, self._keep_steps, self._see_all = folder, keep_steps, see_all
        self._max_runs, self._max_bytes = max_runs, max_bytes
        self._lock, self._opening = threading.Lock(), threading.Lock()
        self._history: History | None = None
        self._memory: OrderedDict[str, KeptRun] = OrderedDict()
        self._unlisted: set[str] = set()  # runs in memory without a row
        self._open: OrderedDict[str, Trajectory] = OrderedDict()
        self._later = Later("history")

    def start(self) -> None:
        """Open the history in the background, and add images that it does not have yet."""
        self._later.do(lambda: self.history.sync())

    @property
    def history(self) -> History:
        """The history of the folder; the first access opens it, which may take a while."""
        with self._opening:
            if self._history is None:
                self._history = History(self.folder)
            return self._history

    def scope(self, owner: str) -> str | None:
        """The owner filter for the history: which runs this owner sees; None for all."""
        return None if self._see_all() else owner or "\0"  # images added by a sync have an empty owner

    def open(self, owner: str, run: object) -> KeptRun:
        """A run that the owner may see. Raises UserError if there is none."""
        with self._lock:
            kept, unlisted = self._memory.get(str(run)), str(run) in self._unlisted
        scope = self.scope(owner)
        if kept is not None and scope not in (None, kept.owner):
            kept = None
        if kept is not None and unlisted:  # do not wait for the history, which may be locked
            return kept
        try:
            row = self.history.get(str(run), scope)
        except UserError:
            if kept is None:
                raise
            return kept
        if kept is not None:
            return replace(kept, row=row)
        return KeptRun(row, self._trajectory(row), self.folder)

    def family(self, owner: str, run: str) -> list[RunRow]:
        """A run with its ancestors and all their branches, oldest first."""
        with self._lock:
            unlisted = run in self._unlisted
        rows = [] if unlisted else self.history.tree(run, self.scope(owner))
        return rows or [self.open(owner, run).row]

    def covers(self, owner: str, runs: Sequence[str]) -> dict[str, bytes]:
        """The first image of each of these runs as a small JPEG, by id; empty if its file is missing."""
        with self._lock:
            unlisted = [run for run in runs if run in self._unlisted]
        covers = {run: self.open(owner, run).thumbnail(0) for run in unlisted}
        listed = [run for run in runs if run not in covers]
        return covers | (self.history.covers(listed, self.scope(owner)) if listed else {})

    def forget(self, runs: Sequence[str]) -> None:
        """Drop deleted runs from memory."""
        with self._lock:
            for run in runs:
                self._memory.pop(run, None)
                self._open.pop(run, None)
                self._unlisted.discard(run)

    def keep(
        self,
        owner: str,
        parent: tuple[str, int] | None,
        inputs: tuple[ImageSource | None, ImageSource | None],
        run: Run,
        result: Result,
    ) -> tuple[str, str]:
        """Save the result of a run of `owner`: (run id, a warning if something could not be saved).

        parent: the run that it branched from, and after which step. inputs: init image and mask.
        """
        from core.inference.trajectory import Trajectory

        trajectory = Trajectory.of(run)
        pngs = result.pngs()
        names, trouble = self._write_pictures(pngs)
        steps = None
        if names:
            trouble = self._write_inputs(*inputs)
        if names and self._keep_steps():
            steps, unkept = self._write_steps(trajectory, names[0])
            trouble = unkept or trouble
        row = _row(owner, parent, result, names or _unsaved_names(pngs), steps, pngs[0])
        kept = KeptRun(row, trajectory, self.folder, () if names else tuple(pngs))
        if not names:
            self._remember(kept, unlisted=True)
        elif trouble_row := self._add(row, trajectory.recipe.model):
            trouble = trouble or trouble_row
            self._remember(kept, unlisted=True)
            self._later.do(partial(self._retry_add, row, trajectory.recipe.model))
        else:
            self._later.try_again()
            if not steps:
                self._remember(kept)
        return row.id, trouble

    # Writing.

    def _write_pictures(self, pngs: Sequence[bytes]) -> tuple[list[str], str]:
        names: list[str] = []
        try:
            for png in pngs:
                names.append(write_numbered(self.folder, png).name)
        except Exception as error:
            for name in names:  # a batch is saved whole or not at all
                with suppress(OSError):
                    (self.folder / name).unlink()
            return [], f"the image is not saved: {sentence_of(error, 'writing it failed')}"
        return names, ""

    def _write_inputs(self, image: ImageSource | None, mask: ImageSource | None) -> str:
        """Why the init image and mask could not be saved, or ""."""
        try:
            if (inputs := Inputs.read(image, mask)) is not None:
                keep_inputs(self.folder, inputs)
        except Exception as error:
            return f"the init image is not saved: {sentence_of(error, 'writing it failed')}"
        return ""

    def _write_steps(self, trajectory: Trajectory, picture: str) -> tuple[str | None, str]:
        from core.inference.trajectory_file import steps_path  # imports torch, which is loaded by now

        path = steps_path(self.folder / picture)
        try:
            trajectory.save(path)
        except Exception as error:
            return None, f"the steps are not saved: {sentence_of(error, 'writing them failed')}"
        return path.name, ""

    def _add(self, row: RunRow, model: ModelRef) -> str:
        """Why the row could not be written, or ""."""
        try:
            self._write_row(row, model)
        except Exception as error:
            reason = sentence_of(error, "writing its row failed")
            return f"the image is saved, but not in the history yet: {reason}"
        return ""

    def _retry_add(self, row: RunRow, model: ModelRef) -> None:
        """Write a row later. Raises UserError; does nothing if the images are deleted by then."""
        if all((self.folder / name).exists() for name in row.names):
            self._write_row(row, model)
        with self._lock:
            self._unlisted.discard(row.id)

    def _write_row(self, row: RunRow, model: ModelRef) -> None:
        self.history.add(
            names=row.names,
            settings=row.settings,
            model=model,
            steps=row.steps,
            evals=row.evals,
            seconds=row.seconds,
            stopped=row.stopped,
            owner=row.owner,
            parent=row.parent,
            parent_step=row.parent_step,
            created=row.created,
        )

    # Memory.

    def _remember(self, run: KeptRun, *, unlisted: bool = False) -> None:
        with self._lock:
            self._memory[run.id] = run
            if unlisted:
                self._unlisted.add(run.id)
            while len(self._memory) > 1 and self._too_much():
                oldest, _ = self._memory.popitem(last=False)
                self._unlisted.discard(oldest)

    def _too_much(self) -> bool:
        size = sum(run.nbytes for run in self._memory.values())
        return len(self._memory) > self._max_runs or size > self._max_bytes

    def _trajectory(self, row: RunRow) -> Trajectory | None:
        """The steps in a run's file; None without one. Raises UserError if it is damaged."""
        from core.inference.trajectory import Trajectory

        if row.steps is None or not (path := self.history.path(row.steps)).exists():
            return None
        with self._lock:
            found = self._open.get(row.id)
        if found is None:
            found = Trajectory.open(path)
        with self._lock:
            self._open[row.id] = found
            self._open.move_to_end(row.id)
            while len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
        return found


def _row(
    owner: str,
    parent: tuple[str, int] | None,
    result: Result,
    names: Sequence[str],
    steps: str | None,
    png: bytes,
) -> RunRow:
    model = result.recipe.model
    return RunRow(
        id=run_id(names[0], png),
        created=time.time(),
        names=tuple(names),
        settings=result.settings,
        model=model.name,
        model_sha256=model.sha256,
        steps=steps,
        evals=result.evals,
        seconds=sum(result.seconds.values()),
        stopped=result.stopped,
        owner=owner,
        parent=parent[0] if parent else None,
        parent_step=parent[1] if parent else None,
    )


def _unsaved_names(pngs: Sequence[bytes]) -> list[str]:
    return [NOT_SAVED if i == 0 else f"not-saved-{i + 1}.png" for i in range(len(pngs))]
