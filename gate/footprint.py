# SPDX-License-Identifier: Apache-2.0
"""What does a package's size mean to users: what they download, what the app bundles, and which weights it goes to?

The package on disk is exact. A download is compressed, which says little about float16 and much about sparse or repeated
weights: here some of the bytes are deflated and the rest taken to be alike. What Xcode compiles holds the same weights, and the program as
text; without a Mac its size can only be estimated.
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gate.compress import Compressed
from gate.mil import MilError
from gate.mil.program import load_program
from gate.mil.weights import Weight, weights
from gate.naming import apart, weight_label

CHUNK = 1 << 20
MOST_CHUNKS = 8  # that are deflated; a second for 30 of them
UUID = re.compile(rb"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
MOST_SHOWN = 39  # weights or layers; the others in one sum, so that the drawing stays bars


@dataclass(frozen=True)
class Footprint:
    """Sizes in bytes, by name where there are several."""

    download: int
    compiled: int | None
    by_weight: Mapping[str, int]
    by_layer: Mapping[str, int]
    by_step: Mapping[str, int]


def measure(package: Path, layers: Mapping[str, str], before: Path | None, compressed: Compressed | None) -> Footprint:
    """Take a package apart; what is no ML program has no weights to name."""
    total = sum(file.stat().st_size for file in _files(package))
    try:
        held = weights(load_program(package))
    except MilError:
        held = ()
    by_layer: Counter[str] = Counter()
    for weight in held:
        by_layer[_layer(weight, layers)] += weight.package_bytes
    return Footprint(
        download=download_bytes(package),
        compiled=_compiled(package),
        by_weight=_largest(dict(zip(_labels(held, layers), (w.package_bytes for w in held), strict=True))),
        by_layer=_largest(by_layer) if any(_layer(w, layers) in layers.values() for w in held) else {},
        by_step=dict(_steps(before, held, compressed, total)),
    )


def _files(package: Path) -> list[Path]:
    return sorted(p for p in package.rglob("*") if p.is_file()) if package.is_dir() else [package]


def download_bytes(package: Path) -> int:
    """Estimate the size of a compressed archive: some chunks are deflated, spread evenly, the others taken to be alike.

    The same program gives the same estimate: UUIDs and byte order, which change each time a package is saved, are left out.
    """
    files = [(file, _settled(file)) for file in _files(package)]
    sizes = [(file, data, file.stat().st_size if data is None else len(data)) for file, data in files]
    chunks = [(file, data, at) for file, data, size in sizes for at in range(0, size, CHUNK)]
    every = max(1, -(-len(chunks) // MOST_CHUNKS))
    stored = deflated = 0
    for file, data, at in chunks[::every]:
        chunk = _chunk(file, at) if data is None else data[at : at + CHUNK]
        stored, deflated = stored + len(chunk), deflated + len(zlib.compress(chunk))
    return round(sum(size for _, _, size in sizes) * deflated / stored) if stored else 0


def _settled(file: Path) -> bytes | None:
    """The bytes of a file whose order or names are arbitrary, put in order; None for one that is taken as it is."""
    if file.name == "Manifest.json":
        return b"\n".join(sorted(UUID.sub(b"", file.read_bytes()).splitlines()))
    if file.suffix != ".mlmodel":
        return None
    from gate.mil.messages import messages

    spec = messages("Model_pb2").Model()
    try:
        spec.ParseFromString(file.read_bytes())
    except (
        Exception
    ):  # protobuf's own error has another name in each of its implementations; such a file is taken as it is
        return None
    return bytes(spec.SerializeToString(deterministic=True))


def _chunk(file: Path, at: int) -> bytes:
    with file.open("rb") as stream:
        stream.seek(at)
        return stream.read(CHUNK)


def _compiled(package: Path) -> int | None:
    """Estimate the .mlmodelc: the same weights, and the program as text, taken to be as long as its message."""
    if not package.is_dir():
        return None
    return sum(file.stat().st_size for file in _files(package) if file.suffix in (".bin", ".mlmodel"))


def _layer(weight: Weight, layers: Mapping[str, str]) -> str:
    return _known_layer(weight, layers) or weight.key


def _known_layer(weight: Weight, layers: Mapping[str, str]) -> str | None:
    names = (*(name for _, name, _ in weight.consumers), weight.name)
    return next((layers[name] for name in names if name in layers), None)


def _labels(held: Sequence[Weight], layers: Mapping[str, str]) -> tuple[str, ...]:
    labels = [weight_label(_known_layer(w, layers), *w.consumers[0][1:]) for w in held]
    return apart(labels, [f"{w.function} {w.name}" for w in held])


def _largest(sizes: Mapping[str, int]) -> dict[str, int]:
    order = sorted(sizes, key=lambda name: (-sizes[name], name))
    rest = sum(sizes[name] for name in order[MOST_SHOWN:])
    shown = {name: sizes[name] for name in order[:MOST_SHOWN]}
    return shown | ({f"{len(order) - MOST_SHOWN} others": rest} if rest else {})


def _steps(
    before: Path | None, held: Sequence[Weight], compressed: Compressed | None, total: int
) -> Iterator[tuple[str, int]]:
    """Yield the size before the first step and after each: of two steps, a pruned weight is a mask and what it leaves."""
    if before is None or compressed is None or not compressed.steps:
        return
    start = sum(file.stat().st_size for file in _files(before))
    yield "before", start
    if len(compressed.steps) == 2:
        dense = sum(weight.elements * _width(weight) for weight in held if weight.sparsity is not None)
        sparse = sum(_sparse_bytes(weight) for weight in held if weight.sparsity is not None)
        yield f"after {compressed.steps[0]} (estimated)", start - dense + sparse
    yield f"after {compressed.steps[-1]}", total


def _width(weight: Weight) -> int:
    return 2 if weight.dtype == "float16" else 4


def _sparse_bytes(weight: Weight) -> int:
    kept = weight.elements * (1 - (weight.sparsity or 0.0))
    return round(weight.elements / 8 + kept * _width(weight))
