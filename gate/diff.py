# SPDX-License-Identifier: Apache-2.0
"""What changed between two packages, op by op and weight by weight?

`gate.alignment` says which op is which; here the partners are compared. An op whose outputs only have other shapes because of a change
before it is counted apart, so that one changed stride is one change.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, FiniteFloat

from gate.alignment import Graph, Node, Pairs, Partners, Source, make_graph, written
from gate.document import Record
from gate.errors import UsageError
from gate.files import located
from gate.interface import changes, read_interface
from gate.mil import MilError
from gate.mil.program import Program, TensorType, Value, load_program
from gate.mil.weights import Weight, weights
from gate.quantity import size

MOST_LINES = 40


class Kind(StrEnum):
    """What happened to an op."""

    ADDED = "added"
    REMOVED = "removed"
    PARAMETER = "parameter"
    TYPE = "type"
    INPUT = "input"
    SHAPE = "shape"  # follows from a change before it


class Encoding(StrEnum):
    """What happened to a weight."""

    REENCODED = "re-encoded"
    VALUES = "values"
    RESHAPED = "reshaped"


class OpChange(Record):
    """One change of one op."""

    kind: Kind = Field(description="added, removed, parameter, type, input, or shape where it only follows")
    op: str = Field(description="op type")
    before: str | None = Field(description="its name in the first package")
    after: str | None = Field(description="its name in the second")
    what: str = Field(default="", description="what is different")


class WeightChange(Record):
    """One weight that is stored or valued differently."""

    kind: Encoding = Field(description="re-encoded, values (same form), or reshaped")
    before: str = Field(description="reader and parameter in the first package")
    after: str = Field(description="the same in the second")
    what: str = Field(description="forms and bits before and after")
    bytes_before: int = Field(description="bytes of all that is stored for it")
    bytes_after: int = Field(description="the same in the second package")
    max_change: FiniteFloat | None = Field(default=None, description="largest difference of decoded values")
    relative_change: FiniteFloat | None = Field(default=None, description="the same over the largest value before")


class Difference(Record):
    """What changed from the first package to the second."""

    summary: str = Field(description="in one line")
    same_topology: bool = Field(description="every op has a partner with the same parameters, element types and inputs")
    interface: tuple[str, ...] = Field(default=(), description="what the app's code would notice")
    ops: tuple[OpChange, ...] = Field(default=(), description="changed ops, in the order of the second package")
    weights: tuple[WeightChange, ...] = Field(default=(), description="changed weights")
    renamed: int = Field(default=0, description="ops that have another name and are the same otherwise")
    reordered: bool = Field(default=False, description="independent ops are written in another order")
    matched: int = Field(default=0, description="ops with a partner")

    def text(self) -> str:
        """Show it for a person."""
        return "\n".join(_lines(self))


def diff(before: Path, after: Path) -> Difference:
    """Compare two packages; both must be ML programs."""
    return compare(_load(before), _load(after))


def _load(package: Path) -> Program:
    try:
        return load_program(package)
    except MilError as error:
        raise UsageError(located(package, error)) from None


def compare(before: Program, after: Program) -> Difference:
    """Compare two programs, function by function."""
    old, new = weights(before), weights(after)
    found: list[_Found] = []
    common: list[str | None] = [*sorted({*before.functions} & {*after.functions})]
    for name in common or [None]:
        a, b = before.function(name), after.function(name)
        found.append(_compare(make_graph(a, old, a), make_graph(b, new, a)))
    interface = tuple(c.what for c in changes(read_interface(before), read_interface(after)))
    return _difference(found, interface)


@dataclass(frozen=True)
class _Found:
    """What changed in one function."""

    ops: tuple[OpChange, ...]
    weights: tuple[WeightChange, ...]
    renamed: int
    reordered: bool
    matched: int


def _compare(old: Graph, new: Graph) -> _Found:
    partners = Partners(old, new)
    pairs, before = partners.pairs, partners.before
    ops: list[OpChange] = [_lone(Kind.REMOVED, a) for a in old.nodes if a not in partners.after]
    for b in new.nodes:
        ops += _op_changes(before[b], b, partners) if b in before else [_lone(Kind.ADDED, b)]
    ops += _output_changes(old, new, partners)
    changed = {(c.before, c.after) for c in ops}
    names = [(a.op.name, b.op.name) for a, b in pairs]
    places = [b.place for _, b in sorted(pairs, key=lambda pair: pair[0].place)]
    return _Found(
        ops=tuple(ops),
        weights=tuple(_weight_changes(pairs)),
        renamed=sum(a != b and (a, b) not in changed for a, b in names),
        reordered=places != sorted(places),
        matched=len(pairs),
    )


def _output_changes(old: Graph, new: Graph, partners: Partners) -> Iterator[OpChange]:
    """Name outputs that another op computes now; an added or removed op says so itself."""
    for (was, a), (now, b) in zip(old.outputs, new.outputs, strict=False):
        if partners.moved(a, b):
            what = f"comes from {_told(b)} instead of {_told(a)}"
            yield OpChange(kind=Kind.INPUT, op="output", before=was, after=now, what=what)


def _lone(kind: Kind, node: Node) -> OpChange:
    before, after = (node.op.name, None) if kind is Kind.REMOVED else (None, node.op.name)
    return OpChange(kind=kind, op=node.op.type, before=before, after=after, what=", ".join(node.types))


def _op_changes(a: Node, b: Node, partners: Partners) -> list[OpChange]:
    def change(kind: Kind, what: str) -> OpChange:
        return OpChange(kind=kind, op=b.op.type, before=a.op.name, after=b.op.name, what=what)

    found = [change(Kind.PARAMETER, what) for what in _parameter_changes(a, b)]
    found += [change(Kind.INPUT, what) for what in _input_changes(a, b, partners)]
    types = [(_dtype(x), _dtype(y)) for x, y in zip(a.op.outputs, b.op.outputs, strict=False)]
    if any(x != y for x, y in types) or len(a.op.outputs) != len(b.op.outputs):
        found.append(change(Kind.TYPE, f"{', '.join(a.types)} → {', '.join(b.types)}"))
    elif a.types != b.types:
        found.append(change(Kind.SHAPE, f"{', '.join(a.types)} → {', '.join(b.types)}"))
    return found


def _dtype(value: Value) -> str:
    return value.type.dtype if isinstance(value.type, TensorType) else str(value.type)


def _parameter_changes(a: Node, b: Node) -> Iterator[str]:
    """Compare what steers an op; `val` of `dtype` of a cast says the same as its type."""
    for name in sorted({*a.parameters, *b.parameters}):
        old, new = (written(n.parameters[name]) if name in n.parameters else "none" for n in (a, b))
        if old != new:
            yield f"{name} {old} → {new}"
    for name in sorted({*a.weights} ^ {*b.weights}):
        yield f"weight {name} {'removed' if name in a.weights else 'added'}"


def _input_changes(a: Node, b: Node, partners: Partners) -> Iterator[str]:
    """Name inputs that come from elsewhere, unless they only step over what was added or removed."""
    for name in sorted({*a.reads} | {*b.reads}):
        old, new = a.reads.get(name), b.reads.get(name)
        if old is None or new is None:
            yield f"{name} is {'computed' if new else 'no longer computed'}"
        elif partners.moved(old, new):
            yield f"{name} reads {_told(new)} instead of {_told(old)}"


def _told(source: Source) -> str:
    return f"{source.node.op.type} {source.node.op.name}" if source.node is not None else f"input {source.place}"


def _weight_changes(pairs: Pairs) -> Iterator[WeightChange]:
    seen: set[tuple[int, int]] = set()
    for a, b in pairs:
        for name in a.weights.keys() & b.weights.keys():
            old, new = a.weights[name], b.weights[name]
            if (id(old), id(new)) in seen or a.stored[name] == b.stored[name]:
                continue
            seen.add((id(old), id(new)))
            yield _weight_change(f"{a.op.name}.{name}", f"{b.op.name}.{name}", old, new)


def _weight_change(before: str, after: str, old: Weight, new: Weight) -> WeightChange:
    forms = tuple(f"{' → '.join(w.forms) or 'plain'} {w.dtype}, {w.bits} bits" for w in (old, new))
    same = old.shape == new.shape
    kind = Encoding.RESHAPED if not same else Encoding.VALUES if forms[0] == forms[1] else Encoding.REENCODED
    worst, largest = _largest_change(old, new) if same else (None, None)
    what = f"{forms[0]}; now {forms[1]}" if kind is Encoding.REENCODED else forms[1]
    return WeightChange(
        kind=kind,
        before=before,
        after=after,
        what=what if same else f"{list(old.shape)} → {list(new.shape)}",
        bytes_before=old.package_bytes,
        bytes_after=new.package_bytes,
        max_change=worst,
        relative_change=worst / largest if worst is not None and largest else None,
    )


def _largest_change(old: Weight, new: Weight) -> tuple[float | None, float | None]:
    """Return the largest difference of decoded values, and the largest value before; None where they are not finite."""
    before: Any = old.decode()
    worst, largest = float(np.abs(before - new.decode()).max(initial=0)), float(np.abs(before).max(initial=0))
    return (worst, largest) if np.isfinite(worst) else (None, None)


def _difference(found: list[_Found], interface: tuple[str, ...]) -> Difference:
    ops = tuple(c for one in found for c in one.ops)
    changed = tuple(c for one in found for c in one.weights)
    facts = Difference(
        summary="",
        same_topology=all(change.kind is Kind.SHAPE for change in ops),
        interface=interface,
        ops=ops,
        weights=changed,
        renamed=sum(one.renamed for one in found),
        reordered=any(one.reordered for one in found),
        matched=sum(one.matched for one in found),
    )
    return facts.model_copy(update={"summary": _summary(facts)})


def _summary(facts: Difference) -> str:
    kinds = Counter(c.kind for c in facts.ops if c.kind in (Kind.ADDED, Kind.REMOVED))
    altered = {(c.before, c.after) for c in facts.ops if c.kind in (Kind.PARAMETER, Kind.TYPE, Kind.INPUT)}
    other_shapes = sum(c.kind is Kind.SHAPE for c in facts.ops)
    parts = ["same topology"] if facts.same_topology else []
    parts += [f"{_count(other_shapes, 'op')} of other shapes"] if other_shapes and facts.same_topology else []
    parts += [f"{_count(len(altered), 'op')} changed"] if altered else []
    parts += [f"{_count(kinds[kind], 'op')} {kind}" for kind in (Kind.ADDED, Kind.REMOVED) if kinds[kind]]
    for kind, told in (
        (Encoding.REENCODED, "re-encoded"),
        (Encoding.VALUES, "changed"),
        (Encoding.RESHAPED, "reshaped"),
    ):
        number = sum(w.kind is kind for w in facts.weights)
        parts += [f"{_count(number, 'weight')} {told}"] if number else []
    parts += [f"interface changed ({_count(len(facts.interface), 'difference')})"] if facts.interface else []
    if not facts.ops and not facts.weights:
        parts.append("no weight changed")
    return ", ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _lines(facts: Difference) -> Iterator[str]:
    yield facts.summary
    yield from (f"interface  {what}" for what in facts.interface)
    told = [c for c in facts.ops if c.kind is not Kind.SHAPE]
    for change in told[:MOST_LINES]:
        name = change.after or change.before
        other = f" (was {change.before})" if change.before and change.before != name else ""
        yield f"{change.kind:<10} {change.op} {name}{other}: {change.what}"
    following = sum(c.kind is Kind.SHAPE for c in facts.ops)
    if following:
        yield f"shape      {_count(following, 'op')} compute other shapes in consequence"
    for weight in facts.weights[:MOST_LINES]:
        moved = "" if weight.max_change is None else f", largest change {weight.max_change:.3g}"
        share = (
            "" if weight.relative_change is None else f" ({100 * weight.relative_change:.2g} % of the largest value)"
        )
        sizes = f"{size(weight.bytes_before)} → {size(weight.bytes_after)}"
        yield f"{weight.kind:<10} {weight.after}: {weight.what}; {sizes}{moved}{share}"
    hidden = max(len(told) - MOST_LINES, 0) + max(len(facts.weights) - MOST_LINES, 0)
    yield from [f"… {hidden} more; --json has all"] if hidden else []
    yield from [f"renamed    {_count(facts.renamed, 'op')}"] if facts.renamed else []
    yield from ["reordered  independent ops are written in another order"] if facts.reordered else []
