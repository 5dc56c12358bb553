"""The step player: the image, with a slider over its steps.

The player runs in the browser (player*.js, player.html, player.css). It gets a finished run in one message,
with the frames of one image in one view as small JPEGs, so that the slider and the playback never wait for
the server. Other views and images, full decodes and a second run are fetched on demand, through the functions
passed to `player`. Messages are plain dictionaries with a `phase`: wait, live, done or back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import gradio as gr
from PIL import Image

from ui.page.widgets.data_uris import MAX_PREVIEW, jpeg_uri, png_uri

if TYPE_CHECKING:
    from core.request.settings import Settings

HERE = Path(__file__).parent
SCRIPTS = ("player.js", "player_plots.js", "player_pair.js", "player_actions.js")
MAX_LIVE_IMAGES = 8
MANY_STEPS = 60  # above this, frames are smaller, so that a run of any length is a few hundred KB
Message = dict[str, Any]


class Note(Protocol):
    """A step's numbers: the noise level after it, the model evaluations until then."""

    @property
    def sigma(self) -> float: ...
    @property
    def evals(self) -> int: ...


class Steps(Protocol):
    """The saved steps of a run, as the player uses them: `core.inference.trajectory.Trajectory`."""

    @property
    def steps(self) -> Sequence[Any]: ...
    @property
    def total(self) -> int: ...
    @property
    def stopped(self) -> bool: ...
    def views(self) -> list[str]: ...
    def latents(self, k: int, view: str = "clean", image: int = 0) -> Any: ...
    def preview(self, k: int, view: str = "clean", image: int = 0) -> Image.Image: ...
    def curves(self, image: int = 0) -> dict[str, list[float]]: ...


class LiveJob(Protocol):
    """A run in progress: `ui.service.job_queue.Job`."""

    @property
    def id(self) -> str: ...
    @property
    def steps(self) -> Sequence[Any]: ...
    @property
    def total(self) -> int: ...
    @property
    def evals_due(self) -> int: ...
    @property
    def eta(self) -> float | None: ...
    @property
    def words(self) -> str: ...
    @property
    def settings(self) -> Settings | None: ...


@dataclass(frozen=True, kw_only=True)
class FamilyMember:
    """One run of a tree of branches: its parent and the step it left at. `changed` describes what differs."""

    run: str
    parent: str | None
    step: int | None
    changed: str
    thumbnail: str


@dataclass(frozen=True, kw_only=True)
class PlayedRun:
    """A finished run as the player shows it. `steps` is None if they were not saved.

    names, png: of the image files; png(i) gives the bytes of one. thumbnails: JPEGs as data URIs.
    seconds: by part. saved: whether the images are files.
    """

    id: str
    owner: str
    settings: Settings
    steps: Steps | None
    names: Sequence[str]
    png: Callable[[int], bytes]
    evals: int
    stopped: bool
    thumbnails: Sequence[str] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    words: str = ""
    saved: bool = True
    family: Sequence[FamilyMember] = ()


def player(examples: Sequence[Message] = (), fetch: Sequence[Callable[[Any], Message]] = ()) -> gr.HTML:
    """The component. `examples` fills its empty state.

    Its events: `start` with a prompt; `branch` with run, image and step; `open` with run; `send` with run,
    image and the tab to send it `to`; `verify` with run and owner. fetch: plain functions that the browser
    calls by their names (see ui/page/viewer.py); they return errors and must not raise.
    """
    return gr.HTML(
        None,
        html_template=(HERE / "player.html").read_text(encoding="utf-8"),
        js_on_load="\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS),
        apply_default_css=False,
        elem_id="player",
        server_functions=list(fetch),
        verdict=None,
        examples=list(examples),
    )


def waiting(text: str) -> Message:
    """There is nothing to show yet; `text` says why."""
    return {"phase": "wait", "text": text}


def back() -> Message:
    """Show the last finished run again, or the empty state."""
    return {"phase": "back"}


def live_message(job: LiveJob) -> Message:
    """The newest step of a run in progress: the clean estimate and the noisy state of each image."""
    steps = job.steps  # the job drops its steps when it ends
    count = len(steps)
    if not count:
        return waiting("Starting...")
    step = steps[count - 1]
    batch = min(job.settings.batch if job.settings else 1, MAX_LIVE_IMAGES)
    limit = MAX_PREVIEW if batch <= 2 else 128
    return {
        "phase": "live",
        "job": job.id,
        "step": count,
        "total": max(job.total, count),
        "sigma": step.sigma,
        "evals": step.evals,
        "evals_due": max(job.evals_due, step.evals),
        "eta": job.eta,
        "words": job.words,
        "clean": [jpeg_uri(step.preview(i), limit) for i in range(batch)],
        "noisy": [jpeg_uri(step.preview(i, "noisy"), limit) for i in range(batch)],
    }


def done_message(run: PlayedRun, step: int | None = None, image: int = 0) -> Message:
    """A finished run, at its last step or at `step`: one image with its frames, all images as thumbnails."""
    count = 0 if run.steps is None else len(run.steps.steps)
    return {
        "phase": "done",
        "owner": run.owner,
        "at": None if step is None else min(max(step, 1), max(count, 1)),
        "image": image,
        **summary(run),
        **image_part(run, image),
        "thumbnails": list(run.thumbnails),
        "family": [vars(branch) for branch in in_order(run.family)] if len(run.family) > 1 else [],
        "frames": {} if run.steps is None else {f"{image}/clean": frames(run.steps, image, "clean")},
    }


