# SPDX-License-Identifier: Apache-2.0
"""Which outputs choose (an argmax, a rank, a comparison) instead of saying how much?

The integers of a count or a position are right or wrong. Those of a choice turn over where two candidates are all but equal, which a rounding
decides as well as any other: what counts is how many places turn.
"""

from collections.abc import Iterator
from pathlib import Path

from gate.mil import MilError
from gate.mil.program import Argument, Block, Op, Value, load_program

COMPARES = frozenset({"equal", "not_equal", "greater", "greater_equal", "less", "less_equal"})
COMBINES = frozenset({"logical_and", "logical_or", "logical_xor", "logical_not"})
CHOOSES = COMPARES | COMBINES | {"reduce_argmax", "reduce_argmin", "argsort", "topk"}
PICKS = frozenset({"slice_by_index", "slice_by_size", "gather", "gather_along_axis", "gather_nd"})
MOVES = PICKS | {"cast", "identity", "reshape", "squeeze", "expand_dims", "transpose", "concat", "stack", "reverse"}


def choices(package: Path) -> frozenset[str]:
    """Name the outputs of a package's program that are choices; none of one that cannot be read."""
    try:
        return chosen(load_program(package).function().body)
    except MilError:
        return frozenset()


def chosen(body: Block) -> frozenset[str]:
    """Name the outputs of a function that are choices."""
    makers = {value.name: op for op in body.ops for value in op.outputs}
    return frozenset(o.name for o in body.outputs if isinstance(o, Value) and _chooses(o, makers))


def _chooses(argument: Argument, makers: dict[str, Op]) -> bool:
    """Follow a value back over what only moves it."""
    pending, seen = [argument], set()
    while pending:
        one = pending.pop()
        op = makers.get(one.name) if isinstance(one, Value) else None
        if op is None:
            return False
        if op.type in MOVES and op.name not in seen:
            seen.add(op.name)
            pending += _moved(op)
        elif op.type not in CHOOSES | MOVES:
            return False
    return True


def _moved(op: Op) -> Iterator[Argument]:
    """Yield what an op moves, which may be several things."""
    yield from next(op.inputs[name] for name in ("x", "values") if name in op.inputs)
