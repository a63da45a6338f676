"""tests/vectors/dispute.json: the games that the contract plays too."""

from __future__ import annotations

import json
from typing import Any

import make_disputes
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


def test_the_file_is_what_the_script_writes() -> None:
    assert make_disputes.FILE.read_text() == make_disputes.text()
