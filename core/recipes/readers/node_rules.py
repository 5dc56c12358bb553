"""What each output of ComfyUI's most used node classes gives: a table of rules, and the classes in it.

A rule is the name of the input that an output passes on, a function of the inputs, or None for what the node
makes itself (a latent, a model, prompt embeddings). Of a class that is not in the table nothing is known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from core.recipes.readers.node_inputs import NodeInputs

Rule = str | Callable[[NodeInputs], object] | None

_PIPE = ("model", "clip", "vae", "positive", "negative")
_CONTEXT = (*_PIPE, "latent", "images", "seed")
_BIG_CONTEXT = (
    *_CONTEXT,
    *("steps", "step_refiner", "cfg", "ckpt_name", "sampler", "scheduler", "clip_width", "clip_height"),
    *("text_pos_g", "text_pos_l", "text_neg_g", "text_neg_l", "mask", "control_net", "denoise"),
)


def _concatenated(
    inputs: NodeInputs, first: str, second: str, between: str, default: str | None = None
) -> str:
    joint = inputs.text(between, default)
    return inputs.text(first, default) + joint + inputs.text(second, default)


def _joined_all(inputs: NodeInputs) -> str:
    """WAS: texts in the order of their names, without empty ones."""
    strip = inputs.text("clean_whitespace", "true") == "true"
    texts = [inputs.text(name) for name in sorted(inputs.names()) if name.startswith("text")]
    delimiter = inputs.text("delimiter", ", ")
    delimiter = "\n" if delimiter == "\\n" else delimiter
    texts = [text.strip() if strip else text for text in texts]
    return delimiter.join(text for text in texts if text)


def _joined_count(inputs: NodeInputs) -> str:
    """KJNodes: versions differ in what becomes of an empty text."""
    texts = [inputs.text(f"string_{index + 1}") for index in range(min(inputs.whole("inputcount"), 1000))]
    if inputs.value("return_list", False) is not False or not all(texts):
        inputs.fail()
    return inputs.text("delimiter", " ").join(texts)


def _replaced(inputs: NodeInputs) -> str:
    return inputs.text("string").replace(inputs.text("find"), inputs.text("replace"))


def _trimmed(inputs: NodeInputs) -> str:
    text, mode = inputs.text("string"), inputs.text("mode")
    return inputs.choose({"Both": text.strip(), "Left": text.lstrip(), "Right": text.rstrip()}, mode)


def _in_case(inputs: NodeInputs) -> str:
    text, mode = inputs.text("string"), inputs.text("mode")
    cases = {"UPPERCASE": text.upper(), "lowercase": text.lower()}
    return inputs.choose({**cases, "Capitalize": text.capitalize(), "Title Case": text.title()}, mode)


def _string_function(inputs: NodeInputs) -> str:
    """pysssss: appends or replaces, and tidies commas."""
    texts = [inputs.text(f"text_{letter}", "") for letter in "abc"]
    first, find, new = ("" if text == "undefined" else text for text in texts)
    tidy, action = inputs.text("tidy_tags") == "yes", inputs.text("action")
    if action == "append":
        text = (", " if tidy else "").join(filter(None, (first, find, new)))
    elif action == "replace" and not (find.startswith("/") and find.endswith("/")):
        text = first.replace(find, new)
    else:  # a regular expression
        inputs.fail()
    if tidy:
        for old, shorter in (("  ", " "), (" ,", ","), (",,", ","), (",,", ",")):
            text = text.replace(old, shorter)
    return text


def _without(inputs: NodeInputs, name: str, *marks: str) -> str:
    """A text that the node passes on as it is unless it has one of these marks."""
    text = inputs.text(name)
    if any(mark in text for mark in marks):
        inputs.fail()
    return text


def _multiline(inputs: NodeInputs) -> str:
    """WAS: without lines that are comments; tokens in square brackets are replaced by the time and others."""
    text = _without(inputs, "text", "[")
    lines = text.removesuffix("\n").split("\n")
    return "\n".join(line for line in lines if not line.strip().startswith("#"))


def _switch(by: str, *names: str) -> Callable[[NodeInputs], object]:
    """The first input for 1, the second for 2, and so on; the last for any other number."""

    def of(inputs: NodeInputs) -> object:
        choice = inputs.whole(by)
        return inputs.raw(names[choice - 1] if 1 <= choice <= len(names) else names[-1])

    return of


def _either(by: str, yes: str, no: str) -> Callable[[NodeInputs], object]:
    return lambda inputs: inputs.raw(yes if inputs.truth(by) else no)


def _numbered(by: str, prefix: str) -> Callable[[NodeInputs], object]:
    return lambda inputs: inputs.raw(f"{prefix}{inputs.whole(by)}")


def _first_given(inputs: NodeInputs) -> object:
    """rgthree: the first input that has a value."""
    for name in sorted(name for name in inputs.names() if re.fullmatch("any_[0-9]+", name)):
        if inputs.value(name) not in (None, {}):  # an empty context counts as nothing
            return inputs.raw(name)
    return None


def _only(inputs: NodeInputs) -> object:
    """Of a node with one input, whatever its name."""
    names = list(inputs.names())
    return inputs.raw(names[0]) if len(names) == 1 else inputs.fail()


class _Bundle(dict[str, tuple[object, ...]]):
    """Several values on one link, by name: for each, what was given for it, the last first."""


def _bundle(names: Sequence[str], base: str) -> Callable[[NodeInputs], _Bundle]:
    """The node's own values before those of the bundle that it extends."""

    def of(inputs: NodeInputs) -> _Bundle:
        before = inputs.value(base, None)
        before = _Bundle() if before is None else before
        if not isinstance(before, _Bundle):
            inputs.fail()
        given = {name: (inputs.raw(name),) for name in names if name in inputs.names()}
        return _Bundle({n: given.get(n, ()) + before.get(n, ()) for n in {**before, **given}})

    return of


