"""The stage behind tracking in a live run: keeps what the end will need, and lets the scene that is shown grow."""

from __future__ import annotations

import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from endorecon.pace import Pace
from endorecon.spool import LookFile, Looks, Spool
from endorecon.tracking.appearance import describe
from endorecon.tracking.densify import NetworkDepth, fit_correction
from endorecon.tracking.features import feature_image
from endorecon.tracking.map import Map
from endorecon.tracking.observation import Observation
from endorecon.tracking.tracker import TrackerSettings
from video_io.errors import InputError
from video_io.inbox import Inbox

if TYPE_CHECKING:
    from endorecon.scenes.tsdf import TsdfScene
    from rendering.mesh import Mesh

# At most so often is a key frame, and another frame with depth, kept and put into the scene.
KEY_S, OTHER_S = 0.15, 1.0
WAITING = 3
# The surface is made anew after so long, and after so many times as long as that takes.
MESH_S, MESH_SHARE = 2.0, 12.0
# Bytes left free on the disk, and so much more for each frame that was kept, as its depth is to be written in the end.
KEEP_FREE, KEEP_FREE_A_PIXEL = 64 << 20, 8
_NO_GUESS = np.full((4, 4), np.nan)


@dataclass(frozen=True)
class Seen:
    """A frame with depth, as tracking hands it on.

    Attributes:
        observation: its place, and its depth on the scale of its landmarks.
        net: what the network said.
        evidence: what its landmarks tell of that, as `fit_correction` takes it.
        scene, number: the map that it belongs to, and where in it.
    """

    observation: Observation
    net: NetworkDepth
    evidence: tuple[np.ndarray, np.ndarray, np.ndarray]
    scene: Map
    number: int


class Mapper:
    """Works on a thread of its own; only here a scene is touched.

    Args:
        spool: where frames are kept.
        make_scene: an empty scene for a median depth.
        show: takes the surface, the scene's warnings aside, each time that it was made anew.
        pace: says how often the scene grows.
        say: takes a sentence for the person.

    Attributes:
        inbox: what waits.
        full: whether the disk is, so that nothing more is kept.
        failed: what has ended the thread early; empty for nothing. Tracking goes on all the same.
    """

    def __init__(
        self, spool: Spool, make_scene: Callable[[float], TsdfScene], show: Callable[[Mesh], None], pace: Pace,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.inbox: Inbox[Seen] = Inbox(WAITING)
        self._spool, self._make_scene, self._show, self._pace, self._say = spool, make_scene, show, pace, say
        self._thread = threading.Thread(target=self._run, name="map", daemon=True)
        self._scene: TsdfScene | None = None
        self._looks: LookFile | None = None
        self._to_drop: deque[int] = deque()
        self._segment, self._since_mapped = -1, 0
        self._mesh_at = 0.0
        self._kept_at = -np.inf
        self.full = False
        self.failed = ""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wants(self, is_keyframe: bool, now: float) -> bool:
        """Whether a frame with depth should be handed on; remembers that it is."""
        if now - self._kept_at < (KEY_S if is_keyframe else OTHER_S):
            return False
        self._kept_at = now
        return True

    def let_go(self, indices: list[int]) -> None:
        """What was kept of the frames with these source indices is no longer needed."""
        self._to_drop.extend(indices)

    def finish(self) -> None:
        """Work off what waits, and end."""
        self.inbox.close()
        self._thread.join()
        self._scene = None

    def _run(self) -> None:
        import numba

        numba.set_num_threads(1)  # of this thread: the other core is for tracking
        try:
            while not self.inbox.closed:
                if (seen := self.inbox.take(0.2)) is not None:
                    self._keep(seen)
                    self._map(seen)
                while self._to_drop:
                    self._spool.drop(self._to_drop.popleft())
        except Exception as error:  # noqa: BLE001 - what is kept so far is of use, and so is tracking
            self.failed = f"the scene has stopped growing ({error or type(error).__name__})"
            self._say(f"{self.failed}; tracking goes on")
            self.inbox.close()

    def _keep(self, seen: Seen) -> None:
        frame = seen.observation.frame
        if self.full:
            return
        needed = KEEP_FREE + KEEP_FREE_A_PIXEL * frame.width * frame.height * (len(self._spool) + 1)
        try:
            if shutil.disk_usage(self._spool.path.parent).free < needed:
                raise InputError("the disk is nearly full")
            self._spool.keep(frame, seen.net, _NO_GUESS)
            # Where loops are sought, the frame is read again: only what was kept may have a look.
            if seen.observation.is_keyframe and seen.number - 1 not in seen.scene.looks:
                self._remember(seen)
        except (InputError, OSError) as error:
            self.full = True
            self._say(f"no more depth is kept ({error}); tracking goes on")
            return

    def _remember(self, seen: Seen) -> None:
        """Keep what a key frame looks like."""
        if self._looks is None:
            self._looks = LookFile(self._spool.path.with_name("looks"))
        if not isinstance(seen.scene.looks, Looks):
            seen.scene.looks = Looks(self._looks)
        image, log_net = feature_image(seen.observation.frame), np.log(seen.net.distance)
        seen.scene.looks[seen.number] = describe(image, log_net, TrackerSettings().look)

    def _map(self, seen: Seen) -> None:
        self._since_mapped += 1
        if self._since_mapped < self._pace.step.mapping_every:
            return
        self._since_mapped = 0
        old, camera = seen.observation, seen.scene.camera
        correction = fit_correction(*seen.evidence, camera.width, camera.height)
        new = seen.net.observe(
            old.frame, camera, old.world_from_cam, correction, old.segment, old.is_keyframe, old.figures
        )
        if self._scene is None or new.segment != self._segment:
            valid = new.confidence > 0
            median = float(np.median(new.depth[valid])) if valid.any() else 1.0
            self._scene = None  # before there is another one
            self._scene, self._segment = self._make_scene(median), new.segment
        self._scene.integrate(new)
        now = time.monotonic()
        if now >= self._mesh_at:
            self._show(self._scene.mesh())
            spent = time.monotonic() - now
            self._mesh_at = time.monotonic() + max(MESH_S, MESH_SHARE * spent)
