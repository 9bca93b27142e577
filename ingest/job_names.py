"""The two jobs by name; the database is part of it, so that one cluster can serve several."""

from __future__ import annotations

from schemas.settings import Settings

JOBS = ("arrivals", "split")


def flink_name(settings: Settings, job: str) -> str:
    """The job's name on the Flink cluster."""
    return f"{settings.catalog.database}-{job}"
