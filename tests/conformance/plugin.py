# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin: run the tests of a plan as if on a Mac (`mac.py`), and record what happens.

Each test gets its own seed, so that its result does not depend on which tests ran before it.
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
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.mac import (
    Observed,
    Witness,
    declare_torchvision_operators,
    install_framework,
    pretend_macos,
)
from tests.conformance.results import Outcome, Result

SECONDS_PER_TEST = 300
TESTS_PER_FREEZE = 40
STEPS = (
    4  # float16 steps at an output's largest value: 0.4 % of its range, where coremltools' own float16 runs allow 0.5
)
ADDRESS = re.compile(r"0x[0-9a-f]+|id='[0-9]{9,}'")


class Recorder(Witness):
    """Select the tests of a plan, run each reproducibly, and append one line per test to the results."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        super().__init__()
        self.plan = plan
        self.reached_total = 0
        self.started = 0
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
        set_aside_garbage()

    # --- one test

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        test_id = self.ids[item.nodeid]
        self.started += 1
        if self.started % TESTS_PER_FREEZE == 0:
            set_aside_garbage()
        Path(self.plan["current"]).write_text(test_id)
        self.observed = Observed()
        seed_everything(zlib.crc32(test_id.encode()))
        forget_names()
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
            within_steps=observed.within_steps and not report.passed,
        )
        with Path(self.plan["results"]).open("a") as lines:
            lines.write(result.as_line())
        self.reached_total += result.counts
        if self.reached_total >= self.plan.get("stop_after_reached", sys.maxsize):
            item.session.shouldstop = "enough tests reached predict"


def set_aside_garbage() -> None:
    """Hide what is alive from the garbage collector, which coremltools calls in each conversion: a third of the run's time."""
    gc.collect()
    gc.freeze()


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


def forget_names() -> None:
    """Let coremltools number the names of a program from 0, as in a new process: some tests ask for `relu_0`."""
    from coremltools.converters.mil.mil import Builder

    Builder.name_count.clear()


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


def notice_less_than_a_float16_step(witness: Witness) -> None:
    """Mark a test that fails only because it asks a float16 program for less than one float16 step.

    coremltools loosens its tolerances to 0.5 in float16 runs. In float32 runs some tests declare float16 tensors themselves and
    still compare at 1e-4, where one step is 1e-3: they ask for bits equal to those of torch's or numpy's own arithmetic. A
    failed comparison is marked when its tolerance is below a step at the largest value expected, and the answer is within
    `STEPS` of them everywhere.
    """
    import numpy as np

    original = np.testing.assert_allclose

    def assert_allclose(actual: Any, desired: Any, rtol: float = 1e-7, atol: float = 0, **options: Any) -> None:
        try:
            original(actual, desired, rtol, atol, **options)
        except AssertionError:
            witness.observed.within_steps = witness.observed.float16 and within_steps(actual, desired, rtol, atol)
            raise

    np.testing.assert_allclose = assert_allclose


def within_steps(actual: Any, desired: Any, rtol: float, atol: float) -> bool:
    """Tell whether less than a float16 step was asked for, and a few of them are met."""
    import numpy as np

    found, wanted = (np.asarray(values, np.float64) for values in (actual, desired))
    finite = np.abs(wanted[np.isfinite(wanted)])
    if found.shape != wanted.shape or not finite.size:
        return False
    largest = finite.max()
    step = float(np.spacing(np.float16(largest)))
    return bool(atol + rtol * largest < step and np.allclose(found, wanted, rtol=0, atol=STEPS * step, equal_nan=True))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--conformance-plan", required=True, help="JSON: which tests, where to write")


def pytest_load_initial_conftests() -> None:
    """Act before coremltools' own conftest imports coremltools, which looks for torchvision at once."""
    declare_torchvision_operators()


def pytest_configure(config: pytest.Config) -> None:
    recorder = Recorder(json.loads(Path(config.getoption("--conformance-plan")).read_text()))
    pretend_macos()
    if "list_to" not in recorder.plan:
        install_framework(recorder)
        notice_less_than_a_float16_step(recorder)
    config.pluginmanager.register(recorder)
