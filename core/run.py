"""One run of a pipeline: its steps as they are made, and what is left of it at the end."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image
from torch import Tensor

from core import plugins
from core.denoiser import Denoiser, Estimate, Prediction
from core.errors import Cancelled
from core.files import write_numbered
from core.guidance import interval
from core.images import Recipe, png_bytes
from core.inputs import Inputs, prepare
from core.noise import noise_source, start_noise
from core.request import Request, Settings
from core.sampling import Step
from core.sampling_run import run_sampler
from core.schedule import last_part, strength_words
from core.starting import Start, start_of

if TYPE_CHECKING:
    from core.pipeline import Pipeline

PREDICTIONS: dict[str, Prediction] = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}


@dataclass(frozen=True, eq=False)
class RunStep(Step):
    """A sampler's step with what the pipeline adds: both estimates, the count of evaluations, pictures."""

    conditional: Tensor  # (B, C, h, w) clean estimate from the prompt
    unconditional: Tensor | None  # the same from the negative prompt; None without guidance
    evals: int  # evaluations until now
    passes: int  # of the network an image until now: an evaluation with guidance is two, one without is one
    scale: float | None  # of the guidance; None where there is no unconditional estimate
    pipeline: Pipeline

    def preview(self, image: int = 0, view: Literal["denoised", "noisy"] = "denoised") -> Image.Image:
        """A quick picture of the clean estimate, or of the noisy state as the network sees it."""
        return self.pipeline.preview(self._latents(image, view))[0]

    def decode(self, image: int = 0, view: Literal["denoised", "noisy"] = "denoised") -> Image.Image:
        """The same by the VAE."""
        return self.pipeline.decode(self._latents(image, view))[0]

    def _latents(self, image: int, view: str) -> Tensor:
        if view == "noisy":
            return self.x[image : image + 1] / math.sqrt(1 + self.sigma**2)
        return self.denoised[image : image + 1]


