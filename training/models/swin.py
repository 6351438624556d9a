"""Swin Transformer bodies (Liu et al. 2021) with torchvision's parameter names."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WINDOW = 7
NORM_EPS = 1e-5


class Windows:
    """How a map of one size is cut into shifted windows of 7 x 7 cells, and put together again.

    The map is padded with zeros to whole windows. A shifted block moves it cyclically by half a window, so that windows straddle the
    borders of the last block's; cells that only the cyclic move brought together do not see each other. An axis of a single window is not
    moved. All of this is arithmetic on index tensors, without a decision that an exporter would have to take for every size.
    """

    def __init__(self, height: int, width: int, shifted: bool, device: torch.device) -> None:
        self.height, self.width = height, width
        self.padded_height, self.padded_width = ((n + WINDOW - 1) // WINDOW * WINDOW for n in (height, width))
        self.shifted = shifted
        if not shifted:
            return
        self.rows, self.rows_back, row_part = self._axis(self.padded_height, device)
        self.columns, self.columns_back, column_part = self._axis(self.padded_width, device)
        part = self._cut((2 * row_part[:, None] + column_part[None, :])[None, :, :, None])[..., 0]  # windows, 49
        self.mask = (part[:, None, :] != part[:, :, None]) * -100.0  # windows, 49, 49

    @staticmethod
    def _axis(length: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Where each cell comes from, the way back, and 1 for cells that went around the end."""
        cell = torch.arange(length, device=device)
        end = cell[-1] + 1  # the length again, as a tensor, and so is the shift: 3, or 0 for a single window
        shift = (end > WINDOW) * (WINDOW // 2)
        around = cell >= end - shift
        return (
            torch.where(around, cell + shift - end, cell + shift),
            torch.where(cell < shift, cell - shift + end, cell - shift),
            around.long(),
        )

    def _cut(self, x: Tensor) -> Tensor:
        """(B, H, W, C) in whole windows -> (B * windows, 49, C)."""
        b, h, w, c = x.shape
        x = x.reshape(b, h // WINDOW, WINDOW, w // WINDOW, WINDOW, c)
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, WINDOW * WINDOW, c)

    def split(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B * windows, 49, C)."""
        x = F.pad(x, (0, 0, 0, self.padded_width - self.width, 0, self.padded_height - self.height))
        if self.shifted:
            x = x.index_select(1, self.rows).index_select(2, self.columns)
        return self._cut(x)

    def join(self, x: Tensor, batch: int) -> Tensor:
        """(B * windows, 49, C) -> (B, H, W, C)."""
        h, w, c = self.padded_height, self.padded_width, x.shape[2]
        x = x.reshape(batch, h // WINDOW, w // WINDOW, WINDOW, WINDOW, c)
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(batch, h, w, c)
        if self.shifted:
            x = x.index_select(1, self.rows_back).index_select(2, self.columns_back)
        return x[:, : self.height, : self.width]


class WindowAttention(nn.Module):
    """Self-attention inside each window, with a learned bias per head and relative position (equation 4)."""

    relative_position_index: Tensor

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, heads))
        cell = torch.arange(WINDOW * WINDOW)
        y, x = cell // WINDOW, cell % WINDOW
        index = (y[:, None] - y[None] + WINDOW - 1) * (2 * WINDOW - 1) + x[:, None] - x[None] + WINDOW - 1
        self.register_buffer("relative_position_index", index.flatten())
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        batch, cells, channels = x.shape[0], WINDOW * WINDOW, x.shape[3]
        x = windows.split(x)  # n, 49, C with n = B * windows
        q, k, v = self.qkv(x).reshape(-1, cells, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)  # n, heads, 49, C / heads
        scores = (q * (channels // self.heads) ** -0.5) @ k.transpose(-2, -1)  # n, heads, 49, 49
        bias = self.relative_position_bias_table[self.relative_position_index]
        scores = scores + bias.reshape(cells, cells, self.heads).permute(2, 0, 1)
        if windows.shifted:
            scores = scores.reshape(batch, -1, self.heads, cells, cells) + windows.mask[:, None]
            scores = scores.reshape(-1, self.heads, cells, cells)
        x = (torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(-1, cells, channels)
        return windows.join(self.proj(x), batch)


class SwinBlock(nn.Module):
    """Window attention and a two-layer perceptron, each after a norm and beside a shortcut."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, NORM_EPS)
        self.attn = WindowAttention(channels, heads)
        self.norm2 = nn.LayerNorm(channels, NORM_EPS)
        # The names of the layers with weights are 0 and 3, as in torchvision; 2 is where it has a dropout, which detectors do without.
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Identity(), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        x = x + self.attn(self.norm1(x), windows)
        x = x + self.mlp(self.norm2(x))
        return x


class PatchMerging(nn.Module):
    """2 x 2 cells side by side in the channels, then a projection: half the resolution, twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(4 * channels, NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        x = x.reshape(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 4, 2, 5)  # column before row, as the weights expect
        return self.reduction(self.norm(x.reshape(b, h // 2, w // 2, 4 * c)))


class ChannelsLast(nn.Module):
    """(B, C, H, W) -> (B, H, W, C); without weights."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


@dataclass(frozen=True, kw_only=True)
class SwinShape:
    """The numbers of one network."""

    channels: int  # of the first stage; each next one has twice as many
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]


