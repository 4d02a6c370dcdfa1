# SPDX-License-Identifier: Apache-2.0
"""Packages are converted once per session, and worker processes are shared."""

from pathlib import Path

import pytest

from gate.compress import Workers
from tests.compress.packages import convert, net


@pytest.fixture(scope="session")
def packages(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("packages")
    return {t: convert(net(), (1, 4, 8, 8), t, folder / f"{t}.mlpackage") for t in ("iOS16", "iOS18")}


@pytest.fixture(scope="session")
def workers():
    with Workers(2) as pool:
        yield pool
