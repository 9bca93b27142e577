"""Hands the jobs to Flink: ``python -m deploy.local.submit SETTINGS_JSON [--new-state]``.

The stack runs it as a child of its own, so that it carries the stack's mark, and ends with it,
together with the Flink client that it starts.
"""

from __future__ import annotations

import sys

from ingest.client import submit_jobs
from schemas.problems import ConfigError
from schemas.settings import load_settings_json

CANNOT = 2


def main(arguments: list[str]) -> int:
    """Exit code 2, and the reason as the only output, if something stands in the way."""
    settings = load_settings_json(arguments[0])
    try:
        if "--new-state" in arguments:
            from processors.pool.lake import Lake

            submit_jobs(settings, new_state=True, read=Lake(settings).read)
        else:
            submit_jobs(settings)
    except ConfigError as error:
        print(error)
        return CANNOT
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
