"""Opening files of weights: every format of PyTorch and safetensors, and nothing in them ever runs."""

from __future__ import annotations

import collections
import io
import json
import os
import pickle
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from core.errors import UserError
from core.weights.readers.checkpoint import look, open_checkpoint
from core.weights.readers.pickle_machine import MAX_OPCODES
from tests.checkpoints import LIGHTNING, lightning, write_ckpt

BASE = torch.arange(24, dtype=torch.float32)
TENSORS: dict[str, Tensor] = {
    "plain": BASE.view(4, 6),
    "half": BASE.half(),
    "bfloat": BASE.bfloat16(),
    "small": BASE.to(torch.float8_e4m3fn),
    "whole": torch.arange(5),
    "bool": torch.tensor([True, False, True]),
    "scalar": torch.tensor(3.5),
    "none": torch.zeros(0, 3),
    "parameter": torch.nn.Parameter(BASE[:2].clone()),
}
VIEWS = {"across": BASE.view(4, 6).t(), "part": BASE[5:9], "column": BASE.view(4, 6)[:, 2]}


def same(path: Path, expected: dict[str, Tensor]) -> None:
    found = open_checkpoint(path).entries
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        ours = found[name].tensor()
        assert (ours.dtype, ours.shape) == (tensor.dtype, tensor.shape), name
        assert torch.equal(ours.double(), tensor.detach().double()), name
        assert found[name].count == tensor.numel()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves_is_read(tmp_path: Path, zipped: bool, protocol: int) -> None:
    path = tmp_path / "x.ckpt"
    content = {"state_dict": TENSORS | VIEWS, "global_step": 7, "size": torch.Size((1, 2)), "set": {1, 2}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    same(path, TENSORS | VIEWS)
    assert open_checkpoint(path).step == 7


def test_safetensors_are_read_with_their_metadata(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({k: v.detach().clone() for k, v in TENSORS.items()}, path, metadata={"made by": "hand"})
    same(path, TENSORS)
    assert open_checkpoint(path).metadata == {"made by": "hand"}


def test_the_content_tells_the_format_not_the_name(tmp_path: Path) -> None:
    save_file({"a": BASE.clone()}, tmp_path / "x.ckpt")
    torch.save({"a": BASE}, tmp_path / "x.safetensors")
    assert open_checkpoint(tmp_path / "x.ckpt").format == "safetensors"
    assert open_checkpoint(tmp_path / "x.safetensors").format == "PyTorch zip"


def test_a_sharded_set_is_one_checkpoint(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    save_file({"a": BASE.clone()}, tmp_path / "model-1.safetensors")
    save_file({"b": BASE.clone() + 1}, tmp_path / "model-2.safetensors")
    places = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    index.write_text(json.dumps({"weight_map": places}))
    same(index, {"a": BASE, "b": BASE + 1})
    for name in ("../model-1.safetensors", "/etc/passwd", "..\\x", ""):
        index.write_text(json.dumps({"weight_map": places | {"b": name}}))
        with pytest.raises(UserError, match="outside its folder"):
            open_checkpoint(index)
    index.write_text(json.dumps({"weight_map": places | {"c": "model-1.safetensors"}}))
    with pytest.raises(UserError, match="lists 'c'"):
        open_checkpoint(index)


class Runs:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


class State(dict[str, Any]):
    """A table whose items come after its making, by the opcode that fills it."""

    def __reduce__(self) -> Any:
        return dict, (), None, None, iter([("x", Runs(os.system, "touch pwned"))])


def attacks() -> dict[str, tuple[object, str]]:
    """What is pickled, and the name by which it must be refused."""
    code = "open('pwned', 'w').close()"
    nested = pickle.dumps(Runs(os.system, "touch pwned"))
    system = f"os.system ({os.system.__module__}.system)"
    return {
        "os.system": (Runs(os.system, "touch pwned"), system),
        "eval": (Runs(eval, code), "builtins.eval"),
        "exec": (Runs(exec, code), "builtins.exec"),
        "getattr": (Runs(getattr, "x", "upper"), "builtins.getattr"),
        "open": (Runs(open, "pwned", "w"), f"{open.__module__}.open"),
        "subprocess": (Runs(subprocess.Popen, ["touch", "pwned"]), ".Popen"),
        "nested": (Runs(pickle.loads, nested), "pickle.loads"),
        "torch.load": (Runs(torch.load, "x"), "torch.serialization.load"),
        "inside lightning": (lightning({"hook": Runs(os.system, "touch pwned")}), system),
        "inside lightning, nested": (lightning(Runs(pickle.loads, nested)), "pickle.loads"),
        "in an item": (State(), system),
        "in a key": ({(Runs(os.system, "touch pwned"),): 1}, system),
    }


@pytest.mark.parametrize("attack", attacks())
@pytest.mark.parametrize("form", ["zip", "older", "bare 0", "bare 2", "bare 5"])
def test_nothing_in_a_pickle_runs_and_the_file_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, attack: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.ckpt"
    payload, name = attacks()[attack]
    if form.startswith("bare"):
        path.write_bytes(pickle.dumps(payload, int(form[-1])))
    else:
        write_ckpt(path, {"a": BASE}, legacy=form == "older", extra=payload)
    with pytest.raises(UserError) as caught:
        open_checkpoint(path)
    assert name in str(caught.value)
    assert "Nothing was run" in str(caught.value)
    assert not (tmp_path / "pwned").exists()
    found = look(path)
    assert found.refused
    assert found.entries == {}


def test_the_attacks_are_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own unpickler runs them: else the test above would prove nothing."""
    monkeypatch.chdir(tmp_path)
    for attack in ("os.system", "eval", "nested", "inside lightning, nested", "in an item"):
        pickle.loads(pickle.dumps(attacks()[attack][0]))
        assert (tmp_path / "pwned").exists(), attack
        (tmp_path / "pwned").unlink()


def test_what_training_leaves_in_a_checkpoint_is_read_past(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    write_ckpt(
        path,
        {"a": BASE},
        more=lightning({"best": np.float64(0.5), "path": Path("logs"), "array": np.arange(3)}),
        counts=collections.defaultdict(dict, {"x": 1}),
        optimizer={"state": {0: {"step": 1, "exp_avg": BASE}}},
        where=torch.device("cpu"),
    )
    same(path, {"a": BASE})
    assert f"{LIGHTNING}.ModelCheckpoint" in open_checkpoint(path).globals


def zipped(path: Path, members: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def pickled_tensor(count: int = 24, offset: int = 0, shape: Any = (24,), strides: Any = (1,)) -> bytes:
    """A pickle of one tensor over storage 0 that says of itself whatever it is told to."""
    out = io.BytesIO()
    out.write(b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n(")
    out.write(b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu")
    out.write(_int(count) + b"tQ" + _int(offset))
    for numbers in (shape, strides):
        out.write(b"(" + b"".join(map(_int, numbers)) + b"t")
    out.write(b"\x89ccollections\nOrderedDict\n)RtRs.")
    return out.getvalue()


def _int(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def test_the_tensor_that_the_next_test_bends_is_read_when_it_is_straight(tmp_path: Path) -> None:
    zipped(tmp_path / "x.ckpt", {"x/data.pkl": pickled_tensor(), "x/data/0": BASE.numpy().tobytes()})
    same(tmp_path / "x.ckpt", {"a": BASE})


@pytest.mark.parametrize(
    "bent",
    [
        {"offset": 1},
        {"offset": -1},
        {"offset": 2**62},
        {"shape": (25,)},
        {"shape": (-1,)},
        {"shape": (2**61, 2**61), "strides": (0, 0)},
        {"shape": (24, 2), "strides": (1, 0)},
        {"strides": (2,)},
        {"strides": (-1,)},
        {"strides": (1, 1)},
        {"shape": (1,) * 17, "strides": (1,) * 17},
    ],
)
def test_tensors_that_reach_out_of_their_storage_are_refused(tmp_path: Path, bent: dict[str, Any]) -> None:
    path = tmp_path / "x.ckpt"
    zipped(path, {"x/data.pkl": pickled_tensor(**bent), "x/data/0": BASE.numpy().tobytes()})
    with pytest.raises(UserError, match="damaged"):
        open_checkpoint(path)


def bomb(path: Path) -> None:
    data = b"\0" * 10_000_000
    zipped(path, {"x/data.pkl": pickled_tensor(), "x/data/0": data}, zipfile.ZIP_DEFLATED)


def overlapping(path: Path) -> None:
    """Two members in the same bytes: the second one's entry in the directory points to the first."""
    zipped(path, {"x/data.pkl": pickled_tensor(), "x/data/0": b"0" * 1000, "x/data/1": b"1" * 1000})
    data = bytearray(path.read_bytes())
    first, second = (data.rfind(f"x/data/{i}".encode()) - 46 + 42 for i in range(2))
    data[second : second + 4] = data[first : first + 4]
    for start in (first - 42 + 20, second - 42 + 20):  # both sizes of each
        data[start : start + 8] = (2000).to_bytes(4, "little") * 2
    path.write_bytes(data)


def cut(path: Path) -> None:
    torch.save({"a": BASE}, path)
    path.write_bytes(path.read_bytes()[:-30])


def cut_safetensors(path: Path) -> None:
    save_file({"a": torch.zeros(300_000)}, path)
    path.write_bytes(path.read_bytes()[:-200_000])


def text(content: str | bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (bomb, "zip bomb"),
        (overlapping, "zip bomb|has wrong offsets|damaged"),
        (cut, "cut short"),
        (cut_safetensors, "cut short: 1.2 MB are expected, but it has 1.0 MB"),
        (text(""), "is empty"),
        (text("<!DOCTYPE html><title>Sign in</title>"), "web page"),
        (text("\n  <html lang=en>"), "web page"),
        (text("version https://git-lfs.github.com/spec/v1\noid sha256:0"), "git-lfs pointer"),
        (text('{"error": "not found"}'), "JSON"),
        (text(b"GGUF\3\0\0\0"), "GGUF"),
        (text(b"\x89PNG\r\n\x1a\n"), "is an image"),
        (text("hello"), "is not a checkpoint"),
        (text(pickle.dumps([1, 2, 3])), "Python pickle"),
        (text(b"\x80\x02" + b"]" * 100), "pickle cannot be read"),
        (text(b"\x80\x02" + b"]0" * MAX_OPCODES), "more opcodes than"),
        (text(b"\x80\x02X\xff\xff\xff\x7fabc."), "larger than"),
        (lambda path: zipped(path, {"picture.jpg": b"x"}), "without PyTorch's data.pkl"),
        (lambda path: zipped(path, {"x/data.pkl": b"", "x/constants.pkl": b""}), "TorchScript"),
        (lambda path: zipped(path, {"x/data.pkl": pickled_tensor()}), "data is missing"),
        (
            lambda path: zipped(
                path, {"x/data.pkl": pickled_tensor(), "x/data/0": bytes(96), "x/byteorder": b"big"}
            ),
            "big-endian",
        ),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: None, "is missing"),
        (text((2**40).to_bytes(8, "little") + b"{}"), "is not a checkpoint"),
        (text((50 * 2**20).to_bytes(8, "little") + b"{}"), "not even its header"),
        (text((50).to_bytes(8, "little") + b"{}"), "not even its header"),
        (text((4).to_bytes(8, "little") + b"{[}]"), "cannot be read"),
        (text((60_000).to_bytes(8, "little") + b'{"a":' + b"[" * 59_995), "cannot be read"),
    ],
)
def test_every_wrong_file_is_one_sentence_that_says_what_it_is(
    tmp_path: Path, make: Callable[[Path], Any], words: str
) -> None:
    path = tmp_path / "x.ckpt"
    make(path)
    with pytest.raises(UserError, match=words) as caught:
        open_checkpoint(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def header(table: Any, data: bytes = b"") -> bytes:
    written = json.dumps(table).encode()
    return len(written).to_bytes(8, "little") + written + data


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}, "size that does not fit its shape"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "are expected"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}, "gaps"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 16]}, "cut short"),
        ({"dtype": "F4", "shape": [2], "data_offsets": [0, 8]}, "dtype 'F4'"),
        ({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}, "invalid entry in the header"),
        ({"dtype": "F32", "shape": [2**63, 0], "data_offsets": [0, 8]}, "invalid entry in the header"),
        ({"dtype": "F32", "shape": [True], "data_offsets": [0, 8]}, "invalid entry in the header"),
        ({"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}, "invalid entry in the header"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}, "invalid entry in the header"),
        ({"dtype": "F32", "shape": [2]}, "invalid entry in the header"),
        (["F32"], "invalid entry in the header"),
        (None, "invalid entry in the header"),
    ],
)
def test_safetensors_that_describe_tensors_wrongly_are_refused(
    tmp_path: Path, described: Any, words: str
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(header({"a": described}, bytes(8)))
    with pytest.raises(UserError, match=words):
        open_checkpoint(path)
