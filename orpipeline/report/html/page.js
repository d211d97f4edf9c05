// Connects the controls with the state, and the state with the charts.
const DRAWN_BY = {
  measure: ["models", "authors", "lines", "macros", "task_models", "task_authors"],
  scope: ["models", "authors"],
  task: ["task_models", "task_authors"],
  of: ["lines"],
};
let drawn = Promise.resolve();
// An error in one drawing must not stop the next one.
const redraw = (names) => (drawn = drawn.catch(() => {}).then(() => drawAll(names)));
const showPicks = past ? followPicks(() => changed(["lines"])) : () => {};

function changed(names) {
  showState();
  showPicks();
  writeAddress();
  if (names === DRAWN_BY.measure) sortBoards();
  redraw(names);
}

function followTheme() {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const showTheme = () => button.setAttribute("aria-pressed", String(dark()));
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try {
      localStorage.setItem("orpipeline-theme", root.dataset.theme);
    } catch {
      // Without storage, the choice lasts until the page is closed.
    }
    showTheme();
  });
  system.addEventListener("change", showTheme);
  showTheme();
}

function goTo(id, behavior = "auto") {
  document.getElementById(id)?.scrollIntoView({ behavior });
}

// Moves the focus, too, for readers who use the keyboard.
function goToAndFocus(id) {
  goTo(id);
  const heading = document.querySelector(`#${id} h2`);
  if (!heading) return;
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
}

// An embedded page shows one figure without what is around it.
function showEmbedded() {
  document.documentElement.classList.toggle("embedded", embedded !== "");
  const figure = document.querySelector(`[data-chart="${embedded}"]`)?.closest("figure");
  for (const one of document.querySelectorAll("figure, section")) one.classList.toggle("elsewhere", embedded !== "" && one !== figure && !one.contains(figure));
}

function followAddress() {
  readAddress();
  showEmbedded();
  showState();
  showPicks();
  sortBoards();
}

for (const name of ["measure", "scope", "of"]) {
  for (const input of document.querySelectorAll(`input[name=${name}]`)) {
    input.addEventListener("change", () => {
      state[name] = input.value;
      changed(DRAWN_BY[name]);
    });
  }
}
document.getElementById("task")?.addEventListener("change", (event) => {
  state.task = event.target.value;
  changed(DRAWN_BY.task);
});
for (const link of document.querySelectorAll("nav a, .skip")) {
  const id = link.hash.slice(1);
  link.hidden = !document.getElementById(id);
  link.addEventListener("click", (event) => {
    event.preventDefault();
    section = id;
    writeAddress();
    goToAndFocus(id);
  });
}
addEventListener("hashchange", () => {
  followAddress();
  redraw();
  goTo(section);
});
let resized;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(() => redraw([...views].filter(([place, { width }]) => place.clientWidth !== width).map(([place]) => place.dataset.chart)), 100);
});
for (const table of document.querySelectorAll("table")) makeSortable(table);
followButtons();
followTheme();
followAddress();
redraw().then(() => goTo(section, "instant"));
if (past) for (const place of document.querySelectorAll("[data-chart=lines], [data-chart=macros]")) followDays(place);
