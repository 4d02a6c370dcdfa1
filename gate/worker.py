# SPDX-License-Identifier: Apache-2.0
"""Inside the sandbox: run the team's code and answer requests about it.

The only module that imports their code, ONNX twins and metric files. It stays alive through a run, since importing torch and
coremltools takes seconds. Nothing here is trusted by the other side: an answer is data that it checks.
"""

import contextlib
import difflib
import functools
import hashlib
import importlib.util
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from gate import heap, jail, protocol, trail
from gate.checkpoint import declared_weights
from gate.config import AnyOfDim, Input, Output, RangeDim, Source, State
from gate.errors import GateError, NoAnswer, SourceFault, ToolchainError, UsageError
from gate.files import is_lfs_pointer
from gate.importing import import_without
from gate.policy import Precision, Target
from gate.protocol import Answer, Failure, FaultKind, Port, Request, Startup, Verb
from gate.report import Finding

if TYPE_CHECKING:
    from torch import nn

    from gate.convert import InputPlan, TorchProgram

Array = np.ndarray[Any, Any]
MAX_ITEMS = 1_000_000
LOOK_FOR_SKLEARN = ("transformers", "torchao", "xgboost")  # coremltools imports them where they are installed
LABEL_EXTRAS = ("id", "slice", "cluster")
FAULTS = (  # the first that fits
    (UsageError, FaultKind.USAGE),
    (ToolchainError, FaultKind.TOOLCHAIN),  # a NoAnswer too
    (NoAnswer, FaultKind.NO_ANSWER),
    (SourceFault, FaultKind.SOURCE),
)


def main(startup: Path, requests: int, answers: int, lifeline: int) -> None:
    """Answer until the pipe closes. The cell has been entered before numpy started threads of its own (`sandbox.ENTRY`)."""
    jail.end_with(lifeline)
    worker = Worker(Startup.model_validate_json(startup.read_bytes()))
    os.write(answers, b"\n")
    serve(worker, requests, answers)


def serve(worker: "Worker", requests: int, answers: int) -> None:
    """Answer each request that the pipe announces."""
    ours = os.getpid()
    asked, answered = Path(worker.startup.requests), Path(worker.startup.answers)
    with os.fdopen(requests) as lines:
        for line in lines:
            request, arrays = protocol.read_request(asked / f"request-{int(line)}.json")
            answer, arrays = respond(worker, request, arrays)
            if os.getpid() != ours:
                os._exit(0)  # their code forked and both came back
            protocol.write_message(answered / f"answer-{request.number}.json", answer, arrays)
            os.write(answers, b"\n")
            if request.verb is Verb.CONVERT:
                heap.give_back()  # coremltools' programs keep every weight in cycles


def respond(worker: "Worker", request: Request, arrays: dict[str, Array]) -> tuple[Answer, dict[str, Array]]:
    """Turn a request into an answer, whatever their code does short of ending the process."""
    given: dict[str, Array] = {}
    try:
        result = VERBS[request.verb](worker, **protocol.decode(request.arguments, arrays))
        return Answer(number=request.number, result=_encoded(result, given, request.verb)), given
    except BaseException as problem:
        traceback.print_exc()  # the log keeps what the message leaves out
        return Answer(number=request.number, failure=_failure(problem)), {}


def _encoded(result: Any, given: dict[str, Array], verb: Verb) -> Any:
    try:
        return protocol.encode(result, given)
    except TypeError as problem:
        raise SourceFault(f"{verb}: {problem}") from None


def _failure(problem: BaseException) -> Failure:
    if isinstance(problem, MemoryError):
        return Failure(kind=FaultKind.NO_ANSWER, message="not enough memory; raise limits.memory in gate.yml")
    kind = next((kind for error, kind in FAULTS if isinstance(problem, error)), FaultKind.OURS)
    message = str(problem) if isinstance(problem, GateError) else f"{type(problem).__name__}: {problem}"
    return Failure(kind=kind, message=message[:20_000], findings=getattr(problem, "findings", ()))


# ------------------------------------------------------------------------------------------------------ their code


