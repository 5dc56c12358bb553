"""ComfyUI's graphs, in both forms: from the sampler along its links."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UserError
from core.plugins.discovery import load_plugins
from core.recipes.opened_recipe import OpenedRecipe, ReportLine
from core.recipes.reader import read_any
from tests.core.recipes import patient

REGISTRY = load_plugins(enabled=False)
Graph = dict[str, Any]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


PLAIN: Graph = {
    "3": node(
        "KSampler",
        seed=156680208700286,
        steps=20,
        cfg=8.0,
        sampler_name="euler",
        scheduler="normal",
        denoise=1.0,
        model=["4", 0],
        positive=["6", 0],
        negative=["7", 0],
        latent_image=["5", 0],
    ),
    "4": node("CheckpointLoaderSimple", ckpt_name="SD1.5\\v1-5-pruned-emaonly.safetensors"),
    "5": node("EmptyLatentImage", width=512, height=768, batch_size=1),
    "6": node("CLIPTextEncode", text="a glass bottle", clip=["4", 1]),
    "7": node("CLIPTextEncode", text="text, watermark", clip=["4", 1]),
    "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
    "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
}
PICTURE = {"10": node("LoadImage", image="in.png"), "11": node("VAEEncode", pixels=["10", 0], vae=["4", 2])}


def read(graph: Graph) -> OpenedRecipe:
    return read_any(json.dumps(graph), REGISTRY)


def changed(more: Graph | None = None, /, **sampler: Any) -> Graph:
    """The plain graph with other inputs of its sampler, and with more nodes."""
    graph = {**deepcopy(PLAIN), **(more or {})}
    graph["3"]["inputs"] |= sampler
    return graph


def line(found: OpenedRecipe, key: str) -> ReportLine:
    [one] = [line for line in found.report if line.key == key]
    return one


def test_a_plain_graph() -> None:
    found = read(PLAIN)
    asked = found.request
    assert (found.source, found.model, found.needs) == ("comfyui", "v1-5-pruned-emaonly", ())
    assert (asked.prompt, asked.negative) == ("a glass bottle", "text, watermark")
    assert (asked.sampler, asked.schedule, asked.steps, asked.cfg_scale) == ("euler", "normal", 20, 8.0)
    assert (asked.width, asked.height, asked.seed, asked.strength) == (512, 768, 156680208700286, None)
    ignored = {line.key for line in found.report if line.fate == "ignored"}
    assert ignored == {"VAEDecode", "SaveImage"}
    assert line(found, "noise").fate == "kept"


def test_values_come_along_links() -> None:
    more = {
        "20": node("PrimitiveString", value="a [red] cat, embedding:fluffy"),
        "21": node("CLIPSetLastLayer", stop_at_clip_layer=-2, clip=["22", 1]),
        "22": node("LoraLoader", lora_name="x.safetensors", strength_model=1, model=["4", 0], clip=["4", 1]),
        "23": node("Seed (rgthree)", seed=77),
        "24": node("RescaleCFG", model=["22", 0], multiplier=0.7),
    }
    graph = changed(more, seed=["23", 0], model=["24", 0])
    graph["6"]["inputs"] = {"text": ["20", 0], "clip": ["21", 0]}
    graph["7"]["inputs"]["clip"] = ["21", 0]
    found = read(graph)
    asked = found.request
    assert (asked.prompt, asked.seed, asked.clip_skip, asked.cfg_rescale) == ("a \\[red\\] cat, ", 77, 2, 0.7)
    assert found.model == "v1-5-pruned-emaonly"
    assert line(found, "LoraLoader").note == "LoRAs are not supported"
    assert line(found, "CLIPTextEncode.text (prompt)").fate == "mapped"


def test_sizes_that_are_no_multiple_of_8_are_cut_as_there() -> None:
    size = node("CR SD1.5 Aspect Ratio", aspect_ratio="16:9 cinema 910x512", swap_dimensions="Off")
    graph = changed({"20": size})
    graph["5"]["inputs"] |= {"width": ["20", 0], "height": ["20", 1]}
    found = read(graph)
    assert (found.request.width, found.request.height) == (904, 512)
    assert line(found, "EmptyLatentImage.width, height").to == "904x512"


def test_loaders_that_make_everything() -> None:
    """Efficiency Nodes, with a seed and size from other packs."""
    loader = node("Efficient Loader", ckpt_name="dir/x.safetensors", clip_skip=-2, lora_name="None")
    loader["inputs"] |= {"positive": ["20", 0], "negative": "dog", "batch_size": 1}
    loader["inputs"] |= {"empty_latent_width": 640, "empty_latent_height": ["21", 1]}
    sampler = {**PLAIN["3"]["inputs"], "model": ["1", 0], "positive": ["1", 1], "negative": ["1", 2]}
    graph = {
        "1": loader,
        "2": node("KSampler (Efficient)", **{**sampler, "latent_image": ["1", 3], "seed": ["22", 3]}),
        "9": node("SaveImage", images=["2", 5]),
        "20": node("ImpactWildcardProcessor", wildcard_text="a {cat|dog}", populated_text="a cat"),
        "21": node("EmptyLatentImagePresets", dimensions="512 x 896 (0.57:1)", invert=True),
        "22": node("Seed", seed=77),
    }
    found = read(graph)
    asked = found.request
    assert (asked.prompt, asked.negative, asked.seed, asked.clip_skip) == ("a cat", "dog", 77, 2)
    assert (asked.width, asked.height, found.model) == (640, 896, "x")
    assert line(found, "Efficient Loader.lora_name").fate == "ignored"


@pytest.mark.parametrize("kind", ["ImpactWildcardEncode", "WildcardEncode //Inspire"])
def test_wildcards_that_are_filled_in(kind: str) -> None:
    for text, prompt in (("a cat", "a cat"), ("a {cat|dog}", ""), ("<lora:x:1> a cat", "")):
        encode = node(kind, populated_text=text, wildcard_text="a {cat|dog}", clip=["4", 1], model=["4", 0])
        assert read(changed({"20": encode}, positive=["20", 2], model=["20", 0])).request.prompt == prompt


def test_two_different_texts_of_one_prompt_are_not_guessed() -> None:
    for other, prompt in (("a cat", "a cat"), ("a dog", "")):
        encode = node(
            "CLIPTextEncodeSDXL", text_g="a cat", text_l=other, clip=["4", 1], width=512, height=512
        )
        assert read(changed({"20": encode}, positive=["20", 0])).request.prompt == prompt


def test_noise_from_a_gpu_says_so() -> None:
    graph = changed(noise_mode="GPU(=A1111)")
    graph["3"]["class_type"] = "KSampler //Inspire"
    assert line(read(graph), "noise").fate == "ignored"


def test_texts_that_are_joined() -> None:
    more = {"20": node("StringConcatenate", string_a="a cat", string_b=["21", 0], delimiter=", ")}
    more["21"] = node("PrimitiveString", value="a dog")
    graph = changed(more)
    graph["6"]["inputs"]["text"] = ["20", 0]
    assert read(graph).request.prompt == "a cat, a dog"


def test_the_first_pass_is_the_one_that_is_read() -> None:
    second = node(
        "KSampler", **{**PLAIN["3"]["inputs"], "seed": 5, "denoise": 0.5, "latent_image": ["20", 0]}
    )
    more = {"20": node("LatentUpscale", samples=["3", 0], width=1024, height=1536), "21": second}
    graph = changed(more)
    graph["8"]["inputs"]["samples"] = ["21", 0]
    found = read(graph)
    assert (found.request.seed, found.request.width, found.request.strength) == (156680208700286, 512, None)
    assert line(found, "KSampler").note == "only the first pass is supported"


def test_prompts_behind_control_and_combinations() -> None:
    control = node(
        "ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0], strength=1.0, image=["10", 0]
    )
    more = {"20": control, "21": node("ConditioningSetTimestepRange", conditioning=["20", 0], start=0, end=1)}
    found = read(changed({**more, **PICTURE}, positive=["21", 0], negative=["20", 1]))
    assert (found.request.prompt, found.request.negative) == ("a glass bottle", "text, watermark")
    assert line(found, "ControlNetApplyAdvanced").note == "ControlNet is not supported"
    nothing = read(changed({"20": node("ConditioningZeroOut", conditioning=["6", 0])}, negative=["20", 0]))
    assert (nothing.request.prompt, nothing.request.negative) == ("a glass bottle", "")


def test_the_parts_of_a_custom_sampler() -> None:
    graph = {
        **{key: PLAIN[key] for key in ("4", "5", "6", "7")},
        "3": node(
            "SamplerCustomAdvanced",
            noise=["20", 0],
            guider=["21", 0],
            sampler=["22", 0],
            sigmas=["23", 0],
            latent_image=["5", 0],
        ),
        "8": PLAIN["8"],
        "9": PLAIN["9"],
        "20": node("RandomNoise", noise_seed=9),
        "21": node("CFGGuider", model=["4", 0], positive=["6", 0], negative=["7", 0], cfg=4.5),
        "22": node("SamplerDPMPP_2M_SDE", solver_type="heun", eta=0.5, s_noise=1.0, noise_device="gpu"),
        "23": node("KarrasScheduler", steps=12, sigma_max=14.6, sigma_min=0.03, rho=7.0),
    }
    found = read(graph)
    asked = found.request
    assert (asked.sampler, asked.schedule, asked.steps) == ("dpmpp_2m_sde", "karras", 12)
    assert asked.options == {"solver": "heun", "eta": 0.5, "s_noise": 1.0}
    assert (asked.seed, asked.cfg_scale, asked.prompt, asked.negative) == (
        9,
        4.5,
        "a glass bottle",
        "text, watermark",
    )
    assert line(found, "KarrasScheduler.sigma_max").fate == "ignored"
    graph["21"] = node("BasicGuider", model=["4", 0], conditioning=["6", 0])
    graph["23"] = node("ManualSigmas", sigmas="10, 5, 1, 0")
    asked = read(graph).request
    assert (asked.cfg_scale, asked.negative, asked.sigmas) == (1.0, "", (10.0, 5.0, 1.0, 0.0))


def test_a_sampler_in_two_parts() -> None:
    first = {name: value for name, value in PLAIN["3"]["inputs"].items() if name not in ("seed", "denoise")}
    first |= {
        "add_noise": "enable",
        "noise_seed": 3,
        "start_at_step": 0,
        "return_with_leftover_noise": "enable",
    }
    second = {
        **first,
        "add_noise": "disable",
        "start_at_step": 15,
        "end_at_step": 10000,
        "latent_image": ["3", 0],
    }
    graph = {
        **deepcopy(PLAIN),
        "3": node("KSamplerAdvanced", **first, end_at_step=15),
        "30": node("KSamplerAdvanced", **second),
    }
    graph["8"]["inputs"]["samples"] = ["30", 0]
    found = read(graph)
    assert (found.request.seed, found.request.steps) == (3, 20)
    assert line(found, "KSamplerAdvanced.start_at_step").fate == "kept"
    assert line(found, "KSamplerAdvanced.end_at_step").fate == "ignored"


@patient
@given(st.integers(1, 60), st.floats(0.05, 1))
def test_from_a_picture_as_many_steps_run_as_there(steps: int, denoise: float) -> None:
    found = read(changed(PICTURE, steps=steps, denoise=denoise, latent_image=["11", 0]))
    asked = found.request
    assert found.needs == ("picture",)
    assert asked.steps is not None
    assert asked.strength is not None
    if int(steps / denoise) <= 1000:
        assert asked.steps == int(steps / denoise)
        assert int(asked.steps * asked.strength) == steps


def test_denoise_without_a_picture_has_no_effect() -> None:
    found = read(changed(denoise=0.5))
    assert (found.request.strength, found.request.steps, found.needs) == (None, 20, ())
    assert line(found, "KSampler.denoise").fate == "ignored"


def test_inpainting_needs_its_mask() -> None:
    more = {**PICTURE, "12": node("SetLatentNoiseMask", samples=["11", 0], mask=["10", 1])}
    found = read(changed(more, latent_image=["12", 0], denoise=0.8))
    assert found.needs == ("picture", "mask")
    assert found.request.mask_blur == 0


def test_several_at_once_are_one_here() -> None:
    graph = changed()
    graph["5"]["inputs"]["batch_size"] = 4
    found = read(graph)
    assert found.request.batch == 1
    assert line(found, "EmptyLatentImage.batch_size").fate == "ignored"


def test_seeds_that_only_comfyui_has() -> None:
    found = read(changed(seed=2**64 - 1))
    assert found.request.seed == 2**32 - 1
    assert line(found, "KSampler.seed").fate == "mapped"


def test_a_graph_without_a_sampler_says_so() -> None:
    with pytest.raises(UserError, match="has no known sampler"):
        read({"1": node("LoadImage", image="a.png")})


WIDGETS = {
    "3": [156680208700286, "randomize", 20, 8.0, "euler", "normal", 1.0],
    "4": ["SD1.5\\v1-5-pruned-emaonly.safetensors"],
    "5": [512, 768, 1],
    "6": ["a glass bottle"],
    "7": ["text, watermark"],
    "8": [],
    "9": ["ComfyUI"],
}


def workflow(named: bool) -> dict[str, Any]:
    """The plain graph as it is edited; with the widgets' names, as newer versions write them, or without."""
    links: list[list[Any]] = []
    nodes = []
    for name, item in PLAIN.items():
        slots: list[dict[str, Any]] = []
        for slot, value in item["inputs"].items():
            if isinstance(value, list):
                links.append([len(links) + 1, int(value[0]), value[1], int(name), len(slots), "ANY"])
                slots.append({"name": slot, "type": "ANY", "link": len(links)})
            elif named:
                slots.append({"name": slot, "type": "ANY", "widget": {"name": slot}, "link": None})
        kind = item["class_type"]
        nodes.append(
            {"id": int(name), "type": kind, "inputs": slots, "widgets_values": WIDGETS[name], "mode": 0}
        )
    return {"version": 0.4, "nodes": nodes, "links": links}


