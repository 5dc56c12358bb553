"""The history's messages: tiles, one run in detail, and its settings as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr

from core.request.fields import OPTIONAL
from ui.page.widgets.data_uris import png_uri, thumbnail_uri
from ui.page.widgets.player import Message

if TYPE_CHECKING:
    from core.history import RunRow
    from core.request.settings import Settings

HERE = Path(__file__).parent
MOST_RELATIVES = 60

# The text of each unusual setting; None for those shown elsewhere or not at all.
_EXTRAS: Mapping[str, str | None] = {
    "clip_skip": "clip skip {}",
    "sigmas": None,
    "cfg_rescale": None,
    "cfg_from": None,
    "cfg_to": None,
    "feature_reuse": "feature reuse, deep layers once in {} evaluations",
    "token_merging": "token merging {:.0%}",
    "strength": "denoising strength {:g}",
    "resize": "resize mode {}",
    "outpaint": "outpainted {} pixels",
    "mask_blur": "mask blur {}",
    "masked_content": "masked content {}",
    "only_masked": "only the masked area with {} pixels around it",
    "keep_unmasked": "unmasked pixels kept",
    "invert_mask": "mask inverted",
    "image_sha256": None,
    "mask_sha256": None,
    "stop_after": None,
    "branch": None,
}


def grid() -> gr.HTML:
    """The component. It sends `ask`, `choose`, `star`, `remove`, `pack` and `reopen`."""
    return gr.HTML(
        None,
        html_template=(HERE / "history.html").read_text(encoding="utf-8"),
        js_on_load=(HERE / "history.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id="history",
        page=None,
        run=None,
        done=None,
    )


def tile(row: RunRow, cover: bytes) -> Message:
    """A run's tile in the grid."""
    return {
        "id": row.id,
        "created": row.created,
        "prompt": row.settings.prompt,
        "pictures": len(row.names),
        "starred": row.starred,
        "stopped": row.stopped,
        "small": thumbnail_uri(cover),
    }


def whole(row: RunRow, image: int, png: bytes, smalls: Sequence[bytes], family: Sequence[Message]) -> Message:
    """A run with one of its images, byte for byte, so that an image saved from the page keeps its recipe."""
    return {
        "id": row.id,
        "created": row.created,
        "image": image,
        "uri": png_uri(png) if png else "",
        "names": list(row.names),
        "smalls": [thumbnail_uri(small) for small in smalls],
        "prompt": row.settings.prompt,
        "starred": row.starred,
        "words": words(row, image),
        "family": list(family),
    }


def relative(row: RunRow, cover: bytes) -> Message:
    """A run among the branches of another."""
    return {
        "id": row.id,
        "prompt": row.settings.prompt or "no prompt",
        "step": row.parent_step,
        "small": thumbnail_uri(cover),
    }


def words(row: RunRow, image: int) -> list[tuple[str, str]]:
    """The settings and results of a run, as pairs of name and text."""
    settings = row.settings
    said = [
        ("Negative", settings.negative),
        ("Sampler", _sampler(settings)),
        ("Steps", _steps(row)),
        ("Guidance", _guidance(settings)),
        ("Image", ", ".join([f"{settings.width}x{settings.height}", *_unusual(settings)])),
        ("Seed", str(settings.seed + image)),
        ("Model", f"{row.model}, {row.model_sha256[:10]}"),
        ("File", row.names[image]),
    ]
    return [(name, sentence) for name, sentence in said if sentence]


def _sampler(settings: Settings) -> str:
    options = [f"{name} {value}" for name, value in settings.options.items()]
    levels = "custom sigmas" if settings.sigmas else settings.schedule
    return ", ".join([settings.sampler, *options, levels])


def _steps(row: RunRow) -> str:
    stop = getattr(row.settings, "stop_after", None)
    count = str(row.settings.steps) if not row.stopped or stop is None else f"{stop} of {row.settings.steps}"
    said = [
        f"{row.evals} evaluation{'' if row.evals == 1 else 's'}" if row.evals else "",
        f"{row.seconds:.1f} s" if row.seconds else "",
        "stopped" if row.stopped else "",
        "steps saved" if row.steps else "",
    ]
    details = ", ".join(filter(None, said))
    return f"{count} ({details})" if details else count


def _guidance(settings: Settings) -> str:
    said = f"CFG scale {settings.cfg_scale:g}"
    if settings.cfg_rescale:
        said += f", rescale {settings.cfg_rescale:g}"
    if (settings.cfg_from, settings.cfg_to) != (0.0, 1.0):
        said += f", from {settings.cfg_from:.0%} to {settings.cfg_to:.0%} of the steps"
    return said


def _unusual(settings: Settings) -> list[str]:
    said = []
    for name, default in OPTIONAL.items():
        value = getattr(settings, name)
        form = _EXTRAS.get(name, f"{name.replace('_', ' ')} {{}}")
        if value != default and form is not None:
            said.append(form.format(", ".join(map(str, value)) if isinstance(value, tuple) else value))
    return said
