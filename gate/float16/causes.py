# SPDX-License-Identifier: Apache-2.0
"""Why does an op lose precision, how far is it over the edge, and what is the usual cure?

Looks at the exact inputs and results of one op and at what half makes of them. The edges are float16's own (65,504 above, 6e-8 below,
eleven significant bits between) and two that were measured on the Neural Engine. Rewrites come from a table with a link each.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from gate.float16.trials import Place, Trials
from gate.mil.compiler import MIXED
from gate.mil.numerics import Precision, half_constant
from gate.mil.ops.narrow import SOFTPLUS_CLIFF
from gate.mil.ops.registry import ACCUMULATE16, NARROW

LARGEST = 65504.0  # of float16
SMALLEST_NORMAL = 2.0**-14
SQUARE_EDGE = math.sqrt(LARGEST)  # 255.9
EXP_EDGE = math.log(LARGEST)  # 11.09
CANCELS = 16.0  # operands this many times the result lose four of float16's eleven bits
VANISHED = 1e-3  # share of values that becomes zero


class Cause(StrEnum):
    """What float16 lacked."""

    OVERFLOW = "overflow"
    UNDERFLOW = "underflow"
    CANCELLATION = "cancellation"
    RESOLUTION = "resolution"  # the value is fine, but float16's steps are too wide there
    ACCUMULATION = "accumulation"
    COMPOSITE = "composite"  # the inside of an op that is several operations on the Neural Engine
    INTEGERS = "integers"
    CONVERTER = "converter"  # the float16 program is another program


@dataclass(frozen=True)
class Diagnosis:
    """Cause, distance to the edge in words, and cure."""

    cause: Cause
    margin: str
    advice: str
    evidence: str | None = None


@dataclass(frozen=True)
class Sight:
    """One op with what goes in and comes out."""

    type: str
    inputs: Mapping[str, Tensor]
    numbers: Mapping[str, float]
    exact: tuple[Tensor, ...]
    half: tuple[Tensor, ...]
    readers: frozenset[str] = frozenset()  # op types that read the result

    @property
    def peak(self) -> float:
        """Largest finite |input|."""
        return max((peak(x) for x in self.inputs.values()), default=0.0)

    @property
    def result_peak(self) -> float:
        """Largest finite |result|."""
        return max((peak(x) for x in self.exact), default=0.0)


def diagnose(trials: Trials, place: Place, precision: Precision) -> Diagnosis:
    """Say why a place loses precision."""
    sight = look(trials, place)
    cause = find_cause(sight, precision)
    cure = next(
        (c for c in CURES if cause in c.causes and (not c.types or place.type in c.types) and c.fits(sight)), FALLBACK
    )
    return Diagnosis(cause, margin(sight, cause), cure.advice, cure.evidence)


def look(trials: Trials, place: Place) -> Sight:
    """Gather the values of one op."""
    exact, half = (_counted(trials.results(place, half=halved)) for halved in (False, True))
    readers = frozenset(trials.readers(place))
    if place.index < 0:
        return Sight(place.type, {"x": exact[0]}, {}, exact, half, readers)
    inputs: dict[str, Tensor] = {}
    numbers: dict[str, float] = {}
    for name, value in trials.read(place).items():
        if isinstance(value, Tensor) and value.is_floating_point():
            inputs[name] = value
        elif isinstance(value, float) and (place.type, name) not in MIXED:
            numbers[name] = value
        elif isinstance(value, list):
            inputs |= {
                f"{name}[{i}]": v for i, v in enumerate(value) if isinstance(v, Tensor) and v.is_floating_point()
            }
    return Sight(place.type, inputs, numbers, exact, half, readers)


def _counted(results: list[Tensor]) -> tuple[Tensor, ...]:
    """The results that are quantities: beside topk's values its positions are none, and torch has no magnitude of booleans."""
    floats = tuple(x for x in results if x.is_floating_point())
    return floats or tuple(x.float() if x.dtype == torch.bool else x for x in results)


def find_cause(sight: Sight, precision: Precision) -> Cause:
    """Choose the cause; overflow outranks the rest since nothing survives it."""
    if precision is Precision.ACCUMULATE16 and sight.type in ACCUMULATE16:
        return Cause.ACCUMULATION
    if precision in (Precision.NARROW, Precision.ACCUMULATE16) and sight.type in NARROW:
        return Cause.COMPOSITE
    if overflows(sight):
        return Cause.OVERFLOW
    if vanishes(sight):
        return Cause.UNDERFLOW
    return Cause.CANCELLATION if cancels(sight) else Cause.RESOLUTION


