"""A pipeline for the commands' tests: it follows the contract of core.inference.pipeline without torch or
weights.

The picture of a prompt is three colour blobs chosen by its text and seed; a step mixes it with noise. So runs
are instant (or as slow as `delay` says), deterministic, and visibly form.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import Cancelled, UserError
from core.files import write_numbered
from core.images.source_images import Inputs
from core.recipes.png import png_bytes
from core.recipes.recipe import ModelRef, PluginRef, Recipe
from core.request.model_defaults import Defaults
from core.request.request import Request
from core.request.settings import Settings
from core.sampling.registry import Registry

Array = NDArray[np.float32]
T = TypeVar("T")
KNOWN = {"a", "red", "blue", "green", "circle", "star", "house", "on", "hill", "under", "the", "moon"}


@dataclass(frozen=True)
class FakeTokens:
    used: int
    limit: int
    unknown: tuple[str, ...]
    chunks: int = 1
    nearest: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class FakeStep:
    """One step; the arrays are (B, 3, h, w), in -1 to 1 when clean."""

    index: int
    sigma: float
    x: Array
    denoised: Array
    conditional: Array
    unconditional: Array | None
    evals: int

    def preview(self, image: int = 0, view: str = "denoised") -> Image.Image:
        shown = self.x / np.sqrt(1 + self.sigma**2) if view == "noisy" else self.denoised
        return to_image(shown[image])

    def decode(self, image: int = 0) -> Image.Image:
        return to_image(self.denoised[image])


@dataclass(frozen=True)
class FakeResult:
    images: list[Image.Image]
    steps: list[FakeStep]
    settings: Settings
    recipe: Recipe
    seconds: dict[str, float]
    evals: int
    passes: int = 0
    reused: int = 0
    words: str = ""

    def pngs(self) -> list[bytes]:
        recipes = [replace(self.recipe, settings=self.settings.for_image(i)) for i in range(len(self.images))]
        return [png_bytes(image, recipe) for image, recipe in zip(self.images, recipes, strict=True)]

    def save(self, folder: Path) -> list[Path]:
        return [write_numbered(folder, png) for png in self.pngs()]


class FakeRun:
    """An iterator of the steps."""

    words = ""

    def __init__(self, settings: Settings, cancel: threading.Event | None, delay: float) -> None:
        self.settings, self.total = settings, settings.steps
        self.steps: list[FakeStep] = []
        self._cancel, self._delay = cancel, delay

    def __iter__(self) -> Iterator[FakeStep]:
        shape = (3, self.settings.height // 8, self.settings.width // 8)
        one = self.settings.for_image
        clean = np.stack([picture(one(i), shape) for i in range(self.settings.batch)])
        noise = np.stack([draw(one(i).seed, shape) for i in range(self.settings.batch)])
        for i in range(self.total):
            time.sleep(self._delay)
            if self._cancel is not None and self._cancel.is_set():
                raise Cancelled
            done = (i + 1) / self.total
            sigma = 0.0 if done == 1 else float(14.6 * (1 - done) ** 3)
            estimate = (clean * done + clean.mean(axis=(2, 3), keepdims=True) * (1 - done)).astype(np.float32)
            prompted = (estimate * 0.9).astype(np.float32)
            plain = (estimate * 0.3).astype(np.float32) if self.settings.cfg_scale != 1 else None
            x = (estimate + sigma * noise).astype(np.float32)
            self.steps.append(FakeStep(i, sigma, x, estimate, prompted, plain, i + 1))
            yield self.steps[-1]

    def close(self) -> None:
        """Nothing is held."""

    def result(self) -> FakeResult:
        last = self.steps[-1]
        recipe = Recipe(
            settings=self.settings.for_image(0),
            model=ModelRef(name="fake", sha256="0" * 64),
            plugin=PluginRef(name="latentcanvas", version="0"),
            schedule_plugin=PluginRef(name="latentcanvas", version="0"),
            device="cpu",
            dtype="float32",
        )
        images = [last.decode(i) for i in range(self.settings.batch)]
        seconds = {"encode": 0.01, "denoise": self._delay * self.total, "decode": 0.02}
        return FakeResult(images, self.steps, self.settings, recipe, seconds, self.total)


class DrawnPipeline:
    """What `Pipeline.load` would give."""

    name = "fake"
    sha256 = "0" * 64
    defaults = Defaults(sampler="ddim", schedule="leading", steps=20, cfg_scale=5.0, width=128, height=128)
    examples = (
        "a red circle on a blue background",
        "a house on a green hill under the moon",
        "a yellow star",
    )

    subjects: tuple[str, ...] = ()

    def subject_sheet(self) -> bytes:
        raise UserError("there is none")

    def __init__(self, registry: Registry, delay: float = 0.0) -> None:
        self.registry, self.delay = registry, delay

    def tokens(self, prompt: str) -> FakeTokens:
        words = prompt.lower().split()
        return FakeTokens(len(words) + 2, 77, tuple(word for word in words if word not in KNOWN))

    def stream(
        self,
        request: Request,
        *,
        image: Image.Image | None = None,
        mask: Image.Image | None = None,
        cancel: threading.Event | None = None,
        keep_steps: bool = True,
    ) -> FakeRun:
        inputs = Inputs.read(image, mask)
        given = None if inputs is None else inputs.given
        return FakeRun(request.resolve(self.defaults, self.registry, given), cancel, self.delay)

    def preview(self, latents: Any) -> Sequence[Image.Image]:
        return [to_image(one) for one in latents]


def draw(seed: int, shape: tuple[int, int, int]) -> Array:
    """Noise of a seed."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def picture(settings: Settings, shape: tuple[int, int, int]) -> Array:
    """Three soft blobs whose colours and places depend on the prompt and seed, (3, h, w) in -1 to 1."""
    text = f"{settings.prompt}/{settings.seed}".encode()
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(text).digest()[:8], "big"))
    _, height, width = shape
    rows, columns = np.mgrid[0:height, 0:width] / np.array([[[height]], [[width]]])
    ground = np.ones(shape) * rng.uniform(-1, 1, (3, 1, 1))
    for _ in range(3):
        y, x, size = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8), rng.uniform(0.1, 0.25)
        blob = (np.hypot(rows - y, columns - x) < size)[None]
        ground = np.where(blob, rng.uniform(-1, 1, (3, 1, 1)), ground)
    return ground.astype(np.float32)


def to_image(values: Array) -> Image.Image:
    """(3, h, w) in -1 to 1 as a picture eight times as large."""
    _, height, width = values.shape
    pixels = np.clip((values + 1) * 127.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return Image.fromarray(pixels).resize((width * 8, height * 8), Image.Resampling.BICUBIC)
