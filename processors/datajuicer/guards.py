"""What an operator of DataJuicer may not do while it runs: install packages, or fetch offline.

Many of its operators install what they miss, with pip and from wherever it says; here a missing
package is an error with its name. Runs in DataJuicer's environment, and needs nothing but Python.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import PurePath
from types import FrameType
from typing import Any

_INSTALLERS = frozenset({"pip", "pip3", "uv", "mim", "conda", "poetry", "pipenv", "setup.py"})
_FETCHERS = frozenset({"git", "wget", "curl", "gdown"})
_DOWNLOADERS = ("requests.", "urllib.request", "wget")
"""Modules by which DataJuicer downloads files; model servers are asked by others."""
_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})


def forbid_installs_and_fetches() -> None:
    """From here on, for this process: `ImportError` where a package would be installed.

    Where ``HF_HUB_OFFLINE`` is set, also `OSError` where a file would be downloaded by urllib,
    requests or a program; the hub's own client obeys the variable by itself.
    """
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE

    def check(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen":
            _check_command(_words(arguments[1]), offline)
        elif event == "os.system":
            _check_command(_words(arguments[0]), offline)
        elif event == "socket.getaddrinfo" and offline:
            _check_host(arguments[0])

    sys.addaudithook(check)


def refuse_install(package: object) -> None:
    """`ImportError`: an operator wants a package that is not there."""
    raise ImportError(
        f"it needs the package {package}, which {sys.prefix} has not; packages are not installed "
        "while clips are processed"
    )


def _check_command(words: list[str], offline: bool) -> None:
    names = {PurePath(word).name for word in words}
    if "install" in words and names & _INSTALLERS:
        wanted = words[words.index("install") + 1 :]
        refuse_install(" ".join(w for w in wanted if not w.startswith("-")) or " ".join(words))
    if offline and names & _FETCHERS:
        raise OSError(_offline(" ".join(words)))


def _check_host(host: object) -> None:
    if host in _THIS_MACHINE:
        return
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith(_DOWNLOADERS):
            raise OSError(_offline(f"from {host}"))
        frame = frame.f_back


def _words(command: Any) -> list[str]:
    if isinstance(command, str | bytes):
        text = os.fsdecode(command)
        try:
            return shlex.split(text)
        except ValueError:
            return text.split()
    # A shell's command is one of several words.
    return [word for part in command for word in _split(os.fsdecode(part))]


def _split(part: str) -> list[str]:
    try:
        return shlex.split(part) or [part]
    except ValueError:
        return [part]


def _offline(what: object) -> str:
    return f"HF_HUB_OFFLINE is set, and it tried to download {what}"
