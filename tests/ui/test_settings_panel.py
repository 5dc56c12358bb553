"""The settings on the page: shown, saved, refused, and for guests to read alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio.context import Context

from tests.ui.fakes import in_blocks
from ui.page.tabs.settings import NOT_SHOWN, SettingsPanel
from ui.service.page_settings import FILE_NAME, SECTIONS, PageSettings, SettingsStore, is_live, read

HERE = SimpleNamespace(client=SimpleNamespace(host="127.0.0.1"), headers={"host": "localhost:7860"})
LINK = SimpleNamespace(client=SimpleNamespace(host="127.0.0.1"), headers={"host": "x.gradio.live"})


def panel_over(store: SettingsStore) -> SettingsPanel:
    def build() -> SettingsPanel:
        panel = SettingsPanel(store)
        panel.build()
        blocks = Context.root_block
        assert isinstance(blocks, gr.Blocks)
        panel.connect(blocks)
        return panel

    return in_blocks(build)


@pytest.fixture
def panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SettingsPanel:
    monkeypatch.chdir(tmp_path)
    return panel_over(SettingsStore())


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SettingsPanel:
    monkeypatch.chdir(tmp_path)
    return panel_over(SettingsStore(given={"page": {"share": True}}))


def shown(panel: SettingsPanel, asker: Any) -> dict[str, Any]:
    _, _, *updates = panel.on_load(asker)
    return {name: update for (_, name), update in zip(panel.fields, updates, strict=True)}


def save(panel: SettingsPanel, asker: Any, **changed: Any) -> tuple[str, list[Any]]:
    values = [changed.get(name, update.value) for name, update in shown(panel, asker).items()]
    notice, *updates = panel.on_save(asker, *values)
    return notice, updates


def test_every_setting_has_a_control_with_its_sentence(panel: SettingsPanel) -> None:
    assert {section for section, _ in panel.fields} == set(SECTIONS)
    assert len(panel.fields) == sum(len(kind.__dataclass_fields__) for kind in SECTIONS.values())
    for control in panel.fields.values():
        assert control.label
        assert control.info
    live = [is_live(*key) for key in panel.fields]
    assert live == sorted(live, reverse=True)  # those that take effect at once stand first


def test_nothing_changed_saves_nothing(panel: SettingsPanel) -> None:
    notice, _ = save(panel, HERE)
    assert "Saved." in notice
    assert not Path(FILE_NAME).exists()


def test_what_is_saved_is_in_force_or_said_to_be_later(panel: SettingsPanel) -> None:
    notice, updates = save(panel, HERE, keep_steps=False, previews_per_second=2, port=8000, device="cpu")
    assert "From the next start: " in notice
    assert "port" in notice
    assert "keep steps" not in notice
    page = read(Path(FILE_NAME)).page
    assert (page.keep_steps, page.previews_per_second, page.port, page.device) == (False, 2.0, 8000, "cpu")
    assert panel.store.current.page.keep_steps is False
    assert panel.store.current.page.port == 7860
    assert len(updates) == len(panel.fields)
    assert shown(panel, HERE)["port"].value == 8000
    save(panel, HERE, device="")
    assert read(Path(FILE_NAME)).page.device is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"steps": 0}, "Steps 0"),
        ({"port": None}, "Port None"),
        ({"model": ""}, "Model"),
        ({"queue": 1.5}, "1.5"),
    ],
)
def test_a_bad_value_is_said_and_nothing_is_saved(
    panel: SettingsPanel, changed: dict[str, Any], words: str
) -> None:
    notice, _ = save(panel, HERE, keep_steps=False, **changed)
    assert words in notice
    assert 'role="alert"' in notice
    assert not Path(FILE_NAME).exists()
    assert panel.store.current.page.keep_steps is True


def test_a_file_that_was_broken_meanwhile_is_said(panel: SettingsPanel) -> None:
    values = [update.value for update in shown(panel, HERE).values()]
    Path(FILE_NAME).write_text("[page")
    notice, *_ = panel.on_save(HERE, *values)  # pyrefly: ignore[bad-argument-type]
    assert "not valid TOML" in notice
    about, *_ = panel.on_load(HERE)  # pyrefly: ignore[bad-argument-type]
    assert "not valid TOML" in about


def test_what_the_command_line_said_stays_out_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    panel = panel_over(SettingsStore(given={"page": {"shared_history": True, "port": 9000}}))
    save(panel, HERE, keep_steps=False)
    assert read(Path(FILE_NAME)).page == PageSettings(keep_steps=False)
    assert panel.store.current.page.shared_history is True


def test_guests_can_read_and_not_write(shared: SettingsPanel) -> None:
    for name, update in shown(shared, LINK).items():
        assert update.interactive is False, name
    assert shown(shared, LINK)["outputs"].value == NOT_SHOWN
    assert shown(shared, LINK)["steps"].value == 100
    about, button, *_ = shared.on_load(LINK)  # pyrefly: ignore[bad-argument-type]
    assert "guest" in about
    assert button.interactive is False
    notice, _ = save(shared, LINK, steps=1000)
    assert "may change its settings" in notice
    assert not Path(FILE_NAME).exists()


def test_at_the_machine_a_shared_page_can_be_set(shared: SettingsPanel) -> None:
    assert shown(shared, HERE)["outputs"].value == "outputs"
    notice, _ = save(shared, HERE, steps=50)
    assert "Saved." in notice
    assert shared.store.current.guests.steps == 50
