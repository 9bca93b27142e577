"""What an operator of DataJuicer may not do while it runs: install packages, fetch offline, or run
code that came with a model.

Many of its operators install what they miss, with pip and from wherever it says; here a missing
package is an error with its name. Some have a model's own code run, whatever a recipe says; here
that is an error as well. Runs in DataJuicer's environment, and needs nothing but Python.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path, PurePath
from types import FrameType
from typing import Any

_INSTALLERS = frozenset({"pip", "pip3", "uv", "mim", "conda", "poetry", "pipenv", "setup.py"})
_FETCHERS = frozenset({"git", "wget", "curl", "gdown"})
_DOWNLOADERS = ("requests.", "urllib.request", "wget")
"""Modules by which DataJuicer downloads files; model servers are asked by others."""
_CACHES = (
    *("HF_HOME", "HF_HUB_CACHE", "HF_MODULES_CACHE", "TORCH_HOME", "MODELSCOPE_CACHE"),
    *("XDG_CACHE_HOME", "CACHE_HOME", "DATA_JUICER_CACHE_HOME", "DATA_JUICER_MODELS_CACHE"),
)
"""Variables that name folders of models; without them they are in ``~/.cache``."""
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


def forbid_code_of_models() -> None:
    """From here on, for this process: `PermissionError` where a model's own code would be run.

    Libraries copy that code into their caches before they import it, so nothing in there is run,
    Python or binary, whoever asks for it. transformers is told as well, and so says it earlier.
    """
    here = {Path(place).resolve() for place in (sys.prefix, sys.base_prefix)}
    named = [os.environ[name] for name in _CACHES if name in os.environ]
    caches = {Path(place).expanduser().resolve() for place in ("~/.cache", *named)}

    def check(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "exec":
            file = getattr(arguments[0], "co_filename", "")
        elif event in ("import", "ctypes.dlopen"):
            # Of extension modules and libraries; other imports have no file here.
            file = arguments[event == "import"]
        else:
            return
        if not (isinstance(file, str) and file.startswith(os.sep)):
            return  # `<string>` and the like
        path = Path(file)
        found = path.resolve()
        cached = any(path.is_relative_to(c) or found.is_relative_to(c) for c in caches)
        if cached and not any(found.is_relative_to(place) for place in here):
            raise PermissionError(_own_code(file))

    sys.addaudithook(check)
    _tell_transformers()


def _tell_transformers() -> None:
    try:
        from transformers import dynamic_module_utils
    except ImportError:
        return

    def resolve(
        trust_remote_code: object,
        model_name: object,
        has_local_code: bool,
        has_remote_code: bool,
        *_: object,
        **__: object,
    ) -> bool:
        if has_remote_code and (trust_remote_code or not has_local_code):
            raise PermissionError(_own_code(model_name))
        return False

    def refuse(class_name: object, module_path: object, **_: object) -> None:
        raise PermissionError(_own_code(f"{class_name} in {module_path}"))

    # Before any other module of it has taken them by name.
    dynamic_module_utils.resolve_trust_remote_code = resolve
    dynamic_module_utils.get_class_in_module = refuse


def _own_code(what: object) -> str:
    return f"{what} would run a model's own code, which is never done"


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
