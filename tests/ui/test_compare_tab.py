"""The compare tab without a browser: from what is typed to the plan, the words and the grid's messages."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio.context import Context
from PIL import Image

from core.errors import UserError
from core.images.source_images import Inputs
from core.plugins import current
from core.request.request import Request
from tests.ui.fakes import FakePipeline, in_blocks, loaded
from ui.page.tabs import compare
from ui.page.tabs.compare import GRID, RACE, Base, CompareTab
from ui.page.widgets import grid as grid_widget
from ui.service.job_queue import Jobs
from ui.service.limits import OwnLimits
from ui.service.model_thread import ModelThread
from ui.service.run_store import RunStore

ANN = "ann's token"


def base(owner: str, prompt: str) -> Base:
    if prompt == "bad":
        raise UserError("steps: enter a number")
    request = Request(prompt=prompt, steps=2, width=64, height=64, sampler="ddim", schedule="leading")
    if prompt == "pictured":
        return Base(request, Inputs(Image.new("RGB", (64, 64), "red")))
    return Base(request)


@pytest.fixture
def tab(tmp_path: Path) -> CompareTab:
    jobs = Jobs(loaded(FakePipeline()), RunStore(tmp_path), lambda: OwnLimits(steps=50))
    made = CompareTab(jobs, current.registry(), lambda: ("tiny", "other"))

    def build() -> None:
        made.build()
        words, owner = gr.Textbox(), gr.BrowserState("")
        page = Context.root_block
        assert page is not None
        made.connect(page, owner, base, [words], shown=words.change, open_run=lambda owner, run: [run])

    in_blocks(build)
    return made


def values(*axes: tuple[str, str], prompt: str = "a red circle", **race: Any) -> list[Any]:
    """What the page sends."""
    pairs = [part for axis in (*axes, ("", ""), ("", ""), ("", ""))[:3] for part in axis]
    picked = [race.get("evals", 4), race.get("samplers", ["ddim", "heun"]), race.get("schedule", "")]
    return [race.get("mode", GRID), *pairs, *picked, prompt]


def finish(tab: CompareTab) -> None:
    run = tab.grids.latest(ANN)
    assert run is not None
    assert run.ended.wait(60)


def test_the_cost_is_said_before_it_starts(tab: CompareTab) -> None:
    words, cost = tab.on_plan(ANN, *values(("steps", "1-3"), ("cfg_scale", "1, 2")))
    assert "6 images (3 × 2), 12 model evaluations" in cost
    assert "<b>a red circle</b>, DDIM, 2 steps, 64×64, the same random seed for all" in words
    assert "with an init image" in tab.on_plan(ANN, *values(("strength", "0.5, 1"), prompt="pictured"))[0]


def test_nothing_typed_yet_is_no_mistake(tab: CompareTab) -> None:
    _, cost = tab.on_plan(ANN, *values(("steps", ""), ("cfg_scale", "")))
    assert "Type values" in cost
    assert "alert" not in cost
    assert "alert" in tab.on_start(ANN, *values(("steps", "")))[1]


@pytest.mark.parametrize(
    ("asked", "sentences"),
    [
        (values(("steps", "1, x"), ("cfg_scale", "200")), ["Steps: &#x27;x&#x27;", "cfg scale 200"]),
        (values(("steps", "10, 60")), ["at most 50"]),
        (values(("seed", "1"), prompt="bad"), ["In the form, steps: enter a number"]),
        (values(mode=RACE, samplers=[]), ["Choose the samplers"]),
        (values(mode=RACE, evals=None), ["Model evaluations per sampler: enter a number"]),
    ],
)
def test_a_sentence_for_each_mistake_and_nothing_runs(
    tab: CompareTab, asked: list[Any], sentences: list[str]
) -> None:
    for html in (tab.on_plan(ANN, *asked)[1], tab.on_start(ANN, *asked)[1]):
        assert html.count("<li>") == len(sentences)
        assert all(sentence in html for sentence in sentences)
    assert tab.grids.latest(ANN) is None


def test_a_race_counts_evaluations_as_they_are(tab: CompareTab) -> None:
    _, plan = tab.plan(ANN, *values(mode=RACE, evals=8, samplers=["ddim", "heun", "dpm2"]))
    assert [cell.settings.steps for cell in plan.cells] == [8, 4, 4]
    assert [cell.evals for cell in plan.cells] == [8, 7, 7]
    _, pictured = tab.plan(ANN, *values(mode=RACE, evals=6, samplers=["ddim"], prompt="pictured"))
    assert (pictured.cells[0].settings.steps, pictured.cells[0].evals) == (9, 6)


def test_while_the_model_loads_it_says_so(tab: CompareTab) -> None:
    tab.jobs.engine = ModelThread(lambda name: FakePipeline())  # not started
    _, cost = tab.on_plan(ANN, *values(("steps", "1-3")))
    assert "still loading" in cost


def test_it_fills_in_as_cells_end_and_is_found_again(tab: CompareTab) -> None:
    message, notice, start, stop, *_ = tab.on_start(ANN, *values(("steps", "1, 2"), ("seed", "1, 2")))
    assert message["shape"] == [2, 2, 1]
    assert notice == ""
    assert (start.interactive, stop.interactive) == (False, True)

    async def watch() -> list[Any]:
        return [update async for update in tab.on_watch(ANN)]

    *_, last = asyncio.run(watch())
    assert last[0]["done"] is True
    assert all(cell["src"].startswith("data:image/jpeg") and cell["run"] for cell in last[0]["cells"])
    assert last[0]["cells"][0]["words"] == "Steps: 1, Seed: 1"
    assert tab.on_load(ANN)[0]["grid"] == last[0]["grid"]
    assert tab.on_load("someone else")[0] == gr.skip()
    file, words = tab.on_save(ANN)
    assert "pixels" in words
    with Image.open(file.value["path"] if isinstance(file.value, dict) else file.value) as sheet:
        assert "Script" in sheet.info["parameters"]


def test_what_is_wrong_stays_said_beside_an_earlier_comparison(tab: CompareTab) -> None:
    tab.on_start(ANN, *values(("seed", "1")))
    finish(tab)

    async def compare() -> list[Any]:
        return [update async for update in tab.on_compare(ANN, *values(("steps", "x")))]

    [told] = asyncio.run(compare())
    assert told[0] == gr.skip()
    assert "alert" in told[1]


def test_why_cells_failed_is_said_once(tab: CompareTab) -> None:
    tab.jobs.engine.load = lambda name: (_ for _ in ()).throw(UserError(f"{name} is damaged"))
    tab.on_start(ANN, *values(("model", "other"), ("seed", "1-3")))
    finish(tab)
    message, notice, *_ = tab.on_load(ANN)
    assert notice.count("<li>") == 1
    assert "Other is damaged" in notice
    assert {cell["state"] for cell in message["cells"]} == {"failed"}
    assert "no image" in tab.on_save(ANN)[1]


def test_a_deleted_run_leaves_an_empty_cell(tab: CompareTab) -> None:
    tab.on_start(ANN, *values(("seed", "1")))
    finish(tab)
    run = tab.grids.latest(ANN)
    assert run is not None

    def gone(run_id: str) -> bytes:
        raise UserError("gone")

    assert grid_widget.whole(run, gone)["cells"][0]["src"] == ""


def test_another_setting_says_what_to_type(tab: CompareTab) -> None:
    field, fill = tab.on_setting("sampler")
    assert "or all" in field.placeholder
    assert fill.visible is True
    assert tab.on_setting("steps")[1].visible is False
    assert tab.on_fill("model") == "tiny, other"


def test_every_example_is_a_plan(tab: CompareTab) -> None:
    for number in range(len(grid_widget.EXAMPLES)):
        event: Any = SimpleNamespace(number=number)
        mode, *axes = compare.example(event)
        _, plan = tab.plan(ANN, mode, *axes, 20, [], "", "a cat")
        assert len(plan.cells) > 3
