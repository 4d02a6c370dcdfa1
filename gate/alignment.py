# SPDX-License-Identifier: Apache-2.0
"""Which op of one program is which op of another?

Names are the last thing that is looked at, since every conversion may give others. Both programs are put into the order in which
their outputs need them, so that moving independent ops changes nothing, and are then aligned by what the ops are: first where all
that leads to them is equal, then layers by their weights, then the same structure with other weights, then op by op with less and less
in common.
"""

import hashlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

import numpy as np

from gate.mil.program import Constant, Function, Op, Value
from gate.mil.weights import Weight

MOST_VALUES = 8  # of a constant that is written out


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
        return made + self.place.to_bytes(4, "little", signed=True)


NOWHERE = Source(None, -1)  # a constant
Nodes = list[Node]


@dataclass(frozen=True)
class Graph:
    """The ops of a function in the order in which its outputs need them, and where the outputs come from."""

    nodes: Nodes
    outputs: tuple[tuple[str, Source], ...]


def make_graph(function: Function, held: tuple[Weight, ...], first: Function) -> Graph:
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
    outputs = tuple((v.name, sources.get(v, NOWHERE)) for v in function.body.outputs if isinstance(v, Value))
    return Graph(graph, outputs)


def _input_places(first: Function, function: Function) -> dict[Value, int]:
    """Number inputs as those of the same name in the first function, else by their order."""
    known = {v.name: i for i, v in enumerate(first.inputs)}
    here = {v.name for v in function.inputs}
    free = iter([place for name, place in known.items() if name not in here])
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
                node.reads[where] = sources.get(argument, NOWHERE)
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
    ops = [op for op in function.body.ops if _runs(op)]
    made = {v: op for op in ops for v in op.outputs}
    done: dict[Op, None] = {}
    waiting = [(op, False) for op in reversed(ops)]
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
    return [each for op in done for each in (op, *(o for b in op.blocks for o in b.walk() if _runs(o)))]


def _runs(op: Op) -> bool:
    return not op.type.startswith("constexpr_")  # those are part of a weight


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
    return tuple((name, written(constant)) for name, constant in node.parameters.items())


def written(constant: Constant) -> str:
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


def match(old: Nodes, new: Nodes) -> Pairs:
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


class Partners:
    """The matched ops of two programs, and whether their inputs are the same in both."""

    def __init__(self, old: Graph, new: Graph) -> None:
        self.pairs = match(old.nodes, new.nodes)
        self.after = dict(self.pairs)
        self.before = {b: a for a, b in self.pairs}

    def moved(self, old: Source, new: Source) -> bool:
        """Does a value come from elsewhere, and not only because an op was added or removed on the way?"""
        return not (self._same(old, new) or self._stepped_over(old, new))

    def _same(self, old: Source, new: Source) -> bool:
        there = self.after.get(old.node) if old.node is not None else None
        return there is new.node and old.place == new.place and (old.node is None) == (new.node is None)

    def _stepped_over(self, old: Source, new: Source) -> bool:
        gone = old.node is not None and old.node not in self.after
        come = new.node is not None and new.node not in self.before
        return gone or come
