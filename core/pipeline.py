"""From a request to pictures: the one path that scripts, the command line and the page all take.

tokenise -> text encoder -> start noise -> schedule -> sampler -> denoiser with guidance -> VAE -> picture
and recipe
"""

from __future__ import annotations

import contextlib
import math
import platform
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from core import plugins
from core.denoiser import Denoiser, Estimate, Prediction
from core.errors import UserError
from core.files import write_numbered
from core.images import ModelRef, Recipe, png_bytes
from core.models.clip import CLIPTextEncoder
from core.models.unet import UNet
from core.models.vae import AutoencoderKL
from core.noise import SeededNoise, start_noise
from core.pixels import to_images
from core.preview import Previewer, fit
from core.prompt import TokenCount, Tokenizer
from core.request import Request, Settings
from core.sampling import Step
from core.sampling_run import run_sampler
from core.weights.find import find_model
from core.weights.model import ModelFiles, open_model
from core.weights.parts import load_part

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
PREDICTIONS: dict[str, Prediction] = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}


class Pipeline:
    """A loaded model. `Pipeline.load` makes one; runs do not change it, so several may go on at once."""

    def __init__(
        self,
        files: ModelFiles,
        tokenizer: Tokenizer,
        parts: tuple[CLIPTextEncoder, AutoencoderKL, UNet],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.files, self.config, self.notes, self.tokenizer = files, files.config, files.notes, tokenizer
        self.text_encoder, self.vae, self.unet = parts
        self.name, self.about = self.notes.name, files.about
        self.defaults, self.examples = self.notes.defaults, self.notes.examples
        self.device, self.dtype = device, dtype
        self.load_seconds = 0.0
        self.noise_schedule = self.config.noise.schedule()

    @property
    def sha256(self) -> str:
        """The hash of the model's weights. The files are read for it when it is first wanted."""
        return self.files.sha256

    @property
    def model_ref(self) -> ModelRef:
        """What a recipe says of the model."""
        files = self.files
        return ModelRef(name=self.name, sha256=files.sha256, vae_sha256=files.vae_sha256, ema=files.ema)

    @classmethod
    def load(
        cls,
        source: str | Path = "tiny",
        *,
        device: str | None = None,
        dtype: str | None = None,
        vae: str | Path | None = None,
        ema: bool = False,
    ) -> Pipeline:
        """A model: a folder as diffusers writes it, or a .safetensors or .ckpt file; by its path or its name
        ("tiny", or one in data/models). `about` says what was found.

        device: "cpu", "cuda", "mps"; the best one that is there when None. dtype: "float32", "float16",
        "bfloat16"; float32 on a CPU and float16 elsewhere when None. vae: a file or folder with a VAE to take
        instead of the model's own. ema: take the averaged copy of the UNet that some files hold. Raises
        UserError, also for files that are damaged.
        """
        began = time.perf_counter()
        where = _device(device)
        kind = _dtype(dtype, where)
        files = open_model(find_model(source), ema=ema, vae=None if vae is None else Path(vae))
        config, words = files.config, files.notes.words
        tokenizer = Tokenizer.load(
            files.tokenizer,
            config.text.max_position_embeddings,
            None if words is None else frozenset(words),
        )
        if max(tokenizer.vocab.values()) >= config.text.vocab_size:
            raise UserError(
                f"The tokenizer in {files.tokenizer} is of another model: it knows more tokens than "
                f"{files.notes.name}'s text encoder."
            )
        parts = (
            load_part(CLIPTextEncoder, config.text, files.text, where, kind),
            load_part(AutoencoderKL, config.vae, files.vae, where, kind),
            load_part(UNet, config.unet, files.unet, where, kind),
        )
        pipeline = cls(files, tokenizer, parts, where, kind)
        pipeline.load_seconds = time.perf_counter() - began
        return pipeline

    def tokens(self, prompt: str) -> TokenCount:
        """How many tokens a prompt takes, and which of its words the model has not learned."""
        return self.tokenizer.count(prompt)

    def stream(
        self, request: Request | None = None, *, cancel: threading.Event | None = None, **fields: Any
    ) -> Run:
        """A run of `request`, or of the Request that `fields` make: iterate over it for its steps.

        When `cancel` is set, the next evaluation of the network raises Cancelled. Raises UserError for a
        bad request.
        """
        if request is not None and fields:
            raise TypeError("give a request or its fields, not both")
        asked = Request.from_mapping(fields) if request is None else request
        return Run(self, asked, asked.resolve(self.defaults, plugins.registry()), cancel)

    def generate(
        self, request: Request | None = None, *, cancel: threading.Event | None = None, **fields: Any
    ) -> Result:
        """Run to the end and decode. Arguments and errors are those of `stream`."""
        return self.stream(request, cancel=cancel, **fields).result()

    @torch.no_grad()
    def encode_prompts(self, *prompts: str) -> list[Tensor]:
        """Text states (1, T, D) of each prompt, all of the length of the longest: chunks side by side."""
        chunks = [self.tokenizer.chunks(prompt) for prompt in prompts]
        longest = max(map(len, chunks))
        empty = self.tokenizer.chunks("")
        padded = [chunk + empty * (longest - len(chunk)) for chunk in chunks]
        # (chunks, T, D) a prompt
        states = [self.text_encoder(torch.tensor(ids, device=self.device)) for ids in padded]
        return [state.reshape(1, -1, state.shape[-1]) for state in states]

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Pictures of scaled latents (B, C, h, w), by the VAE, one at a time: a batch changes no picture."""
        x = latents.to(self.device, self.dtype)
        return [to_images(self._decode_one(x[i : i + 1]))[0] for i in range(len(x))]

    def _decode_one(self, latent: Tensor) -> Tensor:
        """(1, C, h, w) -> (1, 3, H, W). Raises UserError when the decoder overflows, as SD's does in
        float16.
        """
        picture = self.vae.decode(latent)
        if not bool(picture.isfinite().all()):
            raise UserError("The VAE gave values that are not numbers; try dtype float32.")
        return picture

    def preview(self, latents: Tensor) -> list[Image.Image]:
        """Quick pictures of latents (B, C, h, w), without the VAE."""
        return self._previewer(latents)

    @cached_property
    @torch.no_grad()
    def _previewer(self) -> Previewer:
        cell = self.config.vae.reduction
        if self.notes.preview is not None:
            return Previewer(self.notes.preview, cell)
        # A model without a map of its own: fit one to what its decoder makes of noise.
        latents = start_noise(0, 4, (self.config.vae.latent_channels, 16, 16))
        pictures = self.vae.decode(latents.to(self.device, self.dtype)).float().cpu()
        return Previewer(fit(latents, pictures).tolist(), cell)

    def recipe(self, settings: Settings) -> Recipe:
        """What goes into the picture of these settings (of one image)."""
        versions = {name: metadata.version(name) for name in ("latentcanvas", "torch")}
        return Recipe.of(
            settings,
            plugins.registry(),
            model=self.model_ref,
            device=str(self.device),
            dtype=str(self.dtype).removeprefix("torch."),
            versions=versions | {"python": platform.python_version()},
        )


@dataclass(frozen=True, eq=False)
class RunStep(Step):
    """A sampler's step with what the pipeline adds: both estimates, the count of evaluations, pictures."""

    conditional: Tensor  # (B, C, h, w) clean estimate from the prompt
    unconditional: Tensor | None  # the same from the negative prompt; None without guidance
    evals: int  # evaluations of the network until now
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
    """One run: an iterator of RunSteps. `settings` says what runs, `total` how many steps are due."""

    def __init__(
        self, pipeline: Pipeline, request: Request, settings: Settings, cancel: threading.Event | None
    ) -> None:
        registry = plugins.registry()
        self.pipeline, self.request, self.settings = pipeline, request, settings
        self._sampler = registry.sampler(settings.sampler)
        self._cancel = cancel
        self.sigmas = registry.schedule(settings.schedule).sigmas(pipeline.noise_schedule, settings.steps)
        self.total = len(self.sigmas) - 1
        self.steps: list[RunStep] = []
        self.seconds = {"encode": 0.0, "denoise": 0.0, "decode": 0.0}
        self._running = self._run()
        self._complete = False

    def __iter__(self) -> Iterator[RunStep]:
        return self

    def __next__(self) -> RunStep:
        self.steps.append(next(self._running))
        return self.steps[-1]

    def close(self) -> None:
        """End the run; the steps made so far stay."""
        self._running.close()

    def result(self) -> Result:
        """Take the steps that are left, decode the last one, and give everything.

        Raises RuntimeError for a run that was ended early: its last state is no picture of its settings.
        """
        with contextlib.closing(self._running):
            for _ in self:
                pass
        if not self._complete:
            raise RuntimeError("the run was ended early: what it made is in its steps")
        began = time.perf_counter()
        images = self.pipeline.decode(self.steps[-1].x)
        self.seconds["decode"] = time.perf_counter() - began
        recipe = self.pipeline.recipe(self.settings.for_image(0))
        evals = self.steps[-1].evals
        return Result(images, self.steps, self.request, self.settings, recipe, self.seconds, evals)

    def _run(self) -> Generator[RunStep, None, None]:
        began = time.perf_counter()
        denoiser = self._denoiser()
        self.seconds["encode"] = time.perf_counter() - began
        shape = self._shape()
        settings, device = self.settings, self.pipeline.device
        # N(0, I) in the DDPM's coordinates is sqrt(1 + sigma^2) N(0, I) in ours.
        x = start_noise(settings.seed, settings.batch, shape).to(device) * math.sqrt(1 + self.sigmas[0] ** 2)
        noise = SeededNoise(settings.seed, settings.batch, shape, device)
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

    def _denoiser(self) -> Denoiser:
        pipeline, settings = self.pipeline, self.settings
        guided = settings.cfg_scale != 1
        texts = (settings.prompt, settings.negative) if guided else (settings.prompt,)
        conditional, *others = pipeline.encode_prompts(*texts)
        return Denoiser(
            pipeline.unet,
            pipeline.noise_schedule,
            prediction=PREDICTIONS[pipeline.config.noise.prediction_type],
            conditional=conditional,
            unconditional=others[0] if guided else None,
            cfg_scale=settings.cfg_scale,
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
        estimate = next((e for e in reversed(made) if e.guided is step.denoised), made[-1])
        return RunStep(
            step.index,
            step.sigma,
            step.x,
            step.denoised,
            estimate.conditional,
            estimate.unconditional,
            denoiser.evals,
            self.pipeline,
        )


@dataclass(frozen=True, eq=False)
class Result:
    """What a finished run made. `recipe` is that of the first image; `seconds` is by part."""

    images: list[Image.Image]
    steps: list[RunStep]
    request: Request
    settings: Settings
    recipe: Recipe
    seconds: dict[str, float]
    evals: int

    def pngs(self) -> list[bytes]:
        """Each picture as a PNG file with its own recipe inside."""
        recipes = [replace(self.recipe, settings=self.settings.for_image(i)) for i in range(len(self.images))]
        return [png_bytes(image, recipe) for image, recipe in zip(self.images, recipes, strict=True)]

    def save(self, folder: Path) -> list[Path]:
        """Write them under the folder's next free numbers. Raises UserError."""
        return [write_numbered(folder, png) for png in self.pngs()]


def _device(name: str | None) -> torch.device:
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).sum().item()  # the device "meta" gets no further than this
    except (RuntimeError, AssertionError):  # NotImplementedError is one too
        raise UserError(f"Device {name!r} is not to be had here: try cpu.") from None
    return device


def _dtype(name: str | None, device: torch.device) -> torch.dtype:
    if name is None:
        return torch.float32 if device.type == "cpu" else torch.float16
    if name not in DTYPES:
        raise UserError(f"dtype {name!r} is not known; known are {', '.join(DTYPES)}.")
    return DTYPES[name]
