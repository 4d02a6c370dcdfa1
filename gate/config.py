# SPDX-License-Identifier: Apache-2.0
"""What has the team asked for? `gate.yml`, read top to bottom as the file reads.

Paths are relative to the folder of gate.yml. What does not fit is told by path and nearest known key, exit code 2.
"""

import hashlib
import json
import math
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, PrivateAttr, Tag, model_validator

from gate.document import Record, load_yaml, parse, read_yaml
from gate.errors import ConfigError
from gate.policy import Target
from gate.quantity import Decibel, Drop, Duration, Fraction, Growth, Level, Proportion, Size
from gate.report import CheckName


class AppSizeBudget(Record):
    """How large the shipped candidates of all models may be together."""

    total: Size | None = Field(default=None, description="limit of the sum, such as 50 MB")
    growth: Growth | None = Field(default=None, description="limit of the increase over the baseline, such as 2 MB")


class AppBudgets(Record):
    """Budgets of the app as a whole."""

    app_size: AppSizeBudget = Field(default=AppSizeBudget(), description="sum of the shipped packages")


class App(Record):
    """The app that ships the models."""

    minimum_device: str | None = Field(default=None, description="smallest phone that must run it, such as iphone-12")
    deployment_target: Target = Field(default=Target.IOS17, description="minimum OS; models may override it")
    increased_memory_limit: bool = Field(
        default=False, description="the app has the entitlement com.apple.developer.kernel.increased-memory-limit"
    )
    budgets: AppBudgets = Field(default=AppBudgets(), description="budgets of the app as a whole")


class Fetch(Record):
    """A file that the prepare step fetches, by digest."""

    url: str = Field(pattern=r"^https://", description="where it is")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of its bytes")
    to: str = Field(description="where it goes, relative to gate.yml")


class Setup(Record):
    """What the prepare step brings before any of the pull request's code runs."""

    requirements: str | None = Field(default=None, description="hash-locked requirements file; binary wheels only")
    pythonpath: tuple[str, ...] = Field(default=(), description="folders that the source may import from")
    fetch: tuple[Fetch, ...] = Field(default=(), description="files to fetch by digest")


