"""`visualize`: the views of the Learn tab as PNG or GIF files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import UserError
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
    Path | None, typer.Option(metavar="FILE", help="Where to write it: a .png, or a .gif that moves.")
]
Theme = Annotated[str, typer.Option(help="Colours: light or dark.")]
Cloud = Annotated[str, typer.Option(help="Which points: moons, spiral, grid or letters.")]
Betas = Annotated[str, typer.Option(help="Noise table: linear, scaled_linear, cosine or sigmoid.")]
Seed = Annotated[int, typer.Option(min=0, max=2**31, help="Of the noise.")]


@app.command()
def forward(
    cloud: Cloud = "moons",
    image: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A picture in place of points; `scene` for a drawn one."),
    ] = None,
    t: Annotated[int, typer.Option("--t", help="The timestep, from 0.")] = 300,
    betas: Betas = "scaled_linear",
    seed: Seed = 0,
    out: Out = None,
    theme: Theme = "light",
    as_json: options.Json = False,
) -> None:
    """Noise added to points or a picture, and what is left of them."""
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
    schedule: Annotated[str, typer.Option(help="The schedule to stand out.")] = "leading",
    steps: Annotated[int, typer.Option(help="Steps of each.")] = 20,
    strength: Annotated[float, typer.Option(help="Of img2img: how much of the steps is run.")] = 1.0,
    out: Out = None,
    theme: Theme = "light",
    as_json: options.Json = False,
    plugins_dir: options.PluginsDir = None,
    no_plugins: options.NoPlugins = False,
) -> None:
    """Noise tables over their timesteps, and the levels that each schedule visits."""
    options.choose_plugins(plugins_dir, no_plugins)
    from core.learn.schedules import schedules as show
    from core.plugins.current import registry

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
        str, typer.Option(metavar="NAME,NAME", help="Who walks, plugins too.")
    ] = "ddpm,ddim,heun,dpmpp_2m",
    evals: Annotated[int, typer.Option(help="How often each may ask the denoiser.")] = 20,
    points: Annotated[int, typer.Option(help="How many points walk.")] = 1000,
    schedule: Annotated[
        str | None, typer.Option(help="For all of them. [default: what each prefers, else trailing]")
    ] = None,
    at: Annotated[
        float, typer.Option(min=0, max=1, help="Draw the state after this share of the way.")
    ] = 1.0,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="A model of points, to walk over its score, too.")
    ] = None,
    seed: Seed = 0,
    out: Out = None,
    theme: Theme = "light",
    as_json: options.Json = False,
    plugins_dir: options.PluginsDir = None,
    no_plugins: options.NoPlugins = False,
) -> None:
    """Points on their way from noise to data, samplers side by side at equal evaluations."""
    options.choose_plugins(plugins_dir, no_plugins)
    from core.learn.reverse import reverse_points
    from core.plugins.current import registry

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
    """Make it, write it, and say what it is. What cannot be written is said before anything is made."""
    from core.figures.plots import INKS, Paper

    if theme not in INKS:
        raise UserError(f"--theme {theme}: must be light or dark")
    kind = _kind(out, as_json, moves)
    shown = make()
    if out is not None:
        from core.files import write_whole

        paper = Paper(INKS[theme])
        write_whole(out, shown.gif(paper) if kind == ".gif" else shown.png(paper))
    if as_json:
        print(json.dumps({**shown.numbers, "written": None if out is None else str(out)}))
        return
    print(*shown.words, sep="\n")
    if out is not None:
        print(out)


def _kind(out: Path | None, as_json: bool, moves: bool) -> str:
    """The ending of the file; nothing without one. Raises UserError."""
    from core.files import check_writable

    if out is None:
        if not as_json:
            raise UserError("say where to write the picture (--out FILE.png), or ask for --json")
        return ""
    kind = out.suffix.lower()
    if kind not in ((".png", ".gif") if moves else (".png",)):
        wanted = ".png, or .gif for one that moves" if moves else ".png (this view does not move)"
        raise UserError(f"--out {out}: give it the ending {wanted}")
    check_writable(out.parent)
    return kind


def _picture(path: Path) -> Any:
    from core.images.source_images import read_picture

    return read_picture(path)
