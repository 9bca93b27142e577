"""How many actors there should be: more while clips wait for one, fewer once they would do.

Only the decision; starting and ending actors is `processors.pool.workers`.
"""

from __future__ import annotations

from schemas.settings import PoolSettings

REFUSED_FOR_S = 300.0
"""An actor that the cluster had no room for is not asked for again sooner: each time, its start
is waited for as long as ``pool.actor_start_timeout_s``."""
HEADROOM = 0.5
"""An actor is given up only if the others would be filled to this part without it: otherwise the
next small rise brings it back, and its models are loaded once more."""


class Scaler:
    """Between ``pool.min_actors`` and ``pool.max_actors``, by the clips that wait or are in calls.

    Times are seconds of one monotonic clock.
    """

    def __init__(self, pool: PoolSettings, now: float) -> None:
        self._pool = pool
        self._waiting_since: float | None = None
        """Since when there has been a whole micro-batch that no actor had room for."""
        self._last_needed = now
        """When all actors were needed last."""
        self._not_before = now

    def wanted(self, now: float, *, actors: int, starting: int, waiting: int, working: int) -> int:
        """The number of actors that there should be.

        ``actors`` there are, ``starting`` of them not ready yet; ``waiting`` clips have no actor,
        ``working`` clips are in calls.
        """
        pool = self._pool
        if waiting < pool.micro_batch_clips:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = now
        without_one = (actors - 1) * pool.calls_in_flight * pool.micro_batch_clips
        if starting or waiting + working > HEADROOM * without_one:
            self._last_needed = now
        if (
            not starting
            and self._waiting_since is not None
            and now - self._waiting_since >= pool.grow_after_s
            and now >= self._not_before
        ):
            self._waiting_since = None
            # Doubled: a stream that needs fifty actors does not wait for fifty starts of a model.
            return max(actors, min(pool.actor_limit, 2 * actors))
        if actors > pool.min_actors and now - self._last_needed >= pool.shrink_after_s:
            self._last_needed = now
            return actors - 1
        return actors

    def refused(self, now: float) -> None:
        """The cluster had no room for one more."""
        self._not_before = now + REFUSED_FOR_S
