# SPDX-License-Identifier: Apache-2.0
"""Damages a package, a different way for each seed, as an accident or somebody hostile would.

    python tests/mil/mutations.py PACKAGE FIRST LAST

tries the seeds and prints one line for each: `seed kind outcome`. An outcome is `ran`, or the class of a `MilError`;
anything else is a bug. It runs in its own process, with bounded memory and time, so that a crash shows.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS = 60  # for one package; a busy machine is slow, a hang is longer
ADDRESS_SPACE = 12 * 2**30  # torch alone reserves several
MODEL, WEIGHTS = "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"
Mutation = Callable[[Path, random.Random], None]
ABSURD = (0, 1, 7, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1)


def flip(name: str, count: int = 3) -> Mutation:
    def mutate(package: Path, chance: random.Random) -> None:
        data = bytearray((package / name).read_bytes())
        for _ in range(count):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        (package / name).write_bytes(bytes(data))

    return mutate


def truncate(name: str) -> Mutation:
    def mutate(package: Path, chance: random.Random) -> None:
        data = (package / name).read_bytes()
        (package / name).write_bytes(data[: chance.randrange(len(data))])

    return mutate


def edit(change: Callable[[Any, random.Random], None]) -> Mutation:
    """Change the model message: `change` gets the block of the main function."""

    def mutate(package: Path, chance: random.Random) -> None:
        from coremltools.proto import Model_pb2

        spec = Model_pb2.Model.FromString((package / MODEL).read_bytes())
        function = spec.mlProgram.functions["main"]
        change(function.block_specializations[function.opset], chance)
        (package / MODEL).write_bytes(spec.SerializeToString())

    return mutate


def inputs_of(block: Any) -> list[Any]:
    return [
        b
        for op in block.operations
        for a in op.inputs.values()
        for b in a.arguments
        if b.WhichOneof("binding") == "name"
    ]


def constants_of(block: Any) -> list[Any]:
    values = [v for op in block.operations for v in op.attributes.values()]
    return values + [
        b.value
        for op in block.operations
        for a in op.inputs.values()
        for b in a.arguments
        if b.WhichOneof("binding") == "value"
    ]


def missing_name(block: Any, chance: random.Random) -> None:
    chance.choice(inputs_of(block)).name = "nowhere"


def another_name(block: Any, chance: random.Random) -> None:
    chance.choice(inputs_of(block)).name = chance.choice(inputs_of(block)).name


def cycle(block: Any, chance: random.Random) -> None:
    op = chance.choice([op for op in block.operations if op.inputs])
    for argument in op.inputs.values():
        for binding in argument.arguments:
            binding.name = op.outputs[0].name


def shuffle(block: Any, chance: random.Random) -> None:
    operations = list(block.operations)
    chance.shuffle(operations)
    del block.operations[:]
    block.operations.extend(operations)


def offset(block: Any, chance: random.Random) -> None:
    stored = [v for v in constants_of(block) if v.WhichOneof("value") == "blobFileValue"]
    chance.choice(stored).blobFileValue.offset = chance.choice([*ABSURD, 64, 128, 2**64 - 1, 65])


def file_name(block: Any, chance: random.Random) -> None:
    stored = [v for v in constants_of(block) if v.WhichOneof("value") == "blobFileValue"]
    chance.choice(stored).blobFileValue.fileName = chance.choice(
        ["/etc/passwd", "@model_path/../../../x", "", "@model_path/weights", "a\0b"]
    )


def size(block: Any, chance: random.Random) -> None:
    types = [o.type.tensorType for op in block.operations for o in op.outputs] + [
        v.type.tensorType for v in constants_of(block)
    ]
    dimensions = [d for t in types for d in t.dimensions]
    chance.choice(dimensions).constant.size = chance.choice(ABSURD)


def element_type(block: Any, chance: random.Random) -> None:
    values = [v.type.tensorType for v in constants_of(block)] + [
        o.type.tensorType for op in block.operations for o in op.outputs
    ]
    chance.choice(values).dataType = chance.choice([0, 1, 2, 10, 11, 12, 14, 21, 25, 34, 39, 41])


def number(block: Any, chance: random.Random) -> None:
    tensors = [v.immediateValue.tensor for v in constants_of(block) if v.WhichOneof("value") == "immediateValue"]
    values = chance.choice([t.ints.values for t in tensors if len(t.ints.values)])
    values[chance.randrange(len(values))] = chance.choice([0, -1, -(2**31), 2**31 - 1, 10**6, 3])


def op_type(block: Any, chance: random.Random) -> None:
    chance.choice(block.operations).type = chance.choice(
        ["custom_layer", "conv", "reshape", "while_loop", "constexpr_lut_to_dense", ""]
    )


def drop_input(block: Any, chance: random.Random) -> None:
    op = chance.choice([op for op in block.operations if op.inputs])
    del op.inputs[chance.choice(sorted(op.inputs))]


def nest(block: Any, chance: random.Random) -> None:
    inner = chance.choice(block.operations)
    for _ in range(chance.choice([2, 30, 200])):
        inner = inner.blocks.add().operations.add(type="cond")


def blob(package: Path, chance: random.Random) -> None:
    """Change a metadata record: sentinel, type, size or place."""
    data = bytearray((package / WEIGHTS).read_bytes())
    records = [i for i in range(64, len(data) - 64, 64) if data[i : i + 4] == b"\xef\xbe\xad\xde"]
    at = chance.choice(records) + chance.choice([0, 4, 8, 16])
    data[at : at + 8] = chance.choice(ABSURD).to_bytes(8, "little")
    (package / WEIGHTS).write_bytes(bytes(data))


def manifest(package: Path, chance: random.Random) -> None:
    path = package / "Manifest.json"
    content = json.loads(path.read_text())
    evil = chance.choice(["../../x", "/etc/passwd", "", None, 3, "a\0b", ["x"]])
    if chance.random() < 0.5:
        content["itemInfoEntries"][content["rootModelIdentifier"]]["path"] = evil
    else:
        content["rootModelIdentifier"] = evil
    path.write_text(json.dumps(content))


MUTATIONS: dict[str, Mutation] = {
    "flip-model": flip(MODEL),
    "flip-weights": flip(WEIGHTS, 20),
    "flip-manifest": flip("Manifest.json"),
    "truncate-model": truncate(MODEL),
    "truncate-weights": truncate(WEIGHTS),
    "truncate-manifest": truncate("Manifest.json"),
    "blob": blob,
    "manifest": manifest,
    **{f.__name__: edit(f) for f in (missing_name, another_name, cycle, shuffle, offset, file_name, size)},
    **{f.__name__: edit(f) for f in (element_type, number, op_type, drop_input, nest)},
}


def attempt(package: Path, seed: int) -> tuple[str, str]:
    """Damage a copy and use it; return the mutation's name and what came of it."""
    import numpy as np

    from gate.mil import MilError, load

    kind = sorted(MUTATIONS)[seed % len(MUTATIONS)]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "m.mlpackage"
        shutil.copytree(package, copy)
        MUTATIONS[kind](copy, random.Random(seed))
        try:
            evaluator = load(copy)
            evaluator.predict({f.name: np.zeros(f.shape, np.float32) for f in evaluator.inputs})
        except MilError as error:
            return kind, f"{type(error).__name__}: {str(error)[:160]}"
    return kind, "ran"


def main() -> None:
    package, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    warnings.simplefilter("ignore")
    attempt(package, 0)  # the imports take their time once
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    for seed in range(first, last):
        signal.alarm(SECONDS)
        try:
            kind, outcome = attempt(package, seed)
        except BaseException as error:
            kind, outcome = sorted(MUTATIONS)[seed % len(MUTATIONS)], f"BUG {type(error).__name__}: {str(error)[:200]}"
        print(seed, kind, outcome, flush=True)
    print("peak_mb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main()
