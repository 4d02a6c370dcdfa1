# SPDX-License-Identifier: Apache-2.0
"""How does a program come to compute on 8-bit activations, and what was promised about each of them?

By coremltools' own graph passes, which put a quantize and a dequantize op before and after conv, linear, pooling and add; the
runtime computes what lies between in integers where it can. The ranges come from `calibration.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gate.compress.calibration import Calibration, Range, Ranges, calibrate, share_at_concats
from gate.compress.cast import SPECIFICATION, rewritten
from gate.compress.invariants import HALF_TINY, HALF_ULP, Bound
from gate.errors import PolicyError
from gate.mil.blob import BITS
from gate.mil.program import Constant, Op, Program, TensorType, Value, load_program
from gate.policy import Policy, QuantizeActivations, Target

LIVE = {
    "conv": ("x",),
    "linear": ("x",),
    "avg_pool": ("x",),
    "max_pool": ("x",),
    "add": ("x", "y"),
}  # coremltools' list
PASSES = (
    "compression::insert_prefix_quantize_dequantize_pair",
    "compression::insert_suffix_quantize_dequantize_pair",
    "common::dequantize_quantize_pair_elimination",
)
SCALABLE = ("add", "sub", "relu")  # the result scales as the inputs do
LEAST = {"int8": -128, "uint8": 0}
ROUNDING = 8 * HALF_ULP  # ends, scales and their quotients are held in float16
HALF_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Activations:
    """What was asked for: the step, a range for each tensor, and the ops whose inputs should stay as they are."""

    step: QuantizeActivations
    ranges: Mapping[str, Range]
    kept: frozenset[str]  # op names
    origin: str
    remarks: tuple[str, ...] = ()


def candidates(program: Program) -> Iterator[Op]:
    """Yield the ops that can compute on 8-bit inputs: of the kinds that coremltools knows, with inputs that are no constants."""
    for function in program.functions.values():
        for op in function.body.walk():
            if op.type in LIVE and all(isinstance(op.inputs[name][0], Value) for name in LIVE[op.type]):
                yield op


def refuse_unquantizable(program: Program, policy: Policy, package: Path) -> None:
    """Raise PolicyError for a program that coremltools' passes would break, or crash on."""
    why = _obstacle(program)
    if why:
        raise PolicyError(f"{package.name}: policy {policy.name} cannot quantize activations: {why}")


def _obstacle(program: Program) -> str | None:
    if len(program.functions) > 1:
        return f"it has {len(program.functions)} functions, and calibration items belong to one; split the package"
    (function,) = program.functions.values()
    nested = next((op for op in function.body.ops if op.blocks), None)
    if nested is not None:
        return f"{nested.type} {nested.name!r} has a block of its own, which coremltools' pass does not enter"
    wide = next((op for op in candidates(program) if _dtype(op.inputs["x"][0]) != "float16"), None)
    if wide is not None:
        return f"{wide.type} {wide.name!r} computes in {_dtype(wide.inputs['x'][0])}, and scales are float16; use precision: float16"
    return None if any(True for _ in candidates(program)) else "it has no conv, linear, pooling or add of activations"


def _dtype(value: Any) -> str:
    return value.type.dtype if isinstance(value.type, TensorType) else "another type"


def plan_activations(
    package: Path, policy: Policy, calibration: Calibration, layers: Mapping[str, str], observed: Path
) -> Activations:
    """Return ranges and exceptions for `package`; `observed` is the package that calibration runs."""
    step = policy.activations
    assert step is not None
    program = load_program(package)
    refuse_unquantizable(program, policy, package)
    ranges = share_at_concats(program, calibrate(observed, calibration, step))
    kept = frozenset(op.name for op in candidates(program) if not _wanted(op, policy, step, layers))
    return Activations(step, ranges, kept, calibration.origin, calibration.remarks)


def _wanted(op: Op, policy: Policy, step: QuantizeActivations, layers: Mapping[str, str]) -> bool:
    elements = _weight_elements(op)
    for override in policy.overrides:
        if override.matches(op_type=op.type, name=op.name, layer=layers.get(op.name), elements=elements):
            return override.apply(step) is not None
    return True


