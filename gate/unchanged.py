# SPDX-License-Identifier: Apache-2.0
"""Which entries need no run on a developer's machine, since nothing of them changed since the last report?

`gate check --only-changed --baseline REPORT`. The digests are those of the action (`gate.contents`), of what git keeps; so they say
something only where the working tree is what git keeps, and only of files that git tracks. Whatever is in doubt is judged again.
"""

from pathlib import Path

from gate import contents, prepare
from gate.baseline import Baseline
from gate.config import Config
from gate.report import Finding, Severity
from gate.tools import other_versions, tool_versions

SHOWN = 3


def standing(
    config: Config, file: Path, baseline: Baseline | None, apart: tuple[Path, ...]
) -> tuple[dict[str, str], tuple[str, ...], tuple[Finding, ...]]:
    """Return the digest of each entry, the entries whose last result stands, and why others do not.

    `apart` are folders that the gate itself writes to; what lies there is no change.
    """
    root = prepare.toplevel(config.folder)
    ours = [path.resolve() for path in apart]
    changed = [
        name for name in prepare.differing(root) if not any((root / name).resolve().is_relative_to(o) for o in ours)
    ]
    if changed:
        told = ", ".join(changed[:SHOWN]) + (", …" if len(changed) > SHOWN else "")
        return {}, (), (_note(f"The working tree differs from what git keeps ({told}): every entry is judged."),)
    now = contents.digests(config, file, root)
    if baseline is None:
        return now, (), ()
    if other := other_versions(baseline.report.run.tools, tool_versions()):
        return (
            now,
            (),
            (_note(f"The last report was made with other tools ({'; '.join(other)}): every entry is judged."),),
        )
    same = contents.unchanged(now, baseline.report)
    hidden = {entry.name: prepare.untracked(config, entry, root) for entry in config.models if entry.name in same}
    notes = tuple(
        _note(f"{name}: git keeps nothing of {files[0]}, so it is judged.") for name, files in hidden.items() if files
    )
    return now, tuple(name for name in hidden if not hidden[name]), notes


def _note(message: str) -> Finding:
    advice = "commit first, so that what is judged can be told from what was judged"
    return Finding(rule="config.only_changed", severity=Severity.INFO, message=message, advice=advice)
