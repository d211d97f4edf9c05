// Exports of a chart: a link, code to embed it, a PNG and a CSV file.
const COLUMNS = {
  models: { ranks: "possible_ranks", id: "model", about: "author", share: "attributed_share", upper: "upper_bound", change: "change_in_7_days" },
  authors: { ranks: "possible_ranks", id: "author", share: "attributed_share", upper: "upper_bound", about: "models" },
  mix: { kind: "kind", name: "name", usage: "request_share", token: "token_share" },
  movers: { id: "model", about: "author", change: "change", kind: "kind" },
  task_models: { ranks: "possible_ranks", id: "model", about: "author", share: "share_of_task" },
  task_authors: { ranks: "possible_ranks", id: "author", share: "share_of_task", about: "models" },
};

// Returns the rows of a chart's current choice, without dividers, as objects with the columns of the CSV file.
function exported(name) {
  if (name === "lines" || name === "macros") {
    return shownSeries(name).flatMap((one) => past.days.map((day, index) => ({ day, by: MEASURE_WORDS[state.measure], name: one.id, share: one.shares[index] })).filter((row) => row.share !== null));
  }
  const choices = ["measure", "scope", "task"];
  const rows = tables[name].filter((row) => row.kind !== "divider" && choices.every((choice) => !(choice in row) || row[choice] === state[choice]));
  const shown = choices.filter((choice) => rows.length && choice in rows[0]);
  return rows.map((row) => ({
    as_of: facts.as_of,
    ...Object.fromEntries(shown.map((choice) => (choice === "measure" ? ["by", MEASURE_WORDS[row.measure]] : [choice, row[choice]]))),
    ...Object.fromEntries(Object.entries(COLUMNS[name]).map(([column, title]) => [title, row[column]])),
  }));
}

// A `'` precedes a text that a spreadsheet would read as a formula.
function csvCell(value) {
  if (typeof value === "number") return String(Number(value.toPrecision(12)));
  const text = String(value ?? "").replace(/^(?=[=+\-@\t\r＋－＝＠])/u, "'");
  return /[",;\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function csv(name) {
  const rows = exported(name).map((row) => ({ ...row, source: facts.citation }));
  const columns = rows.length ? Object.keys(rows[0]) : ["source"];
  return [columns, ...rows.map((row) => columns.map((column) => row[column]))].map((cells) => cells.map(csvCell).join(",")).join("\r\n") + "\r\n";
}

function save(blob, name, extension) {
  const link = element("a", "", { href: URL.createObjectURL(blob), download: `openrouter-${name.replaceAll("_", "-")}-${facts.as_of}.${extension}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// The page's own colours, which forced colours replace.
const GROUND = "--paper: #ffffff; --ink: #16181d; --muted: #5d626e; --line: #e4e3de; --others: #c9cac6";

// Returns text with each CSS variable replaced by its colour on a light page: a canvas knows no variables.
function inLight(text) {
  const probe = element("span", "", { style: `color-scheme: light; forced-color-adjust: none; position: absolute; ${GROUND}` });
  document.body.append(probe);
  const known = new Map();
  const colour = (variable) => {
    if (!known.has(variable)) {
      probe.style.color = `var(${variable})`;
      known.set(variable, getComputedStyle(probe).color);
    }
    return known.get(variable);
  };
  const replaced = text.replace(/var\((--[\w-]+)\)/g, (_, variable) => colour(variable));
  probe.remove();
  return replaced;
}

// Returns a chart on a light ground with its title above and its source below, twice as large as on the page.
async function picture(place) {
  const scale = 2;
  const margin = 24;
  const width = Math.max(place.clientWidth, 360);
  const { spec } = filled(drawing(place.dataset.chart), width);
  const view = viewOf(JSON.parse(inLight(JSON.stringify(spec))), { renderer: "none" });
  const chart = await view.toCanvas(scale);
  view.finalize();
  const title = captionOf(place);
  const span = place.closest("section").id === "history" ? `${dayText(past.days[0])} to ${dayText(facts.as_of)}` : facts.window;
  const canvas = element("canvas");
  const context = canvas.getContext("2d");
  const font = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
  const bold = `650 17px ${font}`;
  context.font = bold;
  const lines = wrapped(context, `${facts.demo ? "DEMO, made-up data: " : ""}${title}, ${span}`, width);
  context.font = `12px ${font}`;
  const sources = wrapped(context, facts.citation, width);
  const top = margin + lines.length * 24 + 14;
  canvas.width = scale * width + 2 * scale * margin;
  canvas.height = scale * (top + margin + 16 + 18 * sources.length) + chart.height;
  context.scale(scale, scale);
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = "#16181d";
  context.font = bold;
  lines.forEach((line, index) => context.fillText(line, margin, margin + 17 + index * 24));
  context.drawImage(chart, margin, top, chart.width / scale, chart.height / scale);
  context.fillStyle = "#5d626e";
  context.font = `12px ${font}`;
  sources.forEach((line, index) => context.fillText(line, margin, top + chart.height / scale + 24 + 18 * index));
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

// Returns the words of a figure's title that are shown now.
function captionOf(place) {
  const titles = [...place.closest("figure").querySelectorAll("figcaption .title")];
  return titles.find((title) => title.offsetParent !== null).innerText.replace(/\s+/g, " ").trim();
}

// Breaks text into lines of a width: between words, and inside a word that is wider.
function wrapped(context, text, width) {
  const lines = [""];
  for (const word of text.split(/(?<= )/)) {
    if (context.measureText((lines.at(-1) + word).trimEnd()).width > width && lines.at(-1)) lines.push("");
    for (const character of word) {
      if (context.measureText(lines.at(-1) + character).width > width && character !== " ") lines.push("");
      lines[lines.length - 1] += character;
    }
  }
  return lines;
}

// Returns whether the text is in the clipboard.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const focused = document.activeElement;
    const area = element("textarea", text, { style: "position: fixed; opacity: 0" });
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    focused.focus();
    return copied;
  }
}

function embedCode(of, place) {
  const choices = fragment(of).slice(1).replace(/&embed=\w+$/, "");
  const source = element("i", `${location.href.split("#")[0]}#${choices}&embed=${place.dataset.chart}`).innerHTML.replaceAll('"', "&quot;");
  return `<iframe src="${source}" width="100%" height="${Math.ceil(place.closest("figure").offsetHeight + 40)}" style="border:0" loading="lazy"></iframe>`;
}

function followButtons() {
  for (const foot of document.querySelectorAll(".foot")) {
    const place = document.querySelector(`[data-chart=${foot.dataset.for}]`);
    const of = place.closest("section").id;
    const actions = {
      link: () => copy(address(of)),
      embed: () => copy(embedCode(of, place)),
      png: async () => save(await picture(place), foot.dataset.for, "png"),
      csv: () => save(new Blob(["\ufeff", csv(foot.dataset.for)], { type: "text/csv" }), foot.dataset.for, "csv"),
    };
    for (const button of foot.querySelectorAll("button")) {
      const words = button.textContent;
      button.addEventListener("click", async () => {
        const done = await actions[button.dataset.do]();
        const copies = ["link", "embed"].includes(button.dataset.do);
        button.textContent = copies ? (done ? "Copied" : "Copy failed") : "Saved";
        setTimeout(() => (button.textContent = words), 1500);
      });
    }
  }
}
