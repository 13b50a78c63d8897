"""The method: rates as in 3DGS and in `endorecon.scenes`, for a world whose usual depth is 1."""

from __future__ import annotations

from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from nerfstudio.plugins.types import MethodSpecification

from endorecon.nerfstudio.data import EndoreconDatamanagerConfig
from endorecon.nerfstudio.model import EndoreconSplatsConfig
from endorecon.scenes._splat_light import RATE as LIGHT_RATE
from endorecon.scenes._splat_training import EXPOSURE_RATE, MEANS_RATE_AT_END, NAMES, RATES

ITERATIONS = 15_000


def _optimizer(rate: float, end: float | None = None) -> dict[str, object]:
    decay = None if end is None else ExponentialDecaySchedulerConfig(lr_final=rate * end, max_steps=ITERATIONS)
    return {"optimizer": AdamOptimizerConfig(lr=rate, eps=1e-15), "scheduler": decay}


METHOD = MethodSpecification(
    config=TrainerConfig(
        method_name="endorecon-splats",
        steps_per_eval_batch=0,
        steps_per_eval_image=500,
        steps_per_eval_all_images=5000,
        steps_per_save=2000,
        max_num_iterations=ITERATIONS,
        mixed_precision=False,
        pipeline=VanillaPipelineConfig(datamanager=EndoreconDatamanagerConfig(), model=EndoreconSplatsConfig()),
        optimizers={
            **{name: _optimizer(RATES[name], MEANS_RATE_AT_END if name == "means" else None) for name in NAMES},
            "law": _optimizer(LIGHT_RATE, 0.05),
            "exposure": _optimizer(EXPOSURE_RATE, 0.1),
            "camera_opt": _optimizer(1e-4, 0.1),
        },
        viewer=ViewerConfig(num_rays_per_chunk=1 << 15),
        vis="viewer",
    ),
    description="Gaussians with depth, masks and the endoscope's light, on the CPU or on CUDA (endorecon)",
)
