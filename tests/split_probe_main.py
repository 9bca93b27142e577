"""The split's first operator over one URI, in Flink's environment and without a cluster:

``python -m tests.split_probe_main FETCH_SETTINGS SCRATCH_DIR URI PATIENCE_S`` prints what became
of it.
"""

from __future__ import annotations

import sys
import time
from typing import Any, cast

from pyflink.common import Row

from ingest import split_operators
from ingest.elements import FailedPart
from ingest.split_operators import VIDEO_COLUMNS, ProbeVideo
from processors.errors import DependencyFault
from schemas.sections import DecodeSettings, FetchSettings


def main() -> None:
    split_operators.PATIENCE_S = float(sys.argv[4])
    operator = ProbeVideo(
        FetchSettings.model_validate_json(sys.argv[1]), DecodeSettings(), sys.argv[2], None
    )
    operator.open(cast("Any", None))
    values = {"video_key": "key", "uri": sys.argv[3], "kafka_timestamp": ""}
    began = time.monotonic()
    try:
        for part in operator.flat_map(Row(*(values.get(name) for name in VIDEO_COLUMNS))):
            print(part.reason if isinstance(part, FailedPart) else "probed")
    except DependencyFault as fault:
        print(f"{type(fault).__name__} after {time.monotonic() - began:.1f} s: {fault}")
    finally:
        operator.close()


if __name__ == "__main__":
    main()
