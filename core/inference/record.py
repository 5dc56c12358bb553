"""The steps of a run as the tensors and numbers that a trajectory stores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.inference.run import RunStep
from core.inference.start import Start
from core.inference.trajectory_file import StepNote
from core.sampling.guidance import guide

# Tolerances for a clean estimate recomputed by guidance instead of stored: in parts of its largest value,
# and of the unit noise that follows from it. A preview shows less than this.
_NEAR, _NEAR_NOISE = 2.0**-6, 2.0**-3
_LARGEST = 65504.0  # of float16


def gathered(
    start: Tensor, steps: Sequence[RunStep], sigma: float
) -> tuple[dict[str, Tensor], list[StepNote]]:
    """The tensors and the notes of `steps` from `start` (B, C, h, w) at `sigma`."""
    kept: dict[str, list[Tensor]] = {"state": [start.cpu()], "conditional": []}
    notes = []
    for step in steps:
        made = conditional = _half(step.conditional)
        kept["state"].append(step.x.cpu())
        kept["conditional"].append(conditional)
        if step.unconditional is not None and step.scale is not None:
            unconditional = _half(step.unconditional)
            kept.setdefault("unconditional", []).append(unconditional)
            made = guide(conditional.float(), unconditional.float(), step.scale)
        own = not _near(made.float(), step.denoised.cpu(), sigma)
        notes.append(StepNote(step.index, step.sigma, step.evals, step.passes, step.scale, own))
        if own:
            kept.setdefault("clean", []).append(_half(step.denoised))
        sigma = step.sigma
    return {name: torch.stack(tensors) for name, tensors in kept.items()}, notes


def known_of(start: Start) -> dict[str, Tensor]:
    """The tensors of the start that a branch needs. Without a mask, the state already has the init image."""
    wanted = {"extra": start.extra}
    if start.blend is not None:
        wanted |= {"known": start.known, "mask": start.mask}
    return {name: tensor.cpu() for name, tensor in wanted.items() if tensor is not None}


def _near(made: Tensor, wanted: Tensor, sigma: float) -> bool:
    """Whether `made` can replace the clean estimate `wanted` in a step from `sigma`."""
    error, largest = float((made - wanted).abs().max()), float(wanted.abs().max())
    return error <= min(_NEAR * max(1.0, largest), _NEAR_NOISE * sigma)


def _half(x: Tensor) -> Tensor:
    """In float16, on the CPU, clamped to its range."""
    return x.clamp(-_LARGEST, _LARGEST).half().cpu()
