"""A1111's text, also written by Forge, Civitai, Fooocus and LatentCanvas."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from core.recipes.infotext import MAX_CHARACTERS, Infotext, parse_infotext
from core.recipes.opened_recipe import OpenedRecipe
from core.recipes.report_builder import CPU, GPU, ReportBuilder, as_number, as_whole
from core.request.fields import MAX_BLUR, MAX_MERGING, MAX_PADDING, MAX_REUSE
from core.request.sigmas import parse_sigmas

if TYPE_CHECKING:
    from core.sampling.registry import Registry

OURS = "latentcanvas"

# A1111's default schedules ("Automatic") by sampler; all others use its even spacing in time.
_KARRAS = ("dpmpp_2m", "dpmpp_sde", "dpmpp_2s_a", "dpm2", "dpm2_a", "restart")
_AUTOMATIC = {
    **dict.fromkeys(_KARRAS, "karras"),
    **dict.fromkeys(("dpmpp_2m_sde", "dpmpp_3m_sde"), "exponential"),
    **dict.fromkeys(("ddim", "ddim_cfg_pp", "plms", "unipc"), "leading"),
    **dict.fromkeys(("dpm_fast", "dpm_adaptive", "lcm"), None),
}
# Before 1.9 the schedule was in the sampler's name; a name without one had the even grid, but for Restart.
_AUTOMATIC_BEFORE = {**dict.fromkeys(_KARRAS, "normal"), "restart": "karras"}
_AUTOMATIC_BEFORE |= dict.fromkeys(("dpmpp_2m_sde", "dpmpp_3m_sde"), "normal")
_NOT_K_DIFFUSION = ("ddim", "ddim_cfg_pp", "plms", "unipc")
_WITHOUT_NEXT_TO_LAST = ("dpm2", "dpm2_a", "dpmpp_3m_sde")
_OPTIONS = {
    "eta": "eta",
    "eta ddim": "eta",
    "sigma churn": "s_churn",
    "sigma tmin": "s_tmin",
    "sigma tmax": "s_tmax",
    "sigma noise": "s_noise",
}
_CONTENTS = {"original": "original", "fill": "fill", "latent noise": "noise", "latent nothing": "nothing"}
_BEFORE_1_9 = re.compile(r"v?(0\.|1\.[0-8](\D|$))")
_TAG = re.compile(r"<(?:lora|lyco|hypernet):[^<>\n]{1,300}>")
_OVER_TIME = re.compile(r"\[[^\[\]]{0,300}[:|][^\[\]]{0,300}\]")

# Keys, or their first letters, and why they are ignored.
_REASONS = {
    "hires": "a second, larger pass is not supported",
    "first pass size": "a second, larger pass is not supported",
    "lora": "LoRAs are not supported",
    "addnet": "LoRAs are not supported",
    "ti hashes": "textual inversions are not supported: their names are read as words",
    "hypernet": "hypernetworks are not supported",
    "controlnet": "ControlNet is not supported",
    "adetailer": "repainting after the run is not supported",
    "face restoration": "face restoration is not supported",
    "variation seed": "noise mixed from two seeds is not supported",
    "seed resize": "noise of another size is not supported",
    "tiling": "seamless images are not supported",
    "token merging ratio hr": "a second, larger pass is not supported",
    "fp8": "8-bit weights are not supported",
    "cache fp16": "8-bit weights are not supported",
    "ensd": "the noise of each step is drawn differently here",
    "vae": "load the model with this VAE (--vae) to use it",
    "refiner": "refiner models are not supported",
    "ngms": "skipping guidance by its size is not supported",
    "image cfg scale": "models guided by an image are not supported",
    "conditional mask weight": "an inpainting model always sees the whole mask",
    "noise multiplier": "the initial noise is not scaled",
    "init image hash": "this kind of hash cannot identify an image here",
    "schedule": "the schedule always runs from the model's largest to its smallest sigma",
    "freeu": "FreeU is not supported",
    "style": "styles are already in the prompt",
    "template": "templates are already in the prompt",
    "wildcard": "wildcards are already in the prompt",
    "batch": "a recipe describes one image",
    "stop after": "only the exact recipe, which is missing, says how the run ended early",
    "branch after": "only the exact recipe, which is missing, says what the run branched from",
    "version": "says which program wrote it",
    "user": "says who made it",
    "created": "says when it was made",
}


def read(text: str, registry: Registry) -> OpenedRecipe:
    """The recipe in A1111's text; text without parameters is a prompt. Raises UserError if it is too long."""
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"a text of {len(text)} characters is too long for a recipe; paste a shorter one")
    said = parse_infotext(text)
    report = ReportBuilder(registry)
    if said.params:
        _Reader(report, said).read()
        return report.found("a1111")
    report.prompt("prompt", said.prompt, "prompt")
    if said.negative:
        report.prompt("negative prompt", said.negative, "negative")
    return report.found("text")


