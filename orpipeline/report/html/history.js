// The history: stacked areas of those who led, or lines of those that the reader picks, and the values of a day.
const past = readJson("series");
const MILLION = 1e6;
const LABEL_GAP = 0.048; // the height of a line of text, as a fraction of the axis
const DAY_ROWS = 14;
const OTHERS = "others";

function isPickable(kind, id) {
  return past !== null && past[kind].series.some((series) => series.id === id);
}

function kindOf(chart) {
  return chart === "macros" ? "macros" : state.of;
}

// Returns a share for each day, null where it is not listed.
function dense(series) {
  const [first, ...shares] = series[state.measure];
  return past.days.map((_, day) => (shares[day - first] === undefined || shares[day - first] === null ? null : shares[day - first] / MILLION));
}

// Returns the shown series, the largest first: those picked, or else the leaders and the sum of the others.
function shownSeries(chart) {
  const kind = kindOf(chart);
  const all = past[kind].series;
  const picked = state[kind] ?? [];
  if (picked.length) return picked.map((id) => all.find((series) => series.id === id)).map((series) => ({ ...series, key: series.id, shares: dense(series) }));
  const leaders = past[kind].leaders[state.measure].map((index) => ({ ...all[index], key: all[index].id, shares: dense(all[index]) }));
  if (kind === "macros") return leaders;
  const chosen = new Set(past[kind].leaders[state.measure]);
  const rest = all.filter((_, index) => !chosen.has(index)).map(dense);
  const shares = past.known.map((known, day) => (known ? rest.reduce((sum, of) => sum + (of[day] ?? 0), 0) : null));
  const others = { key: OTHERS, id: OTHERS, name: OTHERS, colour: "var(--others)", shares };
  return rest.length ? [...leaders, others] : leaders;
}

function isStacked(chart) {
  return chart === "macros" || !state[state.of].length;
}

function historyDrawing(chart) {
  const stacked = isStacked(chart);
  const series = shownSeries(chart);
  const { rows, ends, top } = stacked ? stackedRows(series, chart === "macros") : lineRows(series);
  const data = { rows, labels: labels(ends, top), places: stacked ? innerNames(rows, series, top) : [], at: [] };
  return { forms: charts[stacked ? "stack" : "lines"], data, signals: { top } };
}

// Returns points stacked from `low` to `high`. Each gap starts a new `segment`.
function stackedRows(series, whole) {
  const rows = [];
  const ends = [];
  let segment = 0;
  let top = 0;
  past.days.forEach((day, index) => {
    if (!past.known[index]) {
      segment += 1;
      return;
    }
    const alone = !past.known[index - 1] && !past.known[index + 1];
    let high = 0;
    for (const one of series) {
      const share = one.shares[index] ?? 0;
      const low = high;
      high += share;
      rows.push({ key: one.key, name: one.name, colour: one.colour, day, segment, alone, low, high, share });
      if (index === past.days.length - 1 && share > 0) ends.push({ ...one, at: (low + high) / 2, share });
    }
    top = Math.max(top, high);
  });
  return { rows, ends, top: whole ? 1 : top || 1 };
}

// Returns a point for each series and day. A share of null breaks the line; `alone` marks a point without neighbours.
function lineRows(series) {
  const rows = [];
  const ends = [];
  let top = 0;
  const uses = new Map(); // lines of the same colour have different dashes
  for (const one of series) {
    const dash = uses.get(one.colour) ?? 0;
    uses.set(one.colour, dash + 1);
    one.shares.forEach((share, index) => {
      const alone = share !== null && (one.shares[index - 1] ?? null) === null && (one.shares[index + 1] ?? null) === null;
      rows.push({ key: one.key, colour: one.colour, dash: dash % 6, // as many as the chart has dashes
         day: past.days[index], share, alone });
      top = Math.max(top, share ?? 0);
    });
    const last = one.shares[one.shares.length - 1];
    if (last !== null) ends.push({ ...one, at: last, share: last });
  }
  return { rows, ends, top: 1.06 * top || 1 };
}

// Returns the labels at the right end, in the order of their lines and not on top of each other.
function labels(ends, top) {
  const gap = LABEL_GAP * top;
  const ordered = [...ends].sort((one, other) => other.at - one.at);
  let ceiling = top;
  for (const end of ordered) {
    end.place = Math.min(end.at, ceiling);
    ceiling = end.place - gap;
  }
  let floor = 0;
  for (const end of ordered.reverse()) {
    end.place = Math.max(end.place, floor);
    floor = end.place + gap;
  }
  return ends.map((end) => ({ label: `${percent(end.share)} ${end.name}`, label_at: end.place, colour: end.colour }));
}

// Returns the names of series that have no label at the end, where their area is highest, if there is room for text.
function innerNames(rows, series, top) {
  const last = past.days.length - 1;
  return series
    .filter((one) => !one.shares[last])
    .map((one) => rows.filter((row) => row.key === one.key && inMiddle(row.day)).reduce((best, row) => (row.share > best.share ? row : best), { share: 0 }))
    .filter((peak) => peak.share > 0.045 * top)
    .map((peak) => ({ day: peak.day, share: (peak.low + peak.high) / 2, name: peak.name }));
}