@contextlib.contextmanager
def calling(what: str, folder: Path) -> Iterator[None]:
    """Turn whatever their code raises into a SourceFault that names it and their line."""
    try:
        yield
    except (GateError, MemoryError):
        raise
    except BaseException as problem:
        if "not enough memory" in str(problem) or "Cannot allocate memory" in str(problem):
            raise NoAnswer(f"{what}: not enough memory; raise limits.memory in gate.yml") from problem
        raise SourceFault(f"{what}: {_last_line(problem)}{_their_line(problem, folder)}") from problem


def _last_line(problem: BaseException) -> str:
    if isinstance(problem, SystemExit):
        return f"called sys.exit({problem.code!r}); it must return instead"
    text = " ".join(str(problem).split())[:600]
    hint = (
        " (the checkout is read-only for the model's code; write to a temporary folder)"
        if "Read-only file" in text
        else ""
    )
    return f"{type(problem).__name__}: {text}{hint}" if text else type(problem).__name__


def _their_line(problem: BaseException, folder: Path) -> str:
    frames = [f for f in traceback.extract_tb(problem.__traceback__) if f.filename.startswith(f"{folder}/")]
    if not frames:
        return ""
    return f" ({Path(frames[-1].filename).relative_to(folder)}:{frames[-1].lineno})"


def existing(folder: Path, path: str, what: str) -> Path:
    """Return the file, or say that it is missing or was not fetched."""
    found = folder / path
    if not found.is_file():
        raise UsageError(f"{what}: {path}: no such file")
    if is_lfs_pointer(found):
        raise UsageError(
            f"{what}: {path} is a Git LFS pointer, not the file itself; fetch it with git lfs pull (or lfs: true)"
        )
    return found


def load_function(startup: Startup, location: str, what: str) -> Callable[..., Any]:
    """Import `path.py:function` by its file."""
    path, name = location.split(":")
    module = load_module(startup, path, what)
    function = getattr(module, name, None)
    if not callable(function):
        close = difflib.get_close_matches(name, [n for n in vars(module) if callable(getattr(module, n))], n=1)
        hint = f' (did you mean "{close[0]}"?)' if close else ""
        raise UsageError(f"{what}: {path} has no function {name}{hint}")
    return function  # type: ignore[no-any-return]


def load_module(startup: Startup, path: str, what: str) -> ModuleType:
    """Import a file of theirs, once, with its folder and the python path of gate.yml in front of sys.path."""
    file = existing(Path(startup.folder), path, what).resolve()
    return _import(file, tuple(startup.pythonpath), Path(startup.folder), what)


@functools.cache
def _import(file: Path, pythonpath: tuple[str, ...], folder: Path, what: str) -> ModuleType:
    for entry in reversed((str(file.parent), *pythonpath)):
        if entry not in sys.path:
            sys.path.insert(0, entry)
    name = file.stem if file.stem not in sys.modules else f"_gate_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with calling(f"{what}: importing {file.name}", folder):
        spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------------------------------------------- torch source


def load_torch_program(startup: Startup) -> "TorchProgram":
    """Build the module of the source and settle names, dtypes and examples of its inputs and outputs."""
    from gate.convert import TorchProgram

    specs = tuple(Input.model_validate(item) for item in startup.inputs)
    outputs = tuple(Output.model_validate(item) for item in startup.outputs)
    states = tuple(State.model_validate(item) for item in startup.states)
    _check_names([*specs, *outputs])
    module, example = _in_float32(_load_module_and_example(startup))
    plans, by_name = _plan_inputs(module, example, specs)
    named = _first_run(startup, module, plans, by_name)
    return TorchProgram(
        module=module,
        inputs=plans,
        outputs=_name_outputs(outputs, [name for name, _ in named]),
        output_kinds=tuple(
            "f" if t.is_floating_point() else "b" if t.dtype == _torch().bool else "i" for _, t in named
        ),
        states=states,
        folder=Path(startup.folder),
        classes={o.name: _labels(startup, o.classes) for o in outputs if o.classes},
        by_name=by_name,
    )


def _check_names(ports: Sequence[Input | Output]) -> None:
    from gate.convert import core_ml_name

    for port in ports:
        if (name := core_ml_name(port.name)) != port.name:
            raise UsageError(f"{port.name!r} cannot be a name in Core ML, which would make it {name!r}; choose another")


