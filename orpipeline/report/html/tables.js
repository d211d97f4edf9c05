// Tables that the reader can sort by any column.
function cellValue(row, column) {
  const cell = row.cells[column];
  const exact = cell.querySelector("data, time");
  if (exact) return exact.tagName === "TIME" ? exact.dateTime : Number(exact.value);
  const text = cell.textContent.trim();
  if (!/^<?\d+(\.\d+)?%?$/.test(text)) return text.toLowerCase();
  return text.startsWith("<") ? 0 : Number.parseFloat(text);
}

function sortTable(table, column, ascending) {
  const body = table.tBodies[0];
  const fixed = [...body.rows].filter((row) => row.classList.contains("rest"));
  const rows = [...body.rows].filter((row) => !fixed.includes(row));
  const values = new Map(rows.map((row) => [row, row.cells[column] ? cellValue(row, column) : ""]));
  // Numbers before words; a missing value stays at the end.
  const compare = (one, other) => {
    const [a, b] = [values.get(one), values.get(other)];
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return (ascending ? 1 : -1) * (typeof a === "number" ? a - b : a < b ? -1 : a > b ? 1 : 0);
  };
  body.append(...rows.sort(compare), ...fixed);
  for (const head of table.tHead.rows[0].cells) head.removeAttribute("aria-sort");
  table.tHead.rows[0].cells[column].ariaSort = ascending ? "ascending" : "descending";
}

function makeSortable(table) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = element("button", "", { type: "button", className: "sort" });
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      // Figures start with the largest, ranks and words with the first.
      const first = !head.classList.contains("n") || /rank|place/i.test(head.textContent);
      sortTable(table, column, head.ariaSort ? head.ariaSort !== "ascending" : first);
    });
  });
}

// The boards are written by requests; by tokens, they are in the order of the token shares.
function sortBoards() {
  for (const table of document.querySelectorAll("table.board, table.authors")) {
    const heads = [...table.tHead.rows[0].cells];
    sortTable(table, heads.findIndex((head) => head.textContent.trim() === (state.measure === "usage" ? "Requests" : "Tokens")), false);
  }
}
