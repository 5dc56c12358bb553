"""Running comparisons: each cell is an ordinary run of its owner, queued when the one before has ended.

So other users' jobs run between the cells, and a comparison continues when its page is closed. Finished cells
stay in the history even if the comparison fails or is stopped.
"""

from __future__ import annotations

import contextlib
import io
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from PIL import Image

from core.compare.grid import Cell, GridPlan, Speed, duration
from core.compare.grid_image import draw_sheet, sheet_png
from core.errors import UserError

if TYPE_CHECKING:
    from core.images.source_images import Inputs
    from ui.service.job_queue import Job, Jobs

SpotState = Literal["waiting", "running", "done", "stopped", "failed"]
MAX_GRIDS = 16  # comparisons of all owners that can still be shown; their runs are in the history
LOOK_SECONDS, FULL_SECONDS = 0.2, 1.0
PATIENCE = 300.0  # seconds that a cell waits for room in a full queue


@dataclass
class Spot:
    """A cell and its state. `changed` is the comparison's version at its last change."""

    cell: Cell
    state: SpotState = "waiting"
    run_id: str | None = None
    error: str = ""
    changed: int = 0


class GridRun:
    """A comparison. Only its own thread changes it; any thread may read it."""

    def __init__(self, owner: str, plan: GridPlan, inputs: Inputs | None) -> None:
        self.id, self.owner, self.plan, self.inputs = secrets.token_urlsafe(9), owner, plan, inputs
        self.spots = [Spot(cell) for cell in plan.cells]
        self.version = 0
        self.cancel, self.ended = threading.Event(), threading.Event()
        self.job: Job | None = None
        self.speed: Speed | None = None
        self._lock = threading.Lock()

    def change(self, spot: Spot, state: SpotState, *, run_id: str | None = None, error: str = "") -> None:
        """Set the state of a cell."""
        with self._lock:
            self.version += 1
            spot.state, spot.run_id, spot.error, spot.changed = state, run_id, error, self.version

    def since(self, version: int) -> list[Spot]:
        """The cells that changed after this version."""
        with self._lock:
            return [spot for spot in self.spots if spot.changed > version]

    @property
    def made(self) -> int:
        """Number of cells that have an image."""
        return sum(spot.run_id is not None for spot in self.spots)

    def words(self) -> str:
        """Its progress, in a line."""
        count, made = len(self.spots), self.made
        failed = sum(spot.state == "failed" for spot in self.spots)
        wrong = f", {failed} failed" if failed else ""
        if self.ended.is_set():
            stopped = "stopped: " if made + failed < count else ""
            return f"{stopped}{made} of {count} images{wrong}"
        return f"{made} of {count} images{wrong}{self._left()}"

    def _left(self) -> str:
        job, speed = self.job, self.speed
        if job is None:
            return ""
        if job.state == "waiting":
            return "; the next one is queued"
        if speed is None:
            return ""
        seconds = speed.of(spot.cell for spot in self.spots if spot.state == "waiting")
        return f"; about {duration(seconds + (job.eta or 0.0))} left"


