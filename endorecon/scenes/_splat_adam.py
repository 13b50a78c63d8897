"""Adam in one pass over each tensor (Kingma and Ba, ICLR 2015), with the state that gsplat's strategies edit."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from rendering.splat import share, threads


@njit(nogil=True, cache=True, fastmath=True)
def adam_step(start, end, value, slope, mean, square, rate, b1, b2, epsilon, fade1, fade2):  # type: ignore[no-untyped-def]
    """One step for the elements `start` to `end` of flat float32 arrays; fade1 and fade2 are 1 - b^t."""
    one = np.float32(1)
    step, root = rate / fade1, one / np.sqrt(fade2)
    for i in range(start, end):
        g = slope[i]
        m = b1 * mean[i] + (one - b1) * g
        s = b2 * square[i] + (one - b2) * g * g
        mean[i], square[i] = m, s
        value[i] -= step * m / (np.sqrt(s) * root + epsilon)


class FusedAdam(torch.optim.Optimizer):
    """Adam for contiguous float32 tensors on the CPU: the numbers of `torch.optim.Adam`."""

    def __init__(self, groups, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-15) -> None:
        # type: ignore[no-untyped-def]
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            (b1, b2), rate, epsilon = group["betas"], group["lr"], group["eps"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = 0
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
                state["step"] += 1
                fades = 1 - b1 ** state["step"], 1 - b2 ** state["step"]
                arrays = [_flat(t) for t in (parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"])]
                numbers = [np.float32(v) for v in (rate, b1, b2, epsilon, *fades)]
                n = parameter.numel()
                # Handing out less than this to a thread takes longer than doing it.
                workers = threads() if n > 100_000 else 1
                share(
                    lambda i, of, n=n, a=arrays, k=numbers: adam_step(n * i // of, n * (i + 1) // of, *a, *k), workers
                )


def _flat(tensor: Tensor):  # type: ignore[no-untyped-def]
    return tensor.detach().contiguous().view(-1).numpy()
