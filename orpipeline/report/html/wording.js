// Figures as text, as in the page's tables.
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const MEASURE_WORDS = { usage: "requests", token: "tokens" };

function percent(share) {
  const value = 100 * share;
  if (value > 0 && value < 0.05) return "<0.1%";
  // Python rounds a tie to the even digit, as the tables do; the other possible tie, .75, is the same in both.
  return `${(value % 1 === 0.25 ? value - 0.05 : value).toFixed(1)}%`;
}

function dayText(iso) {
  const [year, month, day] = iso.split("-").map(Number);
  return `${day} ${MONTHS[month - 1]} ${year}`;
}

function readJson(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

function element(name, text, properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  made.textContent = text ?? "";
  return made;
}
