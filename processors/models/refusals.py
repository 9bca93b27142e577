"""Whether a server refuses one input or all of them: it is asked something harmless beside.

Without that, a server that has lost its model, or takes no pictures, would cost every clip.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from processors.errors import DependencyFault
from processors.models.chat_server import InputRefused


class Refusals:
    """What a server refused of one batch, which is blamed on the input only while the server
    answers a probe that is sent after it.

    One probe is sent at the first refusal, so that a server that answers nothing is not asked for
    all of the batch, and one at the end if there were more: two at most, however many inputs are
    refused.
    """

    def __init__(self, try_out: Callable[[], None]) -> None:
        """``try_out`` sends the probe, and raises `DependencyFault` if it is not answered."""
        self._try_out = try_out
        self._lock = threading.Lock()
        self._probed = False
        self._unproven: InputRefused | None = None

    def add(self, refusal: InputRefused) -> None:
        """Note a refusal, from any thread; the first one is looked into."""
        if not refusal.perhaps_any:
            return
        with self._lock:
            self._unproven = refusal
            if not self._probed:
                self._probed = True
                self._look_into()

    def settle(self) -> None:
        """Look into those that came since the probe. `DependencyFault` if it answers nothing."""
        with self._lock:
            self._look_into()

    def _look_into(self) -> None:
        refusal, self._unproven = self._unproven, None
        if refusal is None:
            return
        try:
            self._try_out()
        except DependencyFault as fault:
            before = "" if str(refusal) in str(fault) else f"; before that, {refusal}"
            raise DependencyFault(f"{fault}{before}") from None
