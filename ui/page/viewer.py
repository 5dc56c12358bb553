"""The player and the requests that it sends: the saved steps of runs, read on demand.

A finished run is shown from its saved steps, without inference; only a full decode and a verification use the
loaded model. Nothing here imports torch before the model is loaded.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import gradio as gr

from core.errors import UserError
from core.figures.image_bytes import png
from core.recipes.png import read_recipe
from ui.page.widgets import player as messages
from ui.page.widgets.data_uris import data_uri, png_uri, thumbnail_uri
from ui.page.widgets.fields import QUICK
from ui.page.widgets.player import FamilyMember, Message, PlayedRun
from ui.page.widgets.text import capital
from ui.service import step_files, verification

if TYPE_CHECKING:
    from pathlib import Path

    from gradio.components import Component

    from core.history import RunRow
    from core.images.source_images import Inputs
    from core.inference.trajectory import Trajectory
    from core.request.settings import Settings
    from ui.service.job_queue import Job, Jobs

log = logging.getLogger(__name__)

WATCH_SECONDS = 0.25
NOT_KEPT = "the steps of this run were not saved, so only its final image can be shown"


class ViewedRun(Protocol):
    """A saved run, as `KeptRun` in ui/service/run_store.py. `trajectory` is None without steps."""

    @property
    def id(self) -> str: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def trajectory(self) -> Trajectory | None: ...
    @property
    def names(self) -> Sequence[str]: ...
    @property
    def evals(self) -> int: ...
    @property
    def stopped(self) -> bool: ...
    @property
    def seconds(self) -> Mapping[str, float]: ...
    @property
    def saved(self) -> bool: ...
    @property
    def paths(self) -> Sequence[Path]: ...
    def inputs(self) -> Inputs | None: ...
    def png(self, image: int) -> bytes: ...
    def thumbnail(self, image: int) -> bytes: ...


class ViewedRuns(Protocol):
    """Stores runs: `ui.service.run_store.RunStore`. Raises UserError for runs that this owner may not see."""

    def open(self, owner: str, run: object) -> Any: ...
    def family(self, owner: str, run: str) -> Sequence[RunRow]: ...
    def covers(self, owner: str, runs: Sequence[str]) -> Mapping[str, bytes]: ...


class ViewerModel(Protocol):
    """The loaded model; `pipeline` raises UserError while there is none."""

    @property
    def pipeline(self) -> Any: ...


@dataclass(frozen=True)
class ViewerRequest:
    """A request from the browser. It is not trusted: the run is looked up for the owner that it names."""

    owner: str
    run: str
    image: int = 0
    view: str = "clean"
    step: int = 1
    other: str = ""
    kind: str = ""

    @classmethod
    def of(cls, values: object) -> ViewerRequest:
        """From the browser's JSON. Raises UserError."""
        if not isinstance(values, Mapping):
            raise UserError("the page sent an unknown request: reload the page")
        known: dict[str, Any] = {}
        for name, default in (("image", 0), ("step", 1)):
            value = values.get(name, default)
            if not isinstance(value, int) or value < default:
                raise UserError(f"the page asked for {name} {value!r:.40}, which no run has: reload the page")
            known[name] = value
        for name in ("owner", "run", "other", "kind"):
            known[name] = str(values.get(name) or "")
        return cls(**known, view=str(values.get("view") or "clean"))


