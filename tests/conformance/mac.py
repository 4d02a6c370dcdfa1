# SPDX-License-Identifier: Apache-2.0
"""What does coremltools find when it takes this machine for a Mac?

A platform that answers "macOS", and our `_MLModelProxy`, the one class of Apple's framework through which `MLModel.predict` and
`make_state` work. coremltools' own checks before it stay. A compiled model is the package itself. What a test asks of the framework
beside that (what is in a compiled model, compute plans, benchmarks) is absent.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from gate import mil
from tests.conformance.suite import MACOS_VERSION


@dataclass
class Observed:
    """What one test did with `MLModel`."""

    reached: int = 0
    formats: set[str] = field(default_factory=set)
    ops: set[str] = field(default_factory=set)
    float16: bool = False
    within_steps: bool = False


class Witness:
    """Holds what the running test does."""

    def __init__(self) -> None:
        self.observed = Observed()


def install_framework(witness: Witness) -> None:
    """Give coremltools our `_MLModelProxy`, the one class of Apple's that `MLModel` predicts with."""
    import coremltools

    class Proxy(Framework):
        def __init__(self, path: str, compute_units: str, function: str, hints: object, asset: object) -> None:
            super().__init__(Path(path), function or None, witness)

    for module in (coremltools.models.model, coremltools.models._compiled_model):
        module._MLModelProxy = Proxy


class Framework:
    """What Core ML does for an `MLModel`, as far as `gate.mil` does it too."""

    def __init__(self, path: Path, function: str | None, witness: Witness) -> None:
        self.path = path
        self.function = function
        self.witness = witness
        if function is not None:
            with framework_errors():
                self.evaluator  # noqa: B018 (a function that is not there is told at once)

    @staticmethod
    def maximum_supported_specification_version() -> int:
        import coremltools

        return int(coremltools._SPECIFICATION_VERSION_IOS_18)

    @cached_property
    def evaluator(self) -> Any:
        return mil.load(self.path, precision="declared", function=self.function)

    @property
    def functions(self) -> list[Any]:
        return [stage.function for stage in getattr(self.evaluator, "stages", (self.evaluator,))]

    @cached_property
    def format(self) -> str:
        """Name the model's format. coremltools removes the file of a neural network once it is handed over."""
        from coremltools.models.utils import load_spec

        return format_of(load_spec(str(self.path))) if self.path.exists() else "neuralNetwork"

    def predict(self, data: Any, state: Any) -> Any:
        observed = self.witness.observed
        observed.reached += 1
        observed.formats.add(self.format)
        with framework_errors():
            for function in self.functions:
                observed.ops.update(op.type for op in function.body.walk())
                observed.float16 |= declares_float16(function)
            return self.evaluator.predict(data, state)

    def batchPredict(self, data: list[Any]) -> Any:
        return self.predict(data, None)

    def get_compiled_model_path(self) -> str:
        return str(self.path)

    def newState(self) -> Any:
        with framework_errors():
            return self.evaluator.make_state()


@contextmanager
def framework_errors() -> Iterator[None]:
    """Raise what Core ML raises."""
    try:
        yield
    except mil.MilError as error:
        raise RuntimeError(f"Unable to compute the prediction using ML Program. {error}") from error


def declares_float16(function: Any) -> bool:
    """Tell whether any value or constant of a program is float16."""
    ops = list(function.body.walk())
    values = [*function.inputs, *(v for op in ops for v in op.outputs)]
    values += [v for op in ops for arguments in op.inputs.values() for v in arguments]
    return any(getattr(value.type, "dtype", None) == "float16" for value in values)


def format_of(spec: Any) -> str:
    """Name a model's format; a pipeline is an ML program when all its stages are."""
    kind = spec.WhichOneof("Type")
    pipelines = {"pipeline": "pipeline", "pipelineClassifier": "pipelineClassifier.pipeline"}
    if kind not in pipelines:
        return str(kind)
    stages = spec
    for name in pipelines[kind].split("."):
        stages = getattr(stages, name)
    formats = {format_of(stage) for stage in stages.models}
    return "mlProgram" if formats == {"mlProgram"} else "pipeline of " + ", ".join(sorted(formats))


def pretend_macos() -> None:
    """Answer coremltools' questions about the platform, in each module that has copied the functions."""
    import coremltools
    import coremltools._deps

    coremltools._deps._IS_MACOS = True
    for name, module in list(sys.modules.items()):
        if name.startswith("coremltools") and hasattr(module, "_is_macos"):
            module._is_macos = lambda: True
        if name.startswith("coremltools") and hasattr(module, "_macos_version"):
            module._macos_version = lambda: MACOS_VERSION


def declare_torchvision_operators() -> None:
    """Let torchvision's Python models import where its compiled operators don't load (PyPI's build beside a CPU torch)."""
    import torch

    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        KEPT_LIBRARIES.append(library)


KEPT_LIBRARIES: list[Any] = []  # torch forgets the operators of a library that is collected
