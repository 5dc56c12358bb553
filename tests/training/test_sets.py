"""What models are trained on: right pictures and captions, and one sentence for everything that is wrong."""

from __future__ import annotations

import errno
import gzip
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from core.errors import UserError
from core.files import write_whole
from core.scenes.scene import SHAPE_KINDS
from core.training import training_loop
from core.training.densities import DENSITIES
from core.training.sets import PictureSet, PointSet, open_set
from core.training.sets.cifar import cifar_set
from core.training.sets.digits import digit_set
from core.training.sets.folder import folder_set
from core.training.sets.labelled import digit_captions
from core.training.sets.mnist import fit_grey, mnist_set
from core.training.sets.shapes import shape_set
from core.training.trainer import train
from core.training.training_recipe import read_recipe

RECIPES = Path(__file__).resolve().parents[2] / "data" / "recipes"


def test_digits_are_drawn_alike_and_evenly() -> None:
    first, again = digit_set("train", 3, 40, 28), digit_set("train", 3, 40, 28)
    assert np.array_equal(first.stored, again.stored)
    assert first.stored.shape == (40, 28, 28)
    assert np.bincount(first.labels).tolist() == [4] * 10
    ink = first.stored.mean(axis=(1, 2)) / 255
    assert 0.03 < float(ink.min()) < float(ink.max()) < 0.4
    edges = first.stored[:, [0, -1], :].mean()
    assert edges < 2  # nothing is cut off
    assert not np.array_equal(first.stored, digit_set("train", 4, 40, 28).stored)


def test_captions_are_the_labels_in_words() -> None:
    digits = digit_set("train", 3, 20, 28)
    for i in range(20):
        assert digits.caption(i, "a") in digit_captions()[digits.labels[i]]
        assert digits.caption(i, "a") == digits.caption(i, "a")
    assert len({digits.caption(0, f"caption {step}") for step in range(40)}) == 4
    assert digits.examples() == tuple("0123456789")
    assert "an eight" in digit_captions()[8]
    assert {"seven", "digit", "a"} < digits.words()


def test_a_picture_in_grey_becomes_three_channels() -> None:
    digits = digit_set("train", 3, 4, 28)
    picture = next(digits.pictures([2]))
    assert picture.shape == (28, 28, 3)
    assert np.array_equal(picture[:, :, 0], digits.stored[2])
    shapes = shape_set("train", 3, 4, 32)
    assert next(shapes.pictures([1])).shape == (32, 32, 3)
    assert shapes.caption(0, "x").split()[-1] in SHAPE_KINDS


@pytest.mark.parametrize("density", DENSITIES)
def test_points_are_about_one_from_the_middle_and_never_the_same(density: str) -> None:
    points = PointSet("train", 1, 4000, density).latents()
    assert points.shape == (4000, 2, 1, 1)
    assert points.dtype == np.float32
    assert np.abs(points.mean(axis=0)).max() < 0.4
    assert 0.4 < float(points.std()) < 1.3
    assert np.abs(points).max() < 2.8  # inside what is drawn
    assert not np.array_equal(points, PointSet("train", 2, 4000, density).latents())


def idx(array: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """A folder as MNIST is distributed, of five pictures; two of the files compressed."""
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        pictures = rng.integers(0, 256, (5, 28, 28), dtype=np.uint8)
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pictures)))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(5, dtype=np.uint8)))
    return tmp_path


def test_mnist_is_read_as_it_is_distributed(mnist: Path) -> None:
    found = mnist_set(mnist, "train", 1, 4, 28)
    assert found.stored.shape == (4, 28, 28)
    assert found.labels.tolist() == [0, 1, 2, 3]
    assert found.caption(3, "x") in digit_captions()[3]
    expected = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    assert np.array_equal(found.stored, expected[:4])
    larger = mnist_set(mnist, "test", 1, 9, 32).stored
    assert larger.shape == (5, 32, 32)
    assert not larger[:, :2].any()
    assert fit_grey(expected[0], 14).shape == (14, 14)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "train-images-idx3-ubyte.gz",
            None,
            "train-images-idx3-ubyte is missing: put MNIST's four idx files",
        ),
        ("train-images-idx3-ubyte.gz", b"no gzip", "cannot be read"),
        (
            "train-images-idx3-ubyte.gz",
            gzip.compress(b"\0\0\x0b\3" + b"\0" * 12, mtime=0),
            "is not an idx file of bytes",
        ),
        (
            "train-labels-idx1-ubyte",
            idx(np.arange(5, dtype=np.uint8))[:-1],
            "cut off or damaged: it declares 5",
        ),
        ("train-labels-idx1-ubyte", idx(np.arange(4, dtype=np.uint8)), "5 images, 4 labels"),
        ("train-labels-idx1-ubyte", idx(np.full(5, 77, dtype=np.uint8)), "not digits"),
        ("train-labels-idx1-ubyte", b"", "is not an idx file"),
        (
            "train-images-idx3-ubyte.gz",
            gzip.compress(idx(np.zeros((0, 28, 28), np.uint8)), mtime=0),
            "0 images, 5 labels",
        ),
    ],
)
def test_missing_and_corrupt_idx_files(mnist: Path, name: str, content: bytes | None, words: str) -> None:
    if content is None:
        (mnist / name).unlink()
    else:
        (mnist / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        mnist_set(mnist, "train", 1, 5, 28)


def test_idx_files_without_pictures(mnist: Path) -> None:
    (mnist / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros((0, 28, 28), np.uint8))))
    (mnist / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(0, np.uint8)))
    with pytest.raises(UserError, match="hold no images"):
        mnist_set(mnist, "train", 1, 5, 28)


