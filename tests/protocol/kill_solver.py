"""A solver that is killed over and over: one request a line on stdin, one real process and one SIGKILL each.

`TASK OUT at N`: solve TASK into OUT, and be killed at the N-th file operation. `TASK OUT after S`: be killed after S
seconds. `TASK OUT never 0`: solve to the end. Answers "killed" or "done". The processes are forked from this one, which
has imported everything and started no thread, so that a kill costs milliseconds.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from bundles import SALT, SOLVER

from gensyn_verify.protocol import folder
from gensyn_verify.protocol.solve import solve
from gensyn_verify.protocol.task import open_task


def die_at(operation: int) -> None:
    """Be killed by SIGKILL before the given one of all opens, writes, flushes, renames and removals of bundle files."""
    left = operation

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapper

    class Os:
        """The `os` of the folder module, counting."""

        def __getattr__(self, name: str) -> Any:
            found = getattr(os, name)
            return counted(found) if name in ("open", "fsync", "rename", "fdopen", "listdir") else found

    folder.os = Os()  # type: ignore[assignment]


def main() -> None:
    for line in sys.stdin:
        path, out, kind, argument = line.split()
        task = open_task(path)
        child = os.fork()
        if child == 0:
            if kind == "at":
                die_at(int(argument))
            elif kind == "after":
                signal.setitimer(signal.ITIMER_REAL, float(argument))
                signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            solve(task, out, identity=SOLVER, salt=SALT, backend="reference")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            answer = "killed" if os.WTERMSIG(status) == signal.SIGKILL else f"signal {os.WTERMSIG(status)}"
        else:
            answer = "done" if os.WEXITSTATUS(status) == 0 else f"exit {os.WEXITSTATUS(status)}"
        print(answer, flush=True)


if __name__ == "__main__":
    main()
