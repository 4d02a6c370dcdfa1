# SPDX-License-Identifier: Apache-2.0
"""How are modules imported that take seconds? While another process is waited for, and without what nobody needs of them."""

import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from threading import Thread


def import_ahead(name: str) -> None:
    """Begin to import a module in a thread; whoever needs it before waits for the rest."""

    def work() -> None:
        with suppress(Exception):  # told where it is needed
            import_module(name)

    Thread(target=work, name=f"import {name}").start()


def import_without(name: str, unneeded: Iterable[str]) -> None:
    """Import a module as if others, which it imports only to see whether they are there, were not installed."""
    hidden = [other for other in unneeded if other not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: the import fails
    try:
        import_module(name)
    finally:
        for other in hidden:
            sys.modules.pop(other, None)  # who asks for them now must not find None
