"""How many segments a call passes on while those who score them are free, or full."""

from __future__ import annotations

from ingest.pace import Pace

WORKERS = 3


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _call(pace: Pace, clock: Clock, after_s: float, *, is_tick: bool) -> int:
    """A call so long after the last one's end; it passes on what it may."""
    clock.now += after_s
    most = pace.begin(is_tick=is_tick)
    pace.end(most)
    return most


def test_each_call_passes_on_some_while_they_are_taken() -> None:
    clock = Clock()
    pace = Pace(WORKERS, clock)
    calls = [_call(pace, clock, after_s, is_tick=False) for after_s in (0.001, 0.2, 0.001)]
    assert calls == [2 * WORKERS] * 3
    assert _call(pace, clock, 0.2, is_tick=True) == 2 * WORKERS


def test_what_came_in_while_receivers_were_full_passes_on_nothing() -> None:
    clock = Clock()
    pace = Pace(WORKERS, clock)
    assert _call(pace, clock, 0.001, is_tick=True) == 2 * WORKERS
    # They took what they were given only after 30 s; meanwhile the clock went on, and rows came.
    assert _call(pace, clock, 30.0, is_tick=True) == 0
    assert [_call(pace, clock, 0.003, is_tick=tick) for tick in [True] * 99 + [False]] == [0] * 100
    # Then comes a tick that nobody had to wait for.
    assert _call(pace, clock, 0.2, is_tick=True) == WORKERS
    assert _call(pace, clock, 20.0, is_tick=True) == 0
    assert _call(pace, clock, 0.2, is_tick=False) == 0
    assert _call(pace, clock, 0.2, is_tick=True) == WORKERS
    # They are not full any more.
    assert _call(pace, clock, 0.2, is_tick=True) == 2 * WORKERS


def test_a_long_time_without_calls_is_no_sign_if_nothing_was_passed_on() -> None:
    clock = Clock()
    pace = Pace(WORKERS, clock)
    pace.begin(is_tick=True)
    pace.end(0)
    assert _call(pace, clock, 60.0, is_tick=False) == 2 * WORKERS
