"""From a running camera to a growing scene: the stages of `reconstruct`, side by side, under a bound of latency.

Reading, preparing (with the network), tracking, mapping and showing have a thread each, and short queues between them.
Where a stage is late, the oldest that waits for it is dropped, so that what comes next is always new.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from endorecon.forgetting import Memory
from endorecon.mapping import Mapper, Seen
from endorecon.pace import Gauges, Pace
from endorecon.reconstruct import Progress
from endorecon.rows import Rows
from endorecon.run import FrameRow
from endorecon.tracking.densify import NetworkDepth
from endorecon.tracking.observation import Observation, Posed, Refused
from endorecon.tracking.refine import evidence
from endorecon.tracking.tracker import Tracker
from endorecon.watching import Watching
from video_io.frame import Frame
from video_io.inbox import Inbox
from video_io.running import RunningClip, RunningSource
from video_io.view import MULTIPLE

if TYPE_CHECKING:
    from foundation_adapters.estimator import Estimator

TICK_S = 1.0  # between two looks at the gauges
SILENCE_S = 2.0  # after which the person is told that nothing comes


@dataclass(frozen=True)
class Ready:
    """A frame that waits for its place: itself, or why there is none; what the network says, where it was asked."""

    index: int
    time_ns: int
    arrived_s: float
    frame: Frame | str
    net: NetworkDepth | None = None


def live(
    clip: RunningClip, estimator: Estimator, tracker: Tracker, mapper: Mapper, watching: Watching, pace: Pace,
    gauges: Gauges, stop: threading.Event, say: Callable[[str], None], progress: Progress,
) -> Rows:  # fmt: skip
    """Place frames as they come, until the input ends or `stop` is set; returns a line for each.

    Args:
        clip: the input, which is being read.
        estimator: frames to depth and its spread.
        tracker: fresh.
        mapper, watching: the stages behind; they have been started.
        pace: how often the network is asked, and the scene grows.
        gauges: count.
        stop: ends it.
        say: takes a sentence for the person; progress: the number of frames, every second.
    """
    rows, network = Rows(), Network(estimator, pace)
    preparer, memory = Preparer(clip, network, pace, stop), Memory(tracker, mapper.let_go)
    ticker = Ticker(clip, preparer, watching, pace, gauges, say, progress)
    preparer.start()
    while not (stop.is_set() or preparer.ready.closed):
        ready = preparer.ready.take(0.2)
        if ready is not None:
            begun = time.monotonic()
            placed = place(ready, tracker, network)
            now = time.monotonic()
            gauges.placed(now, now - ready.arrived_s)
            ticker.busy(now - begun, placed)
            rows.add(FrameRow.of(placed))
            watching.placed(placed, now)
            network.expect(not isinstance(placed, Refused) and placed.is_keyframe)
            kept = isinstance(placed, Observation) and mapper.wants(placed.is_keyframe, now)
            if kept:
                mapper.inbox.put(seen(placed, ready, tracker, network))
            memory.placed(placed, kept)
        ticker.tick(time.monotonic())
    preparer.finish()
    return rows


def place(ready: Ready, tracker: Tracker, network: Network) -> Observation | Posed | Refused:
    """The place of a frame, which has depth where the network was asked of it."""
    frame = ready.frame
    if isinstance(frame, str):
        return Refused(ready.index, ready.time_ns, frame, max(len(tracker.segments) - 1, 0))
    return tracker.place(frame, ready.net, ask=lambda: network.ask(frame))


def seen(placed: Observation, ready: Ready, tracker: Tracker, network: Network) -> Seen:
    """What the mapper needs of a placed frame; its landmarks are read off before tracking goes on."""
    segment, number = tracker.placed[ready.index]
    scene = tracker.segments[segment]
    net = ready.net or network.last
    assert net is not None
    return Seen(placed, net, evidence(scene, number, placed.world_from_cam), scene, number)


class Network:
    """The depth network, for the threads of a live run; asked by one at a time.

    Attributes:
        last: what was said when tracking had to ask.
        eager: whether tracking will want the depth of the next frame too: the last two were key frames. Then it is
            cheaper to ask before, beside tracking, than to have tracking wait for it.
    """

    def __init__(self, estimator: Estimator, pace: Pace) -> None:
        self._estimator, self._pace, self._lock = estimator, pace, threading.Lock()
        self.last: NetworkDepth | None = None
        self.eager = False
        self._was_key = False

    def expect(self, is_key: bool) -> None:
        """The last frame was a key frame, or not."""
        self.eager, self._was_key = is_key and self._was_key, is_key

    def depth(self, frame: Frame) -> NetworkDepth:
        """What it says of a frame; of half the image where the pace wants that."""
        with self._lock:
            return depth_of(self._estimator, frame, self._pace.step.small_network)

    def ask(self, frame: Frame) -> NetworkDepth:
        """The same for tracking, which can't go on without."""
        self.last = self.depth(frame)
        return self.last


def depth_of(estimator: Estimator, frame: Frame, small: bool) -> NetworkDepth:
    """What the network says of one frame; if `small`, of the image at half its size, brought back to it."""
    import cv2

    assert frame.camera is not None
    if not small:
        geometry = estimator.estimate([frame])
        return NetworkDepth.of(geometry.depth[0], geometry.log_std[0], frame.camera)
    half = frame.resized(halved(frame.width), halved(frame.height))
    geometry = estimator.estimate([half])
    net = NetworkDepth.of(geometry.depth[0], geometry.log_std[0], half.camera)
    size = (frame.width, frame.height)
    # Logarithms, as the network thinks in them. The spread is infinite where there is no ray, which can't be mixed.
    distance = np.exp(cv2.resize(np.log(net.distance), size, interpolation=cv2.INTER_LINEAR))
    return NetworkDepth(distance, cv2.resize(net.log_std, size, interpolation=cv2.INTER_NEAREST))


