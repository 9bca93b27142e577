"""Pages that are made from the code are current, and the README names things that exist."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import pytest

from schemas.settings import CHECKOUT


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", CHECKOUT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["tables.md", "settings.md", "checkpoints.md"])
def test_a_generated_page_is_current(name: str) -> None:
    page = generator().PAGES[name]()
    assert (CHECKOUT / "docs" / name).read_text(encoding="utf-8") == page, (
        f"docs/{name} is not current: run python docs/generate.py"
    )


def test_every_setting_says_its_type() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", generator().settings_page(), re.MULTILINE)
    assert rows
    assert all(kind.strip() for _, kind in rows)


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/architecture.md",
        "docs/recipes.md",
        "docs/datajuicer.md",
        "docs/models.md",
        "docs/performance.md",
    ],
)
def test_links_within_the_checkout_lead_somewhere(page: str) -> None:
    file = CHECKOUT / page
    links = re.findall(r"\]\(([^)#\s]+)", file.read_text(encoding="utf-8"))
    for link in links:
        if "://" not in link:
            assert (file.parent / link).exists(), f"{page}: {link}"
