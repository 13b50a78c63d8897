"""What is wrong with a frame, told from the frames before it: frozen, against the wall, covered, blurred, a cut.

A figure of one frame says little, because tissue, lamp and recorder differ; a sudden change of it says much. Each frame
is held against the usual look of the last frames in which nothing was wrong. The thresholds lie in the middle between
clean phantom clips and those with faults (docs/results.md, "Faults").
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, field

import cv2
import numpy as np

from video_io.curate import is_cut, likeness, motion
from video_io.flow import Small, bending_px, followed_share, movement_px
from video_io.frame import Frame

# Frames whose median is the usual look; colours and brightness, which change as the camera moves, are those of the last
# few. With fewer than these nothing is usual yet.
USUAL_FRAMES, RECENT_FRAMES = 15, 5
PATIENCE, PATIENCE_HOPELESS = 75, 150  # frames in a row with something wrong, after which that is the usual look
LONG = 15  # frames of a fault, after which the scene may look otherwise than before
# Grey levels of change (`motion`) under which a picture is the same, and as a share of the change that is usual.
SAME, SAME_SHARE, IDENTICAL = 0.05, 0.25, 0.005
SAME_FLOW_PX = 0.1  # of an image 320 wide: recoding a frozen picture changes it, but moves nothing
# Ratios to the usual look. No texture: of structures 5 to 20 px wide, and as a contrast in itself, which alone counts
# where nothing is usual yet.
WALL_COARSE, WALL_CONTRAST, BARE_CONTRAST = 0.3, 0.012, 0.008
BLUR_FINE, BLUR_SLOPE = 0.62, 0.72  # of details 2 to 5 px wide, and of these to the structures
FLUID_SLOPE, FLUID_TYPICAL = 0.95, 0.8
CLEAR_FINE, CLEAR_SLOPE = 0.8, 0.9  # less detail than this: fluid without a colour, if it bends the picture
# `flow.bending_px` of fluid: this, and a share of what the usual frames have; less where the colours change as well.
BENT_PX, BENT_USUAL, BENT_COLOURED = 2.2, 1.4, 0.6
COLOUR_SHIFT = 0.018  # of the shares of red and blue in the light
EXPOSURE, EXPOSED_FRAMES = 1.13, 90
# A cut between scenes of the same colours: more change than usual, hardly anything that could be followed, unlike.
CUT_CHANGE, CUT_FOLLOWED, CUT_ALIKE = 3.0, 0.3, 0.84
# More veil than in the clip's clearest frames, and the share of their contrast that is left.
VEIL_MORE, VEIL_CONTRAST = 0.2, 0.65
COLOURLESS, TOOL_SHARE, TOOL_MORE = 0.22, 0.5, 0.4  # saturation of steel; share of the picture, and how much more
STEEL_COLOURLESS, STEEL_MORE = 0.12, 0.35  # less colour than pale tissue; more of it than a cut brings
_PARTS = (10, 8)

FROZEN, COVERED = "the picture is frozen", "fluid on the lens"
VEILED = "smoke or fog veils the picture"
AGAINST_WALL, FILLED = "the lens is against the wall", "a tool, or another thing without colour, fills the view"


@dataclass(frozen=True)
class Fault:
    """What is wrong with a frame.

    Attributes:
        kind: "frozen", "wall", "tool", "cut", "fluid", "blur", "veil", "exposure".
        words: the same for the user; alike for all frames of one event.
        hopeless: whether the frame shows nothing that could be placed.
    """

    kind: str
    words: str
    hopeless: bool = False


_SOFT = {
    "fluid": Fault("fluid", f"{COVERED} (less detail, bent or coloured)"),
    "veil": Fault("veil", VEILED),
    "blur": Fault("blur", "the picture is blurred (out of focus, or fast motion)"),
}


@dataclass(frozen=True)
class Look:
    """Figures of a frame; contrasts are relative to its brightness, which exposure changes.

    Attributes:
        fine, coarse: contrast of details 2 to 5 px wide, and of structures 5 to 20 px wide.
        typical: the first of these in the middle one of 80 parts of the image.
        brightness: mean grey level, highlights and all: of a jump of the exposure, they are a part.
        red, blue: their shares in the light.
        veil: brightness of the darkest channel where it is darkest in a part of the picture, as a share of the whole
            picture's; median of 80 parts. Smoke and fog add light of their own everywhere (the dark channel, He et al.,
            CVPR 2009), while tissue leaves little blue in its red.
        colourless, steel: shares of the pixels that have hardly any colour, and even less.
    """

    fine: float
    typical: float
    coarse: float
    brightness: float
    red: float
    blue: float
    veil: float
    colourless: float
    steel: float


@dataclass
class Watch:
    """Looks at the frames of one clip, in order. All that it remembers is in its fields.

    Attributes:
        usual: looks of the last frames in which nothing was wrong; former: the same before the last cut.
        faulty: looks since then, of frames with something wrong, which is of this kind.
        changes: `motion` to each usual frame from the frame before; sound: the last few usual frames, and
            away: how many frames there were since then.
        shown: the last frame that was not a repetition, and its brightness; latest: the last of all; same: how often it
            is repeated.
        look: of the last frame that was no repetition; clearest: the usual look when it had the least veil, since the
            last cut.
        exposed: where the exposure has jumped, the brightness before, that of the last frame, the words, and for how
            many frames.
    """

    usual: list[Look] = field(default_factory=list)
    former: list[Look] = field(default_factory=list)
    faulty: list[Look] = field(default_factory=list)
    kind: str = ""
    changes: list[float] = field(default_factory=list)
    sound: list[Small] = field(default_factory=list)
    away: int = 0
    shown: Frame | None = None
    latest: Frame | None = None
    brightness: float = 0.0
    same: int = 0
    look: Look | None = None
    clearest: Look | None = None
    exposed: tuple[float, float, str, int] | None = None

    def see(self, frame: Frame) -> Fault | None:
        """What is wrong with the next frame, whose masks are filled in; None for nothing."""
        self.away += 1
        change = motion(self.latest, frame) if self.latest is not None else np.inf
        if self.shown is not None and self._is_same(frame, change):
            self.same, self.latest = self.same + 1, frame
            return Fault("frozen", f"{FROZEN} (the same as frame {self.shown.index})", hopeless=True)
        look = self.look = look_of(frame)
        fault = self._compare(frame, look, change)
        repeated, self.same, self.shown, self.latest, self.brightness = self.same, 0, frame, frame, look.brightness
        if fault is not None and fault.kind not in ("cut", "exposure"):
            self.faulty = [*(self.faulty if fault.kind == self.kind else []), look]
            self.kind = fault.kind
            if len(self.faulty) > (PATIENCE_HOPELESS if fault.hopeless else PATIENCE):
                self._accept(look)
        elif fault is not None and fault.kind == "cut":
            self.former, self.clearest = self.usual or self.former, None
            self._accept(look)
        elif max(len(self.faulty), repeated) > LONG:
            self._accept(look)
        else:
            self.usual, self.faulty, self.kind = [*self.usual, look][-USUAL_FRAMES:], [], ""
            self.changes = [*self.changes, *([change] if np.isfinite(change) else [])][-USUAL_FRAMES:]
            self.sound, self.away = [*self.sound, Small.of(frame)][-RECENT_FRAMES:], 0
            now = _usual(self.usual) if len(self.usual) >= RECENT_FRAMES else None
            if now is not None and (self.clearest is None or now.veil < self.clearest.veil):
                self.clearest = now
        return fault

    def _accept(self, look: Look) -> None:
        """From here on, this look is the usual one."""
        self.usual, self.faulty, self.kind, self.changes, self.sound, self.exposed = [look], [], "", [], [], None

    def _is_same(self, frame: Frame, change: float) -> bool:
        assert self.latest is not None
        usual = float(np.median(self.changes)) if self.changes else np.inf
        if change < max(IDENTICAL, min(SAME, SAME_SHARE * usual)):
            return True
        # Within a frozen picture the recorder may begin anew: then something changes, and nothing moves.
        if self.same < 2 or change >= 3 * max(usual, SAME):
            return False
        return movement_px(Small.of(self.latest), Small.of(frame)) < SAME_FLOW_PX

    def _compare(self, frame: Frame, look: Look, change: float) -> Fault | None:
        settled = len(self.usual) >= RECENT_FRAMES
        if usual := _usual(self.usual if settled else self.former):
            bare = look.coarse < min(WALL_COARSE * usual.coarse, WALL_CONTRAST)
            filled = self._is_filled(look, [usual, *([] if settled else self.usual)])
        else:
            bare, filled = look.coarse < BARE_CONTRAST, False
        # After a fault or a frozen picture another scene is a gap, and no cut; nor is a tool that comes quickly.
        steel = look.steel - (self.usual[-1].steel if self.usual else 0.0)
        if not bare and steel < STEEL_MORE and not self.faulty and not self.same and self._is_cut(frame, change):
            return Fault("cut", "a cut (another scene begins)")
        if filled:
            return Fault("tool", FILLED, hopeless=True)
        if bare:
            return Fault("wall", f"{AGAINST_WALL} (no texture)", hopeless=True)
        if not settled or usual is None or self.same > LONG:
            return None
        clearest = self.clearest
        # What comes slowly becomes usual meanwhile; so it is held against the clip's clearest frames.
        veiled = clearest is not None and look.veil > clearest.veil + VEIL_MORE
        if veiled and clearest is not None and look.coarse < VEIL_CONTRAST * clearest.coarse:
            return _SOFT["veil"]
        if self.kind in _SOFT and len(self.faulty) >= RECENT_FRAMES:
            # The scene changes meanwhile: what counts is whether it looks more as it did before, or as in the fault.
            faulty = _usual(self.faulty[-USUAL_FRAMES:])
            if faulty is not None and _apart(look, faulty) < _apart(look, usual):
                return _SOFT[self.kind]
            if len(self.faulty) > LONG:
                return None
        if (fault := self._exposure(look)) is not None:
            return fault
        return self._softness(frame, look, usual)

    def _is_filled(self, look: Look, before: list[Look]) -> bool:
        """Whether there is much more without colour than before; what came with a cut is no tool."""
        pale, steel = max(b.colourless for b in before), max(b.steel for b in before)
        return look.colourless > max(TOOL_SHARE, pale + TOOL_MORE) or look.steel > max(TOOL_SHARE, steel + TOOL_MORE)

    def _is_cut(self, frame: Frame, change: float) -> bool:
        if self.latest is None:
            return False
        usual = float(np.median(self.changes)) if len(self.changes) >= RECENT_FRAMES else np.inf
        if is_cut(self.latest, frame):
            return True
        if change <= CUT_CHANGE * usual or likeness(self.latest, frame) >= CUT_ALIKE:
            return False
        return followed_share(Small.of(self.latest), Small.of(frame)) < CUT_FOLLOWED

    def _softness(self, frame: Frame, look: Look, usual: Look) -> Fault | None:
        """Blur, or fluid, which takes detail as well, but refracts the light and mostly colours it."""
        slope, fine = _slope(look, usual), look.fine / usual.fine
        coloured = np.hypot(look.red - usual.red, look.blue - usual.blue) > COLOUR_SHIFT
        blurred = fine < BLUR_FINE and slope < BLUR_SLOPE
        tinted = coloured and (slope < FLUID_SLOPE or look.typical < FLUID_TYPICAL * usual.typical)
        less = 1.1 if self.kind == "fluid" else 1.0  # what is seen through fluid is a little sharper now and then
        if not (blurred or tinted or (fine < less * CLEAR_FINE and slope < less * CLEAR_SLOPE)):
            return None
        # Against a frame long ago, the camera's own motion would count: then only the colours tell.
        known = self.away < 2 * RECENT_FRAMES and len(self.sound) == RECENT_FRAMES
        if self._is_bent(frame, BENT_COLOURED if coloured and blurred else 1.0) if known else coloured:
            return _SOFT["fluid"]
        return _SOFT["blur"] if blurred else None

    def _is_bent(self, frame: Frame, share: float) -> bool:
        """Whether the picture is warped as the camera's motion does not warp it."""
        # The last of the usual frames may be the beginning of the fault.
        small, usual = Small.of(frame), BENT_USUAL * bending_px(self.sound[0], self.sound[-3])
        near, far = (bending_px(sharp, small) for sharp in (self.sound[-3], self.sound[0]))
        return near > share * BENT_PX + usual or far > share * BENT_PX + 2 * usual

    def _exposure(self, look: Look) -> Fault | None:
        """A jump from one frame to the next; it lasts until the brightness is or jumps back, or for EXPOSED_FRAMES."""
        if self.exposed is None:
            before = self.brightness
            if self.faulty or _ratio(look.brightness, before) < EXPOSURE:
                return None
            words = f"the exposure jumps (brightness {before:.0f} to {look.brightness:.0f})"
            self.exposed = before, look.brightness, words, 0
        before, last, words, frames = self.exposed
        back = _ratio(look.brightness, before) < (1 + EXPOSURE) / 2
        jumped = _ratio(look.brightness, last) > EXPOSURE and (look.brightness > last) == (before > last)
        if back or jumped or frames >= EXPOSED_FRAMES:
            self._accept(look)
            return None
        self.exposed = before, look.brightness, words, frames + 1
        return Fault("exposure", words)


