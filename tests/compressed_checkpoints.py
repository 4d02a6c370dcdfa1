# SPDX-License-Identifier: Apache-2.0
"""A tiny network as `coremltools.optimize.torch` hands it over: finalised, with what each technique leaves in it.

Runs inside the team's project too, so it imports nothing of ours.
"""

import torch
from torch import nn


def plain() -> nn.Sequential:
    """Two convolutions with a batch norm between them, and a head: 23 thousand weights."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.BatchNorm2d(64), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 40)).eval()


def palettized() -> nn.Module:
    """4-bit tables after training."""
    from coremltools.optimize.torch.palettization import PostTrainingPalettizer, PostTrainingPalettizerConfig

    settings = {"global_config": {"n_bits": 4, "granularity": "per_tensor"}}
    return PostTrainingPalettizer(plain(), PostTrainingPalettizerConfig.from_dict(settings)).compress().eval()


def palettized_in_training() -> nn.Module:
    """2-bit tables by differentiable k-means, finalised."""
    from coremltools.optimize.torch.palettization import DKMPalettizer, DKMPalettizerConfig

    settings = {"global_config": {"n_bits": 2, "milestone": 0, "cluster_dim": 1, "weight_threshold": 0}}
    palettizer = DKMPalettizer(plain(), DKMPalettizerConfig.from_dict(settings))
    return _finalized(palettizer, palettizer.prepare(inplace=False))


def pruned() -> nn.Module:
    """Three quarters of the weights zero, finalised."""
    from coremltools.optimize.torch.pruning import MagnitudePruner, MagnitudePrunerConfig

    schedule = {"update_steps": [0, 1]}
    settings = {"global_config": {"scheduler": schedule, "target_sparsity": 0.75}}
    pruner = MagnitudePruner(plain(), MagnitudePrunerConfig.from_dict(settings))
    return _finalized(pruner, pruner.prepare(inplace=False))


def quantized() -> nn.Module:
    """8-bit weights, after training."""
    from coremltools.optimize.torch.quantization import PostTrainingQuantizer, PostTrainingQuantizerConfig

    scheme = {"weight_dtype": "int8", "granularity": "per_channel", "quantization_scheme": "symmetric"}
    return (
        PostTrainingQuantizer(plain(), PostTrainingQuantizerConfig.from_dict({"global_config": scheme}))
        .compress()
        .eval()
    )


def quantized_in_training() -> nn.Module:
    """8-bit weights and activations, trained for it and finalised."""
    from coremltools.optimize.torch.quantization import LinearQuantizer, LinearQuantizerConfig

    settings = {"global_config": {"quantization_scheme": "symmetric", "milestones": [0, 0, 10, 10]}}
    quantizer = LinearQuantizer(plain(), LinearQuantizerConfig.from_dict(settings))
    return _finalized(quantizer, quantizer.prepare((image(),)))


def without_buffers() -> nn.Module:
    """As an older coremltools left it: weights of 16 values each, and nothing that says so."""
    module = plain()
    for layer in module:
        if hasattr(layer, "weight") and layer.weight.dim() > 1:
            layer.weight.data = (layer.weight.data / layer.weight.data.abs().max() * 7).round() / 7
    return module


def _finalized(optimizer, module: nn.Module) -> nn.Module:
    module.train()
    for _ in range(3):
        module(torch.rand(2, 3, 16, 16))
        optimizer.step()
    module.eval()
    return optimizer.finalize(model=module).eval()


def image() -> torch.Tensor:
    """One input."""
    return torch.linspace(0, 1, 768).reshape(1, 3, 16, 16)


CHECKPOINTS = {
    make.__name__: make
    for make in (palettized, palettized_in_training, pruned, quantized, quantized_in_training, without_buffers)
}


def build(kind: str) -> nn.Module:
    """Return one of them, as a factory."""
    return CHECKPOINTS[kind]()


def example() -> dict[str, torch.Tensor]:
    """Return the input by its name."""
    return {"input": image()}
