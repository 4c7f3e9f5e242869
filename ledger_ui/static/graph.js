// The provenance graph: moving and zooming, a way through it by keys, one node's details beside it, and more of it on
// demand. The server draws; the page is whole without this.

/* global d3 */

const LEAST = 0.15;
const MOST = 3;
const READABLE = 0.55; // from here on, all of it is shown first; else a part, as large as this:
const CLOSE = 0.85;
const SLOW = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 200;

let graph = null; // what is on the page now
let behaviour = null;

/** All that is known of the drawn graph, read from the SVG. */
function read() {
  const svg = document.getElementById("lineage");
  if (!svg) return null;
  const nodes = new Map([...svg.querySelectorAll("a.node")].map((one) => [one.dataset.key, one]));
  const edges = [...svg.querySelectorAll("path.edge")];
  return {
    svg,
    nodes,
    edges,
    box: document.getElementById("graph-box"),
    world: svg.querySelector(".world"),
    root: svg.querySelector("a.node.root"),
    width: svg.viewBox.baseVal.width,
    height: svg.viewBox.baseVal.height,
    transform: d3.zoomIdentity,
    used: false, // the focus is on a node
  };
}

/** Where a node stands in the drawing. */
const place = (node) => [Number(node.dataset.x), Number(node.dataset.y)];

// ---- moving --------------------------------------------------------------------------------------------------------

function moved(event) {
  graph.transform = event.transform;
  draw();
}

/** The names of rows and columns stay in sight. */
function draw() {
  const { x, y, k } = graph.transform;
  graph.world.setAttribute("transform", `translate(${x},${y}) scale(${k})`);
  const left = Math.max(0, -x / k);
  const top = Math.max(0, -y / k);
  graph.svg.querySelector(".rows").setAttribute("transform", `translate(${left},0)`);
  graph.svg.querySelector(".columns").setAttribute("transform", `translate(0,${top})`);
  graph.svg.querySelector(".corner").setAttribute("transform", `translate(${left},${top})`);
}

/** As high as the graph needs where that is not too much of the window. */
function size() {
  const whole = Math.min(1, graph.box.clientWidth / graph.width);
  const k = whole >= READABLE ? whole : CLOSE;
  graph.box.style.height = `${Math.round(Math.max(260, Math.min(innerHeight * 0.72, k * graph.height)))}px`;
}

function fitted() {
  const { clientWidth: wide, clientHeight: high } = graph.box;
  const k = Math.max(LEAST, Math.min(1, wide / graph.width, high / graph.height));
  return d3.zoomIdentity.translate((wide - k * graph.width) / 2, 0).scale(k);
}

/** All of it where that is readable, else what is around a node. */
function around(node) {
  const whole = fitted();
  if (whole.k >= READABLE || !node) return whole;
  const { clientWidth: wide, clientHeight: high } = graph.box;
  const [x, y] = place(node);
  const k = CLOSE;
  // Not beyond the ends of the drawing; in the middle where it is smaller than the window.
  const across = (room, size, at) => (k * size <= room ? (room - k * size) / 2 : Math.min(0, Math.max(room - k * size, room * 0.55 - k * at)));
  return d3.zoomIdentity.translate(across(wide, graph.width, x), Math.min(0, across(high, graph.height, y))).scale(k);
}

function move(transform, at_once = false) {
  const target = at_once || !SLOW ? d3.select(graph.box) : d3.select(graph.box).transition().duration(SLOW);
  target.call(behaviour.transform, transform);
}

function zoom(by) {
  const target = SLOW ? d3.select(graph.box).transition().duration(SLOW) : d3.select(graph.box);
  target.call(behaviour.scaleBy, by);
}

/** Move only as far as it takes to have a node in sight. */
function show(node) {
  const [x, y] = graph.transform.apply(place(node));
  const { clientWidth: wide, clientHeight: high } = graph.box;
  const [left, top, edge] = [Math.min(190, wide / 3), 60, 40];
  const dx = x < left ? left - x : x > wide - edge ? wide - edge - x : 0;
  const dy = y < top ? top - y : y > high - edge ? high - edge - y : 0;
  if (dx || dy) move(d3.zoomIdentity.translate(graph.transform.x + dx, graph.transform.y + dy).scale(graph.transform.k));
}

// ---- choosing ------------------------------------------------------------------------------------------------------

/** Tell of a node beside the graph, and light up its merges. */
function choose(node, lit = true) {
  const key = node.dataset.key;
  graph.chosen = key;
  for (const other of graph.nodes.values()) {
    other.classList.toggle("here", other === node);
    other.setAttribute("tabindex", other === node ? "0" : "-1");
  }
  graph.svg.classList.toggle("chosen", lit);
  for (const edge of graph.edges) {
    edge.classList.toggle("near", edge.dataset.from === key || edge.dataset.to === key);
  }
  const told = document.getElementById(`in-${key}`)?.querySelector(".told");
  const panel = document.getElementById("chosen");
  if (told && panel) panel.replaceChildren(told.cloneNode(true));
}

/** The node at the other end of the broadest line that leaves to one side. */
function along(node, side) {
  const [own, other] = side === "right" ? ["from", "to"] : ["to", "from"];
  const ways = graph.edges.filter((edge) => edge.dataset[own] === node.dataset.key);
  ways.sort((a, b) => Number(b.dataset.share) - Number(a.dataset.share));
  return graph.nodes.get(ways[0]?.dataset[other]);
}

