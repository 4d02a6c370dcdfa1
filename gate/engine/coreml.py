# SPDX-License-Identifier: Apache-2.0
"""Apple's runtime as an engine. Needs macOS; needs no torch.

Not run where this was written (no Mac): it is written against coremltools' documented `MLModel.predict`, `CompiledMLModel` and
`MLComputePlan`, and tested through a double of them that our evaluator answers.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gate.engine import Session, apple, plain
from gate.engine.device import DeviceRequest, Reply
from gate.engine.stopwatch import Request, Timings
from gate.errors import NoAnswer
from gate.mil.program import described, load_program
from gate.report import Environment

Array = npt.NDArray[Any]

ROUNDS = 200
SECONDS = 20.0  # of rounds
TIME_LIMIT = 900.0  # compiling, loading (the Neural Engine compiles at the first load) and rounds together
DEVICE_ROUNDS = 40  # each costs a transfer of seconds; a guess
DEVICE_SECONDS = 300.0
DEVICE_TIME_LIMIT = 2_400.0  # with the app that xcodebuild makes, and each package's way onto the device
PIL_MODES = {10: "L", 20: "RGB", 30: "RGB", 40: "F"}  # ImageFeatureType.ColorSpace: grey, RGB, BGR, half-precision grey


@dataclass(frozen=True)
class Connected:
    """A device that is connected to this Mac, and how it is asked."""

    name: str  # as Xcode shows it, or its udid
    team: str = ""  # of Apple's developer programme, for the app that runs models there
    stopwatch: tuple[str, ...] = (sys.executable, "-m", "gate.engine.device")


class NoDevice(Exception):
    """A device cannot be asked here, which is nobody's fault."""


@dataclass(frozen=True)
class CoreMLEngine:
    """Runs packages with Core ML, on one setting of compute units; times them on a connected device as well, where one is named."""

    compute_units: str = "ALL"
    stopwatch: tuple[str, ...] = (sys.executable, "-m", "gate.engine.stopwatch")
    connected: Connected | None = None

    @property
    def environment(self) -> Environment:
        """This Mac."""
        return Environment(
            engine="coreml", os=apple.system(), device=apple.model_identifier(), compute_units=self.compute_units
        )

    def on(self, compute_units: str) -> "CoreMLEngine":
        """The same Mac with another setting of compute units."""
        return replace(self, compute_units=compute_units)

    def load(self, package: Path, precision: str = "declared") -> Session:
        """Load (and compile) a package.

        Apple's runtime rounds as a program declares, so that only float32 programs run in float32 there; other roundings are
        asked of our evaluator, where torch is installed.
        """
        if precision != "declared" and not (precision == "float32" and _is_float32(package)):
            return _on_our_evaluator(package, precision)
        model = self._model(package)
        return CoreMLSession(model, class_labels(package), image_modes(package), has_states(package))

    def compiled_bytes(self, package: Path) -> int:
        """Size of the .mlmodelc that Core ML compiles a package to, which is what an app bundles."""
        with tempfile.TemporaryDirectory() as name:
            compiled = apple.compile_package(package, Path(name))
            return sum(file.stat().st_size for file in compiled.rglob("*") if file.is_file())

    def _model(self, package: Path) -> Any:
        import coremltools as ct

        return ct.models.MLModel(str(package), compute_units=getattr(ct.ComputeUnit, self.compute_units))

    def time(self, packages: Mapping[str, Path], inputs: Mapping[str, Array]) -> Timings:
        """Time packages against one another, the candidate first; raise NoAnswer when the runtime hangs or crashes."""
        with tempfile.TemporaryDirectory() as name:
            request = Request(**self._asked(packages, inputs, Path(name)), rounds=ROUNDS, seconds=SECONDS)
            told = _answered(self.stopwatch, request, Path(name), TIME_LIMIT, f"Core ML on {self.compute_units}")
            return Timings.model_validate_json(told)

    def time_on_device(self, packages: Mapping[str, Path], inputs: Mapping[str, Array]) -> tuple[Timings, Environment]:
        """Time packages on the connected device; raise NoDevice where it cannot be asked, NoAnswer when it hangs or crashes."""
        assert self.connected is not None
        with tempfile.TemporaryDirectory() as name:
            request = DeviceRequest(
                **self._asked(packages, inputs, Path(name)),
                rounds=DEVICE_ROUNDS,
                seconds=DEVICE_SECONDS,
                device=self.connected.name,
                team=self.connected.team,
                stateful=has_states(next(iter(packages.values()))),
            )
            whose = f"{self.connected.name} on {self.compute_units}"
            told = _answered(self.connected.stopwatch, request, Path(name), DEVICE_TIME_LIMIT, whose)
        reply = Reply.model_validate_json(told)
        if reply.timings is None:
            raise NoDevice(reply.missing)
        return reply.timings, self.device_environment(reply.system)

    def device_environment(self, system: str = "") -> Environment:
        """The connected device, by the name that it was asked for."""
        assert self.connected is not None
        return Environment(engine="coreml", os=system, device=self.connected.name, compute_units=self.compute_units)

    def _asked(self, packages: Mapping[str, Path], inputs: Mapping[str, Array], folder: Path) -> dict[str, Any]:
        np.savez(folder / "inputs.npz", **dict(inputs))
        return {
            "packages": {name: str(path) for name, path in packages.items()},
            "compute_units": self.compute_units,
            "inputs": str(folder / "inputs.npz"),
            "images": image_modes(next(iter(packages.values()))),
        }


