# SPDX-License-Identifier: Apache-2.0
"""What is compressed while another candidate is being judged?

Compression happens in worker processes, judging in this one; side by side they keep all cores busy. One policy is compressed at a
time, in the order of the candidates, so that at most one package is in memory besides the one that is judged.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from gate.compress import Compressed, Workers

Work = Callable[[], Compressed]


class Ahead:
    """Compressions that were begun; a context manager that ends them."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="compress")
        self._begun: dict[str, Future[Compressed]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._workers.close()  # what waits for them ends at once
        self._pool.shutdown(wait=True, cancel_futures=True)

    def begin(self, name: str, work: Work) -> None:
        """Queue the compression of one policy."""
        self._begun[name] = self._pool.submit(work)

    def take(self, name: str, work: Work) -> Compressed:
        """Return what was begun under this name, or do it now; raises what it raised."""
        return (self._begun.pop(name, None) or self._pool.submit(work)).result()
