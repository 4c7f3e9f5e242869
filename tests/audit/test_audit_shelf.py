"""What an audit holds in memory is bounded, and no result depends on that bound."""

from __future__ import annotations

import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))

from laid_out import lay_out, means_in

from fl_node.audit.means import Means
from fl_node.audit.opening import genesis
from fl_node.audit.reading import Reader
from fl_node.audit.replay import Replay, Replayed
from fl_node.audit.run import updates_of
from fl_node.audit.shelf import Shelf
from fl_node.content.cid import Cid
from fl_node.content.protocol import Held
from fl_node.errors import ContentUnavailable
from fl_node.records import UpdateRef


class Mapped:
    """Blobs that lie in files, as large ones do: their bytes count as no memory, and each takes an open file."""

    def __init__(self, blobs: Any, *, mapped: bool = True) -> None:
        self._blobs, self._mapped = blobs, mapped
        self.asked: Counter[Cid] = Counter()
        self.gone = False

    def hold(self, cid: Cid, max_bytes: int, ref: UpdateRef | None = None) -> Held:
        self.asked[cid] += 1
        if self.gone and self.asked[cid] > 1:
            raise ContentUnavailable("gone meanwhile")
        data = self._blobs.hold(cid, max_bytes, ref).data
        return Held(data, lambda: None) if self._mapped else Held(data)


class Watched(Shelf):
    """A shelf that notes the most that lay idle."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.most_bytes = self.most_files = 0

    def give_back(self, entries: Any) -> None:
        super().give_back(entries)
        with self._lock:
            idle = [future.result() for ref, future in self._there.items() if ref not in self._at_work]
            self.most_bytes = max(self.most_bytes, sum(one.resident_bytes for one in idle))
            self.most_files = max(self.most_files, sum(one.mapped for one in idle))


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Means]:
    folder = tmp_path_factory.mktemp("laid-out")
    lay_out(folder, peers=5, rounds=4)
    found = means_in(folder)
    yield found
    found.log.close()


Opener = Callable[..., Watched]


def opener_of(means: Means, blobs: Mapped, **bounds: int) -> Opener:
    _, start = genesis(means)
    assert start is not None and means.federation is not None
    reader = Reader(means.federation.spec, means.prefix, blobs, start, sketching=True)
    return lambda uses: Watched(reader, means.prefix, uses, **bounds)


def replayed(means: Means, opener: Opener, jobs: int) -> tuple[list[Any], Watched]:
    """Everything that the replay of all updates finds, and its shelf."""
    _, start = genesis(means)
    replay = Replay(means.federation.spec, means.prefix, start, opener, sketching=True, jobs=jobs)
    found = [told(one) for one in replay.run(updates_of(means))]
    return found, replay.shelf


def told(one: Replayed) -> Any:
    known = one.known
    assert known is not None and known.base is not None
    vectors = known.model.vector.tobytes(), known.model.votes.tobytes(), known.base.vector.tobytes()
    return one.ref, one.findings, known.digest, vectors


SIZE = 3000  # bytes of one model, about


@pytest.mark.parametrize("jobs", [1, 2, 4])
@pytest.mark.parametrize(
    ("mapped", "bounds"),
    [
        (False, {"budget_bytes": 0}),
        (False, {"budget_bytes": 2 * SIZE}),
        (True, {"most_mapped": 0}),
        (True, {"most_mapped": 2}),
    ],
)
def test_results_are_the_same_with_hardly_any_memory(
    means: Means, mapped: bool, bounds: dict[str, int], jobs: int
) -> None:
    blobs = Mapped(means.blobs)
    expected, shelf = replayed(means, opener_of(means, blobs), 1)
    assert shelf.reopened == 0 and set(blobs.asked.values()) == {1}
    again = Mapped(means.blobs, mapped=mapped)
    found, tight = replayed(means, opener_of(means, again, **bounds), jobs)
    assert found == expected
    assert tight.reopened == sum(again.asked.values()) - len(again.asked) > 0
    assert tight.most_bytes <= bounds.get("budget_bytes", 0) and tight.most_files <= bounds.get("most_mapped", 0)
    assert (tight.resident_bytes, tight.mapped) == (0, 0)


def test_mapped_files_are_not_given_up_for_memory_that_they_do_not_take(means: Means) -> None:
    blobs = Mapped(means.blobs)
    _, shelf = replayed(means, opener_of(means, blobs, budget_bytes=0), 2)
    assert shelf.reopened == 0 and set(blobs.asked.values()) == {1}


def test_all_is_given_back_after_its_last_use(means: Means) -> None:
    for jobs in (1, 4):
        _, shelf = replayed(means, opener_of(means, Mapped(means.blobs, mapped=False)), jobs)
        assert not shelf._there and not shelf._at_work and not shelf._known
        assert (shelf.resident_bytes, shelf.mapped, shelf.most_files) == (0, 0, 0) and shelf.most_bytes > 0


def test_bytes_that_are_gone_when_they_are_wanted_again_are_unknown(means: Means) -> None:
    blobs = Mapped(means.blobs)
    blobs.gone = True
    _, start = genesis(means)
    opener = opener_of(means, blobs, most_mapped=0)
    replay = Replay(means.federation.spec, means.prefix, start, opener, jobs=1)
    results = {finding.result.value for one in replay.run(updates_of(means)) for finding in one.findings}
    assert results == {"ok", "unknown"} and replay.shelf.mapped == 0


def test_two_that_want_the_same_update_wait_for_one_look_at_it(means: Means) -> None:
    update = updates_of(means)[0]
    inside, go_on = threading.Event(), threading.Event()

    class Slow(Mapped):
        def hold(self, *given: Any) -> Held:
            inside.set()
            assert go_on.wait(10)
            return super().hold(*given)

    blobs = Slow(means.blobs)
    shelf = opener_of(means, blobs)({update.ref: 2})
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(shelf.take, [update]) for _ in range(2)]
        assert inside.wait(10)
        go_on.set()
        first, second = (one.result(10)[0] for one in both)
    assert first is second and sum(blobs.asked.values()) == 1
    shelf.give_back([update])
    assert shelf.mapped == 1
    shelf.give_back([update])
    assert shelf.mapped == 0


def test_many_threads_at_random_leave_nothing_behind(means: Means) -> None:
    updates = updates_of(means)
    dice = random.Random(3)
    tasks = [dice.sample(updates, 3) for _ in range(120)]
    uses = Counter(update.ref for task in tasks for update in task)
    shelf = opener_of(means, Mapped(means.blobs, mapped=False), budget_bytes=4 * SIZE)(uses)

    def work(task: list[Any]) -> None:
        taken = shelf.take(task)
        assert all(one.good and one.tensors is not None for one in taken)
        shelf.give_back(task)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, tasks))
    assert shelf.most_bytes <= 4 * SIZE and shelf.reopened > 0
    assert not shelf._there and not shelf._at_work and not shelf._known and shelf.resident_bytes == 0
