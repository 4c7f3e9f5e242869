"""A second implementation of docs/replay-rules.md, sections 8, 9, 11 and 12, in plain Python, nothing of the package's.

A log is a list of dictionaries (see :func:`plain_log`), a spec a dictionary of tables. Everything is looked up anew for
each question, by the words of that page, with no thought of speed.
"""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction

PUBLISH, ATTEST = 1, 2
UNAVAILABLE, MALFORMED, MISMATCH, WITHDRAWN = 1, 2, 3, 4
NAMES = {1: "unavailable", 2: "malformed", 3: "digest-mismatch", 4: "withdrawn"}
#: Where another update takes the place of one that could not be had.
REPLACED = ("top-k", "best", "random-k", "ring")


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def u32(number):
    return number.to_bytes(4, "big")


def rational(value):
    return Fraction(repr(value))


class Seen:
    """The first ``size`` entries of a log, and the questions that the rules ask of them."""

    def __init__(self, log, size):
        self.size, self.kinds = size, {}
        for entry in log[:size]:
            self.kinds.setdefault(entry["kind"], []).append(entry)

    def of(self, kind):
        return self.kinds.get(kind, [])

    def members(self):
        return {entry["peer"]: entry for entry in self.of("admit")}

    def retired(self, peer):
        return next((entry for entry in self.of("retire") if entry["peer"] == peer), None)

    def counts(self, entry):
        gone = self.retired(entry["peer"])
        return gone is None or entry["index"] < gone["from"]

    def updates(self, peer):
        return [entry for entry in self.of("publish") if entry["peer"] == peer]

    def latest(self, peer):
        return ([entry for entry in self.updates(peer) if self.counts(entry)] or [None])[-1]

    def trained(self, peer):
        return ([e for e in self.updates(peer) if self.counts(e) and not e["final"]] or [None])[-1]

    def publishing(self):
        there = self.members()
        return sorted(p for p in there if there[p]["roles"] & PUBLISH and self.retired(p) is None)

    def site(self, peer):
        return self.members()[peer]["site"]

    def readers(self):
        """Members that can read what is sealed now: section 12."""
        found = []
        for peer in sorted(self.members()):
            said = [entry.get("key", "00" * 32) for entry in self.of("announce") if entry["peer"] == peer]
            if self.retired(peer) is None and said and usable(said[-1]):
                found.append(peer)
        return found[:256]

    def objections(self, update):
        name = [update["peer"], update["sequence"]]
        return [entry for entry in self.of("object") if entry["target"] == name and self.counts(entry)]

    def attestations(self, update):
        name = [update["peer"], update["sequence"]]
        return [
            (entry, item)
            for entry in self.of("attest")
            for item in entry["items"]
            if item[:2] == name and self.counts(entry)
        ]


P25519 = 2**255 - 19
#: RFC 7748's points of small order: 0, 1, p - 1, and the two of order 8.
SMALL = (
    0,
    1,
    P25519 - 1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)


def usable(key):
    number = int.from_bytes(bytes.fromhex(key), "little")
    return number < P25519 and number not in SMALL


def sealed_for(spec, log, update, peer):
    """Whether a peer can read an update, and all that it refers to."""
    for _ in range(spec["encoding"]["full_every"] + 1):
        own = update["peer"] == peer or not update.get("encrypted")
        if not own and peer not in Seen(log, min(update["sealed_at"], update["index"])).readers():
            return False
        publisher, sequence = update.get("refers_to", [0, 0])
        if publisher != update["peer"] or not 1 <= sequence < update["sequence"]:
            return True
        update = next(e for e in log if e["kind"] == "publish" and named(e) == [publisher, sequence])
    return True


def named(update):
    return [update["peer"], update["sequence"]]


def order_key(update):
    return bytes.fromhex(update["content"]) + u32(update["peer"]) + u32(update["sequence"])


def rank(log, account, sequence, update):
    seed = sha(bytes.fromhex(log[0]["spec_digest"]), bytes.fromhex(account), u32(sequence))
    return sha(seed, u32(update["peer"]))


