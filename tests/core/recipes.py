"""Settings and recipes for tests: one of each kind, and hypothesis strategies for any."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from core.prompts.emphasis import EMPHASES
from core.recipes.recipe import ModelRef, PluginRef, Recipe
from core.request.settings import Branch, Settings, max_seed

# For machines that are busy with something else: no example has to be quick.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Everything that a prompt may hold: no NUL, no half of a surrogate pair.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)
names = texts.filter(bool)
option_values = (
    st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False) | texts
)
sides = st.integers(8, 256).map(lambda n: 8 * n)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
# From no picture, or from one, with a mask or without; the steps below are enough for any of these strengths.
picture_settings = st.fixed_dictionaries(
    {},
    optional={
        "strength": st.floats(0.5, 1),
        "resize": st.sampled_from(["stretch", "crop", "pad"]),
        "outpaint": st.tuples(*[st.integers(0, 24)] * 4),
        "mask_blur": st.integers(0, 64),
        "masked_content": st.sampled_from(["original", "fill", "noise", "nothing"]),
        "only_masked": st.integers(0, 1024),
        "keep_unmasked": st.booleans(),
        "invert_mask": st.booleans(),
        "image_sha256": digests,
        "mask_sha256": digests,
        "cfg_rescale": st.floats(0, 1),
        "cfg_from": st.floats(0, 0.4),
        "cfg_to": st.floats(0.5, 1),
        "feature_reuse": st.integers(1, 20),
        "token_merging": st.floats(0, 0.75),
    },
)


def any_settings(
    prompts: st.SearchStrategy[str] = texts, largest_batch: int = 64
) -> st.SearchStrategy[Settings]:
    """Any valid settings, with these prompts and batches of at most this size."""
    plain = {
        "prompt": prompts,
        "negative": prompts,
        "clip_skip": st.integers(1, 100),
        "emphasis": st.sampled_from(EMPHASES),
        "sampler": names,
        "schedule": names,
        "steps": st.integers(2, 1000),
        "cfg_scale": st.floats(0, 100),
        "width": sides,
        "height": sides,
        "batch": st.integers(1, largest_batch),
        "seed": st.integers(0, max_seed(64)),
        "options": st.dictionaries(names, option_values, max_size=4),
    }
    made = st.builds(lambda a, b: Settings(**a, **b), st.fixed_dictionaries(plain), picture_settings)
    return st.builds(
        _in_part, made, prompts, st.integers(0, 9999), st.sampled_from(["", "end", "branch", "both"])
    )


def _in_part(settings: Settings, prompt: str, step: int, part: str) -> Settings:
    """The settings of a run that ends early, or of a branch with another prompt, or of both."""
    branch = Branch(step, replace(settings, prompt=prompt)) if part in ("branch", "both") else None
    return replace(settings, branch=branch, stop_after=step + 1 if part in ("end", "both") else None)


def any_recipe(prompts: st.SearchStrategy[str] = texts) -> st.SearchStrategy[Recipe]:
    """Any valid recipe."""
    plugins = st.builds(PluginRef, name=texts, version=texts)
    return st.builds(
        Recipe,
        settings=any_settings(prompts, largest_batch=1),
        model=st.builds(
            ModelRef, name=names, sha256=digests, vae_sha256=digests | st.just(""), ema=st.booleans()
        ),
        plugin=plugins,
        schedule_plugin=plugins,
        device=names,
        dtype=names,
        versions=st.dictionaries(names, texts, max_size=3),
        sampler_title=texts,
        schedule_title=texts,
    )


SETTINGS = Settings(
    prompt="a red house under a full moon",
    negative="blurry, grey",
    sampler="ddim",
    schedule="leading",
    steps=20,
    cfg_scale=5.0,
    width=128,
    height=96,
    batch=1,
    seed=42,
    options={"eta": 0.5},
)
RECIPE = Recipe(
    settings=SETTINGS,
    model=ModelRef(name="tiny", sha256="0123456789abcdef" * 4),
    plugin=PluginRef(name="latentcanvas", version="0.1.0"),
    schedule_plugin=PluginRef(name="latentcanvas", version="0.1.0"),
    device="cpu",
    dtype="float32",
    versions={"latentcanvas": "0.1.0", "torch": "2.8.0"},
    sampler_title="DDIM",
    schedule_title="Leading",
)