/** The next node in the same column. */
function beside(node, step) {
  const [x, y] = place(node);
  const column = [...graph.nodes.values()].filter((one) => place(one)[0] === x);
  column.sort((a, b) => place(a)[1] - place(b)[1]);
  return column[column.findIndex((one) => place(one)[1] === y && one === node) + step];
}

const KEYS = {
  ArrowRight: (node) => along(node, "right"),
  ArrowLeft: (node) => along(node, "left"),
  ArrowUp: (node) => beside(node, -1),
  ArrowDown: (node) => beside(node, 1),
  Home: () => graph.root,
};

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const node = event.target.closest?.("a.node");
  if (node && KEYS[event.key]) {
    event.preventDefault();
    const next = KEYS[event.key](node);
    if (next) next.focus();
  } else if (event.key === "+" || event.key === "=") {
    zoom(1.4);
  } else if (event.key === "-") {
    zoom(1 / 1.4);
  } else if (event.key === "0") {
    move(fitted());
  } else {
    return;
  }
  event.preventDefault();
}

function clicked(event) {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  const tool = event.target.closest("[data-zoom]")?.dataset.zoom;
  if (tool === "in") zoom(1.4);
  else if (tool === "out") zoom(1 / 1.4);
  else if (tool === "fit") move(fitted());
  else if (tool === "home") { move(around(graph.root)); graph.root.focus({ preventScroll: true }); }
  const link = event.target.closest("a");
  if (!link) return;
  if (link.classList.contains("node")) {
    event.preventDefault();
    choose(link);
    link.focus({ preventScroll: true });
    if (link.dataset.more) more(link.getAttribute("href"), link.dataset.key);
  } else if (link.closest(".columns")) {
    event.preventDefault();
    more(link.getAttribute("href"), graph.chosen);
  }
}

// ---- more of it ----------------------------------------------------------------------------------------------------

let loading = false;

/** Put the same page with more (or less) in it in the place of what is shown; the node that was chosen stays put. */
async function more(url, key, push = true) {
  if (loading) return;
  loading = true;
  graph.box.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(url, { headers: { Accept: "text/html" } });
    if (!answer.ok) { location.assign(url); return; }
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("provenance");
    if (!fresh) { location.assign(url); return; }
    const before = graph;
    const focused = before.box.contains(document.activeElement);
    const old = document.getElementById("provenance");
    old.replaceChildren(...fresh.childNodes);
    document.getElementById("same")?.replaceWith(page.getElementById("same"));
    if (push) history.pushState(null, "", url);
    start(before, key, focused);
    document.dispatchEvent(new CustomEvent("refreshed"));
  } catch {
    location.assign(url);
  } finally {
    loading = false;
    graph.box.removeAttribute("aria-busy");
  }
}

// ---- beginning -----------------------------------------------------------------------------------------------------

/** Make the drawn graph move. `before`: the one in whose place it stands. */
function start(before = null, key = null, focused = false) {
  graph = read();
  if (!graph) return;
  const { svg, box } = graph;
  box.classList.add("moved");
  box.removeAttribute("tabindex");
  box.querySelector(".graph-tools").hidden = false;
  for (const words of document.querySelectorAll("#graph-keys .keys")) words.hidden = false;
  svg.removeAttribute("viewBox");
  svg.removeAttribute("width");
  svg.removeAttribute("height");
  size();
  // The wheel alone scrolls the page, as everywhere.
  behaviour = d3.zoom().scaleExtent([LEAST, MOST]).on("zoom", moved)
    .filter((event) => (event.type === "wheel" ? event.ctrlKey || event.metaKey : !event.button && !event.target.closest?.(".graph-tools")));
  d3.select(box).call(behaviour).on("dblclick.zoom", null);
  box.addEventListener("keydown", pressed);
  box.addEventListener("click", clicked);
  // Not at the SVG: browsers take one that listens to focus for a stop of its own.
  box.addEventListener("focusin", (event) => {
    const node = event.target.closest?.("a.node");
    if (node) { choose(node); show(node); }
    graph.used = Boolean(node);
  });
  box.addEventListener("focusout", () => { graph.used = false; });
  const node = graph.nodes.get(key) ?? graph.nodes.get(before?.chosen) ?? graph.root;
  const stood = before?.nodes.get(node.dataset.key);
  if (stood) {
    const [x, y] = before.transform.apply(place(stood));
    const k = before.transform.k;
    const [to_x, to_y] = place(node);
    move(d3.zoomIdentity.translate(x - k * to_x, y - k * to_y).scale(k), true);
  } else {
    move(around(graph.root), true);
  }
  choose(node, before !== null && node !== graph.root);
  if (focused) node.focus({ preventScroll: true });
}

if (window.d3?.zoom && document.getElementById("lineage")) {
  start();
  addEventListener("popstate", () => more(location.href, graph.chosen, false));
  addEventListener("resize", () => { if (graph) { size(); draw(); } });
  document.addEventListener("refreshed", () => {
    if (graph && !graph.svg.isConnected) start(graph, graph.chosen, graph.used);
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("#provenance a.toggle");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    more(link.href, link.closest("[id^='in-']")?.id.slice(3) ?? graph.chosen);
  });
  addEventListener("beforeprint", () => {
    graph.svg.setAttribute("viewBox", `0 0 ${graph.width} ${graph.height}`);
    graph.world.removeAttribute("transform");
    for (const part of graph.svg.querySelectorAll(".rows, .columns, .corner")) part.removeAttribute("transform");
  });
  addEventListener("afterprint", () => { graph.svg.removeAttribute("viewBox"); draw(); });
}
