# SPDX-License-Identifier: Apache-2.0
"""How does a finished package get another precision or a later opset? By coremltools' own passes, on the loaded program."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from gate.errors import ToolchainError
from gate.policy import Target

COREMLTOOLS = Lock()  # its passes keep what they are working on in global variables
SPECIFICATION = {Target.IOS15: 6, Target.IOS16: 7, Target.IOS17: 8, Target.IOS18: 9, Target.IOS26: 10}


def cast_float16(package: Path, out: Path, keep_float32: Sequence[str] = ()) -> Path:
    """Write a float32 package as float16; inputs and outputs keep the types that the app knows.

    `keep_float32` names ops as a policy does; a finished package has no layers, so `/softmax`, `/log:1` or the op's own name.
    """
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

    from gate.convert import float16_cast

    names = ("common::cast_optimization", "common::const_elimination", "common::dead_code_elimination")
    return rewritten(package, [float16_cast(keep_float32), *(PASS_REGISTRY[name] for name in names)], 0, out)


def raise_target(package: Path, target: Target, out: Path) -> Path:
    """Write a package with the opset of a later deployment target, as coremltools does when it compresses an older one."""
    return rewritten(package, [], SPECIFICATION[target], out)


def rewritten(package: Path, passes: list[Any], specification: int, out: Path) -> Path:
    """Write a package as coremltools' graph passes change it; ToolchainError when they fail."""
    import coremltools as ct
    from coremltools.models.utils import _apply_graph_pass

    try:
        with COREMLTOOLS, contextlib.redirect_stderr(io.StringIO()):  # it draws bars there
            model = ct.models.MLModel(str(package), skip_model_load=True)
            rewritten = _apply_graph_pass(model, passes, spec_version=specification, skip_model_load=True)
            rewritten.save(str(out))
    except Exception as error:
        raise ToolchainError(
            f"{package.name}: coremltools cannot rewrite the package ({type(error).__name__}: {error}); "
            "convert it from its source with the precision and deployment target of the policy"
        ) from error
    return out
