# SPDX-License-Identifier: Apache-2.0
"""How does memory that nobody uses any more get back to the system?

Weights of a few megabytes stay in the allocator's hands when they are freed, between others that live on.
"""

import contextlib
import ctypes
import gc


def trim() -> None:
    """Return free memory to the system; takes milliseconds."""
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has this
        ctypes.CDLL(None).malloc_trim(0)


def give_back() -> None:
    """Collect what is left in cycles first; takes tenths of a second."""
    gc.collect()
    trim()
