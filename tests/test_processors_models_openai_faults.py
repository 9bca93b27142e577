"""Captions by a chat server: whom its failures are blamed on."""

from __future__ import annotations

import threading

import pytest

from processors.errors import DependencyFault, MediaError
from schemas.reasons import MediaReason
from tests.captioner import blamed, captions, clip, failing_first, fault, started, to_clips
from tests.chat_model import Asked, ChatModel, completion, describe, error
from tests.servers import Answer, answer, drip

# The server's faults.


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_server_that_has_trouble_for_a_moment_is_asked_again(
    model: ChatModel, status: int
) -> None:
    model.reply = failing_first(1, error(status, "not now", Retry_After="0"))
    with model.serving() as server:
        assert captions(started(model, server.url), 50) == ["a grey of 50"]
    assert len(model.asked) == 2


def test_an_answer_that_breaks_off_is_asked_for_again(model: ChatModel) -> None:
    model.reply = failing_first(1, lambda handler: answer(handler, 200, b"{", length=500))
    with model.serving() as server:
        assert captions(started(model, server.url), 50) == ["a grey of 50"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_stays_in_trouble_is_at_fault_and_no_clip(
    model: ChatModel, status: int
) -> None:
    model.reply = lambda asked: error(status, "queue is full")
    with model.serving() as server:
        text = fault(started(model, server.url, attempts=3))
        assert text.startswith(f"{server.url}: it answered {status}: queue is full")
    assert len(model.clips) == 3


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "api_key_env"), (403, "api_key_env"), (404, "/v1"), (405, "405")]
)
def test_a_server_that_will_not_have_us_is_asked_once(
    model: ChatModel, status: int, remedy: str
) -> None:
    model.reply = lambda asked: error(status, "no")
    with model.serving() as server:
        text = fault(started(model, server.url, attempts=5))
    assert f"it answered {status}: no" in text
    assert remedy in text
    assert len(model.asked) == 1


def test_a_server_that_went_away_is_at_fault(model: ChatModel) -> None:
    with model.serving() as server:
        stage = started(model, server.url)
    text = fault(stage)
    assert text.startswith(f"{server.url}: the connection failed")
    with pytest.raises(DependencyFault, match="the connection failed"):
        stage.ping()


@pytest.mark.parametrize("slow", [drip(0.05, 1000), lambda handler: threading.Event().wait(2)])
def test_a_server_that_takes_too_long_is_at_fault(model: ChatModel, slow: Answer) -> None:
    model.reply = lambda asked: slow
    with model.serving() as server:
        text = fault(started(model, server.url, timeout_s=0.3, attempts=1))
    assert "no answer within timeout_s (0.3 s)" in text


@pytest.mark.parametrize(
    ("junk", "shown"),
    [
        (b"<html>\x1b[31m\nhello", "<html> [31m hello"),
        (b'{"choices": []}', '{"choices": []}'),
        (b'{"choices": [{"message": {"content": "\\ud800"}}]}', "ud800"),
        (b"", "nothing"),
        (b"\xff" * 400, "\ufffd" * 300),
    ],
)
def test_answers_of_another_protocol_are_the_servers_fault(
    model: ChatModel, junk: bytes, shown: str
) -> None:
    model.reply = lambda asked: lambda handler: answer(handler, 200, junk)
    with model.serving() as server:
        text = fault(started(model, server.url))
    assert "not of the OpenAI protocol" in text
    assert shown in text
    assert len(text) < 500


def test_after_a_fault_the_rest_of_the_batch_is_not_asked(model: ChatModel) -> None:
    model.reply = lambda asked: error(401, "no")
    with model.serving() as server:
        fault(started(model, server.url, max_concurrency=1), *range(10, 250, 10))
    assert len(model.asked) < 24


# The clip's own errors.


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_clip_that_the_server_refuses_is_blamed_in_the_servers_words(
    model: ChatModel, status: int
) -> None:
    model.reply = to_clips(lambda asked: error(status, "too many\nimages " + "x" * 5000))
    with model.serving() as server:
        problem = blamed(started(model, server.url))
        assert problem.error.startswith(f"{server.url}: it answered {status}: too many images")
    assert problem.error.endswith("while it answers others")
    assert len(problem.error) < 500
    assert len(model.clips) == 1


