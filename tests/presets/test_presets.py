"""Presets are spec keys and nothing else; the files made from them hold every one of these."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_node.cli.spec_file import explained
from fl_node.demo.settings import DemoSettings
from fl_node.errors import SpecError, UsageError
from fl_node.merging.fit import check_fit
from fl_node.presets import PRESETS, hostile, preset, rings_with_bridges
from fl_node.spec import Spec, parse_federation, validated
from fl_node.spec_text import merged, spec_text

NAMES = ["fedavg", "braintorrent", "ring", "hybrid-rings", "trust", "best-of", "best-of-claimed", "gossip", "robust"]


def test_every_scheme_is_there() -> None:
    assert list(PRESETS) == NAMES
    assert all(preset(name).name == name for name in NAMES)


@pytest.mark.parametrize(("name", "near"), [("brantorrent", "braintorrent"), ("FedAvg", "fedavg"), ("rings", "ring")])
def test_an_unknown_name_is_corrected(name: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"unknown preset '{name}'; did you mean {near}\\?.* hybrid-rings, "):
        preset(name)
    with pytest.raises(UsageError, match="unknown preset 'x'; expected one of fedavg, "):
        preset("x")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("peers", [4, 7, 10, 17, 18, 63, 64, 1000])
def test_overrides_are_a_spec_and_are_all_in_the_files(name: str, peers: int) -> None:
    overrides = preset(name).overrides(peers)
    texts = [explained(preset(name), peers)]
    if peers <= 64:
        texts.append(DemoSettings(preset=name, peers=peers).spec_text())
    for text in texts:
        spec = parse_federation(text.encode()).spec  # coherent, too
        plain = tomllib.loads(text)
        for table, keys in overrides.items():
            for key, value in keys.items():
                if (table, key) == ("merging", "silent_s"):
                    continue  # shorter on one machine, and marked so
                assert validated(Spec, {table: {key: plain[table][key]}}, "") == validated(
                    Spec, {table: {key: value}}, ""
                )
        assert spec.merging.k <= peers - 1 or spec.merging.selection not in ("top-k", "random-k")
        marked = [line for line in text.splitlines() if f"preset {name}" in line.partition("#")[2].lower()]
        assert len(marked) == 1 + sum(len(keys) for keys in overrides.values())


@pytest.mark.parametrize("name", NAMES)
def test_too_few_peers_are_refused(name: str) -> None:
    least = preset(name).least_peers
    preset(name).overrides(least)
    with pytest.raises(UsageError, match=f"preset {name} with {least - 1} peers?: expected at least {least}"):
        preset(name).overrides(least - 1)


@given(st.integers(4, 400))
def test_rings_hold_everybody_and_hang_together(peers: int) -> None:
    rings = rings_with_bridges(peers)
    assert {number for ring in rings for number in ring} == set(range(1, peers + 1))
    assert all(len(set(ring)) == len(ring) >= 2 for ring in rings) and len(rings) >= 2
    assert max(map(len, rings)) - min(map(len, rings)) <= 1
    for before, after in itertools.pairwise(rings):
        assert len(set(before) & set(after)) == 1
    firsts = [ring[0] for ring in rings]
    for number, ring in enumerate(rings):
        assert not any(first in ring for first in firsts[:number] + firsts[number + 1 :])


@given(st.integers(4, 2000))
def test_robust_leaves_a_value_when_all_its_filters_are_fooled(peers: int) -> None:
    merging = preset("robust").overrides(peers)["merging"]
    k, bad = merging["k"], merging["byzantine"]
    assert isinstance(k, int) and isinstance(bad, int)
    assert k + 1 > 2 * bad  # all hostile among the candidates, and still a value between the extremes
    most = hostile(peers)
    assert 3 * most + 1 <= peers < 3 * (most + 1) + 1
    if peers <= 94:
        assert bad == most and k + bad == peers - 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("peers", [2, 3, 4, 5, 7, 10, 17, 18, 30, 64, 94, 95, 96, 150, 1000])
def test_a_preset_fits_the_peers_it_was_made_for(name: str, peers: int) -> None:
    if peers >= preset(name).least_peers:
        spec = parse_federation(explained(preset(name), peers).encode()).spec
        assert check_fit(spec, range(1, peers + 1)) == ()


def test_what_the_command_line_asks_for_beats_the_preset() -> None:
    text = DemoSettings(preset="fedavg", mode="async").spec_text()
    assert parse_federation(text.encode()).spec.rounds.mode == "async"
    assert "--mode async, not as preset fedavg has it" in text
    with pytest.raises(SpecError, match="expected mode async"):
        parse_federation(DemoSettings(preset="ring", mode="sync").spec_text().encode())
    plain = DemoSettings().spec_text()
    assert "preset" not in plain and parse_federation(plain.encode()).spec.merging.aggregation == "fedavg"


def test_layers_and_text() -> None:
    tables = merged({"rounds": {"planned": 3}, "task": {"label": 'a"b'}}, {"rounds": {"planned": 4, "mode": "sync"}})
    text = spec_text("näme", tables, head=["Said first."], notes={("rounds", "mode"): "why"})
    assert text.startswith("# Said first.\n") and text.index("[task]") < text.index("[rounds]")
    assert 'mode = "sync"  # why\n' in text
    spec = parse_federation(text.encode()).spec
    assert (spec.name, spec.task.label, spec.rounds.planned, spec.rounds.mode) == ("näme", 'a"b', 4, "sync")


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        (
            '[merging]\nselection = "topk"',
            "merging.selection = 'topk'; did you mean top-k? expected one of all-latest, ",
        ),
        ('[merging]\naggregation = "trim-mean"', "did you mean trimmed-mean?"),
        ('[merging]\naggregation = "z"', "merging.aggregation = 'z'; expected one of fedavg, uniform, "),
        ('[attestation]\nmode = "al"', "did you mean all?"),
        ('[merging]\nselction = "best"', "did you mean selection?"),
    ],
)
def test_an_unknown_policy_in_a_file_is_corrected(toml: str, words: str) -> None:
    with pytest.raises(SpecError) as refused:
        parse_federation((toml + "\n").encode())
    assert words in str(refused.value)


def fl_node(*argv: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fl_node", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_init_writes_a_spec_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    done = fl_node("init", "--preset", "robust", "--peers", 10, "--spec", path)
    assert done.returncode == 0 and str(path) in done.stdout and "deploy_contract.py" in done.stderr
    merging = parse_federation(path.read_bytes()).spec.merging
    assert (merging.k, merging.byzantine, merging.aggregation) == (6, 3, "trimmed-mean")
    assert list(tmp_path.iterdir()) == [path]  # no key, no state folder
    before = path.read_bytes()
    again = fl_node("init", "--preset", "fedavg", "--spec", path, "--json")
    assert again.returncode == 2 and "exists already" in again.stderr and path.read_bytes() == before


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("init", "--preset", "brantorrent"), "did you mean braintorrent?"),
        (("init", "--preset", "gossip"), "expected --peers N"),
        (("init", "--preset", "fedavg", "--peers", 0), "--peers 0"),
        (("init", "--preset", "hybrid-rings", "--peers", 3), "expected at least 4"),
        (("init", "--peers", 3), "without --preset"),
        (("init", "--spec", "mine.toml"), "without --preset"),
        (("init", "--preset", "fedavg", "--spec", "/no/such/folder/f.toml"), "/no/such/folder"),
        (("demo", "--preset", "gosip"), "did you mean gossip?"),
        (("demo", "--preset", "gossip", "--peers", 1), "expected at least 2"),
    ],
)
def test_bad_presets_are_refused_before_anything_starts(argv: tuple[object, ...], words: str, tmp_path: Path) -> None:
    done = fl_node(*argv)
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1
