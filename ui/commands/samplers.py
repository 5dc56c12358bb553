"""`samplers`: list them; `samplers check`: test them against the contract; `samplers race`: see race.py."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.conformance import check_sampler
from core.errors import UserError
from core.plugins.current import registry
from core.request.parse import parse_options
from ui.commands import options
from ui.commands.race import race
from ui.commands.tables import console, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from core.conformance import Report
    from core.sampling.options import Option
    from core.sampling.registry import PluginStatus, SamplerInfo, ScheduleInfo

app = typer.Typer(add_completion=False, rich_markup_mode=None)
app.command()(race)


@app.callback(invoke_without_command=True)
def samplers(
    context: typer.Context,
    as_json: options.Json = False,
    plugins_dir: options.PluginsDir = None,
    no_plugins: options.NoPlugins = False,
) -> None:
    """List samplers and schedules, and the plugins that failed to load, with the reason."""
    options.choose_plugins(plugins_dir, no_plugins)
    command = context.invoked_subcommand
    if command is None:
        listing(as_json)
    elif as_json:
        raise UserError(f"--json before {command} is an option of the list: write it after {command}.")


def listing(as_json: bool) -> None:
    """Print what is registered, and what failed to load."""
    found = registry()
    if as_json:
        content = {
            "samplers": [_as_json(info, kind=info.kind) for info in found.samplers.values()],
            "schedules": [_as_json(info) for info in found.schedules.values()],
            "plugins": [_as_json(status) for status in found.plugins],
            "failed": [_as_json(status) for status in found.failed],
        }
        print(json.dumps(content, indent=2))
        return
    to = console()
    heads = ["name", "title", "kind", "order", "evals", "options", "plugin", "version", "paper"]
    table(to, "Samplers", heads, map(_sampler_row, found.samplers.values()))
    heads = ["name", "title", "", "plugin", "version", "paper"]
    table(to, "Schedules", heads, map(_schedule_row, found.schedules.values()))
    for status in found.failed:
        to.print(f"failed: {status.summary()}", markup=False, highlight=False)


def _as_json(info: SamplerInfo | ScheduleInfo | PluginStatus, **more: Any) -> dict[str, Any]:
    """The fields by name, without the function and the traceback."""
    fields = {field.name: getattr(info, field.name) for field in dataclasses.fields(info)}
    fields = {name: value for name, value in fields.items() if name not in ("function", "traceback")}
    if "options" in fields:
        fields["options"] = [dataclasses.asdict(option) for option in fields["options"]]
    return fields | more


def _sampler_row(info: SamplerInfo) -> tuple[str, ...]:
    described = "\n".join(map(_option_text, info.options))
    numbers = (str(info.order), str(info.evals))
    return (
        *(info.name, info.title, info.kind, *numbers, described),
        *(info.plugin, info.version, info.paper or ""),
    )


def _schedule_row(info: ScheduleInfo) -> tuple[str, ...]:
    return (info.name, info.title, info.summary, info.plugin, info.version, info.paper or "")


def _option_text(option: Option) -> str:
    """An option with its range and default: `eta = 1 (0 to 1)`."""
    default = f"{option.default:g}" if isinstance(option.default, float) else str(option.default).lower()
    if option.choices:
        return f"{option.name} = {default} ({', '.join(option.choices)})"
    if option.low is None or option.high is None:
        return f"{option.name} = {default}"
    return f"{option.name} = {default} ({option.low:g} to {option.high:g})"


@app.command()
def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME...", help="Samplers to check, as listed by `samplers`."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Check all samplers.")] = False,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="A sampler option to check with, such as eta=0.5; may be repeated."
        ),
    ] = None,
    as_json: options.Json = False,
    plugins_dir: options.PluginsDir = None,
    no_plugins: options.NoPlugins = False,
) -> None:
    """Check samplers against the rules of the sampler contract, with exact denoisers.

    No model is loaded. The exit code is 1 if a rule is broken.
    """
    options.choose_plugins(plugins_dir, no_plugins)
    chosen, given = _chosen(names or [], every), _given(option or [])
    for info in chosen:
        info.check_options(given)
    reports = []
    for report in _reports(chosen, given):
        reports.append(report)
        if not as_json:
            print(report, flush=True)
    if as_json:
        passed = all(report.passed for report in reports)
        print(json.dumps({"passed": passed, "samplers": [r.to_dict() for r in reports]}, indent=2))
    if not all(report.passed for report in reports):
        raise typer.Exit(1)


def _chosen(names: Sequence[str], every: bool) -> list[SamplerInfo]:

    if every == bool(names):
        raise UserError("name the samplers to check, or write --all.")
    known = registry()
    return list(known.samplers.values()) if every else [known.sampler(name) for name in names]


def _given(texts: Sequence[str]) -> dict[str, str]:

    return parse_options(texts)


def _reports(chosen: Sequence[SamplerInfo], given: dict[str, str]) -> Iterator[Report]:
    import torch

    torch.set_num_threads(1)  # the tensors are too small to share
    for info in chosen:
        yield check_sampler(info, options=given)
