"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const charts = read("charts");
  const tables = Object.fromEntries(Object.entries(read("rows")).map(([name, columns]) => [name, asRows(columns)]));
  const narrow = matchMedia("(max-width: 720px)");
  const state = { measure: "usage", scope: "all", task: document.getElementById("task")?.value };
  const views = new Map();

  // The rows are stored as columns. A column with repeated values has `of` (the values) and `at` (each row's index in `of`).
  function asRows(columns) {
    const plain = Object.entries(columns).map(([name, column]) => [
      name,
      Array.isArray(column) ? column : column.at.map((place) => column.of[place]),
    ]);
    const count = plain.length ? plain[0][1].length : 0;
    return Array.from({ length: count }, (_, row) => Object.fromEntries(plain.map(([name, values]) => [name, values[row]])));
  }

  async function draw(place) {
    const chart = charts[place.dataset.chart];
    const spec = structuredClone(narrow.matches ? chart.narrow : chart.wide);
    // Vega adds a property to the rows, so each chart gets copies.
    for (const source of spec.data) if (source.name in tables) source.values = tables[source.name].map((row) => ({ ...row }));
    for (const signal of spec.signals) if (signal.name in state) signal.value = state[signal.name];
    views.get(place)?.view.finalize();
    // `ast`: Vega interprets expressions, because the page's policy forbids `eval`.
    const options = { mode: "vega", actions: false, ast: true, renderer: "svg", tooltip: { disableDefaultStyle: true } };
    const { view } = await window.vegaEmbed(place, spec, options);
    views.set(place, { view, signals: new Set(spec.signals.map((signal) => signal.name)) });
    place.dataset.drawn = narrow.matches ? "narrow" : "wide";
  }

  async function drawAll() {
    for (const place of document.querySelectorAll("[data-chart]")) await draw(place);
    document.documentElement.dataset.ready = "yes";
  }

  // Shows the elements of the current choice: the tables of a scope or task, the words of a measure.
  function show(name) {
    for (const element of document.querySelectorAll(`[data-${name}]`)) {
      element.classList.toggle("unchosen", element.dataset[name] !== state[name]);
    }
  }

  async function choose(name, value) {
    state[name] = value;
    show(name);
    for (const { view, signals } of views.values()) {
      if (signals.has(name)) await view.signal(name, value).runAsync();
    }
  }

  function followTheme() {
    const root = document.documentElement;
    const button = document.getElementById("theme");
    const system = matchMedia("(prefers-color-scheme: dark)");
    const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
    const showState = () => button.setAttribute("aria-pressed", String(dark()));
    button.addEventListener("click", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      try {
        localStorage.setItem("orpipeline-theme", root.dataset.theme);
      } catch {
        // Without storage, the choice lasts until the page is closed.
      }
      showState();
    });
    system.addEventListener("change", showState);
    showState();
  }

  for (const input of document.querySelectorAll("input[name=measure], input[name=scope]")) {
    if (input.checked) state[input.name] = input.value; // a browser can restore an earlier choice
    input.addEventListener("change", () => choose(input.name, input.value));
  }
  document.getElementById("task")?.addEventListener("change", (event) => choose("task", event.target.value));
  for (const name of ["measure", "scope", "task"]) show(name);
  followTheme();
  let redrawn = drawAll();
  narrow.addEventListener("change", () => (redrawn = redrawn.then(drawAll)));
})();
