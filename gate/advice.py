# SPDX-License-Identifier: Apache-2.0
"""What would make a model lighter, and how much would it save?

Known mobile-friendly replacements for the layers that hold most of the work or of the bytes. Savings are counted from shapes, as if
the rest of the network stayed as it is; what they cost in accuracy only training tells. Nothing here is a verdict.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from pydantic import Field

from gate.document import Record
from gate.macs import count
from gate.mil.program import Op
from gate.rules.base import numbers
from gate.shapes import Sizes

SHARE = 0.05  # of the work or of the parameters, below which a layer is not worth a rewrite
MOST = 6
LEAST_CHANNELS = 16
GROUPS = 4
RANK_SHARE = 4  # a quarter of the full rank
LONG_INPUT = 4_096  # features of a flattened map
SOURCES = {
    "depthwise": "https://arxiv.org/abs/1704.04861",
    "grouped": "https://arxiv.org/abs/1707.01083",
    "low-rank": "https://arxiv.org/abs/1405.3866",
    "smaller head": "https://arxiv.org/abs/1312.4400",
}


class Advice(Record):
    """One replacement that would save work or bytes."""

    kind: str = Field(description="depthwise, grouped, low-rank or smaller head")
    op: str = Field(description="type and name of the op")
    what: str = Field(description="what to write instead")
    saves_macs: int = Field(description="multiply-accumulates that would be saved, estimated from shapes")
    saves_parameters: int = Field(description="parameters that would be saved, estimated from shapes")
    source: str = Field(description="where the replacement is described")


@dataclass(frozen=True)
class _Layer:
    """A layer with a weight."""

    op: Op
    weight: tuple[int, ...]
    macs: int

    @property
    def parameters(self) -> int:
        return math.prod(self.weight)


def advise(ops: Iterable[Op], sizes: Sizes) -> tuple[Advice, ...]:
    """Return the replacements that save most, the largest first."""
    layers = [_layer(op, sizes) for op in ops if op.type in ("conv", "linear")]
    work = sum(layer.macs for layer in layers) or 1
    held = sum(layer.parameters for layer in layers) or 1
    found = [(layer, a) for layer in layers for rule in RULES if (a := rule(layer)) is not None]
    share: dict[Advice, float] = {a: max(a.saves_macs / work, a.saves_parameters / held) for _, a in found}
    return tuple(sorted((a for a in share if share[a] >= SHARE), key=lambda a: -share[a])[:MOST])


def _layer(op: Op, sizes: Sizes) -> _Layer:
    return _Layer(op, sizes.shape(op.inputs["weight"][0]), count(op, sizes) or 0)


def _advice(kind: str, layer: _Layer, what: str, kept: float) -> Advice:
    """`kept` is the part of work and parameters that remains."""
    saves = round(layer.macs * (1 - kept)), round(layer.parameters * (1 - kept))
    return Advice(
        kind=kind,
        op=f"{layer.op.type} {layer.op.name}",
        what=what,
        saves_macs=saves[0],
        saves_parameters=saves[1],
        source=SOURCES[kind],
    )


def _depthwise(layer: _Layer) -> Advice | None:
    """k×k on each channel, then 1×1 across: 1/outputs + 1/k² of the work."""
    if layer.op.type != "conv" or not _is_dense(layer) or math.prod(layer.weight[2:]) < 4:
        return None
    kernel, outputs = math.prod(layer.weight[2:]), layer.weight[0]
    size = "×".join(map(str, layer.weight[2:]))
    return _advice("depthwise", layer, f"{size} per channel, then 1×1 across channels", 1 / outputs + 1 / kernel)


def _grouped(layer: _Layer) -> Advice | None:
    if layer.op.type != "conv" or not _is_dense(layer) or math.prod(layer.weight[2:]) > 1:
        return None
    fits = layer.weight[0] % GROUPS == 0 and layer.weight[1] % GROUPS == 0
    return _advice("grouped", layer, f"1×1 in {GROUPS} groups, channels shuffled after", 1 / GROUPS) if fits else None


def _low_rank(layer: _Layer) -> Advice | None:
    if layer.op.type != "linear" or min(layer.weight) < LEAST_CHANNELS * RANK_SHARE:
        return None
    rank = min(layer.weight) // RANK_SHARE
    kept = rank * sum(layer.weight) / layer.parameters
    return _advice("low-rank", layer, f"two linear layers through {rank} features", kept) if kept < 1 else None


def _smaller_head(layer: _Layer) -> Advice | None:
    """A linear layer on a flattened map: pooling it first leaves one value of each channel."""
    if layer.op.type != "linear" or layer.weight[1] < LONG_INPUT:
        return None
    return _advice("smaller head", layer, "average each channel before it (7×7 positions: a 49th)", 1 / 49)


def _is_dense(layer: _Layer) -> bool:
    return min(layer.weight[:2]) >= LEAST_CHANNELS and numbers(layer.op, "groups") in ([], [1])


RULES: tuple[Callable[[_Layer], Advice | None], ...] = (_depthwise, _grouped, _low_rank, _smaller_head)

# ------------------------------------------------------------------------------------------ speed of compressed weights

PERFORMANCE = "https://apple.github.io/coremltools/docs-guides/source/opt-{}-perf.html"
JUST_IN_TIME = 17  # from iOS17 weights may be expanded just in time; iOS16 expands them at load


def expected_speed(forms: Mapping[str, int], ios: int) -> Iterator[str]:
    """Say what compressed weights may bring by OS, as Apple measured on an iPhone 14 Pro Max; `forms` counts weights by form."""
    told = {
        "lut": ("palettes", "5 to 30 % faster with 4 bits, the width that was measured", "palettization"),
        "sparse": ("sparse weights", "up to 75 % faster", "pruning"),
        "affine": ("8-bit weights", "about the same", "quantization"),
    }
    for part, (name, faster, page) in told.items():
        if any(part in form for form in forms):
            later = f"from iOS17 {faster} (estimated: Apple's figures, iPhone 14 Pro Max, {PERFORMANCE.format(page)})"
            now = "" if ios >= JUST_IN_TIME else "on iOS16 no faster, since they are expanded at load; "
            yield f"{name}: {now}{later}"
