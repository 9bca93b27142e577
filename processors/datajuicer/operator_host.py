"""Runs operators of DataJuicer, called directly, one clip after the other.

Lives in DataJuicer's own environment, in a process of its own, where few of our packages are:
it imports nothing but Python's and DataJuicer's, and speaks in dicts, lists and text. What it
is asked by is in `processors.datajuicer.hosts`; which operators may run at all is decided where a
recipe is read (`schemas.datajuicer`).
"""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from processors.datajuicer.environment import restrict_environment
from processors.datajuicer.guards import (
    forbid_code_of_models,
    forbid_installs_and_fetches,
    refuse_install,
)
from processors.datajuicer.reduction import as_json, plain, sort_out
from schemas.datajuicer import Modality

_LONGEST_ERROR = 2000
"""Characters of an error's text; some libraries put whole files into theirs."""
_PACKAGE = "py-data-juicer"
Wanted = tuple[str, Mapping[str, Any], Sequence[str]]
"""An operator: its name, its parameters, and what it reads (of video, frames and text)."""
_Row = dict[str, Any]


class OperatorHost:
    """Holds the operators of one recipe. No method raises: errors go as text."""

    def __init__(self) -> None:
        self._operators: dict[str, _Hosted] = {}

    def start(self, version: str, wanted: Sequence[Wanted]) -> dict[str, Any]:
        """Build operators, with their models loaded; ``version`` is what DataJuicer has to be.

        Gives ``error``, None if all went well, ``version``, with the package's name, and
        ``filters``: the names of the operators that are filters.
        """
        try:
            restrict_environment()
            forbid_installs_and_fetches()
            forbid_code_of_models()
            found = _import_datajuicer()
        except Exception as error:
            return {"error": f"DataJuicer cannot be imported: {_text(error)}"}
        if found != version:
            return {
                "error": f"DataJuicer is version {found}, and recipes are read by the signatures "
                f"of {version}; install that version, or make the signatures anew with "
                "docs/generate_operators.py"
            }
        for name, parameters, reads in wanted:
            try:
                self._operators[name] = _Hosted(name, parameters, reads)
            except Exception as error:
                return {"error": f"operator {name} cannot start: {_text(error)}"}
        filters = [name for name, hosted in self._operators.items() if hosted.is_filter]
        return {"error": None, "version": f"{_PACKAGE} {found}", "filters": filters}

    def run(self, name: str, clips: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """An answer a clip, in order; no clip knows of the others.

        A clip has ``video`` (a path), ``frames`` (paths) and ``text`` where the operator reads
        them. An answer has ``error`` (text or None; ``environment`` says that it is no clip's) and,
        without one, ``stats`` (numbers by
        name), ``outputs`` (JSON text by name), ``keep`` (None of a mapper) and ``text`` (None
        where it is as it was).
        """
        hosted = self._operators[name]
        return [hosted.run(clip) for clip in clips]

    def ping(self) -> bool:
        """Answers, if anything does."""
        return True


class _Hosted:
    """One operator, and how it is called."""

    def __init__(self, name: str, parameters: Mapping[str, Any], reads: Sequence[str]) -> None:
        from data_juicer.ops import OPERATORS, Filter
        from data_juicer.utils.constant import Fields

        kind = OPERATORS.modules.get(name)
        if kind is None:
            raise ValueError("DataJuicer has no operator of this name")
        # Its errors are what a clip is failed with; skipped, they would drop it without a word.
        self._operator = kind(**{**copy.deepcopy(dict(parameters)), "skip_op_error": False})
        self._reads = {Modality(medium) for medium in reads}
        self.is_filter = issubclass(kind, Filter)
        self._batched = bool(self._operator.is_batched_op())
        self._fields = Fields
        _load_models(self._operator)

    def run(self, clip: Mapping[str, Any]) -> dict[str, Any]:
        """The answer for one clip."""
        try:
            row = self._row(clip)
            before = copy.deepcopy(row)
            if not self.is_filter:
                return self._changes(before, self._call(self._operator.process, row))
            row = self._call(self._operator.compute_stats, row)
            if not self._batched:
                return self._verdict(row, self._operator.process(row))
            (keep,) = self._operator.process(_columns(row))
            return self._verdict(row, keep)
        except Exception as error:
            # What the environment lacks, it lacks for every clip.
            return {"error": _text(error), "environment": isinstance(error, ImportError)}

    def _call(self, method: Callable[[Any], Any], row: _Row) -> _Row:
        """The row as a method leaves it, which is given a batch of one if it takes batches."""
        done: _Row = _the_row(method(_columns(row))) if self._batched else method(row)
        return done

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
    """Import the operators, quietly; returns the package's version."""
    import data_juicer
    import data_juicer.ops
    from data_juicer.utils.lazy_loader import LazyLoader
    from loguru import logger

    logger.remove()
    logger.add(sys.stderr, level="ERROR")

    def refuse(cls: object, package: object, *_: object) -> None:
        refuse_install(package)

    LazyLoader._install_package = classmethod(refuse)
    return str(data_juicer.__version__)


def _load_models(operator: Any) -> None:
    """Load what the operator would load with its first clip: a lack is seen at the start."""
    from data_juicer.utils.model_utils import MODEL_FUNCTION_MAPPING, get_model

    makers: set[Callable[..., Any]] = set(MODEL_FUNCTION_MAPPING.values())
    for value in vars(operator).values():
        if isinstance(value, functools.partial) and value.func in makers:
            get_model(value, use_cuda=operator.use_cuda())


def _columns(row: Mapping[str, Any]) -> dict[str, list[Any]]:
    """A row as a batch of one."""
    return {name: [value] for name, value in row.items()}


def _the_row(columns: Mapping[str, Sequence[Any]]) -> _Row:
    """The row of a batch of one; `ValueError` unless one sample came out."""
    if any(len(values) != 1 for values in columns.values()):
        most = max(len(values) for values in columns.values())
        raise ValueError(
            f"it made {most} samples of 1, and a clip has one row (parameters like "
            "keep_original_sample may say so)"
        )
    return {name: values[0] for name, values in columns.items()}


def _text(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_ERROR]
