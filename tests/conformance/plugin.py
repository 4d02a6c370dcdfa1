# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin: let coremltools' tests take this machine for a Mac whose Core ML is `gate.mil`, and record what happens.

Only `_MLModelProxy` is replaced, through which `MLModel.predict` and `make_state` reach Apple's framework; coremltools' own
checks before it stay. What a test asks of the framework beside that (compiled models, compute plans, benchmarks) is absent. Each test gets its own seed, so that a result does not depend on which
tests ran before it.
"""

from __future__ import annotations

import gc
import json
import random
import re
import shutil
import signal
import sys
import tempfile
import zlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from gate import mil
from tests.conformance.results import Outcome, Result
from tests.conformance.suite import MACOS_VERSION

SECONDS_PER_TEST = 300
FLOAT16_TOLERANCE = 5e-3  # ten times tighter than coremltools' own in float16 runs
ADDRESS = re.compile(r"0x[0-9a-f]+|id='[0-9]{9,}'")


@dataclass
class Observed:
    """What one test did with `MLModel`."""

    reached: int = 0
    formats: set[str] = field(default_factory=set)
    ops: set[str] = field(default_factory=set)
    float16: bool = False
    beyond_float16: bool = False


class Recorder:
    """Select the tests of a plan, run each reproducibly, and append one line per test to the results."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.plan = plan
        self.observed = Observed()
        self.reached_total = 0
        self.ids: dict[str, str] = {}  # pytest's id to ours

    # --- selection

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        by_id = stable_ids(items)
        if "list_to" in self.plan:
            Path(self.plan["list_to"]).write_text(json.dumps(list(by_id)))
            items.clear()
            return
        self.ids = {item.nodeid: test_id for test_id, item in by_id.items()}
        items[:] = [by_id[test_id] for test_id in self.plan["ids"] if test_id in by_id]

    def pytest_collection_finish(self) -> None:
        """Keep the garbage collector away from the collected tests: coremltools calls it in each conversion."""
        gc.collect()
        gc.freeze()

    # --- one test

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        test_id = self.ids[item.nodeid]
        Path(self.plan["current"]).write_text(test_id)
        self.observed = Observed()
        seed_everything(zlib.crc32(test_id.encode()))
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        with removing_new_packages(), time_limit(SECONDS_PER_TEST):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.when == "call" or (report.when == "setup" and not report.passed):
            self.append(item, call, report)
        return report

    def append(self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
        observed = self.observed
        result = Result(
            id=self.ids[item.nodeid],
            reached=observed.reached,
            formats=sorted(observed.formats),
            outcome=outcome_of(report),
            seconds=round(report.duration, 4),
            reason="" if report.passed else reason_of(call),
            ops=[] if report.passed else sorted(observed.ops),
            beyond_float16=observed.beyond_float16 and not report.passed,
        )
        with Path(self.plan["results"]).open("a") as lines:
            lines.write(result.as_line())
        self.reached_total += result.counts
        if self.reached_total >= self.plan.get("stop_after_reached", sys.maxsize):
            item.session.shouldstop = "enough tests reached predict"


def stable_ids(items: list[pytest.Item]) -> dict[str, pytest.Item]:
    """Name the tests without the addresses that some ids hold; number those that then share a name."""
    named: dict[str, pytest.Item] = {}
    for item in items:
        name = ADDRESS.sub("0x", item.nodeid)
        while name in named:
            name += "'"
        named[name] = item
    return named


def outcome_of(report: pytest.TestReport) -> Outcome:
    if hasattr(report, "wasxfail"):
        return Outcome.XFAILED if report.skipped else Outcome.PASSED
    return Outcome(report.outcome)


def reason_of(call: pytest.CallInfo[None]) -> str:
    """Say in one line what was raised, and where."""
    if call.excinfo is None:
        return ""
    message = " ".join(str(call.excinfo.value).split())[:400]
    last = call.excinfo.traceback[-1]
    return f"{call.excinfo.typename}: {message} [{Path(last.path).name}:{last.lineno + 1}]"


def seed_everything(seed: int) -> None:
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def removing_new_packages() -> Iterator[None]:
    """Remove what a test left in the temporary directory; coremltools does so only when the process ends."""
    folder = Path(tempfile.gettempdir())
    before = set(folder.iterdir())
    try:
        yield
    finally:
        for path in set(folder.iterdir()) - before:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise in a test that takes longer; one that hangs inside a library is ended by `run.py`."""

    def expire(*_: object) -> None:
        raise TimeoutError(f"the test took more than {seconds} s")

    previous = signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


# --- the Mac that this machine is taken for


def install_framework(recorder: Recorder) -> None:
    """Give coremltools our `_MLModelProxy`, the one class of Apple's that `MLModel` predicts with."""
    import coremltools

    class Proxy(Framework):
        def __init__(self, path: str, compute_units: str, function: str, hints: object, asset: object) -> None:
            super().__init__(Path(path), function or None, recorder)

    coremltools.models.model._MLModelProxy = Proxy


class Framework:
    """What Core ML does for an `MLModel`, as far as `gate.mil` does it too."""

    def __init__(self, path: Path, function: str | None, recorder: Recorder) -> None:
        self.path = path
        self.function = function
        self.recorder = recorder

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
        observed = self.recorder.observed
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
        raise NotImplementedError("only Apple's framework compiles models")

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


def notice_float16_at_float32_tolerance(recorder: Recorder) -> None:
    """Mark a test that fails only because it measures float16 by the tolerance of float32.

    coremltools loosens its tolerances 100 times and more in float16 runs. In float32 runs some tests declare float16
    tensors themselves and still compare at 1e-4 and 1e-5, where one float16 step is 1e-3. A failure is one of these when the
    program declares float16 and the answer is right to a few steps.
    """
    import numpy as np

    original = np.testing.assert_allclose

    def assert_allclose(actual: Any, desired: Any, rtol: float = 1e-7, atol: float = 0, **options: Any) -> None:
        try:
            original(actual, desired, rtol, atol, **options)
        except AssertionError:
            steps = {"rtol": FLOAT16_TOLERANCE, "atol": FLOAT16_TOLERANCE}
            if recorder.observed.float16 and atol < FLOAT16_TOLERANCE:
                recorder.observed.beyond_float16 |= np.shape(actual) == np.shape(desired) and np.allclose(
                    actual, desired, **steps, equal_nan=True
                )
            raise

    np.testing.assert_allclose = assert_allclose


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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--conformance-plan", required=True, help="JSON: which tests, where to write")


def pytest_load_initial_conftests() -> None:
    """Act before coremltools' own conftest imports coremltools, which looks for torchvision at once."""
    declare_torchvision_operators()


def pytest_configure(config: pytest.Config) -> None:
    recorder = Recorder(json.loads(Path(config.getoption("--conformance-plan")).read_text()))
    quiet()
    pretend_macos()
    if "list_to" not in recorder.plan:
        install_framework(recorder)
        notice_float16_at_float32_tolerance(recorder)
    config.pluginmanager.register(recorder)


def quiet() -> None:
    """Silence coremltools' progress bars and warnings: they cost more than many of the tests."""
    import logging

    import coremltools

    coremltools._logger.setLevel(logging.ERROR)
