# SPDX-License-Identifier: Apache-2.0
"""What does the team's source say? Our side of the worker: ask it, check what comes back, hand on plain data.

Nothing of theirs is imported here. What only their code can say (reference outputs, items, metric values, source map) is
data that was reported; what a package says is read off the package.
"""

import contextlib
import hashlib
import json
import math
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from gate import protocol, trail
from gate.config import Config, ModelEntry
from gate.errors import DamagedPackage, GateError, NoAnswer, SourceFault, ToolchainError, UsageError
from gate.files import is_lfs_pointer, sha256_file
from gate.kept import Refused, Shelf
from gate.metrics import is_own, own_parameters
from gate.mil import MilError, Unsupported, load_program
from gate.mil.program import default_function, described
from gate.policy import Precision, Target
from gate.protocol import ConversionAnswer, Description, FaultKind, MetricAnswer, Port, SourceMap, Startup, Verb
from gate.remote import Distant
from gate.report import Finding, Severity
from gate.sandbox import Child, Kind, Limits, hidden_paths, kind_here, neutralise

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
Item = Mapping[str, Array]
R = TypeVar("R", bound=BaseModel)

ROUTES = ("trace", "export", "export-default", "trace-no-mha")
SCRIPT_ROUTES = ("trace", "trace-no-mha")  # a TorchScript file cannot be exported
MOST_WEIGHTS = 1.1  # of the source's parameters; an unrolled recurrent net has many times that (design, Decisions)
MOST_OPERATIONS = 3.0  # of the source's nodes
MODEL_FILE = "Data/com.apple.CoreML/model.mlmodel"


@dataclass(frozen=True)
class Converted:
    """A package on disk and how it came to be. `route` is None for a converter script and for a finished package."""

    package: Path
    source_map: SourceMap
    precision: Precision
    route: str | None = None
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Items:
    """Labelled items of a data set that is code. `ids`, `slices` and `clusters` are empty where it gives none."""

    inputs: tuple[Arrays, ...]
    labels: tuple[Any, ...]
    ids: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()


class ConversionFailed(SourceFault):
    """No package by this route, or by any; `findings` name every operation that stood in the way."""

    def __init__(self, message: str, findings: tuple[Finding, ...] = ()) -> None:
        super().__init__(message)
        self.findings = findings


ERRORS: dict[FaultKind, type[GateError]] = {
    FaultKind.SOURCE: SourceFault,
    FaultKind.USAGE: UsageError,
    FaultKind.TOOLCHAIN: ToolchainError,
    FaultKind.NO_ANSWER: NoAnswer,
    FaultKind.OURS: GateError,
}


