"""The launcher, on an imagined machine: every process that it starts is answered by `Machine`."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import launcher

REAL_CHECKOUT = launcher.CHECKOUT


class HandedOver(Exception):
    """Where the launcher would have become another program."""

    def __init__(self, command: Sequence[str]) -> None:
        super().__init__(command)
        self.command = list(command)


@dataclass
class Machine:
    """Answers `python -m venv`, `pip install` and the probe, and remembers them."""

    whole: bool = True
    pip_fails: bool = False
    interrupt: bool = False
    during_pip: Callable[[], None] = lambda: None
    calls: list[list[str]] = field(default_factory=list)

    def run(self, command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        command = list(map(str, command))
        self.calls.append(command)
        if launcher.PROBE in command:
            return subprocess.CompletedProcess(command, 0 if self.whole else 1)
        if "venv" in command:
            self._make(own_pip="--without-pip" not in command)
            return subprocess.CompletedProcess(command, 0)
        if "compileall" in command:
            return subprocess.CompletedProcess(command, 1)  # some packages hold templates
        if self.interrupt:
            raise KeyboardInterrupt
        self.during_pip()
        if self.pip_fails:
            return subprocess.CompletedProcess(command, 1)
        launcher.command_beside(launcher.venv_python()).touch()
        return subprocess.CompletedProcess(command, 0)

    def _make(self, own_pip: bool) -> None:
        python = launcher.venv_python()
        python.parent.mkdir(parents=True)
        python.symlink_to(sys.executable)
        (launcher.VENV / "pyvenv.cfg").touch()
        if own_pip:
            pip = launcher.VENV / "lib/python3/site-packages/pip"
            pip.mkdir(parents=True)
            (pip / "__main__.py").touch()
        self.whole = True

    def installs(self) -> list[list[str]]:
        return [call for call in self.calls if "install" in call]

    def environments(self) -> list[list[str]]:
        return [call for call in self.calls if "venv" in call]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """A fresh checkout in a temporary folder, on a machine whose own Python lacks the project."""
    if os.name == "nt":
        pytest.skip("the imagined machine is a POSIX one")
    (tmp_path / "pyproject.toml").write_text("[project]\ndependencies = []\n")
    (tmp_path / "constraints.txt").write_text("torch==1\n")
    monkeypatch.setattr(launcher, "CHECKOUT", tmp_path)
    monkeypatch.setattr(launcher, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(launcher, "STAMP", tmp_path / ".venv" / "latentcanvas.json")
    monkeypatch.setattr(launcher, "LOCK", tmp_path / ".venv.lock")
    made = Machine()
    monkeypatch.setattr(subprocess, "run", made.run)

    def become(path: Path, command: list[str]) -> None:
        raise HandedOver(command)

    monkeypatch.setattr(os, "execv", become)
    return made


def start(*arguments: str) -> list[str]:
    """Start with these arguments and give the command that was handed over to."""
    with pytest.raises(HandedOver) as caught:
        launcher.main(list(arguments))
    return caught.value.command


def test_first_start_makes_the_environment_and_hands_over(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = start("generate", "a red circle", "--json")

    assert command == [
        str(tmp_path / ".venv/bin/python"),
        str(tmp_path / ".venv/bin/latentcanvas"),
        "generate",
        "a red circle",
        "--json",
    ]
    [install] = machine.installs()
    assert install[-1] == str(tmp_path)
    assert "--no-compile" in install
    compiled = machine.calls[-1]
    assert compiled[:3] == [str(tmp_path / ".venv/bin/python"), "-m", "compileall"]
    assert compiled[-1] == str(tmp_path / ".venv/lib")
    assert install[install.index("--constraint") + 1] == str(tmp_path / "constraints.txt")
    out, err = capsys.readouterr()
    assert out == ""  # it belongs to the command
    assert [line.split(":")[0] for line in err.splitlines()] == ["latentcanvas"] * 4


def test_second_start_runs_nothing_and_says_nothing(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    start()
    machine.calls.clear()
    capsys.readouterr()

    start("--port", "1234")

    assert machine.calls == []
    assert capsys.readouterr().err == ""


def test_the_test_command_adds_its_extra_and_keeps_it(machine: Machine, tmp_path: Path) -> None:
    start()
    start("test", "-k", "x")
    assert machine.installs()[-1][-1] == f"{tmp_path}[test]"

    machine.calls.clear()
    start()
    start("test")
    assert machine.calls == []

    (tmp_path / "pyproject.toml").write_text("[project]\ndependencies = ['new']\n")
    start()
    assert machine.installs()[-1][-1] == f"{tmp_path}[test]"


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_change_brings_the_environment_up_to_date(machine: Machine, tmp_path: Path, name: str) -> None:
    start()
    (tmp_path / name).write_text("[project]\ndependencies = ['changed']\n")
    start()

    assert len(machine.installs()) == 2
    assert len(machine.environments()) == 1


def test_a_checkout_that_was_moved_is_installed_again(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start()
    stamp = json.loads(launcher.STAMP.read_text())
    monkeypatch.setattr(launcher, "CHECKOUT", tmp_path / ".")
    assert launcher.stamp_is_good([])
    assert stamp["key"] == launcher.source_key()
    (tmp_path / "moved").mkdir()
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / "moved" / name).write_bytes((tmp_path / name).read_bytes())
    monkeypatch.setattr(launcher, "CHECKOUT", tmp_path / "moved")
    assert not launcher.stamp_is_good([])


def test_an_environment_whose_python_was_replaced_is_examined(machine: Machine) -> None:
    start()
    python = launcher.venv_python()
    python.unlink()
    python.symlink_to("/no/such/python3.99")
    start()
    assert len(machine.environments()) == 2


def test_a_failed_installation_is_one_sentence_and_the_next_start_completes_it(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.pip_fails = True
    assert launcher.main([]) == 1
    assert "error: pip could not install the project" in capsys.readouterr().err.splitlines()[-1]
    assert not launcher.STAMP.exists()

    machine.pip_fails = False
    start()
    assert len(machine.environments()) == 1  # what is whole is not thrown away
    assert launcher.stamp_is_good([])


def test_a_failed_update_does_not_count_as_done(machine: Machine, tmp_path: Path) -> None:
    start()
    (tmp_path / "constraints.txt").write_text("torch==2\n")
    machine.pip_fails = True
    assert launcher.main([]) == 1
    machine.pip_fails = False
    machine.calls.clear()
    start()
    assert len(machine.installs()) == 1


def test_ctrl_c_is_quiet_and_the_next_start_goes_on(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.interrupt = True
    assert launcher.main([]) == 130
    assert "interrupted" in capsys.readouterr().err.splitlines()[-1]
    machine.interrupt = False
    machine.whole = False  # pip was in the middle of a package
    start()
    assert len(machine.environments()) == 2


def test_a_foreign_folder_in_the_way_is_left_alone(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "diary.txt").write_text("mine")
    assert launcher.main([]) == 1
    assert "is not a Python environment" in capsys.readouterr().err
    assert (tmp_path / ".venv" / "diary.txt").read_text() == "mine"


def test_a_file_in_the_way_is_left_alone(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".venv").write_text("mine")
    assert launcher.main([]) == 1
    assert "is not a Python environment" in capsys.readouterr().err
    assert (tmp_path / ".venv").read_text() == "mine"


@pytest.mark.parametrize(("oldest", "newest"), [((3, 98), (3, 99)), ((2, 0), (2, 7))])
def test_a_python_that_is_too_old_or_too_new_is_said(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    oldest: tuple[int, int],
    newest: tuple[int, int],
) -> None:
    monkeypatch.setattr(launcher, "OLDEST", oldest)
    monkeypatch.setattr(launcher, "NEWEST", newest)
    assert launcher.main([]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert f"this is Python {sys.version_info[0]}.{sys.version_info[1]}," in line
    assert machine.installs() == []


def test_without_the_venv_module_the_package_to_install_is_named(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launcher, "has_module", lambda module: module != "ensurepip")
    monkeypatch.setattr(launcher, "pip_can_work_elsewhere", lambda: False)
    assert launcher.main([]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert f"apt install python3.{sys.version_info[1]}-venv" in line


def test_without_ensurepip_the_pip_that_is_there_does_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "has_module", lambda module: module != "ensurepip")
    monkeypatch.setattr(launcher, "pip_can_work_elsewhere", lambda: True)
    start()
    assert "--without-pip" in machine.environments()[0]
    [install] = machine.installs()
    assert install[:4] == [sys.executable, "-m", "pip", "--python"]
    assert install[4] == str(launcher.venv_python())


def test_a_system_error_is_one_sentence(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(subprocess, "run", full)
    assert launcher.main([]) == 1
    [*_, line] = capsys.readouterr().err.splitlines()
    assert line == (
        "latentcanvas: error: the environment could not be prepared: [Errno 28] No space left on device."
    )


def test_of_two_starts_at_once_one_installs_and_the_other_waits(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def pause() -> None:
        inside.set()
        assert go_on.wait(60)

    machine.during_pip = pause
    starts = [threading.Thread(target=launcher.ensure_environment, args=([],)) for _ in range(2)]
    starts[0].start()
    assert inside.wait(60)
    starts[1].start()
    while "waiting for it" not in capsys.readouterr().err:
        assert starts[1].is_alive()
    go_on.set()
    for thread in starts:
        thread.join(60)

    assert len(machine.installs()) == 1
    assert launcher.stamp_is_good([])


def test_a_damaged_stamp_counts_as_none(machine: Machine) -> None:
    start()
    for text in ("", "[]", "{", '{"key": 1}'):
        launcher.STAMP.write_text(text)
        assert not launcher.stamp_is_good([])


def test_an_environment_that_has_the_project_is_used_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests run in one."""
    said: list[Sequence[str]] = []

    def command_line(arguments: Sequence[str]) -> int:
        said.append(arguments)
        return 7

    monkeypatch.setattr("ui.cli.main", command_line)
    assert launcher.running_environment_has_project(["test"])
    assert launcher.main(["samplers"]) == 7
    assert said == [["samplers"]]


