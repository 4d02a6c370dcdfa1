# SPDX-License-Identifier: Apache-2.0
"""Which ops are known to keep a model off a compute unit?

Most of it is reverse engineered or measured by others on single devices, as the evidence of each rule says; Apple documents little.
"""

from collections.abc import Callable, Iterator

from gate.mil.program import Op
from gate.report import Severity
from gate.rules.base import Hit, Rule, Scene, Unit, dtype, numbers

LARGEST_SIZE = 16_384
LARGEST_RANK = 5
LARGEST_POOL = 13
LARGEST_STRIDE = 2  # of a pooling window
LARGEST_FACTOR = 2  # of an upsampling
FRAMING_KERNEL = 32
ROW_BYTES = 64  # to which the Neural Engine pads the last axis
MUCH_PADDING = 1_000_000
RECURRENT = frozenset({"lstm", "gru", "rnn", "while_loop", "cond"})
SELECTION = frozenset(
    {"topk", "argsort", "non_zero", "non_maximum_suppression", "gather_along_axis"}
    | {"scatter", "scatter_along_axis", "scatter_nd"}
)
PRODUCTS = frozenset({"conv", "einsum", "linear", "matmul"})
LOOKUPS = frozenset({"gather", "gather_nd"})
NEURAL_ENGINE = (Unit.NEURAL_ENGINE,)
HOLLANCE = "https://github.com/hollance/neural-engine/blob/master/docs/unsupported-layers.md"


def _each(wanted: Callable[[Op, Scene], str | None]) -> Callable[[Scene], Iterator[Hit]]:
    """Make a rule of a question about one op; the answer is what was found, None for nothing."""

    def find(scene: Scene) -> Iterator[Hit]:
        for op in scene.ops:
            what = wanted(op, scene)
            if what is not None:
                yield Hit(op, what)

    return find


def _of_type(types: frozenset[str]) -> Callable[[Scene], Iterator[Hit]]:
    return _each(lambda op, _: op.type if op.type in types else None)


def _rank(op: Op, scene: Scene) -> str | None:
    rank = max((len(scene.sizes.shape(v)) for v in op.outputs), default=0)
    return f"rank {rank}" if rank > LARGEST_RANK else None


def _dimension(op: Op, scene: Scene) -> str | None:
    """Sizes of results, and what products are summed over; a long table that is looked up is none."""
    read = (a for given in op.inputs.values() for a in given) if op.type in PRODUCTS else ()
    size = max((n for a in (*op.outputs, *read) for n in scene.sizes.shape(a)), default=0)
    return f"size {size}" if size > LARGEST_SIZE else None


def _dilated(op: Op, _: Scene) -> str | None:
    dilations = numbers(op, "dilations")
    return f"dilations {dilations}" if op.type.startswith("conv") and any(n > 1 for n in dilations) else None


def _framing(op: Op, scene: Scene) -> str | None:
    if op.type != "conv":
        return None
    weight = scene.sizes.shape(op.inputs["weight"][0])
    return (
        f"kernel {list(weight[2:])} on one channel"
        if weight[1] == 1 and max(weight[2:]) > FRAMING_KERNEL and (numbers(op, "groups") in ([], [1]))
        else None
    )


def _pool(op: Op, _: Scene) -> str | None:
    kernel, strides = numbers(op, "kernel_sizes"), numbers(op, "strides")
    large = any(n > LARGEST_POOL for n in kernel) or any(n > LARGEST_STRIDE for n in strides)
    return f"kernel {kernel}, strides {strides}" if op.type.endswith("_pool") and large else None


def _upsample(op: Op, scene: Scene) -> str | None:
    if not op.type.startswith(("upsample_", "resize_")):
        return None
    before, after = (scene.sizes.shape(v)[-2:] for v in (op.inputs["x"][0], op.outputs[0]))
    factors = [new / old for old, new in zip(before, after, strict=True) if old]
    return f"{list(before)} to {list(after)}" if any(f > LARGEST_FACTOR for f in factors) else None