@dataclass
class Source:
    """One model entry's source. A worker stands behind it and starts when it is first needed; a finished package needs none."""

    entry: ModelEntry
    config: Config
    workdir: Path
    log: Path  # what their code and the toolchain printed; exists once a worker has started
    limits: Limits
    kind: Kind
    pythonpath: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    exchange: Path | None = None  # shared with the container in which the worker lives, where it has one of its own
    shelf: Shelf | None = None  # kept conversions
    unsupported: list[Finding] = field(default_factory=list)
    _child: Child | Distant | None = None
    _private: Path | None = None
    _requests: int = 0
    _packages: int = 0
    _captured: dict[str, str] = field(
        default_factory=dict
    )  # route -> digest of what it captures; empty where it cannot be told

    @property
    def sandbox(self) -> Kind:
        """What kept their code apart; `none` when none of it ran."""
        return self.kind if self._requests else Kind.NONE

    @property
    def is_torch(self) -> bool:
        """Does it give a torch program, which can be converted by several routes and run in float32?"""
        return self.entry.source.kind in ("factory", "torchscript", "exported_program")

    @cached_property
    def finished(self) -> Converted:
        """The package of a converter script or a finished one, as it is."""
        if self.entry.source.kind == "coreml":
            package = check_model(
                self.config.folder / self.entry.source.location, f"source.coreml: {self.entry.source.location}"
            )
            return Converted(package, SourceMap(ops={}), Precision.AS_IS)
        return self._convert(None, Precision.AS_IS, (), self.config.target(self.entry))

    @cached_property
    def _description(self) -> Description:
        if self.is_torch:
            return _validated(Description, self._ask(Verb.DESCRIBE))
        return describe_package(self.finished.package)

    def describe(self) -> Description:
        """Inputs, outputs, size and digest."""
        return self._description

    @cached_property
    def _example(self) -> Arrays:
        if self.is_torch:
            return _arrays(self._ask(Verb.EXAMPLE), "example inputs")
        return made_up_inputs(self.describe(), self.entry)

    def example_inputs(self) -> Arrays:
        """One input as an app would hand it over: arrays by name; images as (h, w, 3) or (h, w) uint8 in RGB order."""
        return dict(self._example)

    def reference(self, inputs: Item) -> Arrays:
        """Run the source in float32 on one input."""
        return self.references([inputs])[0]

    def references(self, items: Sequence[Item]) -> list[Arrays]:
        """Run the source in float32 on each item, in order."""
        if not self.is_torch:
            raise NoAnswer(
                f"{self.entry.name}: a {self.entry.source.kind} source has no float32 program of its own to compare with"
            )
        if not items:
            return []
        rows = _rows(self._ask(Verb.REFERENCE, items=protocol.columns(items)), "reference outputs")
        return _expect_count(rows, len(items), "reference outputs")

    def steps(self, item: Item) -> trail.Trail:
        """Watch the source run in float32 on one input: every op, and what it computes."""
        raw = self._ask(Verb.STEPS, item=dict(item))
        try:
            return trail.decode(raw)
        except (KeyError, TypeError, ValueError):
            raise SourceFault("steps: the worker's answer is not well-formed") from None

    def convert(
        self, route: str | None, precision: Precision, *, keep_float32: Sequence[str] = (), target: Target | None = None
    ) -> Converted:
        """Convert by one route. Raise ConversionFailed with findings; a converter's or finished package comes as it is."""
        if not self.is_torch:
            return self.finished
        kept = (*self.entry.keep_float32, *keep_float32)
        return self._convert(route, precision, kept, target or self.config.target(self.entry))

    def _convert(self, route: str | None, precision: Precision, kept: Sequence[str], target: Target) -> Converted:
        asked = {"route": route, "precision": precision.value, "target": target.value, "keep_float32": list(kept)}
        self._packages += 1
        package = self.workdir / "converted" / f"{self._packages}-{route or 'converter'}-{precision}.mlpackage"
        shutil.rmtree(package, ignore_errors=True)
        name, told = self._name(asked), tuple[Finding, ...]()
        try:
            answer = self.shelf.take(name, package) if self.shelf and name else None
        except Refused as why:
            answer, told = (
                None,
                (
                    _note(
                        "convert.refused",
                        f"route {route}, {precision}: a kept conversion was refused and made again: {why}",
                    ),
                ),
            )
        if answer is None:
            answer = self._converted(asked, package)
            if self.shelf and name:
                self.shelf.put(name, package, answer)
        return Converted(package, answer.source_map, precision, route, (*answer.findings, *told))

    def _name(self, asked: Mapping[str, Any]) -> str | None:
        """Name what is asked for among the kept conversions; None where it cannot be kept."""
        route = asked["route"]
        if self.shelf is None or route is None or self.kind is Kind.PROCESS:  # their code could read the key
            return None
        if route not in self._captured:
            told = self._ask(Verb.FINGERPRINT, route=route)
            self._captured[route] = told if isinstance(told, str) else ""
        return self.shelf.name(self._captured[route], asked) if self._captured[route] else None

    def _converted(self, asked: Mapping[str, Any], package: Path) -> ConversionAnswer:
        answer = _validated(ConversionAnswer, self._ask(Verb.CONVERT, **asked))
        handed = self._folder("answers") / answer.package
        protocol.receive_package(handed, package)
        shutil.rmtree(handed, ignore_errors=True)
        check_package(package, "the converted package")
        return answer

    def items(self) -> Items:
        """The items of a data set that is `path.py:function`."""
        raw = self._ask(Verb.ITEMS)
        try:
            inputs = _rows(raw["inputs"], "dataset")
            labels = _expect_count(list(raw["labels"]), len(inputs), "labels")
            extras = {
                key: tuple(map(str, _expect_count(list(values), len(inputs), key)))
                for key, values in raw["extras"].items()
            }
        except (KeyError, TypeError, AttributeError):
            raise SourceFault(f"dataset: {self.entry.dataset}: the worker's answer is not well-formed") from None
        return Items(
            tuple(inputs), tuple(labels), extras.get("id", ()), extras.get("slice", ()), extras.get("cluster", ())
        )

    def metric(self, outputs: Sequence[Item], labels: Sequence[Any]) -> MetricAnswer:
        """Let the team's metric file judge outputs, item by item."""
        assert self.entry.metric is not None
        raw = self._ask(
            Verb.METRIC,
            outputs=protocol.columns(outputs),
            labels=list(labels),
            parameters=own_parameters(self.entry.metric),
        )
        answer = _validated(MetricAnswer, raw)
        if len(answer.per_item) != len(outputs):
            raise SourceFault(f"metric: {len(answer.per_item)} values for {len(outputs)} items")
        return answer

    def aggregate(self, values: Sequence[Any], weights: Array) -> Array:
        """Let the team's metric file make its figure, for each row of weights: how often each item counts."""
        raw = self._ask(Verb.AGGREGATE, values=list(values), weights=weights.astype(np.int32))
        if not isinstance(raw, list | tuple) or len(raw) != len(weights):
            raise SourceFault(f"metric: expected {len(weights)} figures of aggregate, one for each draw of the items")
        return np.array(_expect_numbers(raw), dtype=float)

    def onnx(self, path: str, items: Sequence[Item]) -> list[Arrays]:
        """Run an ONNX twin on each item."""
        rows = _rows(self._ask(Verb.ONNX, path=path, items=protocol.columns(items)), "reference.onnx")
        return _expect_count(rows, len(items), "reference.onnx")

    def close(self) -> None:
        """End the worker and remove its private folder."""
        if self._child:
            self._child.close()
        if self._private:
            shutil.rmtree(self._private, ignore_errors=True)
        self._child = self._private = None

    def _ask(self, verb: Verb, **arguments: Any) -> Any:
        """Put one request to the worker; return its checked result or raise what its failure means."""
        child = self._started()
        self._requests += 1
        number, arrays = self._requests, dict[str, Array]()
        request = protocol.Request(number=number, verb=verb, arguments=protocol.encode(arguments, arrays))
        protocol.write_message(self._folder("requests") / f"request-{number}.json", request, arrays)
        try:
            child.ask(number, f"{verb} of {self.entry.name} ({self._code(verb)})")
        finally:
            self._retire_dead()
        answer, given = protocol.read_answer(self._folder("answers") / f"answer-{number}.json", number)
        for path in (
            self._folder("requests") / f"request-{number}.npz",
            self._folder("answers") / f"answer-{number}.npz",
        ):
            path.unlink(missing_ok=True)  # arrays can be large, and are in memory now
        if answer.failure:
            raise self._error(verb, answer.failure)
        try:
            return protocol.decode(answer.result, given)
        except (KeyError, TypeError, RecursionError):
            raise SourceFault(f"{verb} of {self.entry.name}: the worker's answer is not well-formed") from None

    def _code(self, verb: Verb) -> str:
        """What runs for a request, as gate.yml names it."""
        entry = self.entry
        named = {
            Verb.EXAMPLE: entry.source.example,
            Verb.ITEMS: entry.dataset,
            Verb.METRIC: entry.metric and entry.metric.name,
            Verb.AGGREGATE: entry.metric and entry.metric.name,
            Verb.ONNX: entry.reference and entry.reference.onnx,
        }
        return str(named.get(verb) or entry.source.location)

    def _error(self, verb: Verb, failure: protocol.Failure) -> GateError:
        message = neutralise(failure.message)
        if failure.findings or (verb is Verb.CONVERT and failure.kind is FaultKind.SOURCE):
            self.unsupported.extend(failure.findings)
            return ConversionFailed(message, failure.findings)
        return ERRORS[failure.kind](message)

    def _folder(self, name: str) -> Path:
        """`requests`, which only we write, or `answers`, which is all that the worker can write."""
        assert self._private is not None
        return self._private / name

    def _started(self) -> Child | Distant:
        if self._child is None:
            self._private = Path(tempfile.mkdtemp(prefix="gate-", dir=self.exchange)).resolve()
            for name in ("requests", "answers"):
                self._folder(name).mkdir()
            startup = self._folder("requests") / "startup.json"
            startup.write_text(_startup(self.entry, self.config, self.pythonpath, self._private).model_dump_json())
            self._child = self._worker(startup)
            self._child.begin()
        return self._child

    def _worker(self, startup: Path) -> Child | Distant:
        """A process here, or one in the container beside ours."""
        where = (startup, self._folder("answers"), self.config.folder, self.log, self.limits)
        if self.exchange is not None:
            return Distant(self.exchange, *where, self.hidden)
        return Child(*where, self.kind, self.hidden)

    def _retire_dead(self) -> None:
        """A worker that crashed is replaced at the next request, with the time that is left: another route may succeed."""
        if self._child and not self._child.is_alive:
            self.limits = replace(self.limits, seconds=self._child.seconds_left)
            self.close()