@functools.cache
def _torch() -> Any:
    """Import torch and the converter late: an ONNX twin needs neither."""
    import torch

    return torch


def _load_module_and_example(startup: Startup) -> tuple["nn.Module", Any]:
    source = Source.model_validate(startup.source)
    folder = Path(startup.folder)
    example = None
    if source.example:
        make = load_function(startup, source.example, "source.example")
        _torch().manual_seed(0)
        with calling(f"source.example: {source.example}", folder):
            example = make()
    module, own_example = LOADERS[source.kind](startup, source)
    return module, example if source.example else own_example


def _from_factory(startup: Startup, source: Source) -> tuple[Any, Any]:
    build = load_function(startup, source.location, "source.factory")
    _torch().manual_seed(0)
    with calling(f"source.factory: {source.location}", Path(startup.folder)):
        module = build(**source.args)
    if not isinstance(module, _torch().nn.Module):
        raise SourceFault(
            f"source.factory: {source.location} returned {type(module).__name__}, expected a torch.nn.Module"
        )
    return module, None


def _from_torchscript(startup: Startup, source: Source) -> tuple[Any, Any]:
    path = existing(Path(startup.folder), source.location, "source.torchscript")
    with calling(f"source.torchscript: {source.location}", Path(startup.folder)):
        return _torch().jit.load(path, map_location="cpu"), None


def _from_exported_program(startup: Startup, source: Source) -> tuple[Any, Any]:
    path = existing(Path(startup.folder), source.location, "source.exported_program")
    with calling(f"source.exported_program: {source.location}", Path(startup.folder)):
        program = _torch().export.load(path)
        positional, named = program.example_inputs or ((), {})
        return program.module(), named if named and not positional else positional


LOADERS: dict[str, Callable[[Startup, Source], tuple[Any, Any]]] = {
    "factory": _from_factory,
    "torchscript": _from_torchscript,
    "exported_program": _from_exported_program,
}


def _in_float32(loaded: tuple[Any, Any]) -> tuple[Any, Any]:
    """The reference is float32; half-precision weights are widened, which loses nothing."""
    module, example = loaded
    halves = (_torch().float16, _torch().bfloat16)
    if any(tensor.dtype in halves for tensor in (*module.parameters(), *module.buffers())):
        module = module.float()
    if not isinstance(module, _torch().fx.GraphModule):  # an exported program has no modes
        module.eval()
    for parameter in module.parameters():  # a script module has no requires_grad_ of its own
        parameter.requires_grad_(False)
    return module, example


def _plan_inputs(module: Any, example: Any, specs: Sequence[Input]) -> tuple[tuple["InputPlan", ...], bool]:
    if example is None:
        return tuple(_plan_from_spec(spec) for spec in _required(specs)), False
    tensors = _named_example(module, example)
    if specs and len(specs) != len(tensors):
        raise UsageError(f"inputs: gate.yml has {len(specs)}, the example has {len(tensors)} ({', '.join(tensors)})")
    by_name = isinstance(example, Mapping)
    if by_name and specs and {spec.name for spec in specs} != set(tensors):
        raise UsageError(f"inputs: gate.yml names {[s.name for s in specs]}, the example names {list(tensors)}")
    given = {spec.name: spec for spec in specs} if by_name else dict(zip(tensors, specs, strict=False))
    return tuple(_plan_from_example(given.get(name), name, tensor) for name, tensor in tensors.items()), by_name


def _required(specs: Sequence[Input]) -> Sequence[Input]:
    if not specs or any(spec.image is None and spec.shape is None for spec in specs):
        raise UsageError("source: give example: path.py:function, or inputs: with a shape for each")
    return specs


def _named_example(module: Any, example: Any) -> dict[str, Any]:
    """Name the tensors of an example: by its keys, else by the parameters of `forward`."""
    values = (
        example if isinstance(example, Mapping) else list(example) if isinstance(example, tuple | list) else [example]
    )
    if not isinstance(values, Mapping):
        values = dict(zip(_parameter_names(module, len(values)), values, strict=True))
    for name, value in values.items():
        if not isinstance(value, _torch().Tensor):
            raise SourceFault(f"source.example: input {name} is {type(value).__name__}, expected a tensor")
    return dict(values)