def _answered(stopwatch: Sequence[str], request: Request, folder: Path, seconds: float, whose: str) -> bytes:
    """Let a process of its own answer; raise NoAnswer when it hangs or crashes."""
    asked, answer = folder / "request.json", folder / "answer.json"
    asked.write_text(request.model_dump_json(), encoding="utf-8")
    process = subprocess.Popen(
        [*stopwatch, str(asked), str(answer)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{whose}: no times within {seconds:.0f} s") from None
    finally:
        _end(process)
    if process.returncode != 0:
        raise NoAnswer(f"{whose}: {_how_it_ended(process.returncode)}: {_last_words(said)}")
    return answer.read_bytes()


def _end(process: "subprocess.Popen[str]") -> None:
    """End the process with what it started (xcodebuild, devicectl); nothing where it has ended by itself."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _how_it_ended(code: int) -> str:
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _last_words(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:500] if lines else "it said nothing"


def _on_our_evaluator(package: Path, precision: str) -> Session:
    try:
        from gate.engine.mil import MilEngine

        return MilEngine().load(package, precision)
    except ModuleNotFoundError as missing:
        raise NoAnswer(
            f"precision {precision!r}: Core ML runs a program as declared; without {missing.name} only that"
        ) from None


def _is_float32(package: Path) -> bool:
    """Has the program no float16 result at all?"""
    ops = (op for function in load_program(package).functions.values() for op in function.body.walk())
    return all(getattr(value.type, "dtype", None) != "float16" for op in ops for value in op.outputs)


def class_labels(package: Path) -> list[Any]:
    """The labels of a classifier in the program's order, which Core ML's dictionary does not keep; empty for other models."""
    function = load_program(package).function(None)
    classify = next((op for op in function.body.walk() if op.type == "classify"), None)
    return list(classify.inputs["classes"][0].array) if classify else []  # type: ignore[union-attr]


def image_modes(package: Path) -> dict[str, str]:
    """The PIL mode of each image input."""
    return {
        port.name: PIL_MODES[port.type.imageType.colorSpace]
        for port in _description(package).input
        if port.type.WhichOneof("Type") == "imageType"
    }


def has_states(package: Path) -> bool:
    """Does a package keep states between predictions?"""
    return bool(_description(package).state)


def _description(package: Path) -> Any:
    """The description of the function that runs."""
    program = load_program(package)
    return described(program.spec, program.default_function)


class CoreMLSession:
    """A loaded model."""

    def __init__(
        self, model: Any, classes: Sequence[Any] = (), images: Mapping[str, str] | None = None, stateful: bool = False
    ) -> None:
        self._model = model
        self._classes = classes
        self._images = images or {}
        self._stateful = stateful

    def predict(self, samples: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
        """Return the outputs of each sample; each starts from fresh states."""
        return [plain(self._predict(sample), self._classes) for sample in samples]

    def _predict(self, sample: Mapping[str, Array]) -> Mapping[str, Any]:
        states = [self._model.make_state()] if self._stateful else []
        return self._model.predict(apple.as_core_ml(sample, self._images), *states)  # type: ignore[no-any-return]