def _expect_numbers(values: Sequence[Any]) -> Sequence[float]:
    if not all(isinstance(value, int | float) for value in values):
        raise SourceFault("metric: aggregate gave something else than numbers")
    return values


def _startup(entry: ModelEntry, config: Config, pythonpath: Sequence[Path], private: Path) -> Startup:
    ours = [str(config.folder / path) for path in config.setup.pythonpath]
    code = isinstance(entry.dataset, str) and ".py:" in entry.dataset
    return Startup(
        source=entry.source.model_dump(mode="json", exclude_unset=True),
        inputs=tuple(item.model_dump(mode="json", exclude_unset=True) for item in entry.inputs),
        outputs=tuple(item.model_dump(mode="json", exclude_unset=True) for item in entry.outputs),
        states=tuple(item.model_dump(mode="json", exclude_unset=True) for item in entry.states),
        dataset=str(entry.dataset) if code else None,
        metric=entry.metric.name if entry.metric and is_own(entry.metric) else None,
        folder=str(config.folder),
        pythonpath=(*ours, *map(str, pythonpath)),
        requests=str(private / "requests"),
        answers=str(private / "answers"),
    )


@contextlib.contextmanager
def open_source(
    entry: ModelEntry,
    config: Config,
    *,
    workdir: Path,
    time_limit: float,
    memory_limit: int,
    extra_pythonpath: Sequence[Path] = (),
    hidden: Sequence[Path] = (),
    in_container: bool = False,
    exchange: Path | None = None,
    shelf: Shelf | None = None,
) -> Iterator[Source]:
    """Yield the source of a model entry; its worker and its private folder are gone afterwards, also on Ctrl-C.

    `workdir` receives the packages and `log/NAME.log`; `hidden` names further paths that their code must not see.
    """
    source = Source(
        entry=entry,
        config=config,
        workdir=workdir,
        log=workdir / "log" / f"{entry.name}.log",
        limits=Limits(time_limit, memory_limit),
        kind=kind_here(in_container),
        pythonpath=tuple(extra_pythonpath),
        hidden=hidden_paths(config.folder, hidden),
        exchange=exchange,
        shelf=shelf,
    )
    try:
        yield source
    finally:
        source.close()


