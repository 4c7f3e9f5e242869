"""Lists and pictures of a lineage: well formed, complete, and with names that try to be more than names."""

from __future__ import annotations

import random
import re
from xml.etree import ElementTree

import pytest
from federations import HOSTILE, alike, in_step, one_by_one, ruled
from logs import Log

from fl_node.errors import UsageError
from fl_node.lineage import trace, trace_site
from fl_node.lineage.dot import dot
from fl_node.lineage.names import for_dot, for_xml, visible
from fl_node.lineage.svg import svg
from fl_node.lineage.tree import tree
from fl_node.records import Reason, Rule, UpdateRef

SVG = "{http://www.w3.org/2000/svg}"


def test_hostile_names_stay_text_in_svg() -> None:
    prefix = in_step(len(HOSTILE), 3, random.Random(0), HOSTILE).prefix
    picture = svg(trace(prefix, UpdateRef(2, 2)))
    root = ElementTree.fromstring(picture)
    assert {element.tag.removeprefix(SVG) for element in root.iter()} == {
        *("svg", "title", "desc", "style", "rect", "text", "line", "g", "circle", "path"),
    }
    known = {"class", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "d", "id", "width", "height", "viewBox"}
    known |= {"text-anchor", "stroke-width", "role", "aria-labelledby"}
    assert {name for element in root.iter() for name in element.attrib} == known
    titles = " ".join(element.text or "" for element in root.iter(f"{SVG}title"))
    for name in HOSTILE:
        assert visible(name) in titles
    style = root.find(f"{SVG}style")
    assert style is not None and "prefers-color-scheme:dark" in (style.text or "")
    assert not any(ord(letter) < 32 and letter != "\n" for letter in picture) and "\u202e" not in picture
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "")


_STRING = r'"(?:[^"\\]|\\.)*"'
_WORD = r"[A-Za-z0-9_.]+"
_LIST = rf"\[(?: ?{_WORD}=(?:{_STRING}|{_WORD}),?)*\]"
_SAME = rf"\{{ rank=same; /\* round \d+ \*/ (?:{_WORD}; ?)+\}}"
_STATEMENT = re.compile(rf" *(?:(?P<edge>{_WORD} -> {_WORD}) {_LIST};|(?P<node>{_WORD}) {_LIST};|{_SAME})")


def test_hostile_names_stay_text_in_dot() -> None:
    prefix = in_step(len(HOSTILE), 3, random.Random(0), HOSTILE).prefix
    lineage = trace(prefix, UpdateRef(2, 2))
    head, *lines, foot = dot(lineage).splitlines()
    assert (head, foot) == ("digraph lineage {", "}")
    found = [_STATEMENT.fullmatch(line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if not match]
    edges = {match["edge"] for match in found if match and match["edge"]}
    nodes = {match["node"] for match in found if match and match["node"]}
    assert edges == {
        f"{'genesis' if edge.parent is None else _id(edge.parent)} -> {_id(edge.child)}" for edge in lineage.edges()
    }
    assert nodes == {"graph", "node", "edge", "genesis", *map(_id, lineage.entries())}


def _id(ref: UpdateRef) -> str:
    return f"u{ref.peer}_{ref.sequence}"


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ('a"b', '"a\\"b"'),
        ("a\\", '"a\\\\"'),
        ("\\N", '"\\\\N"'),
        ("&lt;", '"&amp;lt;"'),
        ("a\nb", '"a\\\\u000ab"'),
    ],
)
def test_quoting_for_graphviz(text: str, quoted: str) -> None:
    assert for_dot(text) == quoted


def test_quoting_for_xml() -> None:
    assert for_xml('<a b="c">\'&\x00\ufffe') == "&lt;a b=&quot;c&quot;&gt;&#39;&amp;\\u0000\\ufffe"
    assert for_dot("a", "b") == '"a\\nb"'


def test_svg_has_every_update_and_merge() -> None:
    lineage = trace(in_step(8, 10, random.Random(1)).prefix, UpdateRef(3, 7))
    root = ElementTree.fromstring(svg(lineage))
    paths = root.findall(f"{SVG}path")
    assert len(paths) == len(list(lineage.edges()))
    merges = {(path.find(f"{SVG}title").text or "") for path in paths}  # type: ignore[union-attr]
    assert len(merges) == len(paths) and any(re.fullmatch(r"3#7 merged 1#6, share \d+\.\d\d %", m) for m in merges)
    texts = [element.text or "" for element in root.iter(f"{SVG}text")]
    assert {f"round {number}" for number in range(1, 11)} <= set(texts)
    told = [text.split()[0] for text in texts]
    assert all(str(ref) in told for ref in lineage.entries())
    # Closing updates are squares: the ground is the only other rectangle.
    assert len(list(root.iter(f"{SVG}rect"))) == 8 + 1
    widths = {float(path.get("stroke-width", "0")) for path in paths}
    assert min(widths) > 0.5 and max(widths) <= 7


