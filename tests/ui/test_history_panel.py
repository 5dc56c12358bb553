"""The history tab without a browser: what it answers to whom, and how a run is put in words."""

from __future__ import annotations

import base64
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from core.errors import UserError
from core.history import History
from tests.core.histories import asked, keep, save
from tests.core.recipes import RECIPE
from tests.ui.fakes import in_blocks
from ui.page.tabs import history as tab
from ui.page.tabs.history import HistoryPanel
from ui.page.widgets.history import words


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "outputs")


def panel_of(history: History, *, guests: bool = False, **more: Any) -> HistoryPanel:
    """A panel whose opened runs are put in a text box; with `guests` a token sees its own runs alone."""
    panel = HistoryPanel(lambda: history, lambda token: token if guests else None, **more)

    def opened(token: str, run: str) -> Sequence[Any]:
        if history.get(run).settings.prompt == "no":
            raise UserError("this run cannot be opened")
        return [f"{token}: {run}"]

    def build() -> None:
        panel.build()
        panel.connect(gr.Textbox(), opened, [gr.Textbox()])

    in_blocks(build)
    return panel


def event(**data: Any) -> gr.EventData:
    return gr.EventData(None, data)


def page(panel: HistoryPanel, token: str = "", **data: Any) -> dict[str, Any]:
    said: dict[str, Any] = panel.on_ask(token, event(**{"seq": 1, "offset": 0, **data})).props["page"]
    return said


def prompts(panel: HistoryPanel, token: str = "", **data: Any) -> list[str]:
    said = page(panel, token, **data)
    assert said["total"] == len(said["rows"])
    return [row["prompt"] for row in said["rows"]]


def done(answer: Any) -> dict[str, Any]:
    assert answer.props["done"]["nonce"]
    said: dict[str, Any] = answer.props["done"]
    return said


def test_pages_and_filters(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tab, "PAGE", 4)
    for i in range(6):
        keep(history, prompt=f"run {i}", sampler="heun" if i < 3 else "ddim", row={"created": float(i)})
    panel = panel_of(history)
    first, second = page(panel), page(panel, offset=4, seq=7)
    assert (len(first["rows"]), len(second["rows"]), first["total"]) == (4, 2, 6)
    assert (second["seq"], second["offset"]) == (7, 4)
    assert (first["models"], first["samplers"]) == (["tiny"], ["ddim", "heun"])
    assert first["rows"][0]["small"].startswith("data:image/jpeg;base64,")
    assert prompts(panel, sampler="heun") == ["run 2", "run 1", "run 0"]
    assert prompts(panel, sampler="heun", since=1, until=2.0) == ["run 1"]
    assert prompts(panel, text="4") == ["run 4"]
    assert prompts(panel, starred=True) == []


def test_whatever_the_browser_says(history: History) -> None:
    keep(history, prompt="one")
    panel = panel_of(history)
    odd: list[Any] = [None, "x", -1, 1.5, float("nan"), float("inf"), True, [], {}, 10**30, "\ud800"]
    for value in odd:
        assert len(page(panel, offset=value)["rows"]) == 1
        for name in ("text", "model", "sampler", "since", "until", "starred"):
            assert "error" not in page(panel, **{name: value})
        for answer in (panel.on_star("", event(runs=value)), panel.on_remove("", event(runs=value))):
            done(answer)
        assert panel.on_choose("", event(run=value, image=value)).props["run"]["error"]
        assert done(panel.on_reopen("", event(run=value))[0])["error"]
        assert done(panel.on_pack("", event(runs=[value]))[0])["error"]
    assert history.count() == 1


def test_one_run_whole(history: History) -> None:
    root = keep(history, prompt="root", batch=2)
    leaf = keep(history, prompt="leaf", row={"parent": root.id, "parent_step": 5})
    panel = panel_of(history)
    run = panel.on_choose("", event(run=root.id, image=1)).props["run"]
    data = base64.b64decode(run["uri"].removeprefix("data:image/png;base64,"))
    assert data == history.path(root.names[1]).read_bytes()
    assert (len(run["smalls"]), run["names"]) == (2, list(root.names))
    assert [(m["id"], m["step"]) for m in run["family"]] == [(root.id, None), (leaf.id, 5)]
    assert dict(run["words"])["Seed"] == "43"

    history.path(root.names[0]).unlink()
    run = panel.on_choose("", event(run=root.id, image=0)).props["run"]
    assert run["uri"] == ""
    assert "not in the history" in panel.on_choose("", event(run="none")).props["run"]["error"]


