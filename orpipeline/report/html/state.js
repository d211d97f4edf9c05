// The reader's choices. They are in the address after `#`: first the section, then each choice that is not the default.
// The part after `#` is never sent to a server, and works for a file that is opened from disk.
const facts = readJson("facts");
const WORDS_OF_MEASURES = new Map(Object.entries(MEASURE_WORDS).map(([measure, words]) => [words, measure]));
const MOST_PICKS = 30;
const state = { measure: "usage", scope: "all", task: document.getElementById("task")?.value, of: "models", models: [], authors: [] };
const defaults = { ...state };
let section = "";
let embedded = ""; // the only chart to show, if the page is inside another one

// What each choice may be; a value that the page does not have is ignored.
function allowed(name, value) {
  if (name === "task") return [...(document.getElementById("task")?.options ?? [])].some((option) => option.value === value);
  return [...document.querySelectorAll(`input[name=${name}]`)].some((input) => input.value === value);
}

function readAddress() {
  const parts = location.hash.slice(1).split("&");
  section = parts[0].includes("=") ? "" : parts.shift();
  const given = new Map(parts.filter((part) => part.includes("=")).map((part) => [part.slice(0, part.indexOf("=")), part.slice(part.indexOf("=") + 1)]));
  for (const name of ["scope", "task", "of"]) {
    const value = decoded(given.get(name));
    state[name] = allowed(name, value) ? value : defaults[name];
  }
  state.measure = WORDS_OF_MEASURES.get(given.get("by")) ?? defaults.measure;
  for (const kind of ["models", "authors"]) {
    const ids = new Set((given.get(kind) ?? "").split(",").map(decoded));
    state[kind] = [...ids].filter((id) => id && isPickable(kind, id)).slice(0, MOST_PICKS);
  }
  embedded = given.has("embed") ? document.querySelector(`[data-chart="${CSS.escape(given.get("embed"))}"]`)?.dataset.chart ?? "models" : "";
}

function decoded(text) {
  try {
    return decodeURIComponent(text ?? "");
  } catch {
    return "";
  }
}

// Returns the part of the address after `#`, for a section and the current choices.
function fragment(of) {
  const parts = of ? [of] : [];
  if (state.measure !== defaults.measure) parts.push(`by=${MEASURE_WORDS[state.measure]}`);
  for (const name of ["scope", "task", "of"]) if (state[name] !== defaults[name]) parts.push(`${name}=${encodeURIComponent(state[name])}`);
  for (const kind of ["models", "authors"]) if (state[kind].length) parts.push(`${kind}=${state[kind].map(encodeURIComponent).join(",")}`);
  if (embedded) parts.push(`embed=${embedded}`);
  return parts.length ? `#${parts.join("&")}` : "";
}

function address(of) {
  return location.href.split("#")[0] + fragment(of);
}

function writeAddress() {
  try {
    history.replaceState(null, "", address(section));
  } catch {
    // Some browsers keep the address of a file as it is. The page works without it.
  }
}

// Shows the elements of the current choices, and sets the controls to them.
function showState() {
  document.documentElement.dataset.by = state.measure;
  const picked = state[state.of].length ? "yes" : "no";
  for (const [name, value] of Object.entries({ measure: state.measure, scope: state.scope, task: state.task, of: state.of, picked })) {
    for (const shown of document.querySelectorAll(`[data-${name}]`)) shown.classList.toggle("unchosen", shown.dataset[name] !== value);
    for (const input of document.querySelectorAll(`input[name=${name}]`)) input.checked = input.value === value;
  }
  const task = document.getElementById("task");
  if (task) task.value = state.task;
}