class _Reader:
    """Reads one text into the report, key by key; keys ignore case."""

    def __init__(self, report: ReportBuilder, said: Infotext) -> None:
        self.report, self.said = report, said
        self.known = {key.casefold(): (key, value) for key, value in said.params.items()}
        self.version = self._value("version")
        self.ours = self.version.startswith(OURS)
        self.webui = not self.version.startswith((OURS, "ComfyUI", "Fooocus"))
        self.hires = any(key.startswith(("hires", "first pass size")) for key in self.known)
        self.from_picture = "denoising strength" in self.known and not self.hires

    def read(self) -> None:
        self._prompt("Prompt", self.said.prompt, "prompt")
        if self.said.negative:
            self._prompt("Negative prompt", self.said.negative, "negative")
        self._method()
        if "steps" in self.known:
            self.report.steps(*self.known["steps"])
        if not self.ours:
            self.report.as_in_k_diffusion()
            if self.webui and self.report.values.get("sampler") in _WITHOUT_NEXT_TO_LAST:
                self.report.without_next_to_last()
        for name, (key, value) in self.known.items():
            if name not in ("steps", "sampler", "schedule type", "scheduler"):
                self._key(name, key, value)
        if "rng" not in self.known:
            self._rng("RNG", "(not given)")

    def _prompt(self, key: str, text: str, field: str) -> None:
        tags = [] if self.ours else _TAG.findall(text)
        plain = _TAG.sub("", text) if tags else text
        notes = []
        if not self.ours and _OVER_TIME.search(plain):
            notes.append("words that change over time ([a:b:0.5], [a|b]) are read as plain text here")
        if not self.ours and re.search(r"\bAND\b", plain):
            notes.append("AND is read as a word here")
        self.report.prompt(key, plain, field, "; ".join(notes))
        if tags:
            self.report.lines.pop()
            self.report.map(key, text, plain, "; ".join(["without the LoRA tags", *notes]))
        for tag in tags:
            self.report.ignore(f"{key}: extra network", tag, _REASONS["lora"])

    def _method(self) -> None:
        sampler = self.known.get("sampler")
        schedule = self.known.get("schedule type") or self.known.get("scheduler")
        if "sigmas" in self.known and schedule is None:
            self.report.method(sampler, None)
            self.report.lines = [line for line in self.report.lines if line.key != "schedule"]
        elif sampler or schedule:
            before = schedule is None and (_BEFORE_1_9.match(self.version) is not None)
            automatic = {**_AUTOMATIC, **_AUTOMATIC_BEFORE} if before else _AUTOMATIC
            self.report.method(sampler, schedule, lambda name: automatic.get(name, "normal"))

    def _key(self, name: str, key: str, value: str) -> None:
        report = self.report
        match name:
            case "cfg scale":
                report.cfg_scale(key, value)
            case "seed":
                report.seed(key, value)
            case "size":
                width, _, height = value.lower().partition("x")
                report.size(key, value, width, height)
            case "model":
                report.model(key, value)
            case "model hash":
                report.hash(key, value)
            case "clip skip":
                report.clip_skip(key, value, as_whole(value))
            case "skip early cfg":
                report.number(key, value, "cfg_from", 0.0, 0.99)
            case "token merging ratio":
                report.number(key, value, "token_merging", 0.0, MAX_MERGING)
            case "feature reuse":
                report.whole(key, value, "feature_reuse", 1, MAX_REUSE)
            case "rng":
                self._rng(key, value)
            case "sigmas":
                self._sigmas(key, value)
            case "denoising strength":
                self._strength(key, value)
            case "mask mode" | "mask blur" | "inpaint area" | "masked area padding" | "masked content":
                self._mask(name, key, value)
            case "emphasis":
                self._emphasis(key, value)
            case "weights as in" if value == "ComfyUI":
                report.keep(key, value, emphasis="comfy")
            case _ if name in _OPTIONS:
                report.option(key, value, _OPTIONS[name])
            case _:
                report.ignore(key, value, reason(name))

    def _rng(self, key: str, value: str) -> None:
        """Where the noise was drawn. A1111 leaves it out for the GPU; we and ComfyUI draw on the CPU."""
        if value == "CPU" or (value == "(not given)" and self.version.startswith("ComfyUI")):
            self.report.keep(key, value, CPU)
        else:
            self.report.ignore(key, value, GPU)

    def _strength(self, key: str, value: str) -> None:
        if self.hires:
            self.report.ignore(key, value, "belongs to the second, larger pass, which is not supported")
            return
        steps, number = self.report.values.get("steps"), as_number(value)
        k_diffusion = self.webui and self.report.values.get("sampler") not in _NOT_K_DIFFUSION
        if not k_diffusion or steps is None or number is None or not 0 <= number < 1:
            self.report.strength(key, value)
            return
        run = int(min(number, 0.999) * steps) + 1
        strength = min(math.ceil(1e4 * run / steps) / 1e4, 1.0)
        note = f"so that {run} steps run, one more than their share, as there; give the init image"
        self.report.map(key, value, f"{strength:g}", note, strength=strength)

    def _sigmas(self, key: str, value: str) -> None:
        try:
            sigmas = parse_sigmas(value)
        except UserError:
            sigmas = ()
        if len(sigmas) - 1 == self.report.values.get("steps"):
            self.report.keep(key, value, sigmas=sigmas)
        else:
            self.report.ignore(key, value, "must be decreasing sigmas, one per step")

    def _mask(self, name: str, key: str, value: str) -> None:
        report, said = self.report, value.strip().casefold()
        only = self._value("inpaint area").casefold() == "only masked"
        if not self.from_picture:
            report.ignore(key, value, "a mask has no effect without an init image")
        elif name == "mask blur":
            report.whole(key, value, "mask_blur", 0, MAX_BLUR)
        elif name == "masked area padding" and only:
            report.whole(key, value, "only_masked", 0, MAX_PADDING)
        elif name == "mask mode" and said in ("inpaint masked", "inpaint not masked"):
            report.keep(key, value, invert_mask=said == "inpaint not masked")
        elif name == "masked content" and said in _CONTENTS:
            report.keep(key, value, masked_content=_CONTENTS[said])
        elif name == "inpaint area" and only:
            padding: dict[str, Any] = {} if "masked area padding" in self.known else {"only_masked": 32}
            report.keep(key, value, **padding)
        elif name == "inpaint area" and said == "whole picture":
            report.keep(key, value)
        else:
            report.ignore(key, value, "has no effect here")

    def _emphasis(self, key: str, value: str) -> None:
        if value.casefold() == "original":
            self.report.keep(key, value, "weights in the prompt count as in A1111")
        elif value.casefold() == "no norm":
            self.report.keep(key, value, emphasis="no_norm")
        else:
            self.report.ignore(key, value, "is not supported: weights in the prompt act as in Original here")

    def _value(self, name: str) -> str:
        return self.known.get(name, ("", ""))[1]


def reason(name: str) -> str:
    """Why a key of A1111's, in lower case, is ignored."""
    for start, why in _REASONS.items():
        if name.startswith(start):
            return why
    return "LatentCanvas has no such parameter"
