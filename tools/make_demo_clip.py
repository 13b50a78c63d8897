"""Make the demo clip that ships with the package: a colon, 320 x 256, and its camera.

python tools/make_demo_clip.py            # writes endorecon/demo/colon.mp4 and colon.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rendering.phantom.clip import Video, prepare

SEED, FRAMES, FPS = 4, 60, 15.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "endorecon" / "demo")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--frames", type=int, default=FRAMES)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    clip = prepare("colon", options.seed, options.frames, fps=FPS)
    with Video(options.out / "colon.mp4", clip.camera.width, clip.camera.height, FPS, crf=16) as video:
        for frame in clip.frames():
            video.write(frame.rgb)
    (options.out / "colon.json").write_text(json.dumps(clip.camera.to_dict(), indent=1) + "\n")
    print(f"{options.out / 'colon.mp4'}: {(options.out / 'colon.mp4').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
