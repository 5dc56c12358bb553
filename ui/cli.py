"""The command line: `latentcanvas`, which `launcher.py` runs.

Without a sub-command it opens the page. A command's module is imported when the command is used, so that
`--help` and the listings are instant.
"""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from core.errors import Cancelled, UserError
from ui.commands import options

PROGRAM = "latentcanvas"
BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
# The module of each command and the first line of its help. The command is its module's `app`, or else the
# function of its name.
COMMANDS = {
    "generate": ("ui.commands.generate", "Generate images from a prompt and print their paths."),
    "steps": ("ui.commands.steps", "Show the saved steps of a run; the model is not needed."),
    "verify": (
        "ui.commands.steps",
        "Generate an image again and compare: the pixels, and each step if the steps were saved.",
    ),
    "download": (
        "ui.commands.download",
        "Download a model: only the files that are needed, verified; an interrupted download is resumed.",
    ),
    "recipe": (
        "ui.commands.recipe",
        "Read the settings in an image of LatentCanvas, A1111, ComfyUI, InvokeAI or Fooocus.",
    ),
    "train": ("ui.commands.train", "Train a model from scratch, from a fixed seed."),
    "bench": (
        "ui.commands.bench",
        "Measure time by part and peak memory, each image in a new process.",
    ),
    "test": ("ui.commands.checks", "Run lint, type checks and tests; further arguments go to pytest."),
    "models": (
        "ui.commands.models",
        "List the installed models: the embedded one, and the folders and checkpoints in data/models.",
    ),
    "history": (
        "ui.commands.history",
        "List saved runs, newest first; or search, star, delete and export them.",
    ),
    "samplers": (
        "ui.commands.samplers",
        "List samplers and schedules, and the plugins that failed to load, with the reason.",
    ),
    "visualize": (
        "ui.commands.visualize_model",
        "Draw how diffusion works: the views of the page's Learn tab, as PNG or GIF.",
    ),
}


class LazyGroup(TyperGroup):
    """The commands of COMMANDS: a name and a line of help until one is used."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, help=line) for name, (_, line) in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the command that is named."""
        if args[0] in COMMANDS:
            self.commands[args[0]] = load_command(args[0])
        return super().resolve_command(ctx, args)


@cache
def load_command(name: str) -> Any:
    """Import a command's module and return the click command that typer builds from it."""
    module = import_module(COMMANDS[name][0])
    found = getattr(module, "app", None)
    if found is None:
        found = typer.Typer(add_completion=False, rich_markup_mode=None)
        found.command(name)(getattr(module, name))
    return typer.main.get_command(found)


app = typer.Typer(cls=LazyGroup, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version  # slower to import than a help text to print

        typer.echo(f"{PROGRAM} {version(PROGRAM)}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def page(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Model name, or the path of its folder or checkpoint [tiny]."),
    ] = None,
    share: Annotated[
        bool | None,
        typer.Option("--share/--no-share", help="Also create a public Gradio link, valid for a week."),
    ] = None,
    auth: Annotated[
        str | None,
        typer.Option(
            metavar="USER:PASSWORD|FILE", help="Require this login, or one of those in a file (one per line)."
        ),
    ] = None,
    listen: Annotated[
        bool | None,
        typer.Option(
            "--listen/--no-listen", help="Also accept connections from other machines of the network."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of the page; the next free one if it is taken [7860]."),
    ] = None,
    root_path: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Where a reverse proxy serves the page, such as /lc; see docs/serving.md."
        ),
    ] = None,
    outputs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder where images are saved [outputs].")
    ] = None,
    shared_history: Annotated[
        bool | None,
        typer.Option(
            "--shared-history/--no-shared-history",
            help="On a shared page, show all users all runs, not only their own.",
        ),
    ] = None,
    mcp: Annotated[
        bool | None,
        typer.Option("--mcp/--no-mcp", help="Also serve the page's actions to language models (MCP)."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Settings file; options override it [latentcanvas.toml in this folder]."
        ),
    ] = None,
    vae: options.Vae = None,
    ema: options.Ema = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
    memory: options.Memory = None,
    plugins_dir: options.PluginsDir = None,
    no_plugins: options.NoPlugins = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error.")
    ] = False,  # see main
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Latent diffusion that you can look inside. Without a command, serves the page for your browser."""
    if context.invoked_subcommand:
        _refuse_page_options(context)
        options.choose_plugins(plugins_dir, no_plugins)
        return
    from ui.app import PageOptions, serve  # which no command needs

    serve(
        PageOptions(
            model=model,
            vae=vae,
            ema=ema,
            device=device,
            dtype=dtype,
            memory=memory,
            share=share,
            auth=auth,
            listen=listen,
            port=port,
            root_path=root_path,
            outputs=outputs,
            shared_history=shared_history,
            mcp=mcp,
            config=config,
            plugins_dir=plugins_dir,
            no_plugins=no_plugins,
        )
    )


def _refuse_page_options(context: typer.Context) -> None:
    """`--model x generate ...` would ignore the option silently: say where to write it."""
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        typed = source is not None and source.name == "COMMANDLINE"
        if typed and name not in ("plugins_dir", "no_plugins"):
            command = context.invoked_subcommand
            raise UserError(
                f"{parameter.opts[0]} before {command} is an option of the page: write it after {command}."
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit code: 2 for bad input, 1 for a failure, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    _show_any_letter()
    try:
        code = _run([argument for argument in arguments if argument != "--debug"])
    except (KeyboardInterrupt, typer.Abort, Cancelled):
        return INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        message, code = _explained(error)
        print(f"{PROGRAM}: error: {message}", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _show_any_letter() -> None:
    """Escape letters that the terminal or file cannot hold (cp1252, ASCII), instead of failing.

    UTF-8 that passes on the bytes of odd file names, as in the C locale, stays as it is. JSON is ASCII.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            passes_bytes = (stream.encoding.lower(), stream.errors) == ("utf-8", "surrogateescape")
            stream.reconfigure(errors=stream.errors if passes_bytes else "backslashreplace")


def _run(arguments: list[str]) -> Any:
    """Run a command; the plain list of samplers runs without typer.

    typer builds a validator for every option of the page too, which takes as long as the list itself.
    """
    if arguments in (["samplers"], ["samplers", "--json"]):
        from ui.commands.samplers import listing  # a command's module is imported when it is used

        return listing(as_json="--json" in arguments)
    return _command()(args=arguments, prog_name=PROGRAM, standalone_mode=False)


@cache
def _command() -> Any:
    """The click command that typer builds; cached, as tests call `main` many times."""
    return typer.main.get_command(app)


def _explained(error: Exception) -> tuple[str, int]:
    """One line for any error, and its exit code."""
    if isinstance(error, UserError):
        return _one_line(str(error)), BAD_INPUT
    if isinstance(error, typer.BadParameter.__mro__[1]):  # UsageError, which typer does not export
        return _one_line(_usage_message(error)), BAD_INPUT
    return f"{type(error).__name__}: {_one_line(str(error))} (run again with --debug to see where)", FAILED


def _usage_message(error: Any) -> str:
    context = getattr(error, "ctx", None)
    where = context.command_path if context else PROGRAM
    return f"{error.format_message().rstrip('.')} (see `{where} --help`)."


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
