# SPDX-License-Identifier: Apache-2.0
"""How long do packages take on this Mac? A process of its own, so that a hang or a crash of the runtime is an answer, not an end.

    python -m gate.engine.stopwatch REQUEST.json ANSWER.json

The contenders are compiled and loaded one after another; then every round predicts once with each, in a random order, so that a
machine that slows down slows them all.
"""

import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import Field

from gate.document import Record
from gate.engine import apple
from gate.engine.apple import PlacedOp, Predict

T = TypeVar("T")

WARM_UP = 3
LEAST_ROUNDS = 10
MOST_SAMPLES = 100_000


class Request(Record):
    """What is to be timed. The first package is the candidate, whose compute plan is read."""

    packages: dict[str, str]
    compute_units: str
    inputs: str  # .npz of one sample
    images: dict[str, str] = {}  # input -> PIL mode
    rounds: int = Field(gt=0)
    seconds: float = Field(gt=0)  # of rounds; the least number of them is always run


class Times(Record):
    """Seconds of one contender."""

    compiled_bytes: int
    load: float
    first: float
    steady: tuple[float, ...] = Field(max_length=MOST_SAMPLES)  # in the order of the rounds


class Timings(Record):
    """What was measured on one compute unit setting."""

    contenders: dict[str, Times]
    devices: tuple[str, ...]
    placement: tuple[PlacedOp, ...]


def measure(request: Request) -> Timings:
    """Compile, load and time every contender."""
    inputs = apple.as_core_ml(dict(np.load(request.inputs, allow_pickle=False)), request.images)
    with tempfile.TemporaryDirectory() as scratch:
        compiled = {
            name: apple.compile_package(Path(package), Path(scratch) / str(index))
            for index, (name, package) in enumerate(request.packages.items())
        }
        loaded = {
            name: _timed(partial(apple.load, model, request.compute_units, inputs)) for name, model in compiled.items()
        }
        predicts = {name: predict for name, (_, predict) in loaded.items()}
        first = {name: _timed(predict)[0] for name, predict in predicts.items()}
        steady = interleave(predicts, request.rounds, request.seconds)
        return Timings(
            contenders={
                name: Times(
                    compiled_bytes=bytes_below(compiled[name]),
                    load=loaded[name][0],
                    first=first[name],
                    steady=steady[name],
                )
                for name in compiled
            },
            devices=apple.devices(),
            placement=apple.compute_plan(next(iter(compiled.values())), request.compute_units),
        )


def interleave(predicts: Mapping[str, Predict], rounds: int, seconds: float) -> dict[str, tuple[float, ...]]:
    """Time one prediction of each contender per round, in an order that a seed draws anew for each round."""
    order, draw = list(predicts), random.Random(0)
    for name in order * WARM_UP:
        predicts[name]()
    found: dict[str, list[float]] = {name: [] for name in order}
    deadline = time.monotonic() + seconds
    for done in range(rounds):
        if done >= LEAST_ROUNDS and time.monotonic() > deadline:
            break
        draw.shuffle(order)
        for name in order:
            found[name].append(_timed(predicts[name])[0])
    return {name: tuple(samples) for name, samples in found.items()}


def _timed(call: Callable[[], T]) -> tuple[float, T]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def bytes_below(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main(arguments: list[str]) -> None:
    """Answer one request."""
    request, answer = map(Path, arguments)
    found = measure(Request.model_validate_json(request.read_bytes()))
    answer.write_text(found.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
