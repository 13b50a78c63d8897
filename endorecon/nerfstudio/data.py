"""Frames with their depth, where there is some, kept on the device that trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanager, FullImageDatamanagerConfig
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.data.utils.data_utils import get_depth_image_from_path

from endorecon.nerfstudio.dataparser import EndoreconDataParserConfig


class EndoreconDataset(InputDataset):
    """Pictures and masks; depth where the parser names it, in the parser's world. nerfstudio's own data set of depth
    downloads a network where there is none."""

    exclude_batch_keys_from_device = InputDataset.exclude_batch_keys_from_device + ["depth_image"]

    def get_metadata(self, data: dict[str, Any]) -> dict[str, Any]:
        files = self.metadata.get("depth_filenames")
        if not files:
            return {}
        height, width = data["image"].shape[:2]
        scale = self.metadata["depth_unit_scale_factor"] * self._dataparser_outputs.dataparser_scale
        return {"depth_image": get_depth_image_from_path(files[data["image_idx"]], height, width, scale)}


@dataclass
class EndoreconDatamanagerConfig(FullImageDatamanagerConfig):
    """Frames of a run of endorecon."""

    _target: type = field(default_factory=lambda: EndoreconDatamanager)
    dataparser: EndoreconDataParserConfig = field(default_factory=EndoreconDataParserConfig)
    cache_images_type: Literal["uint8", "float32"] = "uint8"


class EndoreconDatamanager(FullImageDatamanager[EndoreconDataset]):
    """Tells the model when its frames were taken."""

    def create_train_dataset(self) -> EndoreconDataset:
        dataset: EndoreconDataset = super().create_train_dataset()
        times = dataset.cameras.times
        dataset.metadata["train_times"] = None if times is None else times.flatten().tolist()
        return dataset

    def _load_images(
        self, split: Literal["train", "eval"], cache_images_device: Literal["cpu", "gpu"]
    ) -> list[dict[str, torch.Tensor]]:
        # "gpu" is the device, whatever it is; "cpu" pins memory, which fails where there is no accelerator.
        return super()._load_images(split, "gpu")
