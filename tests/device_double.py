# SPDX-License-Identifier: Apache-2.0
"""A device that is not there: coremltools' remote-device classes, answered by our evaluator.

`python -m tests.device_double REQUEST ANSWER` is the process that asks it. DEVICE_DOUBLE (JSON) says which devices are connected, how
long a prediction of a package takes, and what fails. Signatures are compared with the installed coremltools by test.
"""

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from coremltools import ComputeUnit
from coremltools.models.ml_program.experimental import async_wrapper, remote_device
from coremltools.models.ml_program.experimental.remote_device import AppSigningCredentials, Device, DeviceState

from gate import mil
from gate.engine import device
from tests import apple_double

CHECK = async_wrapper.MLModelAsyncWrapper.init_check
SETTINGS = json.loads(os.environ.get("DEVICE_DOUBLE", "{}"))
PROCESS = (sys.executable, "-m", "tests.device_double")


def known() -> list[Device]:
    """The devices of DEVICE_DOUBLE: rows of name, type, udid and state."""
    return [
        FakeDevice(
            name=name, type=remote_device.DeviceType(kind), identifier=f"id-{udid}", udid=udid, os_version="18.5",
            os_build_number="22F76", developer_mode_state="enabled", state=DeviceState(state), session=None,
        )
        for name, kind, udid, state in SETTINGS.get("devices", [])
    ]  # fmt: skip


class FakeDevice(Device):
    """`Device`, without Xcode."""

    @staticmethod
    def get_devices() -> list[Device]:
        if SETTINGS.get("no_xcode"):
            raise ValueError("The 'devicectl' command is required.")
        return known()

    async def prepare_for_model_debugging(
        self,
        credentials: AppSigningCredentials | None = None,
        working_directory: Path | None = None,
        clean: bool = False,
    ) -> Device:
        if SETTINGS.get("unsigned"):
            raise remote_device._AppBuilder.Error(message=b"Signing requires\na development team.", error_code=65)
        assert credentials is not None
        assert working_directory is not None
        assert working_directory.is_dir()
        stopped = Path(SETTINGS["stopped"])
        session = SimpleNamespace(stop=lambda: stopped.write_text(credentials.development_team or ""))
        return FakeDevice(**{**vars(self), "session": session})


class FakeModel:
    """`RemoteMLModelAsyncWrapper`."""

    def __init__(self, path: str, units: ComputeUnit, device: Device) -> None:
        self._path, self._units, self._device = path, units, device
        self._seconds = next((s for part, s in SETTINGS.get("seconds", {}).items() if part in path), 0.001)
        self._evaluator: Any = None
        self.load_duration_in_nano_seconds: int | None = None
        self.last_predict_duration_in_nano_seconds: int | None = None

    @staticmethod
    def from_spec_or_path(
        spec_or_path: Any,
        weights_dir: str,
        compute_units: ComputeUnit = ComputeUnit.ALL,
        function_name: str | None = None,
        optimization_hints: dict[str, Any] | None = None,
        device: Device | None = None,
    ) -> "FakeModel":
        CHECK(spec_or_path, weights_dir, compute_units)  # which wants both paths as text
        assert device is not None
        assert device.session is not None
        return FakeModel(spec_or_path, compute_units, device)

    async def load(self) -> None:
        if SETTINGS.get("hangs"):
            time.sleep(600)
        self._evaluator = mil.load(Path(self._path))
        self.load_duration_in_nano_seconds = 5_000_000

    async def predict(self, inputs: dict[str, Any], state: Any = None) -> dict[str, Any]:
        if self._units.name in SETTINGS.get("fails_on", []):
            raise RuntimeError("the app on the device has ended")
        outputs: dict[str, Any] = self._evaluator.predict(inputs)
        self.last_predict_duration_in_nano_seconds = None if SETTINGS.get("silent") else int(self._seconds * 1e9)
        return outputs

    async def retrieve_compute_plan(self) -> Any:
        if SETTINGS.get("no_plan"):
            raise ValueError("Remote device functionality for retrieving the compute plan is unavailable.")
        return apple_double.Plan(self._path)

    async def unload(self) -> None:
        self._evaluator = None


if __name__ == "__main__":
    apple_double.install()
    if SETTINGS.get("no_api"):
        sys.modules[f"{device.API}.remote_device"] = None  # type: ignore[assignment]
    else:
        remote_device.Device = FakeDevice  # type: ignore[misc]
        async_wrapper.MLModelAsyncWrapper = FakeModel  # type: ignore[misc,assignment]
    device.main(sys.argv[1:])