class Swin(nn.Module):
    """The body: picture (B, 3, H, W), sides multiples of 32 -> C2, C3, C4, C5 at strides 4, 8, 16, 32.

    Args:
        shape: the numbers of the network.
        width: 64 is the published network, less is a slim one: every stage has ``width / 64`` of the channels, and as many heads.

    A detector reads every stage, so each output has a layer norm of its own. That of C5 is the one that the classifier has before its last
    layer; the other three (``output_norms``) are new and start as the identity.
    """

    classifier = ("head.",)  # only image classification has it
    added = ("output_norms.",)  # a detector's own

    def __init__(self, shape: SwinShape, width: int = 64) -> None:
        super().__init__()
        self.channels = [shape.channels * width // 64 * 2**i for i in range(4)]
        layers: list[nn.Module] = [
            nn.Sequential(nn.Conv2d(3, self.channels[0], 4, 4), ChannelsLast(), nn.LayerNorm(self.channels[0], NORM_EPS))
        ]
        for stage, channels in enumerate(self.channels):
            if channels % shape.heads[stage]:
                raise ValueError(f"width {width}: {channels} channels cannot be shared by {shape.heads[stage]} heads")
            if stage > 0:
                layers.append(PatchMerging(self.channels[stage - 1]))
            layers.append(nn.ModuleList(SwinBlock(channels, shape.heads[stage]) for _ in range(shape.depths[stage])))
        self.features = nn.ModuleList(layers)
        self.output_norms = nn.ModuleList(nn.LayerNorm(c, NORM_EPS) for c in self.channels[:3])
        self.norm = nn.LayerNorm(self.channels[3], NORM_EPS)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        x = self.features[0](x)  # B, H/4, W/4, C
        for stage, norm in enumerate([*self.output_norms, self.norm]):
            if stage > 0:
                x = self.features[2 * stage](x)
            windows = [Windows(x.shape[1], x.shape[2], shifted, x.device) for shifted in (False, True)]
            for index, block in enumerate(self.features[2 * stage + 1]):
                x = block(x, windows[index % 2])
            outputs.append(norm(x).permute(0, 3, 1, 2))
        return outputs

    def stem(self) -> list[nn.Module]:
        """What stays as it is when ImageNet weights are fine-tuned: the patch embedding and the first stage."""
        return [self.features[0], self.features[1]]


SWINS: dict[str, SwinShape] = {
    "swin_t": SwinShape(channels=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24)),
    "swin_b": SwinShape(channels=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32)),
}


def build_swin(name: str, width: int = 64, norm: str = "batch") -> Swin:
    """A Swin body by name (``SWINS``). It has layer norms only: ``norm`` is taken for the sake of the table of backbones and not used."""
    del norm
    return Swin(SWINS[name], width)
