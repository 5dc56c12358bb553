"""A person's styles and presets: what is kept, what is refused, and what becomes of a damaged file."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UserError
from tests.core.recipes import patient, texts
from ui.service import styles as module
from ui.service.styles import Style, Styles, apply_styles, config_folder, merge, read_csv, styles_path

SKETCH = Style("sketch", "pencil drawing of {prompt}, paper", "colour")
NIGHT = Style("night", "at night")
CSV = '''name,prompt,negative_prompt
None,,
Sketch,"pencil drawing of {prompt}, paper",colour
------,,
Night,"at night, ""dark""",
Nothing but no,,"blurry,
noisy"
'''


@pytest.fixture
def store(tmp_path: Path) -> Styles:
    return Styles(tmp_path / "deep" / "styles.json")


@pytest.mark.parametrize(
    ("words", "style", "merged"),
    [
        ("a cat", "pencil drawing of {prompt}", "pencil drawing of a cat"),
        ("a cat", "{prompt} and {prompt}", "a cat and a cat"),
        ("a cat", "at night", "a cat, at night"),
        ("", "at night", "at night"),
        ("a cat", " ", "a cat"),
    ],
)
def test_a_style_takes_the_words_in(words: str, style: str, merged: str) -> None:
    assert merge(words, style) == merged


def test_styles_act_one_after_the_other() -> None:
    assert apply_styles("a cat", "dog", [SKETCH, NIGHT]) == (
        "pencil drawing of a cat, paper, at night",
        "dog, colour",
    )
    assert apply_styles("a cat", "", [NIGHT, SKETCH])[0] == "pencil drawing of a cat, at night, paper"


def test_what_is_saved_is_there_in_another_process(store: Styles) -> None:
    store.save_style(SKETCH)
    store.save_style(NIGHT)
    store.save_preset("tall", {"prompt": "a tower", "width": 96, "options": {"eta": 0.5}})
    again = Styles(store.path)
    assert again.styles() == [NIGHT, SKETCH]
    assert again.style("night") == NIGHT
    assert again.preset("tall") == {"prompt": "a tower", "width": 96, "options": {"eta": 0.5}}
    assert again.apply("a cat", "", ["night"]) == ("a cat, at night", "")
    again.delete_style("night")
    again.delete_preset("tall")
    assert (store.styles(), store.presets()) == ([SKETCH], [])


def test_nothing_is_there_before_the_first_save(store: Styles) -> None:
    assert (store.styles(), store.presets(), store.trouble) == ([], [], "")
    assert not store.path.parent.exists()


@given(st.lists(st.tuples(texts, texts, texts), max_size=4))
@patient
def test_any_words_survive_the_file(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[str, ...]]
) -> None:
    store, kept = Styles(tmp_path_factory.mktemp("styles") / "styles.json"), {}
    for name, prompt, negative in pieces:
        try:
            style = Style(name, prompt, negative)
        except UserError:
            continue
        store.save_style(style)
        kept[style.name] = style
    assert {style.name: style for style in store.styles()} == kept


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Style("  ", "x"), "needs a name"),
        (lambda: Style("x" * 101, "x"), "1 to 100"),
        (lambda: Style("empty", " "), "is empty"),
        (lambda: Style("bad", "a\0b"), "is not allowed"),
        (lambda: apply_styles("(a", "", [Style("b", "{prompt} [c:")]), None),
    ],
)
def test_what_is_no_style_is_refused(make: object, sentence: str | None) -> None:
    assert callable(make)
    if sentence is None:
        make()  # an open bracket is text, as the prompt's syntax has it
        return
    with pytest.raises(UserError, match=sentence):
        make()


def test_unknown_names_get_the_nearest(store: Styles) -> None:
    store.save_style(SKETCH)
    with pytest.raises(UserError, match="did you mean 'sketch'"):
        store.apply("a cat", "", ["skech"])
    with pytest.raises(UserError, match="no preset 'x'"):
        store.preset("x")
    with pytest.raises(UserError, match="no style 'x'"):
        store.delete_style("x")


@pytest.mark.parametrize(
    "values", [{"x": float("nan")}, {"x": object()}, {"x": "\ud800"}, {"x": "a" * 200_000}]
)
def test_a_preset_holds_only_what_a_file_can(store: Styles, values: dict[str, object]) -> None:
    with pytest.raises(UserError, match="preset p"):
        store.save_preset("p", values)
    assert not store.path.exists()


@pytest.mark.parametrize("damage", [b"{", b"\xff\xfe", b"[]", b'{"styles": [{"name": 3}], "presets": []}'])
def test_a_damaged_file_is_said_and_set_aside_not_overwritten(store: Styles, damage: bytes) -> None:
    store.path.parent.mkdir()
    store.path.write_bytes(damage)
    assert "is not a styles file" in store.trouble
    assert store.styles() == []
    store.save_style(NIGHT)
    assert (store.styles(), store.trouble) == ([NIGHT], "")
    aside = [path for path in store.path.parent.iterdir() if "damaged" in path.name]
    assert [path.read_bytes() for path in aside] == [damage]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="file"):
        Styles(tmp_path / "file" / "styles.json").save_style(NIGHT)


def test_there_is_a_limit_to_how_many(store: Styles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 1)
    store.save_style(NIGHT)
    with pytest.raises(UserError, match="at most 1"):
        store.save_style(SKETCH)
    assert store.styles() == [NIGHT]


def test_threads_lose_nothing(store: Styles) -> None:
    threads = [threading.Thread(target=store.save_style, args=(Style(f"style {i}", "x"),)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.styles()) == 12


# Import of A1111's file.


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_the_file_of_a1111_is_taken_in(store: Styles, tmp_path: Path, encoding: str) -> None:
    (tmp_path / "styles.csv").write_bytes(CSV.replace("\n", "\r\n").encode(encoding))
    store.save_style(Style("Night", "dusk"))
    came = store.import_csv(tmp_path / "styles.csv")
    assert (came.added, came.changed) == (("Sketch", "Nothing but no"), ("Night",))
    assert str(came) == "2 styles added, 1 replaced"
    assert store.style("Night").prompt == 'at night, "dark"'
    assert store.style("Nothing but no").negative.split() == ["blurry,", "noisy"]
    assert store.style("Sketch").prompt == SKETCH.prompt


def test_old_files_call_the_prompt_text() -> None:
    assert read_csv("name,text\nNight,at night\n")[0] == [Style("Night", "at night")]


def test_a_line_that_is_no_style_is_left_out_and_named() -> None:
    found, left_out = read_csv(f"name,prompt,negative_prompt\n{'x' * 200},a,b\nNight,at night,\n")
    assert [style.name for style in found] == ["Night"]
    assert len(left_out) == 1
    assert "line 2" in left_out[0]


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "name,negative_prompt\nx,y\n", b"\x89PNG\r\n\x1a\n\x81"])
def test_another_file_is_refused(store: Styles, text: str | bytes) -> None:
    with pytest.raises(UserError, match=r"not a styles\.csv"):
        store.import_csv(text)
    with pytest.raises(UserError, match="cannot be read"):
        store.import_csv(store.path.parent / "none.csv")


# Where the file is.


def test_where_the_file_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LATENTCANVAS_CONFIG", str(tmp_path))
    assert config_folder() == tmp_path
    assert Styles().path == tmp_path / "styles.json"
    mine, yours = styles_path("token"), styles_path("../../other")
    assert mine != yours
    assert {mine.parent, yours.parent} == {tmp_path / "guests"}
    monkeypatch.delenv("LATENTCANVAS_CONFIG")
    assert config_folder().name == "latentcanvas"


def test_the_file_is_plain_json(store: Styles) -> None:
    store.save_style(NIGHT)
    assert json.loads(store.path.read_text(encoding="utf-8")) == {
        "format": 1,
        "styles": [{"name": "night", "prompt": "at night", "negative": ""}],
        "presets": [],
    }