// With picks, the table below the chart has their shares, too.
function showPickedTable() {
  const place = document.getElementById("picked-table");
  const picked = state[state.of].length > 0;
  place.replaceChildren();
  for (const one of document.querySelectorAll("#history .leaders")) one.hidden = picked;
  if (!picked) return;
  const series = shownSeries("lines");
  const table = element("table", "", { className: "history" });
  table.append(element("caption", `Share of ${MEASURE_WORDS[state.measure]}; –: not listed`));
  const head = table.createTHead().insertRow();
  for (const text of ["Day", ...series.map((one) => one.name)]) head.append(element("th", text, { scope: "col", className: text === "Day" ? "" : "n" }));
  const body = table.createTBody();
  for (let index = past.days.length - 1; index >= 0; index -= 1) {
    const row = body.insertRow();
    row.append(element("th", past.days[index], { scope: "row" }));
    for (const one of series) row.append(element("td", !past.known[index] ? "missing" : one.shares[index] === null ? "–" : percent(one.shares[index])));
  }
  place.append(table);
  makeSortable(table);
}

// Near the ends of the axis, a name would cross the chart's edge.
function inMiddle(day) {
  const index = past.days.indexOf(day);
  return index > 0.15 * past.days.length && index < 0.85 * past.days.length;
}

// The values of a day, the largest first.
function dayRows(chart, index) {
  const rows = [[null, dayText(past.days[index]), past.known[index] ? "" : "missing"]];
  if (!past.known[index]) return rows;
  const listed = shownSeries(chart)
    .map((one) => ({ ...one, share: one.shares[index] }))
    .filter((one) => one.share !== null && (one.share > 0 || state[kindOf(chart)]?.length))
    .sort((one, other) => (one.key === OTHERS) - (other.key === OTHERS) || other.share - one.share);
  return [...rows, ...listed.slice(0, DAY_ROWS).map((one) => [one.colour, one.name, percent(one.share)])];
}

// Follows the pointer, and the arrow keys, with a vertical line and the values of its day.
function followDays(place) {
  const chart = place.dataset.chart;
  let current = past.days.length - 1;
  const show = (index) => {
    const { view } = views.get(place);
    current = Math.max(0, Math.min(index, past.days.length - 1));
    view.data("at", [{ day: Date.parse(past.days[current]) }]).run();
    const box = place.querySelector("svg").getBoundingClientRect();
    return { left: box.left + view.origin()[0] + view.scale("x")(Date.parse(past.days[current])), top: box.top };
  };
  const hide = () => {
    views.get(place)?.view.data("at", []).run();
    showTip(null, null);
  };
  place.addEventListener("pointermove", (event) => {
    if (!views.has(place)) return;
    const { view } = views.get(place);
    const x = event.clientX - place.querySelector("svg").getBoundingClientRect().left - view.origin()[0];
    const instant = Number(view.scale("x").invert(x));
    const nearest = past.days.reduce((best, day, index) => (Math.abs(Date.parse(day) - instant) < Math.abs(Date.parse(past.days[best]) - instant) ? index : best), 0);
    show(nearest);
    showTip(event, dayRows(chart, nearest));
  });
  place.addEventListener("pointerleave", hide);
  place.addEventListener("blur", hide);
  place.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined || !views.has(place)) return;
    event.preventDefault();
    const at = show(current + step);
    showTip({ clientX: at.left, clientY: at.top }, dayRows(chart, current));
  });
}

// The models or authors that the reader compares: a search, and a button for each pick.
function followPicks(changed) {
  const input = document.getElementById("pick");
  const options = document.getElementById("pickable");
  const chips = document.getElementById("picks");
  const status = document.getElementById("pick-status");
  const show = () => {
    const series = past[state.of].series;
    input.placeholder = `Pick ${state.of} to compare`;
    options.replaceChildren(...series.filter((one) => !state[state.of].includes(one.id)).map((one) => element("option", one.name, { value: one.id })));
    showPickedTable();
    chips.replaceChildren(...state[state.of].map((id) => chip(series.find((one) => one.id === id))));
  };
  const chip = (one) => {
    const button = element("button", `${one.name} ×`, { type: "button", ariaLabel: `Remove ${one.id}` });
    button.prepend(Object.assign(element("span"), { className: "dot", style: `background: ${one.colour}` }));
    button.addEventListener("click", () => {
      state[state.of] = state[state.of].filter((id) => id !== one.id);
      input.focus();
      changed();
    });
    const item = element("li");
    item.append(button);
    return item;
  };
  const pick = () => {
    const typed = input.value.trim().toLowerCase();
    const left = past[state.of].series.filter((one) => !state[state.of].includes(one.id));
    const found = left.find((one) => [one.id, one.name].some((text) => text.toLowerCase() === typed));
    if (!found || state[state.of].length >= MOST_PICKS) return;
    state[state.of] = [...state[state.of], found.id];
    input.value = "";
    changed();
  };
  // A choice from the list, not a keystroke: a name can be the beginning of another one.
  input.addEventListener("input", (event) => {
    if (!event.inputType || event.inputType === "insertReplacementText") pick();
  });
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !input.value.trim()) return;
    event.preventDefault();
    const typed = input.value.trim().toLowerCase();
    const left = past[state.of].series.filter((one) => !state[state.of].includes(one.id));
    const match = left.find((one) => [one.id, one.name].some((text) => text.toLowerCase() === typed)) ?? left.find((one) => one.id.toLowerCase().includes(typed));
    status.textContent = match ? "" : `No ${state.of.slice(0, -1)} has this name.`;
    if (match) input.value = match.id;
    pick();
  });
  return show;
}
