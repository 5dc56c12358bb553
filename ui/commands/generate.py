"""`generate`: from a prompt to image files."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import UserError
from core.files import check_writable
from core.memory import peak_memory_mb
from core.plugins.current import registry
from core.request.aliases import resolve
from core.request.image_settings import parse_outpaint
from core.request.merge import merged_request
from core.request.parse import parse_interval, parse_options, parse_seed, parse_size
from core.request.request import random_seed
from core.request.sigmas import parse_sigmas
from core.weights.find import find_model
from ui.commands import options

if TYPE_CHECKING:
    from core.images.source_images import Inputs
    from core.inference.pipeline import Pipeline
    from core.inference.run import Result, Run
    from core.recipes.recipe import Recipe
    from core.request.request import Request


def generate(
    prompt: Annotated[str | None, typer.Argument(help="The prompt; may be left out with --from.")] = None,
    negative: Annotated[str | None, typer.Option(help="The negative prompt.")] = None,
    clip_skip: Annotated[
        int | None, typer.Option(help="CLIP layer to stop at, counted from the last. [default: 1]")
    ] = None,
    emphasis: Annotated[
        str | None,
        typer.Option(help="How the prompt's weights act: a1111, no_norm or comfy. [default: a1111]"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Model name, or the path of its folder or checkpoint. [default: tiny]"
        ),
    ] = None,
    vae: options.Vae = None,
    ema: options.Ema = False,
    sampler: Annotated[str | None, typer.Option(help="Name of a sampler, as listed by `samplers`.")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="Name of a noise schedule, as listed by `samplers`.")
    ] = None,
    sigmas: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Sigmas to use in place of a schedule, such as 14.6,7,3,1,0.3."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Inference steps, 1 to 1000.")] = None,
    cfg_scale: Annotated[
        float | None, typer.Option(help="Classifier-free guidance scale; 1 turns guidance off.")
    ] = None,
    seed: Annotated[
        str | None,
        typer.Option(help="Seed, a whole number; image i of a batch uses seed + i. [default: random]"),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Width and height in pixels, such as 128x128.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Batch size: images of one run. [default: 1]")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A sampler option, such as eta=0.5; may be repeated."),
    ] = None,
    cfg_rescale: Annotated[
        float | None, typer.Option(help="Guidance rescale, 0 to 1: against overexposure. [default: 0]")
    ] = None,
    cfg_interval: Annotated[
        str | None,
        typer.Option(
            metavar="FROM:TO", help="Apply guidance only in this part of the steps, such as 0.1:0.8."
        ),
    ] = None,
    feature_reuse: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Run the full UNet once in N evaluations (1 to 20) and reuse its deep features in between "
            "(DeepCache): faster, approximate. [default: 1]",
        ),
    ] = None,
    token_merging: Annotated[
        float | None,
        typer.Option(
            metavar="RATIO",
            help="Merge this share of similar tokens (ToMe), 0 to 0.75: faster for large images, "
            "approximate. [default: 0]",
        ),
    ] = None,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Init image to start from (img2img, inpainting).")
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(help="Denoising strength in (0, 1]; 1 ignores the init image. [default: 0.75]"),
    ] = None,
    resize: Annotated[
        str | None,
        typer.Option(help="How to fit an init image of another shape: stretch, crop or pad. [default: crop]"),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Inpainting mask: white is repainted, black is kept.")
    ] = None,
    invert_mask: Annotated[
        bool | None,
        typer.Option("--invert-mask/--no-invert-mask", help="Repaint where the mask is black instead."),
    ] = None,
    mask_blur: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Blur of the mask's edge. [default: 4]")
    ] = None,
    masked_content: Annotated[
        str | None,
        typer.Option(help="What the masked area starts from: original, fill, noise or nothing."),
    ] = None,
    only_masked: Annotated[
        int | None,
        typer.Option(
            metavar="PADDING",
            help="Inpaint only the masked area, at full resolution, with this padding in pixels.",
        ),
    ] = None,
    keep_unmasked: Annotated[
        bool | None,
        typer.Option(
            "--keep-unmasked/--no-keep-unmasked", help="Leave every pixel outside the mask unchanged."
        ),
    ] = None,
    outpaint: Annotated[
        str | None,
        typer.Option(
            metavar="SIDE=PIXELS,...", help="Extend the image on these sides: left, right, up, down."
        ),
    ] = None,
    stop_after: Annotated[
        int | None,
        typer.Option(
            metavar="K", help="Stop after K steps, with the denoised estimate of the last; 0 turns this off."
        ),
    ] = None,
    branch: Annotated[
        int | None,
        typer.Option(
            metavar="K", help="With --from: keep its first K steps, and run the rest with the other options."
        ),
    ] = None,
    keep_steps: Annotated[
        bool, typer.Option("--keep-steps", help="Save the steps next to the image (see `steps`, `verify`).")
    ] = False,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to save the images in.")] = Path("outputs"),
    as_json: options.Json = False,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="PNG", help="Use the recipe in this image; other options override it."
        ),
    ] = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    memory: options.Memory = None,
    plugins_dir: options.PluginsDir = None,
    no_plugins: options.NoPlugins = False,
) -> None:
    """Generate images from a prompt and print their paths."""
    from core.images.source_images import Inputs, check_inputs

    recipe = _recipe_of(source)
    if prompt is None and recipe is None:
        raise UserError('there is no prompt: write one in quotes, as in generate "a red circle".')
    if sigmas is not None and schedule is not None:
        raise UserError("--schedule and --sigmas exclude each other: give one of them")
    width, height = (None, None) if size is None else parse_size(size)
    cfg_from, cfg_to = (None, None) if cfg_interval is None else parse_interval(cfg_interval)
    typed = {
        "prompt": prompt,
        "negative": negative,
        "clip_skip": clip_skip,
        "emphasis": emphasis,
        "sampler": sampler,
        "schedule": schedule,
        "sigmas": None if sigmas is None else parse_sigmas(sigmas),
        "steps": steps,
        "cfg_scale": cfg_scale,
        "width": width,
        "height": height,
        "batch": batch,
        "seed": None if seed is None else _seed_of(seed),
        "options": parse_options(option or ()),
        "cfg_rescale": cfg_rescale,
        "cfg_from": cfg_from,
        "cfg_to": cfg_to,
        "feature_reuse": feature_reuse,
        "token_merging": token_merging,
        "strength": strength,
        "resize": resize,
        "mask_blur": mask_blur,
        "masked_content": masked_content,
        "only_masked": only_masked,
        "keep_unmasked": keep_unmasked,
        "invert_mask": invert_mask,
        "outpaint": None if outpaint is None else parse_outpaint(outpaint),
        "stop_after": stop_after,
        "branch": branch,
    }
    request = merged_request(None if recipe is None else recipe.settings, typed)
    inputs = Inputs.read(image, mask) or _saved_inputs(source, recipe, request)
    check_inputs(request, inputs)
    _warn_of_other_inputs(request, inputs)
    options.choose_plugins(plugins_dir, no_plugins)
    _check_names(request)
    _check_size(request, recipe, model)
    check_writable(out)

    pipeline = load_for(recipe, model, vae, ema, device, dtype, memory)
    run = _run_steps(pipeline, request, inputs, keep_steps)
    result = run.result()
    paths = result.save(out)
    kept = _save_steps(run, paths[0]) if keep_steps else None
    if as_json:
        print(json.dumps(report(pipeline, result, paths, kept)))
    else:
        _print_summary(result)
        print(*paths, *filter(None, [kept]), sep="\n")


def _seed_of(text: str) -> int:
    """The typed seed. "random" draws one here, as it must override a recipe's seed too."""
    seed = parse_seed(text)
    return random_seed() if seed is None else seed


