"""The libraries in an EVM: the contracts Numbers and Trees, deployed in pyrevm."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eth_abi import decode, encode
from eth_utils import keccak

OUT = Path(__file__).parents[2] / "build/contracts/out"
CALLER = "0x" + "11" * 20
Words = np.ndarray[Any, np.dtype[np.uint32]]


class Contract:
    """A contract deployed from what forge wrote of it, called by the names of its functions."""

    def __init__(self, artifact: str) -> None:
        pyrevm = pytest.importorskip("pyrevm")
        made = json.loads(artifact)
        self.evm = pyrevm.EVM(gas_limit=2**63 - 1, spec_id="CANCUN")
        self.evm.set_balance(CALLER, 10**30)
        self.address = self.evm.deploy(CALLER, bytes.fromhex(made["bytecode"]["object"][2:]))
        self.functions = {}
        for f in made["abi"]:
            if f["type"] == "function":
                inputs, outputs = ([v["type"] for v in f[k]] for k in ("inputs", "outputs"))
                selector = keccak(text=f"{f['name']}({','.join(inputs)})")[:4]
                self.functions[f["name"]] = selector, inputs, outputs
        self.errors = {
            keccak(text=f"{e['name']}({','.join(v['type'] for v in e['inputs'])})")[:4].hex(): e["name"]
            for e in made["abi"]
            if e["type"] == "error"
        }

    def __call__(self, name: str, *args: object) -> Any:
        """The result, or the results as a tuple; the name of the error where the call reverts."""
        selector, inputs, outputs = self.functions[name]
        try:
            data = self.evm.message_call(CALLER, self.address, calldata=selector + encode(inputs, args), gas=2**40)
        except RuntimeError as error:
            return next((e for code, e in self.errors.items() if code in str(error)), str(error))
        results = decode(outputs, bytes(data))
        return results[0] if len(results) == 1 else results

    def execute(self, code: int, operands: Words, chunk: int = 4000) -> tuple[Words, float, int]:
        """Operation `code` on rows of three operands: the results, and the mean and the most gas of one."""
        results, gas, most = [], 0, 0
        for start in range(0, len(operands), chunk):
            data = operands[start : start + chunk].astype(">u4").tobytes()
            out, spent, peak = self("executeAll", code, data)
            results.append(np.frombuffer(out, ">u4").astype(np.uint32))
            gas, most = gas + spent, max(most, peak)
        return np.concatenate(results), gas / len(operands), most


@cache
def library(name: str) -> Contract:
    """Numbers or Trees."""
    return Contract((OUT / f"{name}.sol" / f"{name}.json").read_text())