def _weight_elements(op: Op) -> int:
    """Return the size of an op's weight, for `larger_than`; pooling and add have none."""
    weight = op.inputs.get("weight", ())
    kind = weight[0].type if weight else None
    return int(np.prod([size or 0 for size in kind.shape or ()])) if isinstance(kind, TensorType) else 0


def insert_pairs(package: Path, activations: Activations, out: Path) -> Path:
    """Write the package with quantize and dequantize ops around what can compute on 8 bits."""
    import coremltools.optimize.coreml as cto
    from coremltools.converters.mil.mil.passes.graph_pass import PassOption
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

    step = activations.step

    class _Selective(cto.OptimizationConfig):  # type: ignore[misc]  # by output: the names of ops are others in coremltools
        def _get_op_config(self, op: Any) -> Any:
            return None if op.outputs[0].name in activations.kept else self.global_config

    config = _Selective(global_config=cto.OpLinearQuantizerConfig(mode=step.mode, dtype=step.dtype))
    stats = {name: {"rmin": ends.low, "rmax": ends.high} for name, ends in _inside_float16(activations.ranges).items()}
    passes = [PASS_REGISTRY[name] for name in PASSES]
    for one in passes[:2]:
        one.set_options([PassOption("config", config), PassOption("activation_stats", stats)])
    with _computed_in_float32():
        return rewritten(package, passes, SPECIFICATION[Target.IOS17], out)


def _inside_float16(ranges: Mapping[str, Range]) -> Ranges:
    return {name: Range(max(low, -HALF_MAX), min(high, HALF_MAX)) for name, (low, high) in ranges.items()}


@contextmanager
def _computed_in_float32() -> Iterator[None]:
    """Let coremltools 9.0 compute scale and offset of a range in float32.

    It holds the ends of a range in float16, where 255 times an end beyond 257 overflows and makes the offset NaN.
    """
    from coremltools.optimize import _utils

    original = _utils.quantize_weight_by_dtype

    def wide(weight: Any, *rest: Any, **named: Any) -> tuple[Any, Any, Any]:
        data, scale, zero_point = original(weight.astype(np.float32), *rest, **named)
        return data, scale.astype(weight.dtype), zero_point

    _utils.quantize_weight_by_dtype = wide
    try:
        yield
    finally:
        _utils.quantize_weight_by_dtype = original


# Do the pairs hold what was promised?


@dataclass(frozen=True)
class Pair:
    """One tensor that passes through 8 bits, and the numbers by which it does."""

    tensor: str
    dtype: str
    scale: float
    offset: int  # from the least integer of the type: coremltools writes int8 with -128 as uint8 with 0
    agrees: bool  # it becomes a float again, with the same offset


@dataclass(frozen=True)
class Quantized:
    """What a package does to activations: its pairs, the ops with 8-bit inputs, and those without."""

    pairs: tuple[Pair, ...]
    done: tuple[str, ...]
    left: tuple[str, ...]
    mixed: tuple[str, ...]  # ops that read values of different units
    same_ops: bool  # apart from the pairs, the program has the ops that it had


def read_pairs(before: Program, after: Program) -> Quantized:
    """Find the pairs of a program, and compare the rest with the program that they were inserted into."""
    (function,) = after.functions.values()
    made = {value: op for op in function.body.ops for value in op.outputs}
    reader = _Reader(made)
    for op in function.body.ops:
        reader.read(op)
    eight = {op.name: all(_is_dequantized(op.inputs[n][0], made) for n in LIVE[op.type]) for op in candidates(after)}
    return Quantized(
        pairs=tuple(reader.pair(op) for op in reader.scales),
        done=tuple(name for name, is_done in eight.items() if is_done),
        left=tuple(name for name, is_done in eight.items() if not is_done),
        mixed=tuple(reader.mixed),
        same_ops=_kinds(before) == _kinds(after),
    )


