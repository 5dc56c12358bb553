"""The page about steps and branches says what is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.plugins.current import samplers
from tests.core.test_branching import MULTI, SINGLE
from ui import cli

PAGE = Path(__file__).resolve().parents[1] / "docs" / "steps-and-branches.md"


def test_its_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("circle.png", "circle.steps.safetensors", "noise.png", "star.png", "star.steps.safetensors")
    }
    with Image.open("star.png") as star, Image.open("noise.png") as noise:
        assert star.size == noise.size


def test_every_sampler_is_in_one_of_the_two_lists() -> None:
    """Which are tested; a new one has to be put into one of them."""
    text = PAGE.read_text(encoding="utf-8")
    for mark, names in (("same", SINGLE), ("other", (*MULTI, "dpm_adaptive"))):
        listed = text.partition(f"<!-- {mark} -->")[2].strip().partition("\n\n")[0]
        assert set(re.findall(r"`([a-z0-9_]+)`", listed)) == set(names)
    builtin = {name for name, info in samplers().items() if info.plugin == "latentcanvas"}
    assert builtin == {*SINGLE, *MULTI, "dpm_adaptive"}


def test_its_commands_have_these_options() -> None:
    text = PAGE.read_text(encoding="utf-8")
    lines = re.findall(r"^python launcher\.py (.*?)(?:\s+#.*)?$", text, re.MULTILINE)
    assert len(lines) == 6
    for line in lines:
        name, *arguments = shlex.split(line)
        known = {option for parameter in cli.load_command(name).params for option in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("--")} <= known
