# SPDX-License-Identifier: Apache-2.0
"""How does a torch program become a Core ML package, by which route, and which line of it became which operation?

Runs in the worker. Four routes lead through coremltools; none of them converts everything (docs/adr/0003). Inputs and outputs
keep the names of gate.yml on every route, and every dtype is passed, since the routes' defaults differ. A saved package has
lost its scopes, so the source map is taken from the program in memory.
"""

import contextlib
import copy
import hashlib
import io
import itertools
import json
import linecache
import re
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import torch
from coremltools.converters.mil.frontend.torch import ops as torch_ops
from coremltools.converters.mil.frontend.torch.internal_graph import InternalTorchIRNode
from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY
from coremltools.converters.mil.frontend.torch.torchscript_utils import _expand_and_optimize_ir
from coremltools.converters.mil.frontend.torch.utils import sanitize_op_kind
from coremltools.converters.mil.mil import ListVar, Operation
from coremltools.converters.mil.mil.passes.defs.optimize_conv import (
    fuse_conv_batchnorm,
    fuse_conv_bias,
    fuse_conv_scale,
)
from coremltools.converters.mil.mil.passes.defs.optimize_linear import fuse_linear_bias
from coremltools.converters.mil.mil.passes.defs.preprocess import NameSanitizer
from coremltools.converters.mil.mil.scope import ScopeSource
from torch import nn
from torch.jit._trace import TracerWarning

from gate.checkpoint import is_silently_palettized
from gate.config import AnyOfDim, Input, Output, RangeDim, State
from gate.errors import NoAnswer, SourceFault, ToolchainError, UsageError
from gate.policy import Precision, Target
from gate.protocol import SourceLine, SourceMap, operation_names
from gate.report import Finding, Severity

Array = np.ndarray[Any, Any]

TARGETS = {
    Target.IOS15: ct.target.iOS15,
    Target.IOS16: ct.target.iOS16,
    Target.IOS17: ct.target.iOS17,
    Target.IOS18: ct.target.iOS18,
    Target.IOS26: ct.target.iOS26,
}
COLORS = {"RGB": ct.colorlayout.RGB, "BGR": ct.colorlayout.BGR, "GRAYSCALE": ct.colorlayout.GRAYSCALE}
MAX_RANK = 5  # of Core ML's tensors
_TENSOR = "_values"
WRAPPED = "wrapped"  # where a script module sits in the module that adapts it
# with the separator: torchvision is no part of torch
TOOL_FOLDERS = tuple(f"{Path(str(file)).parent}/" for file in (torch.__file__, ct.__file__, __file__))


class ConversionError(SourceFault):
    """One route does not lead to a package; the findings name what stood in the way."""

    def __init__(self, message: str, findings: Sequence[Finding]) -> None:
        super().__init__(message)
        self.findings = tuple(findings)


# ---------------------------------------------------------------------------------------------- inputs and outputs


@dataclass(frozen=True)
class InputPlan:
    """One input: what the package takes, and how the module gets it."""

    spec: Input
    argument: str  # name of the parameter of `forward`
    native: torch.dtype  # what the module's own example has
    example: Array  # as an app hands it over: (1, …) numbers, or (h, w[, 3]) pixels
    dtype: np.dtype[Any]

    @property
    def name(self) -> str:
        """Name in the package."""
        return self.spec.name

    @property
    def scale(self) -> Array:
        """Factor per channel on pixels of 0 to 255."""
        if self.spec.scale is not None:
            return np.full(self.spec.channels, self.spec.scale)
        if self.spec.mean or self.spec.std:
            return np.asarray(1 / (255 * self._std))
        return np.ones(self.spec.channels)

    @property
    def _std(self) -> Array:
        return np.asarray(self.spec.std or (1.0,) * self.spec.channels, dtype=np.float64)

    @property
    def bias(self) -> Array:
        """What is added per channel after `scale`."""
        if self.spec.mean:
            return np.asarray(-np.asarray(self.spec.mean) / self._std)
        return np.asarray(self.spec.bias) if self.spec.bias else np.zeros(self.spec.channels)

    @property
    def normalised_in_graph(self) -> bool:
        """Core ML's image type has one scale for all channels; several need operations of their own."""
        return self.spec.image is not None and len(set(self.scale.tolist())) > 1

    def feed(self, value: Array) -> torch.Tensor:
        """Turn what an app hands over into what the adapted module takes."""
        if self.spec.image is None:
            own = np.array(value, order="C")  # a forward may write into its inputs, and these are not its own
            return torch.from_numpy(own).to(_float_for_tracing(self.dtype))
        pixels = torch.from_numpy(_channels_first(value, self.spec)).to(torch.float32)
        return pixels if self.normalised_in_graph else pixels * _per_channel(self.scale) + _per_channel(self.bias)

    def to_native(self, value: torch.Tensor) -> torch.Tensor:
        """Inside the graph: what the module itself wants."""
        if self.normalised_in_graph:
            value = value * _per_channel(self.scale) + _per_channel(self.bias)
        if self.native == torch.bool:
            return value != 0
        return value if value.dtype == self.native else value.to(self.native)

    def core_ml_type(self) -> Any:
        """The type that coremltools is told."""
        if self.spec.image is not None:
            shape = (1, self.spec.channels, *self.spec.image)
            plain = self.normalised_in_graph
            bias = [0.0] * self.spec.channels if plain else self.bias.tolist()
            return ct.ImageType(
                name=self.name,
                shape=shape,
                color_layout=COLORS[self.spec.color],
                scale=1.0 if plain else float(self.scale[0]),
                bias=bias[0] if self.spec.channels == 1 else bias,
            )
        return ct.TensorType(name=self.name, shape=_core_ml_shape(self.spec, self.example.shape), dtype=self.dtype.type)


