"""A report as one page for people: no script, nothing loaded from elsewhere, every stranger's text escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from fl_node.audit.told import alike
from fl_node.audit.verdicts import CHECKS, Result

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SIGNS: Final = {"ok": "✓", "outlier": "≈", "unknown": "?", "contradicted": "≠", "suspicious": "!", "failed": "✗"}
#: The last one is about the federation as a whole.
_OF_UPDATES: Final = CHECKS[:-1]
#: A table that may be wider than the page; in reach of the keyboard, so that it can be scrolled.
_WIDE: Final = '<div class="wide" tabindex="0">'
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --quiet: #57606a; --line: #d8dee4; --soft: #f6f8fa;
  --ok: #1a7f37; --outlier: #0969da; --unknown: #7d4e00; --contradicted: #8250df; --suspicious: #8250df;
  --failed: #b31d28 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --quiet: #9198a1; --line: #3d444d;
  --soft: #151b23; --ok: #3fb950; --outlier: #58a6ff; --unknown: #d9a33a; --contradicted: #c297ff;
  --suspicious: #c297ff; --failed: #ff7b72 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 78rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; margin: 0 0 .25rem } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
p { margin: .25rem 0 } .quiet { color: var(--quiet) } code { font: 12.5px/1.4 ui-monospace, monospace;
  overflow-wrap: anywhere }
.verdict { font-size: 1.1rem; font-weight: 600 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 1rem 0 } dt { color: var(--quiet) }
dd { margin: 0; overflow-wrap: anywhere }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
th { font-weight: 600; background: var(--soft); white-space: nowrap } a { color: var(--outlier) }
td.n { text-align: right } td.s { text-align: center }
.ok { color: var(--ok) } .outlier { color: var(--outlier) } .unknown { color: var(--unknown) }
.contradicted { color: var(--contradicted) } .suspicious { color: var(--suspicious) }
.failed { color: var(--failed); font-weight: 600 }
details { border-bottom: 1px solid var(--line); padding: .3rem 0 } summary { cursor: pointer }
summary:focus-visible, .wide:focus-visible { outline: 2px solid var(--outlier) } li { margin: .4rem 0 }
@media print { details > * { display: block } body { max-width: none } }
"""


def page(told: Mapping[str, Any]) -> str:
    """The page of a report as :func:`fl_node.audit.told.as_json` has it."""
    facts = told["facts"]
    title = f"Audit of {facts.get('name') or facts.get('contract') or 'a ledger'}"
    parts = [
        f"<h1>{_text(title)}</h1>",
        f'<p class="verdict {_word(told["verdict"])}">{_sign(told["verdict"])} {_text(_sentence(told))}</p>',
        _facts(facts),
        "<h2>Checks</h2>",
        _summary(told["counts"]),
        *_trouble(told),
        "<h2>Updates</h2>",
        '<p class="quiet">One column a check, by its number above. Open an update for every detail.</p>',
        _matrix(told["updates"]),
        *_details(told["updates"]),
    ]
    if told["notes"]:
        parts += ["<h2>Notes</h2>", _list(_text(note) for note in told["notes"])]
    parts += ["<h2>What each check proves, and what it does not</h2>", _meaning()]
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body><main>"
    )
    return head + "\n".join(parts) + "</main></body></html>\n"


def _sentence(told: Mapping[str, Any]) -> str:
    count, results = told["counted"], sum(sum(by.values()) for by in told["counts"].values())
    if told["verdict"] != Result.OK:
        return f"{told['verdict']}: {count} of {results} results count against it at --fail-on {told['fail_on']}"
    unknown = sum(by.get(Result.UNKNOWN, 0) for by in told["counts"].values())
    aside = f", {unknown} of them unknown, which does not count at this level" if unknown else ""
    return f"ok: none of {results} results counts against it at --fail-on {told['fail_on']}{aside}"


def _facts(facts: Mapping[str, Any]) -> str:
    names = {
        "contract": "ledger",
        "chain_id": "chain",
        "size": "entries",
        "root": "root",
        "block": "block",
        "block_hash": "block hash",
        "depth": "blocks on top asked for",
        "spec_digest": "SHA-256 of the spec",
        "rpc": "endpoint",
    }
    rows = [
        f"<dt>{name}</dt><dd><code>{_text(facts[key])}</code></dd>"
        for key, name in names.items()
        if facts.get(key) is not None
    ]
    return f"<dl>{''.join(rows)}</dl>"


