"""Request -> settings -> picture -> request: nothing may change; and what A1111's text alone carries."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from core.plugins.discovery import load_plugins
from core.recipes.infotext import infotext
from core.recipes.png import png_bytes
from core.recipes.reader import read_any
from core.recipes.recipe import ModelRef, Recipe
from core.request.image_settings import InputInfo
from core.request.model_defaults import Defaults
from core.request.request import Request
from core.request.settings import SHARED, Branch, Settings
from core.sampling.options import Option
from tests.core.recipes import digests, patient, texts

REGISTRY = load_plugins(enabled=False)
DEFAULTS = Defaults(sampler="ddim", schedule="leading", steps=20, cfg_scale=5.0, width=128, height=128)
PLAIN = st.text(alphabet=st.sampled_from('ab:,"{}()<>| é猫\n'), max_size=40)
SIDES = st.integers(8, 256).map(lambda n: 8 * n)


def value_of(option: Option) -> st.SearchStrategy[Any]:
    if option.kind == "choice":
        return st.sampled_from(option.choices)
    if option.kind == "bool":
        return st.booleans()
    low, high = option.low, option.high
    assert low is not None
    assert high is not None
    return st.integers(int(low), int(high)) if option.kind == "int" else st.floats(low, high)


@st.composite
def requests(draw: st.DrawFn, branches: bool = True) -> tuple[Request, InputInfo | None]:
    """Any request that this program runs, and the pictures that come beside it."""
    info = draw(st.sampled_from(list(REGISTRY.samplers.values())))
    chosen = draw(st.lists(st.sampled_from(info.options), unique=True)) if info.options else []
    fields: dict[str, Any] = {
        "prompt": draw(PLAIN | texts),
        "negative": draw(PLAIN | texts),
        "sampler": info.name,
        "options": {option.name: draw(value_of(option)) for option in chosen},
    }
    optional = {
        "schedule": st.sampled_from(list(REGISTRY.schedules)),
        "steps": st.integers(2, 1000),
        "cfg_scale": st.floats(0, 100),
        "width": SIDES,
        "height": SIDES,
        "seed": st.integers(0, 2**63 - 2),
        "clip_skip": st.integers(1, 100),
        "cfg_rescale": st.floats(0, 1),
        "cfg_from": st.floats(0, 0.4),
        "cfg_to": st.floats(0.5, 1),
        "feature_reuse": st.integers(1, 20),
        "token_merging": st.floats(0, 0.75),
        "stop_after": st.integers(1, 1000),
    }
    fields |= draw(st.fixed_dictionaries({}, optional=optional))
    if draw(st.integers(0, 4)) == 0:
        fields.pop("steps", None), fields.pop("schedule", None)
        fields["sigmas"] = sorted(draw(st.sets(st.floats(0.01, 100), min_size=2, max_size=8)), reverse=True)
    given = draw(st.none() | st.builds(InputInfo, SIDES, SIDES, digests, st.none() | digests))
    request = Request(**fields, **(draw(pictures(given)) if given else {}))
    if branches and draw(st.integers(0, 4)) == 0:
        request, given = draw(branched(request, given))
    return request, given


@st.composite
def branched(draw: st.DrawFn, first: Request, given: InputInfo | None) -> tuple[Request, InputInfo | None]:
    """A request that takes over after some steps of the first one, whose pictures it shares."""
    parent = first.resolve(DEFAULTS, REGISTRY, given)
    other, _ = draw(requests(branches=False).filter(lambda pair: pair[1] is None))
    shared = {name: getattr(parent, name) for name in SHARED}
    steps = parent.steps if other.sigmas is None else other.steps
    step = draw(st.integers(0, parent.steps - 1))
    branch = Branch(step, parent)
    return dataclasses.replace(other, **shared, steps=steps, stop_after=None, branch=branch), given


def pictures(given: InputInfo) -> st.SearchStrategy[dict[str, Any]]:
    plain = {"strength": st.floats(0.5, 1), "resize": st.sampled_from(["stretch", "crop", "pad"])}
    masked = {
        "mask_blur": st.integers(0, 64),
        "masked_content": st.sampled_from(["original", "fill", "noise", "nothing"]),
        "only_masked": st.integers(0, 1024),
        "keep_unmasked": st.booleans(),
        "invert_mask": st.booleans(),
    }
    return st.fixed_dictionaries({}, optional={**plain, **(masked if given.mask_sha256 else {})})


def recipe_of(resolved: Settings) -> Recipe:
    model = ModelRef(name="tiny", sha256="0123456789abcdef" * 4)
    return Recipe.of(
        resolved, REGISTRY, model=model, device="cpu", dtype="float32", versions={"latentcanvas": "0.1.0"}
    )


@settings(
    patient,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(asked=requests())
def test_a_request_comes_back_from_its_picture(
    tmp_path: Path, asked: tuple[Request, InputInfo | None]
) -> None:
    request, pictures = asked
    resolved = request.resolve(DEFAULTS, REGISTRY, pictures)
    path = tmp_path / "picture.png"
    path.write_bytes(png_bytes(Image.new("RGB", (8, 8)), recipe_of(resolved)))
    found = read_any(path, REGISTRY)
    assert found.source == "latentcanvas"
    assert found.request == Request.from_settings(resolved)
    assert found.request.resolve(DEFAULTS, REGISTRY, pictures) == resolved
    assert (found.model, found.model_hash) == ("tiny", "0123456789abcdef" * 4)
    wanted = () if pictures is None else ("picture", "mask") if pictures.mask_sha256 else ("picture",)
    assert found.needs == wanted
    assert all(line.fate == "kept" for line in found.report if hasattr(request, line.key))
    said = {line.key for line in found.report}
    assert set(resolved.to_dict()) - said <= {name for name, v in resolved.to_dict().items() if v is None}


# What the text has no key for: these come back as they are where nobody said anything.
NOT_CARRIED = {
    *(
        "stop_after",
        "branch",
        "cfg_rescale",
        "cfg_to",
        "resize",
        "outpaint",
        "keep_unmasked",
        "image_sha256",
        "mask_sha256",
    ),
    "batch",
}
CARRIED_OPTIONS = {"eta", "s_churn", "s_tmin", "s_tmax", "s_noise", "solver"}
DEFAULT_FIELDS = {f.name: f.default for f in dataclasses.fields(Request)}


def is_carried(prompt: str) -> bool:
    """Whether the text can carry this prompt unchanged: see parse_infotext."""
    lines = prompt.split("\n")
    stripped = all(line == line.strip() and not line.startswith("Negative prompt:") for line in lines)
    return stripped and (prompt == "" or lines[0] != "")


@settings(patient, max_examples=100)
@given(asked=requests())
def test_what_a1111s_text_alone_carries(asked: tuple[Request, InputInfo | None]) -> None:
    request, pictures = asked
    resolved = request.resolve(DEFAULTS, REGISTRY, pictures)
    assume(is_carried(resolved.prompt) and is_carried(resolved.negative))
    back = read_any(infotext(recipe_of(resolved)), REGISTRY).request
    theirs, ours = back.to_dict(), resolved.to_dict()
    options = {name: value for name, value in ours.pop("options").items() if name in CARRIED_OPTIONS}
    if options.get("solver") == "midpoint":  # what the title without a variant means
        options.pop("solver")
    assert theirs.pop("options") == options
    if resolved.sigmas is not None:  # written with six digits, in place of the schedule
        assert (ours.pop("schedule"), theirs.pop("schedule")) == (resolved.schedule, None)
        # Levels that are the same in six digits do not fall, and are left out.
        assert back.sigmas is None or back.sigmas == pytest.approx(resolved.sigmas, rel=1e-5)
        ours.pop("sigmas"), theirs.pop("sigmas", None)
    if resolved.mask_blur == 0:  # left out where it is 0
        ours.pop("mask_blur")
    if resolved.masked_content == "original":  # left out where it is A1111's usual
        ours.pop("masked_content")
    for name in NOT_CARRIED & ours.keys():
        ours.pop(name)
    assert {name: theirs.get(name, DEFAULT_FIELDS[name]) for name in ours} == ours


@patient
@given(asked=requests())
@example(asked=(Request(prompt="{", sampler="ddim"), None))
def test_pasted_json_of_ours_comes_back(asked: tuple[Request, InputInfo | None]) -> None:
    request, pictures = asked
    resolved = request.resolve(DEFAULTS, REGISTRY, pictures)
    for text in (
        json.dumps(recipe_of(resolved).to_dict()),
        json.dumps(
            {"images": [], "request": resolved.to_dict(), "model": {"name": "tiny", "sha256": "0" * 64}}
        ),
        json.dumps(resolved.to_dict()),
    ):
        found = read_any(text, REGISTRY)
        assert found.source == "latentcanvas"
        assert found.request == Request.from_settings(resolved)


def test_a_sampler_that_is_not_here_stays_and_is_said() -> None:
    resolved = Request(prompt="x", seed=1).resolve(DEFAULTS, REGISTRY)
    recipe = dataclasses.replace(
        recipe_of(resolved), settings=dataclasses.replace(resolved, sampler="gone", options={"a": 1})
    )
    found = read_any(json.dumps(recipe.to_dict()), REGISTRY)
    assert found.request.sampler == "gone"
    [line] = [line for line in found.report if line.key == "sampler"]
    assert (line.fate, line.note) == (
        "kept",
        "no sampler of this name is registered: install its plugin",
    )
