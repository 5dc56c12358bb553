"""`download` against a hub on this machine, and everything that goes wrong on the way."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from core.errors import UserError
from core.weights import find
from core.weights.hub import download as downloads
from core.weights.hub.download import fetch, gigabytes, plan_download
from core.weights.hub.hub_files import choose_folder
from tests.small import write_model
from tests.ui.commandline import failure, run
from tests.weights.hub import COMMIT, Hub, digest

NEEDED = (
    *("model_index.json", "text_encoder/config.json", "unet/config.json", "vae/config.json"),
    *("scheduler/scheduler_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt"),
)
TEXT, UNET, VAE = (
    "text_encoder/model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
)
OTHERS = (
    *("README.md", "safety_checker/model.safetensors", "unet/diffusion_pytorch_model.bin", "v1-5.ckpt"),
    *("text_encoder/pytorch_model.bin", "unet/diffusion_pytorch_model.fp16.safetensors", "v1-5.safetensors"),
    *("feature_extractor/preprocessor_config.json", "unet/diffusion_pytorch_model.non_ema.safetensors"),
)


def repository() -> dict[str, bytes]:
    small = {name: f"small {name}".encode() for name in (*NEEDED, "README.md")}
    return small | {name: name.encode() * 500 for name in (TEXT, UNET, VAE, *OTHERS[1:])}


@pytest.fixture(autouse=True)
def _no_settings_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A developer's own login and variables must not change what is tested, nor see what is asked."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(downloads, "PAUSE_SECONDS", 0.0)
    yield
    huggingface_hub.close_session()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub(repository()).running() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty data/models, where nothing exists yet."""
    monkeypatch.setattr(find, "MODELS", tmp_path / "models")
    return tmp_path / "models"


