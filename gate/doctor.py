# SPDX-License-Identifier: Apache-2.0
"""What can this machine do, and what is missing for the rest?

Each line is found by doing the thing, not by guessing from versions.
"""

import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable

from pydantic import Field

from gate.document import Record

TESTED = {"torch": "2.13", "coremltools": "9.0", "numpy": "1.26"}


class Capability(Record):
    """One thing that the gate may need."""

    name: str = Field(description="what it is for")
    ok: bool = Field(description="whether it works here")
    found: str = Field(description="what was found")
    advice: str = Field(default="", description="what to do when it is missing")


class Examination(Record):
    """What this machine can do."""

    python: str = Field(description="version of Python")
    system: str = Field(description="operating system and machine")
    capabilities: tuple[Capability, ...] = Field(description="the findings")

    def text(self) -> str:
        """Show it for a person."""
        lines = [f"Python {self.python} on {self.system}"]
        for c in self.capabilities:
            lines.append(
                f"{'yes' if c.ok else 'no ':3}  {c.name}: {c.found}{'' if c.ok or not c.advice else f'; {c.advice}'}"
            )
        return "\n".join(lines)


def examine() -> Examination:
    """Try each capability."""
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return Examination(python=platform.python_version(), system=system, capabilities=tuple(probe() for probe in PROBES))


def _engine() -> Capability:
    name, advice = "convert and compress (coremltools, torch)", 'install with `pip install "coreml-gate[engine]"`'
    missing = [m for m in (*TESTED, "sklearn", "scipy") if importlib.util.find_spec(m) is None]
    if missing:
        return Capability(name=name, ok=False, found=f"missing {', '.join(missing)}", advice=advice)
    found = {m: importlib.metadata.version(m) for m in TESTED}
    told = ", ".join(f"{m} {version}" for m, version in found.items())
    odd = [m for m, version in TESTED.items() if not found[m].startswith(version)]
    note = f" (tested with {', '.join(f'{m} {TESTED[m]}' for m in odd)})" if odd else ""
    return Capability(name=name, ok=True, found=told + note)


def _mil() -> Capability:
    name = "run Core ML programs here (engine mil)"
    try:
        from gate.mil.ops.registry import KERNELS
    except ImportError as error:
        return Capability(name=name, ok=False, found=str(error), advice="install the extra `engine`")
    return Capability(name=name, ok=True, found=f"{len(KERNELS)} op kernels")


def _coreml() -> Capability:
    name = "run on Apple's runtime (engine coreml)"
    if sys.platform != "darwin":
        return Capability(name=name, ok=False, found=platform.system(), advice="needs macOS; use a macOS job")
    return Capability(name=name, ok=True, found=f"macOS {platform.mac_ver()[0]}")


def _onnx() -> Capability:
    name = "compare with an ONNX twin (onnxruntime)"
    if importlib.util.find_spec("onnxruntime") is None:
        return Capability(name=name, ok=False, found="missing", advice='install with `pip install "coreml-gate[onnx]"`')
    return Capability(name=name, ok=True, found=importlib.metadata.version("onnxruntime"))


def _sandbox() -> Capability:
    from gate.sandbox import kind_here

    kind = kind_here()
    name = "keep the model's code apart (sandbox)"
    advice = "allow unprivileged user namespaces, or run in the container"
    return Capability(name=name, ok=kind != "process", found=kind, advice=advice)


def _docker() -> Capability:
    name = "run in the container image (docker)"
    if shutil.which("docker") is None:
        return Capability(
            name=name, ok=False, found="no docker command", advice="only the action's `runtime: container` needs it"
        )
    done = subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False)
    found = "daemon answers" if done.returncode == 0 else "client without a daemon"
    return Capability(
        name=name, ok=done.returncode == 0, found=found, advice="start the daemon, or use `runtime: native`"
    )


PROBES: tuple[Callable[[], Capability], ...] = (_engine, _mil, _coreml, _onnx, _sandbox, _docker)
