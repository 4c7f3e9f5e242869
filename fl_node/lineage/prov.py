"""A lineage as W3C PROV-JSON (https://www.w3.org/submissions/prov-json/), for tools that know that vocabulary.

Models, bases and the genesis are entities, merges and trainings activities, peers and sites agents. Names are qualified
by the ledger, so documents about one federation can be joined. Names of sites are strangers' text: they stand in
values, and in names as hexadecimal where they are not plain.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from fl_node.content.cid import Cid
from fl_node.content.names import cid_of_genesis, cid_of_update
from fl_node.lineage.kin import Edge, Lineage, Relatives
from fl_node.prefix import PeerFacts, Prefix, UpdateEntry
from fl_node.records import ZERO32, Rule, UpdateRef
from fl_node.spec import Spec

TERMS: Final = "urn:fl-node:terms:"
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_GENESIS: Final = "ledger:genesis"


@dataclass(slots=True)
class _Document:
    """Records by kind and name; relations get names of their own."""

    records: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def add(self, kind: str, name: str, **attributes: Any) -> None:
        self.records.setdefault(kind, {})[name] = {key.replace("_", ":", 1): value for key, value in attributes.items()}

    def relate(self, kind: str, **attributes: Any) -> None:
        known = self.records.setdefault(kind, {})
        known[f"_:{kind}{len(known) + 1}"] = {key.replace("_", ":", 1): value for key, value in attributes.items()}


def prov_json(prefix: Prefix, lineage: Lineage, spec: Spec | None = None) -> dict[str, Any]:
    """The document, JSON-ready.

    Where an update's parents are not part of the lineage (its other side, or farther away than was asked for), what it
    was merged from is left open, as PROV allows. A derivation of type ``fl:EffectiveDerivation`` stands for all ways
    between the root and a relative, with the effective share.

    Args:
        spec: tells which rounds train (``training.every``); without it all updates but closing ones count as trained.

    Raises:
        InconsistentLog: the log has no entry 0.
    """
    opened = prefix.opened
    document = _Document()
    edges: dict[UpdateRef, list[Edge]] = {}
    for edge in lineage.edges():
        edges.setdefault(edge.child, []).append(edge)
    entries = lineage.entries()
    for ref, entry in entries.items():
        merged = edges.get(ref, ())
        _update(document, entry, merged, trained=_trained(entry, spec))
        for edge in merged:
            if edge.parent is None:
                document.relate("used", prov_activity=_name("merge", ref), prov_entity=_GENESIS)
                base = _name("base", ref)
                document.relate("wasDerivedFrom", prov_generatedEntity=base, prov_usedEntity=_GENESIS)
    if any(edge.parent is None for merged in edges.values() for edge in merged):
        cid = cid_of_genesis(opened)
        document.add(
            "entity",
            _GENESIS,
            prov_type=_term("fl:Genesis"),
            prov_label="genesis: the initial weights",
            prov_location=_uri(f"ipfs://{cid}"),
            fl_weights=opened.genesis_weights.hex(),
        )
    _agents(document, [prefix.peer(peer) for peer in sorted({ref.peer for ref in entries})])
    if len(lineage.roots) == 1:
        _effective(document, lineage.roots[0].ref, lineage.ancestors, above=True)
        _effective(document, lineage.roots[0].ref, lineage.descendants, above=False)
    namespaces = {"ledger": f"urn:fl-node:{opened.chain_id}:{opened.ledger.lower()}:", "fl": TERMS}
    return {"prefix": namespaces, **document.records}


def _update(document: _Document, entry: UpdateEntry, merged: Iterable[Edge], *, trained: bool) -> None:
    """One update: its model and, where its parents are known here, base, merge and training."""
    ref, update = entry.ref, entry.update
    model, base, merge, training = (_name(kind, ref) for kind in ("model", "base", "merge", "training"))
    peer = f"ledger:peer-{ref.peer}"
    document.add(
        "entity",
        model,
        prov_type=_term("fl:ClosingModel" if entry.final else "fl:Model"),
        prov_label=f"model {ref}",
        prov_location=_uri(f"ipfs://{cid_of_update(update)}"),
        fl_round=entry.round,
        fl_entry=entry.index,
        **_recorded(entry.time_s),
        fl_weightsCommitment=update.weights.hex(),
        fl_claimedScorePpm=update.score_ppm,
        fl_trainingSamples=update.train_samples,
        **({} if update.report == ZERO32 else {"fl_report": _uri(f"ipfs://{Cid('raw', update.report)}")}),
    )
    document.relate("wasAttributedTo", prov_entity=model, prov_agent=peer)
    if not merged:
        return
    document.add("activity", merge, prov_type=_term("fl:Merge"), fl_rule=_rule(update.rule), fl_logSizeSeen=update.seen)
    document.add("entity", base, prov_type=_term("fl:Base"), prov_label=f"base of {ref}", fl_weights=update.base.hex())
    document.relate("wasAssociatedWith", prov_activity=merge, prov_agent=peer)
    document.relate("wasGeneratedBy", prov_entity=base, prov_activity=merge)
    document.relate("wasAttributedTo", prov_entity=base, prov_agent=peer)
    for edge in merged:
        if edge.parent is not None:
            parent = _name("model", edge.parent)
            told = {"fl_sharePpm": edge.share_ppm, "fl_nominal": edge.nominal}
            document.relate("used", prov_activity=merge, prov_entity=parent, **told)
            document.relate(
                "wasDerivedFrom", prov_generatedEntity=base, prov_usedEntity=parent, prov_activity=merge, **told
            )
    if not trained:
        # The weights published are the base itself.
        document.relate("wasDerivedFrom", prov_generatedEntity=model, prov_usedEntity=base)
        return
    document.add("activity", training, prov_type=_term("fl:Training"))
    document.relate("wasAssociatedWith", prov_activity=training, prov_agent=peer)
    document.relate("used", prov_activity=training, prov_entity=base)
    document.relate("wasGeneratedBy", prov_entity=model, prov_activity=training)
    document.relate("wasDerivedFrom", prov_generatedEntity=model, prov_usedEntity=base, prov_activity=training)


def _agents(document: _Document, peers: Iterable[PeerFacts]) -> None:
    for facts in peers:
        peer, site = f"ledger:peer-{facts.number}", _site_name(facts.site)
        document.add(
            "agent",
            peer,
            prov_type=_term("prov:SoftwareAgent"),
            prov_label=f"peer {facts.number}",
            fl_account=facts.account,
        )
        document.add("agent", site, prov_type=_term("prov:Organization"), prov_label=facts.site)
        document.relate("actedOnBehalfOf", prov_delegate=peer, prov_responsible=site)


def _effective(document: _Document, root: UpdateRef, relatives: Relatives | None, *, above: bool) -> None:
    for relative in relatives.updates if relatives is not None else ():
        late, early = (root, relative.ref) if above else (relative.ref, root)
        document.relate(
            "wasDerivedFrom",
            prov_generatedEntity=_name("model", late),
            prov_usedEntity=_name("model", early),
            prov_type=_term("fl:EffectiveDerivation"),
            fl_effectiveShare=float(relative.share),
            fl_nominal=relative.nominal,
            fl_steps=relative.steps,
        )


def _trained(entry: UpdateEntry, spec: Spec | None) -> bool:
    return not entry.final and (spec is None or (entry.round - 1) % spec.training.every == 0)


def _name(kind: str, ref: UpdateRef) -> str:
    return f"ledger:{kind}-{ref.peer}-{ref.sequence}"


def _site_name(site: str) -> str:
    """A name that any text has one of, and no two texts the same."""
    return f"ledger:site-{site}" if _PLAIN_NAME.fullmatch(site) else f"ledger:site.{site.encode().hex()}"


def _term(name: str) -> dict[str, str]:
    return {"$": name, "type": "xsd:QName"}


def _uri(text: str) -> dict[str, str]:
    return {"$": text, "type": "xsd:anyURI"}


def _recorded(time_s: int) -> dict[str, Any]:
    """The block time, as a date where there is such a date: a log that came in a file may hold any number."""
    try:
        date = dt.datetime.fromtimestamp(time_s, dt.UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return {"fl_recordedAtSeconds": str(time_s)}
    return {"fl_recordedAt": {"$": date, "type": "xsd:dateTime"}}


def _rule(number: int) -> str:
    return Rule(number).name.lower().replace("_", "-") if number in frozenset(Rule) else str(number)
