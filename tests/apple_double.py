# SPDX-License-Identifier: Apache-2.0
"""A Mac that is not there: coremltools' runtime classes, answered by our evaluator, and a clock that only predictions move.

`python -m tests.apple_double REQUEST ANSWER` is the stopwatch on that Mac. APPLE_DOUBLE (JSON) says how long a prediction of a
package takes, by a part of its path, which devices there are, and where the runtime crashes or hangs.
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from coremltools.models.compute_plan import (
    MLComputePlanCost,
    MLComputePlanDeviceUsage,
    MLModelStructure,
    MLModelStructureProgram,
    MLModelStructureProgramBlock,
    MLModelStructureProgramFunction,
    MLModelStructureProgramNamedValueType,
    MLModelStructureProgramOperation,
    MLModelStructureProgramValueType,
)

from gate import mil
from gate.engine import apple, stopwatch

SETTINGS = json.loads(os.environ.get("APPLE_DOUBLE", "{}"))
CLOCK = [0.0]
STOPWATCH = (sys.executable, "-m", "tests.apple_double")


class MLCPUComputeDevice:
    """Named as coremltools names it: the class is all that tells devices apart."""


class MLNeuralEngineComputeDevice:
    """Likewise."""


DEVICES = {"CPU": MLCPUComputeDevice(), "Neural Engine": MLNeuralEngineComputeDevice()}


class MLModel:
    """`coremltools.models.MLModel` and `CompiledMLModel`, as far as the gate uses them."""

    def __init__(self, path: str, compute_units: Any = None) -> None:
        self._units = getattr(compute_units, "name", "ALL")
        self._seconds = next((s for part, s in SETTINGS.get("seconds", {}).items() if part in path), 0.0)
        self._evaluator = mil.load(_package(Path(path)))

    def predict(self, data: dict[str, Any], state: Any = None) -> dict[str, Any]:
        if self._units in SETTINGS.get("crashes_on", []):
            os.abort()
        CLOCK[0] += self._seconds
        return self._evaluator.predict(data, state)

    def make_state(self) -> Any:
        return self._evaluator.make_state()


def _package(path: Path) -> Path:
    """The double's compiled model is a folder with the package inside."""
    return next(path.glob("*.mlpackage"), path) if path.suffix == ".mlmodelc" else path


class Plan:
    """`MLComputePlan`: convolutions and linear layers go to the Neural Engine, all else to the CPU."""

    def __init__(self, path: str) -> None:
        ops = list(mil.load_program(_package(Path(path))).function(None).body.ops)
        block = MLModelStructureProgramBlock([], [_operation(op) for op in ops], [])
        functions = {"main": MLModelStructureProgramFunction([], block)}
        self.model_structure = MLModelStructure(None, MLModelStructureProgram(functions), None)
        self._cost = 1 / max(len(ops), 1)

    @classmethod
    def load_from_path(cls, path: str, compute_units: Any) -> "Plan":
        return cls(path)

    def get_compute_device_usage_for_mlprogram_operation(self, operation: Any) -> MLComputePlanDeviceUsage:
        cpu, engine = DEVICES["CPU"], DEVICES["Neural Engine"]
        here = engine if operation.operator_name in ("conv", "linear", "relu") else cpu
        return MLComputePlanDeviceUsage(here, [cpu, engine] if here is engine else [cpu])

    def get_estimated_cost_for_mlprogram_operation(self, operation: Any) -> MLComputePlanCost:
        return MLComputePlanCost(self._cost)


def _operation(op: Any) -> MLModelStructureProgramOperation:
    outputs = [MLModelStructureProgramNamedValueType(v.name, MLModelStructureProgramValueType()) for v in op.outputs]
    return MLModelStructureProgramOperation({}, op.type, outputs, [], None)


def _compile(package: Path, folder: Path) -> Path:
    compiled = folder / f"{package.stem}.mlmodelc"
    shutil.copytree(package, compiled / package.name)
    return compiled


def install(patch: Any = setattr) -> None:
    """Put the double where macOS would answer."""
    import coremltools as ct
    from coremltools.models import compute_device, compute_plan

    patch(ct.models, "MLModel", MLModel)
    patch(ct.models, "CompiledMLModel", MLModel)
    patch(compute_plan, "MLComputePlan", Plan)
    present = [DEVICES[name] for name in SETTINGS.get("devices", DEVICES)]
    patch(compute_device, "MLComputeDevice", SimpleNamespace(get_all_compute_devices=lambda: present))
    patch(apple, "compile_package", _compile)
    patch(apple, "model_identifier", lambda: "Mac0,0")
    patch(apple, "system", lambda: "macOS 0")


if __name__ == "__main__":
    install()
    stopwatch.time = SimpleNamespace(perf_counter=lambda: CLOCK[0], monotonic=time.monotonic)
    if SETTINGS.get("hangs"):
        time.sleep(600)
    stopwatch.main(sys.argv[1:])
