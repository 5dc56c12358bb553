"""A checkpoint of Stable Diffusion 1.5's full size: what loading it costs, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from core.device import find_dtype
from tools.full_size import WEIGHTS, write_full_size

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPT = """
import json, sys
from core.memory import peak_memory_mb
from core.inference.pipeline import Pipeline
pipe = Pipeline.load(sys.argv[1], device="cpu", dtype=sys.argv[2])
count = sum(p.numel() for part in (pipe.text_encoder, pipe.vae, pipe.unet) for p in part.parameters())
if sys.argv[3] == "picture":
    pipe.generate(prompt="a red house", steps=1, width=512, height=512, seed=1, cfg_scale=7.5)
peak = peak_memory_mb(pipe.device) * 2**20  # its own: getrusage would tell of the tests before, on Linux
print(json.dumps({"weights": count, "peak": peak, "seconds": pipe.load_seconds, "about": pipe.about}))
"""


def measured(path: Path, dtype: str, what: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), dtype, what],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    print(done.stdout)
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell the peak in this way")
def test_memory_stays_near_the_weights(tmp_path: Path) -> None:
    paths = write_full_size(tmp_path)
    for path in paths.values():
        for dtype, size in (("float16", 2), ("bfloat16", 2)):
            found = measured(path, dtype, "load")
            assert found["weights"] == WEIGHTS
            # Mapped as they are, or converted without a float32 copy; torch itself takes 0.25 GB.
            assert found["peak"] < 1.3 * size * WEIGHTS, (path, dtype)
    assert measured(paths["ckpt"], "float32", "load")["peak"] < 1.2 * 4 * WEIGHTS
    dtype = find_dtype(None, torch.device("cpu"))  # imitated, bfloat16 is a hundred times slower
    picture = measured(paths["safetensors"], str(dtype).removeprefix("torch."), "picture")
    assert picture["peak"] < 1.6 * dtype.itemsize * WEIGHTS
