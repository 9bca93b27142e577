"""Stages of the user's own: a class in a Python file, loaded and checked before any clip is taken.

The file is code, and loading it runs it: naming it in a recipe is what allows that. What is wrong
with it is one line (`ConfigError`) that says file, class, what and how to mend it. How such a
stage runs beside ours is in `processors.custom_host`; how to write one, in docs/processors.md.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

from processors.custom_host import HostedStage, file_columns, host
from processors.frames import FrameRequest, FrameSampling
from processors.stage import CLIP_FILE, FRAME_FILES, FileRequest, Stage
from schemas.datajuicer import signatures
from schemas.operators import OPERATORS, CustomStage
from schemas.problems import ConfigError, nearest
from schemas.tables import CLIP_COLUMN_NAMES, ENRICHED_CLIPS

COLUMNS_OF_EVERY_CLIP = (
    *CLIP_COLUMN_NAMES,
    *("frame_count", "sharpness", "brightness", "black_fraction", "overexposed_fraction"),
)
"""What a stage may ask for wherever it stands in a recipe."""

_STAGES_OF_OURS = frozenset({"fetch", "decode", "cut", *(o.stage for o in OPERATORS.values())})
_OUR_RESIZES = "processors.resize"
_OUTPUT = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_PIXELS = (CLIP_FILE, FRAME_FILES)
_SAMPLING_METHODS = get_args(get_type_hints(FrameSampling)["method"])
_MAX_WORDS = 300


def stage_of(
    operator: CustomStage,
    available: Collection[str],
    names: Collection[str] = (),
    others: Collection[str] = (),
) -> HostedStage:
    """The operator's stage, checked and not yet set up.

    ``available`` are the columns that there are at its place in the recipe
    (`COLUMNS_OF_EVERY_CLIP`, and what the operators before it give); ``names`` are the names of
    the recipe's other stages; ``others`` are further names under which operators of DataJuicer
    may leave something. `ConfigError` if its declaration is wrong.
    """
    declaration = _Declaration(operator.file, operator.class_name)
    kind = load_stage_class(operator.file, operator.class_name, operator.sha256)
    stage = declaration.construct(kind, operator.parameters)
    declaration.check(stage, available, names, {*others, *signatures().result_names})
    return host(stage, operator.op, f"sha256:{operator.sha256}")


def load_stage_class(file: Path, class_name: str, sha256: str | None = None) -> type[Stage]:
    """The class of that name in a file, which is run if it was not yet.

    ``sha256``, in hexadecimal, is what the file's bytes have to hash to. The file stands alone:
    it may import what is installed, and no files beside it, which that hash would not cover.
    `ConfigError` if it cannot be loaded, or if the class is no `Stage` that can be used.
    """
    where = _Declaration(file, class_name)
    try:
        source = file.read_bytes()
    except OSError as error:
        raise where.wrong(f"the file cannot be read: {error.strerror}") from None
    digest = hashlib.sha256(source).hexdigest()
    if sha256 not in (None, digest):
        raise where.wrong(
            f"the file was changed after the recipe was read: its SHA-256 is {digest}, and should "
            f"be {sha256}; start again"
        )
    module = _module(where, source, digest)
    kind = getattr(module, class_name, None)
    if kind is None:
        classes = [name for name, value in vars(module).items() if _is_own_stage(value, module)]
        raise where.wrong(f"the file has no class of that name{nearest(class_name, classes)}")
    if not isinstance(kind, type) or not issubclass(kind, Stage):
        raise where.wrong("it is no stage: write `class … (Stage)`, with processors.stage's Stage")
    missing = sorted(kind.__abstractmethods__)
    if not isinstance(getattr(kind, "name", None), str) or missing:
        raise where.wrong(f"it is no whole stage: define {', '.join(['name', *missing])}")
    return kind


def _module(where: _Declaration, source: bytes, digest: str) -> ModuleType:
    """The file as a module of its own, under a name that no other file's has."""
    place = hashlib.sha256(str(where.file).encode()).hexdigest()
    name = f"cliplake_custom_{place[:8]}_{digest[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(where.file)
    # Before it runs: pickle and dataclasses look classes up here.
    sys.modules[name] = module
    try:
        # Compiled from the bytes that were hashed, and never from a stale cache beside the file.
        exec(compile(source, str(where.file), "exec", dont_inherit=True), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        words = _words(error).replace(f"{name}.", "")
        raise where.wrong(
            f"running the file fails{_line(error, where.file)}: {words}; mend that first"
        ) from None
    return module


@dataclass(frozen=True)
class _Declaration:
    """A class in a file, and what can be wrong with how it is declared."""

    file: Path
    class_name: str

    def wrong(self, text: str) -> ConfigError:
        return ConfigError(f"{self.file}: {self.class_name}: {text}")

    def construct(self, kind: type[Stage], parameters: dict[str, Any]) -> Stage:
        """An object of the class, with the recipe's parameters as keyword arguments."""
        signature = inspect.signature(kind)
        known = [p.name for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        if len(known) == len(signature.parameters):
            for name in parameters:
                if name not in known:
                    raise self.wrong(f"it has no parameter {name!r}{nearest(name, known)}")
        try:
            signature.bind(**parameters)
        except TypeError as error:
            raise self.wrong(f"its parameters are not complete: {error}") from None
        stage: Stage = self._ask("__init__", lambda: kind(**parameters))
        return stage

    def check(
        self,
        stage: Stage,
        available: Collection[str],
        names: Collection[str],
        others: Collection[str],
    ) -> None:
        """`ConfigError` if the stage cannot run at its place in the recipe."""
        if stage.name in _STAGES_OF_OURS or stage.name in names:
            raise self.wrong(f"name is {stage.name!r}, as of another stage; give it one of its own")
        if stage.name in OPERATORS or stage.name in signatures().operators:
            raise self.wrong(
                f"name is {stage.name!r}, as of an operator of DataJuicer; give it one of its own"
            )
        inputs = self._columns("inputs", stage.inputs)
        outputs = self._columns("outputs", stage.outputs)
        request = self._ask("frames", stage.frames)
        if request is not None:
            self._check_frames(request, inputs, {*available, *others})
        files = self._ask("files", stage.files)
        if not isinstance(files, FileRequest):
            raise self.wrong(
                f"files() returned {_shown(files)}, and should return FileRequest(cut=…, frames=…)"
            )
        there = {*available, *file_columns(files)} | ({request.column} if request else set())
        for column in inputs:
            if column not in there:
                raise self.wrong(
                    f"inputs() names {column!r}, which nothing before it in the recipe gives"
                    f"{nearest(column, available)}"
                )
        self._check_outputs(outputs, available, others)
        judges = self._has_judge(stage)
        if not outputs and not judges:
            raise self.wrong("it gives no outputs() and has no judge(scores): it would do nothing")

    def _check_frames(
        self, request: Any, inputs: tuple[str, ...], available: Collection[str]
    ) -> None:
        if not isinstance(request, FrameRequest) or not isinstance(request.sampling, FrameSampling):
            raise self.wrong(
                f"frames() returned {_shown(request)}, and should return None or "
                "FrameRequest(column, FrameSampling(…), resize) of processors.frames"
            )
        sampling = request.sampling
        if sampling.method not in _SAMPLING_METHODS:
            raise self.wrong(
                f"frames() samples by {sampling.method!r}"
                f"{nearest(str(sampling.method), _SAMPLING_METHODS)}"
            )
        if not isinstance(sampling.frame_num, int) or sampling.frame_num < 1:
            raise self.wrong(
                f"frames() asks for {_shown(sampling.frame_num)} frames; frame_num is from 1 on"
            )
        # It runs in the decoder's process, which does not have this file.
        if type(request.resize).__module__ != _OUR_RESIZES:
            raise self.wrong(
                f"frames() resizes by {_shown(request.resize)}; use Fitted, Stretched or "
                f"ProcessorResize of {_OUR_RESIZES}"
            )
        if request.column in {*available, *ENRICHED_CLIPS.column_names, *_PIXELS}:
            raise self.wrong(
                f"frames() puts them into {request.column!r}, a column that there is already"
            )
        if request.column not in inputs:
            raise self.wrong(
                f"frames() puts them into {request.column!r}, which inputs() does not name; "
                "add it there"
            )

    def _check_outputs(
        self, outputs: tuple[str, ...], available: Collection[str], others: Collection[str]
    ) -> None:
        for column in outputs:
            if not _OUTPUT.fullmatch(column):
                raise self.wrong(
                    f"outputs() names {column!r}; use lower case letters, digits and underscores"
                )
            if column in ENRICHED_CLIPS.column_names:
                raise self.wrong(
                    f"outputs() names {column!r}, a column of {ENRICHED_CLIPS.name} with another "
                    "meaning; give it another name"
                )
            if column in available:
                raise self.wrong(
                    f"outputs() names {column!r}, which an operator before it gives; give it "
                    "another name"
                )
            if column in others or column in _PIXELS:
                raise self.wrong(
                    f"outputs() names {column!r}, by which operators of DataJuicer leave or are "
                    "given something else; give it another name"
                )

    def _has_judge(self, stage: Stage) -> bool:
        judge = getattr(stage, "judge", None)
        if judge is None:
            return False
        try:
            inspect.signature(judge).bind({})
        except TypeError:
            raise self.wrong(
                "judge should be a method judge(self, scores) that returns a reason or None"
            ) from None
        return True

    def _columns(self, method: str, function: Callable[[], Any]) -> tuple[str, ...]:
        columns = self._ask(method, function)
        if not isinstance(columns, tuple | list) or not all(isinstance(c, str) for c in columns):
            raise self.wrong(
                f"{method}() returned {_shown(columns)}, and should return a tuple of names, "
                "like ('sharpness',)"
            )
        for column in columns:
            if columns.count(column) > 1:
                raise self.wrong(f"{method}() names {column!r} twice")
        return tuple(columns)

    def _ask(self, method: str, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except (Exception, SystemExit) as error:
            raise self.wrong(
                f"{method} fails{_line(error, self.file)}: {_words(error)}; it is called before "
                "setup, to check the recipe"
            ) from None


def _is_own_stage(value: object, module: ModuleType) -> bool:
    return (
        isinstance(value, type) and issubclass(value, Stage) and value.__module__ == module.__name__
    )


def _line(error: BaseException, file: Path) -> str:
    """Where in the file it happened, if it did."""
    if isinstance(error, SyntaxError):
        return f" in line {error.lineno}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(file)
    ]
    return f" in line {lines[-1]}" if lines else ""


def _words(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return " ".join(f"{type(error).__name__}: {text}".split())[:_MAX_WORDS]


def _shown(value: object) -> str:
    return " ".join(repr(value).split())[:80]
