"""ONNX Runtime, single precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from foundation_adapters.network import Network
    from foundation_adapters.runtimes import Runtime
    from foundation_adapters.runtimes._export import RunTrunk

NEEDS = ("onnxruntime", "onnx")
ABOUT = "ONNX Runtime, single precision"


def build(network: Network) -> Runtime:
    """See `runtimes.build`."""
    import onnxruntime
    import torch

    from foundation_adapters.runtimes._cache import kept
    from foundation_adapters.runtimes._export import INPUTS, OUTPUTS, Exported

    def compile_trunk(name: str, export: Callable[[], bytes]) -> RunTrunk:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        model, providers = kept(f"{name}.onnx", export), ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(model, options, providers=providers)

        def run(image: NDArray, rays: NDArray) -> list[NDArray]:
            return session.run(list(OUTPUTS), dict(zip(INPUTS, (image, rays), strict=True)))

        return run

    return Exported(network, compile_trunk)