def overflows(sight: Sight) -> bool:
    """Does a finite value, going in or coming out, lie beyond the largest float16?"""
    return any(
        bool((x.isfinite() & ~x.half().isfinite()).any())
        for x in (*sight.inputs.values(), *sight.exact)
        if x.is_floating_point()
    )


def vanishes(sight: Sight) -> bool:
    """Do values that matter become zero, or a small constant something else? What a sum leaves is `cancels`' matter."""
    if any(0 < abs(n) < SMALLEST_NORMAL and abs(_bumped(n) - n) > 0.01 * abs(n) for n in sight.numbers.values()):
        return True
    pairs = [(x, x.half().float()) for x in sight.inputs.values()]
    if sight.type not in SUMS:
        pairs += list(zip(sight.exact, sight.half, strict=True))
    return any(_vanished_share(e, h) > VANISHED for e, h in pairs if e.is_floating_point())


def cancels(sight: Sight) -> bool:
    """Are the operands of a sum much larger than what it leaves?"""
    if sight.type not in SUMS:
        return False
    gone = any(_vanished_share(e, h) > VANISHED for e, h in zip(sight.exact, sight.half, strict=True))
    return gone or sight.peak > CANCELS * max(_typical(sight.exact), 1e-30)


SUMS = frozenset(
    {"add", "sub", "linear", "matmul", "conv", "reduce_sum", "reduce_mean", "cumsum", "einsum"}
    | {"batch_norm", "layer_norm", "instance_norm", "l2_norm"}
)


def _typical(tensors: tuple[Tensor, ...]) -> float:
    values = [x[x.isfinite()].abs().float() for x in tensors if x.is_floating_point()]
    return max((float(v.mean()) for v in values if v.numel()), default=0.0)


def _bumped(number: float) -> float:
    return float(half_constant(torch.tensor(number)))


def _vanished_share(exact: Tensor, half: Tensor) -> float:
    nonzero = exact != 0
    count = int(nonzero.sum())
    return float((nonzero & (half == 0)).sum()) / count if count else 0.0


def peak(x: Tensor) -> float:
    """Largest finite |x|."""
    finite = x[x.isfinite()] if not bool(x.isfinite().all()) else x
    return float(finite.abs().max()) if finite.numel() else 0.0


# --------------------------------------------------------------------------------------------------- how far over the edge


def margin(sight: Sight, cause: Cause) -> str:
    """Say how far the inputs are over the edge, in numbers of the sample."""
    return MARGINS[cause](sight)


def _overflow_margin(sight: Sight) -> str:
    if edge := _input_edge(sight):
        return edge
    if sight.peak > LARGEST:
        return f"max |x| = {number(sight.peak)}; float16 ends at 65,504"
    return f"the result reaches {number(sight.result_peak)}; float16 ends at 65,504"


def _input_edge(sight: Sight) -> str | None:
    """Name the edge in terms of the input, for ops that have one."""
    x = sight.inputs.get("x")
    if x is None:
        return None
    if sight.type == "exp":
        return f"max x = {number(float(x.max()))}; exp overflows above {EXP_EDGE:.2f}"
    if sight.type in SQUARES or (sight.type == "mul" and _same(sight)):
        return f"max |x| = {number(peak(x))}; squares overflow above {SQUARE_EDGE:.1f}"
    if sight.type == "pow" and "y" in sight.inputs and sight.inputs["y"].numel() == 1:
        power = float(sight.inputs["y"].reshape(-1)[0])
        edge = LARGEST ** (1 / power) if power > 0 else float("inf")
        return f"max |x| = {number(peak(x))}; its power {power:g} overflows above {number(edge)}"
    if sight.type in ("real_div", "inverse"):
        below = sight.inputs.get("y", x)
        nonzero = below[below != 0].abs()
        least = number(float(nonzero.min())) if nonzero.numel() else "0"
        return f"the smallest divisor is {least}; the result reaches {number(sight.result_peak)} and float16 ends at 65,504"
    return None


SQUARES = frozenset({"square", "reduce_sum_square", "reduce_l2_norm", "l2_norm"})


def _same(sight: Sight) -> bool:
    x, y = sight.inputs.get("x"), sight.inputs.get("y")
    return x is not None and y is not None and x.shape == y.shape and bool(torch.equal(x, y))


def _underflow_margin(sight: Sight) -> str:
    small = {k: n for k, n in sight.numbers.items() if 0 < abs(n) < SMALLEST_NORMAL}
    for name, value in small.items():
        return f"{name} = {value:.2g} becomes {_bumped(value):.2g} in float16"
    constants = [x for x in sight.inputs.values() if x.numel() == 1 and 0 < float(x.abs().max()) < SMALLEST_NORMAL]
    for x in constants:
        return f"a constant of {float(x):.2g} becomes {_bumped(float(x)):.2g} in float16"
    shown = min(
        (float(x[x != 0].abs().min()) for x in (*sight.inputs.values(), *sight.exact) if bool((x != 0).any())),
        default=0.0,
    )
    return f"the smallest value is {shown:.2g}; float16 is zero below 3e-8 and loses bits below 6e-5"


