"""The history: what is kept of a run, and finding it again."""

from __future__ import annotations

import io
import json
import math
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.errors import UserError
from core.history import Filter, History
from core.recipes.recipe import ModelRef
from core.request.settings import Branch, Settings
from tests.core.histories import asked, execute, keep, save
from tests.core.recipes import RECIPE

HARD = "A red house (big:1.2) and a café, not here 🏠 日本の家"
OTHER = ModelRef(name="other", sha256="f" * 64)


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "outputs")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> History:
    """Two runs, for looking only."""
    history = History(tmp_path_factory.mktemp("searched"))
    keep(history, prompt=HARD, negative="blurry")
    keep(history, prompt="something else", negative="")
    return history


def prompts(history: History, text: str = "", **filters: Any) -> list[str]:
    found = [row.settings.prompt for row in history.search(text, **filters)]
    assert history.count(text, **filters) == len(found)
    return found


def test_a_run_comes_back_as_it_was_kept(history: History) -> None:
    names = save(history.folder, asked(batch=2))
    (history.folder / "000001.steps.safetensors").write_bytes(b"steps")
    row = history.add(
        names=names,
        steps="000001.steps.safetensors",
        settings=asked(batch=2),
        model=RECIPE.model,
        evals=20,
        seconds=1.5,
        stopped=True,
        owner="me",
        parent="someone",
        parent_step=4,
        created=1000.5,
    )
    assert History(history.folder).get(row.id) == row
    assert (row.names, row.evals, row.seconds, row.stopped) == (tuple(names), 20, 1.5, True)
    assert (row.owner, row.parent, row.parent_step, row.created) == ("me", "someone", 4, 1000.5)
    assert (row.model, row.model_sha256) == (RECIPE.model.name, RECIPE.model.sha256)
    assert history.path(row.names[0]).is_file()
    assert json.loads(json.dumps(row.to_dict()))["settings"] == row.settings.to_dict()


def test_newest_first_in_pages(history: History) -> None:
    for i in range(5):
        keep(history, prompt=str(i), row={"created": float(i)})
    assert prompts(history) == ["4", "3", "2", "1", "0"]
    pages = [[row.settings.prompt for row in history.search(limit=2, offset=o)] for o in (0, 2, 4, 6)]
    assert pages == [["4", "3"], ["2", "1"], ["0"], []]


def test_filters(history: History) -> None:
    first = keep(history, prompt="a", sampler="euler", row={"created": 10.0})
    keep(history, prompt="b", model=OTHER, row={"created": 20.0, "owner": "guest"})
    history.star(first.id)
    assert prompts(history, sampler="euler") == ["a"]
    assert prompts(history, model="other") == ["b"]
    assert prompts(history, model="other", sampler="euler") == []
    assert prompts(history, since=20.0) == ["b"]
    assert prompts(history, until=20.0) == ["a"]
    assert prompts(history, starred=True) == ["a"]
    assert prompts(history, starred=False) == ["b"]
    assert prompts(history, "a", starred=False) == []
    assert history.models() == ["other", "tiny"]
    assert history.samplers() == ["ddim", "euler"]
    assert (history.models("guest"), history.samplers("guest")) == (["other"], ["ddim"])
    history.star(first.id, False)
    assert prompts(history, starred=True) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", True),
        ("   ", True),
        ('"', True),
        ('""', True),
        ("*", True),
        ("- ( ) : ^", True),
        ("hou", True),
        ("HOUSE red", True),
        ("Café", True),
        ("cafe", True),
        ("red-house", True),
        ("(red", True),
        ('"red house"', True),
        ('"red hou', True),
        ('"red hou"', False),
        ('"house red"', False),
        ("blurry", True),  # in the negative prompt
        ("house blurry", True),
        ("house nothing", False),
        ("🏠", True),
        ("🏠 house", True),
        ("🐈", False),
        ("本の", True),
        ("本は", False),
        ("AND", True),
        ("NOT red", True),
        ("red OR", False),
        ("NEAR(red, house)", False),
        ("prompt:red", False),
        ("negative : red", False),
        ("red'); DROP TABLE runs; --", False),
        ("\ud800", True),
        ("red\0house", True),
        ("x" * 5000, False),
        (" ".join(["red"] * 500), True),
    ],
)
def test_search_takes_anything_for_words(searched: History, text: str, found: bool) -> None:
    assert (HARD in prompts(searched, text)) is found


