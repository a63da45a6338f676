"""Code of the user's own, named on his own command line: the one way by which code outside of the package is run."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gensyn_verify.commit import tensor_root
from gensyn_verify.errors import MalformedError


@dataclass(frozen=True)
class Source:
    """A function of a Python file. The bytes are read once: those that are executed are those that have the digest."""

    path: str
    function: str
    data: bytes = field(repr=False)

    @staticmethod
    def read(text: str) -> Source:
        """The source that "FILE.py:FUNCTION" names; MalformedError where it names none."""
        path, _, function = text.rpartition(":")
        if not path.endswith(".py") or not function:
            raise MalformedError(f"{text!r} does not name a function of a file; write FILE.py:FUNCTION")
        if not os.path.isfile(path):
            raise MalformedError(f"{path} is no file")
        with open(path, "rb") as file:
            return Source(path, function, file.read())

    @property
    def digest(self) -> bytes:
        """32 bytes: what `b3sum` says of the file. What the file imports is not in it."""
        return tensor_root(self.data)

    def __str__(self) -> str:
        return f"{self.path}:{self.function}"

    def load(self) -> Callable[..., Any]:
        """Execute the file and return its function. Its folder comes first on the path, as if it were a script."""
        sys.path.insert(0, os.path.dirname(os.path.abspath(self.path)))
        spec = importlib.util.spec_from_file_location(os.path.basename(self.path)[:-3], self.path)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        code = compile(self.data, spec.origin or self.path, "exec", dont_inherit=True)
        sys.modules[spec.name] = module
        exec(code, module.__dict__)
        return member(module, self.path, self.function)


def load_function(text: str) -> Callable[..., Any]:
    """The function that "FILE.py:FUNCTION" or "MODULE:FUNCTION" names."""
    place, _, name = text.rpartition(":")
    if not place or not name:
        raise MalformedError(f"{text!r} does not name a function; write FILE.py:FUNCTION or MODULE:FUNCTION")
    if place.endswith(".py"):
        return Source.read(text).load()
    sys.path.insert(0, os.getcwd())
    return member(importlib.import_module(place), place, name)


def member(module: Any, place: str, name: str) -> Callable[..., Any]:
    function = getattr(module, name, None)
    if not callable(function):
        raise MalformedError(f"{place} has no function {name!r}")
    return function  # type: ignore[no-any-return]
