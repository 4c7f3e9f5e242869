"""A second implementation of docs/replay-rules.md, sections 6 and 7, in plain Python: no numpy, nothing of the package.

A model is ``{name: (dtype, shape, values)}``, values a flat list. A candidate is (order key, samples, score, staleness,
trust). Python's own float arithmetic is IEEE 754 double precision, one operation at a time.
"""

from __future__ import annotations

import math
import struct
from fractions import Fraction

FLOATS = ("F32", "F64")
NUMBERS = {
    "fedavg": 1, "uniform": 2, "score": 3, "trust": 4, "median": 5, "trimmed-mean": 6, "krum": 7, "multi-krum": 8,
    "geometric-median": 9, "centred-clipping": 10,
}  # fmt: skip


def rounded(dtype, value):
    return (struct.unpack("<f", struct.pack("<f", value))[0] if dtype == "F32" else value) + 0.0


def in_order(terms):
    total = 0.0
    for term in terms:
        total = total + term
    return total


def halving(terms):
    terms = list(terms)
    while len(terms) > 1:
        half = (len(terms) + 1) // 2
        terms = [terms[i] + terms[i + half] if i + half < len(terms) else terms[i] for i in range(half)]
    return terms[0] if terms else 0.0


def over_model(left, right):
    """Sum of left * right over two lists of flat tensors."""
    leaves = []
    for one, other in zip(left, right, strict=True):
        for start in range(0, len(one), 32_768):
            pairs = zip(one[start : start + 32_768], other[start : start + 32_768], strict=True)
            leaves.append(halving(a * b for a, b in pairs))
    return halving(leaves)


def usable(square):
    return math.inf if math.isnan(square) else max(square, 0.0)


def float_names(model):
    return [name for name in sorted(model, key=lambda name: name.encode()) if model[name][0] in FLOATS]


def away_from(model, point):
    return [[x - c for x, c in zip(model[name][2], point[name][2], strict=True)] for name in float_names(model)]


def whole_shares(weights, keys, whole=1_000_000):
    weights = [Fraction(weight) for weight in weights]
    if not any(weights):
        weights = [Fraction(1)] * len(weights)
    quotas = [weight * whole / sum(weights) for weight in weights]
    shares = [math.floor(quota) for quota in quotas]
    ranked = sorted(range(len(quotas)), key=lambda k: (-(quotas[k] - shares[k]), keys[k]))
    for k in ranked[: whole - sum(shares)]:
        shares[k] += 1
    return shares


def rule_for(policy, count):
    f = policy["byzantine"]
    least = {"krum": 2 * f + 3, "multi-krum": 2 * f + 3, "trimmed-mean": 2 * f + 1}.get(policy["aggregation"], 1)
    return policy["aggregation"] if count >= least else "median"


def merged(policy, candidates, models, centre):
    """(rule number, shares, base) of candidates in any order; shares in that order."""
    order = sorted(range(len(candidates)), key=lambda k: candidates[k][0])
    shares, base = in_key_order(policy, [candidates[k] for k in order], [models[k] for k in order], centre)
    placed = [0] * len(order)
    for position, k in enumerate(order):
        placed[k] = shares[position]
    return NUMBERS[rule_for(policy, len(models))], placed, base


def in_key_order(policy, candidates, models, centre):
    keys = [candidate[0] for candidate in candidates]
    rule = rule_for(policy, len(models))
    if policy["clip"] != "none":
        models = clipped(policy, models, centre)
    if rule in ("krum", "multi-krum"):
        shares = krum_shares(policy, rule, models, keys)
    else:
        shares = plain_shares(policy, rule, candidates, keys)
    if rule in ("median", "trimmed-mean"):
        trim = policy["byzantine"] if rule == "trimmed-mean" else (len(models) - 1) // 2
        return shares, middle(models, trim)
    if rule == "geometric-median":
        return shares, geometric_median(models, policy["iterations"])
    if rule == "centred-clipping":
        return shares, centred(models, centre, policy["clip_norm"], policy["iterations"])
    return shares, mean(models, shares)


