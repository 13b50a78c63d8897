"""The figures of a training as they come, for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from video_io.errors import InputError


def check() -> None:
    """Whether TensorBoard can be written for.

    Raises:
        InputError: it is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise InputError(
            "--tensorboard needs 'tensorboard': pip install 'endorecon[tensorboard]'; training_log.csv and "
            "training.rrd hold the same figures without it"
        ) from error


class TensorBoard:
    """Writes rows of figures into a folder that `tensorboard --logdir FOLDER` shows, while they are made.

    Raises:
        InputError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path):
        check()
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), flush_secs=5)

    def __call__(self, row: Mapping[str, float]) -> None:
        """Add a row; its "step" says when."""
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(f"training/{name}", float(value), int(row["step"]))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
