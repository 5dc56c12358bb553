"""One run of a model: an iterator of its steps, and its result."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import torch
from PIL import Image
from torch import Tensor

from core.errors import Cancelled, UserError
from core.files import write_numbered
from core.images.paste import Paste
from core.images.source_images import Inputs, prepare
from core.inference.denoising import build_denoiser
from core.inference.model import Model
from core.inference.plan import Leg, RunPlan
from core.inference.start import Start, start_of
from core.recipes.png import png_bytes
from core.recipes.recipe import Recipe
from core.request.request import Request
from core.request.settings import Settings
from core.sampling.contract import Step
from core.sampling.denoiser import Denoiser, Estimate
from core.sampling.loop import run_sampler
from core.sampling.noise import noise_source, start_noise


@dataclass(frozen=True, eq=False)
class RunStep(Step):
    """A sampler's step, with both estimates, counts of evaluations, and previews."""

    conditional: Tensor  # (B, C, h, w) clean estimate from the prompt
    unconditional: Tensor | None  # the same from the negative prompt; None without guidance
    evals: int  # evaluations so far
    passes: int  # passes of the network per image so far: two per evaluation with guidance, one without
    scale: float | None  # guidance scale; None without an unconditional estimate
    model: Model
    reused: int = 0  # passes so far that reused deep features

    def preview(self, image: int = 0, view: Literal["denoised", "noisy"] = "denoised") -> Image.Image:
        """A preview of the clean estimate, or of the noisy state as the network sees it."""
        return self.model.preview(self._latents(image, view))[0]

    def decode(self, image: int = 0, view: Literal["denoised", "noisy"] = "denoised") -> Image.Image:
        """The same, decoded by the VAE."""
        return self.model.decode(self._latents(image, view))[0]

    def _latents(self, image: int, view: str) -> Tensor:
        if view == "noisy":
            return self.x[image : image + 1] / math.sqrt(1 + self.sigma**2)
        return self.denoised[image : image + 1]


class Origin(Protocol):
    """The steps of a branch's parent run: a `Trajectory`."""

    @property
    def paste(self) -> Paste | None: ...

    def given(self, device: torch.device) -> Start: ...

    def state(self, k: int) -> Tensor:
        """The state (B, C, h, w) after `k` steps."""
        ...


