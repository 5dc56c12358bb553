"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Model = Annotated[str, typer.Option(metavar="NAME", help="A model by name, or its folder or file.")]
Vae = Annotated[
    Path | None, typer.Option(metavar="PATH", help="A VAE (file or folder) in place of the model's own.")
]
Ema = Annotated[
    bool, typer.Option("--ema", help="Take the averaged copy of the weights, where the file holds one.")
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps, ...; the fastest that is there if left out.")
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="Number format of the networks: float32, bfloat16, float16; the fastest of the hardware's own "
        "if left out."
    ),
]
Memory = Annotated[
    Literal["full", "offload", "sequential"] | None,
    typer.Option(
        help="What of the model is on the device: all of it, the network at work, or the layer at work; the "
        "first of these that there is room for if left out."
    ),
]
PluginsDir = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Also load the sampler plugins (.py files) in this folder.")
]
NoPlugins = Annotated[bool, typer.Option("--no-plugins", help="Load the built-in samplers alone.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]


def choose_plugins(directory: Path | None, disabled: bool) -> None:
    """Tell the registry what to load, when anything was said about it."""
    if directory is None and not disabled:
        return
    from core.plugins.current import configure

    configure(directory=directory, enabled=not disabled)
