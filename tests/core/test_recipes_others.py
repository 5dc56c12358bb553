"""InvokeAI's metadata of three ages, and Fooocus' JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from core.plugins.discovery import load_plugins
from core.recipes.opened_recipe import OpenedRecipe, ReportLine
from core.recipes.reader import read_any

REGISTRY = load_plugins(enabled=False)
INVOKE: dict[str, Any] = {
    "app_version": "5.6.0",
    "generation_mode": "txt2img",
    "positive_prompt": "a cat++ on (a red mat)1.3, quiet-",
    "negative_prompt": "dogs",
    "width": 512,
    "height": 640,
    "seed": 4207336226,
    "rand_device": "cpu",
    "cfg_scale": 7.5,
    "cfg_rescale_multiplier": 0.5,
    "steps": 30,
    "scheduler": "dpmpp_2m_k",
    "clip_skip": 1,
    "model": {"key": "1f", "hash": "blake3:9f3c", "name": "Deliberate_v5", "base": "sd-1", "type": "main"},
    "loras": [{"model": {"name": "fluffy"}, "weight": 0.75}],
    "seamless_x": False,
    "strength": 0.7,
}
OLD: dict[str, Any] = {
    "model": "stable diffusion",
    "model_weights": "stable-diffusion-1.5",
    "model_hash": "c" * 64,
    "app_id": "invoke-ai/InvokeAI",
    "app_version": "2.2.5",
    "image": {
        "prompt": [{"prompt": "a quiet lake, mist [people, boats] ", "weight": 1}],
        "steps": 50,
        "cfg_scale": 7.5,
        "threshold": 0,
        "perlin": 0,
        "height": 512,
        "width": 768,
        "seed": 916798825,
        "seamless": False,
        "hires_fix": False,
        "type": "txt2img",
        "postprocessing": None,
        "sampler": "k_lms",
        "variations": [],
    },
}


def read(data: object) -> OpenedRecipe:
    return read_any(data if isinstance(data, str) else json.dumps(data), REGISTRY)


def line(found: OpenedRecipe, key: str) -> ReportLine:
    [one] = [line for line in found.report if line.key == key]
    return one


def test_invokeai() -> None:
    found = read(INVOKE)
    asked = found.request
    assert (found.source, found.model, found.model_hash, found.needs) == (
        "invokeai",
        "Deliberate_v5",
        None,
        (),
    )
    assert asked.prompt == "a (cat:1.21) on (a red mat:1.3) , (quiet:0.9)"
    assert (asked.negative, asked.sampler, asked.schedule) == ("dogs", "dpmpp_2m", "karras")
    assert (asked.width, asked.height, asked.seed, asked.steps) == (512, 640, 4207336226, 30)
    assert (asked.cfg_scale, asked.cfg_rescale, asked.clip_skip) == (7.5, 0.5, 2)
    assert asked.strength is None
    assert {line.key for line in found.report} >= INVOKE.keys() - {"width", "height", "model"}
    assert line(found, "loras").note == "LoRAs are not supported"
    assert line(found, "rand_device").fate == "kept"
    assert line(found, "strength").fate == "ignored"


def test_invokeai_from_a_picture() -> None:
    found = read({**INVOKE, "generation_mode": "img2img", "init_image": "a.png", "rand_device": "cuda"})
    assert (found.request.strength, found.needs) == (0.7, ("picture",))
    assert line(found, "rand_device").fate == "ignored"
    assert "GPU" in line(found, "rand_device").note


@pytest.mark.parametrize(
    ("scheduler", "sampler", "schedule"),
    [
        ("ddim", "ddim", "leading"),
        ("euler", "euler", "linspace"),
        ("euler_k", "euler", "karras"),
        ("dpmpp_2s", "dpmpp_2s_a", "linspace"),
        ("unipc_k", "unipc", "karras"),
        ("lcm", "lcm", None),
        ("nobody", None, None),
    ],
)
def test_invokeais_schedulers(scheduler: str, sampler: str | None, schedule: str | None) -> None:
    asked = read({**INVOKE, "scheduler": scheduler}).request
    assert (asked.sampler, asked.schedule) == (sampler, schedule)


def test_old_invokeai() -> None:
    found = read(OLD)
    asked = found.request
    assert (found.model, found.model_hash) == ("stable-diffusion-1.5", "c" * 64)
    assert (asked.prompt, asked.negative) == ("a quiet lake, mist", "people, boats")
    assert (asked.sampler, asked.steps, asked.width, asked.height) == ("lms", 50, 768, 512)
    assert (asked.seed, asked.cfg_scale) == (916798825, 7.5)
    assert {line.key for line in found.report} >= OLD["image"].keys() - {"width", "height"}
    plain = read({**OLD, "image": {**OLD["image"], "prompt": "only a lake"}})
    assert plain.request.prompt == "only a lake"


def test_invokeais_line_of_a_dream(tmp_path: Any) -> None:
    text = '"a cat, on a mat" -s 50 -S 123 -W 512 -H 640 -C 7.5 -A k_euler_a'
    chunks = PngInfo()
    chunks.add_text("Dream", text)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=chunks)
    for found in (read(text), read_any(tmp_path / "a.png", REGISTRY)):
        asked = found.request
        assert (found.source, asked.prompt, asked.sampler) == ("invokeai", "a cat, on a mat", "euler_a")
        assert (asked.steps, asked.seed, asked.width, asked.height) == (50, 123, 512, 640)
    assert read('"a cat" is a prompt').source == "text"


def test_fooocus() -> None:
    data = {
        "prompt": "a lighthouse",
        "negative_prompt": "",
        "styles": "['Fooocus V2']",
        "performance": "Speed",
        "steps": 30,
        "resolution": "(1152, 896)",
        "guidance_scale": 4.0,
        "sharpness": 2.0,
        "base_model": "juggernautXL_v8.safetensors",
        "base_model_hash": "aeb7e9e689",
        "sampler": "dpmpp_2m_sde_gpu",
        "scheduler": "karras",
        "seed": "7041836593",
        "lora_combined_1": "offset.safetensors : 0.1",
        "version": "Fooocus v2.5.5",
    }
    found = read(data)
    asked = found.request
    assert (found.source, found.model, found.model_hash) == ("fooocus", "juggernautXL_v8", "aeb7e9e689")
    assert (asked.prompt, asked.sampler, asked.schedule) == ("a lighthouse", "dpmpp_2m_sde", "karras")
    assert (asked.width, asked.height, asked.seed, asked.cfg_scale) == (1152, 896, 7041836593, 4.0)
    assert {line.key for line in found.report} == data.keys()
    logged = {"Prompt": "a cat", "Guidance Scale": 4, "Resolution": "(64, 64)", "Seed": "1", "Steps": 9}
    assert read(logged).request.seed == 1
