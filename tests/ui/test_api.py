"""The endpoints for programs: gradio_client against the real server on the embedded model."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from core.recipes.png import read_recipe
from tests.ui.served import Served, served

SMALL = {"width": 64, "height": 64, "steps": 3, "seed": 7}
ME = "a token of my own"
NAMES = [
    *("txt2img", "img2img", "inpaint", "cancel"),
    *("samplers", "schedules", "models", "tokens", "recipe"),
    *("history", "run", "pictures"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page on the network, so that its visitors are guests, with small limits."""
    folder = tmp_path_factory.mktemp("api")
    (folder / "latentcanvas.toml").write_text("[guests]\nsteps = 500\nside = 128\nbatch = 2\n")
    with served(folder, embedded=True, listen=True) as one:
        yield one


@pytest.fixture(scope="module")
def client(site: Served, tmp_path_factory: pytest.TempPathFactory) -> Client:
    downloads = tmp_path_factory.mktemp("downloads")
    # Nothing is encrypted here, so no certificates are loaded.
    one = Client(
        site.url, verbose=False, download_files=str(downloads), analytics_enabled=False, ssl_verify=False
    )
    for _ in range(600):
        if any(model["loaded"] for model in one.predict(api_name="/models")):
            return one
        time.sleep(0.2)
    pytest.fail("the model was not loaded")


def answers(client: Client, name: str, *arguments: Any, **named: Any) -> list[dict[str, Any]]:
    job = client.submit(*arguments, api_name=f"/{name}", **named)
    job.result(120)
    found: list[dict[str, Any]] = job.outputs()
    return found


def refusal(client: Client, name: str, *arguments: Any, **named: Any) -> str:
    with pytest.raises(AppError) as refused:
        answers(client, name, *arguments, **named)
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    return sentence


def test_steps_arrive_and_then_the_picture_with_its_recipe(client: Client, site: Served) -> None:
    first, *steps, last = answers(client, "txt2img", "a red circle", **SMALL, owner=ME)
    assert first["state"] in ("waiting", "running")
    assert [one["step"] for one in steps] == [1, 2, 3]
    assert all(one["total"] == 3 for one in steps)
    sigmas = [one["sigma"] for one in steps]
    assert sigmas == sorted(sigmas, reverse=True)
    assert sigmas[-1] == 0
    previews = [one["preview"] for one in steps if one["preview"]]
    assert previews
    for preview in previews:
        assert Path(preview).stat().st_size < 20_000
        Image.open(preview).verify()
    assert (last["state"], last["owner"], last["trouble"]) == ("done", ME, "")
    assert last["settings"]["seed"] == 7
    [picture] = last["images"]
    saved = site.folder / "outputs" / Path(picture).name
    assert Path(picture).read_bytes() == saved.read_bytes()
    assert read_recipe(picture).settings.prompt == "a red circle"
    run = client.predict(last["run"], ME, api_name="/run")
    assert (run["run"], run["names"]) == (last["run"], [saved.name])
    [again] = client.predict(last["run"], ME, api_name="/pictures")
    assert Path(again).read_bytes() == saved.read_bytes()


def test_the_same_call_gives_the_same_picture_in_a_batch(client: Client) -> None:
    *_, one = answers(client, "txt2img", "a blue star", **SMALL, previews=False)
    *_, two = answers(client, "txt2img", "a blue star", **{**SMALL, "seed": 6}, batch=2, previews=False)
    assert all(progress["preview"] is None for progress in (one, two))
    assert len(two["images"]) == 2
    assert Image.open(one["images"][0]).tobytes() == Image.open(two["images"][1]).tobytes()


def test_pictures_in(client: Client, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "green").save(tmp_path / "in.png")
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    mask.save(tmp_path / "mask.png")
    image = handle_file(str(tmp_path / "in.png"))
    half = {"steps": 4, "seed": 1, "previews": False}
    *steps, last = answers(client, "img2img", image, "a house", 0.5, **half)
    assert "2 steps" in steps[-1]["words"]
    assert last["settings"]["strength"] == 0.5
    white = handle_file(str(tmp_path / "mask.png"))
    *_, last = answers(
        client, "inpaint", image, white, "a house", 1.0, 0, **half, more={"keep_unmasked": True}
    )
    made = Image.open(last["images"][0]).convert("RGB")
    assert made.getpixel((60, 30)) == Image.new("RGB", (1, 1), "green").getpixel((0, 0))


def test_what_is_wrong_is_said_in_a_sentence(client: Client) -> None:
    assert "eular" in refusal(client, "txt2img", "x", sampler="eular")
    assert "size" in refusal(client, "txt2img", "x", width=64, height=63)
    assert "'stepps' is not known" in refusal(client, "txt2img", "x", more={"stepps": 3})
    assert "owner" in refusal(client, "txt2img", "x", owner="short")
    assert "image: is missing" in refusal(client, "img2img", None, "x")
    assert "must be at most 500" in refusal(client, "txt2img", "x", steps=501)
    assert "at most 16384 pixels" in refusal(client, "txt2img", "x", width=256, height=256)
    assert "must be at most 2" in refusal(client, "txt2img", "x", batch=3)
    assert "limit must be" in refusal(client, "history", "", "", 0)


