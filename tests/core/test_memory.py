"""How much memory there still is, by what Linux says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.memory import free_memory

MACHINE = "MemTotal:  4000 kB\nMemAvailable:    2000 kB\n"


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"meminfo": MACHINE, "memory.max": "900000\n", "memory.current": "200000\n"}, 700_000),
        ({"meminfo": MACHINE, "memory.max": "9000000\n", "memory.current": "200000\n"}, 2_048_000),
        ({"meminfo": MACHINE, "memory.max": "max\n", "memory.current": "200000\n"}, 2_048_000),
        ({"meminfo": MACHINE}, 2_048_000),
        ({"meminfo": "something else"}, None),
        ({}, None),
    ],
)
def test_the_least_of_machine_and_container(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], free: int | None
) -> None:
    def read(path: Path, *_: Any, **__: Any) -> str:
        if path.name not in files:
            raise FileNotFoundError(path)
        return files[path.name]

    monkeypatch.setattr(Path, "read_text", read)
    assert free_memory() == free