def _parameter_names(module: Any, count: int) -> list[str]:
    with contextlib.suppress(TypeError, ValueError):
        parameters = inspect.signature(module.forward).parameters.values()
        names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if len(names) >= count:
            return names[:count]
    return [f"input_{index}" for index in range(count)] if count > 1 else ["input"]


def _plan_from_example(spec: Input | None, name: str, tensor: Any) -> "InputPlan":
    from gate.convert import InputPlan, core_ml_name, pixels_of

    spec = spec or Input(name=core_ml_name(name))
    if spec.image is not None:
        expected = (1, spec.channels, *spec.image)
        if tuple(tensor.shape) != expected:
            raise UsageError(f"inputs.{spec.name}: the example has shape {tuple(tensor.shape)}, expected {expected}")
        return InputPlan(spec, name, tensor.dtype, pixels_of(tensor, spec), np.dtype(np.uint8))
    _check_shape(spec, tuple(tensor.shape))
    dtype = _interface_dtype(spec, tensor)
    return InputPlan(spec, name, tensor.dtype, _as_interface(spec.name, tensor.numpy(), dtype), dtype)


def _interface_dtype(spec: Input, tensor: Any) -> np.dtype[Any]:
    if tensor.is_complex():
        raise SourceFault(f"source.example: input {spec.name} is complex; Core ML takes real numbers")
    return np.dtype(spec.dtype or ("float32" if tensor.is_floating_point() else "int32"))