def _slope(look: Look, usual: Look) -> float:
    """How much more of the details than of the structures is left."""
    return (look.fine / usual.fine) / max(look.coarse / usual.coarse, 1e-9)


def _apart(a: Look, b: Look) -> float:
    """How far two looks lie apart, in units in which a fault begins."""
    detail, colour = np.log(_slope(a, b)) / np.log(BLUR_SLOPE), np.hypot(a.red - b.red, a.blue - b.blue) / COLOUR_SHIFT
    return float(np.hypot(detail, colour))


def _ratio(a: float, b: float) -> float:
    return max(a, b) / max(min(a, b), 1e-3)


def look_of(frame: Frame) -> Look:
    """The look of a frame of about 320 x 256 pixels whose masks are filled in."""
    height, width = frame.rgb.shape[:2]
    rgb = cv2.resize(frame.rgb, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    good = (frame.use_mask & ~frame.specular_mask)[: height // 2 * 2 : 2, : width // 2 * 2 : 2].astype(np.uint8)
    core = cv2.erode(good, np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    use = core if core.any() else None
    unit = width / 320
    sharp, middle, dull = (cv2.GaussianBlur(grey, (0, 0), unit * reach) for reach in (0.8, 1.6, 6.0))
    level = cv2.mean(grey, use)[0]
    fine, coarse = (np.sqrt(cv2.mean(band * band, use)[0]) / (level + 10) for band in (sharp - middle, middle - dull))
    parts = cv2.resize((sharp - middle) ** 2 * core, _PARTS, interpolation=cv2.INTER_AREA)
    share = cv2.resize(core.astype(np.float32), _PARTS, interpolation=cv2.INTER_AREA)
    typical = np.sqrt(np.median(parts[share > 0.5] / share[share > 0.5])) / (level + 10) if (share > 0.5).any() else 0.0
    mean = np.array(cv2.mean(rgb, use)[:3])
    r, g, b = cv2.split(rgb)
    most, least = cv2.max(cv2.max(r, g), b), cv2.min(cv2.min(r, g), b)
    lit = (most > 30) & (core > 0)
    spread, lit_count = (most - least)[lit] / most[lit], max(np.count_nonzero(lit), 1)
    red, _, blue = mean / max(mean.sum(), 1e-6)
    veil = _darkest(frame) / (level + 10)
    colourless, steel = (np.count_nonzero(spread < limit) / lit_count for limit in (COLOURLESS, STEEL_COLOURLESS))
    usable = frame.use_mask[: height // 2 * 2 : 2, : width // 2 * 2 : 2].astype(np.uint8)
    brightness = cv2.mean(grey, usable if usable.any() else None)[0]
    return Look(*(float(v) for v in (fine, typical, coarse, brightness, red, blue, veil, colourless, steel)))


def _darkest(frame: Frame) -> float:
    """Grey level of the least channel where it is least in a part of the picture; median of the parts."""
    columns, rows = _PARTS
    size = (8 * columns, 8 * rows)
    small = cv2.resize(frame.rgb, size, interpolation=cv2.INTER_AREA)
    use = cv2.resize(frame.use_mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.99
    least = np.where(use, small.min(axis=2), 255).reshape(rows, 8, columns, 8).min(axis=(1, 3))
    seen = use.reshape(rows, 8, columns, 8).any(axis=(1, 3))
    return float(np.median(least[seen])) if seen.any() else 0.0


def _usual(looks: list[Look]) -> Look | None:
    if not looks:
        return None
    slow, fast = (np.median([astuple(look) for look in part], axis=0) for part in (looks, looks[-RECENT_FRAMES:]))
    return Look(*np.maximum(slow[:3], 1e-6).tolist(), *fast[3:-2].tolist(), *slow[-2:].tolist())
