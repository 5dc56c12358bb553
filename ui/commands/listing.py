"""`samplers`: what is there; and the tables that listings are printed as."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any

from ui.commands import options

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from core.plugins import Option, PluginStatus, SamplerInfo, ScheduleInfo


def samplers(
    as_json: options.Json = False,
    plugins_dir: options.PluginsDir = None,
    no_plugins: options.NoPlugins = False,
) -> None:
    """List samplers and schedules, and the plugins that failed with the reason."""
    options.choose_plugins(plugins_dir, no_plugins)
    from core.plugins import registry

    found = registry()
    if as_json:
        content = {
            "samplers": [_as_json(info, kind=info.kind) for info in found.samplers.values()],
            "schedules": [_as_json(info) for info in found.schedules.values()],
            "plugins": [_as_json(status) for status in found.plugins],
        }
        print(json.dumps(content, indent=2))
        return
    console = terminal()
    heads = ["name", "title", "kind", "order", "evals", "options", "plugin", "version"]
    table(console, "Samplers", heads, map(_sampler_row, found.samplers.values()))
    heads = ["name", "title", "", "plugin", "version"]
    table(console, "Schedules", heads, map(_schedule_row, found.schedules.values()))
    for status in found.failed:
        console.print(f"failed: {status.summary()}", markup=False, highlight=False)


def _as_json(info: SamplerInfo | ScheduleInfo | PluginStatus, **more: Any) -> dict[str, Any]:
    """The fields by name; the function itself is left out, and a traceback is for --debug alone."""
    fields = {field.name: getattr(info, field.name) for field in dataclasses.fields(info)}
    fields = {name: value for name, value in fields.items() if name not in ("function", "traceback")}
    if "options" in fields:
        fields["options"] = [dataclasses.asdict(option) for option in fields["options"]]
    return fields | more


def _sampler_row(info: SamplerInfo) -> tuple[str, ...]:
    described = "\n".join(map(_option_text, info.options))
    return (
        info.name,
        info.title,
        info.kind,
        str(info.order),
        str(info.evals),
        described,
        info.plugin,
        info.version,
    )


def _schedule_row(info: ScheduleInfo) -> tuple[str, ...]:
    return (info.name, info.title, info.summary, info.plugin, info.version)


def _option_text(option: Option) -> str:
    """An option with its range and default: `eta = 1 (0 to 1)`."""
    default = f"{option.default:g}" if isinstance(option.default, float) else str(option.default).lower()
    if option.choices:
        return f"{option.name} = {default} ({', '.join(option.choices)})"
    if option.low is None or option.high is None:
        return f"{option.name} = {default}"
    return f"{option.name} = {default} ({option.low:g} to {option.high:g})"


def terminal() -> Console:
    """As wide as the terminal; where there is none, wide enough that nothing is cut or wrapped."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 200)


def table(console: Console, title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under a title."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)
