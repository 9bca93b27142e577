"""Running DataJuicer's own operators, in the environment that `make setup-datajuicer` makes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datajuicer_cases import PYTHON, need_datajuicer
from numpy.typing import NDArray

_SCRIPT = Path(__file__).with_name("datajuicer_reference.py")


@dataclass
class Reference:
    """Requests to DataJuicer's operators, all answered by one process, and what they answered."""

    folder: Path
    """An empty folder for files."""
    _requests: list[dict[str, Any]] = field(default_factory=list)
    _results: dict[str, dict[str, Any]] = field(default_factory=dict)

    def ask(
        self,
        name: str,
        operator: str,
        parameters: Mapping[str, Any],
        paths: Sequence[Path],
        **more: Any,
    ) -> None:
        """Note a request; ``more`` is what else `datajuicer_reference.py` takes for it."""
        self._requests.append(
            {
                "name": name,
                "op": operator,
                "parameters": dict(parameters),
                "paths": [str(path) for path in paths],
                **more,
            }
        )

    def run(self) -> None:
        """Have all requests answered; fails the test if any is not."""
        need_datajuicer()
        requests = self.folder / "requests.json"
        requests.write_text(json.dumps(self._requests), encoding="utf-8")
        done = subprocess.run(
            [str(PYTHON), str(_SCRIPT), str(requests), str(self.folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.fail(f"DataJuicer's operators failed:\n{done.stdout[-4000:]}")
        self._results = json.loads((self.folder / "results.json").read_text(encoding="utf-8"))

    def __call__(self, name: str, path: Path) -> Any:
        """The answer to a request about one file."""
        return self._results[name][str(path)]

    def frames(self, name: str, path: Path) -> NDArray[np.uint8]:
        """Frames, uint8 RGB ``[n, height, width, 3]``."""
        found: NDArray[np.uint8] = np.load(self.folder / self(name, path))
        return found
