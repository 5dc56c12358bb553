"""Turns a method into a named endpoint with types and descriptions; the types of the answers."""

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

# The description of each parameter, for all endpoints that have it.
HELP = {
    "prompt": "The prompt; weights as (this:1.2).",
    "negative": "The negative prompt.",
    "image": "The init image.",
    "mask": "White is repainted, black is kept; not needed if `more` has outpaint.",
    "strength": "Denoising strength in (0, 1]; 1 ignores the input image.",
    "mask_blur": "Blur of the mask's edge, in pixels.",
    "only_masked": "Inpaint only the masked area, at full resolution, with this padding in pixels.",
    "masked_content": "What the masked area starts from: original, fill, noise or nothing.",
    "invert_mask": "Repaint what is black instead.",
    "sampler": "A name from `samplers`; the model's default if left out.",
    "schedule": "A name from `schedules`; the sampler's or the model's default if left out.",
    "steps": "Inference steps (at strength 1); the model's default if left out.",
    "cfg_scale": "Classifier-free guidance scale, 1 turns guidance off; the model's default if left out.",
    "width": "In pixels, a multiple of 8; that of the init image or the model's default if left out.",
    "height": "In pixels, a multiple of 8; that of the init image or the model's default if left out.",
    "batch": "Batch size: number of images; image i uses seed + i.",
    "seed": "The seed; random if left out.",
    "options": 'The sampler\'s options by name, such as {"eta": 0.5}.',
    "more": 'Other fields of a request by name, such as {"clip_skip": 2, "cfg_rescale": 0.7}.',
    "model": "A name from `models`; loaded first if another model is loaded.",
    "previews": "Whether the answers include preview images of the steps.",
    "owner": "Your secret token of 16 characters or more, to find your runs by; a new one if empty.",
    "job": "The `job` of a run's answers.",
    "run": "The id of a run.",
    "file": "An image, if there is no text.",
    "text": "For `recipe`: a text of settings. For `history`: words to find in the prompts.",
    "limit": "Maximum number of runs, up to 500.",
    "offset": "Number of runs to skip.",
}


class Progress(TypedDict):
    """Progress of a run; `state` is waiting, running, done, stopped or failed. Unknown values are null."""

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
    """A saved run."""

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
    """A row of the history as endpoints return it."""
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


def endpoint(method: Callable[..., Any], returns: Any, also: Callable[..., Any] | None = None) -> None:
    """Register a method under its own name, inside the caller's Blocks; a UserError becomes a gr.Error.

    returns: the type of its answer, or of each answer of a generator. also: its parameters are added to the
    method's, which receives them by name. Raises KeyError for a parameter that is not in `HELP`.
    """
    signature = inspect.signature(method, eval_str=True)
    if also is not None:
        signature = _joined(signature, inspect.signature(also, eval_str=True))
    call = (_generator if inspect.isasyncgenfunction(method) else _function)(method, signature)
    texts = [f"    {name}: {HELP[name]}" for name in signature.parameters]
    call.__doc__ = "\n".join([inspect.getdoc(method) or "", "", *(["Args:"] if texts else []), *texts])
    call.__signature__ = signature.replace(return_annotation=returns)  # pyrefly: ignore[missing-attribute]
    call.__annotations__ = {name: one.annotation for name, one in signature.parameters.items()}
    api(call, api_name=method.__name__, concurrency_limit=None)


def _joined(own: inspect.Signature, others: inspect.Signature) -> inspect.Signature:
    """The parameters of both, those without a default first."""
    given = [one for one in own.parameters.values() if one.kind is not one.VAR_KEYWORD]
    every = sorted((*given, *others.parameters.values()), key=lambda one: one.default is not one.empty)
    return own.replace(parameters=every)


def _named(signature: inspect.Signature, arguments: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """All arguments by name, with the defaults."""
    bound = signature.bind(*arguments, **named)
    bound.apply_defaults()
    return bound.arguments


def _function(method: Callable[..., Any], signature: inspect.Signature) -> Callable[..., Any]:
    @wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return method(**_named(signature, arguments, named))
        except UserError as error:
            raise _gradio_error(error) from error

    return call


def _generator(method: Callable[..., Any], signature: inspect.Signature) -> Callable[..., Any]:
    @wraps(method)
    async def call(*arguments: Any, **named: Any) -> AsyncIterator[Any]:
        try:
            async for answer in method(**_named(signature, arguments, named)):
                yield answer
        except UserError as error:
            raise _gradio_error(error) from error

    return call


def _gradio_error(error: UserError) -> gr.Error:
    return gr.Error(str(error), print_exception=False)