def _float_for_tracing(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.int32 if dtype.kind == "i" else torch.float32  # float16 inputs are cast by coremltools


def core_ml_name(name: str) -> str:
    """The name that coremltools will give instead: some characters and words are reserved in MIL."""
    return str(NameSanitizer().sanitize_name(name))


def _per_channel(values: Array) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1)


def _channels_first(value: Array, spec: Input) -> Array:
    """(h, w) or (h, w, 3) in RGB order to (1, c, h, w) in the order that the input declares."""
    assert spec.image is not None
    expected = spec.image if spec.channels == 1 else (*spec.image, 3)
    if value.shape != expected:
        raise UsageError(f"input {spec.name}: found an image of shape {value.shape}, expected {tuple(expected)}")
    planes = value[None] if spec.channels == 1 else value.transpose(2, 0, 1)
    return np.ascontiguousarray(planes[::-1] if spec.color == "BGR" else planes)[None]


def pixels_of(value: torch.Tensor, spec: Input) -> Array:
    """Undo the preprocessing of an example, to have the picture that an app would hand over."""
    plan = InputPlan(spec, spec.name, value.dtype, np.empty(0), np.dtype(np.uint8))
    pixels = (value.float() - _per_channel(plan.bias)) / _per_channel(plan.scale)
    planes = pixels[0].round().clamp(0, 255).to(torch.uint8).numpy()
    planes = planes[::-1] if spec.color == "BGR" else planes
    return np.ascontiguousarray(planes[0] if spec.channels == 1 else planes.transpose(1, 2, 0))


def _core_ml_shape(spec: Input, example: tuple[int, ...]) -> Any:
    """A plain shape, one with ranges, or the product of enumerated sizes."""
    dims = spec.shape or example
    if any(isinstance(dim, AnyOfDim) for dim in dims):
        return _enumerated(spec, [dim.any_of if isinstance(dim, AnyOfDim) else (dim,) for dim in dims])
    return tuple(
        _range_dim(spec, dim, size) if isinstance(dim, RangeDim) else dim
        for dim, size in zip(dims, example, strict=True)
    )


def _enumerated(spec: Input, sizes: list[tuple[Any, ...]]) -> Any:
    shapes = list(itertools.product(*sizes))
    if any(isinstance(size, RangeDim) for size in shapes[0]):
        raise UsageError(f"input {spec.name}: Core ML allows range or any_of in one input, not both")
    if len(shapes) > 128:
        raise UsageError(f"input {spec.name}: {len(shapes)} shapes; Core ML allows 128 enumerated shapes")
    return ct.EnumeratedShapes(shapes=shapes, default=shapes[0])


def _range_dim(spec: Input, dim: RangeDim, size: int) -> Any:
    if dim.range[1] < 0:
        raise UsageError(f"inputs.{spec.name}: an ML program needs an upper bound, found range {list(dim.range)}")
    return ct.RangeDim(lower_bound=dim.range[0], upper_bound=dim.range[1], default=dim.default or size)


# ------------------------------------------------------------------------------------------------------ the module


