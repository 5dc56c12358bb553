"""A1111's text, and that of all who write the same: Forge, Civitai, Fooocus, our own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from core.recipes.infotext import MAX_CHARACTERS, Infotext, parse_infotext
from core.recipes.opened_recipe import OpenedRecipe
from core.recipes.report_builder import CPU, GPU, ReportBuilder, as_whole
from core.request.image_settings import MAX_BLUR, MAX_PADDING
from core.request.model_defaults import MAX_MERGING, MAX_REUSE
from core.request.sigmas import parse_sigmas

if TYPE_CHECKING:
    from core.sampling.registry import Registry

OURS = "latentcanvas"

# What A1111 takes for a sampler whose schedule is "Automatic"; for all others its even spacing in time.
_KARRAS = ("dpmpp_2m", "dpmpp_sde", "dpmpp_2s_a", "dpm2", "dpm2_a", "restart")
_AUTOMATIC = {
    **dict.fromkeys(_KARRAS, "karras"),
    **dict.fromkeys(("dpmpp_2m_sde", "dpmpp_3m_sde"), "exponential"),
    **dict.fromkeys(("ddim", "ddim_cfg_pp", "plms", "unipc"), "leading"),
    **dict.fromkeys(("dpm_fast", "dpm_adaptive", "lcm"), None),
}
_OPTIONS = {
    "eta": "eta",
    "eta ddim": "eta",
    "sigma churn": "s_churn",
    "sigma tmin": "s_tmin",
    "sigma tmax": "s_tmax",
    "sigma noise": "s_noise",
}
_CONTENTS = {"original": "original", "fill": "fill", "latent noise": "noise", "latent nothing": "nothing"}
_TAG = re.compile(r"<(?:lora|lyco|hypernet):[^<>\n]{1,300}>")
_OVER_TIME = re.compile(r"\[[^\[\]]{0,300}[:|][^\[\]]{0,300}\]")

# Keys, or how they begin, and why they have no effect here.
_REASONS = {
    "hires": "there is no second, larger pass here",
    "first pass size": "there is no second, larger pass here",
    "lora": "LoRAs are not applied here",
    "addnet": "LoRAs are not applied here",
    "ti hashes": "textual inversions are not loaded here: their words are read as words",
    "hypernet": "hypernetworks are not applied here",
    "controlnet": "ControlNet is not here",
    "adetailer": "nothing is painted over afterwards here",
    "face restoration": "faces are not repaired afterwards here",
    "variation seed": "noises of two seeds are not mixed here",
    "seed resize": "noise of another size is not taken here",
    "tiling": "pictures that repeat at their edges are not made here",
    "token merging ratio hr": "there is no second, larger pass here",
    "fp8": "weights are not stored in 8 bits here",
    "cache fp16": "weights are not stored in 8 bits here",
    "ensd": "the noise of each step is drawn in another way here",
    "vae": "load the model with that VAE (--vae) to have it",
    "refiner": "one model makes the whole picture here",
    "ngms": "guidance is not left out by its size here",
    "image cfg scale": "models that are guided by a picture are not run here",
    "conditional mask weight": "an inpainting model sees its whole mask here",
    "noise multiplier": "the start's noise has its plain strength here",
    "init image hash": "its hash is not of the kind that pictures are recognised by here",
    "schedule": "the schedule runs from the model's largest to its smallest noise level here",
    "freeu": "FreeU is not here",
    "style": "styles are already in the prompt",
    "template": "templates are already in the prompt",
    "wildcard": "wildcards are already in the prompt",
    "batch": "a recipe is of one picture",
    "stop after": "the exact recipe alone, which is not here, says how a run ended early",
    "branch after": "the exact recipe alone, which is not here, says what a run branched from",
    "version": "says which program wrote it",
    "user": "says who made it",
    "created": "says when it was made",
}


def read(text: str, registry: Registry) -> OpenedRecipe:
    """What A1111's text says; text without parameters is a prompt. Raises UserError for endless text."""
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"a text of {len(text)} characters is no recipe; paste a shorter one")
    said = parse_infotext(text)
    sheet = ReportBuilder(registry)
    if said.params:
        _Reader(sheet, said).read()
        return sheet.found("a1111")
    sheet.prompt("prompt", said.prompt, "prompt")
    if said.negative:
        sheet.prompt("negative prompt", said.negative, "negative")
    return sheet.found("text")


