"use strict";
// Runs before the page is drawn, to avoid a flash of the other theme. Without storage, the system's theme applies.
document.documentElement.classList.add("scripted");
try {
  const chosen = localStorage.getItem("orpipeline-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Some browsers have no storage for a file opened from disk.
}
