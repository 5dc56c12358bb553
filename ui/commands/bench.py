"""`bench`: how long an image takes on this machine, also compared with diffusers."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from tqdm import tqdm

from core.bench import KEYS, TITLES, BenchJob, compare, medians, ratios
from core.errors import UserError
from core.request.parse import parse_size
from core.request.request import Request
from core.weights.find import find_model
from ui.commands import options
from ui.commands.tables import console, table

if TYPE_CHECKING:
    from core.bench import Figures, Ratio, Side


def bench(
    model: options.Model = "tiny",
    against: Annotated[
        Literal["diffusers"] | None,
        typer.Option(
            help="Also measure this library, in alternation, and print ratios; it must be installed."
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Width and height in pixels. [default: the model's size]"),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Inference steps.")] = 4,
    dtype: Annotated[
        str | None,
        typer.Option(help="Data type of the networks, on both sides. [default: each side's own]"),
    ] = None,
    memory: options.Memory = None,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Images measured for each side.")] = 3,
    watched: Annotated[
        bool,
        typer.Option(
            "--watched", help="Measure instead the overhead of the page: live previews, saved steps."
        ),
    ] = False,
    counts: Annotated[
        bool,
        typer.Option(
            "--counts",
            help="Count instead the kernel calls, allocations and bytes copied of runs.",
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Measure time by part and peak memory, each image in a new process."""
    from core.weights.model_files import open_model

    files = open_model(find_model(model))
    own = files.notes.defaults
    width, height = parse_size(size) if size else (own.width, own.height)
    own.check_size(width, height)
    if sum((watched, counts, against is not None)) > 1:
        raise UserError("--watched, --counts and --against exclude each other: give one of them")
    if watched:
        _measure_page(str(files.path), dtype, memory, width, height, steps, rounds, as_json)
        return
    if counts:
        if steps < 2:
            raise UserError("--counts needs at least 2 steps, as half of them run again as img2img")
        _count_operations(str(files.path), dtype, memory, width, height, steps, as_json)
        return
    job = BenchJob(
        model=str(files.path.resolve()), dtype=dtype, width=width, height=height, steps=steps, memory=memory
    )
    sides: list[Side] = ["ours"] if against is None else ["ours", "peer", "best"]
    samples = _measure(sides, job, rounds)
    middle = {side: medians(each) for side, each in samples.items()}
    others: list[Side] = [side for side in sides if side != "ours"]
    relative = {side: ratios(samples["ours"], samples[side]) for side in others}
    weights = sum(path.stat().st_size for path in files.hashed) / 2**20
    if as_json:
        print(json.dumps(_report(job, weights, middle, relative, samples)))
    else:
        _print(job, weights, middle, relative)


def _measure_page(
    model: str,
    dtype: str | None,
    memory: str | None,
    width: int,
    height: int,
    steps: int,
    rounds: int,
    as_json: bool,
) -> None:
    """Compare a run from Python with the same run on the page, in this process."""
    from core.inference.pipeline import Pipeline
    from ui.commands.bench_page import measure

    pipeline = Pipeline.load(model, dtype=dtype, memory=memory)
    request = Request(prompt="a red house under a full moon", steps=steps, width=width, height=height)
    with tqdm(total=rounds + 1, desc="bench", unit="pair", leave=False, disable=None) as bar:
        found = measure(pipeline, request, rounds, bar.update)
    if as_json:
        print(json.dumps(found.to_dict()))
        return
    ratios = f"{found.clock:.3f} times as long ({found.processor:.3f} times the processor)"
    print(f"{width}x{height}, {steps} steps, {rounds} pairs: a watched run takes {ratios}")
    print(f"as the same run from Python; {found.looks} previews of {1000 * found.look_seconds:.1f} ms each")


def _count_operations(
    model: str, dtype: str | None, memory: str | None, width: int, height: int, steps: int, as_json: bool
) -> None:
    """Count the operations of runs that differ in one setting each, in this process."""
    from core.bench.counts import count_all
    from core.inference.pipeline import Pipeline

    pipeline = Pipeline.load(model, dtype=dtype, memory=memory)
    found = {name: each.to_dict() for name, each in count_all(pipeline, width, height, steps).items()}
    if as_json:
        print(json.dumps(found, indent=1))
        return
    heads = ["", *(name.replace("_", " ") for name in found["plain"])]
    rows = [[name, *(f"{value:,}" for value in each.values())] for name, each in found.items()]
    table(console(), f"{pipeline.name}, {width}x{height}, {steps} steps", heads, rows)


def _measure(sides: list[Side], job: Any, rounds: int) -> dict[Side, list[Figures]]:

    with tqdm(total=rounds * len(sides), desc="bench", unit="image", leave=False, disable=None) as bar:
        return compare(sides, job, rounds, bar.update)


def _report(
    job: Any,
    weights: float,
    middle: dict[Side, Figures],
    relative: dict[Side, dict[str, Ratio]],
    samples: dict[Side, list[Figures]],
) -> dict[str, Any]:

    return {
        "job": dataclasses.asdict(job),
        "weights_mb": round(weights, 1),
        "median": {TITLES[side]: figures for side, figures in middle.items()},
        "ratio": {
            TITLES[side]: {key: dataclasses.asdict(ratio) for key, ratio in each.items()}
            for side, each in relative.items()
        },
        "samples": {TITLES[side]: each for side, each in samples.items()},
    }


def _print(
    job: Any, weights: float, middle: dict[Side, Figures], relative: dict[Side, dict[str, Ratio]]
) -> None:

    percent = {
        "peak_percent": "step's part of the product's speed",
        "outside_percent": "outside the networks",
    }

    def shown(key: str, value: float) -> str:
        if key in percent:
            return f"{value:.1f} %"
        return f"{value:.0f} MB" if key == "peak_memory_mb" else f"{value:.3f} s"

    heads = ["", *(TITLES[side] for side in middle)]
    heads += [f"ratio to {TITLES[side]} (least to most)" for side in relative]
    rows = []
    for key in KEYS:
        row = [
            percent.get(key, key.replace("_mb", "").replace("_", " ")),
            *(shown(key, each[key]) for each in middle.values()),
        ]
        for each in relative.values():
            ratio = each[key]
            row.append(f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})")
        rows.append(row)
    dtype = job.dtype or "each its own dtype"
    memory = "" if job.memory is None else f", memory {job.memory}"
    title = f"{job.width}x{job.height}, {job.steps} steps, {dtype}{memory}, {weights:.0f} MB of weights"
    table(console(), title, heads, rows)
