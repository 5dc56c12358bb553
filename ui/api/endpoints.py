"""How a method becomes a named endpoint, with types and texts that programs read; what endpoints answer."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypedDict

import gradio as gr
from gradio.events import api

from core.errors import UserError

if TYPE_CHECKING:
    from core.history import RunRow

# What each parameter is, wherever an endpoint has it.
HELP = {
    "prompt": "What to see; weights as (this:1.2).",
    "negative": "What not to see.",
    "image": "The picture to begin with.",
    "mask": "White where it is painted anew, black where it stays; left out where `more` has outpaint.",
    "strength": "How much of the way is run: above 0, and 1 leaves nothing of the picture.",
    "mask_blur": "Softness of the mask's edge, in pixels.",
    "only_masked": "Run only what is around the mask, with so many pixels of surroundings.",
    "masked_content": "What stands under the mask at the start: original, fill, noise or nothing.",
    "invert_mask": "Paint what is black instead.",
    "sampler": "A name of `samplers`; the model's own choice if left out.",
    "schedule": "A name of `schedules`; the sampler's or the model's own choice if left out.",
    "steps": "Number of steps (of the whole way); the model's own choice if left out.",
    "cfg_scale": "Strength of guidance, 1 is none; the model's own choice if left out.",
    "width": "In pixels, a multiple of 8; the model's or the picture's own if left out.",
    "height": "In pixels, a multiple of 8; the model's or the picture's own if left out.",
    "batch": "Number of pictures; their seeds follow each other.",
    "seed": "Random if left out.",
    "options": 'The sampler\'s own options by name, such as {"eta": 0.5}.',
    "more": 'Other fields of a request by name, such as {"clip_skip": 2, "cfg_rescale": 0.7}.',
    "model": "A name of `models`; it is loaded first if it is another one than before.",
    "previews": "Whether the answers carry small pictures of the steps.",
    "owner": "Your own secret token of 16 characters or more, to find runs again by; a new one if empty.",
    "job": "The `job` of a run's answers.",
    "run": "The id of a run.",
    "file": "A picture, or left out.",
    "text": "A text: of settings for `recipe`, words of the prompt for `history`.",
    "limit": "At most so many, up to 500.",
    "offset": "Leave out so many.",
}


class Progress(TypedDict):
    """Where a run is; `state` is waiting, running, done, stopped or failed. What is not known yet is null."""

    state: str
    job: str
    owner: str
    step: int
    total: int
    sigma: float | None
    evals: int
    evals_due: int
    seconds_left: float | None
    words: str
    preview: gr.FileData | None
    images: list[gr.FileData]
    run: str | None
    settings: dict[str, Any] | None
    trouble: str


class HistoryRun(TypedDict):
    """A run that was kept."""

    run: str
    created: float
    names: list[str]
    settings: dict[str, Any]
    model: str
    evals: int
    seconds: float
    stopped: bool
    starred: bool
    parent: str | None
    parent_step: int | None


def history_run(row: RunRow) -> HistoryRun:
    """A row of the history as endpoints tell it."""
    return HistoryRun(
        run=row.id,
        created=row.created,
        names=list(row.names),
        settings=row.settings.to_dict(),
        model=row.model,
        evals=row.evals,
        seconds=row.seconds,
        stopped=row.stopped,
        starred=row.starred,
        parent=row.parent,
        parent_step=row.parent_step,
    )


def endpoint(method: Callable[..., Any], returns: Any) -> None:
    """Offer a method by its own name, inside the caller's Blocks; a UserError is told in its sentence.

    returns: the type of its answer, of each one where it is a generator. Raises KeyError for a parameter that
    `HELP` does not explain.
    """
    call = _generator(method) if inspect.isasyncgenfunction(method) else _function(method)
    signature = inspect.signature(method, eval_str=True)
    texts = [f"    {name}: {HELP[name]}" for name in signature.parameters]
    call.__doc__ = "\n".join([inspect.getdoc(method) or "", "", *(["Args:"] if texts else []), *texts])
    call.__signature__ = signature.replace(return_annotation=returns)  # pyrefly: ignore[missing-attribute]
    api(call, api_name=method.__name__, concurrency_limit=None)


def _function(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return method(*arguments, **named)
        except UserError as error:
            raise _told(error) from error

    return call


def _generator(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    async def call(*arguments: Any, **named: Any) -> AsyncIterator[Any]:
        try:
            async for answer in method(*arguments, **named):
                yield answer
        except UserError as error:
            raise _told(error) from error

    return call


def _told(error: UserError) -> gr.Error:
    return gr.Error(str(error), print_exception=False)
