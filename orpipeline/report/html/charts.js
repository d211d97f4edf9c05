// Draws the charts with Vega, and shows their tooltips.
const charts = readJson("charts");
const tables = Object.fromEntries(Object.entries(readJson("rows")).map(([name, columns]) => [name, asRows(columns)]));
const views = new Map();
const NARROW = 600;

// The rows are stored as columns. A column with repeated values has `of` (the values) and `at` (each row's index in `of`).
function asRows(columns) {
  const plain = Object.entries(columns).map(([name, column]) => [
    name,
    Array.isArray(column) ? column : column.at.map((place) => column.of[place]),
  ]);
  const count = plain.length ? plain[0][1].length : 0;
  return Array.from({ length: count }, (_, row) => Object.fromEntries(plain.map(([name, values]) => [name, values[row]])));
}

// Returns what a chart draws now: its specification in both forms, its rows by name, and its signals.
function drawing(name) {
  if (name === "lines" || name === "macros") return historyDrawing(name);
  return { forms: charts[name], data: { rows: tables[name] }, signals: { ...state, since: facts.since } };
}

// Returns a chart's Vega, with rows and choices, for a width in pixels.
function filled({ forms, data, signals }, width) {
  const form = width < NARROW || !forms.wide ? "narrow" : "wide";
  const spec = structuredClone(forms[form]);
  // Vega adds a property to the rows, so each chart gets copies.
  for (const source of spec.data) if (source.name in data) source.values = data[source.name].map((row) => ({ ...row }));
  for (const signal of spec.signals ?? []) if (signal.name in signals) signal.value = signals[signal.name];
  spec.width = width;
  return { spec, form };
}

function viewOf(spec, options) {
  // `ast`: Vega interprets expressions, because the page's policy forbids `eval`.
  return new vega.View(vega.parse(spec, null, { ast: true }), { expr: vegaInterpreter.expressionInterpreter, ...options });
}

async function draw(place) {
  const name = place.dataset.chart;
  const width = place.clientWidth;
  if (!width) return; // not shown
  const { spec, form } = filled(drawing(name), width);
  views.get(place)?.view.finalize();
  const label = place.getAttribute("aria-label");
  const view = viewOf(spec, { renderer: "svg", container: place, hover: false });
  view.tooltip((_, event, item, value) => showTip(event, value));
  await view.runAsync();
  // Vega describes itself; the page describes the chart.
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", label);
  place.removeAttribute("aria-roledescription");
  views.set(place, { view, width });
  place.dataset.drawn = form;
}

async function drawAll(names) {
  for (const place of document.querySelectorAll("[data-chart]")) if (!names || names.includes(place.dataset.chart)) await draw(place);
  document.documentElement.dataset.ready = "yes";
}

const tip = document.getElementById("tip");

// Shows a table of titles and texts beside the pointer: an object, or rows of [colour, title, text].
function showTip(where, value) {
  if (value === null || value === undefined || value === "") {
    tip.classList.remove("visible");
    return;
  }
  const rows = Array.isArray(value) ? value : Object.entries(value).filter(([, text]) => text !== "").map(([title, text]) => [null, title, text]);
  const table = element("table");
  for (const [colour, title, text] of rows) {
    const row = table.insertRow();
    const key = row.insertCell();
    key.className = "key";
    if (colour) key.append(Object.assign(element("span"), { className: "dot", style: `background: ${colour}` }));
    key.append(title);
    row.append(element("td", text));
  }
  tip.replaceChildren(table);
  tip.classList.add("visible");
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(where.clientX + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${Math.max(4, Math.min(where.clientY + 14, innerHeight - height - 8))}px`;
}
