"""Names of samplers and schedules in A1111, ComfyUI, Forge, InvokeAI and diffusers.

They let a recipe be pasted as it is: "DPM++ 2M Karras", "dpmpp_2m_sde_gpu", "UniPCMultistepScheduler". A
registered name always wins. Case and the joining of words are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from core.checks import OptionValue

if TYPE_CHECKING:
    from core.sampling.registry import Registry

# Their names to a sampler here, with options if theirs is a variant of it. Titles of registered samplers need
# no entry.
SAMPLERS: dict[str, str | tuple[str, dict[str, OptionValue]]] = {
    # A1111 and Forge, by title and by their short names.
    "dpm++ 2m sde heun": ("dpmpp_2m_sde", {"solver": "heun"}),
    "k dpm 2": "dpm2",
    "k dpm 2 a": "dpm2_a",
    "k dpm fast": "dpm_fast",
    "k dpm ad": "dpm_adaptive",
    "k euler": "euler",
    "k euler a": "euler_a",
    "k heun": "heun",
    "k lms": "lms",
    "k dpmpp 2m": "dpmpp_2m",
    "k dpmpp sde": "dpmpp_sde",
    "k dpmpp 2m sde": "dpmpp_2m_sde",
    "k dpmpp 2m sde heun": ("dpmpp_2m_sde", {"solver": "heun"}),
    "k dpmpp 2s a": "dpmpp_2s_a",
    "k dpmpp 3m sde": "dpmpp_3m_sde",
    # ComfyUI, and sd.cpp.
    "euler ancestral": "euler_a",
    "dpm 2": "dpm2",
    "dpm 2 ancestral": "dpm2_a",
    "dpmpp 2s ancestral": "dpmpp_2s_a",
    "dpmpp sde gpu": "dpmpp_sde",
    "dpmpp 2m sde gpu": "dpmpp_2m_sde",
    "dpmpp 2m sde heun": ("dpmpp_2m_sde", {"solver": "heun"}),
    "dpmpp 2m sde heun gpu": ("dpmpp_2m_sde", {"solver": "heun"}),
    "dpmpp 3m sde gpu": "dpmpp_3m_sde",
    "uni pc": ("unipc", {"variant": "bh1", "order": 3}),
    "uni pc bh2": ("unipc", {"variant": "bh2", "order": 3}),
    "euler ge": "gradient_estimation",
    "pndm": "plms",
    "dpm++2m": "dpmpp_2m",
    "dpm++2s a": "dpmpp_2s_a",
    # InvokeAI.
    "dpmpp 2s": ("dpmpp_2s_a", {"eta": 0.0}),
    "dpmpp 3m": ("dpmpp_3m_sde", {"eta": 0.0}),
    "kdpm 2": "dpm2",
    "kdpm 2 a": "dpm2_a",
    # diffusers' classes.
    "ddpmscheduler": "ddpm",
    "ddimscheduler": "ddim",
    "eulerdiscretescheduler": "euler",
    "eulerancestraldiscretescheduler": "euler_a",
    "heundiscretescheduler": "heun",
    "lmsdiscretescheduler": "lms",
    "kdpm2discretescheduler": "dpm2",
    "kdpm2ancestraldiscretescheduler": "dpm2_a",
    "pndmscheduler": "plms",
    "dpmsolvermultistepscheduler": "dpmpp_2m",
    "dpmsolversinglestepscheduler": ("dpmpp_2s_a", {"eta": 0.0}),
    "dpmsolversdescheduler": "dpmpp_sde",
    "unipcmultistepscheduler": "unipc",
    "deismultistepscheduler": ("deis", {"order": 2}),
    "ipndmscheduler": "ipndm",
    "lcmscheduler": "lcm",
    "tcdscheduler": "tcd",
    "sasolverscheduler": "sa_solver",
}

# None: the preferred schedule of the sampler or the model.
SCHEDULES: dict[str, str | None] = {
    "automatic": None,
    "uniform": "normal",
    "ddim": "leading",
    "ddim uniform": "leading",
    "ays": "align_your_steps",
    "sgm": "sgm_uniform",
    "discrete": "normal",
}

# Suffixes of sampler names in old A1111 recipes and in InvokeAI.
_SUFFIXES = {
    "karras": "karras",
    "exponential": "exponential",
    "sgm uniform": "sgm_uniform",
    "ka": "karras",
    "exp": "exponential",
    "k": "karras",
}

# Titles in infotexts of variants that have their own name there.
_TITLES: dict[tuple[str, str, OptionValue], str] = {
    ("dpmpp_2m_sde", "solver", "heun"): "DPM++ 2M SDE Heun",
}


class Named(NamedTuple):
    """The registered names for a pair of names. `options` are those that the sampler's name implies."""

    sampler: str | None
    schedule: str | None
    options: Mapping[str, OptionValue]


def resolve(sampler: str | None, schedule: str | None, registry: Registry) -> Named:
    """The registered names that are meant; an unknown name is returned as it is.

    A sampler's name may end with a schedule; a given `schedule` has priority.
    """
    name, options, suffix = (None, {}, None) if sampler is None else _sampler(sampler, registry)
    asked = None if schedule is None else _schedule(schedule, registry)
    return Named(name, suffix if asked is None else asked, options)


def title(sampler: str, title: str, options: Mapping[str, OptionValue]) -> str:
    """A1111's title of the sampler with these options: its title, unless the variant has its own."""
    for (name, option, value), theirs in _TITLES.items():
        if name == sampler and options.get(option) == value:
            return theirs
    return title


def _sampler(name: str, registry: Registry) -> tuple[str, Mapping[str, OptionValue], str | None]:
    """(name, options, schedule that the name ends with)"""
    found = _exact_sampler(name, registry)
    if found is not None:
        return (*found, None)
    words = lookup_key(name)
    for suffix, schedule in _SUFFIXES.items():
        if words.endswith(f" {suffix}"):
            found = _exact_sampler(words.removesuffix(f" {suffix}"), registry)
            if found is not None:
                return (*found, schedule)
    return name, {}, None


def _exact_sampler(name: str, registry: Registry) -> tuple[str, Mapping[str, OptionValue]] | None:
    if name in registry.samplers:
        return name, {}
    words = lookup_key(name)
    for info in registry.samplers.values():
        if words in (lookup_key(info.name), lookup_key(info.title)):
            return info.name, {}
    meant = SAMPLERS.get(words)
    if meant is None:
        return None
    name, options = (meant, {}) if isinstance(meant, str) else meant
    return (name, options) if name in registry.samplers else None


def _schedule(name: str, registry: Registry) -> str | None:
    if name in registry.schedules:
        return name
    words = lookup_key(name)
    for info in registry.schedules.values():
        if words in (lookup_key(info.name), lookup_key(info.title)):
            return info.name
    return SCHEDULES.get(words, name)


def lookup_key(name: str) -> str:
    """A name for comparison: lower case, words separated by one space."""
    return " ".join(re.split(r"[\s_-]+", name.strip().casefold()))