@pytest.mark.parametrize("named", [True, False])
def test_both_forms_say_the_same(named: bool) -> None:
    edited, runs = read(workflow(named)), read(PLAIN)
    assert edited.request == runs.request
    assert edited.model == runs.model
    assert [(line.key, line.fate) for line in edited.report] == [
        (line.key, line.fate) for line in runs.report
    ]


def test_of_unknown_classes_nothing_is_guessed() -> None:
    data = workflow(named=True)
    for item in data["nodes"]:
        if item["type"] in ("EmptyLatentImage", "CLIPTextEncode"):
            item["type"] += " (Other)"
    asked, plain = read(data).request, read(PLAIN).request
    assert (asked.prompt, asked.negative, asked.width, asked.height) == ("", "", None, None)
    assert (asked.seed, asked.steps, asked.sampler) == (plain.seed, plain.steps, plain.sampler)
    fates = {line.key: (line.fate, line.note) for line in read(data).report}
    assert fates["latent_image"] == (
        "ignored",
        "comes from EmptyLatentImage (Other), node 5, a class that is not known here",
    )
    data["nodes"][0]["type"] += " (Other)"
    with pytest.raises(UserError, match=r"has no known sampler \(its samplers: KSampler \(Other\)\)"):
        read(data)


def test_widgets_that_are_only_named_in_part_are_not_guessed() -> None:
    """Older files name only the widgets that were turned into inputs."""
    data = workflow(named=False)
    size: dict[str, Any] = {
        "id": 20,
        "type": "CR SD1.5 Aspect Ratio",
        "widgets_values": [512, 768, "custom", "Off", 1.0, 1],
    }
    size["inputs"] = [{"name": "height", "type": "INT", "widget": {"name": "height"}, "link": None}]
    data["nodes"].append(size)
    latent = next(item for item in data["nodes"] if item["type"] == "EmptyLatentImage")
    latent["inputs"] = [{"name": "width", "type": "INT", "widget": {"name": "width"}, "link": 90}]
    data["links"].append([90, 20, 0, 5, 0, "INT"])
    asked = read(data).request
    assert (asked.width, asked.height) == (None, None)


def test_what_is_muted_is_not_there() -> None:
    data = workflow(named=False)
    muted = {
        **data["nodes"][0],
        "id": 99,
        "mode": 2,
        "widgets_values": [1, "fixed", 5, 1.0, "ddim", "simple", 1],
    }
    data["nodes"].insert(0, muted)
    assert read(data).request == read(PLAIN).request


def test_both_in_one() -> None:
    assert read({"prompt": PLAIN, "workflow": workflow(named=True)}).request == read(PLAIN).request
    assert read({"workflow": workflow(named=True)}).request == read(PLAIN).request
