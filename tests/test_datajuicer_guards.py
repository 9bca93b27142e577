"""What a recipe cannot make DataJuicer's operators do: run a model's code, or send a key away."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from datajuicer_cases import PYTHON, need_datajuicer

from processors.datajuicer.hosts import ChildProcess
from schemas.datajuicer import TABLE, signatures
from schemas.settings import CHECKOUT

pytestmark = pytest.mark.datajuicer

RAN = "the model's code ran"


@pytest.fixture(scope="module", autouse=True)
def _environment() -> None:
    need_datajuicer()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model whose configuration names code of its own, which would leave a mark."""
    folder = tmp_path / "model"
    folder.mkdir()
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    config = {"model_type": "own_type", "auto_map": own, "architectures": ["Model"]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(
        "from pathlib import Path\n"
        "from transformers import PretrainedConfig\n"
        f"Path({str(tmp_path / 'mark')!r}).write_text({RAN!r})\n"
        "class Config(PretrainedConfig):\n"
        "    model_type = 'own_type'\n"
    )
    return folder


def python(code: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in DataJuicer's environment, with caches of its own."""
    return subprocess.run(
        [PYTHON, "-P", "-c", code],
        env={
            **os.environ,
            "PYTHONPATH": str(CHECKOUT),
            "HF_HOME": str(folder / "hub"),
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


LOAD = """
from transformers import AutoConfig
for trust in {trusts!r}:
    try:
        AutoConfig.from_pretrained({folder!r}, trust_remote_code=trust)
    except Exception as error:
        print(f"{{type(error).__name__}}: {{error}}")
"""
GUARDED = (
    "from processors.datajuicer.guards import forbid_code_of_models\nforbid_code_of_models()\n"
)


def test_the_repository_would_leave_its_mark_if_its_code_were_run(
    repository: Path, tmp_path: Path
) -> None:
    done = python(LOAD.format(folder=str(repository), trusts=[True]), tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mark").read_text() == RAN


def test_a_models_own_code_is_not_run_whatever_is_asked_for(
    repository: Path, tmp_path: Path
) -> None:
    asked = [True, "yes", 1, False, None]
    done = python(GUARDED + LOAD.format(folder=str(repository), trusts=asked), tmp_path)
    refused = f"PermissionError: {repository} would run a model's own code, which is never done"
    assert done.stdout.splitlines() == [refused] * len(asked)
    assert not (tmp_path / "mark").exists()


def test_code_in_a_cache_of_models_is_not_run_by_other_libraries_either(tmp_path: Path) -> None:
    code = tmp_path / "hub" / "modules" / "theirs.py"
    code.parent.mkdir(parents=True)
    code.write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\n")
    done = python(
        f"{GUARDED}import sys; sys.path.insert(0, {str(code.parent)!r}); import theirs", tmp_path
    )
    assert f"PermissionError: {code} would run a model's own code" in done.stderr
    assert not (tmp_path / "mark").exists()


def test_a_library_in_a_cache_of_models_is_not_loaded(tmp_path: Path) -> None:
    done = python(
        f"{GUARDED}import ctypes, shutil, sys, _ctypes, importlib.util as u, os\n"
        "os.makedirs(folder := os.environ['HF_HOME'], exist_ok=True)\n"
        "copy = shutil.copy(_ctypes.__file__, folder)\n"
        "for load in (lambda: ctypes.CDLL(copy), lambda: u.module_from_spec("
        "u.spec_from_file_location('_ctypes', copy))):\n"
        "    try:\n        load()\n"
        "    except PermissionError as error:\n        print(error)\n",
        tmp_path,
    )
    assert done.stdout.count("would run a model's own code") == 2, done.stderr


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OPENAI_API_KEY", "the workers' own")
    process = ChildProcess(PYTHON, 120)
    yield process
    process.end()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llm_condition_filter", {"api_or_hf_model": "{}", "is_hf_model": True}),
        ("video_captioning_from_vlm_mapper", {"hf_model": "{}"}),
    ],
)
def test_an_operator_that_trusts_every_model_does_not_start_with_one_that_has_code(
    host: ChildProcess, repository: Path, tmp_path: Path, name: str, parameters: dict[str, Any]
) -> None:
    given = {k: str(repository) if v == "{}" else v for k, v in parameters.items()}
    wanted = [(name, given, ["text"])]
    answer = host.call("start", signatures().version, wanted, deadline_s=300)
    assert "would run a model's own code" in answer["error"]
    assert not (tmp_path / "mark").exists()


def test_operators_see_no_secret_of_the_workers_but_the_one_that_is_meant_for_them(
    tmp_path: Path,
) -> None:
    done = python(
        "import json, os\n"
        "from processors.datajuicer.operator_host import OperatorHost\n"
        "assert OperatorHost().start('x', [])['error'].startswith('DataJuicer is version')\n"
        "print(json.dumps(dict(os.environ)))",
        tmp_path,
        OPENAI_API_KEY="secret",
        DASHSCOPE_API_KEY="secret",
        SK="secret",
        AWS_SECRET_ACCESS_KEY="secret",
        DATA_JUICER_EMAIL_PASSWORD="secret",
        CLIPLAKE__CATALOG__OPTIONS="secret",
        CLIPLAKE_KEY_CAPTIONS="secret",
        CLIPLAKE_KEY_DATAJUICER="theirs",
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert [name for name, value in seen.items() if value == "secret"] == []
    assert seen["OPENAI_API_KEY"] == "theirs"
    assert {"PATH", "HOME", "HF_HOME", "PYTHONPATH"} <= seen.keys()


def test_a_child_is_not_even_started_with_them(host: ChildProcess) -> None:
    raw = Path(f"/proc/{host._piped.pid}/environ").read_bytes()
    names = {entry.partition(b"=")[0] for entry in raw.split(b"\0")}
    assert b"HF_HUB_OFFLINE" in names
    assert b"OPENAI_API_KEY" not in names


def test_the_signatures_are_those_of_the_installed_package() -> None:
    made = subprocess.run(
        [PYTHON, "-c", "from generate_operators import *; print(render(table()), end='')"],
        cwd=CHECKOUT / "docs",
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert made.stdout == TABLE.read_text(encoding="utf-8")