def test_an_environment_with_older_requirements_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def needs(*requirements: str) -> bool:
        text = (
            f"[project]\ndependencies = {json.dumps(requirements)}\noptional-dependencies = {{ test = [] }}\n"
        )
        (tmp_path / "pyproject.toml").write_text(text)
        return launcher.requirements_met(["test"])

    monkeypatch.setattr(launcher, "CHECKOUT", tmp_path)
    assert needs("pluggy>=1")
    assert needs("pluggy>=1", "no-such-thing; python_version < '3'")
    assert not needs("pluggy>=999")
    assert not needs("no-such-thing")


def test_only_an_editable_installation_of_this_checkout_counts() -> None:
    def record(url: str, editable: bool) -> str:
        return json.dumps({"url": url, "dir_info": {"editable": editable}})

    assert launcher.origin(record("file:///a%20b/c", True)) == Path("/a b/c")
    assert launcher.origin(record("file:///a", False)) is None
    assert launcher.origin('{"url": "https://example.invalid/x.whl", "archive_info": {}}') is None
    assert launcher.origin(None) is None


def test_the_probe_tells_whole_from_half(tmp_path: Path) -> None:
    """In a real, empty environment, with packages in the states that an interrupted pip leaves."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path)], check=True)
    python = tmp_path / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    [packages] = tmp_path.glob("Lib/site-packages" if os.name == "nt" else "lib/*/site-packages")
    record = packages / "thing-1.dist-info" / "RECORD"

    def whole() -> bool:
        return subprocess.run([str(python), "-c", launcher.PROBE], check=False).returncode == 0

    assert whole()
    (packages / "thing").mkdir()
    (packages / "thing" / "__init__.py").touch()
    record.parent.mkdir()
    (record.parent / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1\n")
    assert not whole()  # copied in part: RECORD comes last
    record.write_text("thing/__init__.py,,\nthing/__pycache__/x.pyc,,\nthing-1.dist-info/METADATA,,\n")
    assert whole()
    (packages / "thing" / "__init__.py").unlink()
    assert not whole()  # uninstalled in part
    (packages / "thing" / "__init__.py").touch()
    (packages / "pip").mkdir()
    (packages / "pip" / "__init__.py").touch()
    assert not whole()  # ensurepip was stopped


def test_the_launcher_needs_the_standard_library_alone() -> None:
    """Apart from what it imports once it knows that the environment has it."""
    tree = ast.parse((REAL_CHECKOUT / "launcher.py").read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in top if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names
