# SPDX-License-Identifier: Apache-2.0
"""Which patterns of gate.yml and of a policy name nothing? A misspelt one leaves a model unprotected without a word.

What a pattern may say: a layer, the layers around it, its operations of one kind, or an operation by its own name. A finished package
has no layers; its operations are those of the model itself: `/softmax`, `/log:1`.
"""

import difflib
import fnmatch
import glob
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from gate.mil.program import Constant, load_program
from gate.policy import Policy
from gate.protocol import operation_names
from gate.report import Finding, Severity


def names_of(
    kinds: Mapping[str, str], layers: Mapping[str, str], folded: Mapping[str, str] | None = None
) -> frozenset[str]:
    """What a pattern may say about operations, given by the name of each its kind, its layer, and the layer folded into it."""
    said = {name for own, kind in kinds.items() for name in operation_names(layers.get(own, ""), kind)}
    said |= {
        name for own, layer in (folded or {}).items() if own in kinds for name in operation_names(layer, kinds[own])
    }
    return frozenset(said | kinds.keys())


def by_own_layer(policy: Policy, layers: Mapping[str, str], folded: Mapping[str, str]) -> Policy:
    """Let an override that names a folded layer, such as a batch norm, name the layer whose weight it went into."""
    overrides = []
    for override in policy.overrides:
        meant = {name for name, layer in folded.items() if any(fnmatch.fnmatchcase(layer, p) for p in override.layers)}
        own = sorted({glob.escape(layers[name]) for name in meant if name in layers})
        overrides.append(override.model_copy(update={"layers": (*override.layers, *own)}))
    return policy.model_copy(update={"overrides": tuple(overrides)})


def kinds_in(package: Path) -> dict[str, str]:
    """MIL op type of each operation of a package, by the name of its first output."""
    return {op.outputs[0].name: op.type for op in load_program(package).function().body.walk() if op.outputs}


def unmatched(patterns: Sequence[str], names: Iterable[str], layers: Iterable[str]) -> Iterator[Finding]:
    """Name the patterns of `keep_float32` that keep nothing."""
    known, paths = frozenset(names), sorted(set(layers))
    for pattern in patterns:
        kind = re.sub(r":\d+$", "", pattern)  # the second softmax of a layer is one of its softmaxes
        if not any(fnmatch.fnmatchcase(name, kind) for name in known):
            yield _nothing("convert.keep_float32", f"keep_float32: {pattern!r}", pattern, paths)


def unmatched_by_policy(
    policy: Policy, packages: Sequence[Path], layers: Mapping[str, str], folded: Mapping[str, str] | None = None
) -> Iterator[Finding]:
    """Name the patterns of a policy that match nothing: of `keep_float32`, and of the layers, ops and names in its overrides."""
    if policy.keep_float32:
        names = (name for package in packages for name in names_of(kinds_in(package), layers, folded))
        yield from unmatched(policy.keep_float32, names, layers.values())
    if not any(override.layers or override.ops or override.names for override in policy.overrides):
        return
    program = _known_to_overrides(packages, {*layers.values(), *(folded or {}).values()})
    for index, override in enumerate(policy.overrides):
        for key, known in program.items():
            for pattern in getattr(override, key):
                matches = pattern in known if key == "ops" else any(fnmatch.fnmatchcase(one, pattern) for one in known)
                if not matches:
                    where = f"policy {policy.name}: overrides[{index}].{key}: {pattern!r}"
                    yield _nothing("policy.overrides", where, pattern, sorted(known), key)


def _known_to_overrides(packages: Iterable[Path], layers: set[str]) -> dict[str, set[str]]:
    """What each key of an override may name: layers, types of ops, and names of ops and of the weights that they read."""
    known: dict[str, set[str]] = {"layers": layers, "ops": set(), "names": set()}
    for function in (f for package in packages for f in load_program(package).functions.values()):
        for op in function.body.walk():
            constants = (one.name for given in op.inputs.values() for one in given if isinstance(one, Constant))
            known["ops"].add(op.type)
            known["names"] |= {op.name, *constants}
    return known


def _nothing(rule: str, where: str, pattern: str, known: Sequence[str], what: str = "layers") -> Finding:
    near = difflib.get_close_matches(pattern, known, n=1, cutoff=0.4)
    told = f"nearest: {near[0]}" if near else f"{what}: {', '.join(known[:10])}"
    return Finding(
        rule=rule,
        severity=Severity.WARNING,
        message=f"{where} matches no {what.removesuffix('s')}",
        advice=f"correct it, or remove it ({told})" if known else "a finished package has no layers: name ops instead",
    )
