"""A server that speaks the OpenAI chat protocol: asking it, and whose fault it is if it fails.

It knows no clip and no caption; `processors.models.openai_caption` does. A request is answered
(`Answer`), refused for what it holds (`InputRefused`), or not answered, which is the server's
fault (`DependencyFault`). Whether a server that refuses a request would refuse all of them is
found out in
`processors.models.refusals`. No redirect is followed, so that the key goes to no other place.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import urllib3
from pydantic import BaseModel, Field, ValidationError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential_jitter,
)
from urllib3.exceptions import HTTPError

from processors.errors import DependencyFault
from processors.fetch_problem import redact

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
"""Also of what a server asks for with Retry-After: longer, and the pool had better pause."""
PROBE_ATTEMPTS = 2
"""The connection that it goes over may have been left open for long, and be closed by then."""
_MAX_LIST_BYTES = 4 << 20
_MAX_ERROR_BYTES = 1 << 16
_MAX_WORDS = 300
_CHUNK = 1 << 16

_ABOUT_THE_INPUT = frozenset({400, 413, 422})
_WORTH_RETRYING = frozenset({408, 425, 429})
_REMEDIES = {
    401: "it does not take the key; see api_key_env",
    403: "it does not let this key in; see api_key_env",
    404: "it has no such path or no such model; base_url usually ends in /v1",
}

_Document = TypeVar("_Document", bound=BaseModel)


class InputRefused(Exception):
    """The server cannot or will not answer this very request; the text holds its words."""

    def __init__(self, text: str, *, perhaps_any: bool = False) -> None:
        super().__init__(text)
        self.perhaps_any = perhaps_any
        """Whether it may be that it answers no request at all."""


@dataclass(frozen=True)
class Answer:
    """What the server wrote."""

    text: str
    tokens: int | None
    """``usage.completion_tokens``; None from a server that does not count."""


class ServedModel(BaseModel):
    """An entry of the list of models."""

    id: str
    root: str | None = None
    """The checkpoint that the name stands for; an addition of vLLM's."""


class _Models(BaseModel):
    data: list[ServedModel]


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    completion_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None


class _Completion(BaseModel):
    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _Usage | None = None


class ServerProblem(Exception):
    """One attempt failed, by the server's fault as far as can be seen."""

    def __init__(
        self,
        text: str,
        *,
        retryable: bool = False,
        wait_s: float = 0.0,
        perhaps_the_input: bool = False,
    ) -> None:
        super().__init__(text)
        self.retryable = retryable
        self.wait_s = wait_s
        """How long the server wants to be left alone."""
        self.perhaps_the_input = perhaps_the_input
        """Whether a request with other content may be answered all the same."""


