"""`history`: the saved runs of an outputs folder."""

from __future__ import annotations

import json
import sys
import time
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import UserError
from ui.commands import options
from ui.commands.tables import console, table

if TYPE_CHECKING:
    from core.history import History, RunRow

app = typer.Typer(rich_markup_mode=None)

Outputs = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the saved images.")]
Model = Annotated[str | None, typer.Option(metavar="NAME", help="Only runs with this model.")]
Sampler = Annotated[str | None, typer.Option(metavar="NAME", help="Only runs with this sampler.")]
Since = Annotated[
    str | None, typer.Option(metavar="DATE", help="Only runs from this day on, such as 2026-01-31.")
]
Until = Annotated[str | None, typer.Option(metavar="DATE", help="Only runs up to and including this day.")]
Starred = Annotated[bool, typer.Option("--starred", help="Only starred runs.")]
Limit = Annotated[int, typer.Option(min=1, help="Maximum number of runs to list.")]
Runs = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN...", help="Ids of runs or their first characters, or image numbers such as 000012."
    ),
]
OUTPUTS = Path("outputs")


@app.callback(invoke_without_command=True)
def listed(
    context: typer.Context,
    model: Model = None,
    sampler: Sampler = None,
    since: Since = None,
    until: Until = None,
    starred: Starred = False,
    limit: Limit = 20,
    outputs: Outputs = OUTPUTS,
    as_json: options.Json = False,
) -> None:
    """List saved runs, newest first; or search, star, delete and export them."""
    if context.invoked_subcommand:
        _refuse_options(context)
        return
    filters = _filters(model, sampler, since, until, starred)
    _list(outputs, "", limit, as_json, **filters)


@app.command()
def search(
    text: Annotated[str, typer.Argument(help='Words to find in the prompts, or a "phrase in quotes".')],
    model: Model = None,
    sampler: Sampler = None,
    since: Since = None,
    until: Until = None,
    starred: Starred = False,
    limit: Limit = 20,
    outputs: Outputs = OUTPUTS,
    as_json: options.Json = False,
) -> None:
    """List the runs with all these words in the prompt or the negative prompt."""
    filters = _filters(model, sampler, since, until, starred)
    _list(outputs, text, limit, as_json, **filters)


@app.command()
def star(
    runs: Runs,
    off: Annotated[bool, typer.Option("--off", help="Remove the star.")] = False,
    outputs: Outputs = OUTPUTS,
) -> None:
    """Star runs, to find them with --starred."""
    history = opened(outputs)
    for row in _find_runs(history, runs):
        history.star(row.id, not off)
        print(f"{row.id} {'is no longer starred' if off else 'is starred'}")


@app.command()
def delete(
    runs: Runs,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking for confirmation.")] = False,
    outputs: Outputs = OUTPUTS,
    as_json: options.Json = False,
) -> None:
    """Delete runs with their images and steps, permanently."""
    history = opened(outputs)
    rows = _find_runs(history, runs)
    names = [name for row in rows for name in row.names]
    if not yes:
        _confirm(rows, names)
    history.delete([row.id for row in rows])
    if as_json:
        print(json.dumps({"deleted": [row.id for row in rows], "pictures": names}))
    else:
        print(f"deleted {_plural(len(rows), 'run')} and {_plural(len(names), 'image')}")


@app.command()
def export(
    runs: Runs,
    to: Annotated[Path, typer.Option(metavar="FILE", help="The zip file to write.")] = Path("runs.zip"),
    outputs: Outputs = OUTPUTS,
    as_json: options.Json = False,
) -> None:
    """Export runs to a zip file: the images, with their settings as JSON."""
    history = opened(outputs)
    rows = _find_runs(history, runs)
    size = history.export_zip([row.id for row in rows], to)
    if as_json:
        print(json.dumps({"path": str(to), "bytes": size, "runs": [row.id for row in rows]}))
    else:
        print(f"{to} ({size / 1e6:.1f} MB, {_plural(len(rows), 'run')})")


@app.command()
def sync(outputs: Outputs = OUTPUTS, as_json: options.Json = False) -> None:
    """Add images of the folder that are not in the history yet, such as those made by `generate`."""
    history = opened(outputs)
    before = history.count()
    history.sync()
    total = history.count()
    if as_json:
        print(json.dumps({"added": total - before, "runs": total}))
    else:
        print(f"{_plural(total - before, 'image')} added; {_plural(total, 'run')} in all")


def opened(outputs: Path) -> History:
    """The history of this folder, which must exist. Raises UserError."""
    from core.history import History

    if not outputs.is_dir():
        raise UserError(f"{outputs}: there is no such folder; give the folder of the images as --outputs")
    return History(outputs)


def _list(outputs: Path, text: str, limit: int, as_json: bool, **filters: Any) -> None:
    history = opened(outputs)
    rows, total = history.search(text, limit=limit, **filters), history.count(text, **filters)
    if as_json:
        print(json.dumps({"total": total, "runs": [row.to_dict() for row in rows]}, indent=2))
        return
    title = f"{_plural(total, 'run')}, the newest {len(rows)}" if total > len(rows) else _plural(total, "run")
    heads = ("id", "when", "image", "prompt", "sampler", "steps", "seed", "model", "")
    table(console(), title, heads, map(_cells, rows))


def _cells(row: RunRow) -> tuple[str, ...]:
    settings = row.settings
    more = f" and {len(row.names) - 1} more" if len(row.names) > 1 else ""
    prompt = settings.prompt if len(settings.prompt) <= 60 else f"{settings.prompt[:57]}..."
    return (
        row.id[:8],
        time.strftime("%Y-%m-%d %H:%M", time.localtime(row.created)),
        (row.names[0] if row.names else "") + more,
        prompt,
        settings.sampler,
        str(settings.steps),
        str(settings.seed),
        row.model,
        ", ".join(word for word, so in (("starred", row.starred), ("stopped", row.stopped)) if so),
    )


def _filters(
    model: str | None, sampler: str | None, since: str | None, until: str | None, starred: bool
) -> dict[str, Any]:
    """Arguments of `History.search`; days as local time in seconds since 1970, the last day included."""
    return {
        "model": model,
        "sampler": sampler,
        "since": None if since is None else _midnight(_day("since", since)),
        "until": None if until is None else _midnight(_day("until", until) + timedelta(days=1)),
        "starred": starred or None,
    }


def _day(name: str, text: str) -> date:
    try:
        day = date.fromisoformat(text)
        _midnight(day + timedelta(days=1))
    except (ValueError, OverflowError, OSError):
        raise UserError(f"--{name} {text!r}: write a day as YEAR-MONTH-DAY, for example 2026-01-31") from None
    return day


def _midnight(day: date) -> float:
    return datetime(day.year, day.month, day.day).timestamp()


def _find_runs(history: History, names: list[str]) -> list[RunRow]:
    """The named runs, without duplicates. Raises UserError before anything is changed."""
    return list({row.id: row for row in map(history.named, names)}.values())


def _confirm(rows: list[RunRow], names: list[str]) -> None:
    what = f"{_plural(len(rows), 'run')} with {_plural(len(names), 'image')} ({', '.join(names[:5])}"
    what += ", ...)" if len(names) > 5 else ")"
    if not sys.stdin.isatty():
        raise UserError(f"cannot ask without a terminal: add --yes to delete {what}.")
    if not typer.confirm(f"Delete {what} permanently?", err=True):
        raise typer.Abort


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _refuse_options(context: typer.Context) -> None:
    """Options before a sub-command would be ignored silently."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE":
            raise UserError(f"write {parameter.opts[0]} after {context.invoked_subcommand}.")
