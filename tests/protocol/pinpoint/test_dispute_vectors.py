"""tests/vectors/dispute.json and sequence.json: the games that the contract plays too, and the sequences."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import make_disputes
import make_sequences
import pytest

from gensyn_verify.protocol.pinpoint.game import Referee
from gensyn_verify.protocol.pinpoint.position import IllegalMoveError, Position

GAMES: list[dict[str, Any]] = json.loads(make_disputes.FILE.read_text())["games"]


@pytest.mark.parametrize("game", GAMES, ids=[g["name"] for g in GAMES])
def test_every_move_leads_to_the_stated_position(game: dict[str, Any], referee: Referee) -> None:
    position = Position.decode(bytes.fromhex(game["start"]))
    rejected = {r["move"]: r for r in game["rejected"]}
    for number, (hexadecimal, wanted) in enumerate(zip(game["moves"], game["hashes"], strict=True)):
        move = bytes.fromhex(hexadecimal)
        if number in rejected:
            at, value = rejected[number]["byte"], rejected[number]["value"]
            with pytest.raises(IllegalMoveError):
                referee(position, move[:at] + bytes([value]) + move[at + 1 :])
        position = referee(position, move)
        assert position.hash.hex() == wanted
        assert Position.decode(position.encode()) == position
    assert position.stage == game["winner"]


@pytest.mark.parametrize("script", [make_disputes, make_sequences], ids=["dispute", "sequence"])
def test_the_file_is_what_the_script_writes(script: ModuleType) -> None:
    assert script.FILE.read_text() == script.text()
