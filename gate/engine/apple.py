# SPDX-License-Identifier: Apache-2.0
"""What do we ask of macOS? Every call of Apple's tools and runtime, and nothing else.

Compilation is `xcrun coremlcompiler`, as Xcode does it when the app is built; loading, prediction, devices and the compute plan
are coremltools' own classes. Not run where this was written (no Mac): tests put a double in the place of this module's functions.
"""

import json
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gate.document import Record
from gate.errors import NoAnswer

Array = npt.NDArray[Any]
Predict = Callable[[], Mapping[str, Any]]

COMPILE_SECONDS = 600
DEVICES = {
    "MLCPUComputeDevice": "CPU",
    "MLGPUComputeDevice": "GPU",
    "MLNeuralEngineComputeDevice": "Neural Engine",
}


class PlacedOp(Record):
    """Where Core ML plans to run one op: planned, not observed."""

    op: str
    name: str  # of its first output
    device: str
    supported: tuple[str, ...]
    cost: float | None = None  # share of the whole prediction, as Core ML estimates it


def compile_package(package: Path, folder: Path) -> Path:
    """Compile a package into a `.mlmodelc` below a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    compiled = folder / f"{package.stem}.mlmodelc"
    if shutil.which("xcrun") is None:  # no Xcode: the runtime compiles as well
        import coremltools as ct

        ct.models.utils.compile_model(str(package), str(compiled))
        return compiled
    command = ["xcrun", "coremlcompiler", "compile", str(package), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)
    if done.returncode != 0 or not compiled.is_dir():
        said = (done.stderr or done.stdout).strip()[-1_000:]
        raise NoAnswer(f"xcrun coremlcompiler did not compile {package.name} (exit {done.returncode}): {said}")
    return compiled


def load(compiled: Path, compute_units: str, inputs: Mapping[str, Array]) -> Predict:
    """Load a compiled model and return what predicts once on these inputs; a stateful model gets fresh states each time."""
    import coremltools as ct

    model = ct.models.CompiledMLModel(str(compiled), compute_units=getattr(ct.ComputeUnit, compute_units))
    given = dict(inputs)

    def predict() -> Mapping[str, Any]:
        return model.predict(given)  # type: ignore[no-any-return]

    def predict_with_states() -> Mapping[str, Any]:
        return model.predict(given, model.make_state())  # type: ignore[no-any-return]

    return predict_with_states if has_states(compiled) else predict


def has_states(compiled: Path) -> bool:
    """Does a compiled model keep states? `metadata.json` inside says so."""
    try:
        described = json.loads((compiled / "metadata.json").read_text(encoding="utf-8"))
        return bool(described[0].get("stateSchema"))
    except (OSError, ValueError, LookupError, AttributeError):
        return False


def devices() -> tuple[str, ...]:
    """Name the devices that Core ML sees: CPU, GPU, Neural Engine. A virtual machine often has the CPU only."""
    from coremltools.models.compute_device import MLComputeDevice

    return tuple(dict.fromkeys(_device(device) for device in MLComputeDevice.get_all_compute_devices()))


def compute_plan(compiled: Path, compute_units: str) -> tuple[PlacedOp, ...]:
    """Return where Core ML plans to run each op of the main function; constants have no place."""
    import coremltools as ct
    from coremltools.models.compute_plan import MLComputePlan

    return placed(MLComputePlan.load_from_path(str(compiled), getattr(ct.ComputeUnit, compute_units)))


def placed(plan: Any) -> tuple[PlacedOp, ...]:
    """Read a compute plan, of this Mac or of a device."""
    program = plan.model_structure.program
    if program is None:
        return ()
    return tuple(_placed(plan, _operations(program.functions["main"].block.operations)))


def _operations(operations: Iterable[Any]) -> Iterator[Any]:
    for operation in operations:
        yield operation
        for block in operation.blocks:
            yield from _operations(block.operations)


def _placed(plan: Any, operations: Iterable[Any]) -> Iterator[PlacedOp]:
    for operation in operations:
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        if usage is None:
            continue
        cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
        yield PlacedOp(
            op=operation.operator_name,
            name=operation.outputs[0].name if operation.outputs else "",
            device=_device(usage.preferred_compute_device),
            supported=tuple(_device(device) for device in usage.supported_compute_devices),
            cost=None if cost is None else float(cost.weight),
        )


def _device(device: Any) -> str:
    return DEVICES.get(type(device).__name__, type(device).__name__)


def model_identifier() -> str:
    """Return Apple's name of this machine, such as Mac15,12."""
    try:
        done = subprocess.run(["sysctl", "-n", "hw.model"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return platform.machine()
    return done.stdout.strip() or platform.machine()


def system() -> str:
    """Return the operating system and its version."""
    return f"macOS {platform.mac_ver()[0]}"


def as_core_ml(inputs: Mapping[str, Array], images: Mapping[str, str]) -> dict[str, Any]:
    """Give image inputs as PIL images, which is what `predict` takes; `images` has the PIL mode of each."""
    if not images:
        return dict(inputs)
    from PIL import Image

    return {
        name: Image.fromarray(np.squeeze(np.asarray(value))).convert(images[name]) if name in images else value
        for name, value in inputs.items()
    }