def _summary(counts: Mapping[str, Mapping[str, int]]) -> str:
    head = "".join(f"<th>{_sign(result)} {result.value}</th>" for result in Result)
    rows = []
    for check in CHECKS:
        if check.name in counts:
            cells = "".join(_count(counts[check.name].get(result.value, 0), result) for result in Result)
            rows.append(f'<tr><td class="n">{check.number}</td><th scope="row">{check.name}</th>{cells}</tr>')
    return f"{_WIDE}<table><thead><tr><th>#</th><th>check</th>{head}</tr></thead>{''.join(rows)}</table></div>"


def _count(number: int, result: Result) -> str:
    return f'<td class="n {result.value}">{number}</td>' if number else '<td class="n quiet">·</td>'


def _trouble(told: Mapping[str, Any]) -> list[str]:
    """What is not ``ok``, failures first."""
    found: dict[tuple[str, str, str], tuple[str, list[str]]] = {}
    for item in told["findings"]:
        if item["result"] != Result.OK:
            found[(item["result"], item["check"], item["detail"])] = (item["detail"], [])
    for update in told["updates"]:
        for item in update["findings"]:
            if item["result"] != Result.OK:
                key = (item["result"], item["check"], alike(item["detail"]))
                found.setdefault(key, (item["detail"], []))[1].append(update["update"])
    if not found:
        return []
    order = [result.value for result in Result]
    items = []
    for (result, check, _), (detail, refs) in sorted(found.items(), key=lambda one: -order.index(one[0][0])):
        whom = f"<strong>{_text(', '.join(refs[:12]))}{' …' if len(refs) > 12 else ''}</strong>: " if refs else ""
        label = f'<span class="{_word(result)}">{_sign(result)} {_text(result)}</span> {_text(check)}'
        items.append(f"{label}: {whom}{_text(detail)}")
    return ["<h2>What is not ok</h2>", _list(items)]


def _matrix(updates: Iterable[Mapping[str, Any]]) -> str:
    head = "".join(f'<th title="{check.name}">{check.number}</th>' for check in _OF_UPDATES)
    rows = []
    for update in updates:
        by_check = {item["check"]: item["result"] for item in update["findings"]}
        cells = "".join(_cell(by_check.get(check.name), check.name) for check in _OF_UPDATES)
        name = f'<a href="#u-{_word(update["update"])}">{_text(update["update"])}</a>'
        rows.append(
            f'<tr><th scope="row">{name}</th><td>{_text(update["site"])}</td><td class="n">{update["round"]}</td>'
            f"{cells}</tr>"
        )
    return (
        f"{_WIDE}<table><thead><tr><th>update</th><th>site</th><th>round</th>{head}</tr></thead>"
        f"{''.join(rows)}</table></div>"
    )


def _cell(result: str | None, check: str) -> str:
    if result is None:
        return '<td class="s quiet">·</td>'
    return f'<td class="s {_word(result)}" title="{check}: {_word(result)}">{_sign(result)}</td>'


def _details(updates: Iterable[Mapping[str, Any]]) -> list[str]:
    parts = []
    for update in updates:
        items = []
        for item in update["findings"]:
            repeat = f"<br><code>{_text(item['repeat'])}</code>" if item.get("repeat") else ""
            label = f'<span class="{_word(item["result"])}">{_sign(item["result"])} {_text(item["result"])}</span>'
            items.append(f"{label} <strong>{_text(item['check'])}</strong>: {_text(item['detail'])}{repeat}")
        head = f"{_sign(update['result'])} {_text(update['update'])}, entry {update['entry']}, {_text(update['site'])}"
        parts.append(
            f'<details id="u-{_word(update["update"])}"><summary class="{_word(update["result"])}">{head}</summary>'
            f"{_list(items)}</details>"
        )
    return parts


def _meaning() -> str:
    rows = "".join(
        f'<tr><td class="n">{check.number}</td><th scope="row">{check.name}</th><td>{_text(check.proves)}</td>'
        f"<td>{_text(check.limits)}</td></tr>"
        for check in CHECKS
    )
    head = "<tr><th>#</th><th>check</th><th>proves that</th><th>does not prove</th></tr>"
    return f"{_WIDE}<table><thead>{head}</thead>{rows}</table></div>"


def _list(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def _text(value: object) -> str:
    """Text that can neither act nor disguise."""
    return html.escape(_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", str(value)))


def _word(value: object) -> str:
    """A value fit for a class or an anchor."""
    return re.sub(r"[^A-Za-z0-9-]", "-", str(value))


def _sign(result: object) -> str:
    return _SIGNS.get(str(result), "·")
