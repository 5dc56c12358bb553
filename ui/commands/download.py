"""`download`: a model from a hub into data/models."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from core.errors import UserError
from core.weights import find
from core.weights.hub.download import fetch, gigabytes, plan_download
from ui.commands import options

if TYPE_CHECKING:
    from tqdm import tqdm

    from core.weights.hub.download import DownloadPlan


def download(
    name: Annotated[
        str, typer.Argument(metavar="MODEL", help="owner/name on the hub, or sd15 for Stable Diffusion 1.5.")
    ],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of the repository. [default: main]")
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(help="Variant of the weights, such as fp16, which halves the size."),
    ] = None,
    file: Annotated[
        str | None, typer.Option(metavar="NAME", help="Download only this .safetensors or .ckpt file.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the model (with --file: folder to save it in). [default: in data/models]",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Start without asking for confirmation.")] = False,
    as_json: options.Json = False,
) -> None:
    """Download a model: only the files that are needed, verified; an interrupted download is resumed."""
    plan = plan_download(name, find.MODELS, revision=revision, variant=variant, file=file, out=out)
    print(described(plan), file=sys.stderr)
    if not yes:
        _confirm(plan)
    with _bar(plan) as bar:
        path = fetch(plan, bar.update)
    if as_json:
        print(json.dumps(_report(plan, path)))
        return
    named = str(path) if out else path.name if plan.whole else path.stem
    print(f"{path} is downloaded: use it with --model {named}", file=sys.stderr)
    print(path)


def described(plan: DownloadPlan) -> str:
    """What will be downloaded, under which licence and where to: what the user agrees to."""
    here = plan.arrived()
    size = gigabytes(plan.size) + (f", of which {gigabytes(here)} are downloaded already" if here else "")
    count = f"{len(plan.files)} file{'' if len(plan.files) == 1 else 's'}"
    if plan.licence:
        licence = f"licence: {plan.licence}; it binds everyone who uses the model: read it at {plan.page}"
    else:
        licence = f"licence: none is stated; read {plan.page} before you use the model"
    gated = "\ngated: agree to its terms on that page, and set HF_TOKEN to your token" if plan.gated else ""
    return (
        f"{plan.repository}, commit {plan.revision[:12]}, from {plan.endpoint}\n"
        f"{licence}{gated}\n"
        f"{count}, {size}, to {plan.model}"
    )


def _confirm(plan: DownloadPlan) -> None:
    if not sys.stdin.isatty():
        size = gigabytes(plan.size)
        raise UserError(
            f"cannot ask without a terminal: add --yes to agree to the licence and download {size}."
        )
    if not typer.confirm("Start?", err=True):
        raise typer.Abort


def _bar(plan: DownloadPlan) -> tqdm[NoReturn]:
    """The progress of all files, where standard error is a terminal."""
    from tqdm import tqdm

    return tqdm(total=plan.size, desc=plan.model.name, unit="B", unit_scale=True, leave=False, disable=None)


def _report(plan: DownloadPlan, path: Path) -> dict[str, Any]:
    return {
        "path": str(path),
        "repository": plan.repository,
        "revision": plan.revision,
        "endpoint": plan.endpoint,
        "licence": plan.licence,
        "bytes": plan.size,
        "files": [file.path for file in plan.files],
    }