class _Reader:
    """Fills the sheet in from one text, key by key; keys count whatever their case."""

    def __init__(self, sheet: ReportBuilder, said: Infotext) -> None:
        self.sheet, self.said = sheet, said
        self.known = {key.casefold(): (key, value) for key, value in said.params.items()}
        self.version = self._value("version")
        self.ours = self.version.startswith(OURS)
        self.hires = any(key.startswith(("hires", "first pass size")) for key in self.known)
        self.from_picture = "denoising strength" in self.known and not self.hires

    def read(self) -> None:
        self._prompt("Prompt", self.said.prompt, "prompt")
        if self.said.negative:
            self._prompt("Negative prompt", self.said.negative, "negative")
        self._method()
        if "steps" in self.known:
            self.sheet.steps(*self.known["steps"])
        for name, (key, value) in self.known.items():
            if name not in ("steps", "sampler", "schedule type", "scheduler"):
                self._key(name, key, value)
        if "rng" not in self.known:
            self._rng("RNG", "(not said)")

    def _prompt(self, key: str, text: str, field: str) -> None:
        tags = [] if self.ours else _TAG.findall(text)
        plain = _TAG.sub("", text) if tags else text
        notes = []
        if not self.ours and _OVER_TIME.search(plain):
            notes.append("words that change over time ([a:b:0.5], [a|b]) are read as text here")
        if not self.ours and re.search(r"\bAND\b", plain):
            notes.append("AND is read as a word here")
        self.sheet.prompt(key, plain, field, "; ".join(notes))
        if tags:
            self.sheet.lines.pop()
            self.sheet.map(key, text, plain, "; ".join(["without what names LoRAs", *notes]))
        for tag in tags:
            self.sheet.ignore(f"{key}: extra network", tag, _REASONS["lora"])

    def _method(self) -> None:
        sampler = self.known.get("sampler")
        schedule = self.known.get("schedule type") or self.known.get("scheduler")
        if "sigmas" in self.known and schedule is None:
            self.sheet.method(sampler, None)
            self.sheet.lines = [line for line in self.sheet.lines if line.key != "schedule"]
        elif sampler or schedule:
            self.sheet.method(sampler, schedule, lambda name: _AUTOMATIC.get(name, "normal"))

    def _key(self, name: str, key: str, value: str) -> None:
        sheet = self.sheet
        match name:
            case "cfg scale":
                sheet.cfg_scale(key, value)
            case "seed":
                sheet.seed(key, value)
            case "size":
                width, _, height = value.lower().partition("x")
                sheet.size(key, value, width, height)
            case "model":
                sheet.model(key, value)
            case "model hash":
                sheet.hash(key, value)
            case "clip skip":
                sheet.clip_skip(key, value, as_whole(value))
            case "skip early cfg":
                sheet.number(key, value, "cfg_from", 0.0, 0.99)
            case "token merging ratio":
                sheet.number(key, value, "token_merging", 0.0, MAX_MERGING)
            case "feature reuse":
                sheet.whole(key, value, "feature_reuse", 1, MAX_REUSE)
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
            case _ if name in _OPTIONS:
                sheet.option(key, value, _OPTIONS[name])
            case _:
                sheet.ignore(key, value, reason(name))

    def _rng(self, key: str, value: str) -> None:
        """Where the noise was drawn. A1111 does not say it for the GPU; we and ComfyUI draw on the CPU."""
        if value == "CPU" or (value == "(not said)" and self.version.startswith("ComfyUI")):
            self.sheet.keep(key, value, CPU)
        else:
            self.sheet.ignore(key, value, GPU)

    def _strength(self, key: str, value: str) -> None:
        if self.hires:
            self.sheet.ignore(key, value, "is that of the second, larger pass, which is not made here")
        else:
            self.sheet.strength(key, value)

    def _sigmas(self, key: str, value: str) -> None:
        try:
            sigmas = parse_sigmas(value)
        except UserError:
            sigmas = ()
        if len(sigmas) - 1 == self.sheet.values.get("steps"):
            self.sheet.keep(key, value, sigmas=sigmas)
        else:
            self.sheet.ignore(key, value, "are not falling noise levels, one a step")

    def _mask(self, name: str, key: str, value: str) -> None:
        sheet, said = self.sheet, value.strip().casefold()
        only = self._value("inpaint area").casefold() == "only masked"
        if not self.from_picture:
            sheet.ignore(key, value, "a mask has no effect without a picture to start from")
        elif name == "mask blur":
            sheet.whole(key, value, "mask_blur", 0, MAX_BLUR)
        elif name == "masked area padding" and only:
            sheet.whole(key, value, "only_masked", 0, MAX_PADDING)
        elif name == "mask mode" and said in ("inpaint masked", "inpaint not masked"):
            sheet.keep(key, value, invert_mask=said == "inpaint not masked")
        elif name == "masked content" and said in _CONTENTS:
            sheet.keep(key, value, masked_content=_CONTENTS[said])
        elif name == "inpaint area" and only:
            padding: dict[str, Any] = {} if "masked area padding" in self.known else {"only_masked": 32}
            sheet.keep(key, value, **padding)
        elif name == "inpaint area" and said == "whole picture":
            sheet.keep(key, value)
        else:
            sheet.ignore(key, value, "has no effect here")

    def _emphasis(self, key: str, value: str) -> None:
        if value.casefold() == "original":
            self.sheet.keep(key, value, "weights count as they do there")
        else:
            self.sheet.ignore(key, value, "weights in the prompt always count, as in Original, here")

    def _value(self, name: str) -> str:
        return self.known.get(name, ("", ""))[1]


def reason(name: str) -> str:
    """Why a key of A1111's, in small letters, is ignored."""
    for start, why in _REASONS.items():
        if name.startswith(start):
            return why
    return "this program has nothing of that name"