def _as_interface(name: str, value: Array, dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "i" and value.size and (value.max() > np.iinfo(dtype).max or value.min() < np.iinfo(dtype).min):
        raise SourceFault(f"source.example: input {name} has values beyond int32, the widest integer of Core ML")
    return value.astype(dtype)


def _check_shape(spec: Input, found: tuple[int, ...]) -> None:
    if spec.shape is not None and (
        len(found) != len(spec.shape)
        or not all(_allows(dim, size) for dim, size in zip(spec.shape, found, strict=True))
    ):
        wanted = ", ".join(_shown(dim) for dim in spec.shape)
        raise UsageError(f"inputs.{spec.name}: the example has shape {list(found)}, gate.yml says [{wanted}]")


def _allows(dim: Any, size: int) -> bool:
    if isinstance(dim, RangeDim):
        return dim.range[0] <= size and (dim.range[1] < 0 or size <= dim.range[1])
    return size in dim.any_of if isinstance(dim, AnyOfDim) else size == dim


def _shown(dim: Any) -> str:
    if isinstance(dim, RangeDim):
        return f"{dim.range[0]} to {dim.range[1] if dim.range[1] > 0 else 'any'}"
    return " or ".join(map(str, dim.any_of)) if isinstance(dim, AnyOfDim) else str(dim)


def _plan_from_spec(spec: Input) -> "InputPlan":
    """Make up an example: seeded, within `values`, integers 0 or 1 unless said otherwise."""
    from gate.convert import InputPlan

    random = np.random.default_rng(0)
    if spec.image is not None:
        shape = spec.image if spec.channels == 1 else (*spec.image, 3)
        return InputPlan(
            spec, spec.name, _torch().float32, random.integers(0, 256, shape, dtype=np.uint8), np.dtype(np.uint8)
        )
    sizes = tuple(_default_size(dim) for dim in spec.shape or ())
    if spec.dtype == "int32":
        low, high = spec.values or (0, 1)
        return InputPlan(
            spec,
            spec.name,
            _torch().int64,
            random.integers(int(low), int(high) + 1, sizes, dtype=np.int32),
            np.dtype(np.int32),
        )
    value = random.uniform(*spec.values, sizes) if spec.values else random.standard_normal(sizes)
    dtype = np.dtype(spec.dtype or "float32")
    return InputPlan(spec, spec.name, _torch().float32, value.astype(dtype), dtype)


def _default_size(dim: Any) -> int:
    if isinstance(dim, RangeDim):
        return dim.default or dim.range[0]
    return int(dim.any_of[0] if isinstance(dim, AnyOfDim) else dim)


def _first_run(startup: Startup, module: Any, plans: Sequence["InputPlan"], by_name: bool) -> list[tuple[str, Any]]:
    """Run the example, to learn what the module returns and whether it runs at all."""
    from gate.convert import buffers_restored, flatten

    native = [plan.to_native(plan.feed(plan.example)) for plan in plans]
    with calling("source: running the model on its example", Path(startup.folder)), buffers_restored(module):
        result = module(**{p.argument: v for p, v in zip(plans, native, strict=True)}) if by_name else module(*native)
        named = [(name, tensor.clone()) for name, tensor in flatten(result)]
    if not named:
        raise SourceFault("source: the model returned no tensor on its example")
    if any(tensor.is_complex() for _, tensor in named):
        raise SourceFault("source: the model returns complex numbers; Core ML returns real ones")
    return named


def _name_outputs(specs: tuple[Output, ...], own: list[str]) -> tuple[Output, ...]:
    from gate.convert import core_ml_name

    if specs and len(specs) != len(own):
        raise UsageError(f"outputs: gate.yml names {len(specs)}, the model returns {len(own)} tensors")
    if specs:
        return specs
    default = [f"output_{index}" if len(own) > 1 else "output" for index in range(len(own))]
    names = [core_ml_name(name) if name else fallback for name, fallback in zip(own, default, strict=True)]
    return tuple(Output(name=name) for name in (names if len(set(names)) == len(names) else default))


def _labels(startup: Startup, path: str) -> list[str]:
    lines = existing(Path(startup.folder), path, "outputs.classes").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


# ----------------------------------------------------------------------------------------------------------- verbs


class Worker:
    """What is kept between requests."""

    def __init__(self, startup: Startup) -> None:
        self.startup = startup
        self.folder = Path(startup.folder)
        self._packages = 0

    @functools.cached_property
    def program(self) -> "TorchProgram":
        """The torch source, loaded once."""
        if not any(map(importlib.util.find_spec, LOOK_FOR_SKLEARN)):
            import_without("coremltools", ("sklearn",))  # it takes a second, and no torch model needs it
        self._prepare_tools()
        return load_torch_program(self.startup)

    @functools.cached_property
    def converted(self) -> Any:
        """What the converter script returns."""
        self._prepare_tools()
        import coremltools as ct

        source = Source.model_validate(self.startup.source)
        convert = load_function(self.startup, source.location, "source.converter")
        with calling(f"source.converter: {source.location}", self.folder):
            model = convert(**source.args)
        if not isinstance(model, ct.models.MLModel):
            raise SourceFault(
                f"source.converter: {source.location} returned {type(model).__name__}, expected a coremltools MLModel"
            )
        if model.get_spec().WhichOneof("Type") != "mlProgram":
            raise SourceFault(
                f"source.converter: {source.location} made a {model.get_spec().WhichOneof('Type')}, expected an ML "
                'program; pass convert_to="mlprogram"'
            )
        return model

    def _prepare_tools(self) -> None:
        from gate import convert

        convert.install_hooks(self.folder)

    def save(self, model: Any) -> str:
        """Save a package into the hand-over and return its name."""
        self._packages += 1
        name = f"package-{self._packages}.mlpackage"
        model.save(str(Path(self.startup.answers) / name))
        return name


def describe(worker: Worker) -> dict[str, Any]:
    program = worker.program
    tensors = {t.data_ptr(): t for t in (*program.module.parameters(), *program.module.buffers())}.values()
    with calling("source: running the model on its example", worker.folder):
        results = program.run({plan.name: plan.example for plan in program.inputs})
    inputs = [Port(name=p.name, shape=p.example.shape, dtype=str(p.example.dtype)) for p in program.inputs]
    outputs = [
        Port(name=o.name, shape=tuple(t.shape), dtype=str(_as_core_ml(t).dtype))
        for o, t in zip(program.outputs, results, strict=True)
    ]
    return {
        "inputs": [port.model_dump() for port in inputs],
        "outputs": [port.model_dump() for port in outputs],
        "parameters": sum(t.numel() for t in tensors),
        "parameter_bytes": sum(t.numel() * t.element_size() for t in tensors),
        "nodes": program.node_count(),
        "compressed": declared_weights(program.module),
        "digest": _digest(worker.startup, program.module),
    }


def _digest(startup: Startup, module: "nn.Module") -> str:
    source = Source.model_validate(startup.source)
    digest = hashlib.sha256(
        json.dumps([source.kind, source.location, source.args], sort_keys=True, default=str).encode()
    )
    digest.update((Path(startup.folder) / source.location.split(":")[0]).read_bytes())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().flatten().view(_torch().uint8).numpy().tobytes())
    return digest.hexdigest()


