"""docs/presets.md has every preset with its keys as they are, every policy, every rule and every graph."""

from __future__ import annotations

import re
import tomllib
import typing

import pytest
from doc_pages import ROOT

from fl_node.presets import PRESETS, preset
from fl_node.spec import Spec
from fl_node.tables import MergingSpec

PAGE = (ROOT / "docs" / "presets.md").read_text("utf-8")
PEERS = 7


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_a_section_with_its_keys(name: str) -> None:
    found = re.search(rf"^## `{name}`\n(.*?)(?=^#)", PAGE, re.M | re.S)
    assert found is not None
    section = found[1]
    for words in ("**When.**", "**Source.**", "**Does not protect from**"):
        assert words in section
    (block,) = re.findall(r"^```toml\n(.*?)^```", section, re.M | re.S)
    shown = {table: dict(keys) for table, keys in tomllib.loads(block).items()}
    assert repr(shown) == repr(as_read(preset(name).overrides(PEERS)))
    assert f"[`{name}`](#{name})" in PAGE


def as_read(tables: typing.Any) -> typing.Any:
    """Tuples as TOML gives them back, tables in the order of the spec."""
    if isinstance(tables, dict):
        order = [key for key in Spec.model_fields if key in tables] or list(tables)
        return {key: as_read(tables[key]) for key in order}
    return [as_read(item) for item in tables] if isinstance(tables, tuple) else tables


@pytest.mark.parametrize("key", ["selection", "aggregation", "graph"])
def test_every_choice_has_a_row(key: str) -> None:
    header = f"| `merging.{key}` |"
    table = PAGE[PAGE.index(header) :].partition("\n\n")[0]
    rows = re.findall(r"^\| `([\w-]+)` \|", table, re.M)
    assert rows == list(typing.get_args(MergingSpec.model_fields[key].annotation))


@pytest.mark.parametrize("key", ["clip", "scores", "measure", "unattested"])
def test_every_value_of_an_option_is_explained(key: str) -> None:
    (row,) = re.findall(rf"^\| `merging\.{key}` \|(.*)$", PAGE, re.M)
    assert set(re.findall(r"`([a-z-]+)`(?:;|:)", row)) == set(typing.get_args(MergingSpec.model_fields[key].annotation))


def test_keys_that_the_page_names_exist() -> None:
    for table, key in re.findall(r"`(task|training|merging|trust|attestation|rounds)\.(\w+)", PAGE):
        model: typing.Any = Spec.model_fields[table].annotation
        assert key in model.model_fields, f"{table}.{key}"
