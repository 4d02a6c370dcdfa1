# SPDX-License-Identifier: Apache-2.0
"""How long do packages take on a device that is connected to this Mac? A process of its own, as `stopwatch` is.

    python -m gate.engine.device REQUEST.json ANSWER.json

coremltools' experimental remote-device API builds a small app, installs it on the device with `devicectl`, and has it load and
predict; the times are the device's own, without the transfer. What that API cannot do here (no such device, no Xcode, images,
states) is `missing`, which is no fault; what fails once the device is ready is one. Not run where this was written (no Mac, no
device): tests put a double in the place of coremltools' classes, whose signatures are compared with the installed ones.
"""

import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from gate.document import Record
from gate.engine import apple
from gate.engine.apple import PlacedOp
from gate.engine.stopwatch import LEAST_ROUNDS, WARM_UP, Request, Times, Timings, bytes_below

Array = npt.NDArray[Any]

API = "coremltools.models.ml_program.experimental"
SYSTEMS = {"iphone": "iOS", "ipad": "iPadOS", "mac": "macOS", "apppletv": "tvOS", "applewatch": "watchOS"}  # sic, 9.0
DTYPES = ("float16", "float32", "float64", "int32")  # what the API's transfer knows
LISTED = 8


class DeviceRequest(Request):
    """What is to be timed, and where."""

    device: str  # as `xcrun devicectl list devices` names it, or its udid
    team: str = ""  # of Apple's developer programme; signs the app that runs the models
    stateful: bool = False


class Reply(Record):
    """What came of it: times, or why this cannot be asked here."""

    system: str = ""  # iOS 18.5
    timings: Timings | None = None
    missing: str = Field(default="", description="why there are no times, where that is no fault")


class Missing(Exception):
    """It cannot be asked here."""


async def answer(request: DeviceRequest) -> Reply:
    """Time every contender on the device."""
    system = ""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            inputs = _inputs(request)
            device = find(request.device)
            system = f"{SYSTEMS.get(device.type.value, device.type.value)} {device.os_version}"
            ready = await _prepared(device, request.team, Path(scratch))
        except Missing as why:
            return Reply(system=system, missing=str(why))
        try:
            return Reply(system=system, timings=await _timings(request, ready, inputs, Path(scratch)))
        finally:
            ready.session.stop()


def _inputs(request: DeviceRequest) -> dict[str, Array]:
    """The example, where the API can hand it to a device."""
    if request.images or request.stateful:
        what = "images" if request.images else "models with states"
        raise Missing(f"coremltools' remote-device API takes arrays only; {what} cannot be timed on a device")
    inputs = dict(np.load(request.inputs, allow_pickle=False))
    strange = [f"{name} ({array.dtype})" for name, array in inputs.items() if str(array.dtype) not in DTYPES]
    if strange:
        raise Missing(f"coremltools' remote-device API does not transfer {', '.join(strange)}")
    return inputs


def find(name: str) -> Any:
    """Return the one connected device of a name or identifier; Missing says what there is instead."""
    api = _api("remote_device")
    try:
        known = api.Device.get_devices()
    except Exception as error:  # ValueError without devicectl; the tool's own errors are private classes
        raise Missing(f"the devices of this Mac cannot be listed: {_said(error)}; is Xcode installed?") from None
    same = [d for d in known if name.casefold() in (d.name.casefold(), d.udid.casefold(), d.identifier.casefold())]
    if len(same) > 1:
        raise Missing(f"{len(same)} devices are called {name}; name one by its udid")
    if not same:
        there = ", ".join(sorted(d.name for d in known)[:LISTED]) or "none"
        raise Missing(f"no device {name} is connected to this Mac; found {there}")
    if same[0].state != api.DeviceState.CONNECTED:
        raise Missing(f"{name} is {same[0].state.value}, expected connected; unlock it, and trust this Mac")
    return same[0]


async def _prepared(device: Any, team: str, scratch: Path) -> Any:
    """Build, sign and launch the app that runs models. What Xcode refuses is not the model's fault."""
    credentials = _api("remote_device").AppSigningCredentials(development_team=team)
    try:
        return await device.prepare_for_model_debugging(credentials=credentials, working_directory=scratch)
    except Exception as error:
        raise Missing(f"the app that runs models could not be put on {device.name}: {_said(error)}") from None


