"""`latentcanvas recipe`: a table for people, JSON for scripts, text on standard input."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from core.recipes.png import png_bytes
from tests.core.recipes import RECIPE
from tests.ui.commandline import failure, run

TEXT = "a cat\nSteps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 5, Size: 510x512, Model: none-such"


def feed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))


def test_a_picture_of_ours(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(Image.new("RGB", (8, 8)), RECIPE))
    code, out, _ = run(capsys, "recipe", str(path), "--json")
    told = json.loads(out)
    assert code == 0
    assert told["source"] == "latentcanvas"
    assert told["request"] == RECIPE.settings.to_dict()
    assert told["model"] == {"name": "tiny", "hash": RECIPE.model.sha256, "here": "tiny"}
    assert told["needs"] == []
    assert {line["fate"] for line in told["report"] if line["key"] in told["request"]} == {"kept"}
    code, out, _ = run(capsys, "recipe", str(path))
    assert out.splitlines()[0].strip() == "LatentCanvas; model tiny, which is installed as tiny"


def test_text_on_standard_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    feed(monkeypatch, TEXT.encode())
    code, out, _ = run(capsys, "recipe", "-")
    assert code == 0
    title, *rows = [line.strip() for line in out.splitlines() if line.strip()]
    assert title == "A1111's text; model none-such, which is not installed"
    by_key = {row.split("  ")[0]: " ".join(row.split()) for row in rows}
    assert by_key["Sampler"].startswith("Sampler DPM++ 2M Karras mapped dpmpp_2m, schedule karras; ")
    assert by_key["Size"].startswith("Size 510x512 mapped 512x512; sides are multiples of 8")
    assert by_key["RNG"].startswith("RNG (not given) ignored GPU noise cannot be reproduced")
    feed(monkeypatch, TEXT.encode())
    assert json.loads(run(capsys, "recipe", "-", "--json")[1])["request"]["schedule"] == "karras"


def test_what_it_needs_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    feed(monkeypatch, f"{TEXT}, Denoising strength: 0.5".encode())
    out = run(capsys, "recipe", "-")[1]
    assert out.endswith("To run it, give its init image (--image).\n")


def test_a_long_value_is_cut_in_the_table_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(monkeypatch, b"word " * 1000)
    assert run(capsys, "recipe", "-")[1].count("word") == 80
    feed(monkeypatch, b"word " * 1000)
    assert json.loads(run(capsys, "recipe", "-", "--json")[1])["request"]["prompt"].count("word") == 1000


def test_bad_input_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "No such file" in failure(capsys, "recipe", str(tmp_path / "no.png"))
    feed(monkeypatch, b"\x89PNG\r\n\x1a\n")
    assert failure(capsys, "recipe", "-") == "standard input is not text: give an image by its file name"
    feed(monkeypatch, b"")
    assert "there is no text" in failure(capsys, "recipe", "-")
