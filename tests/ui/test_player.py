"""The player's messages, and the viewer that answers it, over runs of the fake model."""

from __future__ import annotations

import base64
import io
import json
import time
from dataclasses import replace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from core.errors import UserError
from core.inference.trajectory import VIEWS
from core.request.request import Request
from tests.ui import kept
from tests.ui.fakes import in_blocks
from tests.ui.kept import OWNER
from ui.page.viewer import Viewer, ViewerRequest
from ui.page.widgets import player


@pytest.fixture(scope="module")
def runs() -> kept.FakeRuns:
    return kept.family()


@pytest.fixture
def viewer(runs: kept.FakeRuns) -> Viewer:
    return Viewer(kept.FakeEngine(kept.pipeline()), runs)


def asked(run: str = "first", **fields: Any) -> ViewerRequest:
    return ViewerRequest.of({"owner": OWNER, "run": run, **fields})


def opened(uri: str, kind: str) -> Image.Image:
    assert uri.startswith(f"data:image/{kind.lower()};base64,")
    image = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    assert image.format == kind
    return image


# A finished run.


def test_a_finished_run_comes_in_one_message(viewer: Viewer, runs: kept.FakeRuns) -> None:
    message = viewer.show(OWNER, "first")
    json.dumps(message, allow_nan=False)
    assert message["phase"] == "done"
    assert [message["run"], message["at"], message["image"], message["seed"]] == ["first", None, 0, 7]
    assert len(message["steps"]) == message["total"] == 20
    assert message["steps"][-1] == {"sigma": 0.0, "evals": 20}
    assert message["views"] == list(VIEWS)
    assert list(message["frames"]) == ["0/clean"]
    assert max(opened(message["frames"]["0/clean"][3], "JPEG").size) <= player.MAX_PREVIEW
    assert len(message["thumbnails"]) == 3
    assert base64.b64decode(message["finals"]["0"].split(",")[1]) == runs.open(OWNER, "first").png(0)
    assert set(message["curves"]["0"]) == {"sigma", "guidance", "distance"}
    assert message["curves"]["0"]["distance"][-1] < 0.01


def test_a_link_opens_a_step_and_an_image_within_what_there_is(viewer: Viewer) -> None:
    assert viewer.show(OWNER, "first", step=7)["at"] == 7
    assert viewer.show(OWNER, "first", step=99)["at"] == 20
    message = viewer.show(OWNER, "first", step=0, image=9)
    assert [message["at"], message["image"]] == [1, 2]
    assert list(message["frames"]) == ["2/clean"]


def test_a_run_without_steps_still_shows_its_picture(viewer: Viewer) -> None:
    message = viewer.show(OWNER, "bare")
    assert message["steps"] == []
    assert message["frames"] == {}
    opened(message["finals"]["0"], "PNG")
    with pytest.raises(UserError, match="not saved"):
        viewer.frames(asked("bare"))


def test_a_long_run_is_still_a_small_message() -> None:
    asked = Request(prompt="a star", steps=150, batch=8, seed=3, width=64, height=64, cfg_scale=1.0)
    long = kept.kept("long", asked)
    began = time.perf_counter()
    message = Viewer(kept.FakeEngine(None), kept.FakeRuns([long])).show(OWNER, "long")
    assert time.perf_counter() - began < 5
    assert len(message["frames"]["0/clean"]) == 150
    assert len(json.dumps(message)) < 1_500_000


def test_somebody_elses_run_is_not_shown(viewer: Viewer) -> None:
    with pytest.raises(UserError, match="gone"):
        viewer.show(OWNER, "theirs")
    for run, other in (("theirs", "first"), ("first", "theirs")):
        with pytest.raises(UserError, match="gone"):
            viewer.pair(asked(run, other=other))


# What is fetched later.


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_of_every_step(viewer: Viewer, runs: kept.FakeRuns, view: str) -> None:
    answer = viewer.frames(asked(view=view, image=1))
    frames = answer["frames"][f"1/{view}"]
    assert len(frames) == 20
    shown = np.asarray(opened(frames[11], "JPEG").resize((16, 16)), float)
    wanted = np.asarray(runs.open(OWNER, "first").steps.preview(12, view, 1).resize((16, 16)), float)
    assert np.abs(shown - wanted).mean() < 12
    assert base64.b64decode(answer["finals"]["1"].split(",")[1]) == runs.open(OWNER, "first").png(1)


def test_without_guidance_two_views_are_not_there(viewer: Viewer) -> None:
    assert viewer.show(OWNER, "plain")["views"] == list(VIEWS[:4])
    with pytest.raises(UserError, match="difference"):
        viewer.frames(asked("plain", view="difference"))


