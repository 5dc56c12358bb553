"""The plugin guide says what is so: its code runs, its rules and hooks are the real ones."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from core.conformance import check_sampler
from core.conformance.rules import RULES
from core.plugins import hookspecs
from core.plugins.discovery import load_plugins
from core.sampling.contract import RegisterSampler
from core.sampling.schedule import NoiseSchedule, RegisterSchedule
from ui import cli

CHECKOUT = Path(__file__).resolve().parents[1]
GUIDE = CHECKOUT / "docs" / "plugins"
TEXTS = sorted(
    [
        *GUIDE.glob("*.md"),
        *CHECKOUT.glob("docs/learn/*.md"),
        CHECKOUT / "docs" / "samplers.md",
        *CHECKOUT.glob("examples/**/README.md"),
    ]
)
# Pages whose code is a whole plugin -> what it registers.
PLUGINS = {"README.md": ["my_euler"], "hooks.md": ["one_jump"], "options.md": ["slopes"]}


def named(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("path", [path for path in TEXTS if blocks(path)], ids=named)
def test_the_code_runs(path: Path) -> None:
    """The blocks of a page one after the other, and then the tests that they define."""
    namespace: dict[str, Any] = {}
    for block in blocks(path):
        exec(compile(block, str(path), "exec"), namespace)
    for name, value in list(namespace.items()):
        if name.startswith("test_"):
            value()


@pytest.mark.parametrize("page", PLUGINS)
def test_the_plugins_in_the_guide_load_and_are_right(page: str, tmp_path: Path) -> None:
    code = "\n".join(blocks(GUIDE / page))
    (tmp_path / "guide.py").write_text(code, encoding="utf-8")
    registry = load_plugins(directory=tmp_path)
    [status] = [plugin for plugin in registry.plugins if not plugin.builtin]
    assert status.error is None
    assert list(status.samplers) == PLUGINS[page]
    for name in status.samplers:
        report = check_sampler(registry.sampler(name))
        assert report.passed, str(report)
    for name in status.schedules:
        assert registry.schedule(name).sigmas(NoiseSchedule.from_betas(), 5)[-1] == 0


def test_the_first_sampler_has_fifteen_lines() -> None:
    [code] = blocks(GUIDE / "README.md")
    assert len([line for line in code.splitlines() if line.strip()]) <= 15


def test_every_rule_is_in_the_contract_and_no_other() -> None:
    text = (GUIDE / "contract.md").read_text(encoding="utf-8")
    listed = re.findall(r"^(\d+)\. \*\*(\w+)\*\*: (.*)$", text, re.MULTILINE)
    assert listed == [(str(rule.number), rule.name, rule.text) for rule in RULES]


def sections() -> dict[str, str]:
    """Heading of each hook in the reference -> its text."""
    parts = re.split(r"^## ", (GUIDE / "hooks.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}


def test_every_hook_is_documented() -> None:
    hooks = [
        f"{name}{inspect.signature(function)}".partition(" -> ")[0]
        for name, function in vars(hookspecs).items()
        if hasattr(function, f"{hookspecs.GROUP}_spec")
    ]
    wanted = [re.sub(r": '?\w+'?", "", hook) for hook in hooks]
    assert "register_samplers(register)" in wanted
    assert [hook for hook in wanted if hook not in sections()] == []


@pytest.mark.parametrize(
    ("hook", "register"),
    [
        ("register_samplers(register)", RegisterSampler.__call__),
        ("register_schedules(register)", RegisterSchedule.__call__),
    ],
)
def test_everything_that_register_takes_is_documented(hook: str, register: Any) -> None:
    rows = [line.split("|")[1] for line in sections()[hook].splitlines() if line.startswith("| `")]
    documented = set(re.findall(r"`(\w+)`", " ".join(rows)))
    assert set(inspect.signature(register).parameters) - {"self"} <= documented


def commands(path: Path) -> Iterator[list[str]]:
    """Every command line of ours in a text."""
    for line in re.findall(
        r"^(?:python launcher\.py|latentcanvas) (.*)$", path.read_text("utf-8"), re.MULTILINE
    ):
        yield shlex.split(line, comments=True)


@pytest.mark.parametrize("path", [path for path in TEXTS if any(commands(path))], ids=named)
def test_every_command_and_its_options_are_known(path: Path) -> None:
    for arguments in commands(path):
        command: Any = typer.main.get_command(cli.app)
        command.name = cli.PROGRAM
        for word in arguments:
            known = getattr(command, "commands", {})
            if word in known:
                command = known[word] if command.name != cli.PROGRAM else cli.load_command(word)
            elif word.startswith("--"):
                options = {name for parameter in command.params for name in parameter.opts}
                assert word in options, f"{' '.join(arguments)}: {command.name} has no {word}"
        assert arguments[0].startswith("--") or command.name != cli.PROGRAM


@pytest.mark.parametrize("path", TEXTS, ids=named)
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8"))
    assert [target for target in targets if "://" not in target and not (path.parent / target).exists()] == []