def test_svg_of_a_federation_that_does_not_keep_step() -> None:
    """A slow peer merges what is of later rounds: lines run back, and everything stays inside the picture."""
    log = Log(3)
    one = log.publish(1, 1)
    two = log.publish(1, 2, parents=alike([one]))
    slow = log.publish(2, 1, parents=alike([two]))
    ruled(log, Rule.MEDIAN)
    last = log.publish(3, 3, parents=alike([slow, one]))
    root = ElementTree.fromstring(svg(trace(log.prefix, last)))
    width, height = float(root.get("width", "0")), float(root.get("height", "0"))
    for circle in root.iter(f"{SVG}circle"):
        assert 0 < float(circle.get("cx", "0")) < width and 0 < float(circle.get("cy", "0")) < height
    assert any("dashed" in (path.get("class") or "") for path in root.iter(f"{SVG}path"))
    texts = [element.text or "" for element in root.iter(f"{SVG}text")]
    assert any(text.startswith("1#2 · (") for text in texts)


def test_svg_refuses_what_nobody_could_read() -> None:
    prefix = in_step(30, 25, random.Random(2)).prefix
    with pytest.raises(UsageError, match="--levels"):
        svg(trace(prefix, UpdateRef(1, 25)))
    assert svg(trace(prefix, UpdateRef(1, 25), levels=2)).startswith("<svg")


def test_pictures_are_the_same_every_time() -> None:
    prefix = in_step(4, 4, random.Random(3)).prefix
    for draw in (svg, dot, tree):
        assert draw(trace(prefix, UpdateRef(1, 3))) == draw(trace(prefix, UpdateRef(1, 3)))


def test_more_sites_than_prepared_colours() -> None:
    picture = svg(trace(in_step(20, 2, random.Random(4)).prefix, UpdateRef(1, 2)))
    colours = re.findall(r"\.s\d+ \.dot\{fill:(#[0-9a-f]{6})\}", picture)
    assert len(colours) == 40 and len(set(colours)) == 40


def test_the_list_tells_of_each_update_once() -> None:
    prefix = in_step(4, 5, random.Random(5), ["a", "b", "c", "d\x1b[2J"]).prefix
    lineage = trace(prefix, UpdateRef(2, 3))
    text = tree(lineage)
    told = re.findall(r"^ +(\d+#\d+) [^,:]+: round \d+, (?:share|gave it)", text, re.M)
    assert sorted(told) == sorted(str(ref) for ref in lineage.relatives())
    assert "also, told of elsewhere: " in text and "claims" in text and "score 0" not in text
    assert "\x1b" not in text and "d\\u001b[2J" in text
    # What lies two steps away is indented below what lies one step away.
    assert re.search(r"^  \d#2 .*\n    1#1 a: ", text, re.M)
    assert "genesis: effective share 100.00 %, 3 steps away at least" in text


def test_the_list_names_but_a_few_of_many() -> None:
    text = tree(trace(in_step(12, 3, random.Random(6)).prefix, UpdateRef(1, 3), "ancestors"))
    assert re.search(r"also, told of elsewhere: (\d+#1 [\d.]+ %, ){5}\d+#1 [\d.]+ % and 6 more", text)
    assert max(map(len, text.splitlines())) < 160


def test_the_list_of_a_site_and_what_it_did_not_reach() -> None:
    log = Log(4)
    one, two = log.publish(1, 1), log.publish(2, 1)
    log.publish(3, 2, parents=alike([two]))
    again = log.publish(1, 2, parents=alike([one]))
    log.publish(4, 3, parents=alike([again, two]))
    log.object(1, again, Reason.WITHDRAWN)
    text = tree(trace_site(log.prefix, "site-1"))
    assert "all updates of site-1 (2): reached 1 update of 1 site" in text
    assert "  4#1 site-4: round 3, gave it 50.00 %, effective 50.00 %" in text
    assert "sites not reached: site-2, site-3" in text
    assert "merged by nobody else" in tree(trace_site(log.prefix, "site-3"))


def test_the_list_of_a_beginning_and_of_an_end() -> None:
    log = Log(1)
    first = log.publish(1, 1)
    assert "started from the genesis" in tree(trace(log.prefix, first))
    assert "update 1#1 of site-1: merged by nobody\n" in tree(trace(log.prefix, first))


def test_a_list_of_a_long_chain_takes_no_recursion() -> None:
    prefix = one_by_one(1, 3_000, 1).prefix
    text = tree(trace(prefix, UpdateRef(1, 3_000), "ancestors"))
    assert "1#1 site-1: round 1, share 100.00 %" in text
