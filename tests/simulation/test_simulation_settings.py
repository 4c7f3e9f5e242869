"""What a simulation is asked for: the spec that it makes, and what is refused before anything starts."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from fl_node.errors import DataError, FlNodeError, SpecError, UsageError
from fl_node.simulation import Faults, Settings, simulate
from fl_node.simulation.checks import check
from fl_node.simulation.settings import parse_override
from fl_node.spec import Spec


def spec_of(peers: int = 6, seed: int = 0, **given: Any) -> Spec:
    return Settings(**given).federation(peers, seed).spec


def test_flags_beat_the_preset_and_set_beats_flags() -> None:
    spec = spec_of(
        preset="gossip", rounds=9, mode="sync", overrides={"merging.k": 2, "rounds.planned": 7, "task.validation": 0.0}
    )
    assert (spec.merging.selection, spec.merging.k) == ("random-k", 2)
    assert (spec.rounds.planned, spec.rounds.mode, spec.task.validation) == (7, "sync", 0.0)


def test_a_preset_is_made_for_the_number_of_peers() -> None:
    assert [spec_of(peers, preset="robust").merging.byzantine for peers in (4, 7, 10)] == [1, 2, 3]


def test_seeds_are_in_the_spec() -> None:
    spec = spec_of(seed=11)
    assert spec.task.split_seed == spec.model.seed == spec.training.seed == 11


def test_a_federation_file_is_what_it_starts_from(tmp_path: Path) -> None:
    file = tmp_path / "federation.toml"
    file.write_text(
        'name = "mine"\n[task]\ndata = "digits"\n[merging]\nselection = "graph"\ngraph = "edges"\n'
        "edges = [[1, 2], [2, 3]]\n[rounds]\nplanned = 3\n"
    )
    spec = spec_of(3, spec=file, rounds=4, overrides={"training.learning_rate": 0.5})
    assert spec.name == "mine" and spec.merging.edges == ((1, 2), (2, 3))
    assert spec.rounds.planned == 4 and spec.training.learning_rate == 0.5
    with pytest.raises(UsageError, match="one of the two"):
        Settings(spec=file, preset="gossip")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("training.optimizer=adam", "adam"),
        ("training.learning_rate=0.001", 0.001),
        ("model.hidden=[8, 16]", [8, 16]),
        ("training.class_weights=true", True),
        ('model.name="cnn"', "cnn"),
    ],
)
def test_overrides_are_read_as_toml_or_as_a_word(text: str, value: Any) -> None:
    assert parse_override(text) == (text.partition("=")[0], value)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"preset": "gosip"}, UsageError, "did you mean gossip"),
        ({"dataset": "minst"}, UsageError, "did you mean mnist"),
        ({"partition": "dirichlet:x"}, UsageError, "partition"),
        ({"shift": "clustres:2"}, UsageError, "did you mean clusters"),
        ({"shift": "wrong-labels@9"}, UsageError, "no peer 9"),
        ({"peers": (6, 6)}, UsageError, "--peers"),
        ({"peers": (0,)}, UsageError, "--peers 0"),
        ({"rounds": 0}, UsageError, "--rounds 0"),
        ({"seeds": 0}, UsageError, "--seeds 0"),
        ({"preset": "gossip", "overrides": {"merging.k": 6}}, SpecError, "k = 6"),
        ({"overrides": {"merging.selection": "newest"}}, SpecError, "newest"),
        ({"overrides": {"merging.krum": 1}}, SpecError, "merging.krum"),
        ({"overrides": {"krum": 1}}, UsageError, "--set krum"),
        ({"overrides": {"mergin.k": 1}}, UsageError, "did you mean merging"),
        ({"overrides": {"deployment.chain_id": 1}}, UsageError, "no table 'deployment'"),
        ({"overrides": {"training.learning_rate": float("nan")}}, UsageError, "finite"),
        ({"faults": Faults(stragglers=7)}, UsageError, "--stragglers 7 of 6"),
        ({"overrides": {"merging.aggregation": "krum", "merging.byzantine": 2}}, SpecError, "2 x 2 + 3 = 7"),
        (
            {"overrides": {"merging.selection": "graph", "merging.graph": "edges", "merging.edges": ((1, 9),)}},
            SpecError,
            "9",
        ),
        ({"peers": (4,), "faults": Faults(malicious=4)}, UsageError, "--malicious"),
        ({"batch": "always", "model": "cnn"}, UsageError, "--batch always"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_what_cannot_work_is_refused_before_anything_starts(
    given: dict[str, Any], error: type[FlNodeError], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        simulate(Settings(**given))
    assert words.replace(" ", "") in str(caught.value).replace(" ", "")


def test_a_peer_without_data_is_refused_for_every_seed_before_the_first_run() -> None:
    told: list[int] = []
    settings = Settings(peers=(3, 700), rounds=1, preset="gossip")
    with pytest.raises(DataError, match="of 700"):
        simulate(settings, lambda peers, seed, rows: told.append(peers))
    assert not told


@pytest.mark.parametrize("options", ["{ width = 32, deep = true, note = 'a \"b\"' }", "{}", '{ "two words" = 0.5 }'])
def test_a_federation_file_with_options_of_its_own_code(tmp_path: Path, options: str) -> None:
    file = tmp_path / "federation.toml"
    file.write_text(f'[model]\nname = "mine:network"\noptions = {options}\n')
    assert spec_of(3, spec=file).model.options == tomllib.loads(f"options = {options}")["options"]


@pytest.mark.parametrize("flag", ["stragglers", "churn", "malicious"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 2.5])
def test_how_many_peers_is_a_fraction_or_a_number(flag: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"--{flag}"):
        Faults(**{flag: value})  # type: ignore[arg-type]


def test_faults_that_happen_to_nobody_are_warned_of() -> None:
    def warned(**given: Any) -> tuple[str, ...]:
        return check(Settings(faults=Faults(**given)))[6]

    assert ["--malicious 0.05 of 6 peers is nobody" in one for one in warned(malicious=0.05)] == [True]
    assert warned(attack="gaussian") == ("--attack gaussian without --malicious has no effect",)
    assert warned(straggle=5) == ("--straggle 5 without --stragglers has no effect",)
    assert not warned(malicious=1, attack="gaussian", stragglers=0.5, straggle=5, churn=0.5)


def test_a_graph_in_parts_is_warned_of_and_named() -> None:
    overrides = {"merging.selection": "graph", "merging.graph": "edges", "merging.edges": ((1, 2), (3, 4))}
    (warning,) = check(Settings(peers=(4,), overrides=overrides))[4]
    assert "1, 2" in warning or "1-2" in warning
    found = simulate(Settings(peers=(4,), rounds=1, epochs=1, overrides=overrides, threads=1))
    assert found.runs[0].warnings == (warning,)


def test_choosing_by_claims_on_common_rows_is_warned_of() -> None:
    def warned(**given: Any) -> bool:
        return any("--test-rows own" in text for text in check(Settings(test_rows="common", **given))[6])

    assert warned(preset="best-of-claimed")
    assert warned(overrides={"merging.aggregation": "score"})
    assert not warned(preset="best-of") and not warned(preset="fedavg")


def test_code_that_a_file_names_runs_only_if_allowed(tmp_path: Path) -> None:
    file = tmp_path / "federation.toml"
    file.write_text('[model]\nname = "collections:OrderedDict"\n')
    with pytest.raises(SpecError, match="--allow-code"):
        simulate(Settings(spec=file))
    assert check(Settings(spec=file, allow_code="collections:OrderedDict"))
    # Who names it on the command line has agreed to it.
    assert check(Settings(model="collections:OrderedDict"))
