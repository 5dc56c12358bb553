"""`samplers race`: compare samplers at the same number of model evaluations."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tqdm import tqdm

from core.errors import UserError
from core.figures.image_bytes import png
from core.files import check_writable, write_whole
from core.plugins.current import registry
from core.request.request import Request
from ui.commands import options
from ui.commands.tables import console, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.compare.race import Race, RaceEntry

HEADS = ("sampler", "schedule", "steps", "evals", "rms", "PSNR", "seconds", "against")


def race(
    evals: Annotated[int, typer.Option(help="Model evaluations that each sampler may use.")] = 20,
    prompt: Annotated[str, typer.Option(help="The prompt.")] = "a red circle on a blue background",
    samplers: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="Samplers to compare. [default: all of them]")
    ] = None,
    schedules: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME", help="Schedules to run each sampler with. [default: its preferred one]"
        ),
    ] = None,
    model: options.Model = "tiny",
    seed: Annotated[int, typer.Option(help="Seed of the first image.")] = 1,
    batch: Annotated[int, typer.Option(help="Number of images; image i uses seed + i.")] = 1,
    cfg_scale: Annotated[
        float | None, typer.Option(help="Classifier-free guidance scale. [default: the model's]")
    ] = None,
    reference_steps: Annotated[
        int, typer.Option(help="Steps of the reference that errors are measured against.")
    ] = 1000,
    sheet: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Write the images as a contact sheet.")
    ] = None,
    as_json: options.Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
    plugins_dir: options.PluginsDir = None,
    no_plugins: options.NoPlugins = False,
) -> None:
    """Compare samplers and schedules at equal model evaluations: error, PSNR, time, images."""
    options.choose_plugins(plugins_dir, no_plugins)

    known = registry()
    running = [known.sampler(name) for name in _names(samplers)] or list(known.samplers.values())
    grids = [known.schedule(name) for name in _names(schedules)]
    if evals < 1:
        raise UserError(f"--evals {evals}: must be at least 1.")
    if sheet is not None:
        _check_sheet(sheet)
    fields: dict[str, Any] = {"prompt": prompt, "seed": seed, "batch": batch, "cfg_scale": cfg_scale}
    _check_request(fields, reference_steps)

    from core.compare.race import Race
    from core.inference.pipeline import Pipeline

    pipeline = Pipeline.load(model, device=device, dtype=dtype)
    contest = Race(
        pipeline, evals=evals, samplers=running, schedules=grids, reference_steps=reference_steps, **fields
    )
    entries = _run(contest)
    if sheet is not None:
        _write_sheet(sheet, entries, columns=len(grids) or 6)
    if as_json:
        made = {"model": pipeline.name, "sha256": pipeline.sha256, "evals": evals, **fields}
        print(json.dumps(made | {"entries": [entry.to_dict() for entry in entries]}, indent=2))
    elif markdown:
        print(_markdown(entries))
    else:
        table(console(), f"{evals} evaluations, {prompt!r}, seed {seed}", HEADS, map(_row, entries))


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _check_request(fields: dict[str, Any], reference_steps: int) -> None:
    """Raise UserError for a bad value before a model is loaded."""
    Request(steps=reference_steps, **fields)


def _check_sheet(path: Path) -> None:

    if path.suffix.lower() != ".png":
        raise UserError(f"--sheet {path}: must end in .png.")
    check_writable(path.parent)


def _run(contest: Race) -> list[RaceEntry]:

    bar = tqdm(contest.run(), total=len(contest.pairs), desc="race", unit="run", leave=False, disable=None)
    entries = list(bar)
    for entry in entries:
        if entry.error:
            print(f"latentcanvas: warning: {entry.error}", file=sys.stderr)
    return entries


def _write_sheet(path: Path, entries: Sequence[RaceEntry], columns: int) -> None:
    from core.compare.race import contact_sheet

    write_whole(path, png(contact_sheet(entries, columns)))


def _row(entry: RaceEntry) -> tuple[str, ...]:
    measured = (
        ("", "") if entry.rms is None or entry.psnr is None else (f"{entry.rms:.4f}", f"{entry.psnr:.1f}")
    )
    against = "failed" if entry.error else entry.reference or "none: fresh noise"
    numbers = (str(entry.steps), str(entry.evals), *measured, f"{entry.seconds:.2f}")
    return (entry.sampler, entry.schedule, *numbers, against)


def _markdown(entries: Sequence[RaceEntry]) -> str:
    rows = [HEADS, ("---", "---", *["---:"] * 5, "---"), *map(_row, entries)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