# ------------------------------------------------------------------------------------------- checks of what came back


def _validated(model: type[R], raw: Any) -> R:
    try:
        return model.model_validate(raw)
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise SourceFault(f"the worker's answer is not well-formed ({where}: {first['msg']})") from None


def _arrays(raw: Any, what: str) -> Arrays:
    if not isinstance(raw, dict) or not all(isinstance(value, np.ndarray) for value in raw.values()):
        raise SourceFault(f"{what}: the worker's answer is not a set of arrays")
    return raw


def _rows(raw: Any, what: str) -> list[Arrays]:
    try:
        return [_arrays(row, what) for row in protocol.rows(raw)]
    except (AttributeError, TypeError, ValueError):
        raise SourceFault(f"{what}: the worker's answer is not well-formed") from None


T = TypeVar("T")


def _expect_count(values: list[T], count: int, what: str) -> list[T]:
    if len(values) != count:
        raise SourceFault(f"{what}: found {len(values)}, expected {count}")
    return values


# -------------------------------------------------------------------------------------------------------- packages


def check_package(package: Path, where: str) -> Path:
    """Is this a readable package, with every file really there? Raise UsageError or SourceFault that says what is not."""
    check_files(package, where)
    if not package.is_dir():
        is_zip = zipfile.is_zipfile(package)
        found = "it is a zip archive: unpack it first" if is_zip else "found a file, expected an .mlpackage folder"
        raise UsageError(f"{where}: {found}")
    _model_file(package, where)
    return package


