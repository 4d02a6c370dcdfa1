# SPDX-License-Identifier: Apache-2.0
"""Where do the package and its ONNX twin come from? Copied out of the installed wheel into `models/`, which git ignores.

python examples/basic-pitch/prepare.py
"""

import shutil
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

WHEEL, VERSION = "basic-pitch", "0.4.0"
FOLDER = "basic_pitch/saved_models/icassp_2022"
WANTED = (f"{FOLDER}/nmp.mlpackage/", f"{FOLDER}/nmp.onnx")
INSTALL = "pip install --no-deps -r examples/basic-pitch/requirements.txt"


def main() -> None:
    """Copy, and say what was copied; exit with one line when the wheel is not there."""
    try:
        copied = copy(find_wheel(), Path(__file__).parent / "models")
    except FileNotFoundError as error:
        sys.exit(str(error))
    print(f"{WHEEL} {VERSION}: {len(copied)} files copied to examples/basic-pitch/models")


def find_wheel() -> Distribution:
    """Return the installed wheel in the version that the budgets were set for."""
    try:
        wheel = distribution(WHEEL)
    except PackageNotFoundError:
        raise FileNotFoundError(f"{WHEEL} is not installed; expected {VERSION}: {INSTALL}") from None
    if wheel.version != VERSION:
        raise FileNotFoundError(f"{WHEEL}: found {wheel.version}, expected {VERSION}: {INSTALL}")
    return wheel


def copy(wheel: Distribution, folder: Path) -> list[Path]:
    """Replace `folder` by the wanted files of the wheel."""
    files = [file for file in wheel.files or () if str(file).startswith(WANTED)]
    if not files:
        raise FileNotFoundError(f"{WHEEL} {VERSION}: {FOLDER} is missing from it: {INSTALL}")
    shutil.rmtree(folder, ignore_errors=True)
    targets = [folder / file.relative_to(FOLDER) for file in files]
    for file, target in zip(files, targets, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(wheel.locate_file(file)), target)
    return targets


if __name__ == "__main__":
    main()