class Run:
    """One run: an iterator of RunSteps. `settings` says what runs, `total` how many steps are due.

    `sigmas` is the part of the grid that it takes, and `words` says so where that is not all of it:
    "strength 0.6 x 20 = 12 steps, from sigma 3.4". `start` is the state that it begins with, None until it
    does; `before` steps were made by a run that this one goes on from. Raises UserError for a mask that is
    empty.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        request: Request,
        settings: Settings,
        inputs: Inputs | None = None,
        *,
        cancel: threading.Event | None = None,
        keep_steps: bool = True,
    ) -> None:
        registry = plugins.registry()
        self.pipeline, self.request, self.settings = pipeline, request, settings
        self._sampler = registry.sampler(settings.sampler)
        self._cancel, self._keep_steps = cancel, keep_steps
        self._prepared = None if inputs is None else prepare(inputs, settings)
        schedule = registry.schedule(settings.schedule)
        grid = settings.sigmas or schedule.sigmas(pipeline.noise_schedule, settings.steps)
        self.sigmas = grid if settings.strength is None else last_part(grid, settings.strength)
        self.words = "" if settings.strength is None else strength_words(grid, settings.strength)
        self._cfg_interval = interval(grid, settings.cfg_from, settings.cfg_to)
        self.total = len(self.sigmas) - 1
        self.before = 0
        self.start: Tensor | None = None
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
        """End the run; the steps made so far stay."""
        self._running.close()

    @property
    def stopped(self) -> bool:
        """Whether it has not come to its end, or ended before its last step."""
        return not self._complete

    @property
    def settings_so_far(self) -> Settings:
        """The settings that make again what was made until now."""
        return self.settings

    def result(self) -> Result:
        """Take the steps that are left, decode the last one, and give everything.

        Raises RuntimeError for a run that was ended early: its last state is no picture of its settings; and
        Cancelled where it was stopped before its pictures were decoded.
        """
        with contextlib.closing(self._running):
            for _ in self:
                pass
        if not self._complete:
            raise RuntimeError("the run was ended early: what it made is in its steps")
        began = time.perf_counter()
        last = self.steps[-1]
        images = [self._picture(last, i) for i in range(self.settings.batch)]
        self.seconds["decode"] = time.perf_counter() - began
        recipe = self.pipeline.recipe(self.settings.for_image(0))
        return Result(
            images,
            self.steps,
            self.request,
            self.settings,
            recipe,
            self.seconds,
            last.evals,
            last.passes,
            self.words,
        )

    def _picture(self, step: RunStep, image: int) -> Image.Image:
        """One picture of the batch, pasted back where it came from."""
        if self._cancel is not None and self._cancel.is_set():
            raise Cancelled("the run was stopped")
        made = self.pipeline.decode(step.x[image : image + 1])[0]
        return made if self._prepared is None else self._prepared.finish(made)

    def _run(self) -> Generator[RunStep, None, None]:
        began = time.perf_counter()
        start = start_of(self.pipeline, self._prepared, self.settings)
        denoiser = self._denoiser(start)
        self.seconds["encode"] = time.perf_counter() - began
        shape = self._shape()
        settings, device = self.settings, self.pipeline.device
        x = start.state(start_noise(settings.seed, settings.batch, shape).to(device), self.sigmas[0])
        self.start = x
        noise = noise_source(self._sampler.noise, settings.seed, settings.batch, shape, device)
        steps = run_sampler(self._sampler, denoiser, x, self.sigmas, noise, settings.options)
        while True:
            began = time.perf_counter()
            try:
                step = next(steps)
            except StopIteration:
                self._complete = True
                return
            finally:
                self.seconds["denoise"] += time.perf_counter() - began
            yield self._run_step(step, denoiser)

    def _denoiser(self, start: Start) -> Denoiser:
        pipeline, settings = self.pipeline, self.settings
        guided = settings.cfg_scale != 1
        texts = (settings.prompt, settings.negative) if guided else (settings.prompt,)
        conditional, *others = pipeline.encode_prompts(*texts, clip_skip=settings.clip_skip)
        return Denoiser(
            pipeline.unet,
            pipeline.noise_schedule,
            prediction=PREDICTIONS[pipeline.config.noise.prediction_type],
            conditional=conditional,
            unconditional=others[0] if guided else None,
            cfg_scale=settings.cfg_scale,
            cfg_rescale=settings.cfg_rescale,
            cfg_interval=self._cfg_interval,
            blend=start.blend,
            extra=start.extra,
            cancel=self._cancel,
            dtype=pipeline.dtype,
        )

    def _shape(self) -> tuple[int, int, int]:
        """(C, h, w) of a latent."""
        vae, settings = self.pipeline.config.vae, self.settings
        return vae.latent_channels, settings.height // vae.reduction, settings.width // vae.reduction

    def _run_step(self, step: Step, denoiser: Denoiser) -> RunStep:
        """The step with the estimates of the evaluation that gave `step.denoised`, or of the last one."""
        made = [*denoiser.estimates] or [Estimate(step.denoised, None, step.denoised)]
        denoiser.estimates.clear()
        # At the end what is known is itself again, whatever the sampler's arithmetic made of it.
        x = denoiser.blend(step.x) if denoiser.blend is not None and step.sigma == 0 else step.x
        estimate = next((e for e in reversed(made) if e.guided is step.denoised), made[-1])
        return RunStep(
            step.index,
            step.sigma,
            x,
            step.denoised,
            estimate.conditional,
            estimate.unconditional,
            denoiser.evals,
            denoiser.passes,
            None if estimate.unconditional is None else self.settings.cfg_scale,
            self.pipeline,
        )


@dataclass(frozen=True, eq=False)
class Result:
    """What a finished run made. `recipe` is that of the first image; `seconds` is by part.

    `evals`, `passes` and `words` are those of the last step and of the run.
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

    def pngs(self) -> list[bytes]:
        """Each picture as a PNG file with its own recipe inside."""
        recipes = [replace(self.recipe, settings=self.settings.for_image(i)) for i in range(len(self.images))]
        return [png_bytes(image, recipe) for image, recipe in zip(self.images, recipes, strict=True)]

    def save(self, folder: Path) -> list[Path]:
        """Write them under the folder's next free numbers. Raises UserError."""
        return [write_numbered(folder, png) for png in self.pngs()]