async def _timings(request: DeviceRequest, device: Any, inputs: Mapping[str, Array], scratch: Path) -> Timings:
    models = {name: _model(Path(package), request, device) for name, package in request.packages.items()}
    compiled = {
        name: bytes_below(apple.compile_package(Path(package), scratch / "compiled" / str(index)))
        for index, (name, package) in enumerate(request.packages.items())
    }
    for model in models.values():
        await model.load()
    first = {name: await _seconds(model, inputs) for name, model in models.items()}
    steady = await interleave(models, inputs, request.rounds, request.seconds)
    candidate, *_ = models.values()
    placement = await _placement(candidate)
    times = {
        name: Times(
            compiled_bytes=compiled[name],
            load=_as_seconds(model.load_duration_in_nano_seconds, "load"),
            first=first[name],
            steady=steady[name],
        )
        for name, model in models.items()
    }
    for model in models.values():
        await model.unload()
    planned = dict.fromkeys(device for op in placement for device in op.supported)
    return Timings(contenders=times, devices=tuple(planned), placement=placement)


async def _placement(model: Any) -> tuple[PlacedOp, ...]:
    """Where the device plans to run each op; times without a plan are times still."""
    try:
        return apple.placed(await model.retrieve_compute_plan())
    except Exception as error:
        print(f"no compute plan: {_said(error)}", file=sys.stderr)
        return ()


def _model(package: Path, request: DeviceRequest, device: Any) -> Any:
    import coremltools as ct

    return _api("async_wrapper").MLModelAsyncWrapper.from_spec_or_path(
        spec_or_path=str(package),
        weights_dir=str(package / "Data" / "com.apple.CoreML" / "weights"),
        compute_units=getattr(ct.ComputeUnit, request.compute_units),
        device=device,
    )


async def interleave(
    models: Mapping[str, Any], inputs: Mapping[str, Array], rounds: int, seconds: float
) -> dict[str, tuple[float, ...]]:
    """Predict once with each contender per round, in an order that a seed draws anew, as `stopwatch` does on the Mac itself."""
    order, draw = list(models), random.Random(0)
    for name in order * (WARM_UP - 1):  # the first prediction warmed up, too; each costs a transfer
        await _seconds(models[name], inputs)
    found: dict[str, list[float]] = {name: [] for name in order}
    deadline = time.monotonic() + seconds
    for done in range(rounds):
        if done >= LEAST_ROUNDS and time.monotonic() > deadline:
            break
        draw.shuffle(order)
        for name in order:
            found[name].append(await _seconds(models[name], inputs))
    return {name: tuple(samples) for name, samples in found.items()}


async def _seconds(model: Any, inputs: Mapping[str, Array]) -> float:
    """One prediction, as the device timed it."""
    await model.predict(dict(inputs), state=None)
    return _as_seconds(model.last_predict_duration_in_nano_seconds, "prediction")


def _as_seconds(nanoseconds: int | None, what: str) -> float:
    if nanoseconds is None:
        raise RuntimeError(f"the device did not say how long the {what} took")
    return nanoseconds / 1e9


def _api(module: str) -> Any:
    try:
        return import_module(f"{API}.{module}")
    except ImportError as error:
        raise Missing(f"this coremltools has no remote-device API ({error}); 9.0 does") from None


def _said(error: Exception) -> str:
    """What an error says, in one line: a tool's own words come as bytes."""
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    return " ".join(text.split())[:600]


def show_devicectl() -> None:
    """Put Xcode's own tools on the path: coremltools looks for `devicectl` there, and Xcode keeps it to itself."""
    if shutil.which("devicectl") is None and shutil.which("xcrun") is not None:
        command = ["xcrun", "--find", "devicectl"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode == 0:
            os.environ["PATH"] += f"{os.pathsep}{Path(done.stdout.strip()).parent}"


def main(arguments: Sequence[str]) -> None:
    """Answer one request."""
    request, target = map(Path, arguments)
    show_devicectl()
    reply = asyncio.run(answer(DeviceRequest.model_validate_json(request.read_bytes())))
    target.write_text(reply.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
