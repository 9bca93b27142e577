"""The process in which a recipe's operators of DataJuicer run: started, asked, restarted.

One a chain, with DataJuicer's interpreter and on the same machine, since clips go to it as files.
In the pool it is a Ray actor, so that Ray accounts for it; elsewhere, as in `cliplake try`, a
child process. What runs in it is `processors.datajuicer.operator_host`.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from processors.datajuicer.environment import allowed
from processors.datajuicer.operator_host import OperatorHost
from processors.errors import DependencyFault, StageStartError
from processors.piped import PipedProcess, ProcessEnded
from schemas.datajuicer import signatures
from schemas.settings import CHECKOUT, Settings

_BOOT = "import sys; from processors.datajuicer.host_child import main; main(sys.argv[1:])"
_PING_S = 10.0
_SHARE_OF_START = 0.75
"""Of ``pool.actor_start_timeout_s``: before the pool gives up on the actor that waits for us,
with less to say."""


class HostGone(Exception):
    """The process died or was ended at its deadline, in the middle of a call."""


@dataclass(frozen=True)
class Answer:
    """What became of one clip in one operator."""

    error: str | None = None
    """The operator's own, as ``type: text``; nothing else is there then."""
    environment: bool = False
    """Whether the error is a package that the environment lacks: no clip is to blame."""
    stats: dict[str, float | None] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    """JSON by name."""
    keep: bool | None = None
    """A filter's verdict."""
    text: str | None = None
    """The caption that a mapper made; None if it left it as it was."""


class _Process(Protocol):
    """Where an `OperatorHost` lives."""

    def call(self, method: str, *arguments: Any, deadline_s: float) -> Any:
        """Call a method of the host; `HostGone` if no answer comes within ``deadline_s``."""

    def end(self) -> None:
        """End the process at once."""


class DataJuicerHost:
    """The operators of one recipe, built once and again whenever their process is gone.

    Threads wait for each other.
    """

    def __init__(
        self, settings: Settings, operators: Sequence[tuple[str, Mapping[str, Any]]]
    ) -> None:
        """``operators``: names and parameters, in the recipe's order."""
        self._python = settings.datajuicer_python
        self._start_timeout_s = settings.pool.actor_start_timeout_s * _SHARE_OF_START
        known = signatures().operators
        self._wanted = [
            (name, dict(parameters), sorted(known[name].reads)) for name, parameters in operators
        ]
        self._lock = threading.RLock()
        self._process: _Process | None = None
        self.version = ""
        """Of DataJuicer, with the package's name; known once it has started."""

    def start(self) -> None:
        """Start the process and build all operators, unless that is done.

        `StageStartError`, one line, if there is no such interpreter, it has no DataJuicer or
        another version than recipes are read by, or an operator cannot be built.
        """
        with self._lock:
            if self._process is None:
                self._start()

    def _start(self) -> _Process:
        if not (self._python.is_file() and os.access(self._python, os.X_OK)):
            raise StageStartError(
                f"{self._names()} run in DataJuicer's environment, and {self._python} "
                "(pool.datajuicer_python) is no interpreter; make setup-datajuicer makes one"
            )
        try:
            process = self._new_process()
        except RuntimeError as error:
            raise StageStartError(f"{self._names()}: {error}") from None
        try:
            started = process.call(
                "start", signatures().version, self._wanted, deadline_s=self._start_timeout_s
            )
        except HostGone as gone:
            process.end()
            raise StageStartError(
                f"{self._names()}: the process of {self._python} (pool.datajuicer_python) "
                f"{gone} while it started (pool.actor_start_timeout_s)"
            ) from None
        if started["error"] is not None:
            process.end()
            raise StageStartError(
                f"{started['error']} (in {self._python}; make setup-datajuicer makes that "
                "environment)"
            )
        self._process = process
        self.version = started["version"]
        return process

    def run(self, name: str, clip: dict[str, Any], *, deadline_s: float) -> Answer:
        """What becomes of one clip, which is one of `OperatorHost.run`.

        `HostGone` if the process is lost on the way; the next call has a new one.
        `DependencyFault` if there can be none any more.
        """
        (answer,) = self._call("run", name, [clip], deadline_s=deadline_s)
        return Answer(**answer)

    def ping(self) -> None:
        """Raise `HostGone` or `DependencyFault` if the process does not answer."""
        self._call("ping", deadline_s=_PING_S)

    def close(self) -> None:
        """End the process."""
        with self._lock:
            if self._process is not None:
                self._process.end()
                self._process = None

    def _call(self, method: str, *arguments: Any, deadline_s: float) -> Any:
        with self._lock:
            try:
                process = self._process or self._start()
            except StageStartError as error:
                # It has run before: what it needs is out, and no clip is to blame.
                raise DependencyFault(str(error)) from error
            try:
                return process.call(method, *arguments, deadline_s=deadline_s)
            except BaseException:
                # Whatever it sends next would be taken for the next call's answer.
                self.close()
                raise

    def _new_process(self) -> _Process:
        ray = sys.modules.get("ray")
        in_pool = ray is not None and ray.is_initialized()
        kind = RayProcess if in_pool else ChildProcess
        return kind(self._python, self._start_timeout_s)

    def _names(self) -> str:
        return ", ".join(name for name, *_ in self._wanted)


class ChildProcess:
    """A child of this process."""

    def __init__(self, python: Path, start_timeout_s: float) -> None:
        self._piped = PipedProcess(
            [str(python), "-P", "-c", _BOOT],
            [],
            environment={**allowed(os.environ), **_environment()},
            start_timeout_s=start_timeout_s,
            what=f"the process of {python}",
        )

    def call(self, method: str, *arguments: Any, deadline_s: float) -> Any:
        try:
            return self._piped.call((method, arguments), deadline_s)
        except ProcessEnded as ended:
            raise HostGone(
                _took_too_long(deadline_s) if ended.timed_out else f"ended ({ended.ending})"
            ) from None

    def end(self) -> None:
        self._piped.end()


class RayProcess:
    """An actor beside the actor that we are in."""

    def __init__(self, python: Path, start_timeout_s: float) -> None:
        """``start_timeout_s`` bounds the first call: an actor itself is made without waiting."""
        # In the pool alone: `cliplake try` does without Ray.
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor_class = ray.remote(OperatorHost).options(
            # It works while the actor that asks it waits, on the CPU that is reserved for that.
            num_cpus=0,
            # Whoever asks it has to know that it is a new one, which has no operators yet.
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=here,
            runtime_env={"py_executable": str(python), "env_vars": _environment()},
        )
        self._ray = ray
        self._actor = actor_class.remote()

    def call(self, method: str, *arguments: Any, deadline_s: float) -> Any:
        answer = getattr(self._actor, method).remote(*arguments)
        try:
            return self._ray.get(answer, timeout=deadline_s)
        except self._ray.exceptions.GetTimeoutError:
            raise HostGone(_took_too_long(deadline_s)) from None
        except self._ray.exceptions.RayError as error:
            raise HostGone(f"ended ({str(error).strip().splitlines()[0]})") from None

    def end(self) -> None:
        self._ray.kill(self._actor, no_restart=True)


def _environment() -> dict[str, str]:
    """Variables of the host: our modules and no others of ours, one thread, as for a decoder."""
    return {
        "PYTHONPATH": str(CHECKOUT),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # The workers' models have the GPU, and have been told how much of it is theirs.
        "CUDA_VISIBLE_DEVICES": "",
    }


def _took_too_long(deadline_s: float) -> str:
    return f"gave no answer within {deadline_s:.0f} s"
