"""What an estimate of a run's scale is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from endorecon.run import Run


@dataclass(frozen=True)
class ScaleEstimate:
    """How long a unit of the run is.

    Attributes:
        source: where it comes from, in words; the same source replaces its earlier estimate.
        mm_per_unit: millimetres in a unit of the run as it was reconstructed (not as it may have been scaled since).
        log_std: standard deviation of its log, that is about its relative error.
    """

    source: str
    mm_per_unit: float
    log_std: float


def unit_mm(run: Run) -> float | None:
    """Millimetres in a unit of the run as it was reconstructed, by the estimate in use; None while up to scale."""
    value = run.info.get("unit_mm")
    return float(value) if value else None
