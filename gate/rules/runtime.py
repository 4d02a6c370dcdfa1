# SPDX-License-Identifier: Apache-2.0
"""Which ops are known to give wrong answers on a device, or answers that nobody can compare?

A rule is an error only where the program alone proves the harm; where it takes certain values, it is a warning, and `fidelity` or
`float16` decide with numbers.
"""

from collections.abc import Iterator

from gate.mil.program import Constant, Op
from gate.report import Severity
from gate.rules.base import Hit, Rule, Scene, dtype, numbers

SATURATED = 2**31 - 1
NARROW_INTEGERS = ("int16", "uint16")
ARITHMETIC = ("add", "sub", "mul", "floor_div", "mod", "real_div")
CLIFFS = ("softplus", "softplus_parametric", "reduce_log_sum_exp")


def _base_two(scene: Scene) -> Iterator[Hit]:
    for op in scene.ops:
        base = op.inputs["x"][0] if op.type == "pow" else None
        if isinstance(base, Constant) and base.array.size and (base.array == 2).all():
            yield Hit(op, "base 2")


def _cliffs(scene: Scene) -> Iterator[Hit]:
    yield from (Hit(op, op.type) for op in scene.ops if op.type in CLIFFS)


def _random(scene: Scene) -> Iterator[Hit]:
    yield from (Hit(op, op.type) for op in scene.ops if op.type.startswith("random_"))


def _narrowed_data(scene: Scene) -> Iterator[Hit]:
    """Rows of a table that was int32 until a cast; shapes are small numbers and do no harm."""
    for op in scene.ops:
        cast = scene.maker(op, "x") if op.type.startswith("gather") else None
        if cast is None or cast.type != "cast" or dtype(cast.outputs[0]) not in NARROW_INTEGERS:
            continue
        before = scene.maker(cast, "x")
        if before is None or before.type != "shape":
            yield Hit(op, f"data are cast to {dtype(cast.outputs[0])}")


def _saturated(scene: Scene) -> Iterator[Hit]:
    for op in scene.ops:
        for name in ("x", "y") if op.type in ARITHMETIC else ():
            given = op.inputs[name][0]
            if (
                isinstance(given, Constant)
                and dtype(given) == "int32"
                and (abs(given.array.astype("int64")) >= SATURATED).any()
            ):
                yield Hit(op, f"{name} is {given.array.reshape(-1)[0]}")


def _borders(scene: Scene) -> Iterator[Hit]:
    for op in scene.ops:
        if op.type == "conv" and (what := _even_kernel(op, scene)):
            yield Hit(op, what)


def _even_kernel(op: Op, scene: Scene) -> str | None:
    kernel = scene.sizes.shape(op.inputs["weight"][0])[2:]
    strides = numbers(op, "strides") or [1] * len(kernel)
    pad = numbers(op, "pad") or [0] * (2 * len(kernel))
    padded = [pad[2 * i] == pad[2 * i + 1] > 0 for i in range(len(kernel))]
    if any(n % 2 == 0 and s > 1 and p for n, s, p in zip(kernel, strides, padded, strict=True)):
        return f"kernel {list(kernel)}, strides {strides}, pad {pad}"
    return None


RULES = (
    Rule(
        "runtime.pow-base-2", Severity.ERROR,
        "Core ML computes pow with the constant base 2 as the square of the exponent.",
        "write exp(y · ln 2), or torch.exp2", "https://github.com/apple/coremltools/pull/2742", _base_two,
    ),
    Rule(
        "runtime.cliff", Severity.WARNING,
        "On the Neural Engine softplus is 0 above 10.4, and a log-sum-exp is 0 where the sum overflows.",
        "write max(x, 0) + log(1 + exp(-|x|)), or subtract the maximum first",
        "https://github.com/apple/coremltools/issues/2687", _cliffs,
    ),
    Rule(
        "runtime.random", Severity.WARNING, "A random op in the program: no two answers can be compared.",
        "make the noise an input; check that dropout is in evaluation mode",
        "https://github.com/apple/coremltools/pull/2732", _random,
    ),
    Rule(
        "runtime.narrowed-data", Severity.WARNING,
        "coremltools cast the int32 data of a gather to 16 bits: values above the range become others.",
        "convert without the pass common::add_int16_cast, or in float32",
        "https://github.com/apple/coremltools/issues/2222", _narrowed_data,
    ),
    Rule(
        "runtime.saturated", Severity.WARNING,
        "An integer constant stands at the limit of int32; a 64-bit one was probably cut off without a word.",
        "compute hashes and timestamps outside the model",
        "https://github.com/apple/coremltools/issues/2193", _saturated,
    ),
    Rule(
        "runtime.borders", Severity.WARNING,
        "An even kernel with a stride and symmetric padding was seen to give wrong values at the border.",
        "pad by an op of its own", "https://github.com/apple/coremltools/issues/2515", _borders,
    ),
)  # fmt: skip
