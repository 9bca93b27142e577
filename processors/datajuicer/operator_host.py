"""Runs operators of DataJuicer, called directly, one clip after the other.

Lives in DataJuicer's own environment, in a process of its own, where few of our packages are:
it imports nothing but Python's and DataJuicer's, and speaks in dicts, lists and text. What it
is asked by is in `processors.datajuicer.hosts`.
"""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from processors.datajuicer.guards import forbid_installs_and_fetches, refuse_install
from processors.datajuicer.modality import Modality, reads_of, refusal_of
from processors.datajuicer.reduction import as_json, plain, sort_out

_LONGEST_ERROR = 2000
"""Characters of an error's text; some libraries put whole files into theirs."""
_Row = dict[str, Any]


class OperatorHost:
    """Holds the operators of one recipe. No method raises: errors go as text."""

    def __init__(self) -> None:
        self._operators: dict[str, _Hosted] = {}

    def start(self, wanted: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
        """Build operators from names and parameters, with their models loaded.

        Gives ``error``, None if all went well, ``version`` of DataJuicer, and by operator what
        it is: ``filter``, ``batched``, ``reads`` (of video, frames and text).
        """
        try:
            forbid_installs_and_fetches()
            version = _import_datajuicer()
        except Exception as error:
            return {"error": f"DataJuicer cannot be imported: {_text(error)}"}
        for name, parameters in wanted:
            try:
                self._operators[name] = _Hosted(name, parameters)
            except Exception as error:
                return {"error": f"operator {name} cannot start: {_text(error)}"}
        described = {name: hosted.describe() for name, hosted in self._operators.items()}
        return {"error": None, "version": version, "operators": described}

    def run(self, name: str, clips: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """An answer a clip, in order.

        A clip has ``video`` (a path), ``frames`` (paths) and ``text`` where the operator reads
        them. An answer has ``error`` (text or None; ``environment`` says that it is no clip's) and,
        without one, ``stats`` (numbers by
        name), ``outputs`` (JSON text by name), ``keep`` (None of a mapper) and ``text`` (None
        where it is as it was).
        """
        return self._operators[name].run(clips)

    def ping(self) -> bool:
        """Answers, if anything does."""
        return True


class _Hosted:
    """One operator, and how it is called."""

    def __init__(self, name: str, parameters: Mapping[str, Any]) -> None:
        from data_juicer.ops import OPERATORS, Filter
        from data_juicer.utils.constant import Fields

        kind = OPERATORS.modules.get(name)
        if kind is None:
            raise ValueError("DataJuicer has no operator of this name")
        reason = refusal_of(kind)
        if reason is not None:
            raise ValueError(reason)
        # Its errors are what a clip is failed with; skipped, they would drop it without a word.
        self._operator = kind(**{**copy.deepcopy(dict(parameters)), "skip_op_error": False})
        self._reads = reads_of(kind)
        self._is_filter = issubclass(kind, Filter)
        self._batched = bool(self._operator.is_batched_op())
        self._fields = Fields
        _load_models(self._operator)

    def describe(self) -> dict[str, Any]:
        return {
            "filter": self._is_filter,
            "batched": self._batched,
            "reads": sorted(medium.value for medium in self._reads),
        }

    def run(self, clips: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        if self._batched and len(clips) > 1:
            try:
                return self._batch(clips)
            except Exception:
                # One of them is to blame, and only that one: each for itself.
                pass
        return [self._alone(clip) for clip in clips]

    def _alone(self, clip: Mapping[str, Any]) -> dict[str, Any]:
        try:
            if self._batched:
                (answer,) = self._batch([clip])
                return answer
            row = self._row(clip)
            before = copy.deepcopy(row)
            if not self._is_filter:
                return self._changes(before, self._operator.process(row))
            row = self._operator.compute_stats(row)
            return self._verdict(row, self._operator.process(row))
        except Exception as error:
            # What the environment lacks, it lacks for every clip.
            return {"error": _text(error), "environment": isinstance(error, ImportError)}

    def _batch(self, clips: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        rows = [self._row(clip) for clip in clips]
        before = copy.deepcopy(rows)
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        if not self._is_filter:
            changed = _as_rows(self._operator.process(columns), len(rows))
            return [self._changes(old, new) for old, new in zip(before, changed, strict=True)]
        columns = self._operator.compute_stats(columns)
        keeps = list(self._operator.process(columns))
        measured = _as_rows(columns, len(rows))
        return [self._verdict(row, keep) for row, keep in zip(measured, keeps, strict=True)]

    def _row(self, clip: Mapping[str, Any]) -> _Row:
        """A clip as a sample of DataJuicer's, under the keys that the operator looks for."""
        from data_juicer.utils.mm_utils import SpecialTokens

        operator, reads = self._operator, self._reads
        row: _Row = {self._fields.stats: {}, self._fields.meta: {}}
        tokens: list[str] = []
        if Modality.VIDEO in reads:
            row[operator.video_key] = [clip["video"]]
            tokens += [SpecialTokens.video]
        if Modality.FRAMES in reads:
            row[operator.image_key] = list(clip["frames"])
            tokens += [SpecialTokens.image] * len(clip["frames"])
        if Modality.TEXT in reads:
            # Where media and text belong together, DataJuicer wants a token a medium in the text.
            row[operator.text_key] = " ".join([*tokens, clip["text"]])
        return row

    def _verdict(self, row: _Row, keep: Any) -> dict[str, Any]:
        numbers, others = sort_out(row[self._fields.stats])
        outputs = {**others, **row[self._fields.meta]}
        return {
            "error": None,
            "stats": numbers,
            "outputs": {name: as_json(name, value) for name, value in outputs.items()},
            "keep": bool(keep),
            "text": None,
        }

    def _changes(self, before: _Row, after: Mapping[str, Any]) -> dict[str, Any]:
        """What a mapper has changed: the text, and fields that are new or other than before."""
        operator, fields = self._operator, self._fields
        numbers, outputs = sort_out(after.get(fields.stats) or {})
        outputs.update(after.get(fields.meta) or {})
        inner = {fields.stats, fields.meta, fields.context, fields.source_file}
        text = None
        for name, value in after.items():
            if name in inner:
                continue
            if name == operator.text_key and name in before:
                text = None if value == before[name] else self._without_tokens(value)
            elif name in (operator.video_key, operator.image_key):
                if name in before and plain(value) != before[name]:
                    raise ValueError("it wrote new videos or pictures, and clips are not rewritten")
            elif name not in before or plain(value) != before[name]:
                outputs[name] = value
        return {
            "error": None,
            "stats": numbers,
            "outputs": {name: as_json(name, value) for name, value in outputs.items()},
            "keep": None,
            "text": text,
        }

    def _without_tokens(self, text: Any) -> str:
        from data_juicer.utils.mm_utils import remove_special_tokens

        if not isinstance(text, str):
            raise TypeError(f"it made a {type(text).__name__} of the text")
        # Only where `_row` put them: a text operator's white space is its own.
        return text if self._reads == {Modality.TEXT} else remove_special_tokens(text)


def _import_datajuicer() -> str:
    """Import the operators, quietly; returns the package and its version."""
    import data_juicer
    import data_juicer.ops
    from data_juicer.utils.lazy_loader import LazyLoader
    from loguru import logger

    logger.remove()
    logger.add(sys.stderr, level="ERROR")

    def refuse(cls: object, package: object, *_: object) -> None:
        refuse_install(package)

    LazyLoader._install_package = classmethod(refuse)
    return f"py-data-juicer {data_juicer.__version__}"


def _load_models(operator: Any) -> None:
    """Load what the operator would load with its first clip: a lack is seen at the start."""
    from data_juicer.utils.model_utils import MODEL_FUNCTION_MAPPING, get_model

    makers: set[Callable[..., Any]] = set(MODEL_FUNCTION_MAPPING.values())
    for value in vars(operator).values():
        if isinstance(value, functools.partial) and value.func in makers:
            get_model(value, use_cuda=operator.use_cuda())


def _as_rows(columns: Mapping[str, Sequence[Any]], count: int) -> list[_Row]:
    """A batch's columns as rows; `ValueError` unless each sample that went in came out."""
    if any(len(values) != count for values in columns.values()):
        most = max(len(values) for values in columns.values())
        raise ValueError(
            f"it made {most} samples of {count}, and a clip has one row (parameters like "
            "keep_original_sample may say so)"
        )
    return [{name: values[i] for name, values in columns.items()} for i in range(count)]


def _text(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_ERROR]
