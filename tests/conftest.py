import difflib
from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"

CompareWithGolden = Callable[[str, str], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="accept what is rendered now as tests/golden")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> CompareWithGolden:
    """Compare a text with the file of that name below tests/golden, or make it that file with --update-golden."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        before = path.read_text() if path.exists() else ""
        if before != text:
            diff = difflib.unified_diff(
                before.splitlines(), text.splitlines(), f"golden/{name}", "rendered now", lineterm=""
            )
            pytest.fail(
                f"{name} is not what the templates give now. If the change is meant, accept it with\n"
                f"    .venv/bin/pytest tests --update-golden\n" + "\n".join(diff),
                pytrace=False,
            )

    return compare
