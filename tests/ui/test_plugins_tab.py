"""The plugins tab without a browser: what it lists, and the check from the form to the findings."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from core.errors import UserError
from core.plugins import discovery
from core.sampling.registry import Registry
from tests.strangers import Install, install_ten
from tests.ui.fakes import in_blocks
from ui.page.tabs import plugins as module
from ui.page.tabs.plugins import EXAMPLE, PluginsTab, listing_html, report_html
from ui.service import sampler_check
from ui.service.sampler_check import Check

REPORT = {
    "sampler": "<b>euler",
    "plugin": "someone",
    "version": "1.0",
    "options": {"eta": 0.5},
    "findings": [
        {"number": 1, "name": "steps", "passed": True, "figure": 12, "sentence": "steps, one per interval"},
        {"number": 2, "name": "order", "passed": False, "figure": 0.512, "sentence": "declared is <2>"},
        {"number": 8, "name": "statistics", "passed": None, "figure": None, "sentence": "deterministic"},
    ],
    "passed": False,
}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return discovery.load_plugins(enabled=False)


def made(registry: Registry, **options: Any) -> PluginsTab:
    tab = PluginsTab(registry, **options)

    def build() -> None:
        tab.build()
        tab.connect()

    in_blocks(build)
    return tab


class FakeCheck:
    """In place of the process."""

    stopped = 0
    waits = 2
    sampler, seconds = "heun", 1.0
    asked: ClassVar[tuple[Any, ...]] = ()

    def __init__(self, sampler: str, options: dict[str, str], **choice: Any) -> None:
        FakeCheck.asked = (sampler, options, choice)
        self._left = FakeCheck.waits

    def wait(self, seconds: float) -> bool:
        self._left -= 1
        return self._left < 0

    def report(self) -> dict[str, Any]:
        return REPORT

    def stop(self) -> None:
        FakeCheck.stopped += 1


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeCheck]:
    monkeypatch.setattr(module, "Check", FakeCheck)
    monkeypatch.setattr(FakeCheck, "stopped", 0)
    return FakeCheck


def test_the_list_names_every_plugin_and_why_it_failed(install: Install) -> None:
    install_ten(install)
    registry = discovery.load_plugins()
    html = listing_html(registry)
    for status in registry.failed:
        assert status.name in html
    assert html.count('class="lc-error"') == len(registry.failed) == 8
    assert html.rindex('class="lc-error"') < html.index('data-sampler="zeta"')
    assert html.count("<summary>Traceback</summary>") == sum(bool(s.traceback) for s in registry.failed)
    assert 'data-sampler="alpha"' in html
    assert 'data-sampler="heun"' in html


def test_guests_see_no_paths(install: Install) -> None:
    install_ten(install)
    html = listing_html(discovery.load_plugins(), tracebacks=False)
    assert "Traceback" not in html
    assert "<code>" not in html


def test_without_any_from_outside_it_says_how_to_write_one(registry: Registry) -> None:
    assert "No external plugins" in listing_html(registry)
    assert "--plugins-dir" in module.HOW


def test_the_example_on_the_page_is_a_plugin_that_passes(tmp_path: Path) -> None:
    from core.conformance import check_sampler

    (tmp_path / "my_euler.py").write_text(EXAMPLE)
    loaded = discovery.load_plugins(directory=tmp_path)
    assert "my_euler" in loaded.samplers
    assert check_sampler(loaded.sampler("my_euler")).passed


def test_findings_are_a_table_and_escaped() -> None:
    html = report_html(REPORT)
    assert "&lt;b&gt;euler" in html
    assert "&lt;2&gt;" in html
    assert "broken: rule 2; 1 of 3 rules hold" in html
    assert "eta=0.5" in html
    assert html.count("<tr>") == 4


def test_a_check_shows_progress_then_findings(registry: Registry, fake: type[FakeCheck]) -> None:
    tab = made(registry, directory=Path("somewhere"), enabled=True)
    shown = [step[0] for step in tab.on_check("ddim", "eta=0.5")]
    assert ["in its own process" in html for html in shown] == [True, True, True, False]
    assert "lc-findings" in shown[-1]
    assert fake.asked == ("ddim", {"eta": "0.5"}, {"directory": Path("somewhere"), "enabled": True})
    assert fake.stopped == 1


def test_a_page_that_goes_away_ends_the_check(registry: Registry, fake: type[FakeCheck]) -> None:
    steps = made(registry).on_check("ddim", "")
    next(steps)
    steps.close()  # pyrefly: ignore[missing-attribute]
    assert fake.stopped == 1


@pytest.mark.parametrize(
    ("sampler", "options", "sentence"),
    [
        (None, "", "Choose a sampler"),
        ("nothing", "", "no sampler"),
        ("ddim", "eta", "write it as NAME=VALUE"),
        ("ddim", "eta=9", "Option eta must be"),
        ("ddim", "ets=0.5", "did you mean"),
    ],
)
def test_a_bad_choice_is_one_sentence(
    registry: Registry, fake: type[FakeCheck], sampler: str | None, options: str, sentence: str
) -> None:
    (only,) = made(registry).on_check(sampler, options)
    assert sentence in only[0]
    assert 'role="alert"' in only[0]
    assert fake.stopped == 0


def test_the_real_process_says_what_the_command_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command line stands in for itself: what it is asked, and each way it can answer."""
    answers = tmp_path / "answer.py"
    answers.write_text(
        "import json, sys, time\n"
        "words = sys.argv[1:]\n"
        "name = words[-1]\n"
        "if name == 'slow': time.sleep(60)\n"
        "if name == 'bad': print('latentcanvas: error: it is bad.', file=sys.stderr); sys.exit(2)\n"
        "if name == 'mute': sys.exit(3)\n"
        "print(json.dumps({'samplers': [{'sampler': name, 'words': words}]}))\n"
    )
    monkeypatch.setattr(sampler_check, "COMMAND", (sys.executable, str(answers)))
    check = Check("heun", {"eta": "1"}, directory=tmp_path, enabled=False)
    assert check.wait(60)
    said = check.report()["words"]
    assert said[:3] == ["samplers", "check", "--json"]
    assert said[3:] == ["--option", "eta=1", "--plugins-dir", str(tmp_path), "--no-plugins", "--", "heun"]
    for name, sentence in (("bad", "it is bad."), ("mute", "without a message")):
        check = Check(name)
        assert check.wait(60)
        with pytest.raises(UserError, match=sentence):
            check.report()
    slow = Check("slow", seconds=0.2)
    assert not slow.wait(0.01)
    time.sleep(0.3)
    with pytest.raises(UserError, match="took more than"):
        slow.wait(0.01)
    assert slow.process.poll() is not None


def test_the_commands_report_is_what_the_page_reads() -> None:
    """The page's table is made from the keys that the report really has."""
    from core.conformance.report import Finding, Report

    report = Report("heun", "latentcanvas", "1", {}, (Finding(1, "steps", True, 12, "as many as asked"),))
    html = report_html(json.loads(json.dumps(report.to_dict())))
    assert "1 of 1 rules hold" in html
    assert "as many as asked" in html


@pytest.mark.slow
def test_a_built_in_sampler_checked_for_real() -> None:
    check = Check("euler")
    while not check.wait(1.0):
        pass
    assert check.report()["passed"] is True
