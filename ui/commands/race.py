"""`samplers race`: samplers side by side, each with the same number of evaluations of the network."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import UserError
from ui.commands import options
from ui.commands.tables import console, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.compare.race import Race, RaceEntry

HEADS = ("sampler", "schedule", "steps", "evals", "rms", "PSNR", "seconds", "against")


def race(
    evals: Annotated[int, typer.Option(help="Evaluations of the network that each may use.")] = 20,
    prompt: Annotated[
        str, typer.Option(help="What the picture shows.")
    ] = "a red circle on a blue background",
    samplers: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="Who runs. [default: every sampler that is there]")
    ] = None,
    schedules: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME", help="Each with each. [default: what a sampler prefers]"),
    ] = None,
    model: options.Model = "tiny",
    seed: Annotated[int, typer.Option(help="The first picture's seed.")] = 1,
    batch: Annotated[int, typer.Option(help="Pictures, of one seed after the other.")] = 1,
    cfg_scale: Annotated[
        float | None, typer.Option(help="Strength of the guidance. [default: the model's]")
    ] = None,
    reference_steps: Annotated[
        int, typer.Option(help="Steps of what the results are measured against.")
    ] = 1000,
    sheet: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Write the pictures there, side by side.")
    ] = None,
    as_json: options.Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
    plugins_dir: options.PluginsDir = None,
    no_plugins: options.NoPlugins = False,
) -> None:
    """Compare samplers and schedules at one number of model evaluations: error, PSNR, time, pictures."""
    options.choose_plugins(plugins_dir, no_plugins)
    from core.plugins.current import registry

    known = registry()
    running = [known.sampler(name) for name in _names(samplers)] or list(known.samplers.values())
    grids = [known.schedule(name) for name in _names(schedules)]
    if evals < 1:
        raise UserError(f"a race needs 1 evaluation or more, not {evals}.")
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
    """A bad value is said before a model is loaded."""
    from core.request.request import Request

    Request(steps=reference_steps, **fields)


def _check_sheet(path: Path) -> None:
    from core.files import check_writable

    if path.suffix.lower() != ".png":
        raise UserError(f"the pictures are written as PNG: give {path} the ending .png.")
    check_writable(path.parent)


def _run(contest: Race) -> list[RaceEntry]:
    from tqdm import tqdm

    bar = tqdm(contest.run(), total=len(contest.pairs), desc="race", unit="run", leave=False, disable=None)
    entries = list(bar)
    for entry in entries:
        if entry.error:
            print(f"latentcanvas: warning: {entry.error}", file=sys.stderr)
    return entries


def _write_sheet(path: Path, entries: Sequence[RaceEntry], columns: int) -> None:
    from io import BytesIO

    from core.compare.race import contact_sheet
    from core.files import write_whole

    data = BytesIO()
    contact_sheet(entries, columns).save(data, "PNG")
    write_whole(path, data.getvalue())


def _row(entry: RaceEntry) -> tuple[str, ...]:
    measured = (
        ("", "") if entry.rms is None or entry.psnr is None else (f"{entry.rms:.4f}", f"{entry.psnr:.1f}")
    )
    against = "failed" if entry.error else entry.reference or "nothing: fresh noise"
    numbers = (str(entry.steps), str(entry.evals), *measured, f"{entry.seconds:.2f}")
    return (entry.sampler, entry.schedule, *numbers, against)


def _markdown(entries: Sequence[RaceEntry]) -> str:
    rows = [HEADS, ("---", "---", *["---:"] * 5, "---"), *map(_row, entries)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
