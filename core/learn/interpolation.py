"""Interpolation between two seeds, prompts or images, and why noise needs slerp and not lerp."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from PIL import Image

from core.errors import UserError
from core.figures.contact_sheet import ImageRow, Plot
from core.figures.plots import Paper
from core.learn.recorder import (
    Watch,
    decibels,
    evals_of,
    fitted,
    latent_shape,
    norm,
    sample,
    settings_of,
)
from core.learn.result import ViewResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from core.inference.pipeline import Pipeline

Mix = Callable[["Tensor", "Tensor", float], "Tensor"]
MOST = 24


def lerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Linear interpolation from a (share 0) to b (share 1), both of the same shape."""
    return (1 - share) * a + share * b


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Spherical interpolation from a to b of the same shape, each flattened to one vector: Shoemake 1985,
    Animating Rotation with Quaternion Curves, section 3.3. For vectors of equal length the length stays
    constant.
    """
    cosine = (a * b).sum() / (a.norm() * b.norm())
    angle = math.acos(min(max(float(cosine), -1.0), 1.0))
    if math.sin(angle) < 1e-6:  # parallel or opposite vectors: there is no unique arc between them
        return lerp(a, b, share)
    return (math.sin((1 - share) * angle) * a + math.sin(share * angle) * b) / math.sin(angle)


def between_seeds(
    pipeline: Pipeline,
    *,
    prompt: str = "",
    seeds: tuple[int, int] = (1, 2),
    count: int = 7,
    watch: Watch | None = None,
    **fields: Any,
) -> ViewResult:
    """Images between two seeds, by slerp and by lerp of their noise. Raises UserError."""
    from core.sampling.noise import start_noise

    watch, shares = watch or Watch(), _shares(count)
    settings = settings_of(pipeline, prompt=prompt, seed=seeds[0], batch=1, **fields)
    shape = latent_shape(pipeline, settings)
    a, b = (start_noise(seed, 1, shape) for seed in seeds)
    contexts = _contexts(pipeline, settings.prompt, settings.negative)
    watch.expect(evals_of(settings) * (2 * count - 2))

    def draw_all(mix: Mix, chosen: Sequence[float]) -> list[Image.Image]:
        made = (sample(pipeline, mix(a, b, share), contexts, settings, watch) for share in chosen)
        return [pipeline.decode(latents)[0] for latents in made]

    arc = draw_all(slerp, shares)
    line = [arc[0], *draw_all(lerp, shares[1:-1]), arc[-1]]
    norms = {name: [norm(mix(a, b, share)) for share in shares] for name, mix in _WAYS.items()}
    middle = norms["lerp"][count // 2]
    words = [
        f"Halfway along the straight line the noise has strength {middle:.2f} instead of 1: less than the "
        "model ever saw at this level. The model reads the missing noise as smoothness and paints a flat "
        "image with few details."
    ]
    names = [f"{share:.2f}" for share in shares]
    parts: list[ImageRow | Plot] = [
        ImageRow(f"slerp: from seed {seeds[0]} to {seeds[1]} along the arc", _named(names, arc), count),
        ImageRow("lerp: along the straight line", _named(names, line), count),
        Plot("the strength of the noise along arc and line", lambda paper: _norms(paper, shares, norms)),
    ]
    numbers = {"seeds": list(seeds), "shares": shares, "norms": norms, "settings": settings.to_dict()}
    return ViewResult(words, numbers, parts, lambda paper: arc, milliseconds=160)


def between_prompts(
    pipeline: Pipeline,
    *,
    prompts: tuple[str, str],
    count: int = 7,
    watch: Watch | None = None,
    **fields: Any,
) -> ViewResult:
    """From one prompt to another: lerp of the prompt embeddings, the same noise. Raises UserError."""
    from core.sampling.noise import start_noise

    watch, shares = watch or Watch(), _shares(count)
    settings = settings_of(pipeline, prompt=prompts[0], batch=1, **{"seed": 1, **fields})
    noise = start_noise(settings.seed, 1, latent_shape(pipeline, settings))
    first, second, empty = pipeline.encode_prompts(*prompts, settings.negative)
    watch.expect(evals_of(settings) * count)
    made = []
    for share in shares:
        latents = sample(pipeline, noise, (lerp(first, second, share), empty), settings, watch)
        made.append(pipeline.decode(latents)[0])
    words = [f"The prompt embeddings go from {prompts[0]!r} to {prompts[1]!r}; the noise is the same."]
    jumps = [decibels(a, b) for a, b in pairwise(made)]
    row = ImageRow("", _named([f"{share:.2f}" for share in shares], made), count)
    numbers = {"prompts": list(prompts), "shares": shares, "psnr_of_neighbours": jumps}
    return ViewResult(words, numbers, [row], lambda paper: made, milliseconds=160)


def between_pictures(
    pipeline: Pipeline,
    images: tuple[Image.Image, Image.Image],
    *,
    count: int = 7,
    strength: float = 0.5,
    watch: Watch | None = None,
    **fields: Any,
) -> ViewResult:
    """From one image to another: mixed pixels, mixed latents, and mixed latents after img2img.

    strength: the denoising strength of that last row. Raises UserError.
    """
    from core.images.tensors import from_image
    from core.sampling.noise import start_noise

    watch, shares = watch or Watch(), _shares(count)
    settings = settings_of(pipeline, **{"seed": 1, **fields, "batch": 1})
    if not 0 < strength <= 1 or int(settings.steps * strength) < 1:
        raise UserError(
            f"strength {strength:g} of {settings.steps} steps: must be in (0, 1] and run at least 1 step"
        )
    a, b = (fitted(image, pipeline) for image in images)
    first, second = (pipeline.encode(from_image(image)) for image in (a, b))
    noise = start_noise(settings.seed, 1, latent_shape(pipeline, settings))
    contexts = _contexts(pipeline, settings.prompt, settings.negative)
    watch.expect(int(evals_of(settings) * strength) * count)
    faded = [Image.blend(a, b, share) for share in shares]
    mixed = [pipeline.decode(lerp(first, second, share))[0] for share in shares]
    redrawn = []
    for share in shares:
        known = lerp(first, second, share)
        latents = sample(pipeline, noise, contexts, settings, watch, known=known, strength=strength)
        redrawn.append(pipeline.decode(latents)[0])
    names = [f"{share:.2f}" for share in shares]
    parts = [
        ImageRow("pixels, mixed", _named(names, faded), count),
        ImageRow("latents, mixed and decoded", _named(names, mixed), count),
        ImageRow(f"latents, mixed, then img2img at strength {strength:g}", _named(names, redrawn), count),
    ]
    words = [
        "Mixed latents decode to a double exposure, much like mixed pixels, because the VAE keeps positions. "
        "Adding noise and denoising turns it into one image again"
        + (f", of {settings.prompt!r}." if settings.prompt else ".")
    ]
    numbers = {"shares": shares, "strength": strength, "settings": settings.to_dict()}
    return ViewResult(words, numbers, parts, lambda paper: redrawn, milliseconds=160)


_WAYS: dict[str, Mix] = {"slerp": slerp, "lerp": lerp}


def _contexts(pipeline: Pipeline, prompt: str, negative: str) -> tuple[Tensor, Tensor]:
    first, second = pipeline.encode_prompts(prompt, negative)
    return first, second


def _shares(count: int) -> list[float]:
    if not 3 <= count <= MOST:
        raise UserError(f"count {count}: must be between 3 and {MOST}")
    return [i / (count - 1) for i in range(count)]


def _named(names: Sequence[str], pictures: Sequence[Image.Image]) -> list[tuple[str, Image.Image]]:
    return list(zip(names, pictures, strict=True))


def _norms(paper: Paper, shares: Sequence[float], norms: dict[str, list[float]]) -> Figure:
    figure, (axes,) = paper.panels(1, across=1, shape=0.6 if paper.narrow else 0.2)
    for i, (name, values) in enumerate(norms.items()):
        axes.plot(shares, values, "-o", color=paper.ink.series[i], ms=4, label=name)
    axes.axhline(1, color=paper.ink.quiet, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_ylim(0.6, 1.1)
    paper.title(axes, "strength of the noise: ‖z‖ / √n")
    paper.labels(axes, "share of the second seed")
    paper.legend(axes)
    return figure
