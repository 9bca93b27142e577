"""Captions by a chat server: what is asked of it, and whom its failures are blamed on."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from processors.errors import DependencyFault, MediaError, StageStartError
from processors.frames import FrameSampling
from processors.models import chat_server
from processors.models.openai_caption import DEFAULT_PROMPT, OpenAiCaptionStage
from processors.stage import Sample
from schemas.operators import CaptionFromVideo
from schemas.reasons import MediaReason
from tests.chat_model import MODEL, Asked, ChatModel, completion, describe, error
from tests.servers import Answer, answer, drip, redirect, serve

KEY = "sk-very-secret-4711"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_server, "_FIRST_WAIT_S", 0.01)


@pytest.fixture
def model() -> Iterator[ChatModel]:
    model = ChatModel()
    yield model
    assert model.wrong == []


def stage_for(url: str, **parameters: object) -> OpenAiCaptionStage:
    values: dict[str, object] = {
        "engine": "openai",
        "base_url": url,
        "model": MODEL,
        "attempts": 2,
        "timeout_s": 20,
    }
    operator = CaptionFromVideo.model_validate(values | parameters)
    return OpenAiCaptionStage(operator, FrameSampling("uniform", 3), "upright")


def started(url: str, **parameters: object) -> OpenAiCaptionStage:
    stage = stage_for(url, **parameters)
    stage.setup()
    return stage


def clip(grey: int, frames: int = 2) -> Sample:
    return {"caption_frames": np.full((frames, 24, 32, 3), grey, np.uint8)}


def captions(stage: OpenAiCaptionStage, *greys: int) -> list[str]:
    results = stage.run([clip(grey) for grey in greys])
    assert not [result for result in results if isinstance(result, MediaError)]
    return [result["caption"] for result in results]


def blamed(stage: OpenAiCaptionStage, grey: int = 50) -> MediaError:
    (error,) = stage.run([clip(grey)])
    assert isinstance(error, MediaError)
    assert error.reason is MediaReason.STAGE_ERROR
    assert error.stage == "caption"
    return error


def fault(stage: OpenAiCaptionStage, *greys: int) -> str:
    with pytest.raises(DependencyFault) as caught:
        captions(stage, *(greys or (50,)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def failing_first(times: int, failure: Answer) -> object:
    left = [times]

    def reply(asked: Asked) -> object:
        left[0] -= 1
        return failure if left[0] >= 0 else describe(asked)

    return reply


# What is asked.


def test_a_clip_is_one_request_with_the_prompt_and_its_frames_in_order(model: ChatModel) -> None:
    frames = np.stack([np.full((24, 32, 3), grey, np.uint8) for grey in (200, 30, 90)])
    with model.serving() as server:
        stage = started(server.url, prompt="What is it?", max_new_tokens=17)
        (result,) = stage.run([{"caption_frames": frames}])
    assert result == {"caption": "a grey of 200", "caption_tokens": 4}
    (asked,) = model.asked
    assert asked.prompt == "What is it?"
    assert [round(float(picture.mean())) for picture in asked.pictures] == [200, 30, 90]
    assert asked.pictures[0].shape == (24, 32, 3)
    assert asked.body["max_tokens"] == 17
    assert asked.body["temperature"] == 0


def test_colours_and_sides_of_a_frame_arrive_as_the_recipe_wants_them(model: ChatModel) -> None:
    frame = np.zeros((32, 32, 3), np.uint8)
    frame[:16, :16] = (250, 0, 0)
    with model.serving() as server:
        stage = started(server.url, horizontal_flip=True, vertical_flip=True)
        stage.run([{"caption_frames": frame[None]}])
        assert model.asked[0].prompt == DEFAULT_PROMPT
    picture = model.asked[0].pictures[0]
    assert picture[24, 24, 0] > 200
    assert picture[24, 24, 2] < 40
    assert picture[8, 8].max() < 40


def test_sampling_is_asked_for_only_where_the_recipe_samples(model: ChatModel) -> None:
    with model.serving() as server:
        captions(started(server.url), 50)
        captions(started(server.url, do_sample=True, temperature=0.7, top_p=0.9, seed=5), 50)
    plain, sampled = (asked.body for asked in model.asked)
    assert not {"top_p", "seed"} & set(plain)
    assert (sampled["temperature"], sampled["top_p"], sampled["seed"]) == (0.7, 0.9, 5)


def test_captions_come_in_the_order_of_the_clips_whatever_is_answered_first(
    model: ChatModel,
) -> None:
    others = threading.Semaphore(0)

    def first_one_last(asked: Asked) -> object:
        if asked.grey == 10:
            assert all(others.acquire(timeout=20) for _ in range(3))
        else:
            others.release()
        return describe(asked)

    model.reply = first_one_last
    with model.serving() as server:
        found = captions(started(server.url, max_concurrency=4), 10, 20, 30, 40)
    assert found == [f"a grey of {grey}" for grey in (10, 20, 30, 40)]


def test_as_many_requests_as_allowed_are_under_way_and_never_more(model: ChatModel) -> None:
    together = threading.Barrier(3)

    def three_at_a_time(asked: Asked) -> object:
        together.wait(20)
        return describe(asked)

    model.reply = three_at_a_time
    with model.serving() as server:
        stage = started(server.url, max_concurrency=3)
        assert len(captions(stage, *range(10, 100, 10))) == 9
    assert model.most_at_once == 3


def test_a_server_that_does_not_count_tokens_leaves_the_number_open(model: ChatModel) -> None:
    model.reply = lambda asked: {**describe(asked), "usage": None}
    with model.serving() as server:
        (result,) = started(server.url).run([clip(50)])
    assert result == {"caption": "a grey of 50", "caption_tokens": None}


# The key.


def test_the_key_comes_from_its_variable_and_is_said_to_the_server_alone(
    model: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPLAKE_KEY_CAPTION", KEY)
    with model.serving() as server:
        captions(started(server.url, api_key_env="CLIPLAKE_KEY_CAPTION"), 50)
        assert {headers["Authorization"] for _, headers in server.requests} == {f"Bearer {KEY}"}
        captions(started(server.url), 50)
        assert "Authorization" not in server.requests[-1][1]


def test_a_server_that_repeats_the_key_in_its_error_does_not_make_us_repeat_it(
    model: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPLAKE_KEY_CAPTION", KEY)
    with model.serving() as server:
        stage = started(server.url, api_key_env="CLIPLAKE_KEY_CAPTION")
        for status in (400, 401):
            model.reply = lambda asked, status=status: error(status, f"key {KEY} is wrong")
            text = blamed(stage).error if status == 400 else fault(stage)
            assert "key *** is wrong" in text
            assert KEY not in text


def test_a_redirect_is_not_followed_and_its_target_sees_nothing(
    model: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPLAKE_KEY_CAPTION", KEY)
    with model.serving() as server, serve({}) as elsewhere:
        stage = started(server.url, api_key_env="CLIPLAKE_KEY_CAPTION")
        for status in (301, 302, 307, 308):
            model.reply = lambda asked, status=status: redirect(f"{elsewhere.url}/v1?k=v", status)
            text = fault(stage)
            assert f"it redirects to {elsewhere.url}/v1" in text
            assert "base_url" in text
            assert KEY not in text
        assert elsewhere.requests == []


@pytest.mark.parametrize(("key", "why"), [("", "is not set"), ("a\nb", "holds no key")])
def test_a_key_that_is_not_there_ends_the_start(
    model: ChatModel, monkeypatch: pytest.MonkeyPatch, key: str, why: str
) -> None:
    monkeypatch.setenv("CLIPLAKE_KEY_CAPTION", key)
    with model.serving() as server, pytest.raises(StageStartError) as caught:
        started(server.url, api_key_env="CLIPLAKE_KEY_CAPTION")
    assert f"CLIPLAKE_KEY_CAPTION, which {why}" in str(caught.value)
    assert server.requests == []


# The server's faults.


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_server_that_has_trouble_for_a_moment_is_asked_again(
    model: ChatModel, status: int
) -> None:
    model.reply = failing_first(1, error(status, "not now", Retry_After="0"))
    with model.serving() as server:
        assert captions(started(server.url), 50) == ["a grey of 50"]
    assert len(model.asked) == 2


def test_an_answer_that_breaks_off_is_asked_for_again(model: ChatModel) -> None:
    model.reply = failing_first(1, lambda handler: answer(handler, 200, b"{", length=500))
    with model.serving() as server:
        assert captions(started(server.url), 50) == ["a grey of 50"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_stays_in_trouble_is_at_fault_and_no_clip(
    model: ChatModel, status: int
) -> None:
    model.reply = lambda asked: error(status, "queue is full")
    with model.serving() as server:
        text = fault(started(server.url, attempts=3))
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
        text = fault(started(server.url, attempts=5))
    assert f"it answered {status}: no" in text
    assert remedy in text
    assert len(model.asked) == 1


def test_a_server_that_went_away_is_at_fault(model: ChatModel) -> None:
    with model.serving() as server:
        stage = started(server.url)
    text = fault(stage)
    assert text.startswith(f"{server.url}: the connection failed")
    with pytest.raises(DependencyFault, match="the connection failed"):
        stage.ping()


@pytest.mark.parametrize("slow", [drip(0.05, 1000), lambda handler: threading.Event().wait(2)])
def test_a_server_that_takes_too_long_is_at_fault(model: ChatModel, slow: Answer) -> None:
    model.reply = lambda asked: slow
    with model.serving() as server:
        text = fault(started(server.url, timeout_s=0.3, attempts=1))
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
        text = fault(started(server.url))
    assert "not of the OpenAI protocol" in text
    assert shown in text
    assert len(text) < 500


def test_after_a_fault_the_rest_of_the_batch_is_not_asked(model: ChatModel) -> None:
    model.reply = lambda asked: error(401, "no")
    with model.serving() as server:
        fault(started(server.url, max_concurrency=1), *range(10, 250, 10))
    assert len(model.asked) < 24


# The clip's own errors.


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_clip_that_the_server_refuses_is_blamed_in_the_servers_words(
    model: ChatModel, status: int
) -> None:
    model.reply = lambda asked: error(status, "too many\nimages " + "x" * 5000)
    with model.serving() as server:
        problem = blamed(started(server.url))
        assert problem.error.startswith(f"{server.url}: it answered {status}: too many images")
    assert len(problem.error) < 500
    assert len(model.asked) == 1


@pytest.mark.parametrize("body", [b"plain words", b'{"detail": "plain words"}', b'"plain words"'])
def test_the_servers_words_are_found_in_other_errors_too(model: ChatModel, body: bytes) -> None:
    model.reply = lambda asked: lambda handler: answer(handler, 400, body)
    with model.serving() as server:
        assert "it answered 400: " in blamed(started(server.url)).error
        assert "plain words" in blamed(started(server.url)).error


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
        assert words in blamed(started(server.url)).error


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
        stage = started(server.url, timeout_s=1)
        problem = blamed(stage)
        assert words in problem.error
        assert problem.error.endswith("while it answers others")
        stage.ping()
        assert captions(stage, 60) == ["a grey of 60"]


def test_a_clip_without_frames_is_an_error_and_no_request(model: ChatModel) -> None:
    with model.serving() as server:
        (error,) = started(server.url).run([clip(50, frames=0)])
    assert isinstance(error, MediaError)
    assert error.reason is MediaReason.NO_FRAMES
    assert model.asked == []


def test_clips_beside_one_that_is_refused_have_their_captions_at_once(model: ChatModel) -> None:
    model.reply = lambda asked: error(400, "no") if asked.grey == 20 else describe(asked)
    with model.serving() as server:
        first, refused, last = started(server.url).run([clip(10), clip(20), clip(30)])
    assert isinstance(refused, MediaError)
    assert (first["caption"], last["caption"]) == ("a grey of 10", "a grey of 30")
    assert len(model.asked) == 3


# The start.


def test_the_model_is_named_with_where_it_is_served(model: ChatModel) -> None:
    with model.serving() as server:
        stage = started(server.url)
        assert stage.model is not None
        assert stage.model.name == MODEL
        assert stage.model.revision == f"served by {server.url}, checkpoint /weights/tiny-vl"
        model.models = [{"id": MODEL}]
        assert started(server.url).model.revision == f"served by {server.url}"
    assert model.asked == [], "the start asks for no caption"


def start_error(url: str, **parameters: object) -> str:
    with pytest.raises(StageStartError) as caught:
        started(url, **parameters)
    text = str(caught.value)
    assert "\n" not in text
    assert url in text
    assert MODEL in text
    return text


def test_a_model_that_is_not_served_ends_the_start_with_the_nearest_one(model: ChatModel) -> None:
    model.models = [{"id": "tiny-v1"}, {"id": "other"}]
    with model.serving() as server:
        text = start_error(server.url)
    assert "does not serve 'tiny-vl'; did you mean 'tiny-v1'?" in text


def test_a_server_that_is_not_there_ends_the_start(model: ChatModel) -> None:
    with model.serving() as server:
        pass
    assert "the connection failed" in start_error(server.url)


def test_another_path_ends_the_start_with_how_it_usually_is(model: ChatModel) -> None:
    with model.serving() as server:
        text = start_error(server.url.removesuffix("/v1"))
    assert "it answered 404: absent" in text
    assert "usually ends in /v1" in text


def test_a_list_of_models_that_is_none_ends_the_start(model: ChatModel) -> None:
    model.models = lambda handler: answer(handler, 200, b"hello")
    with model.serving() as server:
        assert "not of the OpenAI protocol: hello" in start_error(server.url)


def test_a_model_that_is_served_no_more_fails_the_ping(model: ChatModel) -> None:
    with model.serving() as server:
        stage = started(server.url)
        stage.ping()
        model.models = []
        with pytest.raises(DependencyFault, match="does not serve 'tiny-vl'"):
            stage.ping()


def test_nothing_is_asked_before_setup() -> None:
    with pytest.raises(RuntimeError, match="setup has not been called"):
        stage_for("http://127.0.0.1:1/v1").ping()


@pytest.mark.parametrize(
    ("header", "seconds"), [(None, 0), ("7", 7), ("9999", 30), ("-1", 0), ("Wed, 21 Oct", 0)]
)
def test_a_server_may_ask_for_a_pause_of_bounded_length(header: str | None, seconds: float) -> None:
    assert chat_server._seconds(header) == seconds
