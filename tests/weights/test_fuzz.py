"""Damaged files, two thousand of them: always a model or one sentence, in little time and memory."""

from __future__ import annotations

import io
import json
import time
import tracemalloc
import zipfile
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from core.errors import UserError
from core.inference.pipeline import Pipeline
from core.weights.inspect import inspect
from core.weights.model_files import open_model
from tests.checkpoints import lightning, state_dict, write_ckpt, write_folder, write_safetensors

FORMS = ("safetensors", "zip", "older")
SECONDS = 5.0
# What Python's own objects for the names and shapes of a file may take beside twice the file.
BESIDE = 8 * 2**20


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model in every form, and its tokenizer."""
    home = tmp_path_factory.mktemp("fuzz")
    folder = write_folder(home / "folder")
    (home / "tokenizer").symlink_to(folder / "tokenizer")
    tensors = state_dict(write_safetensors(home / "model.safetensors", folder))
    write_ckpt(home / "zip.ckpt", tensors)
    write_ckpt(home / "older.ckpt", tensors, legacy=True)
    return home


@cache
def tiny(form: str) -> bytes:
    """A file of a few tensors, so that most of its bytes say what is in it."""
    tensors = {
        "model.diffusion_model.a": torch.ones(2, 3).half(),
        "b.c": torch.arange(4),
        "d": torch.ones(()),
    }
    if form == "safetensors":
        return bytes(save(tensors, {"made by": "hand"}))
    buffer = io.BytesIO()
    content = {"state_dict": tensors, "global_step": 3, "callbacks": [lightning({"best": 1.0})]}
    torch.save(content, buffer, _use_new_zipfile_serialization=form == "zip")
    return buffer.getvalue()


def opened(path: Path, data: bytes) -> None:
    """Open and inspect the bytes as a file: anything but a UserError is a failure, as is a long wait."""
    path.write_bytes(data)
    began = time.process_time()
    tracemalloc.start()
    said = ""
    try:
        inspect(path)
        open_model(path)
    except UserError as error:
        said = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert said.startswith(str(path))  # none of these files is a whole model
    assert said.isprintable()
    assert time.process_time() - began < SECONDS
    assert peak < 2 * len(data) + BESIDE


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("x") / "x.ckpt"


FAST = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


@pytest.mark.parametrize("form", FORMS)
def test_cut_short_anywhere(path: Path, form: str) -> None:
    """Every prefix length, and so every class of them."""
    whole = tiny(form)
    for length in range(0, len(whole), max(1, len(whole) // 250)):
        opened(path, whole[:length])
    opened(path, whole)


@pytest.mark.parametrize("form", FORMS)
@FAST
@given(flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=4))
def test_flipped_bytes_anywhere(path: Path, form: str, flips: list[tuple[float, int]]) -> None:
    data = bytearray(tiny(form))
    for where, mask in flips:
        data[min(int(where * len(data)), len(data) - 1)] ^= mask
    opened(path, bytes(data))


@FAST
@given(flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_changed_pickle_whose_checksum_fits(path: Path, flips: list[tuple[float, int]]) -> None:
    """The archive is whole, so that nothing but our machine stands between the pickle and us."""
    with zipfile.ZipFile(io.BytesIO(tiny("zip"))) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    [name] = [name for name in members if name.endswith("data.pkl")]
    data = bytearray(members[name])
    for where, value in flips:
        data[min(int(where * len(data)), len(data) - 1)] = value
    members[name] = bytes(data)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    opened(path, buffer.getvalue())


@FAST
@given(data=st.binary(max_size=300))
def test_any_pickle(path: Path, data: bytes) -> None:
    opened(path, b"\x80\x02" + data)


@FAST
@given(table=st.binary(max_size=300), rest=st.binary(max_size=50))
def test_any_table_of_safetensors(path: Path, table: bytes, rest: bytes) -> None:
    opened(path, (len(table) + 1).to_bytes(8, "little") + b"{" + table + rest)


JSON = st.recursive(
    st.none() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@FAST
@given(dtype=JSON | st.sampled_from(["F16", "F32"]), shape=JSON, offsets=JSON, name=st.text(max_size=30))
def test_any_description_of_a_tensor(
    path: Path, dtype: object, shape: object, offsets: object, name: str
) -> None:
    table = json.dumps({name: {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()
    opened(path, len(table).to_bytes(8, "little") + table + bytes(8))


@pytest.mark.parametrize("form", ["model.safetensors", "zip.ckpt", "older.ckpt"])
@settings(parent=FAST, max_examples=35)
@given(where=st.floats(0, 1), mask=st.integers(1, 255))
def test_a_whole_model_with_one_flipped_byte_makes_a_picture_or_a_sentence(
    home: Path, form: str, where: float, mask: int
) -> None:
    """Flips in what describes the tensors, at the start of the file, and in its last thousands of bytes."""
    data = bytearray((home / form).read_bytes())
    described = min(60_000, len(data) // 4)
    at = int(where * 2 * (described - 1))
    data[at if at < described else len(data) - 1 - (at - described)] ^= mask
    path = home / "flipped.ckpt"
    path.write_bytes(data)
    began = time.process_time()
    said, size = "", (0, 0)
    try:
        pipe = Pipeline.load(path, device="cpu")
        result = pipe.generate(prompt="a house", steps=1, width=64, height=64, seed=0, cfg_scale=1)
        size = result.images[0].size
    except UserError as error:
        said = str(error)
    assert said.isprintable() if said else size == (64, 64)
    assert time.process_time() - began < SECONDS
