# SPDX-License-Identifier: Apache-2.0
"""Which function computes a MIL op, and how does it get its arguments?

    @kernel()
    def reduce_sum(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:

A kernel is one plain function with the name of the op, in the module that coremltools' definitions call the same
(`converters/mil/mil/ops/defs`). Its parameters are MIL's, and **the annotation says in which form one arrives**,
no matter whether the program holds it as a constant or computes it:

| annotation | arrives as |
|---|---|
| `Tensor` | a float32, int32 or bool tensor (int8, uint16 … are int32 tensors, float16 a float32 tensor) |
| `Filters` | a tensor as well; constant weights of a 2-D convolution are laid out as oneDNN convolves them (`conv.filters`) |
| `Gates` | a tensor as well: an lstm's weights with the gates in torch's order (input, forget, cell, output; MIL has output before cell) |
| `Tensors` | a list of them: MIL's tuples, such as `concat`'s `values` |
| `int`, `float`, `bool`, `str` | a plain Python value |
| `Ints`, `Floats`, `Bools`, `Strings` | a flat list of them |
| `State` | the box of a state: read and assign `.value` |
| `TensorList` | a Python list of tensors; never change it in place, return a new one |
| `Context` | not an input: the op itself, its declared outputs, `run_block`, `generator` (see `Context`) |

`| None = None` marks an optional one. MIL's defaults are the Python defaults. A misspelt parameter name is found when the
program is loaded, since every input of the op must have a parameter.

A kernel returns a tensor (or a tuple, one for each declared output), computed in float32; it never rounds: the loop
settles the result into the declared dtype (`numerics.py`), and checks its shape. Return a new tensor or a view, never
change an argument. Return float32, int32, int64 or bool, whatever comes naturally.

`@kernel(exact=True)` marks ops that move values or pick among them, so that nothing needs rounding.
`@kernel(fresh=True)` promises that the result is always new memory, never a view or an argument, so that it is rounded in place,
and what it reads may be overwritten once nobody else reads it (`overwriting.py`).
`@kernel(rows=True)` promises that its first input, of rank 2 or more, may have any number of rows, each of which gives as many as
before: a stack of samples then runs as one call, without `torch.vmap`.
`@kernel("name")` serves a name that Python can't spell or another opset: `@kernel("constexpr_lut_to_dense", since="CoreML8")`
replaces the older one from iOS18 on. `batch=False` says that `torch.vmap` must not see it: samples run one by one.
Adding a kernel touches two files: its family module, and a row in `tests/mil/op_cases.py`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from gate.mil.program import OPSETS, Block, Op, Type

Tensors = list[Tensor]
Filters = Tensor
Gates = Tensor
TensorList = list[Tensor]
Ints = list[int]
Floats = list[float]
Bools = list[bool]
Strings = list[str]
Rest = Callable[..., Tensor]  # what a kernel does once most of its inputs are known
Function = TypeVar("Function", bound=Callable[..., Any])
Result = Any  # a tensor, a tuple of them, a list, or what `classify` returns


MAX_ELEMENTS = 2**28  # of one computed tensor: 1 GiB


class Layout(NamedTuple):
    """How a constant lies in memory for an op; equal names mean the same."""

    name: str
    apply: Callable[[Tensor], Tensor]


class State:
    """The box of a state; its `value` outlives a prediction."""

    __slots__ = ("value",)

    def __init__(self, value: Tensor) -> None:
        self.value = value


@dataclass(frozen=True)
class Context:
    """What a few kernels need beside their inputs."""

    op: Op
    run_block: Callable[[Block, tuple[Any, ...]], tuple[Any, ...]] = field(repr=False)
    generator: torch.Generator = field(repr=False)

    @property
    def outputs(self) -> tuple[Type, ...]:
        """Return the declared types of the op's outputs."""
        return tuple(value.type for value in self.op.outputs)


@dataclass(frozen=True)
class Kernel:
    """A function that computes an op from opset `since` on."""

    function: Callable[..., Result]
    parameters: Mapping[str, str]  # name to annotation, without `| None`
    context: str | None  # the parameter that takes the Context
    exact: bool
    batch: bool
    since: str
    fresh: bool = False
    rows: bool = False


KERNELS: dict[str, list[Kernel]] = {}
NARROW: dict[str, Kernel] = {}  # composite ops as chains of rounded steps (narrow.py)
ACCUMULATE16: dict[str, Kernel] = {}  # sums that run in half (narrow.py)
PLANS: dict[Callable[..., Result], Callable[..., Rest | None]] = {}
LAYOUTS: dict[str, Callable[[Op, Mapping[str, Any]], Layout]] = {}  # by annotation, from an op and its other constants


def kernel(
    *types: str,
    exact: bool = False,
    fresh: bool = False,
    rows: bool = False,
    batch: bool = True,
    since: str = OPSETS[0],
) -> Callable[[Function], Function]:
    """Register a function for the op types given, or for the type of its own name."""

    def register(function: Function) -> Function:
        parameters = {n: _annotation(p) for n, p in inspect.signature(function).parameters.items()}
        context = next((n for n, a in parameters.items() if a == "Context"), None)
        mil = {n: a for n, a in parameters.items() if a != "Context"}
        entry = Kernel(function, mil, context, exact, batch, since, fresh, rows)
        for name in types or (function.__name__.rstrip("_"),):
            versions = KERNELS.setdefault(name, [])
            versions.append(entry)
            versions.sort(key=lambda k: OPSETS.index(k.since), reverse=True)
        return function

    return register


def variant(table: dict[str, Kernel], *types: str) -> Callable[[Function], Function]:
    """Register how an op computes under a harsher precision; it takes the same inputs."""

    def register(function: Function) -> Function:
        parameters = {n: _annotation(p) for n, p in inspect.signature(function).parameters.items()}
        for name in types or (function.__name__,):
            table[name] = Kernel(function, parameters, None, False, True, OPSETS[0])
        return function

    return register


def layout(annotation: str) -> Callable[[Function], Function]:
    """Register how constants of parameters with this annotation lie in memory."""

    def register(function: Function) -> Function:
        LAYOUTS[annotation] = function
        return function

    return register


def plan(kernel_: Callable[..., Result]) -> Callable[[Function], Function]:
    """Register what works out a kernel once the inputs that it takes are known, and the sizes of the first.

    It returns what takes the others, or None where that would be the kernel itself.
    """

    def register(function: Function) -> Function:
        PLANS[kernel_] = function
        return function

    return register


def is_stack(x: Tensor) -> bool:
    """Say whether `torch.vmap` is showing one of many samples."""
    return bool(torch._C._functorch.is_batchedtensor(x))


def bounded(shape: Iterable[int]) -> Ints:
    """Return the shape of a tensor about to be made; refuse one that no honest model has."""
    sizes = [int(n) for n in shape]
    if math.prod(max(n, 1) for n in sizes) > MAX_ELEMENTS:
        raise ValueError(f"the result would have the shape {sizes}, above {MAX_ELEMENTS} elements")
    return sizes


def find(op_type: str, opset: str) -> Kernel | None:
    """Return the newest kernel that the opset knows."""
    level = OPSETS.index(opset)
    return next((k for k in KERNELS.get(op_type, []) if OPSETS.index(k.since) <= level), None)


def _annotation(parameter: inspect.Parameter) -> str:
    return str(parameter.annotation).removesuffix(" | None")