class ChatServer:
    """One server, for several threads at a time."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        *,
        timeout_s: float,
        attempts: int,
        connections: int,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._key = api_key
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._pool = urllib3.PoolManager(
            maxsize=connections, ssl_context=ssl.create_default_context(), retries=False
        )

    def longest_s(self, attempts: int) -> float:
        """Seconds that a request with so many attempts may take at most."""
        # The last read of an attempt may begin just before its time is over.
        return attempts * 2 * self._timeout_s + (attempts - 1) * _LONGEST_WAIT_S

    def models(self) -> list[ServedModel]:
        """The models that it serves. `DependencyFault` if it does not say."""
        try:
            return self._persistently(
                self._attempts,
                lambda: self._once("GET", "/models", None, _Models, _MAX_LIST_BYTES),
            ).data
        except (ServerProblem, InputRefused) as problem:
            raise self._fault(problem) from None

    def complete(self, request: dict[str, Any], *, max_bytes: int) -> Answer:
        """The answer to a chat request, of at most ``max_bytes``.

        `InputRefused` if none comes and the request's content may be why, `DependencyFault` if
        that is not why. What the first means is said by whether the server answers other requests.
        """
        try:
            return self._read(self._chat(request, max_bytes, self._attempts))
        except ServerProblem as problem:
            if problem.perhaps_the_input:
                raise InputRefused(str(problem), perhaps_any=True) from None
            raise self._fault(problem) from None

    def try_out(self, probe: dict[str, Any], *, max_bytes: int) -> None:
        """Have the server answer a small request that any can answer; what it says is not read.

        `DependencyFault` if it does not.
        """
        try:
            self._chat(probe, max_bytes, PROBE_ATTEMPTS)
        except (ServerProblem, InputRefused) as problem:
            raise self._fault(problem) from None

    def _chat(self, request: dict[str, Any], max_bytes: int, attempts: int) -> _Completion:
        return self._persistently(
            attempts,
            lambda: self._once("POST", "/chat/completions", request, _Completion, max_bytes),
        )

    def _read(self, completion: _Completion) -> Answer:
        choice = completion.choices[0]
        message, reason = choice.message, choice.finish_reason
        if reason == "content_filter":
            raise InputRefused("its content filter stopped the answer")
        text = (message.content or "").strip()
        if not text:
            words = f": {self._words(message.refusal)}" if message.refusal else ""
            raise InputRefused(f"it gave no text (finish_reason {self._words(reason)}){words}")
        return Answer(text, completion.usage.completion_tokens if completion.usage else None)

    def _persistently(self, attempts: int, once: Callable[[], _Document]) -> _Document:
        retrying: Callable[..., _Document] = Retrying(
            stop=stop_after_attempt(attempts),
            wait=_wait,
            retry=retry_if_exception(lambda e: isinstance(e, ServerProblem) and e.retryable),
            reraise=True,
        )
        return retrying(once)

    def _once(
        self,
        method: str,
        path: str,
        request: dict[str, Any] | None,
        kind: type[_Document],
        max_bytes: int,
    ) -> _Document:
        """One attempt, in about ``timeout_s`` from the connection to the last byte."""
        deadline = time.monotonic() + self._timeout_s
        headers = {"User-Agent": "cliplake", "Accept-Encoding": "identity"}
        if request is not None:
            headers["Content-Type"] = "application/json"
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            response = self._pool.request(
                method,
                self._base_url + path,
                body=None if request is None else json.dumps(request).encode(),
                headers=headers,
                redirect=False,
                timeout=urllib3.Timeout(total=self._timeout_s),
                preload_content=False,
            )
            # Closes the connection, unless all was read and it went back to the others.
            with contextlib.closing(response):
                if response.status != 200:
                    raise self._refused(response, self._body(response, _MAX_ERROR_BYTES, deadline))
                body = self._body(response, max_bytes, deadline)
        except (OSError, HTTPError) as error:
            raise self._broken(error) from None
        if len(body) > max_bytes:
            raise ServerProblem(
                f"its answer has more than {max_bytes} bytes", perhaps_the_input=True
            )
        try:
            return kind.model_validate_json(body)
        except ValidationError:
            raise ServerProblem(
                "what it answered is not of the OpenAI protocol: "
                f"{self._words(body.decode(errors='replace')) or 'nothing'}",
                retryable=True,
                perhaps_the_input=True,
            ) from None

    def _body(self, response: urllib3.BaseHTTPResponse, max_bytes: int, deadline: float) -> bytes:
        """The body; of a longer one than ``max_bytes`` a little more than those."""
        body = b""
        while len(body) <= max_bytes and (chunk := response.read1(_CHUNK)):
            body += chunk
            # Socket timeouts count from byte to byte: one that drips would never end.
            if time.monotonic() > deadline:
                raise self._too_slow()
        return body

    def _broken(self, error: Exception) -> ServerProblem:
        # urllib3 counts a refused connection among its timeouts.
        if isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError) and not isinstance(
            error, urllib3.exceptions.NewConnectionError
        ):
            return self._too_slow()
        return ServerProblem(
            f"the connection failed: {type(error).__name__}: {self._words(str(error))}",
            retryable=True,
        )

    def _too_slow(self) -> ServerProblem:
        return ServerProblem(
            f"no answer within timeout_s ({self._timeout_s:g} s)",
            retryable=True,
            perhaps_the_input=True,
        )

    def _refused(self, response: urllib3.BaseHTTPResponse, body: bytes) -> Exception:
        """What an answer other than 200 means."""
        status = response.status
        said = self._words(_message(body))
        answered = f"it answered {status}" + (f": {said}" if said else "")
        if status in _ABOUT_THE_INPUT:
            return InputRefused(answered, perhaps_any=True)
        if 300 <= status < 400:
            target = redact(response.headers.get("Location") or "")
            return ServerProblem(
                f"it redirects to {self._words(target)}, and redirects are not followed; "
                "set base_url to where the API is"
            )
        if status in _REMEDIES:
            answered = f"{answered} ({_REMEDIES[status]})"
        return ServerProblem(
            answered,
            retryable=status >= 500 or status in _WORTH_RETRYING,
            wait_s=_seconds(response.headers.get("Retry-After")),
            perhaps_the_input=status >= 500,
        )

    def _words(self, text: str | None) -> str:
        """Words of the server's on one short line, without the key if it said that."""
        text = text or ""
        if self._key:
            text = text.replace(self._key, "***")
        line = "".join(c if c.isprintable() else " " for c in text)
        return " ".join(line.split())[:_MAX_WORDS]

    def _fault(self, problem: Exception) -> DependencyFault:
        return DependencyFault(f"{self._base_url}: {problem}")


def _message(body: bytes) -> str:
    """The sentence in an error's body, or all of it if there is none to be found."""
    text = body.decode(errors="replace")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for key in ("error", "message", "detail"):
        if isinstance(document, dict) and document.get(key):
            document = document[key]
    return document if isinstance(document, str) else text


def _seconds(retry_after: str | None) -> float:
    """Of a Retry-After header; dates, which no such server sends, count as none."""
    text = (retry_after or "").strip()
    return min(float(text), _LONGEST_WAIT_S) if text.isascii() and text.isdigit() else 0.0


def _wait(state: RetryCallState) -> float:
    """Jittered, so that the requests of a batch that failed together do not come back together."""
    jittered = wait_exponential_jitter(
        multiplier=_FIRST_WAIT_S, jitter=_FIRST_WAIT_S, max=_LONGEST_WAIT_S
    )(state)
    problem = state.outcome.exception() if state.outcome else None
    asked = problem.wait_s if isinstance(problem, ServerProblem) else 0.0
    return max(jittered, asked)
