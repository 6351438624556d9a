"""All backbones by name, each giving C2..C5 at strides 4, 8, 16, 32, and the loading of public ImageNet weights into them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor

from sdk.errors import ConfigError
from training.models.hrnet import HRNETS, HRNet, build_hrnet
from training.models.resnet import NORMS, RESNETS, ResNet, build_resnet
from training.models.swin import SWINS, Swin, build_swin

Backbone = ResNet | HRNet | Swin

# Each builder takes the width of the stem (64 = as published) and the name of the norm (``NORMS``; Swin has layer norms whatever it is).
BACKBONES: dict[str, Callable[[int, str], Backbone]] = {
    **{name: partial(build_resnet, name) for name in RESNETS},
    **{name: partial(build_hrnet, name) for name in HRNETS},
    **{name: partial(build_swin, name) for name in SWINS},
}


def build_backbone(name: str, width: int = 64, norm: str = "batch") -> Backbone:
    """The body ``name``, whose ``channels`` are those of C2..C5.

    Raises:
        ConfigError: no backbone or norm of that name.
    """
    if name not in BACKBONES:
        raise ConfigError(f"backbone: expected one of {', '.join(BACKBONES)}, got {name!r}")
    if norm not in NORMS:
        raise ConfigError(f"norm: expected one of {', '.join(NORMS)}, got {norm!r}")
    return BACKBONES[name](width, norm)


def freeze_stem(backbone: Backbone) -> None:
    """Stop training of the stem and the first stage, as all references do when ImageNet weights are loaded."""
    for module in backbone.stem():
        for parameter in module.parameters():
            parameter.requires_grad_(False)


def load_imagenet(backbone: Backbone, state: Mapping[str, Tensor]) -> None:
    """Load the weights of an image classifier, in torchvision's names (ResNet, ResNeXt, Swin) or timm's (HRNet).

    The classifier's own layers are left out, and what a detector adds (``Backbone.added``) keeps its values; everything else must fit.

    Raises:
        ConfigError: names are left over or missing, or shapes differ; the message lists them.
    """
    own = backbone.state_dict()
    body = {name: value for name, value in state.items() if not name.startswith(backbone.classifier)}
    fresh = {name: value for name, value in own.items() if name.startswith(backbone.added or ("\0",)) or _is_counter(name)}
    missing = sorted(own.keys() - body.keys() - fresh.keys())
    left_over = sorted(body.keys() - own.keys() - {name for name in body if _is_counter(name)})
    misshapen = [
        f"{name} {tuple(body[name].shape)} instead of {tuple(own[name].shape)}"
        for name in sorted(own.keys() & body.keys())
        if body[name].shape != own[name].shape
    ]
    problems = [
        f"{what}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for what, names in (("left over", left_over), ("missing", missing), ("wrong shape", misshapen))
        if names
    ]
    if problems:
        raise ConfigError(f"these weights are not those of this {type(backbone).__name__}: {'; '.join(problems)}")
    backbone.load_state_dict({**fresh, **{name: value for name, value in body.items() if name in own}}, strict=True)


def _is_counter(name: str) -> bool:
    """Whether this only counts training steps of a batch norm: frozen ones of other projects lack it, group norms too."""
    return name.endswith(".num_batches_tracked")
