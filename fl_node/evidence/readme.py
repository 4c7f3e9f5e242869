"""A pack's README.txt: for a person who has the file and nothing else."""

from __future__ import annotations

from typing import Final

from fl_node.evidence.layout import Manifest

_TEXT = """\
EVIDENCE PACK

This file holds what it takes to check updates of a federation of machine-learning peers: without its chain, without
its peers, on any machine.

  ledger        chain {chain_id}, contract {contract}, from block {first_block}
  spec          SHA-256 {spec_digest}
  log           {size} entries, root {root}
  read at       block {block}, hash {block_hash}
  about         {scope}{blobs}
{plain}
WITH FL-NODE

  fl-node verify PACK.zip

checks every file against the manifest, replays what the log says, and names what does not hold. It needs no network.
`fl-node verify --help` lists what can be asked for.

WITH ORDINARY TOOLS

  unzip PACK.zip -d pack && cd pack
  sha256sum --check manifest.sha256
  jq -r '.files[] | "\\(.sha256)  \\(.path)"' manifest.json | sha256sum --check --quiet

An entry's leaf in the Merkle tree (RFC 9162) is SHA-256 of a zero byte, its topics and its data:

  entry=17
  cat log/*.jsonl | jq -r "select(.index == $entry) | ([\\"00\\"] + .topics + [.data]) | add" | xxd -r -p | sha256sum
  cat proofs/inclusion/*.jsonl | jq "select(.index == $entry)"

The spec's digest, which entry 0 holds; a report, whose name is its content's CID; weights, as a CAR:

  sed '/^# ---- deployment/,$d' federation.toml | sha256sum
  ls reports blobs

WHAT IS IN IT

  manifest.json         what this is, and each file's size and SHA-256; manifest.sha256 has its own
  federation.toml       the spec, byte for byte, and where the federation is deployed
  log/                  every entry of the ledger up to the block above, as the chain gave it
  transactions/         signed transactions that made the entries: whose key asked for what
  proofs/inclusion/     for each entry the hashes from its leaf to the root
  proofs/consistency/   that earlier logs which somebody had seen are prefixes of this one
  checkpoints/          what others signed of the log, off the chain
  genesis.safetensors   the initial weights
  reports/              what publishers said about their updates
  blobs/                weights by CID, as they were published, as CARv1
  plain/                weights in the clear, of updates that are encrypted elsewhere
  lineage.prov.json     which updates came from which, as W3C PROV-JSON

A folder that is not there had nothing to hold, or it could not be had.

WHAT ONLY A CHAIN CAN ADD

That these blocks are part of it now, and that nothing was appended since.

The format: docs/evidence-pack.md of fl-node.
"""


_PLAIN: Final = """
KEEP IT TO YOURSELF

This pack holds, in plain/, weights in the clear that everybody else has encrypted only. Who has this file can use these
models, and try to learn from them about the rows that they were trained on. Nothing in the file keeps anybody from
that: give it to nobody who may not read every one of them. A pack without them is `fl-node export` without --identity.
"""


def readme(manifest: Manifest) -> bytes:
    """The text, from what the manifest says of the pack as a whole."""
    head = manifest.head
    text = _TEXT.format(
        chain_id=manifest.chain_id,
        contract=manifest.contract,
        first_block=manifest.first_block,
        spec_digest=manifest.spec_digest.hex(),
        size=head.size,
        root=head.root.hex(),
        block=head.block_number,
        block_hash=head.block_hash.hex(),
        scope=manifest.scope,
        blobs=", with weights" if manifest.blobs or manifest.plain else ", without weights",
        plain=_PLAIN if manifest.plain else "",
    )
    return text.encode()
