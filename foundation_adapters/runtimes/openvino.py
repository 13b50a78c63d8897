"""OpenVINO; in bfloat16 where the processor multiplies it natively."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from foundation_adapters.network import Network
    from foundation_adapters.runtimes import Runtime
    from foundation_adapters.runtimes._export import RunTrunk

NEEDS = ("openvino", "onnx")
ABOUT = "OpenVINO, bfloat16 where the processor has it"


def build(network: Network, half_precision: bool | None = None) -> Runtime:
    """See `runtimes.build`; `half_precision` says whether in bfloat16, by default where that is fast."""
    import openvino
    import torch

    from foundation_adapters.runtimes._cache import forget, kept
    from foundation_adapters.runtimes._export import OUTPUTS, Exported
    from foundation_adapters.runtimes.pytorch import has_fast_bfloat16

    core = openvino.Core()
    use = has_fast_bfloat16() if half_precision is None else half_precision
    hints = {
        "INFERENCE_PRECISION_HINT": "bf16" if use else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }

    def compile_trunk(name: str, export: Callable[[], bytes]) -> RunTrunk:
        settings = "-".join(map(str, (*hints.values(), openvino.__version__.split("-")[0])))
        kept_as = f"{name}-{settings}.blob"

        def compile_it() -> bytes:
            return core.compile_model(core.read_model(export(), b""), "CPU", hints).export_model().getvalue()

        try:
            compiled = core.import_model(kept(kept_as, compile_it), "CPU", hints)
        except RuntimeError:  # compiled on another processor, or damaged
            forget(kept_as)
            compiled = core.import_model(kept(kept_as, compile_it), "CPU", hints)
        request = compiled.create_infer_request()
        outputs = [compiled.output(name) for name in OUTPUTS]

        def run(image: NDArray, rays: NDArray) -> list[NDArray]:
            found = request.infer([image, rays])
            # A request writes into the same memory each time.
            return [found[output].copy() for output in outputs]

        return run

    return Exported(network, compile_trunk)