def _part(name: str, names: Sequence[str], base: str) -> Callable[[NodeInputs], object]:
    """One value of a bundle, the first that is given."""
    whole = _bundle(names, base)
    return lambda inputs: next((v for v in whole(inputs).get(name, ()) if inputs.follow(v) is not None), None)


def _parts(names: Sequence[str], base: str) -> tuple[Rule, ...]:
    return tuple(_part(name, names, base) for name in names)


def _in_text(inputs: NodeInputs, name: str) -> list[int]:
    """The one size, such as 512x768 or 512 x 768, in a choice such as "2:3 portrait 512x768"."""
    found = re.findall(r"(\d{1,5}) ?x ?(\d{1,5})", inputs.text(name))
    return [int(number) for number in found[0]] if len(found) == 1 else inputs.fail()


def _side(which: int, scale: str = "") -> Callable[[NodeInputs], int]:
    """Comfyroll: width or height of a named size, or of the one that was typed."""

    def of(inputs: NodeInputs) -> int:
        typed = inputs.text("aspect_ratio") == "custom"
        sizes = [inputs.whole("width"), inputs.whole("height")] if typed else _in_text(inputs, "aspect_ratio")
        if inputs.text("swap_dimensions") == "On":
            sizes.reverse()
        return int(sizes[which] * inputs.number(scale)) if scale else sizes[which]

    return of


def _preset(which: int, invert: str = "") -> Callable[[NodeInputs], int]:
    def of(inputs: NodeInputs) -> int:
        turned = bool(invert) and inputs.value(invert, False) is True
        return _in_text(inputs, "dimensions")[which ^ turned]

    return of


def _wildcards(inputs: NodeInputs) -> str:
    """The text that was filled in; what still has wildcards is filled in only when it runs."""
    return _without(inputs, "populated_text", "{", "__", "<")


def _number(kind: type, name: str) -> Callable[[NodeInputs], object]:
    return lambda inputs: kind(inputs.number(name))


def _unknown(inputs: NodeInputs) -> object:
    return inputs.fail()


_MODEL: tuple[Rule, ...] = ("model",)
_BOTH: tuple[Rule, ...] = ("model", "clip")
_VALUE: tuple[Rule, ...] = ("value",)
_MADE: tuple[Rule, ...] = (None,)
_COMFYROLL: tuple[Rule, ...] = (_side(0), _side(1), "upscale_factor", "batch_size", None)
_SCALED = (_side(0, "prescale_factor"), _side(1, "prescale_factor"))

