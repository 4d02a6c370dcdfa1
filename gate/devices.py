# SPDX-License-Identifier: Apache-2.0
"""How much memory does a phone have, and how much of it may an app use?

Apple publishes neither; `devices.yaml` holds what others measured, with the source of each figure.
"""

import difflib
from functools import cache
from pathlib import Path

from pydantic import Field

from gate.document import Record, parse, read_yaml
from gate.errors import ConfigError
from gate.quantity import Proportion, Size


class Device(Record):
    """One phone."""

    name: str = Field(description="name as Apple writes it")
    ram: Size = Field(description="installed memory")
    app_limit: Size | None = Field(default=None, description="what an app may use, as measured")
    entitled_limit: Size | None = Field(default=None, description="the same with the entitlement")
    source: str = Field(default="", description="who measured the limits")


class Devices(Record):
    """devices.yaml."""

    entitlement: str = Field(description="the entitlement that raises the limit")
    app_share: Proportion = Field(description="share of RAM that an app may use where nobody measured")
    entitled_share: Proportion = Field(description="the same with the entitlement")
    devices: dict[str, Device] = Field(description="the phones, by the name that gate.yml uses")

    def app_bytes(self, device: Device, *, entitled: bool = False) -> int:
        """Bytes that an app may use: as measured, or by the rule of thumb."""
        if entitled:
            return device.entitled_limit or round(device.ram * self.entitled_share)
        return device.app_limit or round(device.ram * self.app_share)


@cache
def table() -> Devices:
    """Read the table."""
    path = Path(__file__).with_name("devices.yaml")
    return parse(Devices, read_yaml(path, ConfigError), path.name, ConfigError)


def find(name: str, where: str) -> Device:
    """Return a phone; raise ConfigError with the nearest known name."""
    known = table().devices
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.4)
    hint = f'did you mean "{close[0]}"?' if close else f"known: {', '.join(known)}"
    raise ConfigError(f"{where}: found {name!r}, which is no device of the table ({hint})")
