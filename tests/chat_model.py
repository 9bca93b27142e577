"""A server for tests that speaks the OpenAI chat protocol, and holds its clients to it."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import cv2
import numpy as np

from tests.servers import Answer, Served, answer, serve

MODEL = "tiny-vl"
_KEYS = {"model", "messages", "max_tokens", "temperature", "top_p", "seed"}
_DATA_URL = "data:image/jpeg;base64,"


@dataclass
class Asked:
    """One chat request, taken apart."""

    body: dict[str, Any]
    prompt: str
    pictures: list[np.ndarray]
    """uint8 RGB ``[h, w, 3]``."""

    @property
    def grey(self) -> int:
        """Mean of the first picture, to the next ten: by it tests tell their clips apart."""
        return round(float(self.pictures[0].mean()) / 10) * 10

    @property
    def is_probe(self) -> bool:
        return self.body["max_tokens"] == 1


Reply = Callable[[Asked], Any]
"""The document to answer with, or an `Answer` that writes something else."""


def completion(text: str | None, *, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    """A whole answer, with as many tokens as words."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, **message},
                "finish_reason": finish_reason,
            }
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": len((text or "").split())},
    }


def describe(asked: Asked) -> dict[str, Any]:
    return completion(f"a grey of {asked.grey}")


def error(status: int, words: str, **headers: str) -> Answer:
    """An error as the protocol has it."""
    body = json.dumps({"error": {"message": words, "type": "x", "code": None}}).encode()
    return lambda handler: answer(handler, status, body, **headers)


@dataclass
class ChatModel:
    """What the server does and has seen."""

    reply: Reply = describe
    models: Answer | list[dict[str, Any]] = field(
        default_factory=lambda: [{"id": MODEL, "object": "model", "root": "/weights/tiny-vl"}]
    )
    asked: list[Asked] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """What was asked against the protocol."""
    most_at_once: int = 0
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def clips(self) -> list[Asked]:
        """The requests that were no probes."""
        return [asked for asked in self.asked if not asked.is_probe]

    @contextlib.contextmanager
    def serving(self) -> Iterator[Served]:
        pages = {"/v1/models": self._models, "/v1/chat/completions": self._chat}
        with serve(pages) as served:
            served.url += "/v1"
            yield served

    def _models(self, handler: BaseHTTPRequestHandler) -> None:
        if callable(self.models):
            self.models(handler)
        else:
            _document(handler, {"object": "list", "data": self.models})

    def _chat(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            asked = _take_apart(json.loads(body))
            with self._lock:
                self.asked.append(asked)
            reply = self.reply(asked)
        except Exception as problem:
            self.wrong.append(repr(problem))
            reply = error(400, repr(problem))
        finally:
            # Before the answer is out: the next request may be here before this line otherwise.
            with self._lock:
                self._at_once -= 1
        if callable(reply):
            reply(handler)
        else:
            _document(handler, reply)


def _document(handler: BaseHTTPRequestHandler, document: Any) -> None:
    answer(handler, 200, json.dumps(document).encode(), Content_Type="application/json")


def _take_apart(body: dict[str, Any]) -> Asked:
    assert set(body) <= _KEYS
    assert body["model"] == MODEL
    assert isinstance(body["max_tokens"], int)
    assert 0 <= body["temperature"] <= 2
    (message,) = body["messages"]
    assert set(message) == {"role", "content"}
    assert message["role"] == "user"
    texts, pictures = [], []
    for part in message["content"]:
        if part["type"] == "text":
            assert set(part) == {"type", "text"}
            texts.append(part["text"])
        else:
            assert set(part) == {"type", "image_url"}
            assert part["type"] == "image_url"
            url = part["image_url"]["url"]
            assert url.startswith(_DATA_URL)
            data = base64.b64decode(url.removeprefix(_DATA_URL), validate=True)
            bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            pictures.append(bgr[:, :, ::-1])
    assert pictures
    (prompt,) = texts
    return Asked(body, prompt, pictures)