RULES: dict[str, tuple[Rule, ...]] = {
    # ComfyUI itself
    "Reroute": (_only,),
    "PrimitiveNode": _VALUE,
    "PrimitiveInt": _VALUE,
    "PrimitiveFloat": _VALUE,
    "PrimitiveBoolean": _VALUE,
    "PrimitiveString": _VALUE,
    "PrimitiveStringMultiline": _VALUE,
    "StringConcatenate": (lambda i: _concatenated(i, "string_a", "string_b", "delimiter"),),
    "StringReplace": (_replaced,),
    "StringTrim": (_trimmed,),
    "CaseConverter": (_in_case,),
    "ComfySwitchNode": (_either("switch", "on_true", "on_false"),),
    "CLIPTextEncode": _MADE,
    "CLIPTextEncodeSDXL": _MADE,
    "ConditioningZeroOut": _MADE,
    "ConditioningSetTimestepRange": ("conditioning",),
    "ConditioningSetArea": ("conditioning",),
    "ConditioningSetMask": ("conditioning",),
    "ControlNetApply": ("conditioning",),
    "ControlNetApplyAdvanced": ("positive", "negative"),
    "InpaintModelConditioning": ("positive", "negative", None),
    "CLIPSetLastLayer": ("clip",),
    "LoraLoader": _BOTH,
    "LoraLoaderModelOnly": _MODEL,
    "HypernetworkLoader": _MODEL,
    "RescaleCFG": _MODEL,
    "ModelSamplingDiscrete": _MODEL,
    "FreeU": _MODEL,
    "FreeU_V2": _MODEL,
    "TomePatchModel": _MODEL,
    "HyperTile": _MODEL,
    "PatchModelAddDownscale": _MODEL,
    "PerturbedAttentionGuidance": _MODEL,
    "SelfAttentionGuidance": _MODEL,
    "DifferentialDiffusion": _MODEL,
    "CheckpointLoaderSimple": (None, None, None),
    "CheckpointLoader": (None, None, None),
    "UNETLoader": _MADE,
    "CLIPLoader": _MADE,
    "DualCLIPLoader": _MADE,
    "EmptyLatentImage": _MADE,
    "EmptySD3LatentImage": _MADE,
    "VAEEncode": _MADE,
    "VAEEncodeTiled": _MADE,
    "VAEEncodeForInpaint": _MADE,
    "SetLatentNoiseMask": ("samples",),
    "RepeatLatentBatch": ("samples",),
    "KSampler": _MADE,
    "KSamplerAdvanced": _MADE,
    "SamplerCustom": (None, None),
    "SamplerCustomAdvanced": (None, None),
    "RandomNoise": _MADE,
    "DisableNoise": _MADE,
    "CFGGuider": _MADE,
    "BasicGuider": _MADE,
    "KSamplerSelect": _MADE,
    "BasicScheduler": _MADE,
    "ManualSigmas": _MADE,
    "SplitSigmas": ("sigmas", "sigmas"),
    "SplitSigmasDenoise": ("sigmas", "sigmas"),
    # rgthree
    "Reroute (rgthree)": (_only,),
    "Any Switch (rgthree)": (_first_given,),
    "Seed (rgthree)": ("seed",),
    "KSampler Config (rgthree)": ("steps_total", "refiner_step", "cfg", "sampler_name", "scheduler"),
    "Context (rgthree)": (_bundle(_CONTEXT, "base_ctx"), *_parts(_CONTEXT, "base_ctx")),
    "Context Big (rgthree)": (_bundle(_BIG_CONTEXT, "base_ctx"), *_parts(_BIG_CONTEXT, "base_ctx")),
    "SDXL Empty Latent Image (rgthree)": (None, _unknown, _unknown),
    "Power Prompt - Simple (rgthree)": (None, "prompt"),
    "Power Lora Loader (rgthree)": _BOTH,
    "Lora Loader Stack (rgthree)": _BOTH,
    # Impact Pack and Inspire Pack
    "ImpactInt": _VALUE,
    "ImpactFloat": _VALUE,
    "ImpactBoolean": _VALUE,
    "ImpactSwitch": (_numbered("select", "input"), _unknown, "select"),
    "ImpactConditionalBranch": (_either("cond", "tt_value", "ff_value"),),
    "ImpactWildcardProcessor": (_wildcards,),
    "ImpactWildcardEncode": ("model", "clip", None, _wildcards),
    "ToBasicPipe": (_bundle(_PIPE, "basic_pipe"),),
    "EditBasicPipe": (_bundle(_PIPE, "basic_pipe"),),
    "FromBasicPipe": _parts(_PIPE, "basic_pipe"),
    "FromBasicPipe_v2": ("basic_pipe", *_parts(_PIPE, "basic_pipe")),
    "KSampler //Inspire": _MADE,
    "KSamplerAdvanced //Inspire": _MADE,
    "CheckpointLoaderSimpleShared //Inspire": (None, None, None, _unknown),
    "WildcardEncode //Inspire": ("model", "clip", None, _wildcards),
    # Efficiency Nodes
    "Efficient Loader": (None, None, None, None, None, None, None),
    "KSampler (Efficient)": ("model", "positive", "negative", None, "optional_vae", None),
    "KSampler Adv. (Efficient)": ("model", "positive", "negative", None, "optional_vae", None),
    # Comfyroll
    "CR Text": ("text",),
    "CR Prompt Text": ("prompt",),
    "CR Text Concatenate": (lambda i: _concatenated(i, "text1", "text2", "separator", ""),),
    "CR Seed": ("seed",),
    "CR SD1.5 Aspect Ratio": _COMFYROLL,
    "CR SDXL Aspect Ratio": _COMFYROLL,
    "CR Aspect Ratio": (*_SCALED, "upscale_factor", "prescale_factor", "batch_size", None),
    "CR Text Input Switch": (_switch("Input", "text1", "text2"),),
    "CR Model Input Switch": (_switch("Input", "model1", "model2"),),
    "CR Latent Input Switch": (_switch("Input", "latent1", "latent2"),),
    "CR Conditioning Input Switch": (_switch("Input", "conditioning1", "conditioning2"),),
    "CR Apply LoRA Stack": _BOTH,
    # WAS
    "Text Multiline": (_multiline,),
    "Text String": tuple(
        (lambda i, n=n: _without(i, n, "[")) for n in ("text", "text_b", "text_c", "text_d")
    ),
    "Text Concatenate": (_joined_all,),
    "Seed": (_unknown, "seed", _number(float, "seed"), "seed"),
    "Number to Int": (_number(int, "number"),),
    "Number to Float": (_number(float, "number"),),
    # KJNodes
    "GetNode": _VALUE,
    "SetNode": _VALUE,
    "INTConstant": _VALUE,
    "FloatConstant": _VALUE,
    "StringConstant": ("string",),
    "StringConstantMultiline": (lambda i: _without(i, "string", "\n"),),
    "JoinStrings": (lambda i: _concatenated(i, "string1", "string2", "delimiter"),),
    "JoinStringMulti": (_joined_count,),
    "EmptyLatentImagePresets": (None, _preset(0, "invert"), _preset(1, "invert")),
    # Easy-Use
    "easy int": _VALUE,
    "easy float": _VALUE,
    "easy string": _VALUE,
    "easy boolean": _VALUE,
    "easy positive": ("positive",),
    "easy negative": ("negative",),
    "easy seed": ("seed",),
    "easy promptConcat": (lambda i: _concatenated(i, "prompt1", "prompt2", "separator", ""),),
    "easy textSwitch": (_switch("input", "text1", "text2"),),
    "easy ifElse": (_either("boolean", "on_true", "on_false"),),
    "easy anythingIndexSwitch": (_numbered("index", "value"),),
    # pysssss
    "ShowText|pysssss": ("text",),
    "StringFunction|pysssss": (_string_function,),
    "ReroutePrimitive|pysssss": _VALUE,
    "CheckpointLoader|pysssss": (None, None, None),
    "LoraLoader|pysssss": _BOTH,
    **dict.fromkeys(
        (
            *("SamplerEulerAncestral", "SamplerEulerAncestralCFGPP", "SamplerDPMPP_2S_Ancestral"),
            *("SamplerDPMPP_2M_SDE", "SamplerDPMPP_3M_SDE", "SamplerDPMPP_SDE", "SamplerDPMAdaptative"),
            *("SamplerLMS", "SamplerER_SDE", "SamplerSASolver"),
            *("KarrasScheduler", "ExponentialScheduler", "PolyexponentialScheduler", "LaplaceScheduler"),
            *("BetaSamplingScheduler", "AlignYourStepsScheduler"),
        ),
        _MADE,
    ),
    # Switched off in the editor: each output passes on an input of its type
    "(bypassed)": tuple(str(slot) for slot in range(100)),
}
SAMPLERS = {name for name in RULES if re.match("KSampler(?!Select| Config)|SamplerCustom", name)}