def halved(side: int) -> int:
    """About half of a side, of a size that the network takes."""
    return max(2 * MULTIPLE, round(side / 2 / MULTIPLE) * MULTIPLE)


class Preparer:
    """The stage before tracking: takes the next picture when tracking is ready for one, brings it to the working size
    and asks the network of each n-th.

    Attributes:
        ready: the frame that waits.
        busy_s: seconds spent.
    """

    def __init__(self, clip: RunningClip, network: Network, pace: Pace, stop: threading.Event) -> None:
        self._clip, self._network, self._pace, self._stop = clip, network, pace, stop
        self.ready: Inbox[Ready] = Inbox(1)
        self._thread = threading.Thread(target=self._run, name="prepare", daemon=True)
        self._error: BaseException | None = None
        self.busy_s = 0.0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def finish(self) -> None:
        """End; raises what has ended the thread before."""
        self.ready.close()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        inbox, count = self._clip.source.inbox, 0
        try:
            while not (self._stop.is_set() or inbox.closed):
                # A picture waits where it may be dropped, until there is room for it here.
                if not self.ready.wait_for_room(0.2):
                    continue
                if (arrived := inbox.take(0.2)) is None:
                    continue
                begun = time.monotonic()
                frame, net = self._clip.ready(arrived), None
                due = count % self._pace.step.network_every == 0 or self._network.eager
                if isinstance(frame, Frame) and due:
                    net = self._network.depth(frame)
                count += 1
                self.busy_s += time.monotonic() - begun
                self.ready.put(Ready(arrived.index, arrived.time_ns, arrived.arrived_s, frame, net))
        except BaseException as error:  # noqa: BLE001 - handed on by `finish`
            self._error = error
        finally:
            self.ready.close()


class Ticker:
    """Looks at the gauges every second, moves the pace, and tells the views and the person."""

    def __init__(
        self, clip: RunningClip, preparer: Preparer, watching: Watching, pace: Pace, gauges: Gauges,
        say: Callable[[str], None], progress: Progress,
    ) -> None:  # fmt: skip
        self._clip, self._preparer, self._watching = clip, preparer, watching
        self._pace, self._gauges, self._say, self._progress = pace, gauges, say, progress
        self._at = time.monotonic()
        source = clip.source
        self._dropped_before = _lost(source)
        self._last = (_lost(source), source.reader.received, 0.0, 0.0)
        self._busy_s, self._poses = 0.0, 0
        self._placed: Observation | Posed | Refused | None = None
        self._silent = False

    def busy(self, seconds: float, placed: Observation | Posed | Refused) -> None:
        """Tracking has worked so long on a frame, and this came of it."""
        self._busy_s += seconds
        self._poses += not isinstance(placed, Refused)
        self._placed = placed

    def tick(self, now: float) -> None:
        """To be called often; does something every second."""
        lasted = now - self._at
        if lasted < TICK_S:
            return
        source = self._clip.source
        state = (_lost(source), source.reader.received, self._busy_s, self._preparer.busy_s)
        dropped, received, busy, preparing = (new - old for new, old in zip(state, self._last, strict=True))
        self._at, self._last = now, state
        reading = self._gauges.recent(now, TICK_S)
        latency = reading.latency_p95_s if np.isfinite(reading.latency_p95_s) else 0.0
        self._pace.look(now, dropped / max(received, 1), latency, max(busy, preparing) / lasted, self._poses > 0)
        self._poses = 0
        self._gauges.dropped = _lost(source) - self._dropped_before
        self._progress("tracking", self._gauges.processed, None)
        silent = now - source.reader.last_s > SILENCE_S and not source.reader.lost
        if silent != self._silent and not source.reader.lost:
            self._say(f"no picture for {SILENCE_S:g} s; waiting" if silent else "pictures come again")
        self._silent = silent
        self._show(now)

    def _show(self, now: float) -> None:
        reading, placed = self._gauges.recent(now), self._placed
        words = self._words(now)
        if placed is None:
            return
        index, time_ns = (placed.index, placed.time_ns) if isinstance(placed, Refused) else (
            placed.frame.index, placed.frame.time_ns
        )  # fmt: skip
        figures = {
            "frames_a_second": reading.rate,
            "latency_ms": 1e3 * reading.latency_p50_s,
            "latency_p95_ms": 1e3 * reading.latency_p95_s,
            "dropped": float(reading.dropped),
            "quality_step": float(self._pace.number),
        }
        text = (
            f"**{words}**\n\n{reading.rate:.1f} frames a second, {reading.dropped} dropped\n\nlatency "
            f"{figures['latency_ms']:.0f} ms (p95 {figures['latency_p95_ms']:.0f} ms), quality step {self._pace.number}"
        )
        figures = {name: value for name, value in figures.items() if np.isfinite(value)}
        self._watching.gauges(index, time_ns, figures, text)

    def _words(self, now: float) -> str:
        """The state of tracking in words."""
        reader = self._clip.source.reader
        if reader.lost:
            return "no connection; the scene stays as it is"
        if (silent := now - reader.last_s) > SILENCE_S:
            return f"no picture for {silent:.0f} s; the scene stays as it is"
        if isinstance(self._placed, Refused):
            return f"not placed: {self._placed.reason}"
        return "tracking"


def _lost(source: RunningSource) -> int:
    """Pictures that came in and were too many."""
    return source.inbox.dropped + source.reader.passed_over
