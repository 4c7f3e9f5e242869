"""A federation file may name code; nobody runs it before the operator has agreed."""

from __future__ import annotations

import pytest

from fl_node.errors import SpecError
from fl_node.spec import check_code, named_code, parse_federation

HOSTILE = b'[model]\nname = "subprocess:getoutput"\n[training]\nloop = "own:train"\n[task]\ndata = "own:rows"\n'


def test_the_names_are_found_and_refused_until_every_one_is_allowed() -> None:
    spec = parse_federation(HOSTILE).spec
    assert named_code(spec) == ("subprocess:getoutput", "own:train", "own:rows")
    for allowed in ("", "own:train,own:rows", "subprocess:getoutput", "subprocess"):
        with pytest.raises(SpecError, match=r"--allow-code"):
            check_code(spec, allowed)
    check_code(spec, "own:rows, subprocess:getoutput ,own:train")


@pytest.mark.parametrize("data", ["digits", "csv", "npz", "csv:rows.csv", "npz:rows.npz"])
def test_a_file_of_built_in_names_names_no_code(data: str) -> None:
    spec = parse_federation(f'[task]\ndata = "{data}"\n'.encode()).spec
    assert named_code(spec) == ()
    check_code(spec, "")