def example(worker: Worker) -> dict[str, Array]:
    return {plan.name: plan.example for plan in worker.program.inputs}


def reference(worker: Worker, items: dict[str, list[Array]]) -> dict[str, list[Array]]:
    program = worker.program
    names = [output.name for output in program.outputs]
    answers = []
    for index, item in enumerate(protocol.rows(items)):
        with calling(f"source: running the model on item {index}", worker.folder):
            answers.append(dict(zip(names, map(_as_core_ml, program.run(item)), strict=True)))
    return protocol.columns(answers)


def steps(worker: Worker, item: dict[str, Array]) -> dict[str, Any]:
    from gate.steps import watch

    program = worker.program
    with calling("source: watching the model run", worker.folder):
        return trail.encode(watch(lambda: program.run(item), worker.folder))


def _as_core_ml(tensor: Any) -> Array:
    """As a package returns it: no double precision, no 64-bit integers where 32 bits hold the values, no booleans."""
    array: Array = tensor.detach().cpu().numpy() if tensor.dtype != _torch().bfloat16 else tensor.float().numpy()
    if array.dtype.kind in "fb":
        return array.astype(np.float32)
    if array.dtype == np.int64 and not (array.size and np.abs(array).max() > np.iinfo(np.int32).max):
        return array.astype(np.int32)
    return array.copy()


def fingerprint(worker: Worker, route: str) -> str | None:
    from gate import convert as conversion

    return conversion.fingerprint(worker.program, route)


def convert(
    worker: Worker, route: str | None, precision: str, target: str, keep_float32: Sequence[str]
) -> dict[str, Any]:
    from gate import convert as conversion

    if worker.startup.source.get("converter"):
        model, findings = worker.converted, tuple[Finding, ...]()
        origins = conversion.source_map(model, worker.folder)
    else:
        assert route is not None
        model, origins, findings = conversion.convert(
            worker.program, route, Precision(precision), Target(target), keep_float32
        )
    return {
        "package": worker.save(model),
        "source_map": origins.model_dump(),
        "findings": [finding.model_dump(mode="json") for finding in findings],
    }


def items(worker: Worker) -> dict[str, Any]:
    location = worker.startup.dataset
    assert location is not None
    produce = load_function(worker.startup, location, "dataset")
    taken: list[tuple[dict[str, Array], Any, Mapping[str, Any]]] = []
    with calling(f"dataset: {location}", worker.folder):
        for item in produce():
            taken.append(_checked_item(item, len(taken), taken[0][0] if taken else None, location))
    extras = {key: [str(extra[key]) for *_, extra in taken] for key in LABEL_EXTRAS if taken and key in taken[0][2]}
    return {
        "inputs": protocol.columns([inputs for inputs, _, _ in taken]),
        "labels": [label for _, label, _ in taken],
        "extras": extras,
    }


def _checked_item(
    item: Any, index: int, first: dict[str, Array] | None, location: str
) -> tuple[dict[str, Array], Any, Mapping[str, Any]]:
    where = f"dataset: {location}: item {index}"
    if index >= MAX_ITEMS:
        raise SourceFault(f"{where}: more than {MAX_ITEMS} items")
    if not isinstance(item, tuple) or len(item) not in (2, 3) or not isinstance(item[0], Mapping):
        raise SourceFault(f"{where}: found {type(item).__name__}, expected ({{name: array}}, label)")
    inputs = {str(name): _plain(value) for name, value in item[0].items()}
    wrong = [name for name, value in inputs.items() if not isinstance(value, np.ndarray)]
    if wrong:
        raise SourceFault(f"{where}: input {wrong[0]} is {type(inputs[wrong[0]]).__name__}, expected an array")
    if first is not None and set(first) != set(inputs):
        raise SourceFault(f"{where}: has inputs {list(inputs)}, the first item has {list(first)}")
    return inputs, _plain(item[1]), item[2] if len(item) == 3 else {}