def flatten(result: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of a module's result with the names that it gives them, if any."""
    if isinstance(result, torch.Tensor):
        yield name, result
    elif isinstance(result, Mapping):
        for key, value in result.items():
            yield from flatten(value, str(key))
    elif hasattr(result, "_fields"):
        for key in result._fields:
            yield from flatten(getattr(result, key), key)
    elif isinstance(result, tuple | list):
        for value in result:
            yield from flatten(value)
    elif result is not None:
        raise SourceFault(
            f"forward returned {type(result).__name__}{f' in {name!r}' if name else ''}; expected tensors, or tuples, lists or dicts of tensors"
        )


class _Wrapped(nn.Module):
    """A module whose forward can be replaced: a script module's cannot."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.wrapped = module

    def forward(self, *values: Any, **named: Any) -> Any:
        return self.wrapped(*values, **named)


@contextlib.contextmanager
def buffers_restored(module: nn.Module) -> Iterator[None]:
    """Undo what a forward does to buffers: each run starts from the same state, and the states of a package from the module's own."""
    saved = {name: buffer.clone() for name, buffer in module.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                if name in saved and buffer.shape == saved[name].shape:
                    buffer.copy_(saved[name])


def adapt(module: nn.Module, inputs: Sequence[InputPlan], by_name: bool) -> nn.Module:
    """Return a module that takes the package's inputs in order and returns a flat tuple of tensors.

    A shallow copy with another `forward` rather than a wrapper around it, so that layer paths and state names stay the team's.
    """
    if isinstance(module, torch.jit.ScriptModule):
        module = _Wrapped(module)
    adapted, forward = copy.copy(module), module.forward

    def adapted_forward(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        native = [plan.to_native(value) for plan, value in zip(inputs, values, strict=True)]
        result = (
            forward(**{p.argument: v for p, v in zip(inputs, native, strict=True)}) if by_name else forward(*native)
        )
        return tuple(_apart([tensor for _, tensor in flatten(result)], values))

    adapted.forward = adapted_forward
    return adapted


def _apart(outputs: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Give each output a value of its own: coremltools has one name for a value, be it an input too or an output twice."""
    taken = list(inputs)
    for tensor in outputs:
        shared = any(tensor is other for other in taken) and tensor.ndim < MAX_RANK
        yield tensor.unsqueeze(0).squeeze(0) if shared else tensor  # a clone would be dropped
        taken.append(tensor)


@dataclass
class TorchProgram:
    """A module in float32 with its interface; what a route has traced or exported is kept for the next precision."""

    module: nn.Module
    inputs: tuple[InputPlan, ...]
    outputs: tuple[Output, ...]
    output_kinds: tuple[str, ...]  # numpy kind of each output: f, i, b
    states: tuple[State, ...]
    folder: Path
    classes: dict[str, list[str]] = field(default_factory=dict)
    by_name: bool = False
    _made: dict[str, tuple[Any, tuple[Finding, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.adapted = adapt(self.module, self.inputs, self.by_name)
        self.state_buffers()

    @property
    def example(self) -> tuple[torch.Tensor, ...]:
        """Example inputs of the adapted module."""
        return tuple(plan.feed(plan.example) for plan in self.inputs)

    def run(self, values: Mapping[str, Array]) -> tuple[torch.Tensor, ...]:
        """Run the module in float32 on what an app would hand over."""
        fed = [plan.feed(_named(values, plan.name)) for plan in self.inputs]
        with buffers_restored(self.module), torch.no_grad():
            return tuple(tensor.clone() for tensor in self.adapted(*fed))  # an output may be a buffer itself

    def state_buffers(self) -> list[tuple[State, torch.Tensor]]:
        """The buffers that gate.yml declares as states; an unknown name is wrong usage."""
        buffers = dict(self.module.named_buffers())
        missing = [state.name for state in self.states if state.name not in buffers]
        if missing:
            raise UsageError(f"states: the module has no buffer {missing[0]!r}; it has {', '.join(buffers) or 'none'}")
        return [(state, buffers[state.name]) for state in self.states]

    def captured(self, route: str) -> tuple[Any, tuple[Finding, ...]]:
        """Trace or export, once per route."""
        if route not in self._made:
            with buffers_restored(self.module), torch.no_grad():
                self._made[route] = CAPTURES[route](self)
        return self._made[route]

    def node_count(self) -> int:
        """Count the operations of the traced graph; 0 where it cannot be traced."""
        try:
            traced, _ = self.captured("trace")
            return sum(node.kind().startswith("aten::") for node in _nodes(traced.inlined_graph))
        except Exception:  # whatever stops the trace is told when that route is tried
            return 0


def _named(values: Mapping[str, Array], name: str) -> Array:
    if name not in values:
        raise UsageError(f"input {name!r} is missing; found {', '.join(values) or 'none'}")
    return values[name]


# ---------------------------------------------------------------------------------------------------------- routes


def _trace(program: TorchProgram) -> tuple[Any, tuple[Finding, ...]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        traced = torch.jit.trace(program.adapted, program.example, check_trace=False, strict=False)  # type: ignore[no-untyped-call]
    return traced, _baked(caught, program)


def _trace_without_fast_path(program: TorchProgram) -> tuple[Any, tuple[Finding, ...]]:
    """PyTorch's fused attention and encoder layer have no counterpart in coremltools; the plain ones do."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        return _trace(program)
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _export(program: TorchProgram, table: dict[Any, Any] | None) -> tuple[Any, tuple[Finding, ...]]:
    if _is_script(program.module):
        raise ConversionError("a TorchScript file cannot be exported", [])
    shapes = {"values": tuple(_dynamic_dims(plan) for plan in program.inputs)}
    exported = torch.export.export(program.adapted, program.example, dynamic_shapes=shapes, strict=False)
    exported = exported.run_decompositions() if table is None else exported.run_decompositions(table)
    for node in exported.graph.nodes:
        node.meta["stack_trace"] = _mark_of_export(node, program.folder)
        node.meta.pop("from_node", None)  # holds addresses: no two captures would have the same fingerprint
    return exported, ()


CAPTURES: dict[str, Callable[[TorchProgram], tuple[Any, tuple[Finding, ...]]]] = {
    "trace": _trace,
    "export": lambda program: _export(program, {}),
    "export-default": lambda program: _export(program, None),
    "trace-no-mha": _trace_without_fast_path,
}


def fingerprint(program: TorchProgram, route: str) -> str | None:
    """Digest what a route captures (graph, weights, source lines) and what decides the interface; None where it captures nothing.

    Saved twice, a program has the same bytes, also in another process (torch 2.13); where it has not, nothing is found again.
    """
    buffer = io.BytesIO()
    try:
        captured, _ = program.captured(route)
        (torch.jit.save if isinstance(captured, torch.jit.ScriptModule) else torch.export.save)(captured, buffer)
    except Exception:  # whatever it is is told when the conversion is tried
        return None
    ports = [(p.name, p.argument, str(p.native), str(p.dtype), p.example.shape) for p in program.inputs]
    states = [(state.name, tuple(values.shape)) for state, values in program.state_buffers()]
    facts = [
        ports,
        program.output_kinds,
        states,
        sorted(program.classes.items()),
        is_silently_palettized(program.module),
    ]
    return hashlib.sha256(json.dumps(facts).encode() + buffer.getbuffer()).hexdigest()


def _is_script(module: nn.Module) -> bool:
    return any(isinstance(part, torch.jit.ScriptModule) for part in module.modules())


def _dynamic_dims(plan: InputPlan) -> dict[int, Any] | None:
    """torch.export finds out how sizes depend on each other; one that it has to fix is refused by coremltools later."""
    auto = torch.export.Dim.AUTO
    dims = {}
    for axis, dim in enumerate(plan.spec.shape or ()):
        if isinstance(dim, RangeDim):
            dims[axis] = auto(min=dim.range[0], max=dim.range[1] if dim.range[1] > 0 else None)
        elif isinstance(dim, AnyOfDim) and len(dim.any_of) > 1:
            dims[axis] = auto(min=min(dim.any_of), max=max(dim.any_of))
    return dims or None


def _baked(caught: Sequence[warnings.WarningMessage], program: TorchProgram) -> tuple[Finding, ...]:
    """Turn the tracer's warnings into findings: a branch taken once is taken always in the package.

    The tracer cannot tell a number that was read off a fixed shape, which does no harm, from one read off the data. Where no size is
    flexible they are one note; `fidelity` tries other values where there is one.
    """
    flexible = any(not isinstance(dim, int) for plan in program.inputs for dim in plan.spec.shape or ())
    places: dict[str, tuple[str, bool]] = {}
    for warning in caught:
        text = str(warning.message)
        theirs = _users([(warning.filename, warning.lineno)], program.folder) is not None
        if theirs and issubclass(warning.category, TracerWarning) and "to a Python" in text:
            code = linecache.getline(warning.filename, warning.lineno).strip()[:200]
            place = f"{_relative(warning.filename, program.folder)}:{warning.lineno}"
            places.setdefault(place, (code, "to a Python boolean" in text))
    told = {place: what for place, what in places.items() if flexible or what[1]}
    return (*(_baked_here(place, *what) for place, what in told.items()), *_baked_numbers(places.keys() - told.keys()))


def _baked_here(place: str, code: str, branch: bool) -> Finding:
    what = f"this {'condition' if branch else 'size'}{f' ({code})' if code else ''}"
    return Finding(
        rule="convert.baked",
        severity=Severity.WARNING,
        message=f"{what} was evaluated once while tracing; the package always does what it did for the example",
        advice="write it with torch operations (torch.where), or use the export route",
        source=place,
    )


def _baked_numbers(places: Collection[str]) -> Iterator[Finding]:
    if places:
        first, *more = sorted(places)
        where = f" and in {len(more)} more lines" if more else ""
        yield Finding(
            rule="convert.baked",
            severity=Severity.INFO,
            message=f"a number was read out of a tensor here{where} while tracing; the package keeps what it was for the example",
            advice="harmless where it is a fixed size; else write it with torch operations",
            source=first,
        )


def convert(
    program: TorchProgram, route: str, precision: Precision, target: Target, keep_float32: Sequence[str] = ()
) -> tuple[Any, SourceMap, tuple[Finding, ...]]:
    """Convert by one route; return the MLModel, its source map and warnings. Raise ConversionError, ToolchainError or NoAnswer."""
    _hooks.current = None
    captured: Any = None
    try:
        captured, findings = program.captured(route)
        model = ct.convert(captured, **_options(program, precision, target, keep_float32))
        origins = source_map(model, program.folder)
        model = _with_named_probabilities(model, program)
    except (UsageError, ConversionError):
        raise
    except Exception as problem:
        raise _explained(problem, route, captured, program.folder) from problem
    return model, origins, findings


def _options(
    program: TorchProgram, precision: Precision, target: Target, keep_float32: Sequence[str]
) -> dict[str, Any]:
    options: dict[str, Any] = {
        "convert_to": "mlprogram",
        "inputs": [plan.core_ml_type() for plan in program.inputs],
        "outputs": [
            _output_type(output, kind, output.name in program.classes)
            for output, kind in zip(program.outputs, program.output_kinds, strict=True)
        ],
        "minimum_deployment_target": TARGETS[target],
        "compute_precision": _compute_precision(precision, keep_float32),
        "compute_units": ct.ComputeUnit.CPU_ONLY,
        "skip_model_load": True,
    }
    if is_silently_palettized(program.module):
        options["pass_pipeline"] = ct.PassPipeline.DEFAULT_PALETTIZATION
    if program.states:
        options["states"] = [_state_type(state, buffer) for state, buffer in program.state_buffers()]
    for name, labels in program.classes.items():
        options["classifier_config"] = ct.ClassifierConfig(labels, predicted_probabilities_output=f"{name}{_TENSOR}")
    return options


def _with_named_probabilities(model: Any, program: TorchProgram) -> Any:
    """coremltools calls every classifier's probabilities `classLabel_probs`; give them the name that the app uses."""
    for name in program.classes:
        specification = model.get_spec()
        ct.utils.rename_feature(specification, specification.description.predictedProbabilitiesName, name)
        specification.description.predictedProbabilitiesName = name
        model = ct.models.MLModel(
            specification, weights_dir=model.weights_dir, compute_units=ct.ComputeUnit.CPU_ONLY, skip_model_load=True
        )
    return model


def _output_type(output: Output, kind: str, is_classes: bool) -> Any:
    if is_classes:  # the tensor behind the probabilities must not have their name
        return ct.TensorType(name=f"{output.name}{_TENSOR}", dtype=np.float32)
    if kind == "f":
        return ct.TensorType(name=output.name, dtype=np.float16 if output.dtype == "float16" else np.float32)
    return ct.TensorType(name=output.name, dtype=np.int32) if kind == "i" else ct.TensorType(name=output.name)


def _state_type(state: State, buffer: torch.Tensor) -> Any:
    """Core ML's states are float16 (coremltools 9.0, StateType)."""
    return ct.StateType(
        wrapped_type=ct.TensorType(shape=state.shape or tuple(buffer.shape), dtype=np.float16), name=state.name
    )


def _compute_precision(precision: Precision, keep_float32: Sequence[str]) -> Any:
    if precision is Precision.FLOAT32:
        return ct.precision.FLOAT32
    return float16_cast(keep_float32) if keep_float32 else ct.precision.FLOAT16


def float16_cast(keep_float32: Sequence[str]) -> Any:
    """coremltools' pass that makes a program float16, except for what the patterns name."""
    return ct.transform.FP16ComputePrecision(op_selector=lambda op: not is_kept(op, keep_float32))


def is_kept(op: Any, patterns: Sequence[str]) -> bool:
    """Does a pattern name this operation's layer, a layer around it, or the operation itself?

    `encoder.norm` is a layer, `encoder.norm/softmax` its operations of one kind, `encoder.norm/softmax:2` the second of them, and
    `/softmax` those of the model itself. Unlike the names that coremltools makes up, these survive the next conversion.
    """
    layers = _layers(op)
    names = [name for layer in layers for name in operation_names(layer, op.op_type)] + [var.name for var in op.outputs]
    if any(":" in pattern for pattern in patterns):
        names += [f"{layer}/{op.op_type}:{_ordinal(op, layer)}" for layer in layers]
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _layers(op: Any) -> list[str]:
    """Its own layer, and the one that was folded into it."""
    mark = _mark_of_operation(op)
    return [str(mark.get("layer") or ""), *([mark["folded"]] if mark.get("folded") else [])]


def _ordinal(op: Any, layer: str) -> int:
    """Position among the operations of its kind in a layer, from 1; in its own, what is folded from there is not counted."""
    known = 1 if layer == _layers(op)[0] else 2
    alike = (
        other
        for other in op.enclosing_block.operations
        if other.op_type == op.op_type and layer in _layers(other)[:known]
    )
    return next(number for number, other in enumerate(alike, 1) if other is op)


# ------------------------------------------------------------------------------------------------------ source map
# coremltools carries a scope through its passes. A mark of ours in it says what the scope alone does not: the full
# layer path on the trace route, the user's line on both. Where a norm, a scale or a bias is folded into the operation before
# it, coremltools keeps the scope of what was folded; ours is that of the operation whose weight it is.

_MARK = "gate:"

_MAKE_NODE = InternalTorchIRNode.from_torchscript_node.__func__  # a classmethod
_SCOPE_OF = InternalTorchIRNode.get_scope_info
_CONVERT_NODE = torch_ops.convert_single_node
_FOLDS = {
    fold: fold._try_to_transform for fold in (fuse_conv_batchnorm, fuse_conv_bias, fuse_conv_scale, fuse_linear_bias)
}


class _Hooks:
    """Which torch node is being converted, for the message when that fails; none while passes run."""

    current: Any = None


_hooks = _Hooks()


def install_hooks(folder: Path) -> None:
    """Make coremltools keep our mark, also in conversions that a converter script does itself; files are the team's under `folder`."""

    def from_torchscript_node(cls: Any, node: Any, parent: Any) -> Any:
        made = _MAKE_NODE(cls, node, parent)
        made.gate_mark = _mark_of_trace(node, folder)
        return made

    def get_scope_info(self: Any) -> tuple[list[str], list[str]]:
        names, kinds = _SCOPE_OF(self)
        if self.kind != "getattr" and hasattr(self, "gate_mark"):
            names = [*names[:-1], self.gate_mark]
        return names, kinds

    def convert_single_node(context: Any, node: Any) -> None:
        around, _hooks.current = _hooks.current, node
        _CONVERT_NODE(context, node)
        _hooks.current = around  # not reached where it raises

    def folding(fold: Any, into: Any, folded: Any, *rest: Any) -> bool:
        scopes, folded.scopes = folded.scopes, _scopes_with(into, folded)
        if _FOLDS[fold](into, folded, *rest):
            return True
        folded.scopes = scopes
        return False

    for fold in _FOLDS:
        fold._try_to_transform = staticmethod(partial(folding, fold))
    InternalTorchIRNode.from_torchscript_node = classmethod(from_torchscript_node)
    InternalTorchIRNode.get_scope_info = get_scope_info
    torch_ops.convert_single_node = convert_single_node


def _mark(layer: str, frame: tuple[str, int] | None, kind: str) -> str:
    file, line = frame or (None, None)
    return _MARK + json.dumps({"layer": layer, "file": file, "line": line, "torch": kind})


def _mark_of_trace(node: Any, folder: Path) -> str:
    """A traced node knows its layer and the whole Python stack, innermost frame first."""
    stack = re.finditer(r"^(.+)\((\d+)\): ", node.sourceRange(), re.MULTILINE)
    frames = [(match[1], int(match[2])) for match in stack]
    layer = node.scopeName().rsplit("/", 1)[-1].removeprefix("__module").removeprefix(".")
    return _mark(_unwrapped(layer), _users(frames, folder), sanitize_op_kind(node.kind()))


def _mark_of_export(node: Any, folder: Path) -> str:
    trace = node.meta.get("stack_trace") or ""
    frames = [(match[1], int(match[2])) for match in re.finditer(r'File "(.+?)", line (\d+)', trace)]
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    layer = stack[-1][0] if stack else ""
    return _mark(_unwrapped(layer), _users(frames[::-1], folder), _kind_of(node))


def _unwrapped(layer: str) -> str:
    return layer.removeprefix(WRAPPED).removeprefix(".")


def _users(frames: Sequence[tuple[str, int]], folder: Path) -> tuple[str, int] | None:
    """Choose, innermost first, the team's own frame; a library's only where there is none."""
    foreign = [frame for frame in frames if not frame[0].startswith(TOOL_FOLDERS) and not frame[0].startswith("<")]
    own = [frame for frame in foreign if frame[0].startswith(f"{folder}/")]
    return next(iter(own or foreign), None)


def _relative(file: str, folder: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(Path(file).relative_to(folder))
    parts = Path(file).parts
    at = parts.index("site-packages") + 1 if "site-packages" in parts else max(0, len(parts) - 2)
    return "/".join(parts[at:])


def _mark_of_operation(op: Any) -> dict[str, Any]:
    for source in (ScopeSource.TORCHSCRIPT_MODULE_NAME, ScopeSource.EXIR_STACK_TRACE):
        for text in reversed(op.scopes.get(source) or []):
            if isinstance(text, str) and text.startswith(_MARK):
                return json.loads(text.removeprefix(_MARK))  # type: ignore[no-any-return]
    return {}


def _scopes_with(op: Any, folded: Any) -> dict[Any, list[Any]]:
    """The scopes of an operation, its mark naming the layer that is folded into it too."""
    layer = _mark_of_operation(folded).get("layer")

    def named(text: Any) -> Any:
        if not (layer and isinstance(text, str) and text.startswith(_MARK)):
            return text
        return _MARK + json.dumps({**json.loads(text.removeprefix(_MARK)), "folded": layer})

    return {source: [named(text) for text in texts] for source, texts in op.scopes.items()}


def source_map(model: Any, folder: Path) -> SourceMap:
    """Read where each operation comes from off the program in memory; empty where there is none."""
    program = getattr(model, "_mil_program", None)
    functions = program.functions.values() if program is not None else ()
    return SourceMap(
        ops={
            op.outputs[0].name: _source_line(op.op_type, _mark_of_operation(op), folder)
            for function in functions
            for op in _operations(function)
            if op.outputs and op.op_type != "const"
        }
    )


def _operations(block: Any) -> Iterator[Any]:
    for op in block.operations:
        yield op
        for inner in op.blocks:
            yield from _operations(inner)


def _source_line(op_type: str, mark: Mapping[str, Any], folder: Path) -> SourceLine:
    file, line = mark.get("file"), mark.get("line")
    code = linecache.getline(file, line).strip()[:200] if file and line else ""
    return SourceLine(
        op_type=op_type,
        layer=mark.get("layer") or None,
        folded=mark.get("folded"),
        file=_relative(file, folder) if file else None,
        line=line,
        code=code or None,
        torch=_without_overload(mark["torch"]) if mark.get("torch") else None,
    )


# -------------------------------------------------------------------------------------------- what stood in the way


@dataclass(frozen=True)
class _Cause:
    """How coremltools or torch says it, and how we do."""

    pattern: str
    rule: str
    message: str
    advice: str
    error: type[Exception] = ConversionError


UNKNOWN = "write this line with other arguments or operations, or register a conversion in a converter script"
CAUSES = (
    _Cause(
        r"only 0-dimensional arrays|only length-1 arrays|module 'numpy' has no attribute|numpy\.core",
        "toolchain.numpy",
        "coremltools fails on this numpy version, whatever the model",
        "install numpy below 2 (docs/adr/0002)",
        ToolchainError,
    ),
    _Cause(
        r"No module named 'coremltools|libmilstoragepython|BlobWriter not loaded",
        "toolchain.coremltools",
        "the coremltools installation is incomplete",
        "reinstall coremltools 9.0 from a binary wheel",
        ToolchainError,
    ),
    _Cause(
        r"DefaultCPUAllocator: not enough memory|Cannot allocate memory",
        "toolchain.memory",
        "the conversion ran out of memory",
        "raise limits.memory in gate.yml",
        NoAnswer,
    ),
    _Cause(
        r"complex(64|128)?\b",
        "convert.complex",
        "complex numbers have no counterpart in Core ML",
        "carry the real and imaginary parts as two tensors",
    ),
    _Cause(
        r"got (\d+) input\(s\), expected \[(.+?)\]",
        "convert.dropped_defaults",
        "torch.export leaves default arguments out and coremltools 9.0 counts {1}, expecting {2}",
        "pass the arguments explicitly, or use the trace route",
    ),
    _Cause(
        r"'Builder' has no attribute '(\w+)'",
        "convert.unsupported_op",
        "coremltools 9.0 knows this operation but lacks its counterpart {1}",
        "write it with other operations",
    ),
    _Cause(
        r"rank <= 5",
        "convert.rank",
        "Core ML supports tensors of rank 5 at most",
        "merge dimensions, such as batch and heads, around this operation",
    ),
    _Cause(
        r"Only torch\.Tensor attr handled|dynamo-optimized function",
        "convert.control_flow",
        "control flow as an operation (torch.cond, while_loop) cannot be converted",
        "compute both branches and choose with torch.where, or ship two models",
    ),
    _Cause(
        r"must be (?:a )?rank (\d+)(?: tensor)?\. Got rank (\d+)",
        "convert.rank",
        "this operation takes tensors of rank {1} only and got rank {2}",
        "merge dimensions around it, or compute it slice by slice",
    ),
    _Cause(
        r"GuardOnDataDependent|[Dd]ata.dependent|Could not guard|unbacked",
        "convert.data_dependent",
        "the graph depends on the values of a tensor",
        "replace the condition or the size by torch operations (torch.where, a mask), or use the trace route if one branch is enough",
    ),
    _Cause(
        r"Constraints violated|inconsistent shape between",
        "convert.fixed_size",
        "a size that gate.yml declares flexible is fixed by the code",
        "take sizes from x.shape without int(), or declare the size fixed",
    ),
    _Cause(
        r"Adaptive pooling is only supported",
        "convert.flexible_pooling",
        "adaptive pooling needs a size that is known at conversion",
        "pool to (1, 1), or declare the input's size fixed",
    ),
    _Cause(
        r"Unable to map torch_upsample",
        "convert.flexible_resize",
        "this resize depends on another tensor's size",
        "use a constant scale factor, or declare the input's size fixed",
    ),
    _Cause(
        r"Incompatible dim",
        "convert.attention_heads",
        "attention with fewer key and value heads than query heads is not supported",
        "repeat the key and value heads (repeat_interleave) before the attention",
    ),
    _Cause(
        r"does not support scale factor",
        "convert.alpha",
        "the argument alpha is not supported by this route",
        "multiply explicitly: x + alpha * y",
    ),
    _Cause(
        r"Main block's input name",
        "convert.unchanged_input",
        "an output is an input that nothing changes: what does nothing at inference, such as dropout, is dropped",
        "leave this output out, since the app has that value; or check that the layer before it does what was meant",
    ),
    _Cause(
        r"'NoneType' object is not iterable",
        "convert.arguments",
        "coremltools 9.0 does not know this combination of arguments",
        "try the operation without output_padding or with explicit sizes",
    ),
    _Cause(
        r"^KeyError: '?\w+'?$",
        "convert.arguments",
        "coremltools 9.0 does not know this value of an argument",
        "try another mode of the operation, or write it out",
    ),
    _Cause(
        r"unsupported values in for dimension",
        "convert.slice",
        "coremltools 9.0 reads a negative index as an empty slice",
        "use an index counted from the start",
    ),
)
_MISSING = re.compile(r"convert function for op '([^']+)' not implemented|Unsupported fx node (\S+), kind (\S+)")


def _explained(problem: Exception, route: str, captured: Any, folder: Path) -> Exception:
    """Turn what coremltools or torch raised into one of our errors, with findings that name operations and lines."""
    if isinstance(problem, MemoryError):
        return NoAnswer(f"route {route}: the conversion ran out of memory; raise limits.memory in gate.yml")
    converting = captured is not None  # else it is the team's own code that raised
    text = f"{type(problem).__name__}: {problem}" if converting else str(problem)
    if missing := _MISSING.search(text):
        return _missing_operations(missing[1] or missing[3], route, captured, folder)
    cause, match = next(((c, m) for c in CAUSES if (m := re.search(c.pattern, text))), (None, None))
    if cause and match and cause.error is not ConversionError:
        return cause.error(f"route {route}: {cause.message}; {cause.advice} ({_first_line(problem)})")
    said = _first_line(problem)
    message = re.sub(r"\{(\d)\}", lambda m: match[int(m[1])], cause.message) if cause and match else said
    findings = [
        Finding(
            rule=cause.rule if cause else "convert.failed",
            severity=Severity.ERROR,
            message=f"route {route}: {message}"[:4_000],
            advice=cause.advice if cause else UNKNOWN if place.torch else "",
            op=place.torch,
            layer=place.layer,
            source=place.place,
            evidence=said if cause else None,
        )
        for place in _places(problem, folder)
    ]
    return ConversionError(findings[0].sentence, findings)


def _first_line(problem: BaseException) -> str:
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return f"{type(problem).__name__}: {lines[0][:400] if lines else ''}".rstrip(": ")


def _places(problem: Exception, folder: Path) -> list[SourceLine]:
    """The torch node that was being converted, the operations that a pass over the finished program refused, or the team's line."""
    node = _place_of_failure(folder)
    if node is not None:
        return [node]
    first: dict[str | None, SourceLine] = {}  # of each line of the team's
    for op in _refused(problem):
        line = _source_line(op.op_type, _mark_of_operation(op), folder)
        first.setdefault(line.place or line.torch, line)
    return list(first.values()) or [_place_of_raise(problem, folder)]


def _refused(problem: Exception) -> list[Operation]:
    """The operation in a pass's hands when it raised; with it all of too high a rank, of which coremltools names the first."""
    frames = (frame for frame, _ in traceback.walk_tb(problem.__traceback__))
    held = [op for frame in frames if isinstance(op := frame.f_locals.get("op"), Operation) and _mark_of_operation(op)]
    if not held or not _is_too_high(held[-1]) or held[0].enclosing_block is None:
        return held[-1:]
    return [held[-1], *(op for op in _operations(held[0].enclosing_block) if op is not held[-1] and _is_too_high(op))]


def _is_too_high(op: Operation) -> bool:
    return op.op_type != "const" and any(not isinstance(v, ListVar) and v.rank > MAX_RANK for v in op.outputs)


def _place_of_failure(folder: Path) -> SourceLine | None:
    """The torch node that was being converted."""
    node = _hooks.current
    if node is None:
        return None
    text = getattr(node, "gate_mark", None) or (node.meta or {}).get("stack_trace") or ""
    return _source_line(
        "", json.loads(text.removeprefix(_MARK)) if text.startswith(_MARK) else {"torch": node.kind}, folder
    )


def _place_of_raise(problem: BaseException, folder: Path) -> SourceLine:
    """The team's line in the traceback: tracing and exporting run their code."""
    frames, at = [], problem.__traceback__
    while at is not None:
        frames.append((at.tb_frame.f_code.co_filename, at.tb_lineno))
        at = at.tb_next
    frame = _users(frames[::-1], folder)
    if frame is None or not frame[0].startswith(f"{folder}/"):
        return SourceLine(op_type="")
    return _source_line("", {"file": frame[0], "line": frame[1]}, folder)


def _missing_operations(named: str, route: str, captured: Any, folder: Path) -> ConversionError:
    """List all unsupported operations at once, each with its first line; coremltools itself stops at the first."""
    places = dict(_scan(captured, folder))
    kind = _without_overload(sanitize_op_kind(named))
    if kind not in places:
        places = {kind: [_place_of_failure(folder) or SourceLine(op_type="", torch=kind)], **places}
    findings = [
        Finding(
            rule="convert.unsupported_op",
            severity=Severity.ERROR,
            message=f"route {route}: coremltools 9.0 cannot convert {kind}"
            + (f" ({len(at)} times)" if len(at) > 1 else ""),
            advice=ADVICE.get(kind, "write it with other operations, or register a conversion in a converter script"),
            op=kind,
            layer=at[0].layer,
            source=at[0].place,
        )
        for kind, at in places.items()
    ]
    return ConversionError(f"route {route}: coremltools 9.0 cannot convert {', '.join(places)}", findings)


ADVICE = {
    "pythonop": "a torch.autograd.Function cannot be traced; use the export route, or plain operations in evaluation mode",
    "_transformer_encoder_layer_fwd": "use the route trace-no-mha or export",
    "_native_multi_head_attention": "use the route trace-no-mha or export",
    "view_as_complex": "carry the real and imaginary parts as two tensors",
    "polar": "carry the real and imaginary parts as two tensors",
    "unfold": "use torch.nn.functional.unfold or a gather with constant indices",
    # what MIL has instead: rewrites that convert, checked by tests/test_rewrites.py
    "addcdiv": "write x + value * a / b",
    "addcmul": "write x + value * a * b",
    "acosh": "write torch.log(x + torch.sqrt(x * x - 1))",
    "asinh": "write torch.log(x + torch.sqrt(x * x + 1)) for the absolute value, with the sign put back",
    "cdist": "write torch.sqrt(torch.clamp((x * x).sum(-1)[..., None] + (y * y).sum(-1)[..., None, :] - 2 * x @ y.transpose(-1, -2), min=0))",
    "copysign": "write torch.abs(x) * torch.sign(y)",
    "dist": "write torch.sqrt(((x - y) ** 2).sum())",
    "erfc": "write 1 - torch.erf(x)",
    "fmax": "write torch.maximum(x, y)",
    "fmin": "write torch.minimum(x, y)",
    "fmod": "write x - torch.sign(x / y) * torch.floor(torch.abs(x / y)) * y",
    "hypot": "write torch.sqrt(x * x + y * y)",
    "isinf": "write torch.abs(x) > 3e38",
    "ldexp": "write x * torch.exp2(y)",
    "lerp": "write x + weight * (y - x)",
    "logaddexp2": "write torch.maximum(x, y) + torch.log2(1 + torch.exp2(-torch.abs(x - y)))",
    "masked_select": "multiply by the mask, or use torch.where: a size that depends on data runs on the CPU only",
    "nanmean": "write torch.where(ok, x, 0).sum(-1) / ok.sum(-1), with ok = x == x",
    "prod": "write torch.exp(torch.log(x).sum(-1)) for positive x, or multiply the slices",
    "signbit": "write x < 0",
    "trunc": "write torch.sign(x) * torch.floor(torch.abs(x))",
    "bilinear": "write torch.einsum('bi,oij,bj->bo', x, weight, y) + bias",
    "embedding_bag": "use torch.nn.Embedding and mean or sum over the bag",
    "gru": "use the trace route, which keeps recurrent layers",
    "lstm": "use the trace route, which keeps recurrent layers",
    "lstm_cell": "use torch.nn.LSTM, or the route export-default",
    "median": "use torch.topk or torch.sort and take the middle",
    "kthvalue": "use torch.topk and take the last",
    "movedim": "write x.permute(order), or x.transpose(a, b) for two dimensions",
    "tensor_split": "write x.split(sizes, dim), with the sizes as numbers",
    "view_as": "write x.view(y.shape)",
    "alias": "use the trace route, or leave out what changes nothing, such as detach()",
    "grid_sampler_2d": "use the trace route, which keeps grid_sample whole",
    "var_mean": "call mean and var one after the other",
    "std_mean": "call mean and std one after the other",
    "upsample_bicubic2d": "resize a constant beforehand, use bilinear, or the route export-default",
    "_upsample_bicubic2d_aa": "resize a constant beforehand, or use bilinear without antialias",
    "bitwise_xor": "for flags: use logical_xor; other bits have no counterpart",
    "linalg_inv": "compute it outside the model, or write out the formula for small matrices",
    "fft_fft2": "carry real and imaginary parts, and multiply by a constant matrix of cosines and sines",
    "adaptive_avg_pool3d": "use avg_pool3d with a constant window, or mean over the axes",
}


def _scan(captured: Any, folder: Path) -> Iterator[tuple[str, list[SourceLine]]]:
    found: dict[str, list[SourceLine]] = {}
    for kind, mark in _kinds(captured, folder):
        if _TORCH_OPS_REGISTRY.get_func(kind) is None:
            found.setdefault(_without_overload(kind), []).append(
                _source_line("", json.loads(mark.removeprefix(_MARK)), folder)
            )
    yield from found.items()


def _without_overload(kind: str) -> str:
    """`gru.input` is gru to everyone but the dispatcher."""
    return kind.split(".")[0]


def _kinds(captured: Any, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield each operation that coremltools will look up, with our mark of it."""
    if isinstance(captured, torch.jit.ScriptModule):
        graph, _, _ = _expand_and_optimize_ir(captured)
        for node in _nodes(graph):
            kind = sanitize_op_kind(node.kind())
            if not node.kind().startswith("prim::") or kind == "pythonop":
                yield kind, _mark_of_trace(node, folder)
    elif captured is not None:
        for node in captured.graph.nodes:
            if node.op == "call_function":
                yield _kind_of(node), node.meta["stack_trace"]


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.nodes():
        yield node
        for block in node.blocks():
            yield from _nodes(block)


def _kind_of(node: Any) -> str:
    """The name that coremltools looks an fx node up by (InternalTorchIRNode.from_exir_node)."""
    name = getattr(node.target, "name", None)
    if callable(name):
        return str(sanitize_op_kind(name()))
    return str(sanitize_op_kind(getattr(node.target, "__name__", str(node.target))))
