"""The pictures that runs started from: kept once, found as they were, gone with the last run."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from core.errors import UserError
from core.history import History
from core.images.saved_inputs import FOLDER, keep_inputs, kept_inputs
from core.images.source_images import Inputs
from core.request.settings import Settings
from tests.core.histories import asked, keep
from tests.core.pictures import noise, same


def inputs_of(*, mask: bool = False, seed: int = 0) -> Inputs:
    painted = noise((24, 16), seed=seed + 1).convert("L") if mask else None
    return Inputs(noise((24, 16), seed=seed), painted)


def settings_of(inputs: Inputs) -> Settings:
    given = inputs.given
    return asked(strength=0.5, image_sha256=given.image_sha256, mask_sha256=given.mask_sha256)


def files(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).glob("*"))


@pytest.mark.parametrize("mask", [False, True])
def test_they_come_back_pixel_by_pixel(tmp_path: Path, mask: bool) -> None:
    inputs = inputs_of(mask=mask)
    for _ in range(2):
        keep_inputs(tmp_path / "outputs", inputs)
    assert len(files(tmp_path / "outputs")) == (2 if mask else 1)
    found = kept_inputs(tmp_path / "outputs", settings_of(inputs))
    assert found is not None
    assert same(found.image, inputs.image)
    assert found.given == inputs.given


def test_what_is_gone_or_another_is_not_found(tmp_path: Path) -> None:
    inputs = inputs_of(mask=True)
    assert kept_inputs(tmp_path, asked()) is None
    assert kept_inputs(tmp_path, settings_of(inputs)) is None
    keep_inputs(tmp_path, inputs)
    file = tmp_path / FOLDER / f"{inputs.given.mask_sha256}.png"
    for damage in (b"", b"no picture"):
        file.write_bytes(damage)
        assert kept_inputs(tmp_path, settings_of(inputs)) is None
    Image.new("L", (24, 16), 9).save(file)
    assert kept_inputs(tmp_path, settings_of(inputs)) is None


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_bytes(b"in the way")
    with pytest.raises(UserError, match=FOLDER):
        keep_inputs(tmp_path, inputs_of())


def test_they_go_with_the_last_run_that_had_them(tmp_path: Path) -> None:
    history = History(tmp_path / "outputs")
    shared, own = inputs_of(), inputs_of(mask=True, seed=5)
    rows = []
    for inputs in (shared, shared, own):
        keep_inputs(history.folder, inputs)
        given = inputs.given
        rows.append(
            keep(history, strength=0.5, image_sha256=given.image_sha256, mask_sha256=given.mask_sha256)
        )
    history.delete([rows[0].id])
    assert len(files(history.folder)) == 3
    history.delete([rows[2].id])
    assert [path.stem for path in files(history.folder)] == [shared.given.image_sha256]
    history.delete([rows[1].id])
    assert files(history.folder) == []
