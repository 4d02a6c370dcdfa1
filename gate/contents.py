# SPDX-License-Identifier: Apache-2.0
"""Has anything changed that a model entry rests on, whatever the list of changed files says?

A digest over what git keeps of the tracked files that concern an entry (by `paths:`, and the files that the entry names), its own
configuration and the gate's version. Two commits with one digest have one answer: a file that was touched and put back, or a list of
changed files that GitHub could not give, costs no run. Git LFS files count by their pointer, which holds their digest.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from gate import __version__
from gate.config import Config, ModelEntry
from gate.prepare import rests_on, tracked
from gate.report import Report


def digests(config: Config, file: Path, root: Path) -> dict[str, str]:
    """Return the content digest of each model entry; `file` is the gate.yml in the checkout `root`."""
    files = tracked(root)
    return {entry.name: _digest(config, entry, file, root, files) for entry in config.models}


def _digest(config: Config, entry: ModelEntry, file: Path, root: Path, files: Mapping[str, str]) -> str:
    described = (config.app, config.setup, config.limits, entry)
    own = [__version__, *(json.dumps(part.model_dump(mode="json"), sort_keys=True) for part in described)]
    state = hashlib.sha256("\0".join(own).encode())
    of_entry = (path for path in files if path != _name(file, root) and rests_on(config, entry, file, root, path))
    for path in sorted(of_entry):
        state.update(f"{path}\0{files[path]}\n".encode())
    return state.hexdigest()


def _name(file: Path, root: Path) -> str:
    """gate.yml itself: of it, only what is said of this entry and of all counts."""
    return file.resolve().relative_to(root.resolve()).as_posix()


def unchanged(now: Mapping[str, str], earlier: Report | None) -> frozenset[str]:
    """Name the entries that an earlier report judged with this very content."""
    known = {model.name: model.content_digest for model in earlier.models} if earlier else {}
    return frozenset(name for name, digest in now.items() if known.get(name) == digest)