class Bar:
    """Counts as a progress bar does."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, count: int) -> None:
        self.count += count


def content(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_only_the_needed_files_come_and_nothing_else_is_left(hub: Hub, models: Path) -> None:
    plan, bar = plan_download("owner/name", models), Bar()
    assert fetch(plan, bar) == models / "name"
    assert content(models / "name") == {name: hub.files[name] for name in (*NEEDED, TEXT, UNET, VAE)}
    assert bar.count == plan.size == sum(map(len, content(models / "name").values()))
    assert [path.name for path in models.iterdir()] == ["name"]
    assert plan.revision == COMMIT
    with pytest.raises(UserError, match="already exists"):
        plan_download("owner/name", models)


def test_the_other_server_never_sees_the_token(
    hub: Hub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    fetch(plan_download("owner/name", models), Bar())
    assert {headers.get("authorization") for _, path, headers in hub.asked if "/stored/" not in path} == {
        "Bearer hf_test"
    }
    stored = [headers for _, path, headers in hub.asked if "/stored/" in path]
    assert len(stored) == 3
    assert not any("authorization" in headers for headers in stored)


def test_a_broken_connection_goes_on_where_it_was(hub: Hub, models: Path) -> None:
    hub.breaks = {UNET: [3000, 100], TEXT: [0, 10], "model_index.json": [5]}
    bar = Bar()
    with pytest.raises(UserError, match="cannot be reached"):  # where nothing comes, it does not try for ever
        fetch(plan_download("owner/name", models), bar)
    assert [path.name for path in models.iterdir()] == [".name.download"]
    assert find.installed() == [find.EMBEDDED]
    fetch(plan_download("owner/name", models), Bar())
    ranges = [headers.get("range") for headers in hub.requests("GET", f"/stored/{UNET}")]
    assert ranges == [None, "bytes=3000-", "bytes=3100-"]
    assert content(models / "name")[UNET] == hub.files[UNET]


def test_a_run_that_was_ended_goes_on_in_the_middle_of_a_file(
    hub: Hub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ctrl_c(_: float) -> None:
        raise KeyboardInterrupt

    hub.breaks = {UNET: [4000]}
    plan = plan_download("owner/name", models)
    with monkeypatch.context() as waiting:
        waiting.setattr("time.sleep", ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            fetch(plan, Bar())
    hub.breaks, hub.asked = {}, []
    again, bar = plan_download("owner/name", models), Bar()
    assert 0 < again.arrived() < again.size
    fetch(again, bar)
    assert bar.count == again.size
    assert hub.requests("GET", TEXT) == []  # it was whole
    [request] = hub.requests("GET", f"/stored/{UNET}")
    assert request["range"] == "bytes=4000-"
    assert content(models / "name")[UNET] == hub.files[UNET]


def test_a_server_without_ranges_sends_the_file_anew(hub: Hub, models: Path) -> None:
    hub.knows_ranges, hub.breaks = False, {UNET: [3000]}
    bar = Bar()
    plan = plan_download("owner/name", models)
    fetch(plan, bar)
    assert content(models / "name")[UNET] == hub.files[UNET]
    assert bar.count == plan.size


@pytest.mark.parametrize("name", [UNET, "unet/config.json"])
def test_a_file_with_another_hash_is_thrown_away(hub: Hub, models: Path, name: str) -> None:
    data = hub.files[name]
    hub.sends = {name: bytes([data[0] ^ 1]) + data[1:]}
    with pytest.raises(UserError, match=f"{name} differs from its hash"):
        fetch(plan_download("owner/name", models), Bar())
    assert not (models / "name").exists()
    assert not list((models / ".name.download").glob("*.part"))
    hub.sends = {}
    fetch(plan_download("owner/name", models), Bar())
    assert content(models / "name")[name] == data


@pytest.mark.parametrize("sent", [b"", b"much more than was announced" * 900])
def test_a_file_of_another_size_is_no_model(hub: Hub, models: Path, sent: bytes) -> None:
    hub.sends = {UNET: sent}
    with pytest.raises(UserError, match="instead of"):
        fetch(plan_download("owner/name", models), Bar())
    assert not (models / "name").exists()
    hub.sends = {}
    fetch(plan_download("owner/name", models), Bar())
    assert content(models / "name")[UNET] == hub.files[UNET]


def test_a_changed_repository_is_not_mixed_with_what_came_before(hub: Hub, models: Path) -> None:
    hub.sends = {VAE: b""}
    with pytest.raises(UserError):
        fetch(plan_download("owner/name", models), Bar())
    hub.sends, hub.files["unet/config.json"] = {}, b"changed"
    fetch(plan_download("owner/name", models), Bar())
    assert content(models / "name")["unet/config.json"] == b"changed"
    assert set(content(models / "name")) == {*NEEDED, TEXT, UNET, VAE}


def test_a_mirror_that_lists_no_hashes_is_asked_for_each(hub: Hub, models: Path) -> None:
    hub.lists_hashes = False
    plan = plan_download("owner/name", models)
    assert {file.path: file.digest for file in plan.files} == {
        name: digest(hub.files[name]) for name in (*NEEDED, TEXT, UNET, VAE)
    }
    fetch(plan, Bar())
    assert content(models / "name")[VAE] == hub.files[VAE]


def test_one_file_comes_alone(hub: Hub, models: Path) -> None:
    plan = plan_download("owner/name", models, file="v1-5.safetensors")
    assert fetch(plan, Bar()) == models / "v1-5.safetensors"
    assert set(content(models)) == {"v1-5.safetensors"}
    with pytest.raises(UserError, match="already exists"):
        plan_download("owner/name", models, file="v1-5.safetensors")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ((401, "GatedRepo"), "is gated: accept its licence at"),
        ((403, "GatedRepo"), "is gated: accept its licence at"),
        ((401, "RepoNotFound"), "does not exist or is private"),
        ((404, "RepoNotFound"), "does not exist or is private"),
        ((404, "RevisionNotFound"), "no such revision"),
        ((403, ""), r"refuses \(403\)"),
        ((500, ""), r"an error \(500\)"),
    ],
)
def test_what_the_hub_answers_is_one_sentence(
    hub: Hub, models: Path, error: tuple[int, str], words: str
) -> None:
    hub.error = error
    with pytest.raises(UserError, match=words):
        plan_download("owner/name", models)
    assert not models.exists()


@pytest.mark.parametrize(
    ("error", "words"), [((403, "GatedRepo"), "is gated"), ((404, ""), "404"), ((503, ""), "503")]
)
def test_what_the_hub_answers_for_a_file_is_one_sentence(
    hub: Hub, models: Path, error: tuple[int, str], words: str
) -> None:
    plan = plan_download("owner/name", models)
    hub.error = error
    with pytest.raises(UserError, match=words):
        fetch(plan, Bar())
    assert find.installed() == [find.EMBEDDED]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "other/name"}, "other/name does not exist"),
        ({"name": "tiny"}, "owner/name, or a short name: sd15"),
        ({"name": "../name"}, "is not a repository name"),
        ({"revision": "none"}, "owner/name has no such revision"),
        ({"variant": "fp61"}, "no variant 'fp61'; available: fp16, non_ema"),
        ({"file": "v2.ckpt"}, "no file v2.ckpt; choose one of its single files with --file: v1-5.ckpt, v1-5"),
        ({"file": "README.md"}, "README.md is not a weight file"),
    ],
)
@pytest.mark.usefixtures("hub")
def test_what_is_not_there_is_one_sentence(models: Path, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        plan_download(**(dict[str, Any](name="owner/name", models=models) | arguments))


def test_no_network_is_one_sentence(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Hub({}).running() as gone:
        monkeypatch.setenv("HF_ENDPOINT", gone.endpoint)
    with pytest.raises(UserError, match=f"{gone.endpoint} cannot be reached .*: check the network"):
        plan_download("owner/name", models)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE turns the network off"):
        plan_download("owner/name", models)


def test_a_server_that_is_no_hub_is_one_sentence(
    hub: Hub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for answer in (
        b"<html>Log in to this network</html>",
        b"[]",
        b"{}",
        b'{"id": "owner/name", "siblings": 3}',
    ):
        monkeypatch.setattr(hub, "answer", answer)
        with pytest.raises(UserError, match="does not answer like a hub"):
            plan_download("owner/name", models)


@pytest.mark.usefixtures("hub")
def test_a_full_disk_is_said_before_anything_comes(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 9 * 10**8, 10**8))
    with pytest.raises(UserError, match=r"has 100\.0 MB free, but 104\.9 MB are needed"):
        fetch(plan_download("owner/name", models), Bar())
    assert list(models.iterdir()) == []


def test_a_disk_that_fills_on_the_way_is_one_sentence(
    hub: Hub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    plan = plan_download("owner/name", models)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="no space left"):
        fetch(plan, lambda _: None)
    assert hub.files
    assert not (models / "name").exists()


# What is chosen.


def test_a_variant_takes_the_place_of_the_plain_weights() -> None:
    chosen = choose_folder([*NEEDED, TEXT, UNET, VAE, *OTHERS], "fp16")
    assert set(chosen) == {*NEEDED, TEXT, "unet/diffusion_pytorch_model.fp16.safetensors", VAE}


@pytest.mark.parametrize(
    ("variant", "shards"),
    [
        (
            None,
            [
                "model.safetensors.index.json",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
            ],
        ),
        ("fp16", ["model.safetensors.index.fp16.json", "model.fp16-00001-of-00001.safetensors"]),
        ("fp16", ["model.safetensors.index.fp16.json", "model-00001-of-00001.fp16.safetensors"]),
    ],
)
def test_shards_come_with_their_index(variant: str | None, shards: list[str]) -> None:
    text = [f"text_encoder/{name}" for name in shards]
    assert set(choose_folder([*NEEDED, UNET, VAE, *text], variant)) == {*NEEDED, UNET, VAE, *text}


def test_pickles_come_only_where_there_is_nothing_better() -> None:
    old = (
        "text_encoder/pytorch_model.bin",
        "unet/diffusion_pytorch_model.bin",
        "vae/diffusion_pytorch_model.bin",
    )
    assert set(choose_folder([*NEEDED, *old], None)) == {*NEEDED, *old}
    assert set(choose_folder([*NEEDED, *old, UNET], None)) == {*NEEDED, old[0], UNET, old[2]}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a.safetensors", "b.ckpt"], "no model_index.json.*--file: a.safetensors, b.ckpt"),
        (["pytorch_model.bin"], "no single-file models"),
        ([*NEEDED, TEXT, UNET, VAE, "text_encoder_2/config.json"], "not Stable Diffusion 1.x or 2.x"),
        (["model_index.json", "transformer/config.json"], "not Stable Diffusion 1.x or 2.x"),
        ([*NEEDED[:-1], TEXT, UNET, VAE], "tokenizer/merges.txt is missing"),
        ([*NEEDED, TEXT, VAE], "no weights for its unet"),
    ],
)
def test_what_is_no_model_folder_is_said(names: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        choose_folder(names, None)


# The command.


def test_the_command_says_what_comes_and_what_came(
    hub: Hub, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "download", "owner/name", "--yes")
    assert (code, out) == (0, f"{models / 'name'}\n")
    for words in (
        f"owner/name, commit {COMMIT[:12]}, from {hub.endpoint}",
        "licence: creativeml-openrail-m",
        f"read it at {hub.endpoint}/owner/name",
        "10 files, 0.1 MB, ",
        "--model name",
    ):
        assert words in err
    _, out, _ = run(capsys, "models", "--json")
    assert [model["name"] for model in json.loads(out)["models"]] == ["tiny", "name"]


def test_the_command_reports_for_scripts(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.licence, hub.gated = None, True
    target = tmp_path / "a" / "b"
    _, out, err = run(capsys, "download", "owner/name", "--yes", "--json", "--out", str(target))
    report = json.loads(out)
    assert report["path"] == str(target)
    assert report["revision"] == COMMIT
    assert report["licence"] is None
    assert set(report["files"]) == set(content(target))
    assert report["bytes"] == sum(map(len, content(target).values()))
    assert "none is stated" in err
    assert "gated" in err


@pytest.mark.usefixtures("hub")
def test_without_a_terminal_nothing_comes_unless_yes_is_said(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    code, out, err = run(capsys, "download", "owner/name")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].endswith("add --yes to agree to the licence and download 0.1 MB.")
    assert not models.exists()


@pytest.mark.usefixtures("hub", "models")
def test_the_command_fails_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "other/name does not exist" in failure(capsys, "download", "other/name", "--yes")
    assert "not a hub's model name" in failure(capsys, "download", "sd16", "--yes")


def test_a_downloaded_model_is_found_by_its_name(models: Path, tmp_path: Path, hub: Hub) -> None:
    folder = write_model(tmp_path / "made")
    ours = ("latentcanvas.json", "README.md", "recipe.toml")
    hub.files = {name: data for name, data in content(folder).items() if name not in ours}
    fetch(plan_download("owner/name", models), Bar())
    assert find.find_model("name") == models / "name"
    assert content(models / "name") == hub.files


def test_sd15_is_a_short_name(hub: Hub, models: Path) -> None:
    with pytest.raises(UserError, match="stable-diffusion-v1-5/stable-diffusion-v1-5 does not exist"):
        plan_download("sd15", models)
    assert hub.asked[0][1].startswith("/api/models/stable-diffusion-v1-5/stable-diffusion-v1-5")


def test_sizes_are_for_people() -> None:
    assert [gigabytes(count) for count in (0, 12_340_000, 4_270_000_000)] == ["0.0 MB", "12.3 MB", "4.27 GB"]
