"""`latentcanvas history`: list, search, star, delete, export, sync."""

from __future__ import annotations

import io
import json
import sys
import time
import zipfile
from pathlib import Path

import pytest

from core.history import History
from tests.core.histories import asked, keep, save
from tests.ui.commandline import failure, run

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    """Three runs in the folder outputs of the current one."""
    monkeypatch.chdir(tmp_path)
    history = History(tmp_path / "outputs")
    keep(history, prompt="a red house", seed=1, row={"created": 1e9})
    keep(history, prompt="a blue boat", sampler="heun", seed=2, batch=2)
    keep(history, prompt="a [red] boat", seed=3, row={"stopped": True})
    return history


def listed(capsys: Capture, *arguments: str) -> list[str]:
    code, out, _ = run(capsys, "history", *arguments, "--json")
    assert code == 0
    said = json.loads(out)
    assert said["total"] >= len(said["runs"])
    return [row["settings"]["prompt"] for row in said["runs"]]


@pytest.mark.usefixtures("history")
def test_list_and_search(capsys: Capture) -> None:
    assert listed(capsys) == ["a [red] boat", "a blue boat", "a red house"]
    assert listed(capsys, "--limit", "1") == ["a [red] boat"]
    assert listed(capsys, "--sampler", "heun") == ["a blue boat"]
    assert listed(capsys, "--model", "none") == []
    assert listed(capsys, "search", "red") == ["a [red] boat", "a red house"]
    assert listed(capsys, "search", '"red house"') == ["a red house"]
    assert listed(capsys, "search", "boat", "--sampler", "ddim") == ["a [red] boat"]


@pytest.mark.usefixtures("history")
def test_days(capsys: Capture) -> None:
    day = time.strftime("%Y-%m-%d", time.localtime(1e9))
    assert listed(capsys, "--until", day) == ["a red house"]
    assert listed(capsys, "--since", day, "--until", day) == ["a red house"]
    assert listed(capsys, "--since", "2020-01-01") == ["a [red] boat", "a blue boat"]
    for bad in ("yesterday", "2026-02-30", "9999-12-31", ""):
        assert failure(capsys, "history", "--since", bad).startswith(f"--since {bad!r}: write a day as")


@pytest.mark.usefixtures("history")
def test_the_table_is_for_people(capsys: Capture) -> None:
    code, out, _ = run(capsys, "history", "--limit", "2")
    assert code == 0
    assert out.startswith("3 runs, the newest 2 ")
    assert "a [red] boat" in out
    assert "000002.png and 1 more" in out
    assert "stopped" in out


def test_star(history: History, capsys: Capture) -> None:
    assert run(capsys, "history", "star", "000001", "2")[0] == 0
    assert listed(capsys, "--starred") == ["a blue boat", "a red house"]
    row = history.named("000001.png")
    assert run(capsys, "history", "star", row.id[:6], "--off")[0] == 0
    assert listed(capsys, "--starred") == ["a blue boat"]


def test_delete_asks_first(history: History, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    said = failure(capsys, "history", "delete", "2")
    assert said.startswith(
        "cannot ask without a terminal: add --yes to delete 1 run with 2 images (000002.png, 0"
    )
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert run(capsys, "history", "delete", "2")[0] == 130
    assert history.count() == 3
    code, out, _ = run(capsys, "history", "delete", "2", "000003.png", "--yes")
    assert (code, out) == (0, "deleted 1 run and 2 images\n")
    assert (history.count(), len(list(history.folder.glob("*.png")))) == (2, 2)


def test_export(history: History, capsys: Capture, tmp_path: Path) -> None:
    code, out, _ = run(capsys, "history", "export", "1", "2", "--to", "x.zip", "--json")
    said = json.loads(out)
    assert (code, said["path"], len(said["runs"])) == (0, "x.zip", 2)
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.namelist() == ["000001.png", "000002.png", "000003.png", "runs.json"]
        assert archive.read("000001.png") == history.path("000001.png").read_bytes()
    assert "none" in failure(capsys, "history", "export", "1", "--to", "none/x.zip")


def test_sync(history: History, capsys: Capture) -> None:
    save(history.folder, asked(prompt="new"))
    assert run(capsys, "history", "sync")[1] == "1 image added; 4 runs in all\n"
    assert json.loads(run(capsys, "history", "sync", "--json")[1]) == {"added": 0, "runs": 4}
    assert listed(capsys, "--limit", "1") == ["new"]


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("command", ["star", "delete", "export"])
def test_a_run_that_is_not_there(capsys: Capture, command: str) -> None:
    for name in ("000009", "", "abc", "99999999999999999999", "é"):
        assert "has no run with this id or image" in failure(capsys, "history", command, "1", name)


def test_no_folder_is_made_by_looking(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert failure(capsys, "history").startswith("outputs: there is no such folder")
    assert failure(capsys, "history", "sync", "--outputs", "other").startswith("other: there is no such")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("history")
def test_options_belong_to_their_command(capsys: Capture) -> None:
    assert failure(capsys, "history", "--json", "sync") == "write --json after sync."