def _plain(value: Any) -> Any:
    """A tensor as an array; anything else as it is."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def metric(
    worker: Worker, outputs: dict[str, list[Array]], labels: list[Any], parameters: dict[str, Any]
) -> dict[str, Any]:
    path, _, function = _metric_file(worker).partition(":")
    module = load_module(worker.startup, path, "metric")
    per_item = load_function(worker.startup, f"{path}:{function or 'per_item'}", "metric")
    several = callable(getattr(module, "aggregate", None))
    with calling(f"metric: {path}", worker.folder):
        values = [
            _numbers(per_item(row, label, **parameters), f"metric: {path}: item {index}", several)
            for index, (row, label) in enumerate(zip(protocol.rows(outputs), labels, strict=True))
        ]
    return {
        "per_item": values,
        "aggregates": several,
        "higher_is_better": getattr(module, "higher_is_better", None),
        "unit": getattr(module, "unit", None),
    }


def aggregate(worker: Worker, values: list[Any], weights: Array) -> list[float]:
    """Return the team's figure of all items, each as often as a row of the weights says: (rows, items) of whole numbers."""
    path = _metric_file(worker).partition(":")[0]
    function = load_function(worker.startup, f"{path}:aggregate", "metric")
    items = [tuple(value) if isinstance(value, list | tuple) else value for value in values]
    with calling(f"metric: {path}", worker.folder):
        return [
            _number(function([items[i] for i in np.repeat(np.arange(len(items)), row)]), f"metric: {path}: aggregate")
            for row in weights
        ]


def _metric_file(worker: Worker) -> str:
    assert worker.startup.metric is not None
    return worker.startup.metric


def _numbers(value: Any, where: str, several: bool) -> float | list[float]:
    """Read what an item is worth: a number, or several where the file's aggregate knows what to make of them."""
    value = _plain(value)
    if several and (isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim == 1)):
        return [_number(part, where) for part in value]
    return _number(value, where)


def _number(value: Any, where: str) -> float:
    value = _plain(value)
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(()).item()
    if not isinstance(value, bool | int | float | np.number | np.bool_) or value != value:
        raise SourceFault(f"{where}: found {value!r:.80}, expected a number")
    return float(value)


def onnx(worker: Worker, path: str, items: dict[str, list[Array]]) -> dict[str, list[Array]]:
    try:
        import onnxruntime
    except ImportError:
        raise ToolchainError("reference.onnx: onnxruntime is not installed; install coreml-gate[onnx]") from None
    file = existing(worker.folder, path, "reference.onnx")
    with calling(f"reference.onnx: {path}", worker.folder):
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        names = [port.name for port in session.get_outputs()]
        rows = [session.run(None, _onnx_feed(session, row)) for row in protocol.rows(items)]
    return protocol.columns([dict(zip(names, row, strict=True)) for row in rows])


ONNX_DTYPES = {"tensor(float)": "f4", "tensor(float16)": "f2", "tensor(double)": "f8", "tensor(int64)": "i8", "tensor(int32)": "i4", "tensor(bool)": "?", "tensor(uint8)": "u1"}  # fmt: skip


def _onnx_feed(session: Any, item: Mapping[str, Array]) -> dict[str, Array]:
    """Match by name; by position where no name is known and the counts agree."""
    ports = session.get_inputs()
    names = [port.name for port in ports]
    if set(names) != set(item):
        if len(names) != len(item) or set(names) & set(item):
            raise UsageError(f"reference.onnx: the twin takes {names}, the package takes {list(item)}")
        item = dict(zip(names, item.values(), strict=True))
    return {port.name: item[port.name].astype(ONNX_DTYPES.get(port.type, "f4")) for port in ports}


VERBS: dict[Verb, Callable[..., Any]] = {
    Verb.DESCRIBE: describe,
    Verb.EXAMPLE: example,
    Verb.REFERENCE: reference,
    Verb.FINGERPRINT: fingerprint,
    Verb.STEPS: steps,
    Verb.CONVERT: convert,
    Verb.ITEMS: items,
    Verb.METRIC: metric,
    Verb.AGGREGATE: aggregate,
    Verb.ONNX: onnx,
}