def _float32(op: Op, scene: Scene) -> str | None:
    apart = (
        "cast",
        "identity",
        "while_loop",
        "cond",
    )  # an identity stands for an input that nothing reads; loops have a rule
    if op.type in apart or not scene.mixed:
        return None
    return "float32" if any(dtype(v) == "float32" for v in op.outputs) else None


def _all_float32(scene: Scene) -> Iterator[Hit]:
    if not scene.mixed and any(dtype(v) == "float32" for op in scene.ops for v in op.outputs):
        yield Hit(None, "no float16 result at all")


def _ranges(scene: Scene) -> Iterator[Hit]:
    for feature in scene.features.inputs:
        if any(low != high for low, high in feature.ranges):
            yield Hit(None, f"input {feature.name} {feature.expected}")


def _enumerated(scene: Scene) -> Iterator[Hit]:
    for feature in scene.features.inputs:
        varied = [axis for axis, sizes in enumerate(zip(*feature.enumerated, strict=True)) if len({*sizes}) > 1]
        if len(varied) > 1:
            yield Hit(None, f"input {feature.name} differs along axes {varied}")


def _enumerated_once(scene: Scene) -> Iterator[Hit]:
    for feature in scene.features.inputs:
        if len(feature.enumerated) > 1:
            yield Hit(None, f"input {feature.name} has {len(feature.enumerated)} shapes")


def _states(scene: Scene) -> Iterator[Hit]:
    yield from (Hit(op, "reads a state") for op in scene.ops if op.type == "read_state")


def _enumerated_norm(scene: Scene) -> Iterator[Hit]:
    if any(len(feature.enumerated) > 1 for feature in scene.features.inputs):
        yield from (Hit(op, "with enumerated shapes") for op in scene.ops if op.type == "layer_norm")


def _last_axis(op: Op, scene: Scene) -> str | None:
    for value in op.outputs:
        shape = scene.sizes.shape(value)
        padding = scene.sizes.elements(value) * ROW_BYTES - scene.sizes.bytes(value)
        if len(shape) == 4 and shape[-1] == 1 and padding > MUCH_PADDING:
            return f"shape {list(shape)}"
    return None


def _instance_norm(op: Op, scene: Scene) -> str | None:
    rank = len(scene.sizes.shape(op.outputs[0])) if op.outputs else 0
    return f"rank {rank}" if op.type == "instance_norm" and rank > 4 else None