def cifar_rows(count: int) -> NDArray[np.uint8]:
    rows = np.random.default_rng(0).integers(0, 256, (count, 3073), dtype=np.uint8)
    rows[:, 0] = np.arange(count) % 10
    return rows


def test_cifar_is_read_from_its_binary_version(tmp_path: Path) -> None:
    rows = cifar_rows(6)
    (tmp_path / "data_batch_1.bin").write_bytes(rows.tobytes())
    found = cifar_set(tmp_path, "train", 1, 4, 32)
    assert found.stored.shape == (4, 32, 32, 3)
    assert found.stored[2, 5, 7, 1] == rows[2, 1 + 1024 + 5 * 32 + 7]  # green is the second plane
    assert found.caption(3, "x") in ("cat", "a cat")
    assert cifar_set(tmp_path, "train", 1, 2, 16).size == 16
    with pytest.raises(UserError, match=r"test_batch\.bin is missing: put the files of CIFAR-10's binary"):
        cifar_set(tmp_path, "test", 1, 4, 32)
    (tmp_path / "data_batch_1.bin").write_bytes(rows.tobytes()[:-1])
    with pytest.raises(UserError, match="cut off, damaged or not of the binary version"):
        cifar_set(tmp_path, "train", 1, 4, 32)


def test_a_folder_of_pictures_with_classes_and_captions(tmp_path: Path) -> None:
    for name in ("red_apple/1.png", "red_apple/2.jpg", "owl/3.png", "4.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 30), (200, 10, 10)).save(tmp_path / name)
    (tmp_path / "owl/3.txt").write_text("a brown owl at night\n\nan owl\n")
    found = folder_set(tmp_path, "train", 1, 10, 16)
    said = [{found.caption(i, f"{k}") for k in range(30)} for i in range(4)]
    assert said == [
        {""}, {"a brown owl at night", "an owl"}, {"red apple", "a red apple"}, {"red apple", "a red apple"},
    ]  # fmt: skip
    assert found.stored.shape == (4, 16, 16, 3)
    assert found.words() == {"a", "an", "brown", "owl", "at", "night", "red", "apple"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "holds no images"),
        ({"a.png": b"no picture"}, r"a\.png.* no picture of a known kind"),
        ({"a.txt": b"words"}, "holds no images"),
    ],
)
def test_a_folder_without_pictures(tmp_path: Path, content: dict[str, bytes], words: str) -> None:
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=words):
        folder_set(tmp_path, "train", 1, 10, 16)
    with pytest.raises(UserError, match="is not a folder"):
        folder_set(tmp_path / "nowhere", "train", 1, 10, 16)


def test_captions_must_be_text(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"a\.txt cannot be read .*UTF-8"):
        folder_set(tmp_path, "train", 1, 10, 16)


def test_what_is_measured_on_is_never_trained_on() -> None:
    recipe = read_recipe(RECIPES / "toy.toml", ["pictures.unet=30"])
    seen, kept = open_set(recipe, "train"), open_set(recipe, "test")
    assert isinstance(seen, PictureSet)
    assert isinstance(kept, PictureSet)
    assert (seen.count, kept.count) == (30, 512)
    assert not any((picture == seen.stored).all(axis=(1, 2)).any() for picture in kept.stored)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("data.kind=mnist", "data.path, the folder with its files"),
        ("data.kind=mnst", "mnist"),
        ("data.knid=mnist", "did you mean 'kind'"),
        ("data.kind=points", "belong together"),
        ("latents.kind=points", "multiple of 8"),
        ("latents.channels=2", "1 channel or 3"),
        ("pictures.unet=0", "at least 1"),
        ("words=read", r"needs data\.kind \"scenes\""),
        ("words=all", "joint"),
        ("defaults.width=4", "between 8 and 2048"),
        ("unet.mid_block_type=UNetMid", "UNetMidBlock2D"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_one_sentence(change: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as refusal:
        read_recipe(RECIPES / "toy.toml", [change])
    assert "\n" not in str(refusal.value)


def test_missing_data_leaves_no_run_behind(tmp_path: Path) -> None:
    changes = ["data.kind=mnist", f"data.path={tmp_path}"]
    with pytest.raises(UserError, match="train-images-idx3-ubyte is missing"):
        train(RECIPES / "toy.toml", changes, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_full_disk_keeps_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fills up while the second checkpoint is written: one sentence, and the first one is whole."""
    quick = [
        "pictures.unet=16", "unet.block_out_channels=[8,8]", "unet.norm_num_groups=4",
        "train.unet.steps=4", "train.unet.batch=2", "train.unet.save_every=2", "train.unet.measure_every=4",
        "train.unet.sample_every=0", "defaults.steps=1",
    ]  # fmt: skip
    saved: list[Path] = []

    def full(path: Path, data: bytes) -> None:
        if path.suffix == ".checkpoint":
            saved.append(path)
        if len(saved) > 1:
            monkeypatch.setattr(os, "fsync", no_space)
        write_whole(path, data)

    def no_space(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(training_loop, "write_whole", full)
    with pytest.raises(UserError, match="no space left on the disk"):
        train(RECIPES / "toy.toml", quick, out=tmp_path / "run", device="cpu")
    monkeypatch.undo()
    kept = torch.load(tmp_path / "run" / "unet.checkpoint", weights_only=True)
    assert kept["step"] == 2
    assert train(RECIPES / "toy.toml", quick, resume=True, out=tmp_path / "run", device="cpu").is_dir()
