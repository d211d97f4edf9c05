"use strict";
// Runs before the page is drawn, so that a chosen theme does not flash. Without storage the system's choice stands.
document.documentElement.classList.add("scripted");
try {
  const chosen = localStorage.getItem("orpipeline-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Some browsers keep no storage for a file that is opened from disk.
}
