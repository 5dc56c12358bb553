"""The `test` command: it starts the right tools and finds or installs a browser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ui.commandline import failure, run
from ui.commands import checks


class Tools:
    """Answers the tools that `test` starts; those named in `failing` fail."""

    def __init__(self, *failing: str) -> None:
        self.failing, self.calls = failing, list[list[str]]()

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        self.calls.append(command)
        return subprocess.CompletedProcess(command, int(any(name in command for name in self.failing)))


def use_tools(monkeypatch: pytest.MonkeyPatch, tools: Tools, which: Callable[[str], str | None]) -> None:
    monkeypatch.setattr(subprocess, "run", tools)
    monkeypatch.setattr(shutil, "which", which)
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    monkeypatch.delenv("CI", raising=False)


def test_test_runs_all_checks_in_order_though_one_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = Tools("pyrefly")
    use_tools(monkeypatch, tools, lambda name: f"/usr/bin/{name}")
    code, out, _ = run(capsys, "test", "-k", "launcher", "--maxfail", "1")
    assert code == 1
    assert [call[2:] for call in tools.calls] == [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["pyrefly", "check", "--python-interpreter-path", sys.executable],
        ["pytest", *checks.CHECKS[-1][1][1:], "-k", "launcher", "--maxfail", "1"],
    ]
    assert out.splitlines()[-1] == "latentcanvas test: FAILED: types"


def test_test_passes_when_everything_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_tools(monkeypatch, Tools(), lambda name: f"/usr/bin/{name}")
    code, out, _ = run(capsys, "test")
    assert (code, out.splitlines()[-1]) == (0, "latentcanvas test: all passed")


def test_a_missing_browser_is_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = Tools()

    def which(name: str) -> str | None:
        installed = any("chromium" in call for call in tools.calls)
        return f"/usr/bin/{name}" if name == "apt-get" or installed else None

    use_tools(monkeypatch, tools, which)
    assert checks.ensure_browser()
    assert [call[2] for call in tools.calls] == ["update", "install"]


@pytest.mark.parametrize("ci", ["", "1"])
def test_a_browser_that_cannot_be_installed_fails_only_in_ci(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ci: str
) -> None:
    use_tools(monkeypatch, Tools("install"), lambda name: name if name == "apt-get" else None)
    monkeypatch.setenv("CI", ci)
    code, out, err = run(capsys, "test")
    assert "NO CHROMIUM (apt-get install failed with exit code 1)" in err
    assert code == (1 if ci else 0)
    assert ("FAILED: browser" in out) == bool(ci)


def test_who_is_not_root_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = Tools()
    use_tools(monkeypatch, tools, lambda name: name if name == "apt-get" else None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    assert checks.ensure_browser()
    assert tools.calls == []


def test_an_installation_without_tests_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checks, "CHECKOUT", tmp_path)
    assert "in a clone of the repository" in failure(capsys, "test")