def test_search_marks_no_bounds_of_words_in_weights(history: History) -> None:
    keep(history, prompt="a (red house:1.3) on a hill")
    assert len(prompts(history, "red house hill")) == 1
    assert prompts(history, "ouse") == []


def test_half_characters_find_nothing(history: History) -> None:
    keep(history)
    odd = "\ud800"
    for name in ("model", "sampler", "owner"):
        assert prompts(history, **{name: odd}) == []
    assert [*history.branches(odd), *history.tree(odd), *history.thumbnails(odd)] == []
    assert history.covers([odd]) == {}
    assert history.delete([odd]) == 0
    for look in (history.get, history.named, history.star):
        with pytest.raises(UserError):
            look(odd)


def test_a_filter_is_values_and_never_sql() -> None:
    condition, values = Filter(text="a ' b", model="x' OR 1 --", owner="").sql()
    assert "x'" not in condition
    assert values == ["x' OR 1 --", "", '"a" * AND "b" *']


def test_owners_see_their_own(history: History) -> None:
    mine, theirs = keep(history, prompt="mine", row={"owner": "me"}), keep(history, prompt="theirs")
    assert prompts(history, owner="me") == ["mine"]
    assert len(prompts(history)) == 2
    assert history.get(mine.id, "me") == mine
    assert history.covers([mine.id, theirs.id], "me").keys() == {mine.id}
    assert history.thumbnails(theirs.id, "me") == []
    assert history.delete([theirs.id], "me") == 0
    for refused in (lambda: history.get(theirs.id, "me"), lambda: history.star(theirs.id, owner="me")):
        with pytest.raises(UserError, match="not in the history"):
            refused()
    with pytest.raises(UserError, match="no image"):
        history.export_zip([theirs.id], history.folder / "x.zip", "me")
    assert history.path(theirs.names[0]).is_file()
    assert not history.get(theirs.id).starred


def test_families_of_branches(history: History) -> None:
    root = keep(history, prompt="root")
    left = keep(history, prompt="left", row={"parent": root.id, "parent_step": 3})
    right = keep(history, prompt="right", row={"parent": root.id, "parent_step": 5, "owner": "x"})
    leaf = keep(history, prompt="leaf", row={"parent": left.id, "parent_step": 4})
    keep(history, prompt="stranger")
    family = [root, left, right, leaf]
    for member in family:
        assert history.tree(member.id) == family
    assert history.tree(leaf.id, "x") == [right]
    assert history.branches(root.id) == [left, right]
    assert history.branches(leaf.id) == []
    assert history.tree("no such run") == []

    history.delete([root.id])
    assert history.tree(leaf.id) == [left, right, leaf]
    assert history.get(left.id).parent == root.id


def test_a_family_that_goes_round_ends(history: History) -> None:
    first = keep(history, prompt="first", row={"parent": "loop", "parent_step": 1})
    second = keep(history, prompt="second", row={"parent": first.id, "parent_step": 1})
    execute(history, "UPDATE runs SET parent = ? WHERE id = ?", second.id, first.id)
    assert {row.id for row in history.tree(first.id)} == {first.id, second.id}


def test_delete_takes_the_files_too(history: History) -> None:
    row = keep(history, batch=2)
    other = keep(history)
    steps = history.folder / "000001.steps.safetensors"
    steps.write_bytes(b"steps")
    execute(history, "UPDATE runs SET steps = ? WHERE id = ?", steps.name, row.id)
    assert history.delete([row.id, "no such run"]) == 1
    assert sorted(path.name for path in history.folder.glob("0*")) == list(other.names)
    assert prompts(history, "house") == [other.settings.prompt]
    with pytest.raises(UserError):
        history.get(row.id)
    assert history.delete([row.id]) == 0


def test_a_run_whose_picture_is_gone_can_be_deleted(history: History) -> None:
    row = keep(history)
    history.path(row.names[0]).unlink()
    assert history.delete([row.id]) == 1
    assert history.count() == 0


def test_thumbnails_are_small_and_made_again(history: History) -> None:
    names = save(history.folder, asked(batch=2), size=400)
    row = history.add(names=names, settings=asked(batch=2), model=RECIPE.model)
    first, second = history.thumbnails(row.id)
    with Image.open(io.BytesIO(first)) as image:
        assert (image.format, image.size) == ("JPEG", (256, 256))
    assert first != second
    assert history.covers([row.id]) == {row.id: first}
    execute(history, "UPDATE pictures SET thumbnail = NULL")
    assert history.thumbnails(row.id) == [first, second]
    assert execute(history, "SELECT count(thumbnail) FROM pictures") == [(2,)]
    execute(history, "UPDATE pictures SET thumbnail = NULL")
    history.path(names[0]).unlink()
    assert history.thumbnails(row.id) == [b"", second]