class _Reader:
    """Follows the unit of each float: coremltools divides both inputs of an add, and what follows it, by one of their scales.

    (`distributive_quantized_binary_op_scale_normalization`: hardware saves a multiplication, and the result is the same.)
    """

    def __init__(self, made: Mapping[Value, Op]) -> None:
        self.made = made
        self.units: dict[Value, float] = {}  # what a value must be multiplied by to be the true one; 1 where absent
        self.scales: dict[Op, float] = {}  # of each quantize, in true units
        self.ends: dict[Op, list[Op]] = {}
        self.mixed: list[str] = []

    def read(self, op: Op) -> None:
        """Take one op into account; they come in program order."""
        if op.type == "quantize":
            self.scales[op] = _numbers(op)[0] * self._units(op)[0]
            self.ends[op] = []
        elif op.type == "dequantize" and (start := _start(op, self.made)):
            self.ends[start].append(op)
            self.units[op.outputs[0]] = self.scales[start] / _numbers(op)[0]
        elif units := self._units(op):
            if op.type in SCALABLE and _alike(units):
                self.units[op.outputs[0]] = units[0]
            elif not _alike((1.0, *units)):
                self.mixed.append(op.name)

    def _units(self, op: Op) -> tuple[float, ...]:
        return tuple(self.units.get(one, 1.0) for some in op.inputs.values() for one in some if isinstance(one, Value))

    def pair(self, op: Op) -> Pair:
        """Describe a quantize op and what it leads to."""
        kind, offset = op.outputs[0].type, _numbers(op)[1]
        assert isinstance(kind, TensorType)
        agrees = bool(self.ends[op]) and all(_numbers(end)[1] == offset for end in self.ends[op])
        return Pair(op.inputs["input"][0].name, kind.dtype, self.scales[op], offset - LEAST[kind.dtype], agrees)


def _alike(units: Sequence[float]) -> bool:
    return max(units) - min(units) <= ROUNDING * max(units)


def _start(op: Op, made: Mapping[Value, Op]) -> Op | None:
    """Go back from a dequantize to its quantize, past ops that only move integers."""
    found: Op | None = op
    while found is not None and found.type != "quantize":
        name = "input" if found.type == "dequantize" else "x"
        argument = found.inputs.get(name, (None,))[0]
        found = made.get(argument) if isinstance(argument, Value) else None
    return found


def _is_dequantized(argument: Any, made: Mapping[Value, Op]) -> bool:
    return isinstance(argument, Value) and argument in made and made[argument].type == "dequantize"


def _numbers(op: Op) -> tuple[float, int]:
    scale, offset = (op.inputs.get(name, (None,))[0] for name in ("scale", "zero_point"))
    assert isinstance(scale, Constant)
    return float(scale.array.item()), int(offset.array.item()) if isinstance(offset, Constant) else 0


def _kinds(program: Program) -> list[str]:
    (function,) = program.functions.values()
    stored = ("quantize", "dequantize", "constexpr_")
    return sorted(op.type for op in function.body.ops if not op.type.startswith(stored))


def promised_numbers(ends: Range, step: QuantizeActivations) -> tuple[float, int]:
    """Return scale and offset of a range: its width over the levels, and the integer, counted from the least, that is zero."""
    if step.mode == "linear_symmetric":
        return max(abs(ends.low), abs(ends.high)) / 127, 128 if step.dtype == "int8" else 127
    low, high = min(ends.low, 0.0), max(ends.high, 0.0)
    scale = (high - low) / 255
    return scale, round(-low / scale)


def pair_bounds(pair: Pair, activations: Activations) -> tuple[Bound, ...]:
    """Measure a pair against the range that calibration saw."""
    known = pair.tensor in activations.ranges
    whole = (
        Bound("activations without a calibrated range", int(not known), 0),
        Bound("integers that become no float again, or another", int(not pair.agrees), 0),
        Bound("bits", BITS[pair.dtype], 8),
    )
    if not known:
        return whole
    scale, offset = promised_numbers(activations.ranges[pair.tensor], activations.step)
    rounding = ROUNDING * scale + HALF_TINY
    return (
        *whole,
        Bound("scale, against that of its range, in rounding", abs(pair.scale - scale) / rounding, 1),
        Bound("offset, against that of its range", abs(pair.offset - offset), 1),
    )
