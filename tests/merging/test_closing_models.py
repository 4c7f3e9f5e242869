"""Which updates ``--at`` names: a peer may close, and go on with more rounds."""

from __future__ import annotations

import pytest
from logs import Log

from fl_node.errors import UsageError
from fl_node.models import choose


def chosen(log: Log, at: str) -> list[str]:
    return [str(entry.ref) for entry in choose(log.prefix, at)]


def test_the_newest_closing_update_of_each_also_where_it_went_on() -> None:
    log = Log(peers=3)
    for peer in (1, 2, 3):
        log.publish(peer, 1)
    with pytest.raises(UsageError, match="no peer has closed yet"):
        choose(log.prefix, "final")
    log.publish(2, 2, final=True)
    log.publish(1, 2, final=True)
    assert chosen(log, "final") == ["1#2", "2#2"]
    log.publish(1, 2)
    log.publish(2, 2)
    assert chosen(log, "final") == ["1#2", "2#2"] and chosen(log, "latest") == ["2#3", "1#3", "3#1"]
    log.publish(2, 3, final=True)
    log.publish(2, 3)
    assert chosen(log, "final") == ["2#4", "1#2"] and chosen(log, "latest")[0] == "2#5"


def test_closing_updates_that_do_not_count() -> None:
    log = Log(peers=2)
    log.publish(1, 1, final=True)
    size = len(log.entries)
    log.publish(1, 2, final=True)
    log.publish(2, 1)
    log.retire(1, from_index=size)
    assert chosen(log, "final") == ["1#1"]


def test_one_update_and_others_forms() -> None:
    log = Log(peers=1)
    log.publish(1, 1)
    assert chosen(log, "1#1") == ["1#1"]
    with pytest.raises(UsageError, match=r"expected an update such as 3#12, latest or final; did you mean 1#1\?"):
        choose(log.prefix, "1-1")
