"""The step player: the picture, and time as a control under it.

The player runs in the browser (player.html, player.js, player.css). It gets a finished run in one message,
as small JPEGs, so that the slider and the playback never wait for the server; only another view, another
picture of the batch or a full decode is asked for. Messages are plain dictionaries with a `phase`: wait,
live, done or back.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from PIL import Image

if TYPE_CHECKING:
    from ui.engine import PagePipeline, PageStep
    from ui.jobs import Job
    from ui.keeping import KeptRun

HERE = Path(__file__).parent
MAX_PREVIEW = 256
MAX_LIVE_IMAGES = 8
Message = dict[str, Any]


def player(examples: Sequence[Message] = ()) -> gr.HTML:
    """The component. It sends the events `frames`, `decode` and `start`; `examples` fills its empty state."""
    return gr.HTML(
        None,
        html_template=(HERE / "player.html").read_text(encoding="utf-8"),
        js_on_load=(HERE / "player.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id="player",
        answer=None,
        examples=list(examples),
    )


def waiting(text: str) -> Message:
    """Nothing to show yet, and why."""
    return {"phase": "wait", "text": text}


def back() -> Message:
    """Show what was there before: the last finished run, or the empty state."""
    return {"phase": "back"}


def live_message(job: Job, steps: Sequence[PageStep]) -> Message:
    """The newest step of a run in progress: the clean estimate and the noisy state of each picture."""
    count = len(steps)
    step = steps[count - 1]
    assert job.request is not None
    images = range(min(job.request.batch, MAX_LIVE_IMAGES))
    return {
        "phase": "live",
        "step": count,
        "total": max(job.total, count),
        "sigma": step.sigma,
        "evals": step.evals,
        "clean": [jpeg_uri(step.preview(i)) for i in images],
        "noisy": [jpeg_uri(step.preview(i, "noisy")) for i in images],
    }


def done_message(run: KeptRun, pipeline: PagePipeline) -> Message:
    """A finished run: the frames of its first picture, the finished pictures small, the first one whole."""
    last = run.steps[-1]
    return {
        "phase": "done",
        "run": run.id,
        "prompt": run.settings.prompt or "picture without a prompt",
        "stopped": run.stopped,
        "steps": [{"sigma": step.sigma, "evals": step.evals} for step in run.steps],
        "views": views(last),
        "frames": {"0/clean": frames(run, 0, "clean", pipeline)},
        "thumbnails": [jpeg_uri(Image.open(io.BytesIO(png)), 96) for png in run.pngs],
        "finals": [png_uri(run.pngs[0])] + [""] * (len(run.pngs) - 1),
        "names": list(run.names),
    }


def views(step: PageStep) -> list[str]:
    """The views that this run can show: without guidance there is no unprompted estimate."""
    known = ["clean", "noisy"]
    if step.conditional is not None and step.unconditional is not None:
        known += ["prompted", "unprompted", "difference"]
    return known


def frames(run: KeptRun, image: int, view: str, pipeline: PagePipeline) -> list[str]:
    """Every step of a run in one view, as small JPEGs."""
    return [jpeg_uri(frame(step, image, view, pipeline)) for step in run.steps]


def frame(step: PageStep, image: int, view: str, pipeline: PagePipeline) -> Image.Image:
    """One step in one view. The views are linear in the latents, and so is the preview."""
    here = slice(image, image + 1)
    if view == "prompted":
        return pipeline.preview(step.conditional[here])[0]
    if view == "unprompted":
        return pipeline.preview(step.unconditional[here])[0]
    if view == "difference":
        return pipeline.preview(step.conditional[here] - step.unconditional[here])[0]
    return step.preview(image, "noisy" if view == "noisy" else "denoised")


def frames_answer(run: KeptRun, image: int, view: str, pipeline: PagePipeline) -> Message:
    """What the player asked for: another view, or another picture of the batch, with the finished picture."""
    return {
        "run": run.id,
        "image": image,
        "view": view,
        "frames": frames(run, image, view, pipeline),
        "final": png_uri(run.pngs[image]),
    }


def decode_answer(run: KeptRun, image: int, step: int) -> Message:
    """Step `step` (counted from 1) through the full decoder."""
    return {
        "run": run.id,
        "image": image,
        "step": step,
        "uri": png_uri(png(run.steps[step - 1].decode(image))),
    }


def jpeg_uri(image: Image.Image, limit: int = MAX_PREVIEW) -> str:
    """A picture as a small JPEG, at most `limit` pixels a side, in a data address."""
    small = image.convert("RGB")
    small.thumbnail((limit, limit))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def png_uri(data: bytes) -> str:
    """The bytes of a PNG file in a data address, unchanged: its text chunks survive."""
    return "data:image/png;base64," + base64.b64encode(data).decode()


def png(image: Image.Image) -> bytes:
    """A picture as a PNG without a recipe."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
