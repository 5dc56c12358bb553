"""The preview map of a model that brings none: how good it is, and where it is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from core import files
from core.errors import UserError
from core.images.tensors import to_images
from core.inference import preview_fit
from core.inference.model import Model
from core.inference.pipeline import Pipeline
from core.inference.preview import Previewer, fit
from core.inference.preview_fit import NAME, fields, scenes
from core.sampling.noise import start_noise
from core.scenes.pool import Pool, to_tensor
from core.weights.find import EMBEDDED
from core.weights.layouts.model_folder import NOTES
from tests.small import write_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model without notes."""
    monkeypatch.setattr(preview_fit, "cache_folder", lambda: tmp_path / "cache")
    made = write_model(tmp_path / "small")
    (made / NOTES).unlink()
    return made


def load(folder: Path) -> Pipeline:
    return Pipeline.load(folder, device="cpu")


def error(rows: Tensor, latents: Tensor, pictures: Tensor) -> float:
    """The mean squared one of the previews, averaged to a pixel per cell."""
    wanted = torch.nn.functional.avg_pool2d(pictures, pictures.shape[-1] // latents.shape[-1])
    made = torch.einsum("bchw,cd->bdhw", latents, rows[:-1]) + rows[-1][:, None, None]
    made = made.unflatten(1, (3, -1)).mean(2)
    return float((made.clamp(-1, 1) - wanted).square().mean())


def test_it_is_near_the_map_that_the_model_was_given_and_better_than_one_of_noise() -> None:
    pipe = Pipeline.load("tiny", device="cpu", dtype="float32")
    pool = Pool(9, "seen", 6, pipe.defaults.width)
    pictures = to_tensor(np.stack([pool.picture(i) for i in range(6)])).contiguous()
    latents = pipe.encode(pictures).cpu()
    noise = start_noise(0, 4, (pipe.model.config.vae.latent_channels, 16, 16))
    with torch.no_grad():
        of_noise = fit(noise, pipe.vae.decode(noise))
    assert pipe.model.notes.preview is not None
    own = error(torch.tensor(pipe.model.notes.preview), latents, pictures)
    found = error(preview_fit.fitted(pipe.encode, pipe.vae.decode, latents.shape[1]), latents, pictures)
    assert found < 1.4 * own
    assert found < 0.75 * error(of_noise, latents, pictures)


def test_it_is_kept_beside_the_model_and_found_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = load(folder).model.previewer.map
    kept = json.loads((folder / NAME).read_text())
    assert torch.equal(torch.tensor(kept["preview"]), rows)
    monkeypatch.setattr(preview_fit, "fitted", None)  # it is not fitted again
    assert torch.equal(load(folder).model.previewer.map, rows)
    # Another VAE under the same name, or a file that is damaged: it is fitted again.
    monkeypatch.undo()
    huge = json.dumps({**kept, "preview": [[10**400] * 3] * 5})
    for damage in ('{"vae": 3}', "[", '{"vae": "' + kept["vae"] + '", "preview": [[1, 2]]}', huge):
        (folder / NAME).write_text(damage)
        assert torch.equal(load(folder).model.previewer.map, rows)
        assert json.loads((folder / NAME).read_text()) == kept


def test_a_folder_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, data: bytes) -> None:
        if path.parent == folder:
            raise UserError("the disk is read-only")
        files.write_whole(path, data)

    monkeypatch.setattr(preview_fit, "write_whole", refuse)
    rows = load(folder).model.previewer.map
    assert not (folder / NAME).exists()
    assert len(list((folder.parent / "cache" / "previews").iterdir())) == 1
    monkeypatch.setattr(preview_fit, "fitted", None)
    assert torch.equal(load(folder).model.previewer.map, rows)


def test_where_nothing_can_be_written_there_is_a_map_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise UserError("the disk is full")

    monkeypatch.setattr(preview_fit, "write_whole", refuse)
    assert load(folder).model.previewer.map.shape == (5, 3)


def test_a_vae_of_its_own_has_a_map_of_its_own(folder: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other", seed=3)
    rows = load(folder).model.previewer.map
    given = Pipeline.load(folder, device="cpu", vae=other / "vae")
    assert not torch.equal(given.model.previewer.map, rows)
    assert (other / "vae" / NAME).exists()


def test_an_encoder_that_overflows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overflow(self: Pipeline, pictures: Tensor) -> Tensor:
        raise UserError("values that are not numbers")

    monkeypatch.setattr(Model, "encode", overflow)
    rows = load(folder).model.previewer.map
    assert bool(rows.isfinite().all())
    assert bool(rows.any())


def test_a_model_with_a_map_keeps_it(tmp_path: Path) -> None:
    model = write_model(tmp_path / "small")
    load(model).model.previewer  # noqa: B018  # it is made when it is looked at
    assert not (model / NAME).exists()
    assert not (EMBEDDED / NAME).exists()
    shutil.rmtree(model)


def test_the_pictures_are_pictures() -> None:
    for made in (scenes(3, 64), fields(3, 64)):
        assert made.shape == (3, 3, 64, 64)
        assert -1 <= float(made.min()) < -0.3
        assert 0.3 < float(made.max()) <= 1
    assert torch.equal(fields(2, 32), fields(2, 32))


def test_a_cell_can_be_a_square_of_pixels() -> None:
    """Where latents are the pixels themselves, a preview of as many pixels is the picture."""
    pictures = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = torch.nn.functional.pixel_unshuffle(pictures, 4)
    rows = fit(latents, pictures, 4)
    assert rows.shape == (49, 48)
    shown = Previewer(rows.tolist(), 4)(latents)[0]
    expected = to_images(pictures)[0]
    assert np.abs(np.asarray(shown, int) - np.asarray(expected, int)).max() <= 1