def check_model(model: Path, where: str) -> Path:
    """Is this a package, or at least a model whose size can be judged: compiled, or an old .mlmodel?"""
    check_files(model, where)
    if why_unread(model) is not None:
        return model
    return check_package(model, where)


def why_unread(model: Path) -> str | None:
    """Say why only the size of a sound model can be judged; None for an ML program, and for what is damaged."""
    try:
        load_program(model)
    except Unsupported as error:
        return str(error)
    except MilError:
        return None
    return None


def check_files(package: Path, where: str) -> None:
    """Is every file really there? Raise UsageError that says what is not."""
    if not package.exists():
        raise UsageError(f"{where}: no such file or folder")
    if is_lfs_pointer(package):
        raise UsageError(
            f"{where}: is a Git LFS pointer, not the file itself; fetch it with git lfs pull (or lfs: true)"
        )
    for path in sorted(package.rglob("*")):
        if path.is_symlink():
            raise UsageError(f"{where}: holds a link, {path.relative_to(package)}; expected files and folders only")
        if is_lfs_pointer(path):
            raise UsageError(
                f"{where}: {path.relative_to(package)} is a Git LFS pointer, not the file itself; fetch it with git lfs pull (or lfs: true)"
            )


def _model_file(package: Path, where: str) -> Path:
    """Find the specification through the manifest; a name in it that leads outside is refused."""
    try:
        manifest = json.loads((package / "Manifest.json").read_text(encoding="utf-8"))
        root = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
    except (OSError, ValueError, KeyError, TypeError):
        raise DamagedPackage(f"{where}: Manifest.json is missing or not well-formed") from None
    model = package / "Data" / str(root)
    if not model.resolve().is_relative_to(package.resolve()) or not model.is_file():
        raise DamagedPackage(f"{where}: Manifest.json names {root!r}, which is not a file in the package")
    return model


def _specification(package: Path) -> Any:
    from gate.mil.messages import messages

    specification = messages("Model_pb2").Model()
    try:
        specification.ParseFromString(_model_file(package, package.name).read_bytes())
    except Exception:  # protobuf's DecodeError has moved between versions
        raise DamagedPackage(f"{package.name}: the model specification cannot be read") from None
    if specification.WhichOneof("Type") != "mlProgram":
        raise SourceFault(
            f"{package.name}: found a {specification.WhichOneof('Type') or 'model without a type'}, expected an ML program"
        )
    return specification


def describe_package(package: Path) -> Description:
    """Describe a package as a source: its interface, and the bytes of its weights."""
    specification = _specification(package)
    weights = weight_bytes(package)
    description = described(specification, default_function(specification))
    return Description(
        inputs=tuple(_port(feature) for feature in description.input),
        outputs=tuple(_port(feature) for feature in description.output),
        parameters=0,
        parameter_bytes=weights,
        nodes=operation_count(package),
        digest=_files_digest(package),
    )


def _files_digest(package: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(package)}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


ARRAY_TYPES = {
    65552: "float16",
    65568: "float32",
    65600: "float64",
    131104: "int32",
    131080: "int8",
}  # ArrayFeatureType


def _port(feature: Any) -> Port:
    kind = feature.type.WhichOneof("Type")
    if kind == "imageType":
        image = feature.type.imageType
        gray = image.colorSpace == 10  # ImageFeatureType.ColorSpace.GRAYSCALE
        return Port(name=feature.name, shape=(image.height, image.width) + (() if gray else (3,)), dtype="uint8")
    if kind == "multiArrayType":
        array = feature.type.multiArrayType
        return Port(name=feature.name, shape=tuple(array.shape), dtype=ARRAY_TYPES.get(array.dataType, "float32"))
    return Port(name=feature.name, shape=(), dtype=str(kind or "unknown"))


def weight_bytes(package: Path) -> int:
    """Bytes of the weight files of a package."""
    return sum(path.stat().st_size for path in package.rglob("*") if path.is_file() and "weights" in path.parts)


def operation_count(package: Path) -> int:
    """Count the operations of a program, constants left out."""
    functions = _specification(package).mlProgram.functions.values()
    return sum(_count(block) for function in functions for block in function.block_specializations.values())


def _count(block: Any) -> int:
    return sum(
        (operation.type != "const") + sum(_count(inner) for inner in operation.blocks) for operation in block.operations
    )


