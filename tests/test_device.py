# SPDX-License-Identifier: Apache-2.0
"""Times of a connected device: through a double of coremltools' remote-device API, and why there are none where there are none."""

import asyncio
import inspect
import json
import shutil
import sys
import time

import numpy as np
import pytest
from coremltools.models.ml_program.experimental import async_wrapper, remote_device

from gate.answer import answer
from gate.engine import coreml, device, make_engine
from gate.engine.coreml import Connected, CoreMLEngine
from gate.engine.device import DeviceRequest
from gate.errors import NoAnswer, UsageError
from gate.merge import merge
from gate.pipeline import Options, check
from gate.plan import make_plan
from tests import apple_double, device_double
from tests.compress.packages import convert, net

PHONE = ["Desk phone", "iphone", "00008110-A", "connected"]


def parameters(function) -> list[tuple[str, object]]:
    """Names and kinds, and whether there is a default."""
    given = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default is inspect.Parameter.empty) for p in given]


@pytest.mark.parametrize(
    ("real", "double"),
    [
        (remote_device.Device.get_devices, device_double.FakeDevice.get_devices),
        (
            remote_device.Device.prepare_for_model_debugging,
            device_double.FakeDevice.prepare_for_model_debugging,
        ),
        (async_wrapper.MLModelAsyncWrapper.from_spec_or_path, device_double.FakeModel.from_spec_or_path),
        (async_wrapper.RemoteMLModelAsyncWrapper.load, device_double.FakeModel.load),
        (async_wrapper.RemoteMLModelAsyncWrapper.predict, device_double.FakeModel.predict),
        (async_wrapper.RemoteMLModelAsyncWrapper.retrieve_compute_plan, device_double.FakeModel.retrieve_compute_plan),
        (async_wrapper.RemoteMLModelAsyncWrapper.unload, device_double.FakeModel.unload),
    ],
    ids=lambda function: function.__qualname__,
)
def test_the_double_has_the_signature_of_the_installed_coremltools(real, double):
    assert parameters(real) == parameters(double)
    assert inspect.iscoroutinefunction(real) == inspect.iscoroutinefunction(double)


