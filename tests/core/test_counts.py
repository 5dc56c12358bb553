"""Runs ask no more of torch than they did: a change that computes, allocates or copies more is seen here.

    python launcher.py bench --counts --steps 2 --dtype float32 --memory full --json > tests/counts.json

writes the file again on a machine without an accelerator, where more is meant or less was reached.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from core.bench.counts import Counter, count_all
from core.inference.pipeline import Pipeline

ROOT = Path(__file__).parents[2]
EXACT = ("evaluations", "passes")
ROOM = 1.02  # of the other counts, above those in the file
[PINNED] = re.findall(r"^torch==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, int]]:
    pipeline = Pipeline.load(device="cpu", dtype="float32", memory="full")
    return {name: each.to_dict() for name, each in count_all(pipeline, 128, 128, steps=2).items()}


@pytest.mark.skipif(
    torch.__version__.partition("+")[0] != PINNED,
    reason=f"counted with torch {PINNED}: others count otherwise",
)
def test_no_count_has_risen(found: dict[str, dict[str, int]]) -> None:
    known = json.loads((ROOT / "tests" / "counts.json").read_text(encoding="utf-8"))
    assert found.keys() == known.keys()
    risen = {
        f"{run}, {name}": (count, known[run][name])
        for run, counts in found.items()
        for name, count in counts.items()
        if (count != known[run][name] if name in EXACT else count > ROOM * known[run][name])
    }
    assert risen == {}


def test_exact_savings_are_in_the_counts(found: dict[str, dict[str, int]]) -> None:
    plain, unguided = found["plain"], found["without guidance"]
    assert found["the same prompt again"]["kernel_calls"] < plain["kernel_calls"]
    assert found["from the same picture again"]["kernel_calls"] < found["from a picture"]["kernel_calls"]
    assert found["feature reuse 2"]["kernel_calls"] < plain["kernel_calls"]
    assert (plain["passes"], unguided["passes"]) == (2 * plain["evaluations"], plain["evaluations"])


def test_a_counter_counts_what_is_asked() -> None:
    x = torch.ones(4, 4)
    with Counter() as none:
        x.t()[1:].unsqueeze(0)
        torch.empty(3)
    assert (none.kernel_calls, none.allocations, none.copied_bytes) == (0, 1, 0)
    with Counter() as product:
        x @ x
    assert (product.kernel_calls, product.allocations, product.allocated_bytes) == (1, 1, 64)
    with Counter() as in_place:
        x.add_(1)
    assert (in_place.kernel_calls, in_place.allocations) == (1, 0)
    with Counter() as moved:
        torch.cat([x, x.to(torch.bfloat16).to(torch.float32)])
        x.copy_(torch.zeros(4, 4))
    assert moved.copied_bytes == 32 + 64 + 128 + 64
    with Counter() as same:
        x.to(torch.float32)
        x.contiguous()
    assert (same.kernel_calls, same.copied_bytes) == (0, 0)