class Run:
    """One run: an iterator of RunSteps, `total` of them.

    `sigmas` is the part of the grid that it runs, and `words` a message about it if it is not the whole grid:
    "strength 0.6 x 20 = 12 steps, from sigma 3.4". `start` is the start state, None before the first step;
    `paste` pastes its images into the original, if needed. With `origin` the `before` steps before the
    branch are taken from there and not run; `picture` is an image that the origin made. What comes after an
    adaptive sampler is an estimate until its steps are made. Raises UserError for an empty mask, and for a
    branch or an end that the steps do not have.
    """

    def __init__(
        self,
        model: Model,
        request: Request,
        plan: RunPlan,
        inputs: Inputs | None = None,
        *,
        origin: Origin | None = None,
        picture: Image.Image | None = None,
        cancel: threading.Event | None = None,
        keep_steps: bool = True,
    ) -> None:
        self.model, self.request, self.settings, self.origin = model, request, plan.settings, origin
        self._picture, self._cancel, self._keep_steps = picture, cancel, keep_steps
        self._prepared = None if inputs is None else prepare(inputs, plan.settings)
        self.paste: Paste | None = None
        if origin is not None:
            self.paste = origin.paste
        elif self._prepared is not None:
            self.paste = Paste.of(self._prepared)
        self.before, self.sigmas, self.words = plan.before, plan.sigmas, plan.message
        self._legs, self._end = [*plan.legs], plan.end
        self.start: Tensor | None = None
        self.given = Start()  # the latents of the init image and mask, set at the first step
        self.steps: list[RunStep] = []
        self.seconds = {"encode": 0.0, "denoise": 0.0, "decode": 0.0}
        self._running = self._run()
        self._complete = False

    def __iter__(self) -> Iterator[RunStep]:
        return self

    def __next__(self) -> RunStep:
        step = next(self._running)
        if not self._keep_steps:
            self.steps.clear()
        self.steps.append(step)
        return step

    def close(self) -> None:
        """End the run. Its steps so far stay."""
        self._running.close()

    @property
    def whole(self) -> int:
        """The steps of a run to the end, with those before the branch."""
        return self._legs[-1].total

    @property
    def total(self) -> int:
        """The steps that are run."""
        return (self.whole if self._end is None else min(self.whole, self._end)) - self.before

    @property
    def stopped(self) -> bool:
        """Whether its last step so far is not the last one of the grid."""
        return not self.steps or self.steps[-1].sigma > 0

    @property
    def settings_so_far(self) -> Settings:
        """The settings that reproduce the run up to its last step so far."""
        if not self.stopped:
            return replace(self.settings, stop_after=None)
        return replace(self.settings, stop_after=self.steps[-1].index + 1) if self.steps else self.settings

    def result(self) -> Result:
        """Run the remaining steps, decode the last one, and return the result.

        Raises RuntimeError for a run that was ended early, whose last state is not the image of its settings
        (see `so_far`); and Cancelled if it was stopped before its images were decoded.
        """
        with contextlib.closing(self._running):
            for _ in self:
                pass
        if not self._complete:
            raise RuntimeError("the run ended early: its steps so far are in `steps`")
        return self._result(self._cancel)

    def so_far(self) -> Result:
        """The result of a stopped run: the clean estimate of its last step as an image, with the number of
        steps in its recipe. Ends the run. Raises UserError before the first step.
        """
        self.close()
        if not self.steps:
            raise UserError("the run was stopped before its first step: it has no image")
        return self._result(None)

    def _result(self, cancel: threading.Event | None) -> Result:
        began = time.perf_counter()
        last, settings = self.steps[-1], self.settings_so_far
        with self.model.networks.in_words():
            images = [self._image(last, i, cancel) for i in range(settings.batch)]
        self.seconds["decode"] = time.perf_counter() - began
        return Result(
            images,
            self.steps,
            self.request,
            settings,
            self.model.recipe(settings.for_image(0)),
            self.seconds,
            last.evals,
            last.passes,
            "; ".join(filter(None, (self.words, self.model.networks.shrunk))),
            self.stopped,
            last.reused,
        )

    def _image(self, step: RunStep, image: int, cancel: threading.Event | None) -> Image.Image:
        """One image of the batch, pasted into the original if needed."""
        if cancel is not None and cancel.is_set():
            raise Cancelled("the run was stopped")
        latents = step.denoised if step.sigma > 0 else step.x
        made = self.model.decode(latents[image : image + 1])[0]
        if self._prepared is not None:
            return self._prepared.finish(made)
        return made if self.paste is None else self.paste.finish(made, self._picture)

    def _run(self) -> Generator[RunStep, None, None]:
        began = time.perf_counter()
        self.model.networks.restore()
        with self.model.networks.in_words():
            x = self._first_state()
        for i, leg in enumerate(self._legs):
            last = i + 1 == len(self._legs)
            end = self._end if last else self._legs[i + 1].first
            if end == leg.first:  # a branch from the start: no step of its parent is run
                continue
            if self.steps:
                self._legs[i] = leg = self._continued(leg)
            self.seconds["encode"] += time.perf_counter() - began
            for step in self._run_leg(leg, x, end):
                x = step.x
                yield step
            began = time.perf_counter()
        self._complete = True

    def _continued(self, leg: Leg) -> Leg:
        """The leg from the level where the one before left the state; after an adaptive sampler it is known
        only now. Raises UserError when nothing is left.
        """
        last = self.steps[-1]
        if last.sigma == 0:
            raise UserError(
                f"branch after step {leg.first}: here the parent run ended after step {last.index + 1}; "
                "choose an earlier step"
            )
        return leg.beginning_at(last.sigma)

    def _first_state(self) -> Tensor:
        """The start state (B, C, h, w) float32; also sets `given`."""
        device = self.model.device
        if self.origin is not None:
            self.given = self.origin.given(device)
            x = self.origin.state(self.before).clone().to(device)
        else:
            settings, sigma = self._legs[0].settings, self._legs[0].levels[0]
            self.given = start_of(self.model, self._prepared, settings)
            noise = start_noise(settings.seed, settings.batch, self._shape())
            x = self.given.state(noise.to(device), sigma)
        self.start = x
        return x

    def _run_leg(self, leg: Leg, x: Tensor, end: int | None) -> Generator[RunStep, None, None]:
        """The steps of one leg from `x`, until `end` steps of the run are made."""
        began = time.perf_counter()
        settings, device = leg.settings, self.model.device
        denoiser = build_denoiser(self.model, settings, self.given, grid=leg.grid, cancel=self._cancel)
        if self.steps:  # count on from the leg before
            last = self.steps[-1]
            denoiser.evals, denoiser.passes, denoiser.reused = last.evals, last.passes, last.reused
        self.seconds["encode"] += time.perf_counter() - began
        noise = noise_source(leg.sampler.noise, settings.seed, settings.batch, self._shape(), device)
        steps = run_sampler(leg.sampler, denoiser, x, leg.levels, noise, settings.options)
        while True:
            began = time.perf_counter()
            try:
                with self.model.networks.in_words():
                    step = next(steps, None)
            finally:
                self.seconds["denoise"] += time.perf_counter() - began
            if step is None:
                return
            made = self._run_step(step, denoiser, leg)
            yield made
            if made.index + 1 == end and made.sigma > 0:  # at sigma 0 the sampler must still return
                return

    def _shape(self) -> tuple[int, int, int]:
        """(C, h, w) of a latent."""
        return self.model.latent_shape(self.settings.width, self.settings.height)

    def _run_step(self, step: Step, denoiser: Denoiser, leg: Leg) -> RunStep:
        """The step with the estimates of the evaluation that returned `step.denoised`, or of the last one."""
        made = [*denoiser.estimates] or [Estimate(step.denoised, None, step.denoised)]
        denoiser.estimates.clear()
        # At the end the unmasked part is exactly the init latents, whatever the sampler's rounding.
        x = denoiser.blend(step.x) if denoiser.blend is not None and step.sigma == 0 else step.x
        estimate = next((e for e in reversed(made) if e.guided is step.denoised), made[-1])
        return RunStep(
            leg.first + step.index,
            step.sigma,
            x,
            step.denoised,
            estimate.conditional,
            estimate.unconditional,
            denoiser.evals,
            denoiser.passes,
            None if estimate.unconditional is None else leg.settings.cfg_scale,
            self.model,
            denoiser.reused,
        )


@dataclass(frozen=True, eq=False)
class Result:
    """The result of a run. `recipe` is that of the first image; `seconds` is by part.

    `evals`, `passes` and `reused` are those of the last step; `words` is the run's message, also about memory
    that ran out. If the run `stopped` before its last step, the images are clean estimates, and `settings`
    have the number of steps.
    """

    images: list[Image.Image]
    steps: list[RunStep]
    request: Request
    settings: Settings
    recipe: Recipe
    seconds: dict[str, float]
    evals: int
    passes: int
    words: str
    stopped: bool = False
    reused: int = 0

    def pngs(self) -> list[bytes]:
        """Each image as a PNG file with its own recipe inside."""
        recipes = [replace(self.recipe, settings=self.settings.for_image(i)) for i in range(len(self.images))]
        return [png_bytes(image, recipe) for image, recipe in zip(self.images, recipes, strict=True)]

    def save(self, folder: Path) -> list[Path]:
        """Save the images under the folder's next free numbers. Raises UserError."""
        return [write_numbered(folder, png) for png in self.pngs()]
