"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from core.plugins.current import configure

Model = Annotated[
    str, typer.Option(metavar="NAME", help="Model name, or the path of its folder or checkpoint.")
]
Vae = Annotated[
    Path | None, typer.Option(metavar="PATH", help="VAE (file or folder) to use in place of the model's.")
]
Ema = Annotated[bool, typer.Option("--ema", help="Use the EMA weights, if the checkpoint has them.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps, ... [default: the fastest available]")
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="Data type of the networks: float32, bfloat16 or float16. [default: the fastest that the "
        "hardware computes in natively]"
    ),
]
Memory = Annotated[
    Literal["full", "offload", "sequential"] | None,
    typer.Option(
        help="What is on the device: the full model, the network in use (offload), or the layer in use "
        "(sequential). [default: the first that fits]"
    ),
]
PluginsDir = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Also load sampler plugins (.py files) from this folder.")
]
NoPlugins = Annotated[bool, typer.Option("--no-plugins", help="Load only the built-in samplers.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def choose_plugins(directory: Path | None, disabled: bool) -> None:
    """Configure which plugins are loaded, if an option says so."""
    if directory is None and not disabled:
        return

    configure(directory=directory, enabled=not disabled)
