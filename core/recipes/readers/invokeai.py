"""InvokeAI's metadata: `invokeai_metadata` since version 3, `sd-metadata` and `Dream` before."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from core.prompts.grammars import read_compel
from core.recipes.infotext import MAX_CHARACTERS
from core.recipes.opened_recipe import OpenedRecipe
from core.recipes.report_builder import CPU, GPU, ReportBuilder, as_number, as_whole

if TYPE_CHECKING:
    from core.sampling.registry import Registry

# The spacing of its schedulers (diffusers') without "_k"; the others choose their own steps.
_LEADING = ("ddim", "ddpm", "plms")
_LINSPACE = ("deis", "lms", "heun", "euler", "euler_a", "dpm2", "dpm2_a", "dpmpp_2s_a", "dpmpp_2m")
_AUTOMATIC = {
    **dict.fromkeys(_LEADING, "leading"),
    **dict.fromkeys((*_LINSPACE, "dpmpp_2m_sde", "dpmpp_3m_sde", "dpmpp_sde", "unipc"), "linspace"),
}
_OLD_NAMES = {"k_dpmpp_2": "dpmpp_2m", "k_dpmpp_2_a": "dpmpp_2s_ancestral", "k_dpm_2": "dpm_2"}
_REASONS = {
    "app_": "says which program wrote it",
    "generation_mode": "follows from the other keys",
    "type": "follows from the other keys",
    "model": "adds nothing",
    "lora": "LoRAs are not supported",
    "control": "ControlNet is not supported",
    "ipadapter": "IP-Adapter is not supported",
    "ip_adapter": "IP-Adapter is not supported",
    "t2iadapter": "T2I-Adapter is not supported",
    "refiner": "refiner models are not supported",
    "hrf": "a second, larger pass is not supported",
    "hires": "a second, larger pass is not supported",
    "seamless": "seamless images are not supported",
    "vae": "load the model with this VAE (--vae) to use it",
    "positive_style": "models with a second prompt are not supported",
    "negative_style": "models with a second prompt are not supported",
    "init_": "the init image must be given",
    "threshold": "thresholding is not supported",
    "perlin": "Perlin noise is not supported",
    "variations": "noise mixed from two seeds is not supported",
    "postprocessing": "postprocessing is not supported",
    "regions": "regional prompts are not supported",
    "canvas": "canvas layers are not supported",
}
_DREAM = {
    "s": "steps",
    "S": "seed",
    "W": "width",
    "H": "height",
    "C": "cfg_scale",
    "A": "sampler",
    "f": "strength",
}


def read(data: Mapping[str, Any], registry: Registry) -> OpenedRecipe:
    """The recipe in `invokeai_metadata`."""
    report = ReportBuilder(registry)
    _prompts(report, data, "positive_prompt", "negative_prompt")
    _settings(report, data, "scheduler", _AUTOMATIC)
    for key, value in data.items():
        _key(report, data, str(key), value)
    if "rand_device" not in data:
        _rand_device(report, "rand_device", "(not given)")
    return report.found("invokeai")


def read_old(data: Mapping[str, Any], registry: Registry) -> OpenedRecipe:
    """The recipe in `sd-metadata`, of version 1 and 2: the settings are in its `image`."""
    report = ReportBuilder(registry)
    image: Mapping[str, Any] = data["image"] if isinstance(data.get("image"), Mapping) else {}
    _bracketed(report, _words(image.get("prompt")))
    sampler = image.get("sampler")
    named = {**image, "sampler": _OLD_NAMES.get(sampler, sampler) if isinstance(sampler, str) else sampler}
    old = isinstance(sampler, str) and sampler.startswith("k_")  # k-diffusion's own, not diffusers'
    _settings(report, named, "sampler", {} if old else _AUTOMATIC)
    for key, value in image.items():
        _key(report, image, str(key), value)
    if "model_weights" in data:
        report.model("model_weights", data["model_weights"])
    _hash(report, "model_hash", data.get("model_hash"))
    for key in data.keys() - {"image", "model_weights", "model_hash"}:
        report.ignore(str(key), data[key], reason(str(key)))
    return report.found("invokeai")


def read_dream(text: str, registry: Registry) -> OpenedRecipe | None:
    """The recipe in the line of a `Dream` chunk, such as `"a cat" -s 50 -S 7 -W 512 -H 512 -C 7.5 -A k_lms`.

    None for any other text.
    """
    quoted, _, rest = text.strip().rpartition('"')
    if len(text) > MAX_CHARACTERS or not quoted.startswith('"') or not rest.strip():
        return None
    image: dict[str, object] = {"prompt": quoted[1:]}
    words = iter(rest.split())
    for flag in words:
        if not re.match("-[a-zA-Z]", flag):
            return None
        value = flag[2:] or next(words, "")
        image[_DREAM.get(flag[1], flag[:2])] = value
    return read_old({"image": image}, registry)


def _settings(
    report: ReportBuilder, data: Mapping[str, Any], sampler: str, automatic: Mapping[str, str]
) -> None:
    if data.get(sampler) is not None:
        report.method((sampler, data[sampler]), None, automatic.get)
    if "steps" in data:
        report.steps("steps", data["steps"])
    if "width" in data and "height" in data:
        width, height = as_whole(data["width"]), as_whole(data["height"])
        both = [data["width"], data["height"]] if width is None or height is None else f"{width}x{height}"
        report.size("width, height", both, width, height)


def _prompts(report: ReportBuilder, data: Mapping[str, Any], positive: str, negative: str) -> None:
    for key, field in ((positive, "prompt"), (negative, "negative")):
        if data.get(key) is not None:
            _prompt(report, key, data[key], field)


def _prompt(report: ReportBuilder, key: str, value: object, field: str) -> None:
    note = "weights are written (words:1.2) here, and act as those of A1111, not of compel"
    report.translated_prompt(key, value, field, read_compel, note)


def _words(prompt: object) -> object:
    """The text of a prompt that may be a list of texts with weights."""
    if isinstance(prompt, list):
        texts = [part.get("prompt") for part in prompt if isinstance(part, Mapping)]
        return " ".join(text for text in texts if isinstance(text, str))
    return prompt


def _bracketed(report: ReportBuilder, prompt: object) -> None:
    """An old prompt holds the negative one in square brackets."""
    if not isinstance(prompt, str):
        report.ignore("prompt", prompt, "is not text")
        return
    negative = ", ".join(part.strip() for part in re.findall(r"\[([^\[\]]*)\]", prompt))
    if not negative:
        _prompt(report, "prompt", prompt, "prompt")
        return
    plain = re.sub(r" ?\[[^\[\]]*\]", "", prompt).strip().rstrip(",")
    note = "text in square brackets there is the negative prompt here"
    report.map("prompt", prompt, f"{plain} / {negative}", note)
    _prompt(report, "prompt", plain, "prompt")
    _prompt(report, "prompt [negative]", negative, "negative")


def _key(report: ReportBuilder, data: Mapping[str, Any], key: str, value: Any) -> None:
    plain: dict[str, Callable[[str, object], None]] = {
        "seed": report.seed,
        "cfg_scale": report.cfg_scale,
        "model_hash": lambda key, value: _hash(report, key, value),
        "rand_device": lambda key, value: _rand_device(report, key, value),
        "model": lambda key, value: _model(report, key, value),
    }
    done = ("positive_prompt", "negative_prompt", "prompt", "scheduler", "sampler", "steps")
    if key in done or (key in ("width", "height") and "width" in data and "height" in data):
        return
    if value is None or value == [] or value is False:
        report.ignore(key, value, "is empty")
    elif key in plain:
        plain[key](key, value)
    elif key == "cfg_rescale_multiplier":
        report.number(key, value, "cfg_rescale", 0.0, 1.0)
    elif key == "clip_skip":
        skipped = as_whole(value)
        layer = None if skipped is None else skipped + 1
        report.clip_skip(key, value, layer, "counted there from 0, here from 1")
    elif key == "strength":
        _strength(report, data, key, value)
    else:
        report.ignore(key, value, reason(key))


def _strength(report: ReportBuilder, data: Mapping[str, Any], key: str, value: object) -> None:
    mode = data.get("generation_mode", data.get("type"))
    if (isinstance(mode, str) and mode.endswith("txt2img")) or as_number(value) == 0:
        report.ignore(key, value, "has no effect without an init image")
    else:
        report.strength(key, value)


def _rand_device(report: ReportBuilder, key: str, value: object) -> None:
    if value in ("cpu", "(not given)"):
        report.keep(key, value, CPU)
    else:
        report.ignore(key, value, GPU)


def _model(report: ReportBuilder, key: str, value: object) -> None:
    """A name, or an object that holds one."""
    if not isinstance(value, Mapping):
        report.model(key, value)
        return
    names = (value.get(name) for name in ("model_name", "name"))
    report.model(f"{key}.name", next((name for name in names if name), None))
    if isinstance(value.get("hash"), str):
        _hash(report, f"{key}.hash", value["hash"])


def _hash(report: ReportBuilder, key: str, value: object) -> None:
    digits = value.removeprefix("sha256:") if isinstance(value, str) else ""
    if len(digits) == 64:
        report.hash(key, digits)
    elif value:
        report.ignore(key, value, "is not the SHA-256 of one file")


def reason(key: str) -> str:
    """Why a key is ignored."""
    small = key.lower()
    return next((why for start, why in _REASONS.items() if small.startswith(start)), "is not a known key")
