"""What a spec says of privacy and does not do: refused where somebody would rely on it, else told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_node.chains import FUNDERS, DevChain, call
from fl_node.coherence import warnings_of
from fl_node.errors import SpecError
from fl_node.spec import Spec, parse_federation

ROOT = Path(__file__).resolve().parents[2]


def parsed(text: str) -> Spec:
    return parse_federation(text.encode()).spec


@pytest.mark.parametrize(
    "line",
    [
        "epsilon = 3.0",
        "epsilon = 8.0",  # the default, as in the documentation
        "delta = 1e-6",
        "clip_norm = 2.0",
        "noise_multiplier = 1.0",
        "secure_random = true",
        'scores = "withheld"',
        "score_step_ppm = 1000",
    ],
)
def test_a_budget_without_a_mechanism_is_refused(line: str) -> None:
    with pytest.raises(SpecError, match=rf"privacy.{line.split()[0]} = .*without privacy.mechanism.*'example'"):
        parsed(f"[privacy]\n{line}\n")
    for mechanism in ("example", "none"):
        parsed(f'[privacy]\nmechanism = "{mechanism}"\n{line}\n')


def told(text: str) -> tuple[str, ...]:
    spec = parsed(text)
    return warnings_of(spec.encoding, spec.privacy)


def test_what_does_nothing_is_told() -> None:
    assert told("") == told('[encoding]\nkind = "f16"\ncompress = "never"\n[privacy]\nkey_wait_s = 1.0\n') == ()
    assert told('[encoding]\nkind = "f16"\ndensity = 0.42\n[privacy]\nmechanism = "none"\nepsilon = 8.0\n') == ()
    (text,) = told('[privacy]\nmechanism = "none"\nepsilon = 3.0\n')
    assert "these keys protect nothing: epsilon = 3.0" in text
    (text,) = told('[encoding]\nkind = "f16"\ndensity = 0.1\nfull_every = 5\n')
    assert "kind = 'f16' these keys do nothing: full_every = 5, density = 0.1" in text
    (text,) = told('[encoding]\nkind = "int8-delta"\ndensity = 0.1\nblock = 64\n')
    assert "these keys do nothing: density = 0.1" in text
    assert told('[encoding]\nkind = "top-k-delta"\ndensity = 0.1\nblock = 64\n') == ()
    (text,) = told("[privacy]\nencrypt = false\n")
    assert "everybody who can reach" in text and "for ever" in text


# ---- at deployment


@pytest.fixture(scope="module")
def chain() -> Iterator[DevChain]:
    with DevChain.start("anvil") as running:
        yield running


def deploy(chain: DevChain, folder: Path, spec: str) -> tuple[int, str]:
    path = folder / "federation.toml"
    path.write_text(spec)
    argv = [sys.executable, str(ROOT / "scripts" / "deploy_contract.py"), "--rpc", chain.rpc_url, "--spec", str(path)]
    argv += ["--member", FUNDERS[1][0]]
    paths = {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **paths})
    return done.returncode, done.stderr


def test_a_deployment_in_the_clear_says_so(chain: DevChain, tmp_path: Path) -> None:
    code, err = deploy(chain, tmp_path, "[privacy]\nencrypt = false\n[encoding]\ndensity = 0.1\n")
    assert code == 0
    assert "warning: privacy.encrypt = false: everybody who can reach" in err and "for ever" in err
    assert "warning: with encoding.kind = 'f32' these keys do nothing: density = 0.1" in err


def test_a_model_that_no_peer_could_train_is_not_deployed(chain: DevChain, tmp_path: Path) -> None:
    before = int(call(chain.rpc_url, "eth_blockNumber"), 16)
    spec = '[model]\nname = "private_models:mixing"\n[privacy]\nmechanism = "{}"\n'
    code, err = deploy(chain, tmp_path, spec.format("example"))
    assert code == 3 and "private_models:mixing" in err and "Traceback" not in err
    assert int(call(chain.rpc_url, "eth_blockNumber"), 16) == before
    assert [path.name for path in tmp_path.iterdir()] == ["federation.toml"]
    code, err = deploy(chain, tmp_path, spec.format("update"))
    assert code == 0 and err == ""