def _cancellation_margin(sight: Sight) -> str:
    return f"operands up to {number(sight.peak)} leave {number(_typical(sight.exact))}; float16 steps by {number(step(sight.peak))} there"


def _resolution_margin(sight: Sight) -> str:
    top = max(sight.peak, sight.result_peak)
    return f"values up to {number(top)}, where float16 steps by {number(step(top))}"


def _composite_margin(sight: Sight) -> str:
    x = sight.inputs.get("x")
    if x is None:
        return _resolution_margin(sight)
    if sight.type in ("softplus", "softplus_parametric"):
        return f"max x = {number(float(x.max()))}; the Neural Engine returns 0 above {SOFTPLUS_CLIFF}"
    if sight.type == "reduce_log_sum_exp":
        return (
            f"max x = {number(float(x.max()))}; the Neural Engine returns 0 once the sum of exponentials passes 65,504"
        )
    if sight.type in SQUARES | {"layer_norm", "instance_norm", "local_response_norm"}:
        return f"max |x| = {number(peak(x))}; squares inside overflow above {SQUARE_EDGE:.1f}, their sum earlier"
    if sight.type in ("reduce_mean", "reduce_sum"):
        count = x.numel() / max(1, sum(r.numel() for r in sight.exact))
        return f"{count:,.0f} values up to {number(peak(x))} are summed inside; the sum may pass 65,504"
    return _resolution_margin(sight)


def _accumulation_margin(sight: Sight) -> str:
    terms = _terms(sight)
    return f"{terms:,} terms are summed, up to {number(sight.result_peak)}; a running sum in float16 steps by {number(step(sight.result_peak))} there"


def _terms(sight: Sight) -> int:
    weight = sight.inputs.get("weight")
    if weight is not None:
        return weight[0].numel()
    x = sight.inputs.get("x")
    if x is None:
        return 0
    return x.shape[-1] if sight.type == "matmul" else x.numel() // max(1, sum(r.numel() for r in sight.exact))


MARGINS: dict[Cause, Callable[[Sight], str]] = {
    Cause.OVERFLOW: _overflow_margin,
    Cause.UNDERFLOW: _underflow_margin,
    Cause.CANCELLATION: _cancellation_margin,
    Cause.RESOLUTION: _resolution_margin,
    Cause.COMPOSITE: _composite_margin,
    Cause.ACCUMULATION: _accumulation_margin,
    Cause.INTEGERS: lambda sight: f"values up to {number(sight.peak)}",
}


def step(magnitude: float) -> float:
    """Distance between neighbouring float16 values at a magnitude."""
    return float(2.0 ** (max(math.floor(math.log2(magnitude)), -14) - 10)) if magnitude > 0 else 2.0**-24


def number(value: float) -> str:
    """Write a number for a sentence: 1,240 or 0.0031."""
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:.2g}"


# -------------------------------------------------------------------------------------------------------------- rewrites


@dataclass(frozen=True)
class Cure:
    """A rewrite that is known to help, and where that is told."""

    causes: frozenset[Cause]
    types: frozenset[str]
    advice: str
    evidence: str | None = None
    fits: Callable[[Sight], bool] = lambda sight: True


def _cure(
    causes: str,
    types: str,
    advice: str,
    evidence: str | None = None,
    fits: Callable[[Sight], bool] = lambda sight: True,
) -> Cure:
    return Cure(frozenset(map(Cause, causes.split())), frozenset(types.split()), advice, evidence, fits)


def is_mask(sight: Sight) -> bool:
    """Is an operand a sentinel such as -1e9 or the least float32?"""
    return any(x.numel() and float(x.nan_to_num(0.0).min()) <= -1e4 for x in sight.inputs.values())


