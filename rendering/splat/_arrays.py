"""Between PyTorch's tensors and the arrays that the kernels take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


def array(tensor: Tensor, kind: Any = np.float32) -> NDArray[Any]:
    """The values of a tensor, wherever it is, as a contiguous array."""
    return np.ascontiguousarray(tensor.detach().cpu().numpy(), kind)


def nothing(dimensions: int) -> NDArray[np.float32]:
    """What a kernel takes where there is none of something."""
    return np.empty((0,) * dimensions, np.float32)
