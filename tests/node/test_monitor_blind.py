"""A monitor whose endpoint comes and goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fl_node import monitor as monitors
from fl_node.audit.open_means import Where
from fl_node.errors import ChainUnavailable, InconsistentLog, LedgerError, WrongLedger
from fl_node.monitor import Alarm, Monitor, Watched

SILENT = Alarm("silent", "nothing for a while", "silent 1 5")


class Looks:
    """Errors that the looks meet, in turn; ``None``: the ledger is there."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = iter(errors)

    @contextmanager
    def __call__(self, where: Where) -> Iterator[Any]:
        error = next(self.errors)
        if error is not None:
            raise error
        yield None


def watching(monkeypatch: pytest.MonkeyPatch, *errors: Exception | None) -> Monitor:
    monkeypatch.setattr(monitors, "means_of", Looks(*errors))
    monkeypatch.setattr(Monitor, "_at", lambda self, means, began: iter([SILENT]))
    return Monitor(Watched(Where(Path("federation.toml"))))


def test_what_lasts_is_told_once_though_the_chain_comes_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    gone, lie = ChainUnavailable("no answer"), InconsistentLog("another root")
    monitor = watching(monkeypatch, None, gone, gone, None, lie, None)
    told = [[alarm.kind for alarm in monitor.look()] for _ in range(6)]
    assert told == [["silent"], ["chain-unavailable"], [], [], ["inconsistent"], []]


def test_an_endpoint_that_refuses_ends_no_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = watching(monkeypatch, None, LedgerError("too many requests"), WrongLedger("another chain"), None)
    told = [[alarm.kind for alarm in monitor.look()] for _ in range(4)]
    assert told == [["silent"], ["chain-unavailable"], [], []]


def test_at_the_start_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WrongLedger):
        watching(monkeypatch, WrongLedger("another chain")).look()
    monitor = watching(monkeypatch, ChainUnavailable("not up yet"), None)
    assert [alarm.kind for alarm in [*monitor.look(), *monitor.look()]] == ["chain-unavailable", "silent"]
