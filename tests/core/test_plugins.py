"""Plugins: found by their metadata, loaded one at a time, and never able to stop anything.

Every plugin here is what pip would have installed: a module and a .dist-info folder on the path.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from core.errors import UserError
from core.plugins import current, discovery
from core.plugins.discovery import load_plugins
from core.sampling.registry import PluginStatus, Registry
from tests.strangers import GOOD, TEN_REASONS, Install, install_ten, sampler


def status(registry: Registry, name: str, distribution: str) -> PluginStatus:
    (found,) = [p for p in registry.plugins if (p.name, p.distribution) == (name, distribution)]
    return found


def test_the_built_in_ones_come_through_the_same_door() -> None:
    registry = load_plugins(enabled=False)
    assert {"ddpm", "ddim"} <= set(registry.samplers)
    assert {"leading", "linspace", "trailing", "karras"} <= set(registry.schedules)
    assert all(plugin.builtin and plugin.error is None for plugin in registry.plugins)
    ddim, ddpm = registry.sampler("ddim"), registry.sampler("ddpm")
    assert ddim.plugin == "latentcanvas"
    assert ddim.version
    assert (ddim.kind, ddpm.kind) == ("deterministic", "stochastic")
    assert ddim.draws_noise({"eta": 0.1})
    (eta,) = ddim.options
    assert (eta.name, eta.kind, eta.default, eta.low, eta.high) == ("eta", "float", 0.0, 0, 1)
    assert eta.help
    assert all(info.summary and info.title and info.paper for info in registry.samplers.values())
    assert all(info.summary and info.title for info in registry.schedules.values())


def test_a_strangers_plugin_is_registered(install: Install) -> None:
    install("stranger", "2.3", waltz=GOOD.format(name="waltz"))
    registry = load_plugins()
    info = registry.sampler("waltz")
    assert (info.title, info.order, info.evals, info.paper, info.schedule) == (
        "waltz for you", 2, 3, "arXiv:0", "karras",
    )  # fmt: skip
    assert (info.plugin, info.version, info.summary) == ("stranger", "2.3", "Does nothing of use.")
    assert (info.kind, info.options, info.draws_noise({})) == ("deterministic", (), False)
    found = status(registry, "waltz", "stranger")
    assert (found.samplers, found.error, found.builtin) == (("waltz",), None, False)
    assert "waltz (stranger 2.3): waltz" in registry.summary()
    assert "\n" not in registry.summary()


def test_eight_broken_plugins_stop_nothing(install: Install) -> None:
    """Two good ones work, and each of the others has its reason."""
    install_ten(install)
    registry = load_plugins()
    for (name, distribution), reason in TEN_REASONS.items():
        found = status(registry, name, distribution)
        assert found.error is not None
        assert reason in found.error
        assert reason in registry.summary()
        assert (found.traceback is None) == (distribution == "taking")
    assert {(p.name, p.distribution) for p in registry.failed} == set(TEN_REASONS)
    assert {"alpha", "zeta", "ddim", "ddpm"} <= set(registry.samplers)
    assert not {"m1", "m2", "m3", "m4", "m5"} & set(
        registry.samplers
    )  # what was staged before a failure is gone
    assert "\n" not in registry.summary()


def test_a_taken_name_stays_whose_it_was(install: Install) -> None:
    install("taking", m_taking=sampler("ddim"))
    registry = load_plugins()
    assert registry.sampler("ddim").plugin == "latentcanvas"
    assert registry.sampler("taking/ddim").plugin == "taking"
    assert registry.sampler("taking/ddim").name == "taking/ddim"
    found = status(registry, "m_taking", "taking")
    assert found.samplers == ("taking/ddim",)
    assert found.error is not None
    assert "'taking/ddim'" in found.error


def test_of_two_strangers_the_first_entry_point_keeps_the_name(install: Install) -> None:
    install("late", b_plugin=sampler("waltz"))
    install("early", a_plugin=sampler("waltz"))
    registry = load_plugins()
    assert registry.sampler("waltz").plugin == "early"
    assert registry.sampler("late/waltz").plugin == "late"


def test_names_of_entry_points_need_not_be_unique(install: Install, tmp_path: Path) -> None:
    install("one", plugin=sampler("waltz"), euler=sampler("polka"))  # euler is a built-in's too
    install("two", plugin=sampler("tango"))
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "plugin.py").write_text(sampler("samba"))
    registry = load_plugins(directory=tmp_path / "files")
    assert registry.failed == []
    names = {registry.sampler(name).plugin for name in ("waltz", "polka", "tango", "samba")}
    assert names == {"one", "two", "plugin.py"}


def test_a_name_that_is_taken_twice_is_an_error(install: Install) -> None:
    install(
        "taking",
        m_first=sampler("ddim"),
        m_second=sampler("ddim") + "    register('other', run, title='T')\n",
    )
    registry = load_plugins()
    second = status(registry, "m_second", "taking")
    assert second.error is not None
    assert "both taken" in second.error
    assert "other" not in registry.samplers


def test_a_schedule_of_a_stranger(install: Install) -> None:
    source = """
