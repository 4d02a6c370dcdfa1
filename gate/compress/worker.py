# SPDX-License-Identifier: Apache-2.0
"""The process that compresses weights, one at a time: `python -m gate.compress.worker`.

It reads one JSON task per line and answers with one line. It is started fresh, never forked, has one thread, and does not load
torch: k-means beside torch's threads was seen to hang, and coremltools imports in 0.7 s instead of 3.4 s without it.
"""

import json
import signal
import sys
from pathlib import Path
from typing import Any

from gate.importing import import_without

NEEDED = "coremltools.optimize.coreml._quantization_passes"
HEAVY = ("torch", "tensorflow", "executorch", "sklearn")  # the last is loaded where k-means needs it


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Compress one weight into an entry; say why where a step was skipped."""
    from gate.compress.encode import encode
    from gate.compress.entry import Task, save

    task = Task.from_json(request["task"])
    encoded, reasons = encode(task.weight(), task.actions, task.axes)
    if encoded is not None:
        save(Path(request["out"]), encoded)
    return {"written": encoded is not None, "reasons": reasons}


def main() -> None:
    """Answer until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides what ends
    replies = sys.stdout
    sys.stdout = sys.stderr  # what libraries print must not look like an answer
    import_without(NEEDED, HEAVY)
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:  # the parent turns it into a toolchain error
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
