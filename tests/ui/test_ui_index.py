from __future__ import annotations

from ui_logs import Explored


def test_a_played_federation_is_indexed(world: Explored) -> None:
    told = world.json("/updates.json?order=asc&limit=500")
    assert told["federation"]["state"] == "following"
    assert told["paging"]["total"] == len(told["rows"])
    assert {row["state"] for row in told["rows"]} >= {"merged", "closing", "ignored"}


def test_small_and_hostile_ones_answer(empty: Explored, lonely: Explored, hostile: Explored, unseen: Explored) -> None:
    for one in (empty, lonely, hostile, unseen):
        for path in ("/updates", "/updates.json", "/updates.csv"):
            assert one.get(path).status_code == 200, path
