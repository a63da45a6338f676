"""How mlp-threshold-1 was made: `python tests/golden/make_threshold.py FOLDER`.

On another machine it makes another bundle, as vendor kernels have other bits there. So no test runs it; what was made
once must be verified for ever.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS / "protocol")]

from bundles import SALT, dishonest_solve  # noqa: E402

from gensyn_verify.protocol.report import Report  # noqa: E402

BEACON = bytes(range(32, 64))
INTERVAL, STEPS = 4, 12


def main(folder: Path) -> None:
    import torch

    import gensyn_verify as gv

    torch.manual_seed(0)
    x = torch.randn(32, 6)
    y = (x[:, :3].sum(1) > 0).long()
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2, bias=False))
    optimizer, loss = torch.optim.AdamW(model.parameters(), lr=1e-2), torch.nn.CrossEntropyLoss()
    with tempfile.TemporaryDirectory() as plain:
        gv.capture(
            model, loss, optimizer, (x, y), steps=STEPS, batch_size=8, interval=INTERVAL, path=plain,
            policy=gv.Policy(samples=2, largest=1),
        )  # fmt: skip
        task, _ = gv.calibrate(plain, folder / "task", rate=1e-3)
    solver = gv.Identity.from_key(b"\x11" * 32)
    run = gv.solve(task, folder / "run", identity=solver, salt=SALT, backend="vendor")

    def push(step: int, state: dict[str, np.ndarray], batch: Any, scalars: Any) -> None:
        if step == 2 * INTERVAL - 1:
            state["param.0.weight"][1, 2] += 0.01

    forged = dishonest_solve(task, folder / "forged", after=push, backend="vendor")
    runs = {"run": run, "forged": forged}
    found = {name: outcome(gv.replay(r, task, everything=True, beacon=BEACON)) for name, r in runs.items()}
    (folder / "expected.json").write_text(json.dumps({"beacon": BEACON.hex()} | found) + "\n")


def outcome(report: Report) -> dict[str, Any]:
    """What everyone measures: norms of found - replay and of the farthest probe, and the statistics made of them."""
    return {
        "verdict": report.verdict.value,
        "statistics": [[s.name, s.interval, s.tensor, s.value] for s in report.statistics],
        "norms": [
            {n: [t.found.l2, t.found.linf, t.probe.l2, t.probe.linf] for n, t in d.tensors.items()}
            for d in report.deviations
        ],
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