NORMS = frozenset({"instance_norm", "layer_norm", "batch_norm", "l2_norm"})
SAMPLERS = frozenset({"resample", "crop_resize", "affine"})
COREMLTOOLS = "https://github.com/apple/coremltools"
CURES = (
    _cure(
        "overflow composite",
        "softplus softplus_parametric",
        "write softplus as max(x, 0) + log(1 + exp(-|x|)), which no exponential overflows",
        f"{COREMLTOOLS}/issues/2687",
    ),
    _cure(
        "overflow composite",
        "reduce_log_sum_exp",
        "subtract the maximum first: m + log(sum(exp(x - m)))",
        f"{COREMLTOOLS}/issues/2690",
    ),
    _cure(
        "overflow",
        "exp reduce_sum cumsum",
        "subtract the maximum before exp, or use torch.softmax, which does",
        "https://github.com/apple/coreai-torch/issues/104",
        lambda sight: sight.type == "exp",
    ),
    _cure(
        "overflow",
        "add sub mul softmax select where matmul",
        "use a finite mask of about -1e4 (not -65504: two masks add up to -inf), or boolean masks with torch.where",
        f"{COREMLTOOLS}/pull/2669",
        is_mask,
    ),
    _cure(
        "overflow",
        "matmul softmax einsum",
        "scale before the product: (q * d**-0.5) @ k.T, not (q @ k.T) * d**-0.5",
        "https://github.com/huggingface/transformers/issues/9295",
    ),
    _cure(
        "overflow composite",
        "square reduce_sum_square reduce_l2_norm l2_norm pow mul",
        "divide by the largest |x| before squaring, and multiply the root by it afterwards",
        "https://github.com/huggingface/swift-transformers/issues/95",
        lambda s: s.type != "mul" or _same(s),
    ),
    _cure(
        "overflow",
        "mul sub real_div",
        "scale the factors first, such as box coordinates to 0 … 1",
        "https://github.com/pytorch/vision/issues/3371",
        lambda s: s.type == "mul",
    ),
    _cure(
        "overflow composite",
        "reduce_sum reduce_mean sqrt add",
        "scale before the sum: divide each term by the count, or average in two stages",
        f"{COREMLTOOLS}/issues/2603",
        lambda s: s.type.startswith("reduce_"),
    ),
    _cure(
        "overflow",
        "add",
        "scale the branch that is added, or keep the residual sum in float32",
        "https://github.com/huggingface/transformers/pull/19229",
    ),
    _cure(
        "overflow underflow",
        "real_div inverse rsqrt",
        "bound the divisor from below by what the data allow (clamp(min=1e-3)), or keep the division in float32",
        f"{COREMLTOOLS}/pull/2773",
    ),
    _cure(
        "underflow",
        "layer_norm batch_norm instance_norm l2_norm",
        "use an epsilon of at least 1e-5, or scale the input up before the norm",
        f"{COREMLTOOLS}/pull/2822",
    ),
    _cure(
        "underflow resolution cancellation",
        "log add sub sigmoid",
        "add an epsilon that float16 has (1e-6 or more); for log(sigmoid(x)) and log(1 - sigmoid(x)) use the stable logsigmoid",
        f"{COREMLTOOLS}/issues/2110",
        lambda s: (
            s.type == "log"
            or (s.type == "sigmoid" and "log" in s.readers)
            or (s.type in ("add", "sub") and s.peak < 64)
        ),
    ),
    _cure(
        "underflow",
        "mul reduce_prod pow exp",
        "add logarithms instead of multiplying small numbers",
        f"{COREMLTOOLS}/issues/2603",
    ),
    _cure(
        "resolution cancellation underflow",
        "",
        "give coordinates relative to the pixel, or keep the grid in float32: float16 has 11 bits for the position",
        fits=lambda s: s.type in SAMPLERS or bool(s.readers & SAMPLERS),
    ),
    _cure(
        "resolution cancellation",
        "",
        "reduce the angle to 0 … 2π in float32 first, or store the table of sines",
        fits=lambda s: bool(({s.type} | s.readers) & {"sin", "cos"}),
    ),
    _cure(
        "resolution accumulation composite",
        "cumsum",
        "count in integers (torch.cumsum of an int tensor), or keep the running sum in float32",
        None,
    ),
    _cure(
        "resolution",
        "cast gather mul add sub clip floor floor_div",
        "compute indices and positions in int32: float16 skips whole numbers above 2,048",
        f"{COREMLTOOLS}/issues/2193",
        lambda s: s.result_peak > 2048,
    ),
    _cure(
        "cancellation",
        "sub add linear matmul reduce_sum",
        "subtract before squaring or scaling: |a - b|² from differences, coordinates relative to a near origin",
        None,
    ),
    _cure(
        "cancellation resolution",
        "conv instance_norm layer_norm batch_norm",
        "take the mean out of the input first, so that the norm does not subtract large equal numbers",
        None,
        lambda s: s.type != "conv" or bool(s.readers & NORMS),
    ),
    _cure(
        "accumulation",
        "",
        "split the sum: several shorter products added in float32, or keep this layer in float32",
        f"{COREMLTOOLS}/issues/2625",
    ),
    _cure(
        "integers",
        "",
        "remove the pass common::add_int16_cast from the pipeline, or keep the values below 32,768",
        f"{COREMLTOOLS}/issues/2222",
    ),
)
FALLBACK = Cure(frozenset(Cause), frozenset(), "keep this layer in float32, or rescale the values before it")
