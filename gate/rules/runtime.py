# SPDX-License-Identifier: Apache-2.0
"""Which ops are known to give wrong answers on a device, or answers that nobody can compare?

A rule is an error only where the program alone proves the harm; where it takes certain values, it is a warning, and `fidelity` or
`float16` decide with numbers.
"""

from collections.abc import Iterator

from gate.mil.program import Argument, Constant, Op, TensorType, Value
from gate.report import Severity
from gate.rules.base import Hit, Rule, Scene, dtype, numbers

POSITIONS = ("reduce_argmax", "reduce_argmin", "topk", "argsort")
SATURATED = 2**31 - 1
NARROW_INTEGERS = ("int16", "uint16")
ARITHMETIC = ("add", "sub", "mul", "floor_div", "mod", "real_div")
SIZED_BY = {"reshape": "shape", "tile": "reps", "fill": "shape"}  # ops whose result is as large as a parameter says
MOST_STEPS = 8  # that integers are followed back through float16
LARGEST_FILE = 2**31
LARGE_WEIGHTS = 850_000_000
STRIDE_ELEMENTS = 32  # 64 bytes of float16
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
    """Rows of a table that was int32 until a cast; shapes, and positions on short axes, are small numbers and do no harm."""
    for op in scene.ops:
        cast = scene.maker(op, "x") if op.type.startswith("gather") else None
        if cast is None or cast.type != "cast" or dtype(cast.outputs[0]) not in NARROW_INTEGERS:
            continue
        before = scene.maker(cast, "x")
        if before is None or not (before.type == "shape" or _is_small_position(before)):
            yield Hit(op, f"data are cast to {dtype(cast.outputs[0])}")


def _is_small_position(op: Op) -> bool:
    """Does an op give positions that 16 bits hold, whichever axis they are on?"""
    kind = op.inputs["x"][0].type if op.type in POSITIONS else None
    sizes = kind.sizes if isinstance(kind, TensorType) else None
    return sizes is not None and max(sizes, default=0) <= 2**15


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


def _rounded_integers(scene: Scene) -> Iterator[Hit]:
    """Integers that become float16 and integers again: exact up to 2,048 only."""
    for op in scene.ops:
        if (
            op.type == "cast"
            and dtype(op.outputs[0]).lstrip("u").startswith("int")
            and dtype(op.inputs["x"][0]) == "float16"
        ):
            origin = _whole_origin(scene, op)
            if origin is not None:
                yield Hit(op, f"from {origin.type} {origin.name}")
            elif _selects(scene, op):
                yield Hit(op, "positions that arrive as float16")


def _whole_origin(scene: Scene, op: Op) -> Op | None:
    """Follow float16 values back to a cast from integers."""
    at = [maker for maker in (scene.maker(op, "x"),) if maker is not None]
    for _ in range(MOST_STEPS):
        for maker in at:
            if maker.type == "cast" and dtype(maker.inputs["x"][0]).lstrip("u").startswith("int"):
                return maker
        at = list({m: None for one in at for name in one.inputs if (m := scene.maker(one, name)) is not None})
    return None


def _selects(scene: Scene, op: Op, steps: int = MOST_STEPS) -> bool:
    """Does a gather read what the op computes, perhaps after other integer ops?"""
    for reader in scene.readers(op) if steps else ():
        if reader.type.startswith("gather") and set(reader.inputs["indices"]) & set(op.outputs):
            return True
        if dtype(reader.outputs[0]).lstrip("u").startswith("int") and _selects(scene, reader, steps - 1):
            return True
    return False


def _data_dependent(scene: Scene) -> Iterator[Hit]:
    for op in scene.ops:
        if op.type == "non_zero":
            yield Hit(op, "as many rows as there are hits")
        elif op.type in SIZED_BY and any(_from_data(scene, a) for a in op.inputs.get(SIZED_BY[op.type], ())):
            yield Hit(op, f"{SIZED_BY[op.type]} is computed from data")


def _from_data(scene: Scene, argument: Argument) -> bool:
    """Is a size computed from values rather than from the shapes of inputs?"""
    seen, waiting = set[Value](), [argument]
    while waiting:
        at = waiting.pop()
        if not isinstance(at, Value) or at in seen:
            continue
        seen.add(at)
        maker = scene.made.get(at)
        if maker is None:
            return True
        if maker.type != "shape":
            waiting += [a for given in maker.inputs.values() for a in given]
    return False


