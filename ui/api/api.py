"""The page's actions for programs: named endpoints with types and descriptions, for `gradio_client` and
language models (with `--mcp`), described by /gradio_api/openapi.json.

Runs are generators: an answer for each step as it is made, and a last one with the image files, byte for byte
as saved. Runs share the page's queue; a client that disconnects stops its run.
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr
from anyio import to_thread

from core.checks import hint, shown
from core.errors import UserError
from core.recipes.reader import read_any
from core.request.request import Request
from core.weights.find import installed_model, model_names
from ui.api.endpoints import HistoryRun, Progress, endpoint, history_run
from ui.web.served_files import Handing, uploaded

if TYPE_CHECKING:
    from core.inference.run import RunStep
    from core.sampling.registry import Registry
    from ui.service.job_queue import Job, Jobs
    from ui.service.page_settings import SettingsStore
    from ui.service.run_store import KeptRun

LOOK_SECONDS = 0.04
MIN_TOKEN = 16
File = gr.FileData | None


class Api:
    """The endpoints; `build` registers them inside the caller's Blocks."""

    def __init__(self, jobs: Jobs, registry: Registry, store: SettingsStore) -> None:
        self._jobs, self._registry, self._store = jobs, registry, store
        self._handing = Handing()

    def build(self) -> None:
        """Register the endpoints."""
        for run in (self.txt2img, self.img2img, self.inpaint):
            endpoint(run, Progress, also=_common)
        lists: list[Callable[..., Any]] = [self.samplers, self.schedules, self.models]
        for listing in lists:
            endpoint(listing, list[dict[str, Any]])
        for told in (self.tokens, self.recipe):
            endpoint(told, dict[str, Any])
        endpoint(self.history, list[HistoryRun])
        endpoint(self.run, HistoryRun)
        endpoint(self.pictures, list[gr.FileData])
        endpoint(self.cancel, str)

    # Runs.

    async def txt2img(self, **asked: Any) -> AsyncIterator[Progress]:
        """Generate images from a prompt. Answers after each step, and finally with the image files."""
        async for progress in self._run(asked):
            yield progress

    async def img2img(self, image: File, strength: float = 0.75, **asked: Any) -> AsyncIterator[Progress]:
        """Generate images from an init image. Answers after each step, and finally with the image files."""
        asked["strength"] = strength
        async for progress in self._run(asked, image=_required(image, "image")):
            yield progress

    async def inpaint(
        self,
        image: File,
        mask: File,
        strength: float = 1.0,
        mask_blur: int | None = None,
        only_masked: int | None = None,
        masked_content: str | None = None,
        invert_mask: bool = False,
        **asked: Any,
    ) -> AsyncIterator[Progress]:
        """Repaint the masked part of an image. Answers after each step, and finally with the image files."""
        asked |= {"strength": strength, "mask_blur": mask_blur, "only_masked": only_masked}
        asked |= {"masked_content": masked_content, "invert_mask": invert_mask}
        pictures = {"image": _required(image, "image"), "mask": uploaded(mask, "mask")}
        async for progress in self._run(asked, **pictures):
            yield progress

    def cancel(self, job: str, owner: str) -> str:
        """Stop a queued or running run, within one model evaluation. The images made so far are saved."""
        self._jobs.cancel(owner, job)
        return "stopped"

    async def _run(self, asked: Mapping[str, Any], **pictures: Any) -> AsyncIterator[Progress]:
        model, request = asked["model"], _request(asked)
        if model is not None and model not in (known := model_names(self._jobs.engine.name)):
            raise UserError(f"model {shown(model)}: is not installed{hint(model, known)}")
        job = self._jobs.submit_run(self._owner(asked["owner"]), request, model=model, **pictures)
        try:
            async for progress in self._progress_of(job, asked["previews"]):
                yield progress
        finally:
            if not job.ended.is_set():  # the client has disconnected
                self._jobs.cancel(job.owner, job.id)

    async def _progress_of(self, job: Job, previews: bool) -> AsyncIterator[Progress]:
        """An answer for each step, without a waiting thread per run: hundreds may be queued."""
        shown, next_preview = 0, 0.0
        yield self._progress(job)
        while True:
            ended, steps = job.ended.is_set(), list(job.steps)
            for number, step in enumerate(steps[shown:], shown + 1):
                preview = None
                if previews and number == len(steps) and time.monotonic() >= next_preview:
                    preview = await to_thread.run_sync(self._preview, step, number)
                    next_preview = time.monotonic() + 1 / self._store.current.page.previews_per_second
                yield self._progress(job, step=number, sigma=step.sigma, evals=step.evals, preview=preview)
            shown = max(shown, len(steps))
            if ended:
                break
            await asyncio.sleep(LOOK_SECONDS)
        yield await to_thread.run_sync(self._last, job)

    def _preview(self, step: RunStep, number: int) -> dict[str, Any]:
        return self._handing.out(_jpeg(step.preview(0)), f"step-{number}.jpg")

    def _last(self, job: Job) -> Progress:
        """The answer for a run that has ended. Raises UserError if it failed."""
        if job.state == "failed":
            raise UserError(job.error)
        if job.run_id is None:
            return self._progress(job)
        kept = self._jobs.runs.open(job.owner, job.run_id)
        settings = kept.settings.to_dict()
        return self._progress(job, step=job.total, images=self._files(kept), run=kept.id, settings=settings)

    def _files(self, kept: KeptRun) -> list[dict[str, Any]]:
        return [self._handing.out(kept.png(i), name) for i, name in enumerate(kept.names)]

    def _progress(self, job: Job, **more: Any) -> Progress:
        known: dict[str, Any] = {
            "state": job.state,
            "job": job.id,
            "owner": job.owner,
            "step": 0,
            "total": job.total,
            "sigma": None,
            "evals": job.evals,
            "evals_due": job.evals_due,
            "seconds_left": job.eta,
            "words": job.words,
            "preview": None,
            "images": [],
            "run": None,
            "settings": None,
            "trouble": job.trouble,
        }
        return Progress(**{**known, **more})

    def _owner(self, token: str) -> str:
        """The caller's token, or a new one, which the answers contain."""
        if not token:
            return secrets.token_urlsafe(MIN_TOKEN)
        if len(token) < MIN_TOKEN:
            raise UserError(f"owner: must be a secret of {MIN_TOKEN} characters or more, or empty")
        return token

    # What is available.

    def samplers(self) -> list[dict[str, Any]]:
        """The samplers: name, title, order, evaluations per step, options with their ranges, plugin."""
        return [_as_dict(info) for info in self._registry.samplers.values()]

    def schedules(self) -> list[dict[str, Any]]:
        """The noise schedules: name, title, plugin."""
        return [_as_dict(info) for info in self._registry.schedules.values()]

    def models(self) -> list[dict[str, Any]]:
        """The installed models, and which of them is loaded."""
        loaded = self._jobs.engine.name
        return [{"name": name, "loaded": name == loaded} for name in model_names(loaded)]

    def tokens(self, prompt: str) -> dict[str, Any]:
        """Token count of a prompt for the loaded model: tokens used, chunks, words unknown to it, nearest
        known ones.
        """
        count = self._jobs.engine.pipeline.tokens(prompt)
        return {
            "used": count.used,
            "limit": count.limit,
            "chunks": count.chunks,
            "unknown": list(count.unknown),
            "nearest": {word: list(known) for word, known in count.nearest.items()},
        }

    def recipe(self, file: File = None, text: str = "") -> dict[str, Any]:
        """The settings in an image of LatentCanvas, A1111, ComfyUI, InvokeAI or Fooocus, or in a text."""
        path = uploaded(file, "file")
        if path is None and not text.strip():
            raise UserError("recipe: give an image file or a text")
        return read_any(text if path is None else path, self._registry).to_dict(installed_model)

    # Saved runs.

    def history(self, text: str = "", owner: str = "", limit: int = 60, offset: int = 0) -> list[HistoryRun]:
        """Search the saved runs, newest first. On a shared page only yours, by your token."""
        if not 1 <= limit <= 500 or offset < 0:
            raise UserError("history: limit must be between 1 and 500, and offset not below 0")
        runs = self._jobs.runs
        rows = runs.history.search(text, owner=runs.scope(owner), limit=limit, offset=offset)
        return [history_run(row) for row in rows]

    def run(self, run: str, owner: str = "") -> HistoryRun:
        """One saved run."""
        return history_run(self._jobs.runs.open(owner, run).row)

    def pictures(self, run: str, owner: str = "") -> list[dict[str, Any]]:
        """The image files of a run, byte for byte, with their recipes inside."""
        return self._files(self._jobs.runs.open(owner, run))


