"""Finds what a single file's network predicts, epsilon or v, which its shapes do not tell."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from core.models.config import PredictionType
from core.weights.layouts.compvis import UNET
from core.weights.layouts.recognise import Kind
from core.weights.readers.checkpoint import Checkpoint

_SD2_BASE_STEP = 875_000  # the training step in the files of SD 2.0 base, which predicts epsilon
_V_SPREAD = 0.09
# The side of the latents that the models were trained at, where it is not 64.
SIZES: dict[tuple[str | None, PredictionType], int] = {("SD2", "v_prediction"): 96}
_YAML_BYTES = 64 * 1024


def read_prediction(checkpoint: Checkpoint, kind: Kind) -> tuple[PredictionType, str]:
    """What the network predicts, and the reason.

    In order: a `.yaml` of the same name next to the file (`parameterization: "v"`, read as by the
    original code and A1111), the file's metadata (`modelspec.prediction_type`), a tensor called `v_pred`;
    then SD 1.x and every inpainting model predict epsilon; for SD 2.x the training step of SD 2.0 base (as in
    diffusers), and last the standard deviation of one bias (as in ComfyUI): above 0.09 in v-prediction
    networks.
    """
    said = _in_yaml(checkpoint.path) or _in_metadata(checkpoint.metadata)
    if said is not None:
        return said
    if f"{UNET}v_pred" in checkpoint.entries or "v_pred" in checkpoint.entries:
        return "v_prediction", "the file has a tensor v_pred"
    if kind.base != "SD2" or kind.architecture == "inpainting":
        return "epsilon", "models of this architecture do"
    if checkpoint.step == _SD2_BASE_STEP:
        return "epsilon", f"the file gives training step {_SD2_BASE_STEP}"
    spread = _spread(checkpoint)
    if spread > _V_SPREAD:
        return "v_prediction", f"the spread of the last attention's bias is {spread:.2g}, above {_V_SPREAD}"
    return "epsilon", f"the spread of the last attention's bias is {spread:.2g}, not above {_V_SPREAD}"


def has_zero_snr(checkpoint: Checkpoint) -> bool:
    """Whether the file says that it was trained with zero-terminal SNR (arXiv:2305.08891): by a tensor
    `ztsnr`, as NoobAI's, or in the metadata of kohya's sd-scripts.
    """
    marks = {"ztsnr", f"{UNET}ztsnr"}
    return (
        bool(marks & checkpoint.entries.keys()) or checkpoint.metadata.get("ss_zero_terminal_snr") == "True"
    )


def _in_yaml(path: Path) -> tuple[PredictionType, str] | None:
    yaml = path.with_suffix(".yaml")
    with suppress(OSError), yaml.open("rb") as file:
        text = file.read(_YAML_BYTES).decode("utf-8", "replace")
        found = re.search(r"^\s*parameterization:\s*[\"']?(v|eps)\b", text, re.MULTILINE)
        if found:
            return ("v_prediction" if found[1] == "v" else "epsilon"), f"from {yaml.name}"
    return None


def _in_metadata(metadata: dict[str, str]) -> tuple[PredictionType, str] | None:
    said = metadata.get("modelspec.prediction_type", "").lower()
    if said in ("v", "v_prediction", "v-prediction"):
        return "v_prediction", "from its metadata"
    if said in ("epsilon", "eps"):
        return "epsilon", "from its metadata"
    return None


def _spread(checkpoint: Checkpoint) -> float:
    """The standard deviation of the first norm's bias in the UNet's last transformer; 0 without one."""
    pattern = re.compile(
        re.escape(UNET) + r"output_blocks\.([0-9]{1,3})\.1\.transformer_blocks\.0\.norm1\.bias"
    )
    found = {int(match[1]): name for name in checkpoint.entries if (match := pattern.fullmatch(name))}
    if not found:
        return 0.0
    return float(checkpoint.entries[found[max(found)]].tensor().float().std(correction=0))
