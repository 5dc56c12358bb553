"""`history`: the runs that were kept in a folder of pictures."""

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

Outputs = Annotated[Path, typer.Option(metavar="DIR", help="The folder of the pictures.")]
Model = Annotated[str | None, typer.Option(metavar="NAME", help="Only runs with this model.")]
Sampler = Annotated[str | None, typer.Option(metavar="NAME", help="Only runs with this sampler.")]
Since = Annotated[str | None, typer.Option(metavar="DATE", help="Only from this day on, such as 2026-01-31.")]
Until = Annotated[str | None, typer.Option(metavar="DATE", help="Only up to this day, that day included.")]
Starred = Annotated[bool, typer.Option("--starred", help="Only starred runs.")]
Limit = Annotated[int, typer.Option(min=1, help="At most so many, the newest.")]
Runs = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="Ids or the start of them, or pictures as 000012.")
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
    """List the runs that were kept, newest first; or search, star, delete and export them."""
    if context.invoked_subcommand:
        _refuse_options(context)
        return
    filters = _filters(model, sampler, since, until, starred)
    _list(outputs, "", limit, as_json, **filters)


@app.command()
def search(
    text: Annotated[str, typer.Argument(help='Words of the prompts, or a "phrase in quotes".')],
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
    off: Annotated[bool, typer.Option("--off", help="Take the star away.")] = False,
    outputs: Outputs = OUTPUTS,
) -> None:
    """Star runs, so that they are found again."""
    history = opened(outputs)
    for row in _named(history, runs):
        history.star(row.id, not off)
        print(f"{row.id} {'is no longer starred' if off else 'is starred'}")


@app.command()
def delete(
    runs: Runs,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    outputs: Outputs = OUTPUTS,
    as_json: options.Json = False,
) -> None:
    """Delete runs with their pictures and steps, for good."""
    history = opened(outputs)
    rows = _named(history, runs)
    names = [name for row in rows for name in row.names]
    if not yes:
        _ask(rows, names)
    history.delete([row.id for row in rows])
    if as_json:
        print(json.dumps({"deleted": [row.id for row in rows], "pictures": names}))
    else:
        print(f"deleted {_counted(len(rows), 'run')} and {_counted(len(names), 'picture')}")


@app.command()
def export(
    runs: Runs,
    to: Annotated[Path, typer.Option(metavar="FILE", help="The zip file to write.")] = Path("runs.zip"),
    outputs: Outputs = OUTPUTS,
    as_json: options.Json = False,
) -> None:
    """Write the pictures of runs, and what each is, into a zip file."""
    history = opened(outputs)
    rows = _named(history, runs)
    size = history.export_zip([row.id for row in rows], to)
    if as_json:
        print(json.dumps({"path": str(to), "bytes": size, "runs": [row.id for row in rows]}))
    else:
        print(f"{to} ({size / 1e6:.1f} MB, {_counted(len(rows), 'run')})")


@app.command()
def sync(outputs: Outputs = OUTPUTS, as_json: options.Json = False) -> None:
    """Take in the pictures of the folder that the history does not have, such as those of `generate`."""
    history = opened(outputs)
    before = history.count()
    history.sync()
    total = history.count()
    if as_json:
        print(json.dumps({"added": total - before, "runs": total}))
    else:
        print(f"{_counted(total - before, 'picture')} added; {_counted(total, 'run')} in all")


def opened(outputs: Path) -> History:
    """The history of this folder, which has to be there. Raises UserError."""
    from core.history import History

    if not outputs.is_dir():
        raise UserError(f"{outputs}: there is no such folder; name the one of the pictures as --outputs")
    return History(outputs)


def _list(outputs: Path, text: str, limit: int, as_json: bool, **filters: Any) -> None:
    history = opened(outputs)
    rows, total = history.search(text, limit=limit, **filters), history.count(text, **filters)
    if as_json:
        print(json.dumps({"total": total, "runs": [row.to_dict() for row in rows]}, indent=2))
        return
    title = (
        f"{_counted(total, 'run')}, the newest {len(rows)}" if total > len(rows) else _counted(total, "run")
    )
    heads = ("id", "when", "picture", "prompt", "sampler", "steps", "seed", "model", "")
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
    """What `History.search` takes; days in seconds since 1970 by this machine's clock, the last one whole."""
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


def _named(history: History, names: list[str]) -> list[RunRow]:
    """The runs that are meant, each once. Raises UserError before anything is changed."""
    return list({row.id: row for row in map(history.named, names)}.values())


def _ask(rows: list[RunRow], names: list[str]) -> None:
    what = f"{_counted(len(rows), 'run')} with {_counted(len(names), 'picture')} ({', '.join(names[:5])}"
    what += ", ...)" if len(names) > 5 else ")"
    if not sys.stdin.isatty():
        raise UserError(f"nobody is there to ask: add --yes to delete {what}.")
    if not typer.confirm(f"Delete {what} for good?", err=True):
        raise typer.Abort


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _refuse_options(context: typer.Context) -> None:
    """What stands before a sub-command would be dropped without a word."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE":
            raise UserError(f"write {parameter.opts[0]} after {context.invoked_subcommand}.")
