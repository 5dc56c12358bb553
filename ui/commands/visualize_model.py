"""The views of `visualize` that need a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tqdm import tqdm

from core.errors import UserError
from core.learn.choices import check, numbers, whole_numbers
from ui.commands import options
from ui.commands.visualize import Out, Seed, Theme, give
from ui.commands.visualize import app as app

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image

    from core.learn.recorder import Watch
    from core.learn.result import ViewResult

PROMPT = "a red house under a full moon"
Prompt = Annotated[str, typer.Argument(help="The prompt.")]
Steps = Annotated[int | None, typer.Option(help="Inference steps of each image. [default: the model's]")]
Scale = Annotated[float | None, typer.Option(help="Classifier-free guidance scale. [default: the model's]")]
Picture = Annotated[Path | None, typer.Option(metavar="FILE", help="Image to encode. [default: a drawn one]")]


@app.command()
def ddpm(
    prompt: Prompt = PROMPT,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Steps of DDPM.")] = 1000,
    ddim_steps: Annotated[str, typer.Option(metavar="N,N", help="Steps of each DDIM run.")] = "50,20,10",
    cfg_scale: Scale = None,
    seed: Seed = 1,
    model: options.Model = "tiny",
    out: Out = None,
    theme: Theme = "light",
    as_json: options.Json = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
) -> None:
    """DDPM with all its steps compared with DDIM in a few: images, time, distance."""
    from core.learn.ddpm import ddpm_and_ddim

    few = whole_numbers("ddim steps", ddim_steps)
    asked: dict[str, Any] = {"ddpm_steps": steps, "ddim_steps": few, "cfg_scale": cfg_scale, "seed": seed}
    for count in few:
        check(prompt, steps=count, cfg_scale=cfg_scale, seed=seed)
    make = _with_model(
        model,
        device,
        dtype,
        lambda pipeline, watch: ddpm_and_ddim(pipeline, prompt=prompt, watch=watch, **asked),
    )
    give(make, out, theme, as_json, moves=False)


@app.command()
def guidance(
    prompt: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT",
            help=f"One prompt shows its estimates, several a grid over the scales. [default: {PROMPT}]",
        ),
    ] = None,
    examples: Annotated[
        bool, typer.Option("--examples", help="A grid of the model's example prompts or classes.")
    ] = False,
    scales: Annotated[str, typer.Option(metavar="X,X", help="Guidance scales to compare.")] = "1,2,3,5,8,12",
    at: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="With one prompt: show the estimates after this part of the steps. [default: 0.3]",
        ),
    ] = None,
    steps: Steps = None,
    seed: Seed = 1,
    model: options.Model = "tiny",
    out: Out = None,
    theme: Theme = "light",
    as_json: options.Json = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
) -> None:
    """Guidance: conditional and unconditional estimates at each scale, or a grid of prompts over scales."""
    from core.learn.guidance import check_grid, guidance_grid
    from core.learn.guidance import guidance as show_one

    if examples and prompt:
        raise UserError("give prompts or --examples, not both")
    rows, grid = [] if examples else prompt or [PROMPT], examples or len(prompt or ()) > 1
    if grid and at is not None:
        raise UserError("--at: a grid shows finished images only; give one prompt")
    asked: dict[str, Any] = {"scales": numbers("scales", scales), "steps": steps, "seed": seed}
    for row in rows or [""]:
        for scale in asked["scales"]:
            check(row, steps=steps, cfg_scale=scale, seed=seed)
    if grid and rows:
        check_grid(rows, asked["scales"])

    def show(pipeline: Any, watch: Watch) -> ViewResult:
        if grid:
            return guidance_grid(pipeline, prompts=rows, watch=watch, **asked)
        return show_one(pipeline, prompt=rows[0], at=0.3 if at is None else at, watch=watch, **asked)

    give(_with_model(model, device, dtype, show), out, theme, as_json)


@app.command()
def interpolation(
    prompt: Prompt = PROMPT,
    to: Annotated[
        str | None, typer.Option(metavar="PROMPT", help="Second prompt, to interpolate between prompts.")
    ] = None,
    seeds: Annotated[
        str,
        typer.Option(metavar="A,B", help="Seeds to interpolate between; prompts and images use the first."),
    ] = "1,2",
    image: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="First image, to interpolate between images; `scene` draws one."),
    ] = None,
    to_image: Annotated[Path | None, typer.Option(metavar="FILE", help="Second image.")] = None,
    strength: Annotated[
        float, typer.Option(help="Denoising strength (img2img) of the last row of images.")
    ] = 0.5,
    count: Annotated[int, typer.Option(help="Number of images, both ends included.")] = 7,
    steps: Steps = None,
    cfg_scale: Scale = None,
    model: options.Model = "tiny",
    out: Out = None,
    theme: Theme = "light",
    as_json: options.Json = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
) -> None:
    """Interpolation between two seeds (slerp and lerp), two prompts, or two images."""
    from core.learn import interpolation as between

    found = whole_numbers("seeds", seeds)
    if len(found) != 2:
        raise UserError(f"--seeds {seeds}: give two, such as 1,2")
    if (image is None) != (to_image is None) or (image is not None and to is not None):
        raise UserError("give --image and --to-image for images, or --to for prompts, or neither for seeds")
    fields: dict[str, Any] = {"count": count, "steps": steps, "cfg_scale": cfg_scale}
    for seed in found:
        check(prompt, steps=steps, cfg_scale=cfg_scale, seed=seed)
    pair = None if image is None else (_picture(image, 7), _picture(to_image, 11))

    def show(pipeline: Any, watch: Watch) -> ViewResult:
        if pair is not None:
            return between.between_pictures(
                pipeline, pair, prompt=prompt, strength=strength, seed=found[0], watch=watch, **fields
            )
        if to is not None:
            return between.between_prompts(
                pipeline, prompts=(prompt, to), seed=found[0], watch=watch, **fields
            )
        seeds = found[0], found[1]
        return between.between_seeds(pipeline, prompt=prompt, seeds=seeds, watch=watch, **fields)

    give(_with_model(model, device, dtype, show), out, theme, as_json)


@app.command()
def latents(
    image: Picture = None,
    model: options.Model = "tiny",
    out: Out = None,
    theme: Theme = "light",
    as_json: options.Json = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
) -> None:
    """The latent channels of an image, and what the VAE loses in a round trip."""
    from core.learn.latents import latent_space

    picture = _picture(image, 7)
    make = _with_model(
        model, device, dtype, lambda pipeline, watch: latent_space(pipeline, picture, watch=watch)
    )
    give(make, out, theme, as_json, moves=False)


def _with_model(
    model: str, device: str | None, dtype: str | None, show: Callable[[Any, Watch], ViewResult]
) -> Callable[[], ViewResult]:
    def make() -> ViewResult:

        from core.inference.pipeline import Pipeline
        from core.learn.recorder import Watch

        pipeline = Pipeline.load(model, device=device, dtype=dtype)
        with tqdm(desc="visualize", unit="eval", leave=False, disable=None) as bar:

            def told(done: int, due: int) -> None:
                bar.total = due
                bar.update(done - bar.n)

            return show(pipeline, Watch(told=told))

    return make


def _picture(path: Path | None, seed: int) -> Image:
    """The image in a file, or a drawn one. Raises UserError."""
    from core.images.source_images import read_picture
    from core.learn.forward import example_picture

    return example_picture(seed) if path is None or str(path) == "scene" else read_picture(path)