def made_up_inputs(description: Description, entry: ModelEntry) -> Arrays:
    """Seeded inputs for a package: within `values` of gate.yml, else normal; integers 0 or 1."""
    random = np.random.default_rng(0)
    ranges = {item.name: item.values for item in entry.inputs}
    return {port.name: _made_up(port, ranges.get(port.name), random) for port in description.inputs}


def _made_up(port: Port, values: tuple[float, float] | None, random: np.random.Generator) -> Array:
    if port.dtype == "uint8":
        return random.integers(0, 256, port.shape, dtype=np.uint8)
    if port.dtype.startswith("int"):
        low, high = values or (0, 1)
        return random.integers(int(low), int(high) + 1, port.shape).astype(port.dtype)
    drawn = random.uniform(*values, port.shape) if values else random.standard_normal(port.shape)
    return drawn.astype(port.dtype)


# ---------------------------------------------------------------------------------------------------------- routes


@dataclass(frozen=True)
class RouteChoice:
    """The package that was taken, how far it is from the reference (None: could not be said), and what was learnt on the way."""

    converted: Converted
    error: float | None
    findings: tuple[Finding, ...]
    wrong: tuple[Converted, ...] = ()  # of other routes, which convert and do not compute what the source computes


def choose_route(
    source: Source, *, matches: Callable[[Path], float | None], limit: float = 0.001, target: Target | None = None
) -> RouteChoice:
    """Convert in float32 by the first route that is right and not needlessly large; else keep the smallest right one.

    `matches` returns the error of a package against the reference, as a fraction of each output's range, or None where it
    cannot say. Where none is right, the one nearest to the reference is kept: `fidelity` will refuse it. Raise
    ConversionFailed with all findings when no route converts, ToolchainError when a toolchain fault may be why.
    """
    if not source.is_torch:
        return RouteChoice(source.finished, matches(source.finished.package), ())
    tried: list[RouteChoice] = []
    findings: list[Finding] = []
    failed: dict[str, list[Finding]] = {}
    toolchain: list[ToolchainError] = []
    for route in _routes(source.entry):
        try:
            converted = source.convert(route, Precision.FLOAT32, target=target)
        except ConversionFailed as problem:
            failed[route] = _as_notes(problem, route)
            findings += failed[route]
        except ToolchainError as problem:
            toolchain.append(problem)
            findings.append(_note("convert.toolchain", str(problem)))
        else:
            choice = RouteChoice(converted, matches(converted.package), converted.findings)
            tried.append(choice)
            findings += _doubts(choice, limit, source.describe())
            if _is_right(choice, limit) and not _is_needlessly_large(converted.package, source.describe()):
                break
    if not tried:
        raise toolchain[0] if toolchain else _no_route(source, failed)
    best = min(tried, key=lambda choice: _rank(choice, limit, source.describe()))
    wrong = tuple(c.converted for c in tried if c is not best and not _is_right(c, limit))
    return RouteChoice(best.converted, best.error, (*best.findings, *_merged(findings)), wrong)


def _routes(entry: ModelEntry) -> tuple[str, ...]:
    if entry.convert.route != "auto":
        return (entry.convert.route,)
    return SCRIPT_ROUTES if entry.source.kind == "torchscript" else ROUTES


def _is_right(choice: RouteChoice, limit: float) -> bool:
    return choice.error is None or choice.error <= limit


def _rank(choice: RouteChoice, limit: float, description: Description) -> tuple[bool, float]:
    """The smallest of the right ones, weights and operations both relative to the source's; else the nearest."""
    if _is_right(choice, limit):
        package = choice.converted.package
        weights = weight_bytes(package) / max(description.parameter_bytes, 1)
        return False, weights + operation_count(package) / max(description.nodes, 1)
    assert choice.error is not None
    return True, math.inf if math.isnan(choice.error) else choice.error


def _is_needlessly_large(package: Path, description: Description) -> bool:
    too_heavy = weight_bytes(package) > MOST_WEIGHTS * description.parameter_bytes + 4096  # alignment of small weights
    return too_heavy or bool(description.nodes and operation_count(package) > MOST_OPERATIONS * description.nodes + 10)


