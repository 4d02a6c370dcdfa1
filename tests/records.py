# SPDX-License-Identifier: Apache-2.0
"""Programs written down op by op, as records: what the static facts are tested on, small enough to count by hand."""

from types import MappingProxyType
from typing import Any

import coremltools as ct
import numpy as np

from gate.mil.program import Argument, Block, Constant, Function, Op, Program, StateType, TensorType, Value
from gate.shapes import Sizes

DTYPES = {"int64": "int32", "float64": "float32"}  # what a plain Python number or list becomes


def value(name: str, *shape: int | None, dtype: str = "float16") -> Value:
    """A computed tensor."""
    return Value(name, TensorType(dtype, shape))


def state(name: str, *shape: int) -> Value:
    """A state."""
    return Value(name, StateType(TensorType("float16", shape)))


def const(thing: Any, name: str = "") -> Constant:
    """A constant from a number, a text, a list or an array."""
    array = np.asarray(thing)
    if array.dtype.kind == "U":
        return Constant(name, TensorType("string", array.shape), array.astype(object))
    kind = "bool" if array.dtype.kind == "b" else DTYPES.get(array.dtype.name, array.dtype.name)
    return Constant(name, TensorType(kind, array.shape), array.astype(kind))


def weight(*shape: int, seed: int = 0) -> Constant:
    """A float16 weight of random values."""
    return const(np.random.default_rng(seed).standard_normal(shape).astype(np.float16), "w")


def op(kind: str, output: Value | tuple[Value, ...], blocks: tuple[Block, ...] = (), **inputs: Any) -> Op:
    """One op; a tuple gives a parameter several arguments."""
    outputs = output if isinstance(output, tuple) else (output,)
    given = {
        name: tuple(map(_argument, thing)) if isinstance(thing, tuple) else (_argument(thing),)
        for name, thing in inputs.items()
    }
    return Op(kind, outputs[0].name if outputs else kind, MappingProxyType(given), outputs, blocks)


def _argument(thing: Any) -> Argument:
    return thing if isinstance(thing, Value | Constant) else const(thing)


def function(inputs: tuple[Value, ...], *ops: Op, outputs: tuple[Argument, ...], opset: str = "CoreML7") -> Function:
    """An entry of a program."""
    return Function("main", opset, Block(inputs, ops, outputs))


def program(main: Function, **description: Any) -> Program:
    """A program whose description names what the function takes and returns."""
    spec = ct.proto.Model_pb2.Model()
    for value_ in main.inputs:
        if not isinstance(value_.type, StateType):
            _feature(spec.description.input.add(), value_)
    for value_ in main.body.outputs:
        _feature(spec.description.output.add(), value_)
    return Program(MappingProxyType({"main": main}), "main", spec)


def _feature(spec: Any, described: Argument) -> None:
    kind = described.type
    assert isinstance(kind, TensorType)
    spec.name = described.name
    array = spec.type.multiArrayType
    array.dataType = {"float16": 65552, "float32": 65568, "int32": 131104}[kind.dtype]
    array.shape.extend(n or 1 for n in kind.shape or ())


def sizes(main: Function) -> Sizes:
    """The sizes of a function that declares them all."""
    return Sizes(main, {})
