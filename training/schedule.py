"""Learning rate over the iterations, and the optimiser."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from training.config import RunConfig

NORM_TYPES = (_NormBase, nn.GroupNorm, nn.LayerNorm)


def learning_rate(config: RunConfig, iteration: int) -> float:
    """Learning rate of an iteration: linear warm-up, then the schedule."""
    if iteration < config.warmup:
        # With a factor the ramp starts at iteration 0, as in Detectron2; without one it would start with nothing.
        done = (iteration + (config.warmup_factor == 0)) / config.warmup
        return config.learning_rate * (config.warmup_factor + (1 - config.warmup_factor) * done)
    if config.schedule == "cosine":
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * iteration / config.iterations))
    if config.schedule == "poly":
        left = max(0.0, 1 - iteration / config.iterations)
        return float((config.learning_rate - config.floor) * left**config.power + config.floor)
    drops = sum(iteration >= round(config.iterations * share) for share in config.milestones)
    return float(config.learning_rate * 0.1**drops)


def make_optimizer(model: nn.Module, config: RunConfig) -> torch.optim.Optimizer:
    """SGD (momentum .9) or AdamW over the trainable parameters, grouped by what the configuration gives them.

    Every group carries ``lr_factor``, its learning rate in units of the schedule's.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                groups.setdefault(_group(module, name, parameter, config), []).append(parameter)
    listed = [{"params": p, "lr": config.learning_rate * f, "lr_factor": f, "weight_decay": d} for (f, d), p in groups.items()]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(listed, config.learning_rate)
    return torch.optim.SGD(listed, config.learning_rate, momentum=0.9)


def _group(module: nn.Module, name: str, parameter: nn.Parameter, config: RunConfig) -> tuple[float, float]:
    """Factor of the learning rate and weight decay of one parameter."""
    if name == "bias" and not isinstance(module, NORM_TYPES):
        return config.bias_factor, config.weight_decay if config.decay_biases else 0.0
    if parameter.ndim <= 1:  # norms, of whatever class, and what scales or shifts channels as they do
        return 1.0, config.weight_decay if config.decay_norms else 0.0
    return 1.0, config.weight_decay
