"""Runs that end early, and runs that go on from a step of another."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import Cancelled, UserError
from core.inference.pipeline import Pipeline
from core.inference.run import Run
from core.inference.trajectory import Trajectory
from core.recipes.infotext import infotext
from core.recipes.png import png_bytes, read_recipe
from core.request.request import Request
from core.request.settings import MOST_BRANCHES, Branch, Settings
from tests.core.pictures import box_mask, noise, same
from tests.core.recipes import SETTINGS
from tests.small import write_model

FIELDS: dict[str, Any] = {"prompt": "a house", "steps": 6, "cfg_scale": 3.0, "seed": 1, "sampler": "euler_a"}
# What a sampler of one step at a time needs is in its state; the others begin their history, or groups, anew.
SINGLE = (
    *("ddim", "ddpm", "euler", "euler_a", "heun", "dpm2", "dpm2_a", "dpmpp_2s_a", "dpmpp_sde"),
    *("restart", "lcm", "tcd", "euler_cfg_pp", "ddim_cfg_pp"),
)
MULTI = (
    *("lms", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m_sde", "unipc", "deis", "plms", "ipndm", "er_sde"),
    *("gradient_estimation", "res_multistep", "sa_solver", "dpm_fast"),
)


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline.load(write_model(tmp_path_factory.mktemp("model") / "small"), device="cpu")


def kept(pipe: Pipeline, **changes: Any) -> Trajectory:
    run = pipe.stream(**FIELDS | changes)
    run.result()
    return Trajectory.of(run)


def final(run: Run) -> torch.Tensor:
    run.result()
    return run.steps[-1].x


@pytest.fixture(scope="module")
def parent(pipe: Pipeline) -> Trajectory:
    return kept(pipe)


# Ending early.


def test_a_run_that_stops_makes_the_clean_estimate_of_its_last_step(pipe: Pipeline) -> None:
    whole = pipe.generate(**FIELDS)
    cut = pipe.generate(**FIELDS, stop_after=4)
    assert [step.index for step in cut.steps] == [0, 1, 2, 3]
    assert torch.equal(cut.steps[-1].x, whole.steps[3].x)
    assert same(cut.images[0], pipe.decode(whole.steps[3].denoised)[0])
    assert cut.stopped
    assert not whole.stopped
    assert cut.recipe.settings.stop_after == 4


def test_stopping_after_the_last_step_is_not_stopping(pipe: Pipeline) -> None:
    whole, same_run = pipe.generate(**FIELDS), pipe.generate(**FIELDS, stop_after=6)
    assert same(whole.images[0], same_run.images[0])
    assert whole.recipe == same_run.recipe


@pytest.mark.parametrize("batch", [1, 2])
def test_what_a_cancelled_run_made_can_be_made_again_from_its_picture(
    pipe: Pipeline, tmp_path: Path, batch: int
) -> None:
    cancel = threading.Event()
    run = pipe.stream(**FIELDS, batch=batch, cancel=cancel)
    next(run), next(run), next(run)
    cancel.set()
    with pytest.raises(Cancelled):
        run.result()
    result = run.so_far()
    assert (result.stopped, result.settings.stop_after, len(result.images)) == (True, 3, batch)
    for path, image in zip(result.save(tmp_path), result.images, strict=True):
        recipe = read_recipe(path)
        assert "Stop after: 3" in infotext(recipe)
        again = pipe.generate(Request.from_settings(recipe.settings))
        assert same(again.images[0], image)
        assert again.recipe == recipe
    trajectory = Trajectory.of(run)
    assert (trajectory.stopped, trajectory.total, len(trajectory.steps)) == (True, 6, 3)
    assert trajectory.settings == result.settings


def test_a_run_that_was_stopped_before_it_began_has_nothing(pipe: Pipeline) -> None:
    with pytest.raises(UserError, match="before its first step"):
        pipe.stream(**FIELDS).so_far()


def test_a_run_that_was_stopped_while_its_pictures_were_decoded_is_whole(pipe: Pipeline) -> None:
    cancel = threading.Event()
    run = pipe.stream(**FIELDS, cancel=cancel)
    list(run)
    cancel.set()
    with pytest.raises(Cancelled):
        run.result()
    result = run.so_far()
    assert (result.stopped, result.settings.stop_after) == (False, None)
    assert same(result.images[0], pipe.generate(**FIELDS).images[0])


def test_an_end_that_the_run_does_not_have(pipe: Pipeline) -> None:
    with pytest.raises(UserError, match="the run has 6 steps"):
        pipe.stream(**FIELDS, stop_after=7)
    with pytest.raises(UserError, match="the run has 3 steps"):
        pipe.stream(**FIELDS, image=noise((64, 64)), strength=0.5, stop_after=4)
    for wrong in (0, -1, 2.5, 10_001, True):
        with pytest.raises(UserError, match="stop after"):
            Request(stop_after=wrong)  # pyrefly: ignore[bad-argument-type]


def test_an_adaptive_sampler_stops_too(pipe: Pipeline) -> None:
    whole = kept(pipe, sampler="dpm_adaptive")
    cut = pipe.generate(**FIELDS | {"sampler": "dpm_adaptive"}, stop_after=2)
    assert len(whole.steps) > 2
    assert torch.equal(cut.steps[-1].x, whole.state(2))


# Branches.


@pytest.mark.parametrize("sampler", SINGLE)
def test_a_branch_with_nothing_changed_is_the_same_picture(
    pipe: Pipeline, tmp_path: Path, sampler: str
) -> None:
    run = pipe.stream(**FIELDS | {"sampler": sampler}, batch=2)
    wanted = run.result()
    Trajectory.of(run).save(tmp_path / "steps")
    branched = pipe.branch(Trajectory.open(tmp_path / "steps"), 3)
    assert branched.total == 3
    result = branched.result()
    assert torch.equal(result.steps[-1].x, wanted.steps[-1].x)
    assert all(same(a, b) for a, b in zip(result.images, wanted.images, strict=True))
    assert [step.index for step in result.steps] == [3, 4, 5]


@pytest.mark.parametrize("sampler", MULTI)
def test_a_branch_of_a_multi_step_sampler_begins_its_history_anew(pipe: Pipeline, sampler: str) -> None:
    parent = kept(pipe, sampler=sampler)
    assert not torch.equal(final(pipe.branch(parent, 3)), parent.state(6))
    assert torch.equal(final(pipe.branch(parent, 0)), parent.state(6))  # at the start there is none yet


CHANGES: list[dict[str, Any]] = [
    {"prompt": "a large green star"},
    {"negative": "a red circle", "cfg_scale": 6.0},
    {"cfg_scale": 1.0},
    {"sampler": "ddim", "options": {"eta": 0.5}},
    {"sampler": "dpmpp_2m"},
    {"schedule": "karras"},
    {"steps": 12},
    {"sigmas": (3.0, 1.0, 0.5)},
    {"seed": 9},
    {"cfg_from": 0.6},
    {"stop_after": 5},
]


@pytest.mark.parametrize("step", [0, 3])
@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: "-".join(changes))
def test_a_branched_picture_is_made_again_from_its_recipe_alone(
    pipe: Pipeline, parent: Trajectory, tmp_path: Path, changes: dict[str, Any], step: int
) -> None:
    run = pipe.branch(parent, step, **changes)
    result = run.result()
    [path] = result.save(tmp_path)
    assert not torch.equal(result.steps[-1].x, parent.state(6))
    recipe = read_recipe(path)
    assert recipe.settings.branch == Branch(step, parent.settings)
    again = pipe.stream(Request.from_settings(recipe.settings))
    made = again.result()
    assert same(made.images[0], result.images[0])
    assert png_bytes(made.images[0], made.recipe) == path.read_bytes()
    # The steps are the same ones too, those before the branch among them.
    ours, theirs = Trajectory.of(run), Trajectory.of(again)
    assert ours.steps == theirs.steps
    assert all(torch.equal(ours.tensors[name], theirs.tensors[name]) for name in theirs.tensors)
    assert set(ours.tensors) == set(theirs.tensors)
    assert torch.equal(ours.state(step), parent.state(step))
    assert (ours.total, ours.settings) == (theirs.total, theirs.settings)


def test_the_levels_that_are_left(pipe: Pipeline, parent: Trajectory) -> None:
    here = parent.sigma(3)
    assert pipe.branch(parent, 3).sigmas == tuple(parent.sigma(k) for k in range(3, 7))
    fewer = pipe.branch(parent, 3, sigmas=(20.0, here, here / 2))
    assert fewer.sigmas == (here, here / 2, 0.0)
    more = pipe.branch(parent, 3, steps=60)
    assert more.sigmas[0] == here
    assert more.total == len(more.sigmas) - 1 > 20
    assert "branched after step 3 of" in more.words


def test_a_branch_of_a_branch(pipe: Pipeline, parent: Trajectory, tmp_path: Path) -> None:
    run = pipe.branch(parent, 2, prompt="a large green star", schedule="karras")
    run.result()
    child = Trajectory.of(run)
    again = pipe.branch(child, 4, cfg_scale=5.0)
    result = again.result()
    assert result.settings.branch is not None
    assert result.settings.branch.settings == child.settings
    assert result.settings.prompt == "a large green star"
    made = pipe.stream(Request.from_settings(read_recipe(result.save(tmp_path)[0]).settings))
    assert same(made.result().images[0], result.images[0])
    grandchild = Trajectory.of(again)
    assert grandchild.steps == Trajectory.of(made).steps
    for k in range(3):
        assert torch.equal(grandchild.state(k), parent.state(k))
    # Nothing changed in the branch of a branch: the branch.
    assert torch.equal(final(pipe.branch(child, 4)), child.state(len(child.steps)))


def test_a_branch_before_its_parents_own_is_one_of_the_first_run(pipe: Pipeline, parent: Trajectory) -> None:
    run = pipe.branch(parent, 4, prompt="a large green star")
    run.result()
    child = Trajectory.of(run)
    early = pipe.branch(child, 2)
    assert early.settings.branch == Branch(2, parent.settings)
    wanted = final(pipe.branch(parent, 2, prompt="a large green star"))
    assert torch.equal(final(early), wanted)
    assert torch.equal(final(pipe.branch(child, 2, Request(prompt="a large green star"))), wanted)


def test_a_branch_of_a_run_that_was_stopped(pipe: Pipeline, parent: Trajectory) -> None:
    run = pipe.stream(**FIELDS, stop_after=4)
    run.result()
    stopped = Trajectory.of(run)
    branched = pipe.branch(stopped, 3)
    assert torch.equal(final(branched), parent.state(6))
    assert branched.settings.branch == Branch(3, parent.settings)
    onward = pipe.branch(stopped, 4)  # what was still due
    result = onward.result()
    assert torch.equal(result.steps[-1].x, parent.state(6))
    assert Trajectory.of(onward).steps == parent.steps
    assert same(pipe.generate(Request.from_settings(result.settings)).images[0], result.images[0])
    with pytest.raises(UserError, match="the run has 4 steps"):
        pipe.branch(stopped, 5)


def test_a_branch_of_one_image_of_a_batch(pipe: Pipeline) -> None:
    batch, one = kept(pipe, batch=2), kept(pipe, seed=2)
    branched = pipe.branch(batch.alone(1), 3, prompt="a large green star")
    assert torch.equal(final(branched), final(pipe.branch(one, 3, prompt="a large green star")))
    assert branched.settings.branch == Branch(3, one.settings)


def test_each_picture_of_a_branched_batch_has_a_recipe_of_its_own(pipe: Pipeline, tmp_path: Path) -> None:
    result = pipe.branch(kept(pipe, batch=2), 3, seed=40).result()
    for path, image in zip(result.save(tmp_path), result.images, strict=True):
        assert same(pipe.generate(Request.from_settings(read_recipe(path).settings)).images[0], image)


def test_after_an_adaptive_sampler(pipe: Pipeline, tmp_path: Path) -> None:
    parent = kept(pipe, sampler="dpm_adaptive")
    assert len(parent.steps) > 3
    both: list[dict[str, Any]] = [{}, {"stop_after": 7}]
    for changes in both:  # later than anybody can know before the first part is run
        run = pipe.branch(parent, 2, sampler="heun", **changes)
        result = run.result()
        again = pipe.stream(Request.from_settings(read_recipe(result.save(tmp_path)[0]).settings))
        assert same(again.result().images[0], result.images[0])
        ours, theirs = Trajectory.of(run), Trajectory.of(again)
        assert (ours.total, ours.steps) == (theirs.total, theirs.steps)
    onward = pipe.branch(kept(pipe), 2, sampler="dpm_adaptive").result()
    assert onward.steps[-1].sigma == 0


def test_a_branch_of_what_came_after_an_adaptive_sampler(pipe: Pipeline, tmp_path: Path) -> None:
    run = pipe.branch(kept(pipe, sampler="dpm_adaptive"), 2, sampler="euler")
    run.result()
    child = Trajectory.of(run)
    for step in (3, len(child.steps) - 1):
        result = pipe.branch(child, step, prompt="a large green star").result()
        made = pipe.generate(Request.from_settings(read_recipe(result.save(tmp_path)[0]).settings))
        assert same(made.images[0], result.images[0])


def test_a_branch_later_than_an_adaptive_sampler_comes(pipe: Pipeline) -> None:
    """Another machine may take fewer steps than the one that the branch is from."""
    whole = kept(pipe, sampler="dpm_adaptive")
    count = len(whole.steps)
    run = pipe.stream(Request(branch=Branch(count, whole.settings)))
    with pytest.raises(UserError, match=f"ended after step {count}; choose an earlier step"):
        run.result()


def test_a_request_says_everything_and_leaves_the_shared_things_alone(
    pipe: Pipeline, parent: Trajectory
) -> None:
    run = pipe.branch(parent, 3, Request(prompt="a red circle", width=128, batch=4, steps=8))
    assert (run.settings.width, run.settings.batch, run.settings.steps) == (64, 1, 8)
    assert (run.settings.sampler, run.settings.cfg_scale, run.settings.seed) == ("euler_a", 3.0, 1)


def test_a_mask_goes_on_without_its_picture(pipe: Pipeline, tmp_path: Path) -> None:
    picture, mask = noise((96, 80)), box_mask((96, 80), (16, 16, 56, 48))
    variants: list[dict[str, Any]] = [
        {},
        {"keep_unmasked": True},
        {"only_masked": 8, "width": 64, "height": 64},
        {"strength": 0.7},
    ]
    for i, changes in enumerate(variants):
        fields: dict[str, Any] = {**FIELDS, "strength": 1.0, **changes}
        run = pipe.stream(**fields, image=picture, mask=mask)
        wanted = run.result()
        step = len(run.steps) - 2
        Trajectory.of(run).save(tmp_path / str(i))
        steps = Trajectory.open(tmp_path / str(i))
        result = pipe.branch(steps, step, picture=wanted.images[0]).result()
        assert same(result.images[0], wanted.images[0]), changes
        made = pipe.branch(steps, step, prompt="a large green star", picture=wanted.images[0]).result()
        again = pipe.generate(Request.from_settings(made.settings), image=picture, mask=mask)
        assert same(made.images[0], again.images[0]), changes
        assert not same(made.images[0], wanted.images[0])
        # A step decoded in full is pasted back as the picture was.
        last = pipe.decode(steps.state(len(steps.steps)))[0]
        assert same(steps.finish(last, wanted.images[0]), wanted.images[0])


def test_a_part_needs_the_picture_around_it(pipe: Pipeline) -> None:
    run = pipe.stream(
        **FIELDS,
        width=64,
        height=64,
        only_masked=8,
        image=noise((96, 80)),
        mask=box_mask((96, 80), (16, 16, 40, 40)),
    )
    wanted = run.result().images[0]
    steps = Trajectory.of(run)
    with pytest.raises(UserError, match="give the image that it saved"):
        pipe.branch(steps, 2)
    with pytest.raises(UserError, match="the run's is 96x80"):
        steps.finish(noise((64, 64)), noise((64, 64)))
    assert steps.paste is not None
    assert steps.finish(noise((64, 64))).size == steps.paste.canvas.size < wanted.size


def test_a_picture_to_start_from_is_not_needed_again(pipe: Pipeline) -> None:
    run = pipe.stream(**FIELDS, strength=0.7, image=noise((64, 64)))
    wanted = run.result()
    steps = Trajectory.of(run)
    assert not steps.known
    assert same(pipe.branch(steps, 2).result().images[0], wanted.images[0])


def test_an_inpainting_network_goes_on(tmp_path: Path) -> None:
    pipe = Pipeline.load(write_model(tmp_path / "small", inpainting=True), device="cpu")
    fields = FIELDS | {"image": noise((64, 64)), "mask": box_mask((64, 64), (16, 16, 48, 48))}
    run = pipe.stream(**fields, strength=1.0)
    wanted = run.result()
    Trajectory.of(run).save(tmp_path / "steps")
    steps = Trajectory.open(tmp_path / "steps")
    assert set(steps.known) == {"extra"}
    assert same(pipe.branch(steps, 2).result().images[0], wanted.images[0])


# Bad branches.


def test_a_branch_that_leaves_nothing_to_run(pipe: Pipeline, parent: Trajectory) -> None:
    for step in (6, 7):
        with pytest.raises(UserError, match="choose an earlier step"):
            pipe.branch(parent, step)
        with pytest.raises(UserError, match="nothing is left"):
            pipe.stream(Request(branch=Branch(step, parent.settings)))
    with pytest.raises(UserError, match="the branch starts after step 3"):
        pipe.branch(parent, 3, stop_after=3)
    with pytest.raises(TypeError):
        pipe.branch(parent, 3, Request(), prompt="both")
    with pytest.raises(UserError, match="width 128: a branch must use its parent"):
        pipe.branch(parent, 3, width=128)


@pytest.mark.parametrize(
    "branch",
    [
        3,
        {},
        {"step": 1},
        {"step": -1, "settings": SETTINGS.to_dict()},
        {"step": "1", "settings": SETTINGS.to_dict()},
        {"step": 1, "settings": {}},
        {"step": 1, "settings": SETTINGS.to_dict(), "more": 1},
    ],
)
def test_branches_that_are_none(branch: Any) -> None:
    with pytest.raises(UserError, match=r"branch|settings|step"):
        Request.from_mapping({"branch": branch})


def test_what_a_branch_cannot_change() -> None:
    branch = Branch(1, SETTINGS)
    changes: dict[str, Any]
    for changes in ({"width": 64}, {"batch": 2}, {"strength": 0.5}, {"image_sha256": "0" * 64}):
        with pytest.raises(UserError, match="a branch must use its parent"):
            dataclasses.replace(SETTINGS, branch=branch, **changes)
        with pytest.raises(UserError, match="a branch must use its parent"):
            Request(branch=branch, **changes)


def test_a_branch_as_text_and_back() -> None:
    settings = dataclasses.replace(
        SETTINGS, seed=5, branch=Branch(4, dataclasses.replace(SETTINGS, branch=Branch(2, SETTINGS)))
    )
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert Request.from_settings(settings).branch == settings.branch
    hash(settings)


def test_branches_out_of_each_other_without_end() -> None:
    settings = SETTINGS
    for i in range(1, MOST_BRANCHES + 1):
        settings = dataclasses.replace(SETTINGS, branch=Branch(i, settings))
    with pytest.raises(UserError, match=f"more than {MOST_BRANCHES}"):
        Branch(MOST_BRANCHES + 1, settings)
    nested: dict[str, Any] = SETTINGS.to_dict()
    for i in range(2000, 0, -1):
        nested = {**SETTINGS.to_dict(), "branch": {"step": i, "settings": nested}}
    with pytest.raises(UserError, match=f"more than {MOST_BRANCHES}"):
        Settings.from_dict(nested)
