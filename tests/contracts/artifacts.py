"""The contracts' interfaces and bytecode as they are shipped, from what forge compiled: gensyn_verify/settle/artifacts.

Settings are such that equal sources give equal bytes (foundry.toml: no metadata). Libraries and interfaces have no
artifact: what they hold is in the contracts that use them.

    python tests/contracts/artifacts.py            writes them
    python tests/contracts/artifacts.py --check    compares, and fails where one is not current
"""

import json
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
SOURCES = PROJECT / "gensyn_verify/settle/contracts"
SHIPPED = PROJECT / "gensyn_verify/settle/artifacts"
OUT = PROJECT / "build/contracts/out"


def artifacts() -> dict[str, str]:
    """File name -> content, for every contract that can be deployed."""
    made = {}
    for source in sorted(SOURCES.glob("*.sol")):
        for path in sorted((OUT / source.name).glob("*.json")):
            compiled = json.loads(path.read_text())
            code = compiled["bytecode"]["object"]
            if code != "0x" and any(entry["type"] == "function" for entry in compiled["abi"]):
                content = {"abi": compiled["abi"], "bytecode": code}
                made[path.name] = json.dumps(content, sort_keys=True, separators=(",", ":")) + "\n"
    return made


def main() -> None:
    made = artifacts()
    if sys.argv[1:] == ["--check"]:
        shipped = {path.name: path.read_text() for path in SHIPPED.glob("*.json")}
        wrong = sorted(name for name in {*made, *shipped} if made.get(name) != shipped.get(name))
        if wrong:
            sys.exit(f"not what the sources compile to: {', '.join(wrong)}; run make contracts")
        return
    SHIPPED.mkdir(exist_ok=True)
    for path in SHIPPED.glob("*.json"):
        path.unlink()
    for name, content in made.items():
        (SHIPPED / name).write_text(content)


if __name__ == "__main__":
    main()