def _common(
    prompt: str,
    negative: str = "",
    sampler: str | None = None,
    schedule: str | None = None,
    steps: int | None = None,
    cfg_scale: float | None = None,
    width: int | None = None,
    height: int | None = None,
    batch: int = 1,
    seed: int | None = None,
    options: dict[str, Any] | None = None,
    more: dict[str, Any] | None = None,
    model: str | None = None,
    previews: bool = True,
    owner: str = "",
) -> None:
    """What every run takes, in this order."""


def _request(values: Mapping[str, Any]) -> Request:
    """The request of an endpoint's parameters; those in `more` override the others."""
    names = {field.name for field in dataclasses.fields(Request)}
    given = {name: value for name, value in values.items() if name in names and value is not None}
    more = values["more"] or {}
    return Request.from_mapping({**given, **more})


def _required(file: object, what: str) -> Any:
    path = uploaded(file, what)
    if path is None:
        raise UserError(f"{what}: is missing; send it with handle_file of gradio_client")
    return path


def _as_dict(info: Any) -> dict[str, Any]:
    """The fields of a registered sampler or schedule, ready for JSON, without its function."""
    fields = {f.name: getattr(info, f.name) for f in dataclasses.fields(info) if f.name != "function"}
    if "options" in fields:
        fields["options"] = [dataclasses.asdict(option) for option in fields["options"]]
    return fields


def _jpeg(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
