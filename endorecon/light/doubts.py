"""What can be told apart in a clip, what can't, and clips whose light can't be estimated at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from endorecon.light.evidence import BLACK, WHITE, Sight
from rendering.mesh import Mesh
from video_io.errors import InputError

if TYPE_CHECKING:
    from endorecon.light.estimate import Fits

MOST_CLIPPED, MOST_BLACK = 0.3, 0.6  # share of a clip's pixels
FEWEST_FRAMES, FEWEST_VIEWS = 3, 3.0  # frames; and median number of frames that see a point
LEAST_RANGE = 1.15  # ratio of the distances from which a point is seen, below which fall-off can't be told
FALLOFF_STD, FALLOFF_RANGE = 0.25, (1.0, 3.2)
LEAST_GAIN = 1.1  # how much worse an evenly lit scene has to explain the clip


@dataclass(frozen=True)
class Told:
    """Sentences by the name of the quantity.

    Attributes:
        observable: what the images told.
        fixed: what was fixed by convention.
        warnings: what a person should know.
    """

    observable: dict[str, str]
    fixed: dict[str, str]
    warnings: tuple[str, ...]


def check_sights(mesh: Mesh, sights: Sequence[Sight]) -> None:
    """Refuse what no light can be estimated from.

    Raises:
        InputError: no surface; fewer than three frames; frames that are black or clipped.
    """
    if len(mesh.faces) == 0:
        raise InputError("the run's mesh is empty, so nothing reflects light; reconstruct a clip that shows tissue")
    if len(sights) < FEWEST_FRAMES:
        raise InputError(
            f"light can't be told from albedo in {len(sights)} frame{'s' * (len(sights) != 1)}: expected at least "
            f"{FEWEST_FRAMES} that see the same tissue from different distances; reconstruct a longer part"
        )
    levels = np.concatenate([s.frame.rgb[s.frame.use_mask][::7].max(-1, initial=0) for s in sights])
    clipped = float((levels >= 255 * WHITE).mean()) if len(levels) else 0.0
    black = float((levels <= 255 * BLACK).mean()) if len(levels) else 1.0
    if black > MOST_BLACK:
        raise InputError(
            f"{100 * black:.0f} % of the frames' pixels are black; expected a lit picture; choose a part of the clip "
            "in which the light is on"
        )
    if clipped > MOST_CLIPPED:
        raise InputError(
            f"{100 * clipped:.0f} % of the frames' pixels are clipped to white, which says nothing of how bright they "
            "were; choose a part of the clip that is not overexposed"
        )


def check_fits(fits: Fits) -> Told:
    """Say what the clip told of its light.

    Raises:
        InputError: the brightness is explained as well without a light that moves with the camera.
    """
    evidence = fits.evidence
    nearest, farthest = (np.full(len(evidence.points), fill) for fill in (np.inf, 0.0))
    np.minimum.at(nearest, evidence.point, evidence.distance)
    np.maximum.at(farthest, evidence.point, evidence.distance)
    often = np.bincount(evidence.point, minlength=len(evidence.points))
    seen = often >= 2
    reach = float(np.quantile(farthest[seen] / nearest[seen], 0.8)) if seen.any() else 1.0
    if np.median(often) < FEWEST_VIEWS:
        raise InputError(
            f"half of the surface is seen in {np.median(often):.0f} frames or fewer, so light can't be told from "
            "albedo; expected a camera that looks at the same tissue from several places; reconstruct a longer part"
        )
    moves = fits.flat_rms > LEAST_GAIN * fits.rms
    sharp = 0 < fits.falloff.std("falloff") < FALLOFF_STD
    inside = FALLOFF_RANGE[0] < fits.falloff.values["falloff"] < FALLOFF_RANGE[1]
    if reach >= LEAST_RANGE and (not moves or (sharp and not inside)):
        raise InputError(
            "brightness does not fall with the distance from the endoscope as its light's would (exponent "
            f"{fits.falloff.values['falloff']:.1f} ± {fits.falloff.std('falloff'):.1f}, expected 2; an even light "
            f"explains the frames to {100 * fits.flat_rms:.1f} %, one on the endoscope to {100 * fits.rms:.1f} %): "
            "another lamp lights the scene, or the reconstruction is wrong; its light is left unestimated"
        )
    return Told(*_sentences(fits, reach))


def place_std(fits: Fits) -> tuple[float, float, float]:
    """Standard deviation of the lamp's place, in the estimate's unit."""
    if fits.place is not None:
        return tuple(fits.place.std.tolist())
    return tuple(fits.best.std(n) for n in "xyz")


def _sentences(fits: Fits, reach: float) -> tuple[dict[str, str], dict[str, str], tuple[str, ...]]:
    best, joint, free = fits.best, fits.joint, fits.falloff
    fixed = {
        "intensity": "the lamp's is 1 at the median distance: only its product with exposure shows",
        "colour": "the lamp is white, and so is the mean of the frames' white balance: the rest is albedo",
        "cut-off": "90 degrees: only its product with the exponent shows",
        "falloff": "2, as of a small lamp: then gamma is told by how brightness falls with the distance",
        "f0": "0.04, as of a wet film: only its product with the film's strength shows",
    }
    gamma, std = np.exp(joint.values["log_gamma"]), joint.std("log_gamma")
    fixed_gamma, rough = np.exp(best.values["log_gamma"]), np.exp(best.values["log_roughness"])
    observable = {
        "falloff": f"{joint.values['falloff']:.2f} ± {joint.std('falloff'):.2f} with gamma free ({gamma:.2f} ± "
        f"{gamma * std:.2f}), which Lambert's cosine holds; {free.values['falloff']:.2f} ± {free.std('falloff'):.2f} "
        "if gamma is 2.2; distances alone tell their ratio only",
        "gamma": f"{fixed_gamma:.2f} ± {fixed_gamma * best.std('log_gamma'):.2f} if the fall-off is 2",
        "position": "{:.2f} {:.2f} {:.2f} ± {:.2f} {:.2f} {:.2f}".format(
            *(best.values[n] * best.unit for n in "xyz"), *(doubt * best.unit for doubt in place_std(fits))
        )
        + (", by the shadows that it casts" if fits.place else ""),
        "profile": f"exponent {best.values['exponent']:.2f} ± {best.std('exponent'):.2f}, with the vignette "
        f"{best.values['vignette']:.2f} ± {best.std('vignette'):.2f}; a lamp at the lens shows their product only",
    }
    warnings = []
    if reach < LEAST_RANGE:
        warnings.append(
            f"the camera's distance from the tissue hardly varies (by {100 * (reach - 1):.0f} %), so the fall-off is "
            "taken on trust"
        )
    if np.isfinite(fits.scale_std) and fits.scale_std < 0.3:
        observable["albedo's scale"] = f"told by light between surfaces, to ± {100 * fits.scale_std:.0f} %"
    else:
        fixed["albedo's scale"] = "95 % of the surface has an albedo below 0.6: only its product with the light shows"
    if fits.parts.film:
        observable["roughness"] = (
            f"{rough:.2f} ± {rough * best.std('log_roughness'):.2f}, one for the whole scene, "
            "of the film and of relief finer than the mesh"
        )
    else:
        fixed["roughness"] = "0.35 and no film: there are no highlights to tell it by"
        warnings.append("the clip shows no highlights, so roughness can't be told and relit views have none")
    for name, share in (("clipped", fits.evidence.clipped), ("black", fits.evidence.black)):
        if share > 0.1:
            warnings.append(f"{100 * share:.0f} % of the pixels are {name}; they tell little")
    return observable, fixed, tuple(warnings)
