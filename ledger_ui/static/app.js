// What every page does in the browser: times in words, copying, light and dark, the search key, live updates.
// Pages are whole without it.

const UNITS = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];
const words = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "long" });

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
let known = null;
let fetching = false;

/** Fetch this very page again and put its live parts in place of the old ones. What the reader opened stays open. */
async function refresh() {
  if (paused || document.hidden || fetching) { stale = true; return; }
  fetching = true;
  stale = false;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const old of document.querySelectorAll("[data-live][id]")) {
      const next = fresh.getElementById(old.id);
      if (!next || next.innerHTML === old.dataset.as || old.contains(document.activeElement) && old.id !== "following") continue;
      swap(old, next);
    }
    tellTimes();
    document.dispatchEvent(new CustomEvent("refreshed"));
  } finally {
    fetching = false;
    if (stale) setTimeout(refresh, 500);
  }
}

function swap(old, next) {
  const open = new Set([...old.querySelectorAll("details[open] > summary")].map((one) => one.textContent));
  const rows = new Set([...old.querySelectorAll("tr[data-key]")].map((one) => one.dataset.key));
  const text = next.innerHTML;
  old.replaceChildren(...next.childNodes);
  old.dataset.as = text;
  for (const summary of old.querySelectorAll("details > summary")) {
    if (open.has(summary.textContent)) summary.parentElement.open = true;
  }
  for (const row of old.querySelectorAll("tr[data-key]")) {
    if (rows.size && !rows.has(row.dataset.key)) row.classList.add("new");
  }
}

function heard(event) {
  const version = event.data;
  if (known !== null && version !== known) refresh();
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
  document.addEventListener("visibilitychange", () => { if (!document.hidden && stale) refresh(); });
  listen();
}

tellTimes();
setInterval(tellTimes, 10000);
