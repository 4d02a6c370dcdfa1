# SPDX-License-Identifier: Apache-2.0
"""What is known to go wrong with a program like this one, by looking at it alone?

Rules are pure functions in explicit tables: `placement` (what keeps ops off a compute unit), `runtime` (what gives wrong answers) and
`converter` (what coremltools converts wrongly).
docs/checks.md lists them; a test holds table and page together.
"""

from collections.abc import Mapping
from pathlib import Path

from gate.mil.program import Op, Program, load_program
from gate.report import Finding
from gate.rules import converter, placement, runtime
from gate.rules.base import Rule, Scene, Unit, finding, make_scene
from gate.shapes import Sizes

RULES: tuple[Rule, ...] = (*placement.RULES, *runtime.RULES, *converter.RULES)
__all__ = ["RULES", "Rule", "Scene", "Unit", "eligible", "examine", "random_ops"]


def examine(program: Program, sizes: Sizes) -> tuple[Finding, ...]:
    """Apply every rule to one function; one finding for each rule that found something."""
    scene = make_scene(program, sizes)
    found = ((rule, tuple(rule.find(scene))) for rule in RULES)
    return tuple(finding(rule, hits) for rule, hits in found if hits)


def random_ops(package: Path) -> tuple[str, ...]:
    """Name the ops that draw random numbers: two runs of such a program differ whatever the converter did."""
    ops = load_program(package).function().body.walk()
    return tuple(f"{op.type} {op.name}" for op in ops if op.type.startswith("random_"))


def eligible(program: Program, sizes: Sizes) -> Mapping[Op, tuple[Unit, ...]]:
    """Return the compute units that no rule speaks against, for each op that runs."""
    scene = make_scene(program, sizes)
    off: dict[Op, set[Unit]] = {op: set() for op in scene.ops}
    for rule in RULES:
        for hit in rule.find(scene) if rule.off else ():
            for op in scene.ops if hit.op is None else (hit.op,):
                off[op].update(rule.off)
    return {op: tuple(unit for unit in Unit if unit not in units) for op, units in off.items()}