def plain_shares(policy, rule, candidates, keys):
    if rule == "trust":
        count, row = len(candidates), [candidate[4] for candidate in candidates]
        least = min(policy["floor_ppm"], 1_000_000 // count)
        rest = whole_shares([max(0, trust - least) for trust in row], keys, 1_000_000 - count * least)
        return [least + share for share in rest]
    weights = []
    for _, samples, score, staleness, _ in candidates:
        cap = policy["sample_cap"]
        weight = {"fedavg": min(samples, cap) if cap else samples, "score": max(0, score)}.get(rule, 1)
        discount = policy["staleness_discount"] and rule in ("fedavg", "uniform", "score")
        weights.append(Fraction(weight, 1 + staleness) if discount else weight)
    return whole_shares(weights, keys)


def krum_shares(policy, rule, models, keys):
    count, f = len(models), policy["byzantine"]
    scores = []
    for i in range(count):
        squares = []
        for j in range(count):
            if j != i:
                way = away_from(models[min(i, j)], models[max(i, j)])
                squares.append(usable(over_model(way, way)))
        scores.append(in_order(sorted(squares)[: count - f - 2]))
    most = count - f
    keep = 1 if rule == "krum" else min(policy["keep"] or most, most)
    best = sorted(range(count), key=lambda i: (scores[i], keys[i]))[:keep]
    kept = sorted(best)
    shares = [0] * count
    for k, share in zip(kept, whole_shares([1] * keep, [keys[k] for k in kept]), strict=True):
        shares[k] = share
    return shares


def mean(models, shares):
    used = [k for k, share in enumerate(shares) if share]
    heaviest = max(used, key=lambda k: shares[k])
    base = {}
    for name, (dtype, shape, values) in models[0].items():
        if dtype not in FLOATS:
            base[name] = models[heaviest][name]
            continue
        sums = [in_order(models[k][name][2][i] * float(shares[k]) for k in used) for i in range(len(values))]
        base[name] = (dtype, shape, [rounded(dtype, total / 1_000_000.0) for total in sums])
    return base


def middle(models, trim):
    base = {}
    for name, (dtype, shape, values) in models[0].items():
        columns = [sorted(model[name][2][i] for model in models) for i in range(len(values))]
        if dtype not in FLOATS:
            base[name] = (dtype, shape, [column[(len(models) - 1) // 2] for column in columns])
            continue
        found = []
        for column in columns:
            left = column[trim : len(models) - trim]
            total = left[0]
            for value in left[1:]:
                total = total + value
            found.append(rounded(dtype, total / float(len(left))))
        base[name] = (dtype, shape, found)
    return base


def clipped(policy, models, centre):
    ways = [away_from(model, centre) for model in models]
    distances = [math.sqrt(usable(over_model(way, way))) for way in ways]
    limit = policy["clip_norm"]
    if policy["clip"] == "median":
        ranked = sorted(distances)
        low, high = ranked[(len(ranked) - 1) // 2], ranked[len(ranked) // 2]
        limit = low if low == high else (low + high) / 2.0
    found = []
    for model, distance in zip(models, distances, strict=True):
        near = dict(model)
        if distance > limit:
            scale = limit / distance
            for name in float_names(model):
                dtype, shape, values = model[name]
                pulled = [(x - c) * scale + c for x, c in zip(values, centre[name][2], strict=True)]
                near[name] = (dtype, shape, [rounded(dtype, value) for value in pulled])
        found.append(near)
    return found


def gram(models, point):
    ways = [away_from(model, point) for model in models]
    return [[over_model(ways[min(i, j)], ways[max(i, j)]) for j in range(len(ways))] for i in range(len(ways))]


def distances_to(table, coefficients):
    used = [i for i, coefficient in enumerate(coefficients) if coefficient != 0.0]
    towards = [in_order(row[i] * coefficients[i] for i in used) for row in table]
    own = in_order(coefficients[i] * towards[i] for i in used)
    return [math.sqrt(usable((table[k][k] - 2.0 * towards[k]) + own)) for k in range(len(table))]


def geometric_median(models, iterations):
    start = middle(models, (len(models) - 1) // 2)
    table = gram(models, start)
    weights = [1.0 / max(2.0**-20, math.sqrt(usable(table[k][k]))) for k in range(len(models))]
    for _ in range(iterations - 1):
        whole = in_order(weights)
        if whole == 0.0:
            break
        distances = distances_to(table, [weight / whole for weight in weights])
        weights = [1.0 / max(2.0**-20, distance) for distance in distances]
    if in_order(weights) == 0.0:
        weights = [1.0] * len(models)
    base = dict(start)
    for name in float_names(start):
        dtype, shape, values = start[name]
        found = []
        for i in range(len(values)):
            total = in_order(model[name][2][i] * weight for model, weight in zip(models, weights, strict=True))
            found.append(rounded(dtype, total / in_order(weights)))
        base[name] = (dtype, shape, found)
    return base


def centred(models, centre, limit, iterations):
    count, table = len(models), gram(models, centre)
    ways = [0.0] * count
    for _ in range(iterations):
        scales = [limit / distance if distance > limit else 1.0 for distance in distances_to(table, ways)]
        rest = 1.0 - in_order(scales) / float(count)
        ways = [way * rest + scale / float(count) for way, scale in zip(ways, scales, strict=True)]
    base = dict(middle(models, (count - 1) // 2))
    for name in float_names(base):
        dtype, shape, values = base[name]
        found = []
        for i in range(len(values)):
            c = centre[name][2][i]
            total = in_order((model[name][2][i] - c) * way for model, way in zip(models, ways, strict=True))
            found.append(rounded(dtype, total + c))
        base[name] = (dtype, shape, found)
    return base
