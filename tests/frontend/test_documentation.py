"""docs/operators.md is what the table says."""

from pathlib import Path

from gensyn_verify.frontend.documentation import text


def test_list_of_operations_is_current() -> None:
    path = Path(__file__).parents[2] / "docs" / "operators.md"
    advice = "run: python -m gensyn_verify.frontend.documentation > docs/operators.md"
    assert path.read_text() == text(), advice