@pytest.mark.parametrize("body", [b"plain words", b'{"detail": "plain words"}', b'"plain words"'])
def test_the_servers_words_are_found_in_other_errors_too(model: ChatModel, body: bytes) -> None:
    model.reply = to_clips(lambda asked: lambda handler: answer(handler, 400, body))
    with model.serving() as server:
        assert "it answered 400: " in blamed(started(model, server.url)).error
        assert "plain words" in blamed(started(model, server.url)).error


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (completion("half a", finish_reason="content_filter"), "content filter"),
        (completion(None, finish_reason="length"), "no text (finish_reason length)"),
        (completion("  \n"), "no text (finish_reason stop)"),
        (completion(None, refusal="I won't say"), "I won't say"),
    ],
)
def test_a_clip_without_a_caption_is_an_error_of_its_own(
    model: ChatModel, reply: dict[str, object], words: str
) -> None:
    model.reply = lambda asked: reply
    with model.serving() as server:
        assert words in blamed(started(model, server.url)).error


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (error(500, "assertion failed"), "it answered 500: assertion failed"),
        (drip(0.05, 1000), "no answer within timeout_s"),
        (lambda handler: answer(handler, 200, b" " * 1_000_000), "more than"),
    ],
)
def test_a_clip_that_a_server_fails_at_while_it_answers_others_is_blamed(
    model: ChatModel, failure: Answer, words: str
) -> None:
    model.reply = lambda asked: failure if asked.grey == 50 else describe(asked)
    with model.serving() as server:
        stage = started(model, server.url, timeout_s=1)
        problem = blamed(stage)
        assert words in problem.error
        assert problem.error.endswith("while it answers others")
        stage.ping()
        assert captions(stage, 60) == ["a grey of 60"]


def test_a_clip_without_frames_is_an_error_and_no_request(model: ChatModel) -> None:
    with model.serving() as server:
        (error,) = started(model, server.url).run([clip(50, frames=0)])
    assert isinstance(error, MediaError)
    assert error.reason is MediaReason.NO_FRAMES
    assert model.asked == []


def test_clips_beside_one_that_is_refused_have_their_captions_at_once(model: ChatModel) -> None:
    model.reply = lambda asked: error(400, "no") if asked.grey == 20 else describe(asked)
    with model.serving() as server:
        first, refused, last = started(model, server.url).run([clip(10), clip(20), clip(30)])
    assert isinstance(refused, MediaError)
    assert (first["caption"], last["caption"]) == ("a grey of 10", "a grey of 30")
    assert len(model.clips) == 3


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_server_that_refuses_a_test_picture_too_blames_no_clip_and_is_not_asked_on(
    model: ChatModel, status: int
) -> None:
    model.reply = lambda asked: error(status, "no such model any more")
    with model.serving() as server:
        stage = started(model, server.url, max_concurrency=1)
        text = fault(stage, *range(10, 250, 10))
    assert text == f"{server.url}: it answered {status}: no such model any more"
    assert len(model.clips) < 24


def test_what_a_clip_met_before_is_said_where_the_test_picture_meets_something_else(
    model: ChatModel,
) -> None:
    model.reply = lambda asked: error(*((503, "busy") if asked.is_probe else (400, "no vision")))
    with model.serving() as server:
        text = fault(started(model, server.url))
    assert text.endswith("it answered 503: busy; before that, it answered 400: no vision")


def test_many_refusals_cost_two_test_pictures_and_not_one_each(model: ChatModel) -> None:
    model.reply = to_clips(lambda asked: error(400, "no"))
    with model.serving() as server:
        stage = started(model, server.url, max_concurrency=2)
        results = stage.run([clip(grey) for grey in range(10, 250, 10)])
    assert all(isinstance(result, MediaError) for result in results)
    assert (len(model.clips), len(model.asked) - len(model.clips)) == (24, 2)


def test_a_server_that_breaks_in_the_middle_of_a_batch_blames_no_clip(model: ChatModel) -> None:
    def broken_from_the_second_probe(asked: Asked) -> object:
        first = sum(asked.is_probe for asked in model.asked) <= 1
        return describe(asked) if asked.is_probe and first else error(400, "no")

    model.reply = broken_from_the_second_probe
    with model.serving() as server:
        fault(started(model, server.url, max_concurrency=1), 10, 20, 30)
