"""Names of other programs lead to what is registered here; what they write is what they would write."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.plugins.discovery import load_plugins
from core.recipes.infotext import infotext, parse_infotext
from core.request import aliases
from core.request.aliases import SAMPLERS, SCHEDULES, resolve, title
from core.request.model_defaults import Defaults
from core.request.request import Request
from core.sampling.registry import Registry, SamplerInfo
from tests.core.recipes import RECIPE

REGISTRY = load_plugins(enabled=False)
DEFAULTS = Defaults(sampler="ddim", schedule="leading", steps=20, cfg_scale=5.0, width=128, height=96)

# As their menus and infotexts have them.
A1111 = {
    "DPM++ 2M": "dpmpp_2m",
    "DPM++ SDE": "dpmpp_sde",
    "DPM++ 2M SDE": "dpmpp_2m_sde",
    "DPM++ 2S a": "dpmpp_2s_a",
    "DPM++ 2M SDE Heun": "dpmpp_2m_sde",
    "DPM++ 3M SDE": "dpmpp_3m_sde",
    "Euler a": "euler_a",
    "Euler": "euler",
    "LMS": "lms",
    "Heun": "heun",
    "DPM2": "dpm2",
    "DPM2 a": "dpm2_a",
    "DPM fast": "dpm_fast",
    "UniPC": "unipc",
    "DPM adaptive": "dpm_adaptive",
    "Restart": "restart",
    "DDIM": "ddim",
    "DDIM CFG++": "ddim_cfg_pp",
    "PLMS": "plms",
    "LCM": "lcm",
}
COMFY = {
    "euler": "euler",
    "euler_cfg_pp": "euler_cfg_pp",
    "euler_ancestral": "euler_a",
    "heun": "heun",
    "dpm_2": "dpm2",
    "dpm_2_ancestral": "dpm2_a",
    "lms": "lms",
    "dpm_fast": "dpm_fast",
    "dpm_adaptive": "dpm_adaptive",
    "dpmpp_2s_ancestral": "dpmpp_2s_a",
    "dpmpp_sde": "dpmpp_sde",
    "dpmpp_sde_gpu": "dpmpp_sde",
    "dpmpp_2m": "dpmpp_2m",
    "dpmpp_2m_sde": "dpmpp_2m_sde",
    "dpmpp_2m_sde_gpu": "dpmpp_2m_sde",
    "dpmpp_2m_sde_heun": "dpmpp_2m_sde",
    "dpmpp_3m_sde": "dpmpp_3m_sde",
    "dpmpp_3m_sde_gpu": "dpmpp_3m_sde",
    "ddpm": "ddpm",
    "lcm": "lcm",
    "ipndm": "ipndm",
    "deis": "deis",
    "res_multistep": "res_multistep",
    "gradient_estimation": "gradient_estimation",
    "er_sde": "er_sde",
    "sa_solver": "sa_solver",
    "ddim": "ddim",
    "uni_pc": "unipc",
    "uni_pc_bh2": "unipc",
}
DIFFUSERS = {
    "DDPMScheduler": "ddpm",
    "DDIMScheduler": "ddim",
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_a",
    "HeunDiscreteScheduler": "heun",
    "LMSDiscreteScheduler": "lms",
    "KDPM2DiscreteScheduler": "dpm2",
    "KDPM2AncestralDiscreteScheduler": "dpm2_a",
    "PNDMScheduler": "plms",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "DPMSolverSDEScheduler": "dpmpp_sde",
    "LCMScheduler": "lcm",
    "UniPCMultistepScheduler": "unipc",
    "DEISMultistepScheduler": "deis",
    "IPNDMScheduler": "ipndm",
    "TCDScheduler": "tcd",
    "SASolverScheduler": "sa_solver",
}
THEIR_SCHEDULES = {
    "Automatic": None,
    "Uniform": "normal",
    "Karras": "karras",
    "Exponential": "exponential",
    "Polyexponential": "polyexponential",
    "SGM Uniform": "sgm_uniform",
    "KL Optimal": "kl_optimal",
    "Align Your Steps": "align_your_steps",
    "Simple": "simple",
    "Normal": "normal",
    "DDIM": "leading",
    "Beta": "beta",
    "sgm_uniform": "sgm_uniform",
    "ddim_uniform": "leading",
    "linear_quadratic": "linear_quadratic",
}


@pytest.mark.parametrize(("theirs", "mine"), [*A1111.items(), *COMFY.items(), *DIFFUSERS.items()])
@pytest.mark.parametrize("case", [str, str.upper, str.lower])
def test_a_sampler_is_known_by_its_names(theirs: str, mine: str, case: Any) -> None:
    named = resolve(case(theirs), None, REGISTRY)
    assert (named.sampler, named.schedule) == (mine, None)
    REGISTRY.sampler(mine).check_options(named.options)


@pytest.mark.parametrize(("theirs", "mine"), THEIR_SCHEDULES.items())
def test_a_schedule_is_known_by_its_names(theirs: str, mine: str | None) -> None:
    assert resolve(None, theirs, REGISTRY).schedule == mine


def test_every_alias_leads_somewhere_and_none_hides_a_name() -> None:
    names = {name for info in REGISTRY.samplers.values() for name in (info.name, info.title)}
    for alias, meant in SAMPLERS.items():
        name, options = (meant, {}) if isinstance(meant, str) else meant
        REGISTRY.sampler(name).check_options(options)
        assert alias == aliases.lookup_key(alias)
        assert alias not in map(aliases.lookup_key, names)
    assert {name for name in SCHEDULES.values() if name} <= set(REGISTRY.schedules)


@pytest.mark.parametrize(
    ("theirs", "sampler", "schedule", "options"),
    [
        ("DPM++ 2M Karras", "dpmpp_2m", "karras", {}),
        ("DPM++ 2M SDE Heun Exponential", "dpmpp_2m_sde", "exponential", {"solver": "heun"}),
        ("DPM++ 2M SDE Heun", "dpmpp_2m_sde", None, {"solver": "heun"}),
        ("DPM++ 3M SDE Karras", "dpmpp_3m_sde", "karras", {}),
        ("LMS Karras", "lms", "karras", {}),
        ("k_dpmpp_2m_ka", "dpmpp_2m", "karras", {}),
        ("euler_k", "euler", "karras", {}),
    ],
)
def test_an_old_name_ends_with_its_schedule(
    theirs: str, sampler: str, schedule: str | None, options: dict[str, Any]
) -> None:
    assert resolve(theirs, None, REGISTRY) == (sampler, schedule, options)
    assert resolve(theirs, "trailing", REGISTRY).schedule == "trailing"


def test_a_request_resolves_to_the_names_of_the_house() -> None:
    settings = Request(sampler="DPM++ 2M SDE Heun Karras", options={"eta": 0.5}).resolve(DEFAULTS, REGISTRY)
    assert (settings.sampler, settings.schedule) == ("dpmpp_2m_sde", "karras")
    assert settings.options == {"eta": 0.5, "s_noise": 1.0, "solver": "heun"}
    # What is typed wins over what the name stands for.
    typed = Request(sampler="uni_pc", options={"order": 1}).resolve(DEFAULTS, REGISTRY)
    assert (typed.options["variant"], typed.options["order"]) == ("bh1", 1)
    assert Request(sampler="Euler", schedule="Automatic").resolve(DEFAULTS, REGISTRY).schedule == "leading"


def test_what_is_registered_wins_and_what_nobody_knows_stays() -> None:
    def mine() -> Any: ...

    plugin = SamplerInfo(name="euler_ancestral", function=mine, title="Mine")
    registry = Registry({**REGISTRY.samplers, "euler_ancestral": plugin}, REGISTRY.schedules)
    assert resolve("euler_ancestral", None, registry).sampler == "euler_ancestral"
    assert resolve("no such thing", "nor this", REGISTRY) == ("no such thing", "nor this", {})
    assert resolve("Euler a", None, Registry()) == ("Euler a", None, {})


def test_infotexts_have_a1111s_titles() -> None:
    for theirs, name in A1111.items():
        info = REGISTRY.sampler(name)
        options = dict(resolve(theirs, None, REGISTRY).options)
        assert title(name, info.title, options) == theirs
    settings = replace(RECIPE.settings, sampler="dpmpp_2m_sde", options={"solver": "heun"})
    text = infotext(replace(RECIPE, settings=settings, sampler_title="DPM++ 2M SDE"))
    assert parse_infotext(text).params["Sampler"] == "DPM++ 2M SDE Heun"
