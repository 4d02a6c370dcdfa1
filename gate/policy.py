# SPDX-License-Identifier: Apache-2.0
"""What does a policy do to a model: which precision, which compression steps, with which exceptions per op?

A policy is a YAML file, shipped in `policies/` or the team's own. It says its minimum deployment target; a file that claims
less than its steps need is refused, and so is a model whose target cannot carry it, before any work.
"""

import fnmatch
import hashlib
import json
from collections.abc import Iterator
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, overload

from pydantic import Field, model_validator

from gate.document import Record, parse, read_yaml
from gate.errors import PolicyError
from gate.files import shipped
from gate.quantity import Proportion


class Target(StrEnum):
    """Minimum deployment targets that an ML Program can have."""

    IOS15 = "iOS15"
    IOS16 = "iOS16"
    IOS17 = "iOS17"
    IOS18 = "iOS18"
    IOS26 = "iOS26"

    @property
    def version(self) -> int:
        """The number in the name, for comparison."""
        return int(self.value.removeprefix("iOS"))


class Precision(StrEnum):
    """Compute precision of the converted program; `as-is` leaves a finished package as it is."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    AS_IS = "as-is"


class _Step(Record):
    """What every compression step has."""

    weight_threshold: int = Field(
        default=0,
        ge=0,
        description="weights with this many elements or fewer are left alone (coremltools' own default is 2048)",
    )


class Palettize(_Step):
    """Replace weights by entries of look-up tables of 2^bits values."""

    bits: Literal[1, 2, 3, 4, 6, 8] = Field(description="bits per weight")
    mode: Literal["kmeans", "uniform", "unique"] = Field(
        default="kmeans", description="how the table entries are chosen"
    )
    granularity: Literal["per_tensor", "per_grouped_channel"] = Field(
        default="per_tensor", description="one table per weight, or one per group of channels"
    )
    group_size: int = Field(default=16, ge=1, description="channels per table, for per_grouped_channel")
    per_channel_scale: bool = Field(default=False, description="scale each channel to a common range first (iOS18)")
    cluster_dim: int = Field(
        default=1, ge=1, description="length of the vectors that a table holds (more than 1: iOS18)"
    )

    def target(self) -> Target:
        """Least target whose runtime can hold the result."""
        modern = (
            self.granularity == "per_grouped_channel"
            or self.per_channel_scale
            or self.cluster_dim > 1
            or self.bits == 3
        )
        return Target.IOS18 if modern else Target.IOS16


class Quantize(_Step):
    """Linear quantization of weights: an integer, a scale and perhaps an offset."""

    dtype: Literal["int8", "uint8", "int4", "uint4"] = Field(description="integer type of the stored weight")
    mode: Literal["linear", "linear_symmetric"] = Field(
        default="linear_symmetric", description="with or without an offset"
    )
    granularity: Literal["per_tensor", "per_channel", "per_block"] = Field(
        default="per_channel", description="what shares one scale"
    )
    block_size: int = Field(default=32, ge=1, description="elements that share a scale, for per_block")

    def target(self) -> Target:
        """Least target whose runtime can hold the result."""
        return Target.IOS18 if self.dtype in ("int4", "uint4") or self.granularity == "per_block" else Target.IOS16


class Prune(_Step):
    """Set the smallest weights to zero and store the rest sparsely."""

    sparsity: Proportion = Field(description="part of each weight that becomes zero, such as 50 %")
    n_m: tuple[int, int] | None = Field(
        default=None, description="n zeros in every m neighbours, instead of a global part"
    )

    def target(self) -> Target:
        """Least target whose runtime can hold the result."""
        return Target.IOS16


class QuantizeActivations(Record):
    """Compute with 8-bit inputs: a quantize and a dequantize op around conv, linear, pooling and add.

    The ranges come from calibration items of the model entry.
    """

    dtype: Literal["int8", "uint8"] = Field(default="int8", description="integer type of the activations")
    mode: Literal["linear", "linear_symmetric"] = Field(
        default="linear_symmetric", description="with or without an offset"
    )
    observer: Literal["min_max", "percentile", "moving_average"] = Field(
        default="min_max", description="how a range follows from all calibration items"
    )
    percentile: float = Field(
        default=99.99,
        gt=50,
        le=100,
        description="part of the values, in percent, that a range must hold, for percentile",
    )
    momentum: float = Field(
        default=0.9, ge=0, lt=1, description="weight of the items before, for moving_average; the first sets the range"
    )

    def target(self) -> Target:
        """Least target whose runtime can hold the result."""
        return Target.IOS17


Action = Palettize | Quantize | Prune
AnyAction = Action | QuantizeActivations
SELECTORS = {"layers", "ops", "names", "larger_than"}


class Step(Record):
    """One step: exactly one of the keys."""

    palettize: Palettize | None = Field(default=None, description="look-up tables")
    quantize: Quantize | None = Field(default=None, description="linear quantization of weights")
    prune: Prune | None = Field(default=None, description="magnitude pruning")
    quantize_activations: QuantizeActivations | None = Field(
        default=None, description="8-bit activations; needs calibration items"
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.model_fields_set) != 1 or self.action is None:
            raise ValueError(
                f"a step has exactly one of {', '.join(type(self).model_fields)}; found {sorted(self.model_fields_set) or 'none'}"
            )
        return self

    @property
    def kind(self) -> str:
        """`palettize`, `quantize`, `prune` or `quantize_activations`."""
        return next(iter(self.model_fields_set))

    @property
    def action(self) -> AnyAction:
        """The step itself."""
        return getattr(self, self.kind)  # type: ignore[no-any-return]


class Override(Record):
    """An exception: which ops, and what is different for them: `skip: true`, or any field of a step."""

    layers: tuple[str, ...] = Field(
        default=(), description="patterns of layer paths in the torch module, such as head.*"
    )
    ops: tuple[str, ...] = Field(default=(), description="MIL op types, such as linear")
    names: tuple[str, ...] = Field(default=(), description="patterns of MIL op or weight names")
    larger_than: int | None = Field(default=None, ge=0, description="only weights with more elements than this")
    skip: bool | tuple[Literal["palettize", "quantize", "prune"], ...] = Field(
        default=False, description="leave these ops alone: by every step, or by the steps named"
    )
    activations: bool = Field(default=True, description="false: their inputs keep their precision; weights do not")
    bits: int | None = Field(default=None, description="as in palettize")
    mode: str | None = Field(default=None, description="as in palettize or quantize")
    granularity: str | None = Field(default=None, description="as in palettize or quantize")
    group_size: int | None = Field(default=None, description="as in palettize")
    per_channel_scale: bool | None = Field(default=None, description="as in palettize")
    cluster_dim: int | None = Field(default=None, description="as in palettize")
    dtype: str | None = Field(default=None, description="as in quantize")
    block_size: int | None = Field(default=None, description="as in quantize")
    sparsity: Proportion | None = Field(default=None, description="as in prune")
    n_m: tuple[int, int] | None = Field(default=None, description="as in prune")
    weight_threshold: int | None = Field(default=None, description="as in every step")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set & SELECTORS:
            raise ValueError(f"an override names {', '.join(sorted(SELECTORS))}")
        says = bool(self.changes) or not self.activations
        if (self.skip is True and says) or not (self.skip or says):
            raise ValueError("an override has either skip: true or fields of a step")
        return self

    @property
    def changes(self) -> dict[str, Any]:
        """The step fields that are different."""
        return {name: getattr(self, name) for name in self.model_fields_set - SELECTORS - {"skip", "activations"}}

    @property
    def takes_all(self) -> bool:
        """Does no op escape it?"""
        return self.names == ("*",) and not (self.ops or self.layers or self.larger_than is not None)

    def matches(self, *, op_type: str, name: str, layer: str | None, elements: int) -> bool:
        """Does this exception speak about that op? Every key that is given must match."""
        return (
            (not self.ops or op_type in self.ops)
            and (not self.names or any(fnmatch.fnmatchcase(name, pattern) for pattern in self.names))
            and (not self.layers or any(fnmatch.fnmatchcase(layer or "", pattern) for pattern in self.layers))
            and (self.larger_than is None or elements > self.larger_than)
        )

    @overload
    def apply(self, action: Action) -> Action | None: ...
    @overload
    def apply(self, action: AnyAction) -> AnyAction | None: ...
    def apply(self, action: AnyAction) -> AnyAction | None:
        """Return the step as it is for the ops that match; None where they are left alone.

        Activations have one setting for the whole program: an op has 8-bit inputs or not.
        """
        if self.skip is True or (self.skip and type(action).__name__.lower() in self.skip):
            return None
        if isinstance(action, QuantizeActivations):
            return action if self.activations else None
        known = {name: value for name, value in self.changes.items() if name in type(action).model_fields}
        if "sparsity" in known:  # already read; a Proportion reads text
            known["sparsity"] = f"{known['sparsity'] * 100} %"
        kept = action.model_dump(exclude={"sparsity"}) | (
            {"sparsity": f"{action.sparsity * 100} %"} if isinstance(action, Prune) else {}
        )
        return type(action).model_validate(kept | known)


class Requires(Record):
    """What a model must bring for a policy to be possible."""

    deployment_target: Target = Field(
        default=Target.IOS15, description="least deployment target whose runtime can hold the result"
    )


class Policy(Record):
    """A recipe: compute precision and ordered compression steps."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=80, description="name of the policy and of its file"
    )
    summary: str = Field(max_length=200, description="what it does and what it costs, in one line")
    requires: Requires = Field(default=Requires(), description="what the model must bring")
    precision: Precision = Field(description="float32, float16, or as-is for a finished package")
    steps: tuple[Step, ...] = Field(default=(), max_length=8, description="compression steps, in order")
    overrides: tuple[Override, ...] = Field(
        default=(), max_length=200, description="exceptions; the first that matches an op counts"
    )
    keep_float32: tuple[str, ...] = Field(
        default=(),
        description="layer paths that stay in float32; of a finished float32 package its ops, such as /softmax or /log:1",
    )

    @model_validator(mode="after")
    def _overrides_fit(self) -> Self:
        for index, override in enumerate(self.overrides):
            for name in override.changes:
                if not any(name in type(step.action).model_fields for step in self.steps):
                    raise ValueError(f"overrides[{index}].{name}: no step of this policy has that field")
            if not override.activations and not self.activations:
                raise ValueError(f"overrides[{index}].activations: no step of this policy quantizes activations")
        return self

    @model_validator(mode="after")
    def _activations_once(self) -> Self:
        if len(self.steps) - len(self.weight_steps) > 1:
            raise ValueError("steps: quantize_activations appears twice; a tensor has one range")
        return self

    @model_validator(mode="after")
    def _target_is_enough(self) -> Self:
        need = self.needed_target
        if self.requires.deployment_target.version < need.version:
            raise ValueError(
                f"requires.deployment_target is {self.requires.deployment_target}, but its steps need {need}"
            )
        return self

    @property
    def needed_target(self) -> Target:
        """The least target that its steps need; a joint sparse form needs iOS18."""
        found = [Target.IOS15, *(action.target() for actions in self.combinations() for action in actions)]
        if self.activations is not None:
            found.append(self.activations.target())
        if any(len(actions) > 1 for actions in self.combinations()):
            found.append(Target.IOS18)
        return max(found, key=lambda target: target.version)

    def combinations(self) -> Iterator[list[Action]]:
        """Yield what may happen to a weight: by each override, and by the steps as they are unless an override takes all ops."""
        every = (step.action for step in self.weight_steps)
        actions = [action for action in every if not isinstance(action, QuantizeActivations)]
        for override in self.overrides:
            yield [changed for action in actions if (changed := override.apply(action)) is not None]
            if override.takes_all:
                return
        yield actions

    @property
    def weight_steps(self) -> tuple[Step, ...]:
        """The steps that change how weights are stored."""
        return tuple(step for step in self.steps if not step.quantize_activations)

    @property
    def activations(self) -> QuantizeActivations | None:
        """The step that quantizes activations, if there is one."""
        return next((step.quantize_activations for step in self.steps if step.quantize_activations), None)

    def action_for(self, step: Step, *, op_type: str, name: str, layer: str | None, elements: int) -> AnyAction | None:
        """Return what `step` does to one op: the step, the step as the first matching override changes it, or nothing."""
        for override in self.overrides:
            if override.matches(op_type=op_type, name=name, layer=layer, elements=elements):
                return override.apply(step.action)
        return step.action

    @cached_property
    def digest(self) -> str:
        """Digest of the policy as read, free of layout and comments."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def refuse_unless_carried_by(self, target: Target, model: str) -> None:
        """Raise PolicyError when a model's deployment target cannot carry this policy."""
        need = self.requires.deployment_target
        if target.version < need.version:
            raise PolicyError(
                f"model {model!r}: policy {self.name} needs deployment target {need}, found {target}; "
                f"raise deployment_target to {need} or choose another policy"
            )


def shipped_policies() -> tuple[str, ...]:
    """Names of the policies that come with the gate."""
    return tuple(sorted(path.stem for path in shipped("policies").glob("*.yaml")))


def load(name: str, folder: Path) -> Policy:
    """Load a shipped policy by name, or the team's own by a path relative to `folder`."""
    if name in shipped_policies():
        return _read(shipped("policies") / f"{name}.yaml", name)
    if name.endswith((".yaml", ".yml")):
        return _read(folder / name, name)
    raise PolicyError(
        f"policy {name!r}: no such policy; known: {', '.join(shipped_policies())}; your own is given as a path ending in .yaml"
    )


def _read(path: Path, where: str) -> Policy:
    data: Any = read_yaml(path, PolicyError)
    return parse(Policy, data, where, PolicyError)
