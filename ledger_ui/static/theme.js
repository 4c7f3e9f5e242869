// Before anything is painted: the reader's own choice of light or dark, kept in this browser only.
"use strict";
try {
  const chosen = localStorage.getItem("theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage may be switched off: then the system's choice holds.
}