RULES = (
    Rule(
        "runtime.instance-norm-rank-5", Severity.ERROR,
        "instance_norm on a rank-5 tensor aborts the app's process on the GPU.",
        "reshape to rank 4 around it: (n, c, d, h·w)",
        "https://github.com/apple/coremltools/issues/2667", _each(_instance_norm), (Unit.GPU,),
    ),
    Rule(
        "placement.rank", Severity.WARNING, "Core ML supports tensors of at most rank 5.",
        "merge dimensions before the op", "https://github.com/apple/coremltools/issues/1723",
        _each(_rank), (Unit.GPU, Unit.NEURAL_ENGINE),
    ),
    Rule(
        "placement.dimension", Severity.WARNING, "The Neural Engine's compiler rejects sizes above 16,384.",
        "split the layer, such as a large vocabulary head", "https://github.com/ncdrone/rustane/issues/13",
        _each(_dimension), NEURAL_ENGINE,
    ),
    Rule(
        "placement.recurrent", Severity.WARNING, "Recurrent layers (lstm, gru, rnn) and loops run on the CPU only.",
        "unroll, replace by attention or convolution, or split the model there",
        "https://github.com/apple/coremltools/issues/1780", _of_type(RECURRENT), (Unit.GPU, Unit.NEURAL_ENGINE),
    ),
    Rule(
        "placement.selection", Severity.WARNING, "Selecting by computed positions leaves the Neural Engine.",
        "move it to the end of the model, or into the app", "https://github.com/roboflow/rf-detr/pull/1495",
        _of_type(SELECTION), NEURAL_ENGINE,
    ),
    Rule(
        "placement.lookup", Severity.INFO, "Looking up rows was seen to leave the Neural Engine.",
        "keep embeddings at the beginning, so that the rest stays in one piece",
        "https://github.com/roboflow/rf-detr/pull/1495", _of_type(LOOKUPS), NEURAL_ENGINE,
    ),
    Rule(
        "placement.dilated", Severity.WARNING, "Dilated convolutions were seen to leave the Neural Engine.",
        "rewrite by space-to-depth, or accept the GPU", HOLLANCE, _each(_dilated), NEURAL_ENGINE,
    ),
    Rule(
        "placement.framing", Severity.WARNING,
        "Convolutions that frame a signal (one channel, long kernel) do not compile for the Neural Engine.",
        "keep the audio front end apart, in float32 on the CPU",
        "https://github.com/FluidInference/FluidAudio/pull/648", _each(_framing), NEURAL_ENGINE,
    ),
    Rule(
        "placement.pool", Severity.WARNING,
        "Pooling windows above 13 or strides above 2 were rejected by older Neural Engines (2020).",
        "write global pooling as reduce_mean, or chain two windows", HOLLANCE, _each(_pool), NEURAL_ENGINE,
    ),
    Rule(
        "placement.upsample", Severity.WARNING, "Upsampling by more than 2 was rejected by older Neural Engines (2020).",
        "chain two upsamplings by 2", "https://github.com/hollance/neural-engine/issues/2", _each(_upsample), NEURAL_ENGINE,
    ),
    Rule(
        "placement.float32", Severity.WARNING, "A float32 op among float16 ones breaks the Neural Engine's stretch.",
        "rescale the constant that keeps it in float32, or cast it",
        "https://github.com/apple/coremltools/blob/9.0/coremltools/converters/mil/mil/passes/defs/quantization.py",
        _each(_float32), NEURAL_ENGINE,
    ),
    Rule(
        "placement.all-float32", Severity.INFO, "A float32 program is not run by the Neural Engine.",
        "ship a float16 policy", "https://apple.github.io/coremltools/docs-guides/source/typed-execution.html",
        _all_float32, NEURAL_ENGINE,
    ),
    Rule(
        "placement.range", Severity.WARNING, "Inputs with a range of sizes are not placed on the Neural Engine.",
        "use a fixed shape, or at most 128 enumerated ones", "https://github.com/apple/coremltools/issues/2370",
        _ranges, NEURAL_ENGINE,
    ),
    Rule(
        "placement.enumerated-layer-norm", Severity.WARNING,
        "layer_norm with enumerated shapes kept a model off the Neural Engine (175 ms instead of 20 ms).",
        "one package or function for each shape", "https://github.com/apple/coremltools/issues/1909",
        _enumerated_norm, NEURAL_ENGINE,
    ),
    Rule(
        "placement.enumerated-axes", Severity.WARNING,
        "Enumerated shapes that differ along several axes were seen to run slower or on the CPU, and to end in stride errors.",
        "one package or function for each shape", "https://github.com/apple/coremltools/issues/2730", _enumerated,
    ),
    Rule(
        "placement.enumerated", Severity.INFO, "Of enumerated shapes, memory for the largest is allocated.",
        "leave out the shapes that the app does not send", "https://github.com/apple/coremltools/issues/1249", _enumerated_once,
    ),
    Rule(
        "placement.state", Severity.INFO, "Models with states were seen to leave the Neural Engine on iOS 18 in some configurations.",
        "measure on a device", "https://github.com/apple/coremltools/issues/2716", _states,
    ),
    Rule(
        "placement.last-axis", Severity.WARNING,
        "The Neural Engine pads the last axis to 64 bytes: a size of 1 there takes 32 times the memory, in convolutions and linear "
        "layers alike.",
        "use the layout (b, c, 1, s), with linear layers as 1×1 convolutions", "https://machinelearning.apple.com/research/neural-engine-transformers",
        _each(_last_axis),
    ),
)  # fmt: skip
