"""The settings file: read, refused, written back; and the settings of a page that runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UserError
from ui.service.limits import OwnLimits
from ui.service.page_settings import (
    FILE_NAME,
    GuestLimits,
    PageConfig,
    PageSettings,
    SettingsStore,
    help_of,
    is_live,
    read,
    to_toml,
)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / FILE_NAME


# Reading.


def test_without_a_file_everything_has_its_default(file: Path) -> None:
    assert SettingsStore().current == PageConfig()


def test_a_file_says_some_and_the_rest_has_its_default(file: Path) -> None:
    file.write_text('[page]\nport = 8000\nmodel = "sd15"\n[guests]\nsteps = 30\n')
    current = SettingsStore().current
    assert (current.page.port, current.page.model, current.guests.steps) == (8000, "sd15", 30)
    assert current.page.outputs == PageSettings().outputs


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[page]\nprot = 8000", "'prot' is not known.*port"),
        ("[pages]\nport = 8000", "'pages' is not known.*page"),
        ("[page]\nport = 0", "port 0: must be a whole number between 1 and 65535"),
        ("[page]\nport = '8000'", "page.port is '8000'"),
        ("[page]\nmodel = ''", "model '': must not be empty"),
        ("[page]\nlisten = 1", "listen"),
        ("[page]\npreviews_per_second = 100", "must be a number between 0.2 and 4"),
        ("[guests]\nsteps = 100000", "steps 100000"),
        ("page = 3", "must be a table"),
        ("[page", "not valid TOML"),
    ],
)
def test_what_a_file_may_not_say(file: Path, text: str, words: str) -> None:
    file.write_text(text)
    with pytest.raises(UserError, match=words) as refused:
        SettingsStore()
    assert FILE_NAME in str(refused.value)


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        SettingsStore(tmp_path / "none.toml")
    other = tmp_path / "other.toml"
    other.write_text("[page]\nport = 9000")
    assert SettingsStore(other).current.page.port == 9000


# The command line's word.


def test_the_command_line_wins_and_is_not_written(file: Path) -> None:
    file.write_text("[page]\nport = 8000\nshare = true")
    store = SettingsStore(given={"page": {"port": 9000, "share": False}})
    assert (store.current.page.port, store.current.page.share) == (9000, False)
    store.change({"page": {"keep_steps": False}})
    assert read(file).page == PageSettings(port=8000, share=True, keep_steps=False)


def test_a_bad_value_of_the_command_line_is_refused(file: Path) -> None:
    with pytest.raises(UserError, match="port 0"):
        SettingsStore(given={"page": {"port": 0}})


# Changes while it runs.


def test_a_live_setting_is_in_force_at_once_and_written(file: Path) -> None:
    store = SettingsStore(given={"page": {"keep_steps": True}})
    assert store.change({"page": {"keep_steps": False, "previews_per_second": 2.0}}) == []
    assert store.current.page.keep_steps is False
    assert SettingsStore().current.page.previews_per_second == 2.0


def test_a_setting_for_the_next_start_is_written_and_named(file: Path) -> None:
    store = SettingsStore()
    assert store.change({"page": {"port": 8000, "keep_steps": False}}) == ["port"]
    assert store.current.page.port == PageSettings().port
    assert SettingsStore().current.page.port == 8000


def test_a_bad_change_changes_nothing(file: Path) -> None:
    store = SettingsStore()
    with pytest.raises(UserError, match="steps 0"):
        store.change({"guests": {"queue": 3, "steps": 0}})
    assert store.current == PageConfig()
    assert not file.exists()


def test_what_somebody_wrote_meanwhile_stays(file: Path) -> None:
    store = SettingsStore()
    file.write_text("[page]\nport = 8123")
    store.change({"page": {"keep_steps": False}})
    assert read(file).page == PageSettings(port=8123, keep_steps=False)


def test_a_file_that_cannot_be_written_leaves_everything(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / FILE_NAME
    path.write_text("")
    store = SettingsStore(path)
    path.unlink()
    folder.rmdir()
    with pytest.raises(UserError, match="does not exist"):
        store.change({"page": {"keep_steps": False}})
    assert store.current == PageConfig()


# The file as it is written.


def test_the_written_file_explains_itself() -> None:
    text = to_toml(PageConfig(page=PageSettings(port=8000)))
    assert tomli.loads(text) == {"page": {"port": 8000}, "guests": {}}
    for section, kind in (("page", PageSettings), ("guests", GuestLimits)):
        for item in dataclasses.fields(kind):
            assert help_of(section, item.name) in text


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(texts, texts | st.none(), st.integers(1, 65535), st.floats(0.2, 4), st.booleans())
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory,
    model: str,
    device: str | None,
    port: int,
    rate: float,
    share: bool,
) -> None:
    page = PageSettings(model=model, device=device, port=port, previews_per_second=rate, share=share)
    config = PageConfig(page=page, guests=GuestLimits(side=512))
    path = tmp_path_factory.mktemp("settings") / FILE_NAME
    path.write_text(to_toml(config), encoding="utf-8", newline="")
    assert read(path) == config


# What guests may ask for.


def test_limits_in_pixels_and_bytes() -> None:
    limits = GuestLimits(side=512, upload_mb=7)
    assert (limits.pixels, limits.upload_bytes) == (512 * 512, 7 * 1024**2)


@pytest.mark.parametrize("how", ["share", "listen"])
def test_on_a_shared_page_there_are_guests(file: Path, how: str) -> None:
    store = SettingsStore(given={"page": {how: True}, "guests": {"steps": 30}})
    assert (store.current.limits.steps, store.current.everybody_sees_all) == (30, False)
    store.change({"guests": {"steps": 40, "side": 512}, "page": {"shared_history": True}})
    assert (store.current.limits.steps, store.current.limits.pixels) == (40, 512 * 512)
    assert store.current.everybody_sees_all


def test_who_is_alone_has_no_limits_but_the_programs() -> None:
    alone = PageConfig(guests=GuestLimits(steps=1))
    assert alone.limits == OwnLimits()
    assert alone.everybody_sees_all


def test_what_needs_a_restart_is_known() -> None:
    assert not is_live("page", "port")
    assert is_live("page", "keep_steps")
    assert is_live("guests", "steps")
