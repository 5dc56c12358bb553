"""The recipe as A1111 (AUTOMATIC1111's web UI) writes and reads it: the `parameters` chunk of an image.

    a red house
    Negative prompt: blurry
    Steps: 20, Sampler: DDIM, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 128x128, ..., RNG: CPU, ...

The format, quirks included, is A1111's, so that other programs can read our images and we can read theirs.
It cannot carry every text: see `parse_infotext`. The exact recipe is in the `latentcanvas` chunk
(core/recipes/png.py).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

from core.request.aliases import title

if TYPE_CHECKING:
    from core.checks import OptionValue
    from core.recipes.recipe import Recipe
    from core.request.settings import Settings

MAX_CHARACTERS = 100_000  # two prompts of the maximum length, and the parameters
_NEGATIVE = "Negative prompt:"
# A1111's pattern: a key of two or more characters, then a JSON string or anything up to the next comma. Only
# here a key has a maximum length: without it, a long line of letters takes quadratic time.
_PAIR = re.compile(r'(\w[\w \-/]{1,100}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_LEAST_PAIRS = 3
# The samplers whose eta A1111 calls "Eta DDIM" (default 0); for all others it is "Eta" (default 1).
_DDIM_FAMILY = {"DDIM", "DDIM CFG++", "PLMS", "UniPC"}
_CONTENTS = {"fill": "fill", "noise": "latent noise", "nothing": "latent nothing"}
_OPTION_KEYS = {
    "s_churn": "Sigma churn",
    "s_tmin": "Sigma tmin",
    "s_tmax": "Sigma tmax",
    "s_noise": "Sigma noise",
}


class Infotext(NamedTuple):
    """A parsed infotext: `params` in its order, unquoted."""

    prompt: str
    negative: str
    params: dict[str, str]


def infotext(recipe: Recipe) -> str:
    """The recipe as A1111 writes one.

    Sampler and schedule are written by title, or by name where the recipe has no title. `RNG: CPU` is always
    written: our noise is drawn on the CPU, and a reader without the key would draw it on the GPU.
    """
    settings = recipe.settings
    sampler = title(settings.sampler, recipe.sampler_title or settings.sampler, settings.options)
    typed = None if settings.sigmas is None else ", ".join(f"{level:g}" for level in settings.sigmas)
    params: dict[str, OptionValue | None] = {
        "Steps": settings.steps,
        "Sampler": sampler,
        "Schedule type": None if typed else recipe.schedule_title or settings.schedule,
        "Sigmas": typed,
        "CFG scale": settings.cfg_scale,
        "Seed": settings.seed,
        "Size": f"{settings.width}x{settings.height}",
        "Model hash": recipe.model.sha256[:10],
        "Model": recipe.model.name,
        "VAE hash": recipe.model.vae_sha256[:10] or None,
        "Denoising strength": settings.strength,
        "Clip skip": settings.clip_skip if settings.clip_skip > 1 else None,
        "Token merging ratio": settings.token_merging or None,
        "RNG": "CPU",
        **_mask_params(settings),
        "Emphasis": "No norm" if settings.emphasis == "no_norm" else None,
        "Weights as in": "ComfyUI" if settings.emphasis == "comfy" else None,  # A1111 has no name for it
        "Eta DDIM" if sampler in _DDIM_FAMILY else "Eta": settings.options.get("eta"),
        **{key: settings.options.get(option) for option, key in _OPTION_KEYS.items()},
        "Skip Early CFG": settings.cfg_from or None,
        "Feature reuse": settings.feature_reuse if settings.feature_reuse > 1 else None,
        "Stop after": settings.stop_after,
        "Branch after": None if settings.branch is None else settings.branch.step,
        "Version": _version(recipe),
    }
    negative = f"\n{_NEGATIVE} {settings.negative}" if settings.negative else ""
    return f"{settings.prompt}{negative}\n{_joined(params)}".strip()


def parse_infotext(text: str) -> Infotext:
    """Parse any program's infotext by the rules of A1111's parser. Text without parameters is all prompt.

    The last line holds the parameters if it has at least three pairs, else it belongs to the prompt. The
    format changes some texts, here as in A1111: white space at the ends of a line, empty lines
    at the start of either prompt, a line of either that starts with "Negative prompt:" (the words go, and the
    negative starts there at the latest), and a value that is empty, equals its key or already stands in
    double quotes.
    """
    *lines, last = text.strip().split("\n")
    pairs = _PAIR.findall(last)
    if len(pairs) < _LEAST_PAIRS:
        lines.append(last)
        pairs = []
    prompt: list[str] = []
    negative: list[str] = []
    current = prompt
    for line in map(str.strip, lines):
        if line.startswith(_NEGATIVE):
            current = negative
        current.append(line.removeprefix(_NEGATIVE).strip())
    params = {key: _unquoted(value) for key, value in pairs if value}
    return Infotext("\n".join(prompt).lstrip("\n"), "\n".join(negative).lstrip("\n"), params)


def _mask_params(settings: Settings) -> dict[str, OptionValue | None]:
    """A1111's mask parameters: only those that differ from its defaults."""
    only_masked = settings.only_masked is not None
    return {
        "Mask mode": "Inpaint not masked" if settings.invert_mask else None,
        "Mask blur": settings.mask_blur or None,
        "Inpaint area": "Only masked" if only_masked else None,
        "Masked area padding": settings.only_masked,
        "Masked content": _CONTENTS.get(settings.masked_content or ""),
    }


def _joined(params: dict[str, OptionValue | None]) -> str:
    written = [(key, _written(value)) for key, value in params.items() if value is not None]
    return ", ".join(key if key == value else f"{key}: {_quoted(value)}" for key, value in written)


def _written(value: OptionValue) -> str:
    if isinstance(value, float) and value.is_integer():  # pyrefly: ignore[missing-attribute]
        return str(int(value))
    return str(value)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search("[,\n:]", value) else value


def _unquoted(value: str) -> str:
    if not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        unquoted = json.loads(value)
    except ValueError:
        return value
    return unquoted if isinstance(unquoted, str) else value


def _version(recipe: Recipe) -> str | None:
    version = recipe.versions.get("latentcanvas")
    return f"latentcanvas {version}" if version else None