def median(values):
    return sorted(values)[(len(values) - 1) // 2]


def attested_score(merging, words, update):
    sites = {}
    for entry, (_, _, score, base) in words.attestations(update):
        value = score - base if merging["measure"] == "improvement" else score
        sites.setdefault(words.site(entry["peer"]), []).append(value)
    sites.pop(words.site(update["peer"]), None)
    if len(sites) < merging["attesting_sites"]:
        return 0 if merging["unattested"] == "zero" else None
    return median([median(values) for values in sites.values()])


class Plain:
    """One selection by the rules: ``outcomes`` by peer, ``chosen`` updates, ``scores`` by update name."""

    def __init__(self, spec, log, own, before, view, words=None, cut=None):
        self.spec, self.merging, self.log, self.own, self.cut = spec, spec["merging"], log, own, cut
        self.before, self.view, self.words = Seen(log, before), Seen(log, view), Seen(log, words or view)
        mine = self.before.updates(own)
        self.sequence, self.previous = len(mine) + 1, mine[-1]["index"] if mine else -1
        self.policy = self.merging["selection"]
        self.attested = self.merging["scores"] == "attested" and self.policy != "ring"
        self.outcomes, self.passing, self.exempt = {}, {}, None
        for peer in sorted(self.view.members()):
            self.check(peer)
        self.chosen = sorted(self.decide(), key=named)
        for update in self.chosen:
            self.outcomes[update["peer"]] = "merged"
        self.scores = {tuple(named(update)): self.score(update) for update in self.chosen}

    def check(self, peer):
        if self.view.retired(peer) is not None:
            if self.view.updates(peer):
                self.outcomes[peer] = "retired"
            return
        if not self.view.members()[peer]["roles"] & PUBLISH:
            return
        if self.policy == "graph" and peer != self.own:
            newcomer = {self.own} - set(self.view.members())
            near = graph(self.spec, self.log, sorted({*self.view.publishing(), *newcomer})).get(self.own, set())
            if peer not in near:
                self.outcomes[peer] = "not-a-neighbour"
                return
        update = self.view.trained(peer)
        if self.cut is not None and (update is None or named(update) not in self.cut["present"]):
            early = update is not None and update["round"] == self.cut["previous"]
            self.outcomes[peer] = "missing" if not early and peer in self.cut["missing"] else "other-round"
            return
        if update is None:
            self.outcomes[peer] = "none-yet"
            return
        self.passing[peer] = update

    def fault(self, update):
        found = self.trouble(update)
        if found is None and update["samples"] < self.merging["min_samples"]:
            found = "too-few-samples"
        if found is None and self.attested and attested_score(self.merging, self.words, update) is None:
            strict = self.policy == "best" or (self.policy == "all-latest" and self.cut is not None)
            if update["peer"] != self.own or strict:
                found = "unattested"
                if update["peer"] == self.own:
                    self.exempt = update
        return found

    def trouble(self, update):
        if not sealed_for(self.spec, self.log, update, self.own):
            return "not-sealed"
        own_updates = self.view.updates(self.own)
        said = self.view.objections(update)
        if any(word["peer"] == update["peer"] and word["reason"] == WITHDRAWN for word in said):
            return "withdrawn"
        if sum(entry["index"] > update["index"] for entry in own_updates) > self.merging["max_staleness"]:
            return "stale"
        for word in self.before.objections(update):
            binds = word["reason"] != UNAVAILABLE or word["index"] > self.previous or self.policy in REPLACED
            if word["peer"] == self.own and binds:
                return NAMES[word["reason"]]
        words = [w for w in said if w["reason"] == UNAVAILABLE and w["index"] > self.previous]
        sites = {self.view.site(w["peer"]) for w in words if w["peer"] not in (self.own, update["peer"])}
        site = self.view.site(update["peer"])
        heard = any(self.words.site(entry["peer"]) != site for entry, _ in self.words.attestations(update))
        return "objected" if len(sites) >= self.merging["objection_quorum"] and not heard else None

    def score(self, update):
        if self.attested:
            found = attested_score(self.merging, self.words, update)
            if found is not None:
                return found
        return update["score"] - (update["base_score"] if self.merging["measure"] == "improvement" else 0)

    def decide(self):
        if self.policy == "ring":
            return self.tokens()
        mine = self.passing.get(self.own)
        others = [self.passing[peer] for peer in sorted(self.passing) if peer != self.own]
        if self.policy == "newer-than-merged":
            merged = {}
            for update in self.before.updates(self.own):
                for peer, sequence, share in update["parents"]:
                    if share:
                        merged[peer] = max(merged.get(peer, 0), sequence)
            others = [u for u in others if not self.out(u, "already-merged", u["sequence"] <= merged.get(u["peer"], 0))]
        keep = mine is not None and self.fault(mine) is None
        room = 64 - keep
        if self.policy in ("top-k", "above-own", "best"):
            others = [u for u in others if not self.faulty(u)]
            others.sort(key=lambda u: (-self.score(u), order_key(u)))
        if self.policy == "best":
            ranked = sorted(others + [mine] * keep, key=lambda u: (-self.score(u), order_key(u)))
            for update in ranked[1:]:
                self.outcomes[update["peer"]] = "outscored"
            if ranked and not keep and mine is not None:
                self.faulty(mine)
            return ranked[:1] or ([self.exempt] if self.exempt else self.lost(mine))
        if self.policy == "top-k":
            for update in others[self.merging["k"] :]:
                self.outcomes[update["peer"]] = "outscored"
            chosen = others[: self.merging["k"]]
        else:
            if self.policy == "above-own" and mine is not None:
                bar = self.score(mine)
                others = [u for u in others if not self.out(u, "outscored", self.score(u) <= bar)]
            chosen = self.drawn(others, min(room, self.merging["k"]) if self.policy == "random-k" else room)
        if keep:
            return [*chosen, mine]
        if mine is not None and self.faulty(mine) and self.exempt and not chosen:
            return [mine]
        return chosen

    def lost(self, mine):
        if mine is not None:
            self.faulty(mine)
        return []

    def out(self, update, outcome, condition):
        if condition:
            self.outcomes[update["peer"]] = outcome
        return condition

    def faulty(self, update):
        found = self.fault(update)
        return self.out(update, found, found is not None)

    def drawn(self, updates, most):
        if len(updates) <= most:
            return [update for update in updates if not self.faulty(update)]
        account = self.before.members()[self.own]["account"]
        taken = []
        for update in sorted(updates, key=lambda u: rank(self.log, account, self.sequence, u)):
            if len(taken) == most:
                self.outcomes[update["peer"]] = "not-drawn"
            elif not self.faulty(update):
                taken.append(update)
        return taken

    def tokens(self):
        rings = rings_of(self.merging)
        chosen = {}
        for peer in self.passing:
            self.outcomes[peer] = "not-the-token"
        said = {}
        for ring in [ring for ring in rings if place(ring, self.own) is not None] or rings:
            for update, _ in reversed(chain(self.spec, self.log, ring, self.view.size)):
                if self.view.retired(update["peer"]) is not None:
                    found = "retired"
                else:
                    found = self.trouble(update)
                    if found is None and update["samples"] < self.merging["min_samples"]:
                        found = "too-few-samples"
                if found is None:
                    chosen[update["index"]] = update
                    break
                said.setdefault(update["peer"], found)
        self.outcomes.update(said)
        return list(chosen.values())


# ---- rings ----


def rings_of(merging):
    return [list(ring) for ring in merging["rings"]] or [merging["initiator"]]


def place(ring, peer):
    if isinstance(ring, int):
        return (peer - ring) % 2**32
    return ring.index(peer) if peer in ring else None


def chain(spec, log, ring, size):
    """The tokens among the first ``size`` entries with their laps."""
    silent_s = rational(spec["merging"]["silent_s"])
    tokens = []
    for entry in log[:size]:
        if entry["kind"] != "publish" or entry["final"] or place(ring, entry["peer"]) is None:
            continue
        before = Seen(log, entry["index"])
        there = {
            place(ring, peer)
            for peer in before.publishing()
            if place(ring, peer) is not None and not (before.updates(peer) and before.updates(peer)[-1]["final"])
        }
        here = place(ring, entry["peer"])
        there.add(here)
        if not tokens:
            said = [e["time"] for e in before.of("announce") if place(ring, e["peer"]) is not None]
            start, waits, lap = (said or [log[0]["time"]])[0], sum(p < here for p in there), 1
        else:
            last, last_lap = tokens[-1]
            at = place(ring, last["peer"])
            if entry["seen"] <= last["index"]:
                continue
            if here > at:
                waits = sum(at < p < here for p in there)
            else:
                waits = sum(p > at for p in there) + sum(p < here for p in there)
            start, lap = last["time"], last_lap + (here <= at)
        if entry["time"] >= start + waits * silent_s:
            tokens.append((entry, lap))
    return tokens


# ---- graphs ----


def whole(edges, n):
    return n < 2 or len(reach(edges, 0)) == n


def reach(edges, start):
    found, border = {start}, {start}
    while border:
        border = {b for e in edges for b in e if e & border} - found
        found |= border
    return found


def circulant(n, degree):
    steps = [*range(1, degree // 2 + 1), *([n // 2] if degree % 2 else [])]
    return {frozenset((i, (i + s) % n)) for i in range(n) for s in steps if (i + s) % n != i}


def graph(spec, log, nodes):
    merging, n = spec["merging"], len(nodes)
    seed = sha(b"fl-node graph 1", bytes.fromhex(log[0]["spec_digest"]))
    kind = merging["graph"]
    if kind == "edges":
        pairs = [set(edge) for edge in merging["edges"] if set(edge) <= set(nodes)]
        return {peer: {b for pair in pairs if peer in pair for b in pair - {peer}} for peer in nodes}
    columns = math.ceil(math.sqrt(n))
    edges = {
        "line": lambda: {frozenset((i, i + 1)) for i in range(n - 1)},
        "ring": lambda: circulant(n, 2),
        "star": lambda: {frozenset((0, i)) for i in range(1, n)},
        "full": lambda: {frozenset((i, j)) for i in range(n) for j in range(i)},
        "grid": lambda: (
            {frozenset((i, i + 1)) for i in range(n - 1) if (i + 1) % columns}
            | {frozenset((i, i + columns)) for i in range(n - columns)}
        ),
        "random-regular": lambda: regular(n, merging["degree"], seed),
        "small-world": lambda: small_world(n, merging["degree"], rational(merging["rewire"]), seed),
    }[kind]()
    return {nodes[i]: {nodes[b] for e in edges if i in e for b in e - {i}} for i in range(n)}


def part(draw, start, end):
    return int.from_bytes(draw[start:end], "big")


def regular(n, degree, seed):
    degree = max(0, min(degree, n - 1))
    degree -= n * degree % 2
    begun = circulant(n, degree)
    places = sorted(tuple(sorted(edge)) for edge in begun)
    count = len(places)
    for tries in range(20):
        for t in range(10 * count * tries, 10 * count * (tries + 1)):
            draw = sha(seed, u32(t))
            one, two = part(draw, 0, 8) % count, part(draw, 8, 16) % count
            (a, b), (c, d) = places[one], places[two]
            if draw[16] % 2:
                c, d = d, c
            first, second = tuple(sorted((a, d))), tuple(sorted((c, b)))
            if a != d and c != b and first != second and first not in places and second not in places:
                places[one], places[two] = first, second
        edges = {frozenset(edge) for edge in places}
        if degree < 2 or whole(edges, n):
            return edges
    return begun


def small_world(n, degree, rewire, seed):
    q = max(1, min(degree, n - 1) // 2)
    for attempt in range(20):
        edges = circulant(n, 2 * q)
        for s in range(1, q + 1):
            for i in range(n):
                draw, edge = sha(seed, u32(attempt), u32(s), u32(i)), frozenset((i, (i + s) % n))
                if part(draw, 0, 8) < rewire * 2**64 and edge in edges:
                    free = [j for j in range(n) if j != i and frozenset((i, j)) not in edges]
                    if free:
                        edges.remove(edge)
                        edges.add(frozenset((i, free[part(draw, 8, 16) % len(free)])))
        if whole(edges, n):
            return edges
    return circulant(n, 2 * q)


# ---- attesting ----


def owed(spec, log, peer, round_number, cut):
    """What a peer is to attest for a synchronous round, as the log up to the cut has it."""
    merging, attestation = spec["merging"], spec["attestation"]
    view = Seen(log, cut["size"])
    member = view.members().get(peer)
    if attestation["mode"] == "none" or round_number % attestation["every"] or member is None:
        return []
    if view.retired(peer) is not None or not member["roles"] & ATTEST:
        return []
    found = []
    mine = view.updates(peer)
    for other in view.publishing():
        update = view.trained(other)
        if update is None or named(update) not in cut["present"] or view.site(other) == view.site(peer):
            continue
        if merging["selection"] == "graph" and other not in graph(spec, log, view.publishing()).get(peer, set()):
            continue
        said = view.objections(update)
        withdrawn = any(w["peer"] == other and w["reason"] == WITHDRAWN for w in said)
        stale = sum(entry["index"] > update["index"] for entry in mine) > merging["max_staleness"]
        objected = any(w["peer"] == peer for w in said)
        attested = any(entry["peer"] == peer for entry, _ in view.attestations(update))
        behind = [update]
        for parent_peer, parent_sequence, _ in update["parents"]:
            behind += [e for e in view.updates(parent_peer) if e["sequence"] == parent_sequence]
        if merging["clip"] != "none" or merging["aggregation"] == "centred-clipping":
            behind += [e for e in view.updates(other) if e["sequence"] == update["sequence"] - 1]
        unreadable = not all(sealed_for(spec, log, one, peer) for one in behind)
        if not (withdrawn or stale or objected or attested or unreadable):
            found.append(update)
    found.sort(key=lambda update: rank(log, member["account"], len(mine) + 1, update))
    return [tuple(named(u)) for u in found[: attestation["k"] if attestation["mode"] == "sample" else 64]]


def second_cut(spec, log, size, round_number, cut, now):
    """Up to where attestations count, from the first ``size`` entries and the clock; ``None`` while it waits."""
    left = {}
    for peer, _ in cut["present"]:
        left[peer] = set(owed(spec, log, peer, round_number, cut))
    begun = cut["deadline"] if cut["by_deadline"] else (log[cut["size"] - 1]["time"] if cut["size"] else 0)
    deadline = begun + math.ceil(spec["rounds"]["deadline_s"])
    if not any(left.values()):
        return cut["size"]
    for entry in log[cut["size"] : size]:
        if entry["time"] >= deadline:
            return entry["index"]
        if entry["kind"] == "attest":
            left.get(entry["peer"], set()).difference_update(tuple(item[:2]) for item in entry["items"])
        elif entry["kind"] == "object":
            target = tuple(entry["target"])
            for peer, refs in left.items():
                if peer == entry["peer"] or (entry["reason"] == WITHDRAWN and entry["peer"] == target[0]):
                    refs.discard(target)
        elif entry["kind"] == "retire":
            left.pop(entry["peer"], None)
            for peer in left:
                left[peer] = {ref for ref in left[peer] if ref[0] != entry["peer"]}
        if not any(left.values()):
            return entry["index"] + 1
    return size if now >= deadline else None


def plain_log(entries):
    """A log's entries as dictionaries of numbers, names and hexadecimal digits."""
    return [{"index": e.index, "time": e.time_s, **_body(e.body)} for e in entries]


def _body(body):
    match type(body).__name__:
        case "LedgerOpened":
            return {"kind": "open", "spec_digest": body.spec_digest.hex()}
        case "PeerAdmitted":
            account = body.account.removeprefix("0x")
            return {"kind": "admit", "peer": body.peer, "account": account, "site": body.site, "roles": int(body.roles)}
        case "PeerRetired":
            return {"kind": "retire", "peer": body.peer, "from": body.from_index}
        case "PeerAnnounced":
            key = {"key": body.recipient_key.hex()} if any(body.recipient_key) else {}
            return {"kind": "announce", "peer": body.peer, **key}
        case "UpdatePublished":
            update = body.update
            sealing = {"encrypted": True, "sealed_at": update.sealed_at} if update.flags & 2 else {}
            if update.refers_to:
                sealing["refers_to"] = [update.refers_to >> 32, update.refers_to & 0xFFFFFFFF]
            return {
                **sealing,
                "kind": "publish", "peer": body.peer, "sequence": update.sequence, "round": update.round,
                "final": bool(update.flags & 4), "seen": update.seen, "content": update.content.hex(),
                "score": update.score_ppm, "base_score": update.base_score_ppm, "samples": update.train_samples,
                "parents": [[p.peer, p.sequence, p.share_ppm] for p in body.parents],
            }  # fmt: skip
        case "UpdatesAttested":
            items = [[i.peer, i.sequence, i.score_ppm, i.base_score_ppm] for i in body.items]
            return {"kind": "attest", "peer": body.peer, "items": items}
        case "UpdateObjected":
            target = [body.target.peer, body.target.sequence]
            return {"kind": "object", "peer": body.peer, "target": target, "reason": int(body.reason)}
    raise AssertionError(f"no plain form of {body}")
