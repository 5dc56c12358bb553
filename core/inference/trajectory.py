"""The saved steps of a run: in memory, or in one small safetensors file that is readable without the model.

The state of every step is stored in float32, so that a run can continue from it exactly, and the estimates in
float16. All views of a step are linear in these. The clean estimate follows from the other two by guidance;
if that is not accurate enough it is stored too: with rescaled guidance, with samplers that yield another
estimate, and in the last steps, where a small error of it is a large error of the noise.

Steps are counted from 1: step k leads from state k - 1 to state k, and state 0 is the start.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from core.files import write_stream
from core.images.paste import Paste
from core.inference.preview import Previewer
from core.inference.record import gathered, known_of
from core.inference.run import Run
from core.inference.start import Start
from core.inference.trajectory_file import StepNote, blocks, read_fields
from core.recipes.recipe import Recipe
from core.request.settings import Settings
from core.sampling.guidance import guide

__all__ = ["VIEWS", "StepNote", "Trajectory"]

VIEWS = ("clean", "noisy", "noise", "conditional", "unconditional", "difference")
# The difference is small compared to the estimates, so its preview is amplified.
DIFFERENCE_GAIN = 4.0


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The steps of a run; for a branch, also those of its parent before it.

    recipe: of the first image. settings: of the whole batch; for a stopped run they have its number of steps,
    so they reproduce it. total: the planned number of steps; an adaptive sampler may take another. words: the
    run's message about its part of the grid. seconds: by part. steps: the steps in numbers. sigma_start: the
    level of state 0. preview_map, cell: core/inference/preview.py. paste: pastes a decoded step into the
    original image, if needed. tensors: "state" (N + 1, B, C, h, w) float32; in float16 "conditional"
    (N, B, C, h, w), "unconditional" of the steps with guidance, and "clean" of the steps where it does not
    follow from these. known: the init latents and mask for a branch (core/inference/start.py): "known"
    (1, C, h, w), "mask" (1, 1, h, w), "extra" (1, 1 + C, h, w), float32.
    """

    recipe: Recipe
    settings: Settings
    total: int
    stopped: bool
    words: str
    seconds: Mapping[str, float]
    steps: Sequence[StepNote]
    sigma_start: float
    preview_map: Sequence[Sequence[float]]
    cell: int
    tensors: Mapping[str, Tensor]
    known: Mapping[str, Tensor] = field(default_factory=dict)
    paste: Paste | None = None

    @classmethod
    def of(cls, run: Run) -> Trajectory:
        """The trajectory of a run that has ended or was stopped.

        Raises ValueError for a run that did not keep all its steps or has not started.
        """
        made = run.steps
        if run.start is None or not made or made[0].index != run.before:
            raise ValueError("there are no steps to save: run it with keep_steps first")
        settings, previewer = run.settings_so_far, run.model.previewer
        tensors, notes = gathered(run.start, made, run.sigmas[0])
        own = cls(
            recipe=run.model.recipe(settings.for_image(0)),
            settings=settings,
            total=run.whole,
            stopped=run.stopped,
            words=run.words,
            seconds=dict(run.seconds),
            steps=tuple(notes),
            sigma_start=run.sigmas[0],
            preview_map=previewer.map.tolist(),
            cell=previewer.cell,
            tensors=tensors,
            known=known_of(run.given),
            paste=run.paste,
        )
        return own._after(run.origin, run.before) if isinstance(run.origin, Trajectory) else own

    def _after(self, origin: Trajectory, count: int) -> Trajectory:
        """The first `count` steps of `origin`, then these."""
        if count == 0:
            return self
        first, evals, passes = (
            origin.steps[:count],
            origin.steps[count - 1].evals,
            origin.steps[count - 1].passes,
        )
        steps = [replace(step, evals=step.evals + evals, passes=step.passes + passes) for step in self.steps]
        tensors = {"state": torch.cat([origin.tensors["state"][:count], self.tensors["state"]])}
        for name in ("conditional", "unconditional", "clean"):
            rows = origin._count(name, count)
            pieces = [origin.tensors[name][:rows]] if rows else []
            pieces += [self.tensors[name]] if name in self.tensors else []
            if pieces:
                tensors[name] = torch.cat(pieces)
        return replace(
            self, steps=(*first, *steps), sigma_start=origin.sigma_start, tensors=tensors, known=origin.known
        )

    def save(self, path: Path) -> int:
        """Write the file atomically and return its size in bytes. Raises UserError."""
        return write_stream(path, blocks({f.name: getattr(self, f.name) for f in fields(self)}))

    @classmethod
    def open(cls, path: Path) -> Trajectory:
        """The steps in a file, read on demand. Raises UserError for a damaged one."""
        return cls(**read_fields(path))

    @property
    def nbytes(self) -> int:
        """The size of the tensors in bytes, in memory or mapped."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def given(self, device: torch.device) -> Start:
        """The init latents and mask for a branch of this run."""
        known = {name: tensor.clone().to(device) for name, tensor in self.known.items()}
        return Start(known.get("known"), known.get("mask"), None, known.get("extra"))

    @property
    def batch(self) -> int:
        """The number of images."""
        return self.settings.batch

    def alone(self, image: int) -> Trajectory:
        """The steps of one image, as its own run. Nothing is copied."""
        settings = self.settings.for_image(image)
        tensors = {name: tensor[:, image : image + 1] for name, tensor in self.tensors.items()}
        return replace(
            self, recipe=replace(self.recipe, settings=settings), settings=settings, tensors=tensors
        )

    def sigma(self, k: int) -> float:
        """The noise level of state k."""
        return self.sigma_start if k == 0 else self.steps[k - 1].sigma

    def state(self, k: int) -> Tensor:
        """The state (B, C, h, w) float32 after `k` steps; 0 is the start."""
        return self.tensors["state"][k]

    def views(self) -> list[str]:
        """The available views: without guidance there is no unconditional view and no difference."""
        return list(VIEWS if self._guided else VIEWS[:4])

    def latents(self, k: int, view: str = "clean", image: int = 0) -> Tensor:
        """Step `k`, from 1, of an image in one of VIEWS: (1, C, h, w) float32.

        noisy: the state after the step as the network sees it, of unit variance. noise: the predicted noise,
        of unit variance, from the clean estimate and the state before the step (also for a step with several
        evaluations). In a run with guidance, a step without it shows the conditional estimate as the
        unconditional one, and a difference of 0.
        """
        if not 1 <= k <= len(self.steps):
            raise IndexError(f"step {k} of {len(self.steps)}")
        match view:
            case "clean":
                return self._clean(k, image)
            case "noisy":
                return self._state(k, image) / math.sqrt(1 + self.sigma(k) ** 2)
            case "noise":
                return (self._state(k - 1, image) - self._clean(k, image)) / self.sigma(k - 1)
            case "conditional":
                return self._estimate("conditional", k, image)
            case "unconditional":
                return self._unconditional(k, image)
            case "difference":
                return self._estimate("conditional", k, image) - self._unconditional(k, image)
        raise ValueError(f"a view is one of {', '.join(VIEWS)}, not {view!r}")

    def preview(self, k: int, view: str = "clean", image: int = 0) -> Image.Image:
        """A preview of a view, of the run's size. The difference is amplified, and grey where it is 0."""
        latents = self.latents(k, view, image)
        if view == "difference":
            return self._previewer(latents * DIFFERENCE_GAIN, constant=False)[0]
        return self._previewer(latents)[0]

    def curves(self, image: int = 0) -> dict[str, list[float]]:
        """One number per step, for plots.

        sigma: the level after the step. guidance: the root mean square of the difference, 0 without one.
        distance: the root mean square of clean estimate minus final latent.
        """
        last = self._clean(len(self.steps), image) if self.stopped else self._state(-1, image)
        count = range(1, len(self.steps) + 1)
        return {
            "sigma": [step.sigma for step in self.steps],
            "guidance": [_size(self.latents(k, "difference", image)) for k in count],
            "distance": [_size(self._clean(k, image) - last) for k in count],
        }

    def finish(self, made: Image.Image, picture: Image.Image | None = None) -> Image.Image:
        """A decoded step as the run shows it: pasted into the original image, if needed.

        picture: an image that the run made. Without it a run that painted a part shows only that part.
        """
        return made if self.paste is None else self.paste.finish(made, picture)

    @cached_property
    def _guided(self) -> bool:
        return any(step.scale is not None for step in self.steps)

    @cached_property
    def _rows(self) -> dict[str, list[int]]:
        """The number of estimates up to each step, for those that not every step has."""
        guided, own = (step.scale is not None for step in self.steps), (step.own for step in self.steps)
        return {"unconditional": list(accumulate(guided)), "clean": list(accumulate(own))}

    def _count(self, name: str, k: int) -> int:
        return self._rows[name][k - 1] if name in self._rows else k

    @cached_property
    def _previewer(self) -> Previewer:
        return Previewer(self.preview_map, self.cell)

    def _state(self, k: int, image: int) -> Tensor:
        return self.tensors["state"][k, image : image + 1]

    def _estimate(self, name: str, k: int, image: int) -> Tensor:
        return self.tensors[name][self._count(name, k) - 1, image : image + 1].float()

    def _unconditional(self, k: int, image: int) -> Tensor:
        guided = self.steps[k - 1].scale is not None
        return self._estimate("unconditional" if guided else "conditional", k, image)

    def _clean(self, k: int, image: int) -> Tensor:
        step = self.steps[k - 1]
        if step.own:
            return self._estimate("clean", k, image)
        conditional = self._estimate("conditional", k, image)
        if step.scale is None:
            return conditional
        return guide(conditional, self._estimate("unconditional", k, image), step.scale)


def _size(x: Tensor) -> float:
    """The root mean square."""
    return float(x.square().mean().sqrt())
