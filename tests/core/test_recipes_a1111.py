"""A1111's text as a request: its own rules of reading, and what becomes of each key."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.plugins.discovery import load_plugins
from core.recipes.infotext import parse_infotext
from core.recipes.opened_recipe import OpenedRecipe, ReportLine
from core.recipes.reader import read_any
from tests.core.recipes import patient, texts

REGISTRY = load_plugins(enabled=False)
TAIL = "Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x512"


def found(text: str) -> OpenedRecipe:
    return read_any(text, REGISTRY)


def line(text: str, key: str) -> ReportLine:
    [one] = [line for line in found(text).report if line.key == key]
    return one


# As people have them: (text, prompt, negative, parameters that must be among those read).
SAMPLES = [
    (
        "masterpiece, (best quality:1.2), a cat: sitting\nNegative prompt: lowres, bad anatomy\n"
        "Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 965400086, Size: 512x768, "
        "Model hash: 45dee52b, Clip skip: 2, ENSD: 31337",
        "masterpiece, (best quality:1.2), a cat: sitting",
        "lowres, bad anatomy",
        {"Steps": "28", "Sampler": "DPM++ 2M Karras", "Size": "512x768", "ENSD": "31337"},
    ),
    (
        "line one,\nline two: (a:1.3)\n\nline four\nNegative prompt: worst,\nmore: worse\n"
        "Steps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7.5, Seed: 1, Size: 64x64",
        "line one,\nline two: (a:1.3)\n\nline four",
        "worst,\nmore: worse",
        {"Schedule type": "Automatic", "CFG scale": "7.5"},
    ),
    (
        "a house\nSteps: 20, Sampler: DDIM, CFG scale: 7, Seed: 1, Size: 64x64, "
        'Lora hashes: "one: ab12, two: cd34", '
        'Hires prompt: "a \\"big\\" house, red\\nroof", Version: v1.9.4',
        "a house",
        "",
        {
            "Lora hashes": "one: ab12, two: cd34",
            "Hires prompt": 'a "big" house, red\nroof',
            "Version": "v1.9.4",
        },
    ),
    # The words "Negative prompt:" inside a line are only words; at the start of one they are not.
    (f"he wrote Negative prompt: no\n{TAIL}", "he wrote Negative prompt: no", "", {"Seed": "1"}),
    (f"a\n  Negative prompt:   b\n{TAIL}", "a", "b", {"Seed": "1"}),
    (f"a\nNegative prompt: b\nNegative prompt: c\n{TAIL}", "a", "b\nc", {}),
    # Fewer than three pairs are words; and a prompt may be nothing.
    ("a cat\nNegative prompt: dog\nSteps: 20, Seed: 3", "a cat", "dog\nSteps: 20, Seed: 3", {}),
    (TAIL, "", "", {"Size": "512x512"}),
    (f"Negative prompt: all\n{TAIL}", "", "all", {"Steps": "20"}),
    # White space of other systems, and lines that end with a comma.
    (f"a cat\r\nNegative prompt: dog\r\n{TAIL},", "a cat", "dog", {"Size": "512x512"}),
    # A quoted value that never ends counts up to the comma, an empty one not at all.
    (f'x\n{TAIL}, Broken: "half, VAE: , Last: 1', "x", "", {"Broken": '"half', "Last": "1"}),
]


@pytest.mark.parametrize(("text", "prompt", "negative", "params"), SAMPLES)
def test_samples_parse_by_a1111s_rules(text: str, prompt: str, negative: str, params: dict[str, str]) -> None:
    read = parse_infotext(text)
    assert (read.prompt, read.negative) == (prompt, negative)
    assert {key: read.params[key] for key in params} == params
    request = found(text).request
    assert (request.prompt, request.negative) == (prompt, negative)


PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')  # as A1111 publishes it


def by_their_rules(text: str) -> tuple[str, str]:
    """The two prompts, one rule after the other."""
    *before, end = text.strip().split("\n")
    if sum(1 for _ in PAIR.finditer(end)) < 3:
        before = [*before, end]
    both = ["", ""]
    which = 0
    for row in (row.strip() for row in before):
        if row.startswith("Negative prompt:"):
            which, row = 1, row[len("Negative prompt:") :].strip()
        both[which] += f"\n{row}" if both[which] else row
    return both[0], both[1]


odd = st.text(alphabet=st.sampled_from('ab 1:,"\\\n-/_é.='), max_size=120) | texts
starts = st.sampled_from(["", "Negative prompt:", " Negative prompt: ", "Steps: 1, CFG scale: 2, Seed: 3"])
rows = st.lists(st.tuples(starts, odd).map("".join), max_size=5).map("\n".join)


@patient
@given(rows)
def test_any_text_parses_by_a1111s_rules(text: str) -> None:
    read = parse_infotext(text)
    assert (read.prompt, read.negative) == by_their_rules(text)


def test_a_recipe_of_a1111s() -> None:
    read = found(SAMPLES[0][0] + ", Model: v1-5-pruned-emaonly, RNG: CPU")
    asked = read.request
    assert read.source == "a1111"
    assert (asked.sampler, asked.schedule, asked.steps, asked.cfg_scale) == ("dpmpp_2m", "karras", 28, 7.0)
    assert (asked.width, asked.height, asked.seed, asked.clip_skip) == (512, 768, 965400086, 2)
    assert (read.model, read.model_hash, read.needs) == ("v1-5-pruned-emaonly", None, ())
    fates = {line.key: line.fate for line in read.report}
    assert fates == {
        "Prompt": "kept",
        "Negative prompt": "kept",
        "Sampler": "mapped",
        "Steps": "kept",
        "CFG scale": "kept",
        "Seed": "kept",
        "Size": "kept",
        "Model hash": "ignored",
        "Model": "kept",
        "Clip skip": "kept",
        "ENSD": "ignored",
        "RNG": "kept",
    }


@pytest.mark.parametrize(
    ("sampler", "schedule", "expected"),
    [
        ("Euler a", "Automatic", ("euler_a", "normal", {})),
        ("Euler a", None, ("euler_a", "normal", {})),
        ("DPM++ 2M", None, ("dpmpp_2m", "karras", {})),
        ("DPM++ 2M", "Karras", ("dpmpp_2m", "karras", {})),
        ("DPM++ 2M SDE Heun Karras", None, ("dpmpp_2m_sde", "karras", {"solver": "heun"})),
        ("DPM++ 2M SDE", "Automatic", ("dpmpp_2m_sde", "exponential", {})),
        ("DPM++ 3M SDE Exponential", None, ("dpmpp_3m_sde", "exponential", {"form": "k-diffusion"})),
        ("DDIM", "Automatic", ("ddim", "leading", {})),
        ("DPM adaptive", "Automatic", ("dpm_adaptive", None, {})),
        ("Euler", "SGM Uniform", ("euler", "sgm_uniform", {})),
        ("Euler", "Uniform", ("euler", "normal", {})),
        ("Euler", "Turbo", ("euler", None, {})),
        ("HeunPP2", "Karras", (None, "karras", {})),
        ("HeunPP2 of nobody", None, (None, None, {})),
    ],
)
def test_samplers_and_schedules(
    sampler: str, schedule: str | None, expected: tuple[str | None, str | None, dict[str, str]]
) -> None:
    text = f"x\nSteps: 20, Sampler: {sampler}, CFG scale: 7, Seed: 1"
    asked = found(text if schedule is None else f"{text}, Schedule type: {schedule}").request
    assert (asked.sampler, asked.schedule, dict(asked.options)) == expected


def test_an_unknown_sampler_is_said_with_the_nearest() -> None:
    said = line("x\nSteps: 20, Sampler: Eulr a, Seed: 1", "Sampler")
    assert said.fate == "ignored"
    assert said.note == (
        "no sampler of this name is registered; the model's default is used; did you mean 'Euler a'?"
    )


@pytest.mark.parametrize(
    ("pair", "fate", "to", "field", "value"),
    [
        ("Size: 510x770", "mapped", "512x768", "width", 512),
        ("Size: 4096x2048", "mapped", "2048x1024", "height", 1024),
        ("Size: 8x8", "mapped", "64x64", "width", 64),
        ("Size: axb", "ignored", "", "width", None),
        ("Size: 99999999999999999999x9", "mapped", "2048x64", "width", 2048),
        ("Steps: 5000", "mapped", "1000", "steps", 1000),
        ("Steps: many", "ignored", "", "steps", None),
        ("CFG scale: 700", "mapped", "100", "cfg_scale", 100.0),
        ("CFG scale: nan", "ignored", "", "cfg_scale", None),
        ("CFG scale: 7.50", "kept", "", "cfg_scale", 7.5),
        ("Seed: -1", "ignored", "", "seed", None),
        ("Seed: 18446744073709551615", "mapped", "4294967295", "seed", 2**32 - 1),
        ("Seed: 9223372036854775806", "kept", "", "seed", 2**63 - 2),
        ("Clip skip: 0", "ignored", "", "clip_skip", 1),
        ("Clip skip: 2", "kept", "", "clip_skip", 2),
        ("Denoising strength: 0.6", "kept", "", "strength", 0.6),
        ("Denoising strength: 0", "ignored", "", "strength", None),
        ("Denoising strength: 7", "ignored", "", "strength", None),
        ("Skip Early CFG: 0.2", "kept", "", "cfg_from", 0.2),
        ("Token merging ratio: 0.5", "kept", "", "token_merging", 0.5),
        ("Token merging ratio: 0.9", "mapped", "0.75", "token_merging", 0.75),
        ("Token merging ratio hr: 0.5", "ignored", "", "token_merging", 0.0),
        ("Feature reuse: 3", "kept", "", "feature_reuse", 3),
        ("Emphasis: No norm", "kept", "", "emphasis", "no_norm"),
        ("Emphasis: Ignore", "ignored", "", "emphasis", "a1111"),
        ("Weights as in: ComfyUI", "kept", "", "emphasis", "comfy"),
        ("Weights as in: another", "ignored", "", "emphasis", "a1111"),
        ("RNG: NV", "ignored", "", "prompt", "x"),
        ("Model hash: zz", "ignored", "", "prompt", "x"),
        ("Face restoration: CodeFormer", "ignored", "", "prompt", "x"),
        ("ControlNet 0: anything", "ignored", "", "prompt", "x"),
        ("Made up: 1", "ignored", "", "prompt", "x"),
    ],
)
def test_values_that_do_not_fit_are_brought_into_range_or_ignored(
    pair: str, fate: str, to: str, field: str, value: object
) -> None:
    text = f"x\nA1: 1, B2: 2, {pair}"
    said = line(text, pair.partition(":")[0])
    assert (said.fate, said.to) == (fate, to)
    assert said.note or fate == "kept"
    assert getattr(found(text).request, field) == value


def test_noise_of_a_gpu_is_said() -> None:
    assert line(f"x\n{TAIL}", "RNG").fate == "ignored"
    assert "GPU" in line(f"x\n{TAIL}", "RNG").note
    assert line(f"x\n{TAIL}, RNG: CPU", "RNG").fate == "kept"
    assert line(f"x\n{TAIL}, Version: ComfyUI", "RNG").fate == "kept"


def test_the_strength_of_a_second_pass_is_not_that_of_a_picture() -> None:
    read = found(f"x\n{TAIL}, Denoising strength: 0.4, Hires upscale: 2, Hires steps: 10, Mask blur: 4")
    assert read.request.strength is None
    assert read.request.mask_blur is None
    assert read.needs == ()


def test_a_strength_that_runs_no_step_is_raised() -> None:
    assert found("x\nSteps: 3, Seed: 1, Denoising strength: 0.1").request.strength == 0.3334


def test_masks() -> None:
    read = found(
        f"x\n{TAIL}, Denoising strength: 0.75, Mask blur: 8, Mask mode: Inpaint not masked, "
        "Inpaint area: Only masked, Masked area padding: 16, Masked content: latent noise"
    )
    asked = read.request
    assert (asked.mask_blur, asked.invert_mask, asked.only_masked, asked.masked_content) == (
        8,
        True,
        16,
        "noise",
    )
    assert read.needs == ("picture", "mask")
    assert found(f"x\n{TAIL}, Denoising strength: 0.75, Inpaint area: Only masked").request.only_masked == 32


def test_options_of_the_sampler() -> None:
    text = "x\nSteps: 20, Sampler: Euler a, Seed: 1, Eta: 0.7, Sigma noise: 1.01, Sigma churn: 3"
    assert found(text).request.options == {"eta": 0.7, "s_noise": 1.01}
    assert line(text, "Sigma churn").note == "Euler a here has no option s_churn"
    assert line("x\nSteps: 20, Sampler: Euler a, Seed: 1, Eta: 40", "Eta").fate == "ignored"


def test_loras_leave_the_prompt_and_are_said() -> None:
    read = found(f"a cat <lora:fluffy:0.8>, AND [dog:bird:0.5]\nNegative prompt: <lyco:x:1>bad\n{TAIL}")
    assert (read.request.prompt, read.request.negative) == ("a cat , AND [dog:bird:0.5]", "bad")
    assert [(line.value, line.fate) for line in read.report if "network" in line.key] == [
        ("<lora:fluffy:0.8>", "ignored"),
        ("<lyco:x:1>", "ignored"),
    ]
    note = next(line.note for line in read.report if line.key == "Prompt")
    assert "change over time" in note
    assert "AND is read as a word" in note


def test_our_own_text_keeps_everything_in_the_prompt() -> None:
    assert found(f"a <lora:b:1>\n{TAIL}, Version: latentcanvas 0.1.0").request.prompt == "a <lora:b:1>"


def test_typed_levels() -> None:
    text = 'x\nSteps: 3, Sampler: Euler, Seed: 1, Sigmas: "14.6, 7, 1, 0"'
    assert found(text).request.sigmas == (14.6, 7.0, 1.0, 0.0)
    assert found(text).request.schedule is None
    assert found(text.replace("Steps: 3", "Steps: 9")).request.sigmas is None


def test_a_text_without_parameters_is_a_prompt() -> None:
    read = found("a red house, (moon:1.2)")
    assert (read.source, read.request.prompt) == ("text", "a red house, (moon:1.2)")
    both = found("a cat\nNegative prompt: dogs")
    assert (both.source, both.request.prompt, both.request.negative) == ("text", "a cat", "dogs")
    assert found("{a|b} in braces").request.prompt == "{a|b} in braces"


def test_the_generator_on_the_cpu_takes_32_bits_of_a_seed() -> None:
    """What the sheet says of seeds that are out of range."""
    import torch

    def draw(seed: int) -> torch.Tensor:
        return torch.randn(8, generator=torch.Generator("cpu").manual_seed(seed))

    assert torch.equal(draw(2**64 - 1), draw(2**32 - 1))
    assert torch.equal(draw(2**63 + 5), draw(5))
