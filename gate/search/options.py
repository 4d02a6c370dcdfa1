# SPDX-License-Identifier: Apache-2.0
"""What may become of a weight, and how is a choice for each of them written as an ordinary policy file?

The options are those that the shipped policies apply to every weight alike, and a few between them. Which of them a deployment
target can carry, the policy itself says.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml

from gate.policy import Policy, Precision, Target

LEAVE = "leave"  # the weight stays as it is
AUTO = "auto"
ORDER = ("prune", "palettize", "quantize")  # of the steps in a file; a weight takes at most two of them


@dataclass(frozen=True)
class Option:
    """One treatment of a weight: the steps of a policy, by kind."""

    name: str
    steps: Mapping[str, Mapping[str, Any]]

    @cached_property
    def is_pruned(self) -> bool:
        """Does it set weights to zero? Then it is smaller, not faster."""
        return "prune" in self.steps

    def everywhere(self, precision: Precision) -> Policy:
        """Return the policy that gives it to every weight."""
        return make_policy(
            self.name, f"{self.name} for every weight", precision, [dict([s]) for s in self.steps.items()]
        )


def _palette(bits: int) -> Option:
    return Option(f"palette-{bits}bit", {"palettize": {"bits": bits}})


def _grouped(bits: int, size: int) -> Option:
    fields = {"bits": bits, "granularity": "per_grouped_channel", "group_size": size}
    return Option(f"palette-{bits}bit-group{size}", {"palettize": fields})


def _pruned(percent: int, then: Option | None = None) -> Option:
    name = f"prune-{percent}" + (f"+{then.name}" if then else "")
    return Option(name, {"prune": {"sparsity": f"{percent} %"}, **(then.steps if then else {})})


INT8 = Option("int8", {"quantize": {"dtype": "int8"}})
INT4 = Option("int4-block32", {"quantize": {"dtype": "int4", "granularity": "per_block", "block_size": 32}})

# Quick ones first: a search that runs out of time has at least these.
OPTIONS: tuple[Option, ...] = (
    INT8,
    INT4,
    _palette(4),
    _palette(2),
    _palette(6),
    _pruned(50, _palette(4)),
    _pruned(75, _palette(4)),
    _palette(3),
    _palette(1),
    _pruned(75),
    _pruned(50),
    _pruned(50, INT8),
    _palette(8),
)
# A table for each group of channels takes ten times as long to find; tried where they are asked for by name.
GROUPED: tuple[Option, ...] = (
    _grouped(4, 16),
    _grouped(3, 16),
    _grouped(2, 16),
    _grouped(4, 8),
    _grouped(3, 8),
)
BITS: tuple[Option, ...] = tuple(_palette(bits) for bits in (8, 6, 4, 3, 2, 1))
SPARSITIES: tuple[Option, ...] = tuple(_pruned(percent) for percent in range(10, 100, 10))


def carried(options: Sequence[Option], target: Target) -> tuple[Option, ...]:
    """Return the options that a deployment target can carry."""
    return tuple(o for o in options if o.everywhere(Precision.FLOAT16).needed_target.version <= target.version)


def make_policy(
    name: str, summary: str, precision: Precision, steps: Sequence[Any], overrides: Sequence[Any] = ()
) -> Policy:
    """Make a policy that claims exactly the deployment target that it needs."""
    fields = {"name": name, "summary": summary, "precision": precision, "steps": steps, "overrides": overrides}
    for target in Target:  # the least that its own validation accepts
        try:
            return Policy.model_validate({**fields, "requires": {"deployment_target": target}})
        except ValueError as error:
            if "but its steps need" not in str(error):
                raise
    raise AssertionError("the latest target carries every policy")


def mixed_policy(
    choices: Mapping[str, Option | None],
    precision: Precision,
    layers: Mapping[str, str] | None = None,
    name: str = AUTO,
) -> Policy:
    """Return the policy that gives each weight, by name, its own option; None leaves it alone.

    A weight that is the only one of its layer is called by that, since `const_0_to_fp16` says nothing to anybody. The commonest option is also that of weights that are not named, such as those of a later version of the model.
    """
    used = {option.name: option for option in choices.values() if option}
    if not used:
        return make_policy(name, "no weight is compressed: no option passed on the search items", precision, [])
    kinds = [kind for kind in ORDER if any(kind in option.steps for option in used.values())]
    count = Counter(option.name if option else LEAVE for option in choices.values())
    common = used[max(used, key=lambda key: count[key])]
    base = {kind: next(o.steps[kind] for o in (common, *used.values()) if kind in o.steps) for kind in kinds}
    groups = [key for key in count if key != common.name]
    overrides = [
        {**selector, **_changes(used.get(key), base)}
        for key in groups
        for selector in _selectors(_named(choices, key), layers or {})
    ]
    if set(common.steps) != set(kinds):  # what is not named must not take every step
        overrides.append({"names": ("*",), **_changes(common, base)})
    summary = "mixed: " + ", ".join(f"{number} × {key}" for key, number in count.most_common())
    return make_policy(name, summary[:200], precision, [{kind: base[kind]} for kind in kinds], overrides)


def _named(choices: Mapping[str, Option | None], key: str) -> list[str]:
    return [name for name, option in choices.items() if (option.name if option else LEAVE) == key]


def _selectors(names: Sequence[str], layers: Mapping[str, str]) -> Iterator[dict[str, tuple[str, ...]]]:
    """Name these weights, by layer where that says which."""
    by_layer = tuple(_literal(layers[name]) for name in names if name in layers)
    by_name = tuple(_literal(name) for name in names if name not in layers)
    yield from ({key: patterns} for key, patterns in (("layers", by_layer), ("names", by_name)) if patterns)


def _changes(option: Option | None, base: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Say what an option is beside the base: steps that it does not take, and the fields of those that it does."""
    if option is None:
        return {"skip": True}
    skipped = tuple(kind for kind in base if kind not in option.steps)
    fields = {
        field: value
        for kind, own in option.steps.items()
        for field, value in {**_defaults(kind, base[kind]), **own}.items()
    }
    return {**({"skip": skipped} if skipped else {}), **fields}


# What an option leaves to the defaults of its step, and the base may say otherwise.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "palettize": {"granularity": "per_tensor"},
    "quantize": {"dtype": "int8", "granularity": "per_channel"},
    "prune": {},
}


def _defaults(kind: str, base: Mapping[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in _DEFAULTS[kind].items() if field in base}


def _literal(name: str) -> str:
    """Write a name as a pattern that matches nothing else."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def write_policy(policy: Policy, note: str = "") -> str:
    """Write a policy as the YAML file that a team commits."""
    data: dict[str, Any] = {
        "name": policy.name,
        "summary": policy.summary,
        "requires": {"deployment_target": policy.requires.deployment_target.value},
        "precision": policy.precision.value,
        "steps": [{step.kind: _plain(step.action.model_dump(exclude_defaults=True))} for step in policy.steps],
    }
    if policy.overrides:
        data["overrides"] = [_plain(o.model_dump(exclude_defaults=True)) for o in policy.overrides]
    head = "".join(f"# {line}\n" for line in note.splitlines())
    return head + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    written = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
    if "sparsity" in written:
        written["sparsity"] = f"{written['sparsity'] * 100:g} %"
    return written