class Viewer:
    """The player and its request handlers. `build` it inside the page's layout, then `connect` it.

    jobs: the queue for verifying runs; without one, runs cannot be verified.
    """

    def __init__(self, engine: ViewerModel, runs: ViewedRuns, jobs: Jobs | None = None) -> None:
        self.engine, self.runs, self.jobs = engine, runs, jobs

    def build(self, examples: Sequence[Message] = ()) -> gr.HTML:
        """Make the component."""
        self.player = messages.player(examples, self._fetchers())
        return self.player

    def connect(self, owner: Component) -> None:
        """Wire its own events; `owner` holds the owner token. The page wires `start`, `branch` and `open`."""
        self.player.verify(self.on_verify, owner, self.player, **QUICK)

    def live(self, job: Job) -> Message:
        """The newest step of a job, for the player."""
        return messages.live_message(job)

    def show(self, owner: str, run_id: str, step: int | None = None, image: int = 0) -> Message:
        """A saved run, for the player. Raises UserError."""
        run = self._shown(owner, run_id, whole=True)
        return messages.done_message(run, step, min(image, run.settings.batch - 1))

    def settings(self, owner: str, run_id: str) -> Settings:
        """The settings of a saved run. Raises UserError."""
        kept: ViewedRun = self.runs.open(owner, run_id)
        return kept.settings

    # Fetched by the browser: called by these names, in any thread.

    def _fetchers(self) -> list[Callable[[Any], Message]]:
        def fetch_frames(asked: Any) -> Message:
            return _answer(self.frames, asked)

        def fetch_decode(asked: Any) -> Message:
            return _answer(self.decode, asked)

        def fetch_pair(asked: Any) -> Message:
            return _answer(self.pair, asked)

        def fetch_file(asked: Any) -> Message:
            return _answer(self.file, asked)

        return [fetch_frames, fetch_decode, fetch_pair, fetch_file]

    def frames(self, asked: ViewerRequest) -> Message:
        """One view of one image, every step."""
        run = self._shown(asked.owner, asked.run)
        return messages.frames_answer(run, _image(run, asked), _view(run, asked))

    def decode(self, asked: ViewerRequest) -> Message:
        """One step in one view, through the VAE."""
        run = self._shown(asked.owner, asked.run)
        return {"uri": png_uri(png(self._decoded(run, asked)))}

    def pair(self, asked: ViewerRequest) -> Message:
        """Another run, to compare with this one."""
        run, other = self._shown(asked.owner, asked.run), self._shown(asked.owner, asked.other)
        if other.steps is None:
            raise UserError("the steps of that run were not saved, so it cannot be compared with this one")
        return messages.pair_answer(run, other, _image(run, asked), _view(run, asked))

    def file(self, asked: ViewerRequest) -> Message:
        """A file to save: this step as a PNG, all steps as a GIF, or a contact sheet."""
        run = self._shown(asked.owner, asked.run)
        steps, image, view = _steps(run), _image(run, asked), _view(run, asked)
        stem = run.names[image].rsplit(".", 1)[0]
        match asked.kind:
            case "step":
                picture = self._decoded(run, asked)
                data = step_files.step_png(picture, steps, asked.step, view, image, run.names[image])
                name = f"{stem}-step-{asked.step}-{view}.png"
            case "gif":
                data, name = step_files.gif(steps, view, image, run.png(image)), f"{stem}-{view}.gif"
            case "sheet":
                data, name = (
                    step_files.sheet(steps, view, image, run.names[image]),
                    f"{stem}-{view}-sheet.png",
                )
            case _:
                raise UserError(f"unknown kind of file {asked.kind!r:.40}: use step, gif or sheet")
        kind = "image/gif" if name.endswith(".gif") else "image/png"
        return {"name": name, "uri": data_uri(data, kind)}

    # Verification: it uses the model, so it is queued like a run.

    async def on_verify(self, owner: str, event: gr.EventData) -> AsyncIterator[Any]:
        """Run it again and compare; send the player the progress, then the verdict."""
        run = str(event.run)
        try:
            async for told in self._verify(owner, run):
                yield told
        except UserError as error:
            yield _verdict(run, str(error), trouble=True)

    async def _verify(self, owner: str, run: str) -> AsyncIterator[Any]:
        if self.jobs is None:
            raise UserError("runs cannot be verified here: there is no queue")
        check = await asyncio.to_thread(self._check, owner, run)
        job, seen = self.jobs.submit_task(owner, "verify a run", check), -1
        try:
            while not job.ended.is_set():
                await asyncio.sleep(WATCH_SECONDS)
                if job.evals != seen and job.state == "running":
                    seen = job.evals
                    yield _verdict(run, verification.progress(job))
        finally:
            job.cancel.set()  # the page may have been closed
        if job.state != "done":
            raise UserError(job.error or "the verification was stopped")
        text, good = job.value
        yield _verdict(run, text, trouble=not good)

    def _check(self, owner: str, run: str) -> verification.Check:
        """The task for the queue: compare with the saved steps, else with the recipe in the image."""
        kept: ViewedRun = self.runs.open(owner, run)
        made = kept.trajectory
        recipe = read_recipe(kept.paths[0]) if made is None else made
        return verification.task(recipe, kept.png(0), kept.inputs())

    # From the saved run to the player.

    def _shown(self, owner: str, run_id: str, whole: bool = False) -> PlayedRun:
        """The run; with its thumbnails and branches only if `whole`."""
        kept: ViewedRun = self.runs.open(owner, run_id)
        steps = kept.trajectory
        return PlayedRun(
            id=kept.id,
            owner=owner,
            settings=kept.settings,
            steps=steps,
            names=kept.names,
            png=kept.png,
            evals=kept.evals,
            stopped=kept.stopped,
            seconds=kept.seconds,
            words=steps.words if steps is not None else "",
            saved=kept.saved,
            thumbnails=[thumbnail_uri(kept.thumbnail(i)) for i in range(len(kept.names))] if whole else (),
            family=self._family(owner, kept.id) if whole else (),
        )

    def _family(self, owner: str, run_id: str) -> list[FamilyMember]:
        rows = {row.id: row for row in self.runs.family(owner, run_id)}
        covers = self.runs.covers(owner, list(rows))
        return [
            FamilyMember(
                run=row.id,
                parent=row.parent,
                step=row.parent_step,
                changed=_changed(rows, row),
                thumbnail=thumbnail_uri(covers.get(row.id, b"")),
            )
            for row in rows.values()
        ]

    def _decoded(self, run: PlayedRun, asked: ViewerRequest) -> Any:
        """One step, decoded by the VAE of the model that made it."""
        steps, pipeline = _steps(run), self.engine.pipeline
        if not 1 <= asked.step <= len(steps.steps):
            raise UserError(f"there is no step {asked.step}: this run has {len(steps.steps)} steps")
        made_by = steps.recipe.model
        if made_by.sha256 != pipeline.sha256:
            raise UserError(
                f"this run was made with the model {made_by.name}: choose it to decode steps in full"
            )
        return pipeline.decode(steps.latents(asked.step, _view(run, asked), _image(run, asked)))[0]


