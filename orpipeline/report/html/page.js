"use strict";
// Switches, search, sorting and lines. Without this script the page shows its default state, whole.
(() => {
  const byId = (id) => document.getElementById(id);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const data = JSON.parse(byId("data").textContent);
  const history = data.history;
  const choices = byId("choices").elements;
  const MOST_LINES = 8;
  const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");
  let picked = null; // the models whose lines are drawn; null for the view's leaders

  const dayText = (day) => `${day.getUTCDate()} ${MONTHS[day.getUTCMonth()]} ${day.getUTCFullYear()}`;
  const percent = (units) => {
    const value = (100 * units) / history.unit;
    return value > 0 && value < 0.05 ? "<0.1%" : `${value.toFixed(1)}%`;
  };
  const viewKey = () => `${choices.scope.value}-${choices.measure.value}`;

  function element(name, attributes = {}, text = "", namespace = "http://www.w3.org/1999/xhtml") {
    const made = document.createElementNS(namespace, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  }

  // Views: the default one is in the page, the others are in templates.

  const first = byId("view-0-usage").content;
  for (const part of ["headline", "changes", "board", "authors"]) {
    const holder = element("div", { "data-into": part });
    holder.append(...byId(part).cloneNode(true).childNodes);
    first.append(holder);
  }

  function show() {
    for (const holder of byId(`view-${viewKey()}`).content.children) {
      byId(holder.dataset.into).replaceChildren(...holder.cloneNode(true).childNodes);
    }
    document.documentElement.dataset.measure = choices.measure.value;
    byId("quote").firstElementChild.textContent = document.querySelector("h1").textContent;
    if (history) {
      byId("unit").textContent = data.units[viewKey()];
      for (const row of all("#board tr[data-m]")) {
        const model = Number(row.dataset.m);
        nameButton(row, { title: "Draw or remove its line" }, () => toggle(model));
        row.querySelector("em").textContent = history.models[model][0]; // the id has the author
      }
      byId("series").replaceChildren(...Object.keys(linesByName()).map((name) => element("option", { value: name })));
    }
    find();
    drawAll();
  }

  /** Put a button around the name of a row. */
  function nameButton(row, attributes, onclick) {
    const name = row.querySelector("b");
    const button = element("button", { type: "button", ...attributes });
    name.replaceWith(button);
    button.append(name);
    button.onclick = onclick;
    return button;
  }

  function find() {
    const words = byId("find").value.trim().toLowerCase();
    const rows = all("#board tbody tr:not(.divider)");
    for (const row of rows) row.hidden = !row.querySelector("th").textContent.toLowerCase().includes(words);
    for (const row of all("#board .divider")) row.hidden = words !== "";
    for (const row of all("#authors tbody tr")) row.hidden = !row.textContent.toLowerCase().includes(words);
    byId("found").textContent = words ? `${rows.filter((row) => !row.hidden).length} of ${rows.length} models` : "";
  }

  // The address keeps the choices.

  function remember() {
    const kept = new URLSearchParams();
    if (choices.scope.value !== "0") kept.set("scope", data.scopes[choices.scope.value]);
    if (choices.measure.value !== "usage") kept.set("by", "tokens");
    if (picked) kept.set("models", picked.map((model) => history.models[model][0]).join(" "));
    window.history.replaceState(null, "", `#${kept}`);
  }

  function recall() {
    const kept = new URLSearchParams(location.hash.slice(1));
    choices.scope.value = String(Math.max(0, data.scopes.indexOf(kept.get("scope"))));
    choices.measure.value = kept.get("by") === "tokens" ? "token" : "usage";
    const ids = history ? history.models.map((model) => model[0]) : [];
    const models = (kept.get("models") ?? "").split(" ").map((id) => ids.indexOf(id));
    picked = kept.has("models") ? models.filter((model) => model >= 0).slice(0, MOST_LINES) : null;
  }

  // Lines

  const drawn = () => picked ?? history.views[viewKey()].leaders;
  const named = (model) => `${history.models[model][1]} (${history.models[model][2]})`;
  const linesByName = () => Object.fromEntries(history.views[viewKey()].lines.map(([model]) => [named(model), model]));

  function toggle(model) {
    const lines = drawn();
    picked = lines.includes(model) ? lines.filter((one) => one !== model) : [...lines, model].slice(-MOST_LINES);
    remember();
    drawAll();
  }

  const dense = ([, begin, text]) => [...Array(begin).fill(""), ...text.split(",")].map((one) => (one === "" ? null : Number(one)));

  function linesOf(kind) {
    if (kind === "macros") {
      const macros = history.macros[choices.measure.value].slice(0, MOST_LINES);
      return macros.map((line) => ({ name: line[0], author: "", shares: dense(line) }));
    }
    const byModel = new Map(history.views[viewKey()].lines.map((line) => [line[0], line]));
    return drawn()
      .filter((model) => byModel.has(model))
      .map((model) => ({ model, name: history.models[model][1], author: history.models[model][2], shares: dense(byModel.get(model)) }));
  }

  function drawAll() {
    if (!history) return;
    all(".chart").forEach(draw);
    for (const row of all("#board tr[data-m]")) {
      row.querySelector("button").setAttribute("aria-pressed", drawn().includes(Number(row.dataset.m)));
    }
  }

  const SVG = "http://www.w3.org/2000/svg";

  function draw(figure) {
    const lines = linesOf(figure.dataset.chart);
    const days = history.days;
    const width = Math.max(280, figure.clientWidth);
    const isWide = width > 640;
    const height = figure.dataset.chart === "macros" ? 240 : 360;
    const [left, right, top, bottom] = [40, isWide ? 300 : 12, 16, height - 24];
    const most = Math.max(100, ...lines.flatMap((line) => line.shares));
    const step = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2].map((one) => one * history.unit).find((one) => most / one <= 6) ?? 0.2 * history.unit;
    const ceiling = step * Math.ceil(most / step);
    const x = (index) => left + ((width - left - right) * days[index]) / Math.max(1, days.at(-1));
    const y = (units) => bottom - ((bottom - top) * units) / ceiling;
    const nearest = (value, of) => days.reduce((best, day, index) => (Math.abs(of(day) - value) < Math.abs(of(days[best]) - value) ? index : best), 0);
    const label = "Lines by day. The list below has their values on the chosen day.";
    const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, "", SVG);
    const add = (name, attributes, text) => svg.appendChild(element(name, attributes, text, SVG));
    for (let tick = 0; tick <= ceiling; tick += step) {
      add("path", { class: "grid", d: `M${left} ${y(tick)}H${width - right}` });
      add("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, `${Number(((100 * tick) / history.unit).toFixed(1))}%`);
    }
    const ticks = isWide ? 4 : 2;
    for (const index of new Set(Array.from({ length: ticks + 1 }, (_, part) => nearest((days.at(-1) * part) / ticks, (day) => day)))) {
      const anchor = index === days.length - 1 && !isWide ? "end" : "middle";
      add("text", { x: x(index), y: bottom + 18, "text-anchor": anchor }, dayText(dayOf(index)).slice(0, -5));
    }
    const rule = add("path", { class: "rule" });
    const ends = lines.map((line, place) => {
      let path = "";
      line.shares.forEach((units, index) => {
        if (units !== null) path += (line.shares[index - 1] ?? null) === null ? `M${x(index)} ${y(units)}h0` : `L${x(index)} ${y(units)}`;
      });
      add("path", { class: `line c${place}`, d: path });
      const last = line.shares.length - 1;
      if (last < days.length - 1) add("circle", { class: `end c${place}`, cx: x(last), cy: y(line.shares[last]), r: 4 });
      return { place, at: x(last), down: y(line.shares[last]), text: `${percent(line.shares[last])} ${line.name.slice(0, 44)}` };
    });
    spread(ends, isWide ? top : top + 8, bottom);
    for (const end of ends) {
      const attributes = isWide
        ? { x: end.at + 8, y: end.placed + 4 }
        : { x: Math.max(end.at, left + 7 * end.text.length), y: end.placed - 5, "text-anchor": "end" };
      add("text", { class: `name c${end.place}`, ...attributes }, end.text);
    }
    figure.querySelector("svg").replaceWith(svg);

    // The values of a day: by pointer, tap, or the keys of the slider.
    const keys = figure.querySelector(".keys");
    const slider = element("input", { type: "range", min: 0, max: days.length - 1, "aria-label": "Day" });
    slider.value = days.length - 1;
    const list = element("ul");
    const heading = element("b");
    const cells = lines.map((line, place) => {
      const item = element("li", { class: `c${place}` });
      const value = element("span");
      item.append(value, element("b", {}, line.name), " ", element("em", {}, line.author));
      if (line.model !== undefined) {
        const remove = element("button", { type: "button", "aria-label": `Remove ${line.name}` }, "×");
        remove.onclick = () => toggle(line.model);
        item.append(remove);
      }
      list.append(item);
      return value;
    });
    const choose = (index) => {
      const isGap = history.gaps.includes(index);
      slider.value = index;
      heading.textContent = dayText(dayOf(index)) + (isGap ? ": missing" : "");
      rule.setAttribute("d", `M${x(index)} ${top}V${bottom}`);
      lines.forEach((line, place) => {
        const units = line.shares[index] ?? null;
        cells[place].textContent = isGap ? "–" : units === null ? "not listed" : percent(units);
      });
      const texts = lines.map((line, place) => `${line.name} ${cells[place].textContent}`);
      slider.setAttribute("aria-valuetext", [heading.textContent, ...texts].join(", "));
    };
    slider.oninput = () => choose(Number(slider.value));
    const point = (event) => {
      const at = ((event.clientX - svg.getBoundingClientRect().left) * width) / svg.getBoundingClientRect().width;
      choose(nearest(at, (day) => left + ((width - left - right) * day) / Math.max(1, days.at(-1))));
    };
    svg.addEventListener("pointermove", point);
    svg.addEventListener("pointerdown", point);
    keys.replaceChildren(slider, heading, list);
    choose(days.length - 1);
  }

  const dayOf = (index) => new Date(Date.parse(history.start) + history.days[index] * 86_400_000);

  function spread(ends, top, bottom) {
    const order = [...ends].sort((one, other) => one.down - other.down);
    let limit = -Infinity;
    for (const end of order) limit = (end.placed = Math.max(end.down, limit)) + 16;
    limit = bottom;
    for (const end of order.reverse()) limit = (end.placed = Math.max(top, Math.min(end.placed, limit))) - 16;
  }

  // Tasks: a row opens the task's list, and a heading sorts.

  const table = document.querySelector(".tasks");
  for (const body of all("tbody", table)) {
    const [row, list] = body.rows;
    const button = nameButton(row, { "aria-expanded": "false" });
    row.onclick = () => button.setAttribute("aria-expanded", list.classList.toggle("open"));
  }
  all("thead th", table).forEach((heading, column) => {
    const button = element("button", { type: "button" }, heading.textContent);
    button.onclick = () => {
      const order = heading.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
      const text = (body) => body.rows[0].cells[column].textContent;
      const bodies = all("tbody", table).sort((one, other) => text(one).localeCompare(text(other), "en", { numeric: true }));
      table.append(...(order === "ascending" ? bodies : bodies.reverse()));
      for (const other of all("thead th", table)) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", order);
    };
    heading.replaceChildren(button);
  });

  // Quote, embed, and how old the page is

  byId("copy").onclick = () => {
    getSelection().selectAllChildren(byId("quote"));
    byId("copied").textContent = document.execCommand("copy") ? "Copied." : "Selected: copy it with your keyboard.";
  };
  if (location.protocol.startsWith("http")) {
    const fit = 'addEventListener("message",e=>{for(const f of document.querySelectorAll("iframe"))if(f.contentWindow===e.source&&e.data.orpipelineHeight)f.height=e.data.orpipelineHeight})';
    const part = byId("part");
    part.onchange = () => {
      const url = new URL(`${data.folder}embed/${part.value}.html`, location.href);
      const title = `${part.selectedOptions[0].textContent}, ${data.as_of}`;
      byId("code").textContent = `<iframe src="${url.href.split("#")[0]}" title="${title}" width="100%" height="900" style="border:0"></iframe>\n<script>${fit}</scr` + "ipt>";
    };
    part.onchange();
    byId("embed").hidden = false;
  }
  const age = Math.floor((Date.now() - Date.parse(data.as_of)) / 86_400_000);
  if (age > 2) {
    byId("stale").textContent = `These figures end on ${dayText(new Date(data.as_of))}, ${age} days ago.`;
    byId("stale").hidden = false;
  }

  byId("choices").oninput = () => { remember(); show(); };
  byId("find").oninput = find;
  if (history) {
    byId("add").onchange = () => {
      const model = linesByName()[byId("add").value];
      if (model === undefined) return;
      if (!drawn().includes(model)) toggle(model);
      byId("add").value = "";
    };
    let width = innerWidth;
    addEventListener("resize", () => { if (width !== innerWidth) { width = innerWidth; drawAll(); } });
    matchMedia("print").addEventListener("change", drawAll);
  }
  addEventListener("hashchange", () => { recall(); show(); });
  document.documentElement.classList.add("scripted");
  recall();
  show();
})();
