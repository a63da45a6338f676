"""docs/operators.md from the lowering table: `python -m gensyn_verify.frontend.documentation > docs/operators.md`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from gensyn_verify.frontend.lowering import SUBJECTS, Rule
from gensyn_verify.frontend.optimizers import FAMILIES
from gensyn_verify.frontend.tensors import STORED_AS
from gensyn_verify.frontend.trace import RESTATED

HEAD = """\
# Supported PyTorch operations

Generated from the table in `gensyn_verify/frontend/lowering.py` by `python -m gensyn_verify.frontend.documentation`;
do not edit. These are ATen operations: what PyTorch functions and modules, and their derivatives, consist of. An
operation that is missing is named at capture, with the module and the source line that called it.
"""


def _meaning(rule: Rule) -> str:
    """The first paragraph of a rule's docstring, on one line."""
    text = inspect.getdoc(rule) or ""
    return " ".join(text.split("\n\n")[0].split())


def lines() -> Iterator[str]:
    """The document."""
    yield HEAD
    for subject, rules in SUBJECTS.items():
        yield f"## {subject}\n"
        for name, rule in sorted(rules.items()):
            meaning = _meaning(rule)
            yield f"- `{name}`: {meaning}" if meaning else f"- `{name}`"
        yield ""
    yield "## Operations that PyTorch restates\n"
    yield "PyTorch's own definitions of these consist of operations above; capturing uses them.\n"
    yield from (f"- `{name}`" for name in RESTATED)
    yield "\n## Optimizers\n"
    for kind, family in FAMILIES.items():
        options = ", ".join(f"`{o}`" for o in sorted(family.options | {"lr", "maximize"}))
        yield f"- `torch.optim.{kind.__name__}`: {options}"
    yield "- classes of other packages: those given to `gensyn_verify.frontend.optimizers.register`"
    yield "\n## Element types\n"
    for dtype, stored in STORED_AS.items():
        yield f"- `{dtype}` is stored as {stored.name}"


def text() -> str:
    return "\n".join(lines()) + "\n"


if __name__ == "__main__":
    print(text(), end="")
