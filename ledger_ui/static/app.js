// What every page does in the browser: times in words, copying, light and dark, the search key, live updates.
// Pages are whole without it.

const UNITS = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];
const words = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });

/** A time as "3 minutes ago"; beyond a month the date itself says more. */
function relative(date, now) {
  const seconds = Math.round((date - now) / 1000);
  if (Math.abs(seconds) > 30 * 86400) return null;
  const [length, unit] = UNITS.find(([length]) => Math.abs(seconds) >= length) ?? [1, "second"];
  return words.format(Math.trunc(seconds / length), unit);
}

export function tellTimes(root = document) {
  const now = Date.now();
  for (const element of root.querySelectorAll("time[data-when]")) {
    const date = Date.parse(element.dateTime);
    if (Number.isNaN(date)) continue;
    element.textContent = relative(date, now) ?? element.title;
  }
}

const say = document.createElement("div");
say.className = "visually-hidden";
say.setAttribute("role", "status");
document.body.append(say);

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
  } catch {
    const field = document.createElement("textarea");
    field.value = button.dataset.copy;
    field.className = "visually-hidden";
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
    button.focus();
  }
  const before = button.textContent;
  button.textContent = "✓";
  say.textContent = "Copied";
  setTimeout(() => { button.textContent = before; say.textContent = ""; }, 1200);
});

document.getElementById("theme")?.addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* not kept, then */ }
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest?.("input, textarea, select, [contenteditable]")) return;
  const field = document.getElementById("q");
  if (field) { event.preventDefault(); field.focus(); field.select(); }
});

// ---- live ----------------------------------------------------------------------------------------------------------

const pause = document.getElementById("pause");
const liveUrl = document.body.dataset.liveUrl;
let paused = false;
let stale = false;
let held = false;
let known = null;
let fetching = false;

/** Whether a reader is busy in a part of the page: typing, or marking text. It is replaced when they are done. */
function busy(part) {
  const focused = document.activeElement;
  if (part.contains(focused) && focused.matches("input, select, textarea")) return true;
  const marked = getSelection();
  return Boolean(marked) && !marked.isCollapsed && marked.containsNode(part, true);
}

/** Fetch this very page again and put its live parts in place of the old ones. What the reader opened stays open. */
async function refresh() {
  if (paused || document.hidden || fetching) { stale = true; return; }
  fetching = true;
  stale = false;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (paused) { stale = true; return; }
    held = false;
    for (const old of document.querySelectorAll("[data-live][id]")) {
      const next = fresh.getElementById(old.id);
      if (!next || next.innerHTML === old.dataset.as) continue;
      if (busy(old)) held = true;
      else swap(old, next);
    }
    tellTimes();
    document.dispatchEvent(new CustomEvent("refreshed"));
  } catch {
    // The server is gone; the stream of events notices when it is back.
  } finally {
    fetching = false;
    if (stale) setTimeout(refresh, 500);
  }
}

function swap(old, next) {
  const open = new Set([...old.querySelectorAll("details[open] > summary")].map((one) => one.textContent));
  const rows = new Set([...old.querySelectorAll("tr[data-key]")].map((one) => one.dataset.key));
  const places = [...old.querySelectorAll(".scroll")].map((one) => [one.scrollLeft, one.scrollTop]);
  const focused = old.contains(document.activeElement) ? knownBy(document.activeElement) : null;
  const text = next.innerHTML;
  old.replaceChildren(...next.childNodes);
  old.dataset.as = text;
  for (const summary of old.querySelectorAll("details > summary")) {
    if (open.has(summary.textContent)) summary.parentElement.open = true;
  }
  for (const row of old.querySelectorAll("tr[data-key]")) {
    if (rows.size && !rows.has(row.dataset.key)) row.classList.add("new");
  }
  [...old.querySelectorAll(".scroll")].forEach((one, at) => { [one.scrollLeft, one.scrollTop] = places[at] ?? [0, 0]; });
  if (focused) {
    const again = [...old.querySelectorAll("a, button, summary, [tabindex]")].find((one) => knownBy(one) === focused);
    again?.focus({ preventScroll: true });
  }
}

/** What tells a link or a button from the others, before and after its part of the page was replaced. */
function knownBy(one) {
  const row = one.closest("tr[data-key]")?.dataset.key ?? "";
  const words = one.matches("a, button, summary") ? one.textContent : one.getAttribute("aria-label");
  return [one.tagName, row, one.getAttribute("href"), one.dataset.copy, one.dataset.copy ? "" : words].join("|");
}

/** Whether the page is of that head: the log may have grown between the page and the first event. */
function isAsShown(head) {
  return (head.root ?? "") === document.body.dataset.root && head.state === document.body.dataset.state;
}

function heard(event) {
  const version = event.data;
  if (known === null ? !isAsShown(JSON.parse(version)) : version !== known) refresh();
  known = version;
}

function listen() {
  const source = new EventSource(liveUrl);
  source.addEventListener("head", heard);
  source.addEventListener("error", () => {
    // A server that has no room for another listener, or is gone: look now and then instead.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => { refresh(); listen(); }, 10000);
  });
  addEventListener("pagehide", () => source.close(), { once: true });
}

if (liveUrl && pause) {
  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Go on" : "Pause";
    if (!paused && stale) refresh();
  });
  for (const done of ["focusout", "selectionchange"]) {
    document.addEventListener(done, () => { if (held) { held = false; setTimeout(refresh, 500); } });
  }
  document.addEventListener("visibilitychange", () => { if (!document.hidden && stale) refresh(); });
  listen();
}

tellTimes();
setInterval(tellTimes, 10000);