from latentcanvas import hookimpl
def halves(model, steps):
    "Half as much each step."
    return [model.sigma_max / 2**i for i in range(steps)] + [0]
@hookimpl
def register_schedules(register):
    register("halves", halves, title="Halves")
"""
    install("halving", m_halves=source)
    registry = load_plugins()
    assert registry.schedule("halves").summary == "Half as much each step."
    assert status(registry, "m_halves", "halving").schedules == ("halves",)


BAD_CALLS = {
    "register('Big Name', run, title='T')": "'Big Name' is not a valid name",
    "register('a/b', run, title='T')": "'a/b' is not a valid name",
    "register(run, 'w', title='T')": "is not a valid name",
    "register('w', run, title='')": "needs a title",
    "register('w', run)": "title",
    "register('w', run, title='T', order=0)": "order must be a whole number",
    "register('w', run, title='T', evals=1.5)": "evals must be a whole number",
    "register('w', run, title='T', stochastic='eta')": "stochastic must be true, false or an option",
    "register('w', run, title='T', schedule=['karras'])": "paper and schedule must be text or None",
    "register('w', run, title='T', colour='red')": "colour",
    "register('w', 3, title='T')": "not a Python function",
    "(register('w', run, title='T'), register('w', run, title='T'))": "registers 'w' twice",
}


@pytest.mark.parametrize("call", BAD_CALLS)
def test_a_bad_registration_says_what(install: Install, call: str) -> None:
    install("calling", m_calling=sampler("w").replace("register('w', run, title='T')", call))
    registry = load_plugins()
    error = status(registry, "m_calling", "calling").error
    assert error is not None
    assert BAD_CALLS[call] in error
    assert "w" not in registry.samplers


def test_a_schedule_with_another_signature_is_refused(install: Install) -> None:
    source = (
        "from latentcanvas import hookimpl\ndef grid(steps):\n    return []\n"
        "@hookimpl\ndef register_schedules(register):\n    register('grid', grid, title='G')\n"
    )
    install("gridding", m_grid=source)
    error = status(load_plugins(), "m_grid", "gridding").error
    assert error is not None
    assert "grid(steps) must take (model, steps)" in error


def test_a_module_without_hooks_is_told_how(install: Install) -> None:
    install("undecorated", m_bare=GOOD.format(name="w").replace("@hookimpl", ""))
    error = status(load_plugins(), "m_bare", "undecorated").error
    assert error is not None
    assert "@hookimpl" in error


def test_a_hook_with_another_argument_is_refused(install: Install) -> None:
    install("arguing", m_arg=GOOD.format(name="w").replace("(register)", "(samplers)"))
    error = status(load_plugins(), "m_arg", "arguing").error
    assert error is not None
    assert "samplers" in error


def test_a_preferred_schedule_that_nobody_has_is_let_go_and_said(install: Install) -> None:
    install("liking", m_liking=GOOD.format(name="w").replace("karras", "mars"))
    registry = load_plugins()
    assert registry.sampler("w").schedule is None
    error = status(registry, "m_liking", "liking").error
    assert error is not None
    assert "'mars'" in error


def test_a_plugin_that_prints_leaves_standard_output_alone(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("loud", m_loud="print('hello')\n" + GOOD.format(name="w"))
    assert "w" in load_plugins().samplers
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\n")


def test_an_interrupt_is_not_a_broken_plugin(install: Install) -> None:
    install("interrupting", m_int="raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_plugins()


def test_what_a_build_left_beside_the_source_does_not_hide_what_is_installed(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("stranger", "2.0", waltz=GOOD.format(name="waltz"))
    left = tmp_path / "checkout" / "stranger.egg-info"
    left.mkdir(parents=True)
    (left / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (left / "entry_points.txt").write_text("[latentcanvas]\nold = lcplug_no_such_module\n")
    (left / "SOURCES.txt").write_text("setup.py\n")
    monkeypatch.syspath_prepend(str(left.parent))
    registry = load_plugins()
    assert registry.sampler("waltz").version == "2.0"
    assert registry.failed == []


def test_broken_metadata_stops_nothing(install: Install, tmp_path: Path) -> None:
    install("good", m_good=GOOD.format(name="w"))
    install("garbled")
    (tmp_path / "garbled-1.0.dist-info" / "entry_points.txt").write_text("[latentcanvas]\nno equals sign\n")
    registry = load_plugins()
    assert "w" in registry.samplers
    assert status(registry, "garbled", "garbled").error


def test_two_entry_points_to_one_module_load_it_once(install: Install, tmp_path: Path) -> None:
    install("double", m_a=GOOD.format(name="w"))
    points = tmp_path / "double-1.0.dist-info" / "entry_points.txt"
    points.write_text("[latentcanvas]\nm_a = lcplug_double_m_a\nm_b = lcplug_double_m_a\n")
    registry = load_plugins()
    assert registry.sampler("w").plugin == "double"
    assert status(registry, "m_a", "double").error is None
    assert status(registry, "m_b", "double").error


def test_the_environment_chooses(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("some-one", m_one=GOOD.format(name="one"))
    install("some-two", m_two=GOOD.format(name="two"))
    for choice, chosen in {
        "m_one": {"one"},
        "some-two": {"two"},
        "": set(),
        " m_one , m_two": {"one", "two"},
    }.items():
        monkeypatch.setenv(discovery.CHOICE, choice)
        found = set(load_plugins().samplers)
        assert found & {"one", "two"} == chosen
        assert {"ddim", "ddpm"} <= found
    monkeypatch.setenv(discovery.CHOICE, "m_one,m_three")
    registry = load_plugins()
    assert [p.name for p in registry.failed] == ["m_three"]
    assert load_plugins(enabled=False).failed == []


def test_none_but_the_built_in_ones(install: Install, tmp_path: Path) -> None:
    install("good", m_good=GOOD.format(name="w"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "single.py").write_text(GOOD.format(name="single"))
    registry = load_plugins(directory=tmp_path / "folder", enabled=False)
    assert all(plugin.builtin for plugin in registry.plugins)
    assert not {"w", "single"} & set(registry.samplers)


def test_single_files_in_a_folder(install: Install, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "single.py").write_text(GOOD.format(name="single"))
    (folder / "broken.py").write_text("1 +\n")
    (folder / "_helper.py").write_text("raise ValueError\n")
    (folder / "notes.txt").write_text("no plugin\n")
    registry = load_plugins(directory=folder)
    info = registry.sampler("single")
    assert info.plugin == "single.py"
    assert len(info.version) == 10
    assert [p.distribution for p in registry.failed] == ["broken.py"]
    assert (registry.failed[0].error or "").startswith("SyntaxError")
    assert "latentcanvas_plugin_broken" not in sys.modules


def test_a_folder_that_is_none_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"plugins folder .*nowhere does not exist"):
        load_plugins(directory=tmp_path / "nowhere")


def test_an_unknown_name_names_the_nearest() -> None:
    registry = load_plugins(enabled=False)
    with pytest.raises(UserError, match="There is no sampler 'ddin'; did you mean 'ddi"):
        registry.sampler("ddin")
    with pytest.raises(UserError, match=r"There is no schedule 'karas'; did you mean 'karras'\?"):
        registry.schedule("karas")
    with pytest.raises(UserError, match=r"There is no sampler 'xyz'; known are .*ddim.*\.$"):
        registry.sampler("xyz")
    with pytest.raises(UserError, match=r"There is no sampler 'x'; known are none\."):
        Registry().sampler("x")


def test_the_registry_of_the_process_is_made_once(tmp_path: Path) -> None:
    (tmp_path / "single.py").write_text(GOOD.format(name="single"))
    try:
        current.configure(directory=tmp_path)
        assert current.registry() is current.registry()
        assert "single" in current.samplers()
        current.configure(enabled=False)
        assert "single" not in current.samplers()
        assert "karras" in current.schedules()
    finally:
        current.configure()
        sys.modules.pop("latentcanvas_plugin_single", None)