def test_only_what_was_uploaded_is_opened(client: Client, site: Served) -> None:
    """A program may send any path where a file belongs."""
    secret = site.folder / "latentcanvas.toml"
    for path in (str(secret), "/etc/passwd", f"{site.temporary}/../{secret.name}", "a\0b", 3):
        assert "is not an uploaded file" in refusal(client, "recipe", {"path": path})
    meta = {"_type": "gradio.FileData"}
    with httpx.Client(base_url=site.url, timeout=60, trust_env=False) as raw:
        body = {"data": [{"path": str(secret), "meta": meta}, ""]}
        event = raw.post("/gradio_api/call/recipe", json=body).json()["event_id"]
        answer = raw.get(f"/gradio_api/call/recipe/{event}").text
    assert "event: error" in answer
    assert "guests" not in answer


def test_what_there_is(client: Client) -> None:
    samplers = {one["name"]: one for one in client.predict(api_name="/samplers")}
    assert samplers["ddim"]["options"][0]["name"] == "eta"
    assert "karras" in [one["name"] for one in client.predict(api_name="/schedules")]
    assert {"name": "tiny", "loaded": True} in client.predict(api_name="/models")
    count = client.predict("a red qwertz", api_name="/tokens")
    assert count["unknown"] == ["qwertz"]
    assert count["used"] > 3


def test_a_model_is_one_of_those_that_are_installed(client: Client) -> None:
    assert "is not installed" in refusal(client, "txt2img", "a moon", **SMALL, model="/etc/passwd")


def test_recipes_of_pictures_and_texts(client: Client) -> None:
    *_, last = answers(client, "txt2img", "a moon", **SMALL, previews=False)
    found = client.predict(handle_file(last["images"][0]), api_name="/recipe")
    assert found["source"] == "latentcanvas"
    assert found["request"]["seed"] == 7
    found = client.predict(None, "a cat\nSteps: 20, Sampler: Euler a, Seed: 3", api_name="/recipe")
    assert (found["source"], found["request"]["sampler"]) == ("a1111", "euler_a")
    assert "give an image file or a text" in refusal(client, "recipe", None, " ")


def test_a_guest_finds_only_runs_of_their_own(client: Client) -> None:
    other = "a token of somebody else"
    *_, last = answers(client, "txt2img", "quite unlike the others", **SMALL, owner=other, previews=False)
    assert [run["run"] for run in client.predict("unlike", other, api_name="/history")] == [last["run"]]
    for owner in (ME, "", "a token of nobody at all"):
        assert client.predict("unlike", owner, api_name="/history") == []
        for name in ("run", "pictures"):
            assert refusal(client, name, last["run"], owner)


def test_a_run_can_be_stopped_and_whoever_leaves_stops_it(client: Client, site: Served) -> None:
    long = {**SMALL, "steps": 500, "previews": False, "owner": ME}
    job = client.submit("a hill", api_name="/txt2img", **long)
    for _ in range(300):
        if job.outputs() and job.outputs()[-1]["step"] > 2:
            break
        time.sleep(0.05)
    assert client.predict(job.outputs()[0]["job"], ME, api_name="/cancel") == "stopped"
    job.result(60)
    last = job.outputs()[-1]
    assert last["state"] == "stopped"
    assert 2 < last["settings"]["stop_after"] < 500
    assert len(last["images"]) == 1
    leaving = client.submit("a hill", api_name="/txt2img", **long)
    while not leaving.outputs():
        time.sleep(0.05)
    leaving.cancel()
    began = time.monotonic()
    answers(client, "txt2img", "next", **SMALL, previews=False)  # does not wait for what was left
    assert time.monotonic() - began < 60


def test_what_programs_read_of_it(client: Client, site: Served) -> None:
    with httpx.Client(base_url=site.url, timeout=60, trust_env=False) as raw:
        openapi = raw.get("/gradio_api/openapi.json").json()
        info = raw.get("/gradio_api/info").json()
        config = raw.get("/config").json()
    assert sorted(info["named_endpoints"]) == sorted(f"/{name}" for name in NAMES)
    assert info["unnamed_endpoints"] == {}
    calls = [path for path in openapi["paths"] if path.startswith("/gradio_api/call/v2/")]
    assert sorted(path.rsplit("/", 1)[1] for path in calls) == sorted(NAMES)
    assert {"label": "API", "url": "/gradio_api/openapi.json"} in config["footer_links"]
    for name, endpoint in info["named_endpoints"].items():
        assert endpoint["description"], name
        for parameter in endpoint["parameters"]:
            assert parameter["python_type"]["type"] != "Any", (name, parameter["parameter_name"])
        assert json.dumps(endpoint["returns"]) != "[]"
