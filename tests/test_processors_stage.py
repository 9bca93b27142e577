"""The stage shape refuses a wrong definition at once, and checks both sides of its promise."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from processors.stage import Resources, Sample, Stage


class Doubling(Stage):
    name = "doubling"
    resources = Resources(cpus=0.5)
    batch_size = 4

    def inputs(self) -> tuple[str, ...]:
        return ("number",)

    def outputs(self) -> tuple[str, ...]:
        return ("double",)

    def process(self, batch: Sequence[Sample]) -> list[Sample]:
        return [{"double": 2 * sample["number"]} for sample in batch]


def test_a_stage_turns_a_batch_into_a_batch() -> None:
    assert Doubling().run([{"number": 1}, {"number": 4}]) == [{"double": 2}, {"double": 8}]


def test_defaults_are_harmless() -> None:
    stage = Doubling()
    stage.setup()
    stage.ping()
    assert stage.frames() is None
    assert stage.model is None


@pytest.mark.parametrize("name", ["", "Face Blur", "face-blur", 7, None])
def test_a_name_that_is_no_label_fails_where_the_class_is_defined(name: object) -> None:
    with pytest.raises(TypeError, match=r"name is .*; give it a class value like"):
        type("Wrong", (Doubling,), {"name": name})


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "8"])
def test_a_wrong_batch_size_fails_where_the_class_is_defined(size: object) -> None:
    with pytest.raises(TypeError, match=r"batch_size is .* integer from 1 on"):
        type("Wrong", (Doubling,), {"batch_size": size})


def test_wrong_resources_fail_where_the_class_is_defined() -> None:
    with pytest.raises(TypeError, match="use Resources"):
        type("Wrong", (Doubling,), {"resources": {"cpus": 1}})
    with pytest.raises(TypeError, match="negative"):
        type("Wrong", (Doubling,), {"resources": Resources(gpus=-1)})


def test_a_stage_without_its_methods_says_which_are_missing() -> None:
    with pytest.raises(TypeError, match="define inputs, outputs, process"):
        type("Wrong", (Stage,), {"name": "wrong"})


def test_an_intermediate_class_may_leave_the_methods_to_others() -> None:
    base = type("Base", (Stage,), {})
    assert issubclass(base, Stage)


def test_a_sample_without_an_input_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="stage doubling: a sample lacks number"):
        Doubling().run([{"digit": 1}])


def test_a_result_too_few_is_noticed() -> None:
    class Losing(Doubling):
        def process(self, batch: Sequence[Sample]) -> list[Sample]:
            return super().process(batch)[1:]

    with pytest.raises(ValueError, match="2 samples in, 1 out"):
        Losing().run([{"number": 1}, {"number": 2}])


def test_a_result_without_an_output_is_noticed() -> None:
    class Forgetting(Doubling):
        def process(self, batch: Sequence[Sample]) -> list[Sample]:
            return [{} for _ in batch]

    with pytest.raises(ValueError, match="a result lacks double"):
        Forgetting().run([{"number": 1}])
