"""`visualize`: the views of the Learn tab as PNG or GIF files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import UserError
from core.files import check_writable, write_whole
from core.plugins.current import registry
from ui.commands import options

if TYPE_CHECKING:
    from core.learn.result import ViewResult

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Draw how diffusion works: the views of the page's Learn tab, as PNG or GIF.",
)

Out = Annotated[
    Path | None, typer.Option(metavar="FILE", help="File to write: .png, or .gif for an animation.")
]
Theme = Annotated[str, typer.Option(help="Colours: light or dark.")]
Cloud = Annotated[str, typer.Option(help="Point cloud: moons, spiral, grid or letters.")]
Betas = Annotated[str, typer.Option(help="Beta schedule: linear, scaled_linear, cosine or sigmoid.")]
Seed = Annotated[int, typer.Option(min=0, max=2**31, help="Seed of the noise.")]


@app.command()
def forward(
    cloud: Cloud = "moons",
    image: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Use an image in place of points; `scene` draws one."),
    ] = None,
    t: Annotated[int, typer.Option("--t", help="The timestep, from 0.")] = 300,
    betas: Betas = "scaled_linear",
    seed: Seed = 0,
    out: Out = None,
    theme: Theme = "light",
    as_json: options.Json = False,
) -> None:
    """Forward process: noise added to points or an image, and how much signal is left."""
    from core.learn.forward import example_picture, forward_picture, forward_points

    def make() -> ViewResult:
        if image is None:
            return forward_points(cloud, t=t, betas=betas, seed=seed)
        picture = example_picture() if str(image) == "scene" else _picture(image)
        return forward_picture(picture, t=t, betas=betas, seed=seed)

    give(make, out, theme, as_json)


@app.command()
def schedules(
    betas: Betas = "scaled_linear",
    schedule: Annotated[str, typer.Option(help="Schedule to highlight.")] = "leading",
    steps: Annotated[int, typer.Option(help="Inference steps of each schedule.")] = 20,
    strength: Annotated[float, typer.Option(help="Denoising strength of img2img.")] = 1.0,
    out: Out = None,
    theme: Theme = "light",
    as_json: options.Json = False,
    plugins_dir: options.PluginsDir = None,
    no_plugins: options.NoPlugins = False,
) -> None:
    """Noise levels over the training timesteps, and those that each schedule uses."""
    options.choose_plugins(plugins_dir, no_plugins)
    from core.learn.schedules import schedules as show

    give(
        lambda: show(registry(), betas=betas, schedule=schedule, steps=steps, strength=strength),
        out,
        theme,
        as_json,
        moves=False,
    )


@app.command()
def reverse(
    cloud: Cloud = "moons",
    samplers: Annotated[
        str, typer.Option(metavar="NAME,NAME", help="Samplers to compare, also from plugins.")
    ] = "ddpm,ddim,heun,dpmpp_2m",
    evals: Annotated[int, typer.Option(help="Model evaluations that each sampler may use.")] = 20,
    points: Annotated[int, typer.Option(help="Number of points.")] = 1000,
    schedule: Annotated[
        str | None,
        typer.Option(help="Schedule of all samplers. [default: each one's preferred, else trailing]"),
    ] = None,
    at: Annotated[
        float, typer.Option(min=0, max=1, help="Draw the state after this part of the steps.")
    ] = 1.0,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Also sample with the learned score of this point model."),
    ] = None,
    seed: Seed = 0,
    out: Out = None,
    theme: Theme = "light",
    as_json: options.Json = False,
    plugins_dir: options.PluginsDir = None,
    no_plugins: options.NoPlugins = False,
) -> None:
    """Reverse process: points from noise to data, samplers compared at equal model evaluations."""
    options.choose_plugins(plugins_dir, no_plugins)
    from core.learn.reverse import reverse_points

    names = [name.strip() for name in samplers.split(",") if name.strip()]
    asked: dict[str, Any] = {"evals": evals, "points": points, "schedule": schedule, "seed": seed}

    def make() -> ViewResult:
        if model is not None:
            from core.inference.pipeline import Pipeline

            asked["pipeline"] = Pipeline.load(model, device="cpu")
        return reverse_points(registry(), names, name=cloud, share=at, **asked)

    give(make, out, theme, as_json)


def give(
    make: Callable[[], ViewResult], out: Path | None, theme: str, as_json: bool, *, moves: bool = True
) -> None:
    """Make the view, write it, and print its text. Raises UserError for a bad path before that."""
    from core.figures.plots import INKS, Paper

    if theme not in INKS:
        raise UserError(f"--theme {theme}: must be light or dark")
    kind = _kind(out, as_json, moves)
    shown = make()
    if out is not None:
        paper = Paper(INKS[theme])
        write_whole(out, shown.gif(paper) if kind == ".gif" else shown.png(paper))
    if as_json:
        print(json.dumps({**shown.numbers, "written": None if out is None else str(out)}))
        return
    print(*shown.words, sep="\n")
    if out is not None:
        print(out)


def _kind(out: Path | None, as_json: bool, moves: bool) -> str:
    """The suffix of the file, "" without a file. Raises UserError."""
    if out is None:
        if not as_json:
            raise UserError("give a file to write (--out FILE.png), or --json")
        return ""
    kind = out.suffix.lower()
    if kind not in ((".png", ".gif") if moves else (".png",)):
        wanted = ".png, or .gif for an animation" if moves else ".png (this view has no animation)"
        raise UserError(f"--out {out}: must end in {wanted}")
    check_writable(out.parent)
    return kind


def _picture(path: Path) -> Any:
    from core.images.source_images import read_picture

    return read_picture(path)
