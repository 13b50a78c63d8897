"""The part of the network that another runtime takes over: all but the last layers, as an ONNX model of fixed sizes.

The intrinsics head stays in PyTorch, as ONNX has no pooling to four by five cells for every size. The last layer of the
distance stays there and in single precision: half precision would put the log distance on steps of one and a
half per cent.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foundation_adapters.heads import known_ray_pyramid
from foundation_adapters.runtimes._cache import fingerprint

if TYPE_CHECKING:
    from foundation_adapters.network import Network, Prediction

RunTrunk = Callable[[NDArray, NDArray], list[NDArray]]
CompileTrunk = Callable[[str, Callable[[], bytes]], RunTrunk]
OPSET = 17
INPUTS, OUTPUTS = ("image", "rays"), ("features", "coarse", "description")


class Trunk(nn.Module):
    """Image and finite rays to the features before the last layer, the coarsest level and the description."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, rays: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        levels = self.network.backbone(image)
        features = self.network.distance.features(levels, known_ray_pyramid(rays, 5))
        return features, levels[4], self.network.pose.describe(levels)


def to_onnx(network: Network, count: int, height: int, width: int) -> bytes:
    """The trunk for `count` images of a size, as an ONNX file."""
    image, rays = torch.zeros(count, 3, height, width), torch.zeros(count, 3, height // 2, width // 2)
    file = io.BytesIO()
    with warnings.catch_warnings():
        # Shapes become constants, as they should; the exporter says so of each.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Trunk(network), (image, rays), file, dynamo=False, opset_version=OPSET, input_names=list(INPUTS),
            output_names=list(OUTPUTS),
        )  # fmt: skip
    return file.getvalue()


class Exported:
    """Runs exported trunks, one for each shape of input that comes, and the last layer."""

    def __init__(self, network: Network, compile_trunk: CompileTrunk) -> None:
        """`compile_trunk` takes a name for the cache and a function that makes the ONNX file; it gives a function of
        (image, rays) arrays that returns the arrays of OUTPUTS."""
        self._network, self._compile = network, compile_trunk
        self._fingerprint = fingerprint(network)
        self._trunks: dict[tuple[int, ...], RunTrunk] = {}

    def focal(self, image: Tensor) -> Tensor:
        """(B, 2): fx / width and fy / height; the whole trunk is faster here than the backbone in PyTorch."""
        count, _, height, width = image.shape
        return self(image, torch.zeros(count, 3, height // 2, width // 2)).focal

    def __call__(self, image: Tensor, rays: Tensor) -> Prediction:
        """See `runtimes.build`."""
        from foundation_adapters.network import Prediction

        count, _, height, width = image.shape
        trunk = self._trunks.get((count, height, width))
        if trunk is None:
            name = f"{self._fingerprint}-{count}x{height}x{width}"
            trunk = self._compile(name, lambda: to_onnx(self._network, count, height, width))
            self._trunks[count, height, width] = trunk
        known = torch.nan_to_num(rays)
        found = trunk(image.contiguous().numpy(), known.contiguous().numpy())
        features, coarse, description = (torch.from_numpy(array) for array in found)
        log_distance, log_std = self._network.read(features)
        return Prediction(log_distance, log_std, self._network.intrinsics([coarse] * 5), description)
