# SPDX-License-Identifier: Apache-2.0
"""What changed between two packages, op by op and weight by weight?

Names are the last thing that is looked at, since every conversion may give others. Both programs are put into the order in which
their outputs need them, so that moving independent ops changes nothing, and are then aligned by what the ops are: first where all
that leads to them is equal, then with other weights, then op by op with less and less in common.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, FiniteFloat

from gate.document import Record
from gate.errors import UsageError
from gate.interface import changes, read_interface
from gate.mil import MilError
from gate.mil.program import Constant, Function, Op, Program, TensorType, Value, load_program
from gate.mil.weights import Weight, weights
from gate.quantity import size

MOST_LINES = 40
MOST_VALUES = 8  # of a constant that is written out


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
        raise UsageError(f"{package}: {error}") from None


def compare(before: Program, after: Program) -> Difference:
    """Compare two programs, function by function."""
    old, new = weights(before), weights(after)
    found: list[_Found] = []
    common: list[str | None] = [*sorted({*before.functions} & {*after.functions})]
    for name in common or [None]:
        a, b = before.function(name), after.function(name)
        found.append(_compare(_graph(a, old, a), _graph(b, new, a)))
    interface = tuple(c.what for c in changes(read_interface(before), read_interface(after)))
    return _difference(found, interface)


@dataclass(eq=False)
class Node:
    """One op with what identifies it."""

    op: Op
    place: int  # in the program as written
    parameters: dict[str, Constant]
    weights: dict[str, Weight]
    reads: dict[str, "Source"]
    stored: dict[str, bytes]  # digests of its weights, as stored
    exact: bytes = b""  # digests of all that leads to it, with weights and without
    topology: bytes = b""
    _keys: dict[str, Hashable] = field(default_factory=dict)

    @property
    def types(self) -> tuple[str, ...]:
        """The declared types of its outputs."""
        return tuple(str(v.type) for v in self.op.outputs)

    def key(self, level: str) -> Hashable:
        """Return what must be equal to be matched at a level."""
        if level not in self._keys:
            self._keys[level] = LEVELS[level](self)
        return self._keys[level]


@dataclass(frozen=True)
class Source:
    """Where a value comes from: an op and the place among its outputs, or a place among the inputs."""

    node: Node | None
    place: int

    def digest(self, level: str) -> bytes:
        """Identify the value by what leads to it."""
        made = getattr(self.node, level) if self.node is not None else b"input"
        return made + self.place.to_bytes(4, "little")


Nodes = list[Node]


@dataclass(frozen=True)
class Graph:
    """The ops of a function in the order in which its outputs need them, and where the outputs come from."""

    nodes: Nodes
    outputs: tuple[tuple[str, Source], ...]


def _graph(function: Function, held: tuple[Weight, ...], first: Function) -> Graph:
    """Make the graph of a function; its inputs have the places of those of the first function."""
    read_by = {(n, p): w for w in held if w.function == function.name for _, n, p in w.consumers}
    places = _input_places(first, function)
    sources: dict[Value, Source] = {v: Source(None, places[v]) for v in function.inputs}
    graph: Nodes = []
    for op in _canonical(function):
        node = _node(op, len(graph), read_by, sources)
        sources |= {v: Source(node, i) for i, v in enumerate(op.outputs)}
        for block in op.blocks:
            sources |= {v: Source(None, i) for i, v in enumerate(block.inputs)}
        graph.append(node)
    written = {op: i for i, op in enumerate(function.body.walk())}
    for node in graph:
        node.place = written[node.op]
    outputs = tuple((v.name, sources[v]) for v in function.body.outputs if isinstance(v, Value))
    return Graph(graph, outputs)


def _input_places(first: Function, function: Function) -> dict[Value, int]:
    """Number inputs as those of the same name in the first function, else by their order."""
    known = {v.name: i for i, v in enumerate(first.inputs)}
    free = iter(
        [i for v, i in ((v.name, i) for i, v in enumerate(first.inputs)) if v not in {u.name for u in function.inputs}]
    )
    return {v: known[v.name] if v.name in known else next(free, len(known) + i) for i, v in enumerate(function.inputs)}


def _node(op: Op, place: int, read_by: dict[tuple[str, str], Weight], sources: dict[Value, Source]) -> Node:
    node = Node(op, place, {}, {}, {}, {})
    for name, arguments in sorted(op.inputs.items()):
        for index, argument in enumerate(arguments):
            where = name if len(arguments) == 1 else f"{name}[{index}]"
            if (op.name, where) in read_by:
                node.weights[where] = read_by[op.name, where]
                node.stored[where] = _digest(node.weights[where])
            elif isinstance(argument, Constant):
                node.parameters[where] = argument
            else:
                node.reads[where] = sources.get(argument, Source(None, -1))
    for level in ("exact", "topology"):
        setattr(node, level, _merkle(node, level))
    return node


def _merkle(node: Node, level: str) -> bytes:
    state = hashlib.blake2b(repr((node.op.type, _parameters(node), node.types)).encode(), digest_size=16)
    state.update(repr(tuple(op.type for block in node.op.blocks for op in block.walk())).encode())
    state.update(repr(_stored(node) if level == "exact" else _shapes(node)).encode())
    for name, source in node.reads.items():
        state.update(name.encode() + source.digest(level))
    return state.digest()


def _canonical(function: Function) -> list[Op]:
    """Sort the ops by need, depth first from the outputs; what nothing needs comes last. Nested ops follow the op that holds them."""
    made = {v: op for op in function.body.ops for v in op.outputs if not op.type.startswith("constexpr_")}
    done: dict[Op, None] = {}
    waiting: list[tuple[Op, bool]] = [(op, False) for op in reversed(function.body.ops) if op in set(made.values())]
    waiting += [(made[v], False) for v in reversed(function.body.outputs) if v in made]
    while waiting:
        op, ready = waiting.pop()
        if op in done:
            continue
        if ready:
            done[op] = None
            continue
        waiting.append((op, True))
        waiting += [(made[v], False) for v in reversed(list(_needs(op))) if v in made and made[v] not in done]
    return [each for op in done for each in (op, *(o for b in op.blocks for o in b.walk()))]


def _needs(op: Op) -> Iterator[Value]:
    for _, arguments in sorted(op.inputs.items()):
        yield from (a for a in arguments if isinstance(a, Value))
    for block in op.blocks:
        for inner in block.walk():
            yield from _needs_here(inner)
        yield from (a for a in block.outputs if isinstance(a, Value))


def _needs_here(op: Op) -> Iterator[Value]:
    for _, arguments in sorted(op.inputs.items()):
        yield from (a for a in arguments if isinstance(a, Value))


def _parameters(node: Node) -> tuple[tuple[str, str], ...]:
    return tuple((name, _written(constant)) for name, constant in node.parameters.items())


def _written(constant: Constant) -> str:
    values = np.asarray(constant.array).reshape(-1)
    shown = (
        values.tolist()
        if values.size <= MOST_VALUES
        else hashlib.sha256(repr(values.tolist()).encode()).hexdigest()[:12]
    )
    return str(shown[0] if isinstance(shown, list) and np.ndim(constant.array) == 0 else shown)


def _stored(node: Node) -> tuple[tuple[str, bytes], ...]:
    return tuple(node.stored.items())


def _shapes(node: Node) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, weight.shape) for name, weight in node.weights.items())


def _digest(weight: Weight) -> bytes:
    """Identify a weight by its form and stored bytes."""
    state = hashlib.blake2b(repr(weight.forms).encode(), digest_size=16)
    for stored in weight.stored:
        state.update(f"{stored.parameter} {stored.dtype} {stored.shape}".encode())
        if stored.dtype != "string":
            state.update(stored.constant.stored.data)
    return state.digest()


def _op(node: Node) -> Hashable:
    """Identify an op by all that it is, whatever leads to it."""
    return (node.op.type, _parameters(node), node.types, _stored(node))


LEVELS: dict[str, Callable[[Node], Hashable]] = {  # from all in common to little
    "exact": lambda n: n.exact,
    "same layer": lambda n: _op(n) if n.weights else id(n),  # weights tell one layer from its likes
    "topology": lambda n: n.topology,
    "same op": lambda n: _op(n),
    "same form": lambda n: (n.op.type, _parameters(n), n.types, _shapes(n)),
    "same weights": lambda n: (n.op.type, _stored(n)) if n.weights else id(n),
    "other type": lambda n: (n.op.type, _parameters(n), _shapes(n)),
    "same name": lambda n: (n.op.type, n.op.name),
    "same shapes": lambda n: (n.op.type, _shapes(n)),
    "same kind": lambda n: n.op.type,
}
Pairs = list[tuple[Node, Node]]


def _align(old: Nodes, new: Nodes, levels: Sequence[str]) -> Pairs:
    """Match two stretches at the first level, and what lies between the matches at the next."""
    if not old or not new or not levels:
        return []
    level, *rest = levels
    matcher = SequenceMatcher(None, [n.key(level) for n in old], [n.key(level) for n in new], autojunk=False)
    pairs: Pairs = []
    i = j = 0
    for block in matcher.get_matching_blocks():
        pairs += _align(old[i : block.a], new[j : block.b], rest)
        pairs += zip(old[block.a : block.a + block.size], new[block.b : block.b + block.size], strict=True)
        i, j = block.a + block.size, block.b + block.size
    return pairs


def _match(old: Nodes, new: Nodes) -> Pairs:
    """Align, then pair what was moved past something else and is unmistakable."""
    pairs = _align(old, new, tuple(LEVELS))
    taken = {id(n) for pair in pairs for n in pair}
    waiting: dict[Hashable, list[Node]] = {}
    for node in old:
        if id(node) not in taken:
            waiting.setdefault(node.key("same op"), []).append(node)
    for node in new:
        if id(node) not in taken and waiting.get(node.key("same op")):
            pairs.append((waiting[node.key("same op")].pop(0), node))
    return pairs


@dataclass(frozen=True)
class _Found:
    """What changed in one function."""

    ops: tuple[OpChange, ...]
    weights: tuple[WeightChange, ...]
    renamed: int
    reordered: bool
    matched: int


def _compare(old: Graph, new: Graph) -> _Found:
    pairs = _match(old.nodes, new.nodes)
    partner = dict(pairs)
    before = {b: a for a, b in pairs}
    ops: list[OpChange] = [_lone(Kind.REMOVED, a) for a in old.nodes if a not in partner]
    for b in new.nodes:
        ops += _op_changes(before[b], b, partner, before) if b in before else [_lone(Kind.ADDED, b)]
    ops += _output_changes(old, new, partner, before)
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


def _output_changes(old: Graph, new: Graph, partner: dict[Node, Node], before: dict[Node, Node]) -> Iterator[OpChange]:
    """Name outputs that another op computes now; an added or removed op says so itself."""
    for (was, a), (now, b) in zip(old.outputs, new.outputs, strict=False):
        if not _same_source(a, b, partner) and not _stepped_over(a, b, partner, before):
            what = f"comes from {_told(b)} instead of {_told(a)}"
            yield OpChange(kind=Kind.INPUT, op="output", before=was, after=now, what=what)


def _lone(kind: Kind, node: Node) -> OpChange:
    before, after = (node.op.name, None) if kind is Kind.REMOVED else (None, node.op.name)
    return OpChange(kind=kind, op=node.op.type, before=before, after=after, what=", ".join(node.types))


def _op_changes(a: Node, b: Node, partner: dict[Node, Node], before: dict[Node, Node]) -> list[OpChange]:
    def change(kind: Kind, what: str) -> OpChange:
        return OpChange(kind=kind, op=b.op.type, before=a.op.name, after=b.op.name, what=what)

    found = [change(Kind.PARAMETER, what) for what in _parameter_changes(a, b)]
    found += [change(Kind.INPUT, what) for what in _input_changes(a, b, partner, before)]
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
        old, new = (_written(n.parameters[name]) if name in n.parameters else "none" for n in (a, b))
        if old != new:
            yield f"{name} {old} → {new}"
    for name in sorted({*a.weights} ^ {*b.weights}):
        yield f"weight {name} {'removed' if name in a.weights else 'added'}"


def _input_changes(a: Node, b: Node, partner: dict[Node, Node], before: dict[Node, Node]) -> Iterator[str]:
    """Name inputs that come from elsewhere, unless they only step over what was added or removed."""
    for name in sorted({*a.reads} | {*b.reads}):
        old, new = a.reads.get(name), b.reads.get(name)
        if old is None or new is None:
            yield f"{name} is {'computed' if new else 'no longer computed'}"
        elif _same_source(old, new, partner) or _stepped_over(old, new, partner, before):
            continue
        else:
            yield f"{name} reads {_told(new)} instead of {_told(old)}"


def _same_source(old: Source, new: Source, partner: dict[Node, Node]) -> bool:
    there = partner.get(old.node) if old.node is not None else None
    return there is new.node and old.place == new.place and (old.node is None) == (new.node is None)


def _stepped_over(old: Source, new: Source, partner: dict[Node, Node], before: dict[Node, Node]) -> bool:
    gone = old.node is not None and old.node not in partner
    come = new.node is not None and new.node not in before
    return gone or come


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
