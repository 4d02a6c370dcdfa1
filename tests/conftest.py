# SPDX-License-Identifier: Apache-2.0
"""What do all tests share? The switch that rewrites golden files, and one thread a process."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # k-means of several threads differs in the last bit; read when they load
GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sample", type=int, help="run so many of the chosen tests, drawn by --sample-seed")
    parser.addoption("--sample-seed", type=int, default=0)
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden with what is rendered now")


@pytest.hookimpl(trylast=True)  # after -m has chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    size = config.getoption("--sample")
    if size is None or size >= len(items):
        return
    drawn = set(random.Random(config.getoption("--sample-seed")).sample(range(len(items)), size))
    config.hook.pytest_deselected(items=[item for i, item in enumerate(items) if i not in drawn])
    items[:] = [item for i, item in enumerate(items) if i in drawn]


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare text with a file of tests/golden, or rewrite that file."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"{path.name} is missing; run pytest --update-golden and read what it wrote"
        assert path.read_text(encoding="utf-8") == text, (
            f"{path.name} differs; read it, then run pytest --update-golden"
        )

    return compare
