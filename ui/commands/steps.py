"""`steps` and `verify`: the saved steps of a run, and whether it can be reproduced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tqdm import tqdm

from core.errors import UserError
from core.figures.image_bytes import png
from core.files import write_whole
from core.recipes.png import read_recipe
from ui.commands import options
from ui.commands.generate import load_for
from ui.commands.tables import console, table

if TYPE_CHECKING:
    from core.inference.trajectory import Trajectory
    from core.inference.verify import Verdict, Verification

DIFFERS = 1
Picture = Annotated[Path, typer.Argument(metavar="FILE", help="A saved image, or the file of its steps.")]


def steps(
    picture: Picture,
    view: Annotated[
        str,
        typer.Option(help="What to write: clean, noisy, noise, conditional, unconditional or difference."),
    ] = "clean",
    number: Annotated[int, typer.Option("--image", metavar="I", help="Which image of a batch, from 1.")] = 1,
    gif: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the steps as an animated GIF.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the steps as a contact sheet, a PNG.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show the saved steps of a run; the model is not needed."""
    from core.inference.trajectory import VIEWS

    trajectory = open_steps(picture)
    if view not in VIEWS:
        raise UserError(f"view {view!r}: must be one of {', '.join(VIEWS)}")
    if view not in trajectory.views():
        raise UserError(f"view {view}: not available, as the run had no guidance; choose another")
    if not 1 <= number <= trajectory.batch:
        raise UserError(f"image {number}: must be between 1 and {trajectory.batch}, the batch of the run")
    written = _write(trajectory, view, number - 1, gif, sheet)
    if as_json:
        print(json.dumps(_describe(trajectory, number - 1) | {"written": [str(path) for path in written]}))
        return
    if written:
        print(*written, sep="\n")
        return
    _show(trajectory, number - 1)


def verify(
    picture: Picture,
    image: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Init image of the run, if any. [default: the one saved next to it]"
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Mask of the run, if any. [default: the one saved next to it]"),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Model name or path. [default: the recipe's]")
    ] = None,
    vae: options.Vae = None,
    as_json: options.Json = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
    plugins_dir: options.PluginsDir = None,
    no_plugins: options.NoPlugins = False,
) -> int:
    """Generate an image again and compare: the pixels, and each step if the steps were saved.

    The exit code is 0 if it is identical and 1 if it differs.
    """
    from core.images.saved_inputs import kept_inputs
    from core.images.source_images import Inputs, read_picture
    from core.inference.trajectory import Trajectory
    from core.inference.verify import verify as begin

    path = _steps_of(picture)
    trajectory = None if path is None else Trajectory.open(path)
    finished = None if _is_steps(picture) else read_picture(picture)
    recipe = trajectory.recipe if trajectory is not None and finished is None else read_recipe(picture)
    if trajectory is not None and trajectory.recipe != recipe:
        raise UserError(f"{path} has the steps of another image: verify that file, or move it away")
    options.choose_plugins(plugins_dir, no_plugins)
    pipeline = load_for(recipe, model, vae, False, device, dtype)
    inputs = Inputs.read(image, mask) or kept_inputs(picture.parent, recipe.settings)
    verification = begin(
        pipeline,
        trajectory or recipe,
        picture=finished,
        image=None if inputs is None else inputs.image,
        mask=None if inputs is None else inputs.mask,
    )
    verdict = _run_verification(verification)
    print(json.dumps(verdict.to_dict()) if as_json else verdict.words)
    return 0 if verdict.identical else DIFFERS


def open_steps(picture: Path) -> Trajectory:
    """The steps saved next to an image, or in the file itself. Raises UserError."""
    from core.inference.trajectory import Trajectory

    path = _steps_of(picture)
    if path is None:
        raise UserError(f"{picture}: its steps were not saved; generate it again with --keep-steps")
    return Trajectory.open(path)


def _is_steps(path: Path) -> bool:
    return path.name.endswith(".safetensors")


def _steps_of(picture: Path) -> Path | None:
    from core.inference.trajectory_file import steps_path

    path = picture if _is_steps(picture) else steps_path(picture)
    return path if _is_steps(picture) or path.exists() else None


def _write(trajectory: Trajectory, view: str, image: int, gif: Path | None, sheet: Path | None) -> list[Path]:
    """Write the requested files and return their paths."""
    from core.inference.animation import animation, contact_sheet

    if gif is not None:
        write_whole(gif, animation(trajectory, view=view, image=image))
    if sheet is not None:
        write_whole(sheet, png(contact_sheet(trajectory, view=view, image=image)))
    return [path for path in (gif, sheet) if path is not None]


def _run_verification(verification: Verification) -> Verdict:
    """Run it, with a progress bar where standard error is a terminal."""
    for _ in tqdm(
        verification, total=verification.total, desc="verify", unit="step", leave=False, disable=None
    ):
        pass
    return verification.verdict()


def _describe(trajectory: Trajectory, image: int) -> dict[str, Any]:
    """The steps and their settings, ready for JSON."""
    curves = trajectory.curves(image)
    return {
        "settings": trajectory.settings.for_image(image).to_dict(),
        "model": trajectory.recipe.model.to_dict(),
        "total": trajectory.total,
        "stopped": trajectory.stopped,
        "runs": trajectory.words,
        "seconds": dict(trajectory.seconds),
        "views": trajectory.views(),
        "bytes": trajectory.nbytes,
        "steps": [
            {
                "step": k + 1,
                "sigma": step.sigma,
                "evals": step.evals,
                "guidance": curves["guidance"][k],
                "distance": curves["distance"][k],
            }
            for k, step in enumerate(trajectory.steps)
        ],
    }


def _show(trajectory: Trajectory, image: int) -> None:
    """Print a table with a row for each step."""
    settings, found = trajectory.settings, _describe(trajectory, image)
    count = len(trajectory.steps)
    ended = f", stopped after {count} of {trajectory.total}" if trajectory.stopped else ""
    print(f"{settings.prompt or '(no prompt)'}: {settings.sampler}, {count} steps{ended}")
    rows = [
        tuple(f"{step[name]:.4g}" for name in ("step", "sigma", "evals", "guidance", "distance"))
        for step in found["steps"]
    ]
    table(console(), "Steps", ("step", "sigma", "evals", "guidance", "distance"), rows)