def _answer(function: Callable[[ViewerRequest], Message], values: Any) -> Message:
    """The reply to the browser; errors are part of it."""
    try:
        return function(ViewerRequest.of(values))
    except UserError as error:
        return {"error": capital(str(error))}
    except Exception as error:
        log.exception("the player could not be answered")
        return {"error": f"This cannot be shown: {type(error).__name__}: {error}"}


def _verdict(run: str, text: str, trouble: bool = False) -> Any:
    # The time makes each verdict differ: the browser is notified of changes only.
    return gr.HTML(verdict={"run": run, "text": capital(text), "trouble": trouble, "at": time.time()})


def _steps(run: PlayedRun) -> Any:
    if run.steps is None:
        raise UserError(NOT_KEPT)
    return run.steps


def _image(run: PlayedRun, asked: ViewerRequest) -> int:
    if asked.image >= run.settings.batch:
        raise UserError(f"there is no image {asked.image + 1}: this run has {run.settings.batch}")
    return asked.image


def _view(run: PlayedRun, asked: ViewerRequest) -> str:
    if asked.view not in _steps(run).views():
        raise UserError(f"this run has no view {asked.view!r:.40}")
    return asked.view


def _changed(rows: Mapping[str, RunRow], row: RunRow) -> str:
    parent = rows.get(row.parent or "")
    return messages.changes(parent.settings, row.settings) if parent else "its parent run was deleted"
