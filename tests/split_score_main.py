"""The operator of the split that scores, over one video, in Flink's environment and without a
cluster:

``python -m tests.split_score_main FETCH_SETTINGS SCRATCH_DIR URI FILE PATIENCE_S`` scores the first
segment of the video at the URI, which is what is in the file, and prints what became of it.
"""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path
from typing import Any, cast

from ingest import split_operators
from ingest.elements import FailedPart, padded, segment_tasks
from ingest.split_operators import ScoreSegment
from processors.errors import DependencyFault
from processors.media.probe import probe
from processors.split import plan_segments
from schemas.sections import DecodeSettings, FetchSettings


def main() -> None:
    fetch, scratch, uri, file, patience_s = sys.argv[1:]
    split_operators.PATIENCE_S = float(patience_s)
    video = {"video_key": "key", "kafka_partition": 0, "kafka_offset": 0, "uri": uri}
    info = probe(file)
    segments = plan_segments(info, DecodeSettings().segment_s)
    sha256 = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    task = padded(segment_tasks(video, info, segments, sha256)[0])
    operator = ScoreSegment(FetchSettings.model_validate_json(fetch), DecodeSettings(), scratch)
    operator.open(cast("Any", None))
    began = time.monotonic()
    try:
        for part in operator.flat_map(task):
            print(part.reason if isinstance(part, FailedPart) else "scored")
    except DependencyFault as fault:
        print(f"{type(fault).__name__} after {time.monotonic() - began:.1f} s: {fault}")
    finally:
        operator.close()


if __name__ == "__main__":
    main()