# The inputs of what a node makes itself, by class and output: prompts, sizes and batch, model files.
TEXTS: dict[tuple[str, int], tuple[Rule, ...]] = {
    ("CLIPTextEncode", 0): ("text",),
    ("CLIPTextEncodeSDXL", 0): ("text_g", "text_l"),
    ("Power Prompt - Simple (rgthree)", 0): ("prompt",),
    ("ImpactWildcardEncode", 2): (_wildcards,),
    ("WildcardEncode //Inspire", 2): (_wildcards,),
    ("Efficient Loader", 1): ("positive",),
    ("Efficient Loader", 2): ("negative",),
}
SIZES: dict[tuple[str, int], tuple[Rule, Rule]] = {
    ("EmptyLatentImage", 0): ("width", "height"),
    ("EmptySD3LatentImage", 0): ("width", "height"),
    ("SDXL Empty Latent Image (rgthree)", 0): (_preset(0), _preset(1)),
    ("EmptyLatentImagePresets", 0): (_preset(0, "invert"), _preset(1, "invert")),
    ("Efficient Loader", 3): ("empty_latent_width", "empty_latent_height"),
    ("CR SD1.5 Aspect Ratio", 4): (_side(0), _side(1)),
    ("CR SDXL Aspect Ratio", 4): (_side(0), _side(1)),
    ("CR Aspect Ratio", 5): _SCALED,
}
MODELS = {
    "CheckpointLoaderSimple": "ckpt_name",
    "CheckpointLoader": "ckpt_name",
    "CheckpointLoaderSimpleShared //Inspire": "ckpt_name",
    "CheckpointLoader|pysssss": "ckpt_name",
    "Efficient Loader": "ckpt_name",
    "UNETLoader": "unet_name",
}
PICTURES = ("VAEEncode", "VAEEncodeTiled", "VAEEncodeForInpaint", "InpaintModelConditioning")