class Grids:
    """The comparisons of a page, newest last."""

    def __init__(self, jobs: Jobs, patience: float = PATIENCE) -> None:
        self.jobs, self._patience = jobs, patience
        self._lock = threading.Lock()
        self._grids: OrderedDict[str, GridRun] = OrderedDict()
        self._speed: Speed | None = None

    def start(self, owner: str, plan: GridPlan, inputs: Inputs | None = None) -> GridRun:
        """Start one. Raises UserError while another of the same owner runs."""
        with self._lock:
            if any(grid.owner == owner and not grid.ended.is_set() for grid in self._grids.values()):
                raise UserError("your comparison is still running; wait until it ends, or stop it")
            grid = GridRun(owner, plan, inputs)
            self._grids[grid.id] = grid
            old = [one.id for one in self._grids.values() if one.ended.is_set()]
            for name in old[: max(len(self._grids) - MAX_GRIDS, 0)]:
                del self._grids[name]
        grid.speed = self.speed(owner)
        threading.Thread(target=self._run, args=(grid,), name="comparison", daemon=True).start()
        return grid

    def latest(self, owner: str) -> GridRun | None:
        """The owner's newest one."""
        with self._lock:
            return next((grid for grid in reversed(self._grids.values()) if grid.owner == owner), None)

    def stop(self, owner: str) -> None:
        """Stop the running one, within one model evaluation. Its images stay."""
        grid = self.latest(owner)
        if grid is not None:
            grid.cancel.set()
            self._stop_job(grid)

    def speed(self, owner: str) -> Speed | None:
        """The speed of the last run, of a comparison or in the history; None without one."""
        if self._speed is None:
            runs = self.jobs.runs
            with contextlib.suppress(UserError):
                for row in runs.history.search(owner=runs.scope(owner), limit=8):
                    if not row.stopped and row.parent is None:
                        return Speed.measured(row.settings, row.evals, row.seconds)
        return self._speed

    def sheet(self, grid: GridRun) -> tuple[bytes, str]:
        """The grid as a PNG file, and its size in words. Raises UserError without a finished cell."""
        runs = {spot.cell.at: spot.run_id for spot in grid.spots if spot.run_id is not None}
        if not runs:
            raise UserError("there is no image for the sheet yet; wait for the first one")
        first, names = "", {}
        for at, run in runs.items():
            with contextlib.suppress(UserError):
                kept = self.jobs.runs.open(grid.owner, run)
                names[at] = kept.names[0]
                first = first or _infotext(kept.png(0))

        def picture(cell: Cell) -> Image.Image | None:
            run = runs.get(cell.at)
            if run is None:
                return None
            try:
                return Image.open(io.BytesIO(self.jobs.runs.open(grid.owner, run).png(0)))
            except (UserError, OSError):
                return None

        caption = grid.plan.base.prompt or "no prompt"
        drawn = draw_sheet(grid.plan, picture, caption)
        return sheet_png(drawn, grid.plan, names, first), drawn.words()

    # On the comparison's own thread.

    def _run(self, grid: GridRun) -> None:
        try:
            for spot in grid.spots:
                if grid.cancel.is_set():
                    break
                self._make(grid, spot)
        finally:
            for spot in grid.spots:
                if spot.state in ("waiting", "running"):
                    grid.change(spot, "stopped")
            grid.job, grid.inputs = None, None
            grid.ended.set()

    def _make(self, grid: GridRun, spot: Spot) -> None:
        try:
            job = self._submit(grid, spot.cell)
        except UserError as error:
            grid.change(spot, "failed", error=str(error))
            return
        if job is None:
            return
        grid.job = job
        grid.change(spot, "running")
        while not job.ended.wait(LOOK_SECONDS):
            if grid.cancel.is_set():
                self._stop_job(grid)
        if job.state == "stopped":  # here or in the queue: stop the other cells too
            grid.cancel.set()
        state: SpotState = job.state if job.state in ("done", "failed") else "stopped"
        grid.change(spot, state, run_id=job.run_id, error=job.error or job.trouble)
        self._measure(grid, job)

    def _submit(self, grid: GridRun, cell: Cell) -> Job | None:
        """The cell's job; None if the comparison was stopped while it waited for room in the queue."""
        inputs = grid.inputs
        image, mask = (None, None) if inputs is None else (inputs.image, inputs.mask)
        self.jobs.check(cell.settings)
        since = time.monotonic()
        while not grid.cancel.is_set():
            try:
                return self.jobs.submit_run(
                    grid.owner, cell.request, image=image, mask=mask, model=cell.model
                )
            except UserError:
                if time.monotonic() - since > self._patience:
                    raise
            grid.cancel.wait(FULL_SECONDS)
        return None

    def _stop_job(self, grid: GridRun) -> None:
        job = grid.job
        if job is not None:
            with contextlib.suppress(UserError):  # it has ended in the meantime
                self.jobs.cancel(grid.owner, job.id)

    def _measure(self, grid: GridRun, job: Job) -> None:
        if job.state != "done" or job.run_id is None or job.settings is None:
            return
        with contextlib.suppress(UserError):
            kept = self.jobs.runs.open(grid.owner, job.run_id)
            measured = Speed.measured(kept.settings, kept.evals, sum(kept.seconds.values()))
            self._speed = grid.speed = measured or grid.speed


def _infotext(png: bytes) -> str:
    with Image.open(io.BytesIO(png)) as image:
        return str(image.info.get("parameters", ""))
