"""`generate`: from a prompt to pictures on the disk."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import UserError
from ui.commands import options

if TYPE_CHECKING:
    from core.images import Recipe
    from core.pipeline import Pipeline, Result
    from core.request import Request


def generate(
    prompt: Annotated[str | None, typer.Argument(help="What to draw; may be left out with --from.")] = None,
    negative: Annotated[str | None, typer.Option(help="What to steer away from.")] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A model by name, or its folder or file. [default: tiny]"),
    ] = None,
    vae: options.Vae = None,
    ema: options.Ema = False,
    sampler: Annotated[str | None, typer.Option(help="A name that `samplers` lists.")] = None,
    schedule: Annotated[str | None, typer.Option(help="A schedule that `samplers` lists.")] = None,
    steps: Annotated[int | None, typer.Option(help="Number of steps, 1 to 1000.")] = None,
    cfg_scale: Annotated[
        float | None, typer.Option(help="Strength of the guidance by the prompt; 1 is none.")
    ] = None,
    seed: Annotated[
        str | None, typer.Option(help="Whole number; image i of a batch has seed + i. [default: random]")
    ] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Pixels, for example 128x128.")] = None,
    batch: Annotated[int | None, typer.Option(help="Number of pictures. [default: 1]")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An option of the sampler; may be repeated."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the pictures go.")] = Path("outputs"),
    as_json: options.Json = False,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="PNG", help="Start from the recipe in this picture; other options win over it."
        ),
    ] = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    plugins_dir: options.PluginsDir = None,
    no_plugins: options.NoPlugins = False,
) -> None:
    """Make pictures from a prompt and print their paths."""
    from core.files import check_writable
    from core.request import parse_options, parse_size

    recipe = _recipe_of(source)
    if prompt is None and recipe is None:
        raise UserError('there is no prompt: write one in quotes, as in generate "a red circle".')
    width, height = (None, None) if size is None else parse_size(size)
    request = request_for(
        recipe,
        prompt=prompt,
        negative=negative,
        sampler=sampler,
        schedule=schedule,
        steps=steps,
        cfg_scale=cfg_scale,
        width=width,
        height=height,
        batch=batch,
        seed=None if seed is None else _seed_of(seed),
        options=parse_options(option or ()),
    )
    options.choose_plugins(plugins_dir, no_plugins)
    _check_names(request)
    check_writable(out)

    pipeline = _load(recipe, model, vae, ema, device, dtype)
    result = _run(pipeline, request)
    paths = result.save(out)
    if as_json:
        print(json.dumps(report(pipeline, result, paths)))
    else:
        _print_summary(result)
        print(*paths, sep="\n")


def request_for(recipe: Recipe | None, **given: Any) -> Request:
    """The request that was given, its gaps filled from a picture's recipe when there is one.

    The recipe's sampler options hold only for the recipe's sampler.
    """
    from core.request import Request

    known: dict[str, Any] = recipe.settings.as_request().to_dict() if recipe else {}
    if given["sampler"] not in (None, known.get("sampler")):
        known.pop("options", None)
    given["options"] = {**known.get("options", {}), **given["options"]}
    return Request.from_mapping(known | {name: value for name, value in given.items() if value is not None})


def _seed_of(text: str) -> int:
    """The seed that was typed; one is drawn here for the word random, as it must win over a recipe's too."""
    from core.request import parse_seed, random_seed

    seed = parse_seed(text)
    return random_seed() if seed is None else seed


def _recipe_of(source: Path | None) -> Recipe | None:
    if source is None:
        return None
    from core.images import read_recipe

    return read_recipe(source)


def _check_names(request: Request) -> None:
    """A misspelt sampler, schedule or option is said at once, before a model is loaded."""
    from core.plugins import registry

    known = registry()
    if request.sampler is not None:
        known.sampler(request.sampler).check_options(request.options)
    if request.schedule is not None:
        known.schedule(request.schedule)


def _load(
    recipe: Recipe | None,
    model: str | None,
    vae: Path | None,
    ema: bool,
    device: str | None,
    dtype: str | None,
) -> Pipeline:
    """The asked model, or the recipe's with its device and number format, for the very same picture."""
    from core.pipeline import Pipeline

    if recipe is None:
        return _told(Pipeline.load(model or "tiny", device=device, dtype=dtype, vae=vae, ema=ema))
    if device is None and dtype is None:
        device, dtype = _place_of(recipe)
    name, ema = model or recipe.model.name, ema or (model is None and recipe.model.ema)
    pipeline = _told(Pipeline.load(name, device=device, dtype=dtype, vae=vae, ema=ema))
    if pipeline.sha256 != recipe.model.sha256:
        _warn(f"the picture was made with other weights of {recipe.model.name}: this one will differ")
    elif pipeline.model_ref.vae_sha256 != recipe.model.vae_sha256:
        _warn("the picture was made with another VAE: give the same one as --vae, or this one will differ")
    return pipeline


def _told(pipeline: Pipeline) -> Pipeline:
    """Say what was found under the model's name, as it may be anything that people have on disk."""
    print(f"model {pipeline.name}: {pipeline.about}", file=sys.stderr)
    return pipeline


def _place_of(recipe: Recipe) -> tuple[str | None, str | None]:
    """The recipe's device and number format; neither when there is no such device here."""
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if there.get(recipe.device.partition(":")[0]):
        return recipe.device, recipe.dtype
    _warn(f"the picture was made on {recipe.device}, which is not here: this one may differ a little")
    return None, None


def _warn(text: str) -> None:
    print(f"latentcanvas: warning: {text}", file=sys.stderr)


def _run(pipeline: Pipeline, request: Request) -> Result:
    """Run to the end, with a progress bar on standard error when someone is there to see it."""
    from tqdm import tqdm

    run = pipeline.stream(request)
    bar = tqdm(run, total=run.total, desc=run.settings.sampler, unit="step", leave=False, disable=None)
    for _ in bar:
        pass
    return run.result()


def report(pipeline: Pipeline, result: Result, paths: list[Path]) -> dict[str, Any]:
    """What `--json` prints: the object described in README.md."""
    plugin = result.recipe.plugin
    return {
        "images": [str(path) for path in paths],
        "request": result.settings.to_dict(),
        "model": {"name": pipeline.name, "sha256": pipeline.sha256},
        "sampler": {"name": result.settings.sampler, "plugin": plugin.name, "version": plugin.version},
        "evals": result.evals,
        "seconds": {"load": pipeline.load_seconds, **result.seconds},
        "peak_memory_mb": _peak_memory_mb(pipeline),
    }


def _print_summary(result: Result) -> None:
    spent = sum(result.seconds.values())
    print(f"seed {result.settings.seed}, {result.evals} evals in {spent:.2f} s", file=sys.stderr)


def _peak_memory_mb(pipeline: Pipeline) -> float | None:
    """The most memory held at once: of the accelerator when one was used, else of this process."""
    if pipeline.device.type == "cuda":
        import torch

        return round(torch.cuda.max_memory_allocated(pipeline.device) / 2**20, 1)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