def test_a_guest_has_only_their_own(history: History) -> None:
    mine, theirs = keep(history, prompt="mine", row={"owner": "me"}), keep(history, row={"owner": "them"})
    keep(history, prompt="found on the disk")
    panel = panel_of(history, guests=True)
    assert prompts(panel, "me") == ["mine"]
    assert prompts(panel, "") == prompts(panel, "nobody") == []
    assert "data:" not in str(page(panel, "nobody"))
    for token in ("me", ""):
        assert panel.on_choose(token, event(run=theirs.id)).props["run"]["error"]
        assert done(panel.on_star(token, event(runs=[theirs.id], on=True)))["error"]
        assert done(panel.on_reopen(token, event(run=theirs.id))[0])["error"]
        answer, path = panel.on_pack(token, event(runs=[theirs.id]))
        assert done(answer)["error"]
        assert path is None
    assert done(panel.on_remove("me", event(runs=[theirs.id, mine.id])))["removed"] == [mine.id]
    assert (history.count(), history.get(theirs.id).starred) == (2, False)


def test_stars_opening_and_deleting(history: History) -> None:
    forgotten: list[str] = []
    row, no = keep(history, prompt="yes"), keep(history, prompt="no")
    panel = panel_of(history, forget=forgotten.extend)
    assert done(panel.on_star("", event(runs=[row.id], on=True)))["starred"] == [row.id]
    assert history.get(row.id).starred
    assert done(panel.on_star("", event(runs=[row.id], on=False)))["unstarred"] == [row.id]
    answer, update = panel.on_reopen("t", event(run=row.id))
    assert update == f"t: {row.id}"
    assert "error" not in done(answer)
    answer, update = panel.on_reopen("t", event(run=no.id))
    assert done(answer)["error"] == "This run cannot be opened."
    assert update == gr.skip()
    assert done(panel.on_remove("", event(runs=[row.id])))["removed"] == forgotten == [row.id]
    assert not history.path(row.names[0]).exists()


def test_a_zip_lies_where_nobody_can_guess(history: History) -> None:
    row = keep(history, batch=2)
    panel = panel_of(history)
    answer, path = panel.on_pack("", event(runs=[row.id]))
    assert "error" not in done(answer)
    assert path is not None
    assert Path(path).is_relative_to(panel.zip.GRADIO_CACHE)
    assert len(Path(path).parent.name) == 32
    with zipfile.ZipFile(path) as archive:
        assert set(row.names) < set(archive.namelist())


def test_trouble_is_a_sentence_on_the_page(history: History, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    panel = panel_of(History(tmp_path / "file"))
    assert prompts(panel) == []
    error = done(panel.on_star("", event(runs=["x"], on=True)))["error"]
    assert error.endswith("history.sqlite: is not writable; change its permissions or choose another folder.")


def test_settings_in_words(history: History) -> None:
    settings = asked(
        negative="",
        sampler="dpmpp_2m_sde",
        options={"eta": 0.5},
        cfg_rescale=0.7,
        cfg_from=0.1,
        strength=0.5,
        resize="crop",
        outpaint=(8, 0, 0, 16),
        mask_blur=4,
        masked_content="fill",
        only_masked=32,
        keep_unmasked=True,
        invert_mask=True,
        image_sha256="a" * 64,
        mask_sha256="b" * 64,
        clip_skip=2,
        feature_reuse=3,
        token_merging=0.5,
    )
    names = save(history.folder, settings)
    row = history.add(
        names=names, settings=settings, model=RECIPE.model, evals=10, seconds=1.25, stopped=True
    )
    assert dict(words(row, 0)) == {
        "Sampler": "dpmpp_2m_sde, eta 0.5, leading",
        "Steps": "20 (10 evaluations, 1.2 s, stopped)",
        "Guidance": "CFG scale 5, rescale 0.7, from 10% to 100% of the steps",
        "Image": "128x96, clip skip 2, feature reuse, deep layers once in 3 evaluations, token merging 50%, "
        "denoising strength 0.5, resize mode crop, outpainted 8, 0, 0, 16 pixels, mask blur 4, "
        "masked content fill, only the masked area with 32 pixels around it, unmasked pixels kept, "
        "mask inverted",
        "Seed": "42",
        "Model": "tiny, 0123456789",
        "File": names[0],
    }
