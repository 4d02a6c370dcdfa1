# SPDX-License-Identifier: Apache-2.0
"""Which weights arrived compressed, and did the conversion keep what the checkpoint says?

Part of `integrity`, for a policy without steps of its own. Bits and zeros are counted in the package. A checkpoint of
`coremltools.optimize.torch` says in its buffers which weights are compressed; a package without any has lost it all, and is as
large as if nobody had trained for it.
"""

from collections.abc import Sequence
from pathlib import Path

from gate.compress.invariants import sparsity
from gate.mil import Unsupported
from gate.mil.program import load_program
from gate.mil.weights import Weight, weights
from gate.report import CheckName, Finding, Measurement, Outcome, Result, Severity, Unit


def arrived_weights(package: Path) -> tuple[Weight, ...]:
    """Return the weights of a package that are stored in another form than they are read."""
    try:
        return tuple(weight for weight in weights(load_program(package)) if weight.forms)
    except Unsupported:  # not an ML program: size and interface are all that can be judged
        return ()


def judge(found: Sequence[Weight], declared: int) -> Result:
    """Fail where a checkpoint says that its weights are compressed and none of the package's is."""
    lost = declared > 0 and not found
    return Result(
        check=CheckName.INTEGRITY,
        outcome=Outcome.FAIL if lost else Outcome.PASS,
        measurements=_measurements(found, declared),
        message=_message(found, declared),
        remedy="choose another route (`convert: {route: …}`), or a deployment target that can hold it"
        if lost
        else None,
        findings=_findings(found, declared),
    )


def _message(found: Sequence[Weight], declared: int) -> str:
    if declared and not found:
        return f"The checkpoint says that {declared} of its weights are compressed; in the package none is."
    forms = ", ".join(sorted({form.removeprefix("constexpr_") for weight in found for form in weight.forms}))
    return f"{len(found)} weights arrived compressed ({forms}) and are stored so."


def _measurements(found: Sequence[Weight], declared: int) -> tuple[Measurement, ...]:
    elements = sum(weight.elements for weight in found)
    count = Measurement(name="compressed_weights", value=len(found), unit=Unit.COUNT)
    if not elements:
        return (count,)
    bits = sum(weight.package_bytes for weight in found) * 8 / elements
    zeros = sum(sparsity(weight.decode()) * weight.elements for weight in found) / elements
    return (
        count,
        Measurement(name="stored_bits_per_value", value=bits, unit=Unit.NUMBER),
        Measurement(name="sparsity", value=zeros, unit=Unit.FRACTION),
    )


def _findings(found: Sequence[Weight], declared: int) -> tuple[Finding, ...]:
    if not found or len(found) >= declared:
        return ()
    return (
        Finding(
            rule="integrity.arrived",
            severity=Severity.WARNING,
            message=f"the checkpoint says that {declared} weights are compressed; the package stores {len(found)} so",
            advice="weights that no op reads, or that are tied, explain it; otherwise compare `gate inspect` of both routes",
        ),
    )