class Source(Record):
    """Where the model comes from: exactly one of factory, converter, torchscript, exported_program, coreml."""

    factory: str | None = Field(default=None, description="path.py:function that returns a torch module")
    args: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the factory or converter")
    example: str | None = Field(
        default=None, description="path.py:function that returns the example inputs of a factory"
    )
    converter: str | None = Field(default=None, description="path.py:function that returns a coremltools MLModel")
    torchscript: str | None = Field(default=None, description="a TorchScript file")
    exported_program: str | None = Field(default=None, description="a torch.export file (.pt2)")
    coreml: str | None = Field(default=None, description="a finished .mlpackage")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        kinds = [name for name in SOURCE_KINDS if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError(f"exactly one of {', '.join(SOURCE_KINDS)}; found {', '.join(kinds) or 'none'}")
        if self.example is not None and self.coreml is not None:
            raise ValueError("example: a finished package describes its own inputs")
        if self.args and not (self.factory or self.converter):
            raise ValueError("args: only a factory or a converter takes arguments")
        for name in ("factory", "converter", "example"):
            _check_function(name, getattr(self, name))
        return self

    @property
    def kind(self) -> str:
        """`factory`, `converter`, `torchscript`, `exported_program` or `coreml`."""
        return next(name for name in SOURCE_KINDS if getattr(self, name) is not None)

    @property
    def location(self) -> str:
        """The path, with `:function` for code."""
        return str(getattr(self, self.kind))


SOURCE_KINDS = ("factory", "converter", "torchscript", "exported_program", "coreml")


def _check_function(name: str, value: str | None) -> None:
    if value is not None and not (
        value.count(":") == 1 and value.split(":")[0].endswith(".py") and value.split(":")[1].isidentifier()
    ):
        raise ValueError(f"{name}: found {value!r}, expected path.py:function")


def _named_reference(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


class ReferenceChoice(Record):
    """What the answers are compared with: source, base, {onnx: file} or {outputs: file}."""

    kind: Literal["source", "base"] | None = Field(
        default=None, description="the source in float32, or the base branch's package"
    )
    package: str | None = Field(default=None, description="with kind base: the package, when no baseline brings one")
    onnx: str | None = Field(default=None, description="an ONNX twin")
    outputs: str | None = Field(default=None, description="stored outputs, .npz with one array per output")
    names: dict[str, str] = Field(
        default_factory=dict, description="output of the package to output of the reference, where the names differ"
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name in ("kind", "onnx", "outputs") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("expected source, base, {onnx: file} or {outputs: file}")
        if self.names and self.kind is not None:
            raise ValueError("names: only a reference by onnx or outputs can have names of its own")
        if len(set(self.names.values())) != len(self.names):
            raise ValueError("names: an output of the reference appears twice")
        return self

    def __str__(self) -> str:
        return self.kind or (f"onnx {self.onnx}" if self.onnx else f"outputs {self.outputs}")


class RangeDim(Record):
    """A dimension that may have any size in a range."""

    range: tuple[Annotated[int, Field(ge=1)], int] = Field(
        description="smallest and largest size; -1 for no upper bound"
    )
    default: int | None = Field(default=None, ge=1, description="size to convert and test with first")


class AnyOfDim(Record):
    """A dimension that may have one of some sizes."""

    any_of: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        min_length=1, max_length=128, description="the sizes; the first is the default"
    )


def _kind_of_dim(value: Any) -> str:
    if isinstance(value, dict):
        return "<any_of>" if "any_of" in value else "<range>"
    return "<any_of>" if isinstance(value, AnyOfDim) else "<range>" if isinstance(value, RangeDim) else "<size>"


Dim = Annotated[
    Annotated[int, Field(ge=1), Tag("<size>")]
    | Annotated[RangeDim, Tag("<range>")]
    | Annotated[AnyOfDim, Tag("<any_of>")],
    Discriminator(_kind_of_dim),
]


class Input(Record):
    """One model input."""

    name: str = Field(min_length=1, description="name that the app uses")
    shape: tuple[Dim, ...] | None = Field(
        default=None, description="sizes; {range: [16, 3000]} or {any_of: [300, 1000]} where flexible"
    )
    dtype: Literal["float32", "float16", "int32"] | None = Field(
        default=None, description="element type that the app hands over"
    )
    image: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = Field(
        default=None, description="height and width of an image input"
    )
    color: Literal["RGB", "BGR", "GRAYSCALE"] = Field(default="RGB", description="colour layout of an image input")
    mean: tuple[float, ...] = Field(default=(), description="per channel, of pixels scaled to 0-1, subtracted")
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(), description="per channel, of pixels scaled to 0-1, divided by"
    )
    scale: float | None = Field(default=None, gt=0, description="factor on pixels of 0-255 instead of mean and std")
    bias: tuple[float, ...] = Field(default=(), description="per channel, added after scale")
    values: tuple[float, float] | None = Field(
        default=None, description="least and greatest value that the app may send; stress inputs are made from it"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.values is not None and not -math.inf < self.values[0] <= self.values[1] < math.inf:
            raise ValueError("values: expected two finite numbers, the least first, such as [0, 1]")
        if self.image is None:
            for name in ("mean", "std", "scale", "bias"):
                if name in self.model_fields_set:
                    raise ValueError(f"{name} belongs to an image input; add image: [height, width]")
            return self
        if self.shape is not None or self.dtype is not None:
            raise ValueError("an image input has image: [height, width] instead of shape and dtype")
        if (self.mean or self.std) and (self.scale is not None or self.bias):
            raise ValueError("give mean and std, or scale and bias, not both")
        for name in ("mean", "std", "bias"):
            if getattr(self, name) and len(getattr(self, name)) != self.channels:
                raise ValueError(
                    f"{name}: found {len(getattr(self, name))} values, expected {self.channels} for {self.color}"
                )
        return self

    @property
    def channels(self) -> int:
        """Channels of an image input."""
        return 1 if self.color == "GRAYSCALE" else 3


class State(Record):
    """One state of a stateful model (iOS18)."""

    name: str = Field(min_length=1, description="name of the buffer in the torch module")
    shape: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        default=None, description="its shape; read from the module where absent"
    )


class Output(Record):
    """One model output."""

    name: str = Field(min_length=1, description="name that the app uses")
    classes: str | None = Field(
        default=None, description="text file with one class label per line; makes the model a classifier"
    )
    dtype: Literal["float32", "float16"] | None = Field(default=None, description="element type that the app receives")


RESERVED = ("label", "id", "slice", "cluster", "split")  # of an item: what is no model input


class ImageFolder(Record):
    """A data set of image files with a table of labels."""

    images: str = Field(description="folder of images; subfolders are labels unless a table is given")
    labels: str | None = Field(default=None, description="CSV with columns file, label and perhaps id, slice, cluster")


class MetricChoice(Record):
    """A metric with its parameters: every further key is a parameter."""

    model_config = Record.model_config | {"extra": "allow"}

    name: str = Field(min_length=1, description="a named metric, or path.py with per_item(outputs, label)")

    @property
    def parameters(self) -> dict[str, Any]:
        """The further keys."""
        return dict(self.model_extra or {})


def _named_metric(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class SizeBudget(Record):
    """How large the package may be."""

    limit: Size | None = Field(default=None, description="largest size, such as 6 MB")
    growth: Growth | None = Field(default=None, description="largest increase over the baseline, such as 5 % or 200 KB")


def _size_budget(value: Any) -> Any:
    return value if isinstance(value, dict) else {"limit": value}


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class NotWorseBudget(Record):
    """How many of the items may not become worse: no regression, example by example."""

    share: Proportion = Field(description="least share of the items, such as 95 %")
    by: float = Field(
        default=0.0, ge=0, description="by how much an item's own value may change before it counts as worse"
    )


def _not_worse_budget(value: Any) -> Any:
    return value if isinstance(value, dict | NotWorseBudget) else {"share": value}


class AccuracyBudget(Record):
    """How good the answers must be."""

    at_least: Level | None = Field(default=None, description="floor, such as 92 %, or in the metric's own unit")
    drop: Drop | None = Field(default=None, description="margin of non-inferiority, such as 1 point")
    against: Annotated[tuple[Literal["source", "base", "release"], ...], BeforeValidator(_one_or_more)] = Field(
        default=("source",), min_length=1, description="yardsticks; each is its own row"
    )
    confidence: Proportion = Field(default=0.95, description="confidence of the verdict, such as 95 %")
    stop: Literal["curtailed", "sequential", "never"] = Field(
        default="curtailed", description="when evaluation may stop early"
    )

    slice_drop: Drop | None = Field(
        default=None, description="the same margin for each slice of the data, such as 3 points"
    )
    class_drop: Drop | None = Field(
        default=None, description="margin for each class, in the share of its items that are right, such as 5 points"
    )
    not_worse: Annotated[NotWorseBudget, BeforeValidator(_not_worse_budget)] | None = Field(
        default=None, description="95 %, or {share: 95 %, by: 0.5}: how many items may not become worse"
    )

    @property
    def asks_every_item(self) -> bool:
        """Does a pass need every item, since it is also about parts of the data?"""
        return any(limit is not None for limit in (self.slice_drop, self.class_drop, self.not_worse))

    @model_validator(mode="after")
    def _is_a_confidence(self) -> Self:
        if not 0.5 < self.confidence < 1:
            raise ValueError("confidence lies between 50 % and 100 %")
        return self


class FidelityBudget(Record):
    """How far the converted float32 program may be from the reference."""

    error: Fraction = Field(default=0.001, description="of each output's range")


class Float16Budget(Record):
    """How much float16 may cost: an error or a signal-to-noise ratio."""

    error: Fraction | None = Field(default=None, description="of each output's range, such as 2 %")
    snr: Decibel | None = Field(default=None, description="least signal-to-noise ratio, such as 40 dB")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.error is None) == (self.snr is None):
            raise ValueError("exactly one of error and snr")
        return self


class MemoryBudget(Record):
    """How much memory the model may use."""

    share: Proportion | None = Field(default=None, description="of the minimum device's RAM, such as 50 %")
    limit: Size | None = Field(default=None, description="absolute, such as 400 MB")
    together: bool = Field(
        default=False,
        description="resident at once with the other models that say so; their sum is held to the smallest limit",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.share is None) == (self.limit is None):
            raise ValueError("exactly one of share and limit")
        return self


ComputeUnits = Literal["ALL", "CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE"]


class LatencyBudget(Record):
    """How fast it must be; measured by the coreml engine only."""

    speedup: float | None = Field(default=None, gt=0, description="least ratio of the time of `over` to its own")
    over: Literal["float32", "float16", "baseline"] = Field(
        default="float32", description="package of this run that it is compared with"
    )
    floor: Duration = Field(default=0.0001, description="a prediction that is late by less than this does not fail")
    p95: Duration | None = Field(default=None, description="largest 95th percentile on `device`")
    device: str | None = Field(
        default=None,
        description="device that p95 is about: a Mac as the system names it, or what --device names; any where absent",
    )
    confidence: Proportion = Field(default=0.95, gt=0.5, lt=1, description="of each end of an interval, such as 95 %")


class Budgets(Record):
    """The limits that the team sets; what has none has a stated default or is shown without a verdict."""

    size: Annotated[SizeBudget, BeforeValidator(_size_budget)] = Field(
        default=SizeBudget(), description="6 MB, or {limit: 6 MB, growth: 5 %}"
    )
    accuracy: AccuracyBudget | None = Field(default=None, description="floor and margin of the metric")
    fidelity: FidelityBudget = Field(default=FidelityBudget(), description="float32 program against the reference")
    float16: Float16Budget | None = Field(default=None, description="cost of float16")
    memory: MemoryBudget | None = Field(default=None, description="peak memory")
    latency: LatencyBudget | None = Field(default=None, description="time of a prediction, on a Mac or device")


class Convert(Record):
    """How the conversion is done."""

    route: Literal["auto", "trace", "export", "export-default", "trace-no-mha"] = Field(
        default="auto", description="conversion route; auto tries them in order"
    )


class Splits(Record):
    """How items are divided when the data does not say it; the parts never overlap."""

    seed: int = Field(default=0, ge=0, description="seed of the division")
    calibrate: Proportion = Field(default=0.0, description="part for activation ranges")
    search: Proportion = Field(default=0.0, description="part that a search may look at")
    confirm: Proportion = Field(default=1.0, description="part that certifies")

    @model_validator(mode="after")
    def _at_most_all(self) -> Self:
        if self.calibrate + self.search + self.confirm > 1 + 1e-9:
            raise ValueError("calibrate, search and confirm add up to more than 100 %")
        if self.confirm == 0:
            raise ValueError("confirm: found 0 %, expected more: without these items nothing is certified")
        return self


class ModelEntry(Record):
    """One named model."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80, description="name of the entry")
    paths: tuple[str, ...] = Field(
        default=(), description="globs, relative to the repository root, of the changes that concern it"
    )
    deployment_target: Target | None = Field(default=None, description="minimum OS, instead of the app's")
    source: Source = Field(description="where the model comes from")
    reference: Annotated[ReferenceChoice, BeforeValidator(_named_reference)] | None = Field(
        default=None, description="what its answers are compared with: source, base, {onnx: file} or {outputs: file}"
    )
    inputs: tuple[Input, ...] = Field(
        default=(), description="names, shapes and preprocessing; read from the example where absent"
    )
    outputs: tuple[Output, ...] = Field(default=(), description="names and class labels")
    states: tuple[State, ...] = Field(default=(), description="states of a stateful model")
    ship: str | None = Field(
        default=None,
        description="policy that ships and decides, or auto: the smallest that a search finds; float16 by default, as-is for a finished package",
    )
    explore: tuple[str, ...] = Field(default=(), description="policies that are shown as rows")
    dataset: str | ImageFolder | None = Field(
        default=None, description="labelled items: eval.npz, items.jsonl, path.py:function or {images, labels}"
    )
    calibration: str | None = Field(default=None, description="items for activation ranges, disjoint from the data set")
    metric: Annotated[MetricChoice, BeforeValidator(_named_metric)] | None = Field(
        default=None, description="a named metric with parameters, or path.py"
    )
    budgets: Budgets = Field(default=Budgets(), description="limits")
    keep_float32: tuple[str, ...] = Field(
        default=(),
        description="layer paths that stay in float32; of a finished float32 package its ops, such as /softmax or /log:1",
    )
    compute_units: tuple[ComputeUnits, ...] = Field(
        default=("ALL",), min_length=1, description="what the app lets Core ML use, the first for the numeric checks"
    )
    convert: Convert = Field(default=Convert(), description="how the conversion is done")
    splits: Splits = Field(default=Splits(), description="division of the items")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(set(self.policies)) != len(self.policies):
            raise ValueError(f"explore: a policy appears twice in {', '.join(self.policies)}")
        if self.budgets.accuracy and self.budgets.accuracy.at_least is not None and self.metric is None:
            raise ValueError("budgets.accuracy.at_least needs a metric")
        if self.metric is not None and self.dataset is None:
            raise ValueError("metric: needs a dataset to be measured on")
        if self.budgets.accuracy and self.dataset is None:
            for key in ("drop", "slice_drop", "class_drop", "not_worse"):
                if getattr(self.budgets.accuracy, key) is not None:
                    raise ValueError(f"budgets.accuracy.{key} needs a dataset")
        self._refuse_what_the_source_cannot_do()
        for what, names in (("inputs", [i.name for i in self.inputs]), ("outputs", [o.name for o in self.outputs])):
            if len(set(names)) != len(names):
                raise ValueError(f"{what}: a name appears twice in {', '.join(names)}")
        return self

    def _refuse_what_the_source_cannot_do(self) -> None:
        kind, route = self.source.kind, self.convert.route
        if kind in ("coreml", "converter"):
            for key, given in (
                ("states", self.states),
                ("convert.route", route != "auto"),
            ):
                if given:
                    raise ValueError(
                        f"{key}: a {kind} source is converted already; this belongs into its own conversion"
                    )
        routes = {
            "torchscript": ("auto", "trace", "trace-no-mha"),
            "exported_program": ("auto", "export", "export-default"),
        }
        if route not in routes.get(kind, (route,)):
            raise ValueError(f"convert.route: a {kind} source has the routes {', '.join(routes[kind])}; found {route}")

    @property
    def shipped_policy(self) -> str:
        """The policy that decides."""
        return self.ship or ("as-is" if self.source.kind in ("coreml", "converter") else "float16")

    @property
    def policies(self) -> tuple[str, ...]:
        """The shipped policy, then the explored ones."""
        return (self.shipped_policy, *self.explore)


class Limits(Record):
    """Limits of the whole run."""

    time: Duration = Field(
        default=600.0,
        description="of the whole run, such as 10 min: the model's code is stopped at it, and no candidate is begun after it",
    )
    memory: Size = Field(default=8 * 10**9, gt=0, description="of the process that runs the team's code, such as 8 GB")


class Approval(Record):
    """How changed limits are accepted on a pull request. Always read from the base branch."""

    label: str | None = Field(
        default=None,
        min_length=1,
        max_length=50,
        description="a label that somebody with write permission sets after the last push; without it only the merge accepts",
    )


class Config(Record):
    """gate.yml."""

    version: Literal[1] = Field(description="version of this format")
    app: App = Field(default=App(), description="the app that ships the models")
    setup: Setup = Field(default=Setup(), description="what is prepared before any of the pull request's code runs")
    models: tuple[ModelEntry, ...] = Field(min_length=1, max_length=200, description="the model entries")
    waivers: str | None = Field(default=None, description="file of accepted exceptions")
    approval: Approval = Field(default=Approval(), description="how a pull request's change of limits is accepted")
    limits: Limits = Field(default=Limits(), description="limits of the whole run")

    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        names = [model.name for model in self.models]
        if len(set(names)) != len(names):
            raise ValueError(f"models: a name appears twice in {', '.join(names)}")
        return self

    @property
    def folder(self) -> Path:
        """The folder of gate.yml, to which its paths are relative."""
        return self._folder

    def target(self, model: ModelEntry) -> Target:
        """The deployment target of a model entry."""
        return model.deployment_target or self.app.deployment_target

    @cached_property
    def digest(self) -> str:
        """Digest of the configuration as read, free of layout and comments."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class Waiver(Record):
    """An accepted exception: one check of one model, until a day."""

    check: CheckName = Field(description="which check")
    model: str = Field(description="which model entry, or app")
    rule: str | None = Field(default=None, description="only for findings of this rule")
    limit: str | None = Field(
        default=None,
        description="the value that is accepted instead of the budget, in the budget's own form; of a size the whole, whichever of limit, "
        "total and growth it breaks",
    )
    reason: str = Field(min_length=1, max_length=1_000, description="why")
    owner: str = Field(min_length=1, max_length=200, description="who accepted it")
    expires: date = Field(description="last day it holds, YYYY-MM-DD")


class Waivers(Record):
    """waivers.yml."""

    waivers: tuple[Waiver, ...] = Field(default=(), description="the accepted exceptions")


def load(path: Path) -> Config:
    """Read gate.yml; raise ConfigError with every mistake, each with its path and the nearest known key."""
    config = parse(Config, read_yaml(path, ConfigError), path.name, ConfigError)
    config._folder = path.resolve().parent
    return config


def loads(text: bytes, path: Path) -> Config:
    """Read a gate.yml that is not on disk as if it lay at `path`."""
    config = parse(Config, load_yaml(text, path.name, ConfigError), path.name, ConfigError)
    config._folder = path.resolve().parent
    return config


def label_of(text: bytes) -> str | None:
    """Read the approving label alone, of a gate.yml that is somewhere else."""
    return loads(text, Path("gate.yml")).approval.label


def load_waivers(path: Path) -> tuple[Waiver, ...]:
    """Read waivers.yml."""
    return parse(Waivers, read_yaml(path, ConfigError), path.name, ConfigError).waivers