def _crashing_conv(scene: Scene) -> Iterator[Hit]:
    for op in scene.ops:
        if op.type != "conv" or len(scene.sizes.shape(op.outputs[0])) != 3:
            continue
        dilations, groups = numbers(op, "dilations"), numbers(op, "groups")
        if any(n > 1 for n in dilations) and any(n > 1 for n in groups):
            yield Hit(op, f"dilations {dilations}, groups {groups}")


def _palettes_with_states(scene: Scene) -> Iterator[Hit]:
    every = tuple(scene.sizes.function.body.walk())
    if any(op.type == "constexpr_lut_to_dense" for op in every):
        yield from (Hit(op, "beside palettes") for op in every if op.type == "read_state")


def _weight_bytes(scene: Scene) -> int:
    constants = {
        a: None
        for op in scene.sizes.function.body.walk()
        for given in op.inputs.values()
        for a in given
        if isinstance(a, Constant)
    }
    return sum(map(scene.sizes.bytes, constants))


def _file_too_large(scene: Scene) -> Iterator[Hit]:
    if (count := _weight_bytes(scene)) > LARGEST_FILE:
        yield Hit(None, f"{count / 1e9:.2f} GB of weights")


def _large(scene: Scene) -> Iterator[Hit]:
    if LARGE_WEIGHTS < (count := _weight_bytes(scene)) <= LARGEST_FILE:
        yield Hit(None, f"{count / 1e9:.2f} GB of weights")


def _padded_outputs(scene: Scene) -> Iterator[Hit]:
    for feature in scene.features.outputs:
        if feature.dtype == "float16" and feature.shape and feature.shape[-1] % STRIDE_ELEMENTS:
            yield Hit(None, f"output {feature.name} {list(feature.shape)}")


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
        "runtime.dilated-grouped-conv1d", Severity.ERROR,
        "A one-dimensional convolution with dilations and groups ends the app's process (segmentation fault).",
        "write it as conv2d with a height of 1", "https://github.com/apple/coremltools/issues/2574", _crashing_conv,
    ),
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
        "runtime.rounded-integers", Severity.WARNING,
        "Integers pass through float16, which is exact up to 2,048 only: row numbers above become others.",
        "keep them integers (maximum and minimum instead of clamp), and declare index inputs as int32",
        "https://github.com/apple/coremltools/pull/2839", _rounded_integers,
    ),
    Rule(
        "runtime.data-dependent-shape", Severity.WARNING,
        "A size depends on values: the GPU and the Neural Engine refuse such a program, or crash.",
        "pad to a fixed size and hand a mask on", "https://github.com/apple/coremltools/issues/2825", _data_dependent,
    ),
    Rule(
        "runtime.palettes-with-states", Severity.WARNING,
        "Palettes in a model with states were seen to crash after 100 to 200 predictions, or to give wrong numbers.",
        "validate on a device, or quantize linearly", "https://github.com/apple/coremltools/issues/2716", _palettes_with_states,
    ),
    Rule(
        "runtime.weight-file", Severity.WARNING,
        "A weight file above 2 GiB could not be loaded by older systems.",
        "split the model", "https://github.com/apple/coremltools/issues/1807", _file_too_large,
    ),
    Rule(
        "runtime.large-weights", Severity.WARNING,
        "Above about 850 MB of weights, loading and compiling on a phone were seen to run out of memory.",
        "split the model into pieces of less, or compress it", "https://github.com/apple/ml-stable-diffusion/issues/291", _large,
    ),
    Rule(
        "runtime.padded-output", Severity.INFO,
        "Rows of a float16 output can be padded to 64 bytes: code that ignores the strides reads garbage.",
        "read MLMultiArray by its strides, or declare the output as float32",
        "https://github.com/apple/coremltools/issues/1893", _padded_outputs,
    ),
    Rule(
        "runtime.borders", Severity.WARNING,
        "An even kernel with a stride and symmetric padding was seen to give wrong values at the border.",
        "pad by an op of its own", "https://github.com/apple/coremltools/issues/2515", _borders,
    ),
)  # fmt: skip