def test_export_holds_the_pictures_byte_for_byte(history: History, tmp_path: Path) -> None:
    row, other = keep(history, batch=2, row={"owner": "secret"}), keep(history, prompt="other")
    history.star(other.id)
    path = tmp_path / "runs.zip"
    assert history.export_zip([other.id, row.id], path) == path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        listed = json.loads(archive.read("runs.json"))
        for name in (*row.names, *other.names):
            assert archive.read(name) == history.path(name).read_bytes()
    assert [(run["id"], run["starred"], run["owner"]) for run in listed] == [
        (row.id, False, ""),
        (other.id, True, ""),
    ]
    assert listed[0]["settings"] == row.settings.to_dict()

    history.path(row.names[0]).unlink()
    history.export_zip([row.id], path)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [row.names[1], "runs.json"]


def test_names_stay_in_the_folder(history: History, tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"not ours")
    (history.folder / "sub").symlink_to(tmp_path, target_is_directory=True)
    (history.folder / "notes.txt").write_bytes(b"not ours")
    wrong = ("../outside.png", str(outside), "..\\outside.png", "", "sub/outside.png", "C:outside.png")
    for name in (*wrong, "notes.txt", "history.sqlite", ".hidden.png"):
        with pytest.raises(UserError, match="not a file of the history"):
            history.add(names=[name], settings=asked(), model=RECIPE.model)
        with pytest.raises(UserError):
            history.path(name)
    assert history.count() == 0


@pytest.mark.parametrize("name", ["../outside.png", "history.sqlite", "sub/x.png", b"000001.png", 3])
def test_a_database_of_somebody_else_deletes_and_shows_nothing_outside(
    history: History, tmp_path: Path, name: object
) -> None:
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"not ours")
    row, sound = keep(history), keep(history)
    execute(history, "UPDATE pictures SET name = ? WHERE name = ?", name, row.names[0])
    assert history.search() == [sound]
    assert history.delete([row.id]) == 0
    with pytest.raises(UserError, match="cannot be read"):
        history.get(row.id)
    assert outside.exists()
    assert history.delete([sound.id]) == 1


@pytest.mark.parametrize(
    "change",
    [
        *("created = 1e300", "created = -1", "created = 'x'", "evals = 'many'", "seconds = 'x'"),
        *("owner = x'00'", "parent_step = -1"),
        *("settings = '[[['", f"settings = '{'[' * 100_000}'", "settings = x'ff'", "steps = '../x.png'"),
    ],
    ids=lambda change: str(change)[:20],
)
def test_a_row_that_is_not_sound_is_passed_over(history: History, change: str) -> None:
    row, sound = keep(history), keep(history)
    execute(history, f"UPDATE runs SET {change} WHERE id = ?", row.id)
    assert history.search() == [sound]


def test_a_run_needs_a_picture_that_is_there(history: History) -> None:
    with pytest.raises(UserError, match="without an image"):
        history.add(names=[], settings=asked(), model=RECIPE.model)
    with pytest.raises(UserError, match="does not exist"):
        history.add(names=["000009.png"], settings=asked(), model=RECIPE.model)


