"""The contract's own types: ranges, steps, and the light public face that plugins import."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import pytest
import torch

import latentcanvas
from core.sampling.contract import Range, Step


@pytest.mark.parametrize(
    ("low", "high", "step"),
    [
        (1, 0, None),
        (0, 0, None),
        (0, math.inf, None),
        (math.nan, 1, None),
        (0, 1, 0),
        (0, 1, 2),
        (0, 1, -0.1),
    ],
)
def test_a_range_that_is_none_is_refused(low: float, high: float, step: float | None) -> None:
    with pytest.raises(ValueError, match="Range"):
        Range(low, high, step)


def test_a_step_is_frozen_and_compares_by_identity() -> None:
    x = torch.zeros(1, 4, 2, 2)
    step = Step(0, 1.0, x, x)
    assert step == step
    assert step != Step(0, 1.0, x, x)
    with pytest.raises(dataclasses.FrozenInstanceError):
        step.index = 1  # pyrefly: ignore[read-only]


def test_what_the_face_names_is_there() -> None:
    for name in latentcanvas.__all__:
        assert getattr(latentcanvas, name) is not None
    assert set(latentcanvas.__all__) <= set(dir(latentcanvas))
    assert latentcanvas.__all__ == sorted(latentcanvas.__all__)
    assert latentcanvas.__version__


def test_what_the_face_does_not_name_is_not() -> None:
    with pytest.raises(AttributeError, match="samplrs"):
        _ = latentcanvas.samplrs


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_testing_is_one_module_by_either_import() -> None:
    code = """
import latentcanvas.testing
from latentcanvas.testing import gaussian
from latentcanvas import testing
import core.conformance
print(latentcanvas.testing is testing is core.conformance, gaussian is core.conformance.gaussian)
"""
    assert python(code).split() == ["True", "True"]


def test_listing_samplers_loads_neither_torch_nor_numpy() -> None:
    code = """
import sys
from latentcanvas import Range, Step, hookimpl, samplers, schedules, testing
assert {"ddpm", "ddim"} <= set(samplers()), samplers()
assert {"leading", "linspace", "trailing", "karras"} <= set(schedules()), schedules()
print([name for name in ("torch", "numpy", "gradio", "rich") if name in sys.modules])
"""
    assert python(code).strip() == "[]"