def test_what_is_read_off_the_api_is_there():
    assert {"name", "type", "identifier", "udid", "os_version", "state", "session"} <= set(
        remote_device.Device.__dataclass_fields__
    )
    assert "development_team" in remote_device.AppSigningCredentials.__dataclass_fields__
    assert remote_device.DeviceState.CONNECTED.value == "connected"
    for name in ("load_duration_in_nano_seconds", "last_predict_duration_in_nano_seconds"):
        assert isinstance(getattr(async_wrapper.RemoteMLModelAsyncWrapper, name), property)
    assert callable(remote_device._AppSession.stop)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return convert(net(), (1, 4, 8, 8), "iOS18", tmp_path_factory.mktemp("device") / "net.mlpackage")


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Put the doubles in place, here and for processes that are started; return what tells them what happens."""

    def tell(**settings):
        given = {"devices": [PHONE], "stopped": str(tmp_path / "stopped"), "seconds": {"": 0.002}} | settings
        monkeypatch.setattr(device_double, "SETTINGS", given)
        monkeypatch.setenv("DEVICE_DOUBLE", json.dumps(given))

    apple_double.install(monkeypatch.setattr)
    monkeypatch.setattr(remote_device, "Device", device_double.FakeDevice)
    monkeypatch.setattr(async_wrapper, "MLModelAsyncWrapper", device_double.FakeModel)
    monkeypatch.setenv("APPLE_DOUBLE", json.dumps({"seconds": {"": 0.002}}))
    tell()
    return tell


def ask(package, tmp_path, **more):
    """Ask the device as the process of its own does, without one."""
    np.savez(tmp_path / "inputs.npz", x=np.zeros((1, 4, 8, 8), np.float32))
    asked = {"packages": {"candidate": str(package)}, "compute_units": "ALL", "inputs": str(tmp_path / "inputs.npz")}
    limits = {"rounds": 10, "seconds": 1.0, "device": "DESK PHONE", "team": "AB12CD34EF"}
    return asyncio.run(device.answer(DeviceRequest(**asked | limits | more)))


def test_each_prediction_is_timed_as_the_device_says(package, told, tmp_path):
    reply = ask(package, tmp_path, rounds=12)
    assert reply.system == "iOS 18.5"
    (found,) = reply.timings.contenders.values()
    assert found.steady == (0.002,) * 12
    assert (found.first, found.load) == (0.002, 0.005)
    assert found.compiled_bytes > 0
    assert {op.op for op in reply.timings.placement} >= {"conv"}
    assert reply.timings.devices == ("CPU", "Neural Engine")
    assert (tmp_path / "stopped").read_text() == "AB12CD34EF", "the app was signed by that team, and ended"


def test_times_without_a_plan_are_times_still(package, told, tmp_path):
    told(no_plan=True)
    reply = ask(package, tmp_path)
    assert reply.timings.placement == ()
    assert len(reply.timings.contenders["candidate"].steady) == 10


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        pytest.param({"devices": []}, "no device DESK PHONE is connected to this Mac; found none", id="none"),
        pytest.param({"devices": [["Pad", "ipad", "1", "connected"]]}, "found Pad", id="another"),
        pytest.param({"devices": [PHONE, PHONE]}, "2 devices are called DESK PHONE; name one by its udid", id="two"),
        pytest.param({"devices": [[*PHONE[:3], "unavailable"]]}, "is unavailable, expected connected", id="locked"),
        pytest.param({"no_xcode": True}, "'devicectl' command is required", id="no Xcode"),
        pytest.param({"unsigned": True}, "Signing requires a development team", id="unsigned"),
    ],
)
def test_a_device_that_cannot_be_asked_is_missing_and_says_why(package, told, tmp_path, settings, said):
    told(**settings)
    reply = ask(package, tmp_path)
    assert reply.timings is None
    assert said in reply.missing


def test_an_older_coremltools_has_no_such_api(package, told, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, f"{device.API}.remote_device", None)
    assert "has no remote-device API" in ask(package, tmp_path).missing


@pytest.mark.parametrize(
    ("more", "said"),
    [({"images": {"x": "RGB"}}, "arrays only; images"), ({"stateful": True}, "models with states")],
)
def test_what_the_api_cannot_transfer_is_missing(package, told, tmp_path, more, said):
    assert said in ask(package, tmp_path, **more).missing


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        pytest.param({"fails_on": ["ALL"]}, "the app on the device has ended", id="it ends"),
        pytest.param({"silent": True}, "did not say how long the prediction took", id="it does not tell"),
    ],
)
def test_a_device_that_fails_when_it_is_ready_is_a_fault_and_is_left_alone(package, told, tmp_path, settings, said):
    told(**settings)
    with pytest.raises(RuntimeError, match=said):
        ask(package, tmp_path)
    assert (tmp_path / "stopped").exists()


def engine(**more):
    connected = Connected("desk phone", "AB12CD34EF", device_double.PROCESS)
    return CoreMLEngine(stopwatch=apple_double.STOPWATCH, connected=connected, **more)


def test_a_device_that_hangs_is_ended_and_a_crash_is_no_answer(package, told, monkeypatch):
    inputs = {"x": np.zeros((1, 4, 8, 8), np.float32)}
    told(fails_on=["CPU_ONLY"])
    with pytest.raises(NoAnswer, match="desk phone on CPU_ONLY: ended with exit code 1: .*the app on the device has"):
        engine(compute_units="CPU_ONLY").time_on_device({"candidate": package}, inputs)
    told(hangs=True)
    monkeypatch.setattr(coreml, "DEVICE_TIME_LIMIT", 6)
    started = time.monotonic()
    with pytest.raises(NoAnswer, match="desk phone on ALL: no times within 6 s"):
        engine().time_on_device({"candidate": package}, inputs)
    assert time.monotonic() - started < 60


@pytest.fixture(scope="module")
def handed(package, tmp_path_factory):
    """What a Linux job hands over: one model with a budget of a phone."""
    folder = tmp_path_factory.mktemp("handed")
    shutil.copytree(package, folder / "net.mlpackage")
    (folder / "gate.yml").write_text(
        "version: 1\napp: {deployment_target: iOS18}\nmodels:\n"
        "  - {name: net, source: {coreml: net.mlpackage}, "
        "budgets: {latency: {p95: 4 ms, device: desk phone}}}\n"
    )
    check(Options(folder / "gate.yml", folder / "out", hand_over=folder / "handed"))
    return folder / "handed"


@pytest.mark.parametrize(
    ("settings", "outcome", "whole"),
    [
        pytest.param({"seconds": {"": 0.002}}, "pass", "pass", id="fast enough", marks=pytest.mark.slow),
        pytest.param({"seconds": {"": 0.009}}, "fail", "fail", id="too slow", marks=pytest.mark.slow),
        pytest.param({"devices": []}, "not_run", "error", id="asked by gate.yml, and not there"),
    ],
)
def test_packages_that_were_handed_over_are_judged_on_the_device(handed, told, tmp_path, settings, outcome, whole):
    told(**settings)

    report = answer(handed, tmp_path / "mac", engine=engine())

    mac, phone = [r for r in report.models[0].shipped.results if r.check == "latency"]
    assert (mac.environment.device, mac.outcome) == ("Mac0,0", "pass"), (
        f"{mac.message}: the Mac's own row stands beside it"
    )
    assert (phone.environment.device, phone.outcome) == ("desk phone", outcome)
    assert phone.required is (outcome == "not_run")
    assert report.outcome == whole
    joined = merge([handed.parent / "out", tmp_path / "mac"], tmp_path / "joined")
    assert joined.outcome == whole, "the Mac's own row does not stand for a device that gate.yml asks for"
    if outcome != "not_run":
        assert (phone.basis, phone.environment.os) == ("reported", "iOS 18.5")
        assert {m.name: m.limit for m in phone.measurements}["p95"] == pytest.approx(4)


def test_on_a_pull_request_no_device_is_used_where_its_code_is_run(tmp_path):
    options = Options(tmp_path / "gate.yml", tmp_path / "out", device="desk phone", event="pull_request")
    with pytest.raises(UsageError, match="judge what another machine handed over"):
        make_plan(options)


@pytest.mark.parametrize(
    ("engine", "team", "said"),
    [("mil", "", "expected --engine coreml"), ("coreml", "A; rm -rf /", "ten letters and digits")],
)
def test_a_device_needs_a_mac_and_a_team_that_is_one(engine, team, said):
    with pytest.raises(UsageError, match=said):
        make_engine(engine, "desk phone", team)