def _doubts(choice: RouteChoice, limit: float, description: Description) -> Iterator[Finding]:
    route, package = choice.converted.route, choice.converted.package
    if not _is_right(choice, limit):
        yield _note(
            "convert.wrong",
            f"route {route}: converts, but the float32 package {_error_words(choice.error)}",
        )
    elif _is_needlessly_large(package, description):
        yield _note(
            "convert.large",
            f"route {route}: {operation_count(package)} operations and {weight_bytes(package)} bytes of weights, for "
            f"{description.nodes} and {description.parameter_bytes} of the source",
        )


def _error_words(error: float | None) -> str:
    if error is None or not math.isfinite(error):
        return "answers with another shape, with infinities, or not at all"
    return f"is off by {error:.3g} of the output's range"


def _note(rule: str, message: str) -> Finding:
    return Finding(rule=rule, severity=Severity.INFO, message=message[:4_000])


def _as_notes(problem: ConversionFailed, route: str) -> list[Finding]:
    """While another route may succeed, what stopped this one is only a note."""
    notes = [finding.model_copy(update={"severity": Severity.INFO}) for finding in problem.findings]
    return notes or [_note("convert.failed", f"route {route}: {problem}")]


def _no_route(source: Source, failed: Mapping[str, list[Finding]]) -> ConversionFailed:
    """Tell what stands in the way of the route that lacks least, and what to do about it; the findings tell of every route."""
    nearest = min(failed, key=lambda route: _obstacles(failed[route]))
    others = (finding for route in failed if route != nearest for finding in failed[route])
    blocking = (finding.model_copy(update={"severity": Severity.ERROR}) for finding in (*failed[nearest], *others))
    cause = _cause(nearest, failed[nearest])
    return ConversionFailed(f"{source.entry.name}: no conversion route works: {cause}", tuple(_merged(blocking)))


def _obstacles(failures: Sequence[Finding]) -> tuple[bool, int]:
    """How many there are; after all others, a route that ended before its operations were known."""
    return any(finding.op is None for finding in failures), len({(finding.rule, finding.op) for finding in failures})


def _cause(route: str, failures: Sequence[Finding]) -> str:
    unsupported = (f for f in failures if f.rule == "convert.unsupported_op" and f.op)
    missing = [f"{f.op} ({f.source})" if f.source else str(f.op) for f in unsupported]
    return f"route {route}: coremltools cannot convert {', '.join(missing)}" if missing else failures[0].sentence