def _recipe_of(source: Path | None) -> Recipe | None:
    if source is None:
        return None
    from core.recipes.png import read_recipe

    return read_recipe(source)


def _saved_inputs(source: Path | None, recipe: Recipe | None, request: Request) -> Inputs | None:
    """The init image and mask of the recipe's run, if the page saved them next to its image."""
    if source is None or recipe is None or request.image_sha256 is None:
        return None
    from core.images.saved_inputs import kept_inputs

    return kept_inputs(source.parent, recipe.settings)


def _check_names(request: Request) -> None:
    """Report a misspelt sampler, schedule or option before a model is loaded."""
    known = registry()
    named = resolve(request.sampler, request.schedule, known)
    if named.sampler is not None:
        known.sampler(named.sampler).check_options({**named.options, **request.options})
    if named.schedule is not None:
        known.schedule(named.schedule)


def _check_size(request: Request, recipe: Recipe | None, model: str | None) -> None:
    """Report a size that the model cannot make before it is loaded, if it is a folder, whose config is
    quick to read.
    """
    if request.width is None and request.height is None:
        return
    from core.weights.layouts.model_folder import read_config, read_notes

    try:
        folder = find_model(model or ("tiny" if recipe is None else recipe.model.name))
        defaults = read_notes(folder, read_config(folder)).defaults if folder.is_dir() else None
    except UserError:  # loading it says what is wrong with the model
        return
    if defaults is not None:
        defaults.check_size(request.width, request.height)


