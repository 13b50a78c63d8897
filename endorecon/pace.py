"""How fast a live run is, and how much it may do: the gauges, and the ladder of quality that they move it on."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

WINDOW_S = 5.0  # that the gauges look back
# Down: so many of the frames that came in were dropped, or their latency is so long, in one second and in another one
# shortly before; or so much worse in one. A single hitch, such as another program that wakes up, is no load.
MOST_DROPPED, MOST_LATENCY_S, AGAIN_S = 0.05, 0.15, 3.0
OVERLOAD_DROPPED, OVERLOAD_LATENCY_S = 0.15, 0.3
STEEP_DROPPED = 0.4  # two steps at once
# Up: calm, that is frames get poses, nothing is dropped, and so much time is left to the busiest stage, for a while, of
# which each other second takes away as much again; twice as long after each time that it was no good. A frozen or black
# picture, of which there is nothing to track, does not tell what tracking will take.
MOST_BUSY = 0.65
PATIENCE_S, MOST_PATIENCE_S, TRIAL_S = 4.0, 64.0, 6.0
_BINS_S = np.concatenate([np.arange(0, 1, 0.001), np.arange(1, 60.01, 0.1)])


@dataclass(frozen=True)
class Step:
    """What is done at one step of quality.

    Attributes:
        network_every: the network is asked of each n-th frame, and of others only where it has to be.
        mapping_every: each n-th frame with depth is put into the scene that is shown.
        small_network: whether the network sees the image at half its size.
    """

    network_every: int
    mapping_every: int = 1
    small_network: bool = False


STEPS = (Step(1), Step(2), Step(3), Step(4, 2), Step(5, 3, True), Step(8, 6, True))


class Pace:
    """Moves down the ladder at once under load, and up again by itself.

    Attributes:
        number: of the step, 0 for the best.
        changes: how often it has moved.
    """

    def __init__(self, number: int = 1) -> None:
        self.number, self.changes = number, 0
        self._patience_s = PATIENCE_S
        self._calm_s = 0.0
        self._at = self._late_at = self._up_at = -np.inf

    @property
    def step(self) -> Step:
        return STEPS[self.number]

    def look(
        self, now: float, dropped_share: float, latency_s: float, busy_share: float, tracking: bool = True
    ) -> None:  # fmt: skip
        """Take the figures of the last second, at time `now` in seconds; `tracking`: whether frames got poses."""
        lasted, self._at = min(now - self._at, 2.0), now
        calm = tracking and dropped_share == 0 and latency_s <= MOST_LATENCY_S and busy_share <= MOST_BUSY
        self._calm_s = max(self._calm_s + (lasted if calm else -lasted), 0.0)
        if dropped_share > MOST_DROPPED or latency_s > MOST_LATENCY_S:
            again, self._late_at = now - self._late_at <= AGAIN_S, now
            if again or dropped_share > OVERLOAD_DROPPED or latency_s > OVERLOAD_LATENCY_S:
                self._down(now, 2 if dropped_share > STEEP_DROPPED else 1)
        elif self.number and self._calm_s >= self._patience_s:
            self.number, self.changes, self._calm_s, self._up_at = self.number - 1, self.changes + 1, 0.0, now
        elif now - self._up_at > MOST_PATIENCE_S:
            self._patience_s = PATIENCE_S

    def _down(self, now: float, steps: int) -> None:
        self._calm_s = 0.0
        if self.number + 1 < len(STEPS):
            if now - self._up_at < TRIAL_S:
                self._patience_s = min(2 * self._patience_s, MOST_PATIENCE_S)
            self.number, self.changes = min(self.number + steps, len(STEPS) - 1), self.changes + 1


@dataclass(frozen=True)
class Reading:
    """What the gauges show: of the last seconds, or of the whole run.

    Attributes:
        rate: frames a second that got a pose or were refused.
        latency_p50_s, latency_p95_s: from a frame's arrival to its pose; NaN where there was none.
        processed, dropped: since the beginning.
    """

    rate: float
    latency_p50_s: float
    latency_p95_s: float
    processed: int
    dropped: int


class Gauges:
    """Counts frames; bounded, whatever the length of the run. Safe to read from other threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: deque[tuple[float, float]] = deque()
        self._histogram = np.zeros(len(_BINS_S) + 1, np.int64)
        self._begun: float | None = None
        self._last = 0.0
        self.processed = self.dropped = 0

    def placed(self, now: float, latency_s: float) -> None:
        """A frame was processed at time `now`, so long after it had come in."""
        with self._lock:
            self._begun = now - latency_s if self._begun is None else self._begun
            self._last = now
            self.processed += 1
            self._histogram[np.searchsorted(_BINS_S, latency_s, "right")] += 1
            self._recent.append((now, latency_s))
            while self._recent and self._recent[0][0] < now - WINDOW_S:
                self._recent.popleft()

    def recent(self, now: float, within_s: float = WINDOW_S) -> Reading:
        """Of the last seconds."""
        with self._lock:
            last = [latency for at, latency in self._recent if at >= now - within_s]
            lasted = min(within_s, max(now - (self._begun if self._begun is not None else now), 1e-3))
            p50, p95 = np.percentile(last, [50, 95]) if last else (np.nan, np.nan)
            return Reading(len(last) / lasted, float(p50), float(p95), self.processed, self.dropped)

    def overall(self) -> Reading:
        """Of the whole run, latencies to a millisecond."""
        with self._lock:
            total = int(self._histogram.sum())
            if not total:
                return Reading(0.0, np.nan, np.nan, 0, self.dropped)
            reached = np.cumsum(self._histogram)
            p50, p95 = (
                float(_BINS_S[min(int(np.searchsorted(reached, q * total)), len(_BINS_S) - 1)]) for q in (0.5, 0.95)
            )
            rate = total / max(self._last - (self._begun or 0.0), 1e-3)
            return Reading(rate, p50, p95, self.processed, self.dropped)
