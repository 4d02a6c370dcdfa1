# SPDX-License-Identifier: Apache-2.0
"""Which iOS must a phone have to load a package at all?

Core ML refuses a package whose specification version, or whose opset, it does not know. What a phone does with the ops is not asked here.
"""

from pathlib import Path
from typing import Any

from gate.mil import MilError, Unsupported
from gate.mil.program import Program, load_program, read_message

OPSETS = {"CoreML5": 15, "CoreML6": 16, "CoreML7": 17, "CoreML8": 18, "CoreML9": 26}
VERSIONS = {6: 15, 7: 16, 8: 17, 9: 18, 10: 26}  # specification version -> iOS, as coremltools 9.0 writes them
OLDEST, NEXT = 15, 27  # what an older version than these counts as, and a newer one


def program_needs(program: Program) -> int:
    """Return the least iOS that loads a program: 17 is iOS17."""
    return max(_version_needs(program.spec), *(OPSETS[f.opset] for f in program.functions.values()))


def package_needs(package: Path) -> int | None:
    """Return the least iOS that loads a model of any format; None where that cannot be read, as of a compiled one."""
    try:
        return program_needs(load_program(package))
    except Unsupported:
        return _unread_needs(package)
    except MilError:
        return None


def _unread_needs(model: Path) -> int | None:
    try:
        return _version_needs(read_message(model))
    except MilError:
        return None


def _version_needs(spec: Any) -> int:
    version = int(spec.specificationVersion)
    return OLDEST if version < min(VERSIONS) else VERSIONS.get(version, NEXT)
