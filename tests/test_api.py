"""The names of `import gensyn_verify as gv`."""

from __future__ import annotations

import subprocess
import sys

import pytest

import gensyn_verify as gv
from gensyn_verify import errors


@pytest.mark.parametrize("name", gv.__all__)
def test_every_public_name_loads_and_is_documented(name: str) -> None:
    value = getattr(gv, name)
    assert value is getattr(gv, name)
    assert value.__doc__
    assert name in dir(gv)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="captur"):
        _ = gv.captur


def test_everything_but_capture_and_compile_works_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import gensyn_verify as gv\n"
        "for name in gv.__all__:\n"
        "    getattr(gv, name)\n"
        "from gensyn_verify.cli import main\n"
        "assert main(['doctor', '--no-torch']) in (0, 1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_error_of_the_package_is_one_tree() -> None:
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)]
    assert classes
    assert all(issubclass(c, gv.GensynVerifyError) for c in classes)
