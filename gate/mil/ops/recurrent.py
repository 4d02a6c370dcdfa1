# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers over `x` of shape (steps, batch, features).

A layer in `reverse` returns its sequence in the order of computation, last step of the input first; the backward half
of a bidirectional one is put back into the order of the input. Values stay float32 from step to step: Core ML
declares float16 for the op's results alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gate.mil.ops.registry import Gates, Layout, kernel, layout
from gate.mil.program import Op

Activation = Callable[[Tensor], Tensor]
Step = tuple[Tensor, Tensor, Tensor]  # the sequence, the last hidden state, the last cell state


def torch_gates(weight: Tensor) -> Tensor:
    """Reorder input, forget, output, cell to torch's input, forget, cell, output."""
    i, f, o, z = weight.chunk(4)
    return torch.cat([i, f, z, o])


@layout("Gates")
def gates(op: Op, constants: Mapping[str, Any]) -> Layout:
    """Lay out an lstm's weights and biases as torch computes with them."""
    return Layout("gates", torch_gates)


@kernel()
def rnn(
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    activation: str = "tanh",
) -> tuple[Tensor, Tensor]:
    act = _activation(activation)
    h, sequence = initial_h, []
    for given in F.linear(_ordered(x, direction), weight_ih, bias):
        h = act(torch.addmm(given, h, weight_hh.t()))
        sequence.append(h)
    return _shown(sequence, output_sequence), h


@kernel()
def gru(
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    activation: str = "tanh",
    reset_after: bool = False,
    input_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run gates in MIL's order: reset, output, update."""
    gate, act = _activation(recurrent_activation), _activation(activation)
    hidden_r, hidden_o, hidden_z = weight_hh.t().chunk(3, 1)
    bias_r, bias_o, bias_z = (bias if bias is not None else x.new_zeros(weight_hh.shape[0])).chunk(3)
    h, sequence = initial_h, []
    for given in F.linear(_ordered(x, direction), weight_ih, input_bias):
        given_r, given_o, given_z = given.chunk(3, -1)
        r = gate(given_r + h @ hidden_r + bias_r)
        z = gate(given_z + h @ hidden_z + bias_z)
        reset = r * (h @ hidden_o + bias_o) if reset_after else (r * h) @ hidden_o + bias_o
        h = (1 - z) * act(given_o + reset) + z * h
        sequence.append(h)
    return _shown(sequence, output_sequence), h


@kernel()
def lstm(
    x: Tensor,
    initial_h: Tensor,
    initial_c: Tensor,
    weight_ih: Gates,
    weight_hh: Gates,
    bias: Gates | None = None,
    peephole: Tensor | None = None,
    weight_ih_back: Gates | None = None,
    weight_hh_back: Gates | None = None,
    bias_back: Gates | None = None,
    peephole_back: Tensor | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    activation: str = "tanh",
    clip: float | None = None,
) -> Step:
    names = (recurrent_activation, cell_activation, activation)
    # A converted packed sequence brings more rows of state than the batch has; Core ML reads the first ones.
    initial_h, initial_c = initial_h[: x.shape[1]], initial_c[: x.shape[1]]
    if direction != "bidirectional":
        run = _lstm(_ordered(x, direction), initial_h, initial_c, weight_ih, weight_hh, bias, peephole, names, clip)
        return (run[0] if output_sequence else run[0][-1:], *run[1:])
    if weight_ih_back is None or weight_hh_back is None:
        raise ValueError("a bidirectional lstm needs weight_ih_back and weight_hh_back")
    h, c = initial_h.chunk(2, -1), initial_c.chunk(2, -1)
    ahead = _lstm(x, h[0], c[0], weight_ih, weight_hh, bias, peephole, names, clip)
    back = _lstm(x.flip(0), h[1], c[1], weight_ih_back, weight_hh_back, bias_back, peephole_back, names, clip)
    if output_sequence:
        sequence = torch.cat([ahead[0], back[0].flip(0)], -1)
    else:
        sequence = torch.cat([ahead[0][-1:], back[0][-1:]], -1)
    return sequence, torch.cat([ahead[1], back[1]], -1), torch.cat([ahead[2], back[2]], -1)


def _lstm(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    weight_ih: Gates,
    weight_hh: Gates,
    bias: Gates | None,
    peephole: Tensor | None,
    names: tuple[str, str, str],
    clip: float | None,
) -> Step:
    """Run one direction; torch's own fused layer where the op asks for nothing beyond it."""
    if names == ("sigmoid", "tanh", "tanh") and peephole is None and clip is None:
        return _fused_lstm(x, h, c, weight_ih, weight_hh, bias)
    gate, cell, act = map(_activation, names)
    peep_i, peep_f, peep_o = (x.new_zeros(3) if peephole is None else peephole).chunk(3)
    sequence = []
    for given in F.linear(x, weight_ih, bias):
        i, f, z, o = torch.addmm(given, h, weight_hh.t()).chunk(4, -1)
        c = gate(f + c * peep_f) * c + gate(i + c * peep_i) * cell(z)
        c = c if clip is None else c.clamp(-clip, clip)
        h = gate(o + c * peep_o) * act(c)
        sequence.append(h)
    return torch.stack(sequence), h, c


def _fused_lstm(x: Tensor, h: Tensor, c: Tensor, weight_ih: Gates, weight_hh: Gates, bias: Gates | None) -> Step:
    weights = [weight_ih, weight_hh]
    if bias is not None:
        weights += [bias, torch.zeros_like(bias)]
    sequence, last_h, last_c = torch.lstm(
        x, (h[None].contiguous(), c[None].contiguous()), weights, bias is not None, 1, 0.0, False, False, False
    )
    return sequence, last_h[0], last_c[0]


def _ordered(x: Tensor, direction: str) -> Tensor:
    return x.flip(0) if direction == "reverse" else x


def _shown(sequence: list[Tensor], output_sequence: bool) -> Tensor:
    return torch.stack(sequence if output_sequence else sequence[-1:])


def _activation(name: str) -> Activation:
    try:
        return ACTIVATIONS[name.lower()]
    except KeyError:
        raise ValueError(f"activation {name!r} is not one of {', '.join(ACTIVATIONS)}") from None


def _hard_sigmoid(x: Tensor) -> Tensor:
    return (0.2 * x + 0.5).clamp(0, 1)


# `scaled_tanh` has no parameters here; Core ML's layer takes 1 and 1, which makes it tanh.
ACTIVATIONS: dict[str, Activation] = {
    "tanh": torch.tanh,
    "scaled_tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": _hard_sigmoid,
    "sigmoid_hard": _hard_sigmoid,
    "relu": torch.relu,
    "linear": lambda x: x,
}
