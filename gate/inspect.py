# SPDX-License-Identifier: Apache-2.0
"""What is in a package? Facts that can be read from it without converting or running anything.

MACs and sizes are at the default shape of flexible inputs, memory at the largest. Eligible means that no rule speaks against a compute
unit; where Core ML places an op is known on a Mac only.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from gate import fusions
from gate.advice import Advice, advise, expected_speed
from gate.deployment import program_needs
from gate.document import Record
from gate.errors import UsageError
from gate.files import located
from gate.macs import NO_PRODUCTS, count, moved_bytes
from gate.memory import Estimate, distinct, estimate
from gate.mil import MilError, Unsupported
from gate.mil.program import Op, Program, load_program, read_message
from gate.mil.weights import Weight, weights
from gate.quantity import percent, significant, size
from gate.report import Finding
from gate.rules import Unit, eligible, examine
from gate.shapes import Sizes, default_sizes

MOST_ROWS = 60
MOST_NAMED = 3  # ops that a cost is said to sit in
COMPILED = "a compiled model: only its size can be said. Inspect the .mlpackage that it was made from"


class StoredWeight(Record):
    """One weight, as the package stores it."""

    name: str = Field(description="name that the op reads it by")
    reader: str = Field(description="type and name of the first op that reads it")
    shape: tuple[int, ...] = Field(description="shape that the op sees")
    dtype: str = Field(description="type that the op sees")
    form: str = Field(description="plain, or the ops that decode it")
    bits: int = Field(description="bits of each stored element; of a palette, those of an index")
    package_bytes: int = Field(description="bytes of all that is stored for it")
    sparsity: float | None = Field(default=None, description="share of elements that a mask leaves out")


class Layer(Record):
    """One op that runs."""

    op: str = Field(description="MIL op type")
    name: str = Field(description="name of its first output")
    shape: tuple[int, ...] = Field(description="shape of its first output")
    parameters: int = Field(description="elements of the weights that it is the first to read")
    weight_bytes: int = Field(description="bytes of those weights in the package")
    macs: int | None = Field(description="multiply-accumulates; null where no rule knows the op")
    moved_bytes: int = Field(default=0, description="bytes that it reads and writes, weights expanded")
    eligible: tuple[Unit, ...] = Field(description="compute units that no rule speaks against")


class Memory(Record):
    """Estimated need of a prediction, at the largest shape."""

    activations: tuple[int, int] = Field(description="bytes at the peak: with buffers shared, and each its own")
    weights: tuple[int, int] = Field(description="bytes once loaded: as stored, and expanded")
    states: int = Field(description="bytes of states, part of the activations")
    peak_op: str = Field(description="where the peak is")
    notes: tuple[str, ...] = Field(default=(), description="what had to be assumed")


class FunctionFacts(Record):
    """One function of the program."""

    name: str = Field(description="its name")
    inputs: dict[str, tuple[int, ...]] = Field(description="shapes that the numbers are about")
    ops: dict[str, int] = Field(description="ops that run, by type")
    layers: tuple[Layer, ...] = Field(description="ops that run, in order")
    macs: int = Field(description="multiply-accumulates of one prediction; each nested block counts once")
    zero_by_definition: tuple[str, ...] = Field(description="op types here that count no MACs: no product is summed")
    unknown: tuple[str, ...] = Field(description="op types here whose MACs no rule knows")
    moved_bytes: int = Field(default=0, description="bytes that all ops read and write: with MACs, a proxy of time")
    folded: tuple[str, ...] = Field(
        default=(), description="layers into whose weights a norm, scale or bias was folded"
    )
    composites: dict[str, int] = Field(default={}, description="ops that stand for several, by type")
    advice: tuple[Advice, ...] = Field(default=(), description="lighter replacements, the largest saving first")
    findings: tuple[Finding, ...] = Field(description="pitfalls")
    notes: tuple[str, ...] = Field(default=(), description="what had to be assumed")

    @property
    def arithmetic(self) -> int:
        """Ops with MACs."""
        return sum(bool(layer.macs) for layer in self.layers)


class Inspection(Record):
    """What is in a package."""

    package: str = Field(description="file name")
    package_bytes: int = Field(description="bytes of all files")
    system: str | None = Field(default=None, description="least iOS that loads it")
    parameters: int = Field(default=0, description="elements of all weights")
    functions: tuple[FunctionFacts, ...] = Field(default=(), description="entries of the program")
    weights: tuple[StoredWeight, ...] = Field(default=(), description="the weights, in the order they are read")
    memory: Memory | None = Field(default=None, description="of the function that needs most")
    described: tuple[str, ...] = Field(default=(), description="of a model that is no ML program: its own description")
    speed: tuple[str, ...] = Field(
        default=(), description="what compressed weights may bring, by OS: estimated, with source"
    )
    not_said: tuple[str, ...] = Field(default=(), description="what cannot be said, and why")

    def text(self) -> str:
        """Show it for a person."""
        return "\n".join(_lines(self))


def inspect(package: Path) -> Inspection:
    """Read a .mlpackage or .mlmodel; of a compiled or an old model say its size, and what cannot be said."""
    from gate.candidate import read_package

    facts = Inspection(package=package.name, package_bytes=read_package(package).bytes)
    if package.suffix == ".mlmodelc":
        return facts.model_copy(update={"not_said": (COMPILED,)})
    try:
        program = load_program(package)
    except Unsupported as error:
        why = f"ops, MACs, weights and memory: {error}"
        return facts.model_copy(update={"described": tuple(_description(package)), "not_said": (why,)})
    except MilError as error:
        raise UsageError(located(package, error)) from None
    return facts.model_copy(update=_program_facts(program))


def _description(model: Path) -> Iterator[str]:
    """Tell format, features and layers of a model whose program is not read."""
    spec = read_message(model)
    kind = spec.WhichOneof("Type")
    yield f"{kind}, specification version {spec.specificationVersion}"
    for what, features in (("inputs", spec.description.input), ("outputs", spec.description.output)):
        yield f"{what} " + (", ".join(f"{f.name} ({f.type.WhichOneof('Type')})" for f in features) or "none")
    layers = Counter(layer.WhichOneof("layer") for layer in getattr(getattr(spec, kind), "layers", ()))
    if layers:
        yield "layers " + ", ".join(f"{name} {number}" for name, number in layers.most_common())


def _program_facts(program: Program) -> dict[str, object]:
    held = weights(program)
    ios = program_needs(program)
    facts: dict[str, object] = {
        "system": f"iOS{ios}",
        "parameters": sum(w.elements for w in distinct(held)),
        "weights": tuple(map(_stored, held)),
        "speed": tuple(expected_speed(Counter(form for w in held for form in w.forms), ios)),
    }
    try:
        facts["functions"] = tuple(_function(program, default_sizes(program, name), held) for name in program.functions)
        facts["memory"] = memory_record(estimate(program, ios, held))
    except MilError as error:  # sizes that only a run can tell, and it did not
        facts["not_said"] = (f"{'memory' if 'functions' in facts else 'ops, MACs and memory'}: {error}",)
    return facts


def memory_record(found: Estimate) -> Memory:
    """Write an estimate as a record."""
    return Memory(
        activations=(found.activations.low, found.activations.high),
        weights=(found.weights.low, found.weights.high),
        states=found.states,
        peak_op=found.peak_op,
        notes=found.notes,
    )


def _stored(weight: Weight) -> StoredWeight:
    op_type, op_name, _ = weight.consumers[0]
    return StoredWeight(
        name=weight.name,
        reader=f"{op_type} {op_name}",
        shape=weight.shape,
        dtype=weight.dtype,
        form=" → ".join(weight.forms) or "plain",
        bits=weight.bits,
        package_bytes=weight.package_bytes,
        sparsity=weight.sparsity,
    )


def _function(program: Program, sizes: Sizes, held: tuple[Weight, ...]) -> FunctionFacts:
    first_read: dict[tuple[str, str], list[Weight]] = {}
    for weight in held:
        if weight.function == sizes.function.name:
            first_read.setdefault(weight.consumers[0][:2], []).append(weight)
    units = eligible(program, sizes)
    layers = tuple(_layer(op, sizes, first_read.get((op.type, op.name), []), units[op]) for op in units)
    kinds = Counter(layer.op for layer in layers)
    return FunctionFacts(
        name=sizes.function.name,
        inputs=dict(sizes.inputs),
        ops=dict(kinds.most_common()),
        layers=layers,
        macs=sum(layer.macs or 0 for layer in layers),
        zero_by_definition=tuple(sorted(kinds.keys() & NO_PRODUCTS)),
        unknown=tuple(sorted({layer.op for layer in layers if layer.macs is None})),
        moved_bytes=sum(layer.moved_bytes for layer in layers),
        folded=tuple(f"{op.type} {op.name}" for op in fusions.folded(sizes.function)),
        composites=dict(Counter(op.type for op in fusions.composites(sizes.function)).most_common()),
        advice=advise(units, sizes),
        findings=examine(program, sizes),
        notes=(*sizes.notes, *_loops(kinds)),
    )


def _layer(op: Op, sizes: Sizes, own: list[Weight], units: tuple[Unit, ...]) -> Layer:
    return Layer(
        op=op.type,
        name=op.name,
        shape=sizes.shape(op.outputs[0]) if op.outputs else (),
        parameters=sum(w.elements for w in own),
        weight_bytes=sum(w.package_bytes for w in own),
        macs=count(op, sizes),
        moved_bytes=moved_bytes(op, sizes),
        eligible=units,
    )


def _loops(kinds: Counter[str]) -> Iterator[str]:
    if kinds["while_loop"]:
        yield "how often a while_loop runs is not known: its body counts once"


def _lines(facts: Inspection) -> Iterator[str]:
    needs = f", needs {facts.system}" if facts.system else ""
    held = f", {facts.parameters:,} parameters" if facts.functions else ""
    yield f"{facts.package}: {size(facts.package_bytes)}{held}{needs}"
    for function in facts.functions:
        yield from _function_lines(function)
    yield from _weight_lines(facts.weights)
    yield from (f"speed     {text}" for text in facts.speed)
    if facts.memory is not None:
        yield from _memory_lines(facts.memory)
    yield from (f"described {text}" for text in facts.described)
    yield from (f"not said  {text}" for text in facts.not_said)


def _function_lines(function: FunctionFacts) -> Iterator[str]:
    shapes = ", ".join(f"{name} {list(shape)}" for name, shape in function.inputs.items())
    yield f"\nfunction {function.name} at {shapes or 'no inputs'}: {macs(function.macs)} in {function.arithmetic} ops"
    yield "ops       " + ", ".join(f"{kind} {number}" for kind, number in function.ops.items())
    yield "no MACs   by definition (no product is summed): " + (", ".join(function.zero_by_definition) or "none")
    if function.unknown:
        yield f"unknown   MACs of {', '.join(function.unknown)}"
    for unit in Unit:
        able = sum(unit in layer.eligible for layer in function.layers)
        yield f"eligible  {unit}: {able} of {len(function.layers)} ops (a rule's opinion; placement is known on a Mac)"
    yield from _layer_lines(function)
    yield f"\nmost MACs in {_heaviest(function, 'macs')}"
    yield f"most bytes in {_heaviest(function, 'weight_bytes')}"
    yield f"moved     {size(function.moved_bytes)} read and written"
    if function.folded:
        yield f"folded    {len(function.folded)} layers hold a norm, scale or bias that was an op (told by names)"
    if function.composites:
        made = ", ".join(f"{kind} {number}" for kind, number in function.composites.items())
        yield f"composite {made}: each stands for several ops"
    for one in function.advice:
        saved = f"{macs(one.saves_macs)} and {one.saves_parameters:,} parameters"
        yield f"advice    {one.op}: {one.what} would save {saved} (estimated; {one.source})"
    yield from (f"note      {text}" for text in function.notes)
    for finding in function.findings:
        yield f"{finding.severity:<9} {finding.rule}: {finding.message} {finding.advice}"


def _layer_lines(function: FunctionFacts) -> Iterator[str]:
    rows = [layer for layer in function.layers if layer.macs or layer.parameters]
    shown = rows if len(rows) <= MOST_ROWS else sorted(rows, key=lambda r: -(r.macs or 0))[:MOST_ROWS]
    yield f"\n{'op':<18}{'name':<42}{'output':<22}{'parameters':>12}{'MACs':>12}{'bytes':>10}"
    for row in shown:
        cells = f"{row.op:<18}{_clip(row.name, 40):<42}{'×'.join(map(str, row.shape)):<22}"
        told = "?" if row.macs is None else macs(row.macs).removesuffix(" MACs")
        yield f"{cells}{row.parameters:>12,}{told:>12}{size(row.weight_bytes):>10}"
    if len(rows) > len(shown):
        yield f"… the {len(shown)} ops with most MACs of {len(rows)}; --json has all"


def _heaviest(function: FunctionFacts, what: str) -> str:
    """Name the ops that hold most of a cost, with their shares."""
    rows = sorted(function.layers, key=lambda layer: -(getattr(layer, what) or 0))[:MOST_NAMED]
    total = sum(getattr(layer, what) or 0 for layer in function.layers)
    held = [f"{row.op} {row.name} ({percent(getattr(row, what) / total, 2)})" for row in rows if getattr(row, what)]
    return ", ".join(held) or "no op"


def _weight_lines(held: tuple[StoredWeight, ...]) -> Iterator[str]:
    forms: dict[tuple[str, int], list[StoredWeight]] = {}
    for weight in held:
        forms.setdefault((f"{weight.form} ({weight.dtype})", weight.bits), []).append(weight)
    yield "" if held else "\nno weights"
    for (form, bits), some in forms.items():
        total = sum(w.package_bytes for w in some)
        yield f"weights   {len(some)} {form}, {bits} bits: {size(total)}"


def _memory_lines(memory: Memory) -> Iterator[str]:
    (low, high), (packed, expanded) = memory.activations, memory.weights
    yield f"memory    {size(low + packed)} to {size(high + expanded)} (estimated)"
    yield f"          activations {size(low)} to {size(high)}, largest at {memory.peak_op}"
    yield f"          weights {size(packed)} as stored, {size(expanded)} expanded"
    if memory.states:
        yield f"          states {size(memory.states)}, {percent(memory.states / max(high, 1))} of the activations"
    yield from (f"          {text}" for text in memory.notes)


def macs(number: int) -> str:
    """Write 4.09 G MACs."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{significant(number / scale)} {unit} MACs"
    return f"{number} MACs"


def _clip(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