def test_any_step_is_decoded_in_full(viewer: Viewer) -> None:
    assert opened(viewer.decode(asked(step=4, view="noisy"))["uri"], "PNG").size == (64, 64)
    with pytest.raises(UserError, match="20 steps"):
        viewer.decode(asked(step=21))


def test_the_model_that_made_a_run_is_the_one_to_decode_it(runs: kept.FakeRuns) -> None:
    class Other:
        sha256 = "1" * 64

    viewer = Viewer(kept.FakeEngine(Other()), runs)
    with pytest.raises(UserError, match="the model fake"):
        viewer.decode(asked(step=4))


@pytest.mark.parametrize(
    "values",
    [
        None,
        {"owner": OWNER, "run": "first", "image": 3},
        {"owner": OWNER, "run": "first", "image": -1},
        {"owner": OWNER, "run": "first", "image": "0"},
        {"owner": OWNER, "run": "first", "view": "../../secret"},
        {"owner": "somebody else", "run": "first"},
        {"owner": OWNER, "run": ["first"]},
    ],
)
def test_what_the_browser_says_is_not_trusted(viewer: Viewer, values: Any) -> None:
    component = in_blocks(viewer.build)
    assert isinstance(component, gr.HTML)
    answer = component.fetch_frames(values)
    assert list(answer) == ["error"]
    assert answer["error"][0].isupper()


# Two runs.


def test_two_runs_on_one_grid_are_compared_step_by_step(viewer: Viewer) -> None:
    answer = viewer.pair(asked(other="guided", image=1, view="noise"))
    assert answer["match"] == list(range(1, 21))
    assert [answer["run"], answer["image"]] == ["guided", 1]
    assert set(answer["frames"]) == {"1/noise"}
    ours, theirs = (viewer.runs.open(OWNER, name).steps for name in ("first", "guided"))
    wanted = [kept.rms(ours.latents(k, "clean", 1) - theirs.latents(k, "clean", 1)) for k in range(1, 21)]
    assert answer["between"] == pytest.approx(wanted, abs=1e-5)


def test_runs_of_different_lengths_meet_at_the_same_noise_level(viewer: Viewer) -> None:
    short, long = (
        kept.kept("x", Request(prompt="a star", seed=1, steps=n, width=64, height=64)).steps for n in (5, 20)
    )
    match = player.matched(short.steps, long.steps)
    levels = [[step.sigma for step in run.steps] for run in (short, long)]
    assert [levels[1][j - 1] for j in match] == pytest.approx(levels[0], rel=0.2)
    assert player.matched(long.steps, short.steps)[-1] == 5


def test_runs_of_different_sizes_have_no_distance(viewer: Viewer) -> None:
    answer = viewer.pair(asked(other="plain", image=2, view="difference"))
    assert answer["between"] == []
    assert answer["image"] == 0
    assert set(answer["frames"]) == {"0/clean"}


# The family.


def test_a_family_is_listed_parents_first_with_what_changed(viewer: Viewer) -> None:
    family = viewer.show(OWNER, "deep")["family"]
    assert [(b["run"], b["parent"], b["step"], b["changed"]) for b in family[1:]] == [
        ("guided", "first", 8, "CFG 9"),
        ("deep", "guided", 14, "seed 9"),
        ("blue", "first", 12, "prompt: blue"),
    ]
    assert family[0]["run"] == "first"
    assert viewer.show(OWNER, "plain")["family"] == []


def test_a_branch_whose_parent_is_gone_still_has_its_place() -> None:
    alone = player.FamilyMember(run="a", parent="gone", step=3, changed="", thumbnail="")
    child = player.FamilyMember(run="b", parent="a", step=5, changed="", thumbnail="")
    assert player.in_order([child, alone]) == [alone, child]


def test_what_a_branch_changed_in_words() -> None:
    one = kept.kept("x", Request(prompt="a red star", seed=1, steps=4, width=64, height=64)).settings
    assert player.changes(one, one) == "nothing changed"
    assert player.changes(one, replace(one, cfg_scale=7.5, steps=9)) == "CFG 7.5, 9 steps"
    assert player.changes(one, replace(one, prompt="a red")) == "other prompt"


# A run in progress.


def test_a_live_message_is_small_and_says_how_far_it_is(viewer: Viewer) -> None:
    from tests.browser.serve_player import FakeJob

    run = kept.pipeline().stream(Request(prompt="a star", batch=8, steps=6, seed=4, width=64, height=64))
    job: Any = FakeJob(run.settings, run.total)
    assert viewer.live(job)["phase"] == "wait"
    job.steps.extend(list(run)[:2])
    message = viewer.live(job)
    assert [message[name] for name in ("phase", "step", "total", "evals", "evals_due")] == [
        "live",
        2,
        6,
        2,
        6,
    ]
    assert message["eta"] > 0
    assert len(message["clean"]) == len(message["noisy"]) == 8
    assert len(json.dumps(message)) < 200_000
