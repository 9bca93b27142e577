"""Captions by a chat server: what is asked of it, with which key, and how it starts."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from processors.errors import DependencyFault, StageStartError
from processors.models import chat_server
from processors.models.openai_caption import DEFAULT_PROMPT
from tests.captioner import blamed, captions, clip, fault, stage_for, started, to_clips
from tests.chat_model import MODEL, Asked, ChatModel, describe, error
from tests.servers import answer, redirect, serve

KEY = "sk-very-secret-4711"


# What is asked.


def test_a_clip_is_one_request_with_the_prompt_and_its_frames_in_order(model: ChatModel) -> None:
    frames = np.stack([np.full((24, 32, 3), grey, np.uint8) for grey in (200, 30, 90)])
    with model.serving() as server:
        stage = started(model, server.url, prompt="What is it?", max_new_tokens=17)
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
        stage = started(model, server.url, horizontal_flip=True, vertical_flip=True)
        stage.run([{"caption_frames": frame[None]}])
        assert model.asked[0].prompt == DEFAULT_PROMPT
    picture = model.asked[0].pictures[0]
    assert picture[24, 24, 0] > 200
    assert picture[24, 24, 2] < 40
    assert picture[8, 8].max() < 40


def test_sampling_is_asked_for_only_where_the_recipe_samples(model: ChatModel) -> None:
    with model.serving() as server:
        captions(started(model, server.url), 50)
        captions(started(model, server.url, do_sample=True, temperature=0.7, top_p=0.9, seed=5), 50)
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
        found = captions(started(model, server.url, max_concurrency=4), 10, 20, 30, 40)
    assert found == [f"a grey of {grey}" for grey in (10, 20, 30, 40)]


def test_as_many_requests_as_allowed_are_under_way_and_never_more(model: ChatModel) -> None:
    together = threading.Barrier(3)

    def three_at_a_time(asked: Asked) -> object:
        together.wait(20)
        return describe(asked)

    model.reply = three_at_a_time
    with model.serving() as server:
        stage = started(model, server.url, max_concurrency=3)
        assert len(captions(stage, *range(10, 100, 10))) == 9
    assert model.most_at_once == 3


def test_a_server_that_does_not_count_tokens_leaves_the_number_open(model: ChatModel) -> None:
    model.reply = lambda asked: {**describe(asked), "usage": None}
    with model.serving() as server:
        (result,) = started(model, server.url).run([clip(50)])
    assert result == {"caption": "a grey of 50", "caption_tokens": None}


# The key.


def test_the_key_comes_from_its_variable_and_is_said_to_the_server_alone(
    model: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPLAKE_KEY_CAPTION", KEY)
    with model.serving() as server:
        captions(started(model, server.url, api_key_env="CLIPLAKE_KEY_CAPTION"), 50)
        assert {headers["Authorization"] for _, headers in server.requests} == {f"Bearer {KEY}"}
        captions(started(model, server.url), 50)
        assert "Authorization" not in server.requests[-1][1]


def test_a_server_that_repeats_the_key_in_its_error_does_not_make_us_repeat_it(
    model: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPLAKE_KEY_CAPTION", KEY)
    with model.serving() as server:
        stage = started(model, server.url, api_key_env="CLIPLAKE_KEY_CAPTION")
        for status in (400, 401):
            model.reply = to_clips(lambda asked, s=status: error(s, f"key {KEY} is wrong"))
            text = blamed(stage).error if status == 400 else fault(stage)
            assert "key *** is wrong" in text
            assert KEY not in text


def test_a_redirect_is_not_followed_and_its_target_sees_nothing(
    model: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPLAKE_KEY_CAPTION", KEY)
    with model.serving() as server, serve({}) as elsewhere:
        stage = started(model, server.url, api_key_env="CLIPLAKE_KEY_CAPTION")
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
        started(model, server.url, api_key_env="CLIPLAKE_KEY_CAPTION")
    assert f"CLIPLAKE_KEY_CAPTION, which {why}" in str(caught.value)
    assert server.requests == []


# The start.


def test_the_model_is_named_with_where_it_is_served(model: ChatModel) -> None:
    with model.serving() as server:
        stage = started(model, server.url)
        assert stage.model is not None
        assert stage.model.name == MODEL
        assert stage.model.revision == f"served by {server.url}, checkpoint /weights/tiny-vl"
        model.models = [{"id": MODEL}]
        assert started(model, server.url).model.revision == f"served by {server.url}"


def test_the_start_has_the_server_look_at_one_small_picture(model: ChatModel) -> None:
    with model.serving() as server:
        stage_for(server.url).setup()
    (asked,) = model.asked
    assert asked.is_probe
    assert [picture.shape for picture in asked.pictures] == [(64, 64, 3)]


def start_error(url: str, **parameters: object) -> str:
    stage = stage_for(url, **parameters)
    with pytest.raises(StageStartError) as caught:
        stage.setup()
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


@pytest.mark.parametrize("status", [400, 404, 413, 422, 500])
def test_a_server_that_takes_no_pictures_ends_the_start_in_its_own_words(
    model: ChatModel, status: int
) -> None:
    model.reply = lambda asked: error(status, "this model has no vision")
    with model.serving() as server:
        text = start_error(server.url)
    assert "stage caption: model tiny-vl does not caption a test picture: " in text
    assert f"it answered {status}: this model has no vision" in text


def test_a_model_that_is_served_no_more_fails_the_ping(model: ChatModel) -> None:
    with model.serving() as server:
        stage = started(model, server.url)
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


def test_a_clip_may_take_all_attempts_at_it_and_the_test_pictures() -> None:
    model = ChatModel()
    with model.serving() as server:
        stage = started(model, server.url, timeout_s=120, attempts=4)
    # Each attempt's last read may begin just before its time is over; pauses are of 30 s.
    assert stage.longest_s() == (4 * 240 + 3 * 30) + 2 * (2 * 240 + 30)
