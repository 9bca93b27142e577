"""The operator host as a child process that answers over a pipe, where there is no Ray.

Started by `processors.datajuicer.hosts` with DataJuicer's interpreter, and by nothing else.
"""

from __future__ import annotations

import resource
import signal
from multiprocessing.connection import Connection
from typing import Any

from processors.datajuicer.operator_host import OperatorHost
from processors.orphans import die_with


def main(argv: list[str]) -> None:
    """Serve calls, (method, arguments), over the connection that the first argument names."""
    descriptor, parent = (int(text) for text in argv)
    # Ctrl-C goes to the whole process group; when to stop is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection: Connection[Any, Any] = Connection(descriptor)
    host = OperatorHost()
    connection.send(True)
    while True:
        try:
            method, arguments = connection.recv()
            connection.send(getattr(host, method)(*arguments))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return