def test_sync_finds_pictures_without_a_row(history: History) -> None:
    known = keep(history)
    [name] = save(history.folder, asked(prompt="from the command line", seed=7))
    (history.folder / name).with_suffix(".steps.safetensors").write_bytes(b"steps")
    Image.new("RGB", (8, 8)).save(history.folder / "without.png")
    (history.folder / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n...")
    assert history.sync() == 1
    assert history.sync() == 0
    [found] = history.search("command line")
    assert found.names == (name,)
    assert found.settings == asked(prompt="from the command line", seed=7)
    assert (found.owner, found.steps, found.model_sha256) == (
        "",
        name.replace(".png", ".steps.safetensors"),
        RECIPE.model.sha256,
    )
    assert found.created == (history.folder / name).stat().st_mtime
    assert history.get(known.id) == known
    assert len(history.thumbnails(found.id)[0]) > 100


def test_a_run_replaces_what_sync_made_of_its_pictures(history: History) -> None:
    names = save(history.folder, asked(batch=3))
    assert history.sync() == 3
    row = history.add(names=names, settings=asked(batch=3), model=RECIPE.model, owner="me")
    assert history.search() == [row]
    assert history.sync() == 0


def test_a_name_that_is_used_again_belongs_to_the_new_run(history: History) -> None:
    old = keep(history, batch=2)
    history.path(old.names[1]).unlink()
    new = keep(history, prompt="new")
    assert new.names == (old.names[1],)
    assert history.get(old.id) == replace(old, names=old.names[:1])
    assert history.get(new.id) == new


def test_the_id_outlives_the_database(history: History) -> None:
    row = keep(history)
    for path in history.folder.glob("history.sqlite*"):
        path.unlink()
    again = History(history.folder)
    assert again.get(row.id).settings == row.settings


def steps_file(path: Path, settings: Settings, **changes: Any) -> None:
    """A file of steps as core/inference/trajectory_file.py writes it, without its tensors."""
    notes = {
        "settings": settings.to_dict(),
        "stopped": True,
        "seconds": {"denoise": 1.0, "decode": 0.5},
        "steps": [[0, 3.0, 1, 2, 5.0, False], [1, 1.0, 2, 4, 5.0, False]],
        **changes,
    }
    table = json.dumps({"__metadata__": {"latentcanvas": json.dumps(notes)}}).encode()
    path.write_bytes(len(table).to_bytes(8, "little") + table)


def test_sync_finds_a_batch_whole_by_its_steps(history: History) -> None:
    settings = asked(batch=3)
    names = save(history.folder, settings)
    save(history.folder, asked(prompt="another"))
    steps_file(history.folder / "000001.steps.safetensors", settings)
    assert history.sync() == 2
    other, row = history.search()
    assert (row.names, row.settings, row.steps) == (tuple(names), settings, "000001.steps.safetensors")
    assert (row.evals, row.seconds, row.stopped) == (2, 1.5, True)
    assert other.names == ("000004.png",)


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": [[0, 3.0, math.inf, 2, 5.0, False]]},
        {"steps": [[0, 3.0, 2**80, 2, 5.0, False]]},
        {"steps": [[0, 3.0, -1, 2, 5.0, False]]},
        {"seconds": {"denoise": math.nan}},
        {"seconds": {"denoise": 10**400}},
        {"seconds": {"denoise": "x"}},
        {"stopped": None},
    ],
    ids=str,
)
def test_steps_with_numbers_that_cannot_be_hide_no_picture(history: History, changes: Any) -> None:
    save(history.folder, asked())
    steps_file(history.folder / "000001.steps.safetensors", asked(), **changes)
    assert history.sync() == 1
    [row] = history.search()
    assert (row.evals, row.seconds, row.stopped) == (0, 0.0, False)


@pytest.mark.parametrize("wrong", ["missing picture", "other settings", "no notes", "cut"])
def test_steps_that_do_not_belong_to_the_pictures_say_nothing(history: History, wrong: str) -> None:
    names = save(history.folder, asked(batch=3))
    steps = history.folder / "000001.steps.safetensors"
    steps_file(steps, asked(batch=3, seed=1 if wrong == "other settings" else 42))
    if wrong == "missing picture":
        history.path(names[1]).unlink()
    if wrong == "no notes":
        steps.write_bytes((2).to_bytes(8, "little") + b"{}")
    if wrong == "cut":
        steps.write_bytes(steps.read_bytes()[:20])
    history.sync()
    assert all(len(row.names) == row.settings.batch == 1 for row in history.search())
    assert history.count() == len(list(history.folder.glob("*.png")))


def test_sync_finds_what_a_run_branched_from(history: History) -> None:
    root = keep(history, prompt="root")
    save(history.folder, asked(prompt="leaf", branch=Branch(4, root.settings)))
    save(history.folder, asked(prompt="lonely", branch=Branch(4, asked(prompt="not here"))))
    assert history.sync() == 2
    [leaf] = history.branches(root.id)
    assert (leaf.settings.prompt, leaf.parent, leaf.parent_step) == ("leaf", root.id, 4)
    assert history.search("lonely")[0].parent is None


def test_sync_knows_a_stopped_run(history: History) -> None:
    save(history.folder, asked(stop_after=5))
    history.sync()
    assert history.search()[0].stopped