def _merged(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Tell once what several routes met alike; a message begins with its route."""
    routes: dict[Finding, list[str]] = {}
    for finding in findings:
        begins = re.match(r"route (\S+): ", finding.message)
        said = finding.model_copy(update={"message": finding.message[begins.end() if begins else 0 :]})
        routes.setdefault(said, []).extend(begins.groups() if begins else ())
    for finding, names in routes.items():
        begin = f"route{'s' if len(names) > 1 else ''} {', '.join(names)}: " if names else ""
        yield finding.model_copy(update={"message": f"{begin}{finding.message}"[:4_000]})


# ------------------------------------------------------------------------------------------------------- reference


class Reference(Protocol):
    """What the answers are compared with."""

    @property
    def kind(self) -> str:
        """`source`, `base`, `onnx t.onnx` or `outputs t.npz`, as the report shows it."""
        ...

    def references(self, items: Sequence[Item]) -> list[Arrays]:
        """Return the reference outputs of each item, in order, under the names of the package's outputs."""
        ...


@dataclass(frozen=True)
class SourceReference:
    """The source itself, in float32."""

    source: Source
    kind: str = "source"

    def references(self, items: Sequence[Item]) -> list[Arrays]:
        """Run the source."""
        return self.source.references(items)


@dataclass(frozen=True)
class PackageReference:
    """The base branch's package, run by the caller's engine."""

    package: Path
    run: Callable[[Path, Sequence[Item]], list[Arrays]]
    kind: str = "base"

    def references(self, items: Sequence[Item]) -> list[Arrays]:
        """Run the package."""
        return self.run(self.package, items)


@dataclass(frozen=True)
class OnnxReference:
    """An ONNX twin, run by onnxruntime in the worker."""

    source: Source
    path: str
    names: Mapping[str, str] = field(default_factory=dict)  # output of the package → output of the twin

    @property
    def kind(self) -> str:
        """With the file, since there may be several."""
        return f"onnx {self.path}"

    def references(self, items: Sequence[Item]) -> list[Arrays]:
        """Run the twin and give its outputs the package's names."""
        answers = self.source.onnx(self.path, items)
        names = _pair_outputs(self.source.describe().outputs, answers[0], self.kind, self.names) if answers else {}
        return [{ours: answer[theirs] for ours, theirs in names.items()} for answer in answers]


@dataclass(frozen=True)
class StoredReference:
    """Outputs stored in an .npz: one array per output, its first axis the item."""

    source: Source
    path: str
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """With the file."""
        return f"outputs {self.path}"

    def references(self, items: Sequence[Item]) -> list[Arrays]:
        """Return the first rows; the file must have one per item."""
        stored = _load_npz(self.source.config.folder / self.path, f"reference.outputs: {self.path}")
        for name, array in stored.items():
            if array.ndim == 0 or len(array) < len(items):
                found = len(array) if array.ndim else "a single number"
                raise UsageError(f"reference.outputs: {self.path}: {name} holds {found}, expected {len(items)} items")
        outputs = self.source.describe().outputs
        names = {port.name: self.names.get(port.name, port.name) for port in outputs}
        _refuse_missing(names, stored, self.kind)
        return [{ours: stored[theirs][index] for ours, theirs in names.items()} for index in range(len(items))]


def _load_npz(path: Path, where: str) -> Arrays:
    if not path.is_file():
        raise UsageError(f"{where}: no such file")
    if is_lfs_pointer(path):
        raise UsageError(
            f"{where}: is a Git LFS pointer, not the file itself; fetch it with git lfs pull (or lfs: true)"
        )
    try:
        with np.load(path, allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}
    except Exception as problem:  # zipfile, numpy and the OS each have their own
        raise UsageError(f"{where}: cannot be read as .npz without pickles: {problem}") from None


def _refuse_missing(names: Mapping[str, str], answer: Item, where: str) -> None:
    missing = [f"{theirs} (for {ours})" for ours, theirs in names.items() if theirs not in answer]
    if missing:
        raise UsageError(f"reference: {where} has no output {', '.join(missing)}; found {', '.join(answer)}")


def _pair_outputs(ports: Sequence[Port], answer: Item, where: str, given: Mapping[str, str]) -> dict[str, str]:
    """Pair the package's outputs with the twin's: as gate.yml says, by name, or by shape where that is unambiguous."""
    ours = [port.name for port in ports]
    if given:
        names = {name: given.get(name, name) for name in ours}
        _refuse_missing(names, answer, where)
        return names
    if set(ours) <= set(answer):
        return {name: name for name in ours}
    shapes = {name: tuple(array.shape) for name, array in answer.items()}
    pairs = {port.name: [name for name, shape in shapes.items() if shape == port.shape] for port in ports}
    if all(len(candidates) == 1 for candidates in pairs.values()) and len(ports) == len(answer):
        return {name: candidates[0] for name, candidates in pairs.items()}
    raise UsageError(
        f"reference: {where} gives {', '.join(f'{n} {list(s)}' for n, s in shapes.items())}; cannot tell which is which of "
        f"{', '.join(f'{p.name} {list(p.shape)}' for p in ports)}; name them in reference.names"
    )


def reference_for(
    entry: ModelEntry,
    config: Config,
    source: Source,
    *,
    run_package: Callable[[Path, Sequence[Item]], list[Arrays]],
    base: Path | None = None,
) -> Reference | None:
    """Return what the entry's answers are compared with, or None where there is nothing (a package alone).

    `base` is the base branch's package where a baseline brought one; `reference: {kind: base, package: …}` names another.
    """
    choice = entry.reference
    if choice is None or choice.kind == "source":
        if not source.is_torch and choice is not None:
            raise UsageError(
                f"models.{entry.name}.reference: a {entry.source.kind} source has no float32 program; use base, onnx or outputs"
            )
        return SourceReference(source) if source.is_torch else None
    if choice.onnx:
        return OnnxReference(source, choice.onnx, choice.names)
    if choice.outputs:
        return StoredReference(source, choice.outputs, choice.names)
    package = config.folder / choice.package if choice.package else base
    if package is not None:
        return PackageReference(check_package(package, f"reference.package: {package.name}"), run_package)
    # A first run has no base: the source is the nearest thing to compare with, and the report says so.
    return SourceReference(source, kind="source, for want of a base package") if source.is_torch else None
