# SPDX-License-Identifier: Apache-2.0
"""Programs of one op, written as records: what a row of the op table runs through."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gate.mil import ops as ops  # registers the kernels
from gate.mil.compiler import Plan, compile_function
from gate.mil.constants import Constants
from gate.mil.evaluator import Observe, Run
from gate.mil.numerics import Precision, Rounding
from gate.mil.program import Argument, Block, Constant, Function, Op, TensorType, Value
from gate.mil.quick import quick

DTYPES = {"float32": "float32", "float64": "float32", "int64": "int32", "int32": "int32", "bool": "bool"}


def tensor(value: Any) -> Tensor:
    """Return what a test writes as the tensor that the evaluator would hold."""
    array = np.asarray(value)
    return torch.from_numpy(array.astype(DTYPES.get(array.dtype.name, array.dtype.name)))


def run_op(
    op_type: str,
    inputs: dict[str, Any],
    expected: tuple[Tensor, ...],
    dtype: str = "float32",
    opset: str = "CoreML8",
    precision: Precision = Precision.DECLARED,
    declared: tuple[str, ...] = (),
    observe: Observe | None = None,
) -> tuple[Any, ...]:
    """Run one op, as who observes it does and as who does not; arrays are computed values, Python numbers and lists of them constants."""
    _, plan, values = one_op(op_type, inputs, expected, dtype, opset, precision, declared)
    slots = list(plan.presets)
    for slot, x in zip(plan.body.inputs, values, strict=True):
        slots[slot] = x
    sooner = list(slots)
    Run(plan, slots, observe=observe).steps(plan.body.steps)
    Run(plan, sooner).quickly(quick(plan).body.steps)
    for slot in plan.body.outputs:
        assert same(slots[slot], sooner[slot])
    return tuple(slots[slot] for slot in plan.body.outputs)


def same(a: Any, b: Any) -> bool:
    """Say whether two results are equal, bit for bit."""
    if isinstance(a, Tensor):
        return (
            a.dtype == b.dtype
            and a.shape == b.shape
            and np.array_equal(a.numpy(), b.numpy(), equal_nan=a.is_floating_point())
        )
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def one_op(
    op_type: str,
    inputs: dict[str, Any],
    expected: tuple[Tensor, ...],
    dtype: str = "float32",
    opset: str = "CoreML8",
    precision: Precision = Precision.DECLARED,
    declared: tuple[str, ...] = (),
) -> tuple[Function, Plan, list[Tensor]]:
    """Return a function of one op, its plan, and the values it reads."""
    values: dict[Value, Tensor] = {}
    arguments = {name: _arguments(name, value, values, dtype) for name, value in inputs.items()}
    types = declared or tuple(dtype if x.is_floating_point() else str(x.dtype).removeprefix("torch.") for x in expected)
    outputs = tuple(
        Value(f"out{i}", TensorType(t, tuple(x.shape))) for i, (t, x) in enumerate(zip(types, expected, strict=True))
    )
    body = Block(tuple(values), (Op(op_type, op_type, arguments, outputs),), outputs)
    function = Function("main", opset, body)
    plan = compile_function(function, lambda op: Rounding(precision), Rounding(precision), Constants())
    return function, plan, list(values.values())


def _arguments(name: str, value: Any, values: dict[Value, Tensor], dtype: str) -> tuple[Argument, ...]:
    if isinstance(value, tuple):
        return tuple(a for i, part in enumerate(value) for a in _arguments(f"{name}{i}", part, values, dtype))
    if isinstance(value, np.ndarray):
        x = tensor(value)
        kind = dtype if x.is_floating_point() else str(x.dtype).removeprefix("torch.")
        computed = Value(name, TensorType(kind, tuple(x.shape)))
        values[computed] = x.half().float() if kind == "float16" else x
        return (computed,)
    return (_constant(name, value, dtype),)


def _constant(name: str, value: Any, dtype: str) -> Constant:
    array = np.asarray(value)
    if array.dtype.kind == "U":
        return Constant(name, TensorType("string", array.shape), array.astype(object))
    kind = dtype if array.dtype.kind == "f" else DTYPES[array.dtype.name]
    return Constant(name, TensorType(kind, array.shape), array.astype(kind))