def summary(run: PlayedRun) -> Message:
    """The part that does not depend on the image: the steps' numbers, views and settings."""
    settings, kept = run.settings, run.steps
    return {
        "run": run.id,
        "prompt": settings.prompt or "image without a prompt",
        "said": said(settings),
        "stopped": run.stopped,
        "total": kept.total if kept else settings.steps,
        "steps": [{"sigma": note.sigma, "evals": note.evals} for note in kept.steps] if kept else [],
        "views": kept.views() if kept else ["clean"],
        "names": list(run.names),
        "seed": settings.seed,
        "evals": run.evals,
        "seconds": dict(run.seconds),
        "words": run.words,
        "saved": run.saved,
    }


def image_part(run: PlayedRun, image: int) -> Message:
    """One final image, byte for byte, and its curves."""
    curves = {} if run.steps is None else run.steps.curves(image)
    return {
        "finals": {str(image): png_uri(run.png(image))},
        "curves": {str(image): {name: [_finite(v) for v in values] for name, values in curves.items()}},
    }


def frames(kept: Steps, image: int, view: str) -> list[str]:
    """Every step in one view, as small JPEGs."""
    count = len(kept.steps)
    limit = MAX_PREVIEW if count <= MANY_STEPS else MAX_PREVIEW * 5 // 8
    return [jpeg_uri(kept.preview(k, view, image), limit) for k in range(1, count + 1)]


def frames_answer(run: PlayedRun, image: int, view: str) -> Message:
    """The reply to a request for another view or another image of the batch."""
    made = [] if run.steps is None else frames(run.steps, image, view)
    return {"frames": {f"{image}/{view}": made}, **image_part(run, image)}


def pair_answer(run: PlayedRun, other: PlayedRun, image: int, view: str) -> Message:
    """A second run to compare with the first: its frames, and its step for each step of the first.

    Steps are matched by noise level, so that runs of different lengths are compared at the same level; on
    equal grids that is step by step. `between` is the root mean square distance of the clean estimates, if
    the sizes are equal.
    """
    if run.steps is None or other.steps is None:
        raise ValueError("both runs must have their steps")
    theirs = min(image, other.settings.batch - 1)
    shown = view if view in other.steps.views() else "clean"
    match = matched(run.steps.steps, other.steps.steps)
    return {
        **summary(other),
        **frames_answer(other, theirs, shown),
        "image": theirs,
        "match": match,
        "between": between(run.steps, other.steps, match, image, theirs),
    }


def matched(ours: Sequence[Note], theirs: Sequence[Note]) -> list[int]:
    """For each of our steps, the nearest of theirs by log sigma, counted from 1; the last ones match."""

    def level(note: Note) -> float:
        return math.log(max(note.sigma, 1e-3))

    levels = [level(note) for note in theirs]
    nearest = [min(range(len(levels)), key=lambda j: abs(levels[j] - level(note))) + 1 for note in ours]
    return [*nearest[:-1], len(theirs)]


def between(ours: Steps, theirs: Steps, match: Sequence[int], image: int, other: int) -> list[float | None]:
    """The distance of the clean estimates at each of our steps; empty if the shapes differ."""
    pairs = [
        (ours.latents(k, "clean", image), theirs.latents(j, "clean", other)) for k, j in enumerate(match, 1)
    ]
    if any(a.shape != b.shape for a, b in pairs):
        return []
    return [_finite(float(((a - b) ** 2).mean()) ** 0.5) for a, b in pairs]


def said(settings: Settings) -> str:
    """A run's main settings, to tell it from others."""
    parts = [
        f"{settings.sampler}, {settings.steps} steps",
        f"CFG {settings.cfg_scale:g}",
        f"seed {settings.seed}",
    ]
    return ", ".join(parts)


def changes(parent: Settings, child: Settings) -> str:
    """What a branch changed, as a short text."""
    said = []
    for name, title in (("prompt", "prompt"), ("negative", "negative prompt")):
        if getattr(child, name) != getattr(parent, name):
            said.append(new_words(title, getattr(parent, name), getattr(child, name)))
    for name, form in (
        ("sampler", "{}"),
        ("schedule", "{}"),
        ("cfg_scale", "CFG {:g}"),
        ("seed", "seed {}"),
        ("steps", "{} steps"),
    ):
        if getattr(child, name) != getattr(parent, name):
            said.append(form.format(getattr(child, name)))
    if child.options != parent.options and child.sampler == parent.sampler:
        said.append("other sampler options")
    return ", ".join(said) or "nothing changed"


def new_words(title: str, before: str, after: str) -> str:
    """The new words of a prompt, if there are few."""
    known = set(before.split())
    fresh = [word for word in after.split() if word not in known]
    return f"{title}: {' '.join(fresh)}" if 0 < len(fresh) <= 5 else f"other {title}"


def in_order(family: Sequence[FamilyMember]) -> list[FamilyMember]:
    """The runs of a tree, each followed by its branches in the order of the steps they left at."""
    known = {branch.run for branch in family}
    ordered: list[FamilyMember] = []

    def follow(parent: str | None) -> None:
        children = [b for b in family if (b.parent if b.parent in known else None) == parent]
        for branch in sorted(children, key=lambda b: b.step or 0):
            ordered.append(branch)
            follow(branch.run)

    follow(None)
    return ordered


def _finite(value: float) -> float | None:
    """The value for JSON, which has no NaN or infinity."""
    return round(value, 6) if math.isfinite(value) else None