def _warn_of_other_inputs(request: Request, inputs: Inputs | None) -> None:
    """A recipe has only the hashes of its init image and mask; others may be used, but the result differs."""
    if inputs is None:
        return
    for name in ("image", "mask"):
        wanted = getattr(request, f"{name}_sha256")
        if wanted not in (None, getattr(inputs.given, f"{name}_sha256")):
            _warn(f"the recipe had another {name} (SHA-256 of its pixels {wanted[:12]}...): this will differ")


def load_for(
    recipe: Recipe | None,
    model: str | None,
    vae: Path | None,
    ema: bool,
    device: str | None,
    dtype: str | None,
    memory: str | None = None,
) -> Pipeline:
    """The named model, or the recipe's on its device and in its dtype, for an identical image."""
    from core.inference.pipeline import Pipeline

    if recipe is None:
        return _announced(
            Pipeline.load(model or "tiny", device=device, dtype=dtype, vae=vae, ema=ema, memory=memory)
        )
    if device is None and dtype is None:
        device, dtype = _device_and_dtype(recipe)
    name, ema = model or recipe.model.name, ema or (model is None and recipe.model.ema)
    pipeline = _announced(Pipeline.load(name, device=device, dtype=dtype, vae=vae, ema=ema, memory=memory))
    if pipeline.sha256 != recipe.model.sha256:
        _warn(f"the image was made with other weights of {recipe.model.name}: the new one will differ")
    elif pipeline.model.ref.vae_sha256 != recipe.model.vae_sha256:
        _warn("the image was made with another VAE: name it with --vae, or the new image will differ")
    return pipeline


def _announced(pipeline: Pipeline) -> Pipeline:
    """Print what was found under the model's name, which may be any file or folder."""
    print(f"model {pipeline.name}: {pipeline.about}", file=sys.stderr)
    return pipeline


def _device_and_dtype(recipe: Recipe) -> tuple[str | None, str | None]:
    """The recipe's device and dtype; (None, None) if this machine has no such device."""
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if there.get(recipe.device.partition(":")[0]):
        return recipe.device, recipe.dtype
    _warn(f"the image was made on {recipe.device}, which is not available here: it may differ a little")
    return None, None


def _warn(text: str) -> None:
    print(f"latentcanvas: warning: {text}", file=sys.stderr)


def _run_steps(pipeline: Pipeline, request: Request, inputs: Inputs | None, keep_steps: bool) -> Run:
    """Run all steps, with a progress bar where standard error is a terminal."""
    from tqdm import tqdm

    image, mask = (None, None) if inputs is None else (inputs.image, inputs.mask)
    run = pipeline.stream(request, image=image, mask=mask, keep_steps=keep_steps)
    bar = tqdm(run, total=run.total, desc=run.settings.sampler, unit="step", leave=False, disable=None)
    for _ in bar:
        pass
    return run


def _save_steps(run: Run, picture: Path) -> Path:
    """Save the steps next to the image, the first one of a batch."""
    from core.inference.trajectory import Trajectory
    from core.inference.trajectory_file import steps_path

    path = steps_path(picture)
    Trajectory.of(run).save(path)
    return path


def report(
    pipeline: Pipeline, result: Result, paths: list[Path], steps: Path | None = None
) -> dict[str, Any]:
    """What `--json` prints: the object described in README.md. `steps` only if they were saved."""
    plugin = result.recipe.plugin
    return {
        "images": [str(path) for path in paths],
        "request": result.settings.to_dict(),
        "tokens": {
            name: dataclasses.asdict(pipeline.tokens(text))
            for name, text in (("prompt", result.settings.prompt), ("negative", result.settings.negative))
        },
        "model": {"name": pipeline.name, "sha256": pipeline.sha256},
        "sampler": {"name": result.settings.sampler, "plugin": plugin.name, "version": plugin.version},
        "evals": result.evals,
        "passes": result.passes,
        "reused": result.reused,
        "runs": result.words,
        "seconds": {"load": pipeline.model.load_seconds, **result.seconds},
        "peak_memory_mb": peak_memory_mb(pipeline.device),
        **({} if steps is None else {"steps": str(steps)}),
    }


def _print_summary(result: Result) -> None:
    spent = sum(result.seconds.values())
    words = f"{result.words}; " if result.words else ""
    part = f" ({result.reused} of {result.passes} passes with reused features)" if result.reused else ""
    print(f"{words}seed {result.settings.seed}, {result.evals} evals{part} in {spent:.2f} s", file=sys.stderr)
