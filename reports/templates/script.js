"use strict";

// Theme: the system's, until the reader chooses the other one.
const root = document.documentElement;
const themeButton = document.getElementById("theme");
const systemDark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches;
}

function labelThemeButton() {
  themeButton.textContent = isDark() ? "Light" : "Dark";
}

themeButton.hidden = false;
themeButton.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  labelThemeButton();
});
systemDark.addEventListener("change", labelThemeButton);
labelThemeButton();

// Sorting: each heading becomes a button; cells without a key stay last.
function keyOf(row, column) {
  const key = row.cells[column].dataset.key;
  return key === "" || isNaN(key) ? key : Number(key);
}

function compareKeys(left, right) {
  if (typeof left === "number" && typeof right === "number") return left - right;
  return String(left).localeCompare(String(right), undefined, { numeric: true });
}

function sortBy(table, heading) {
  const column = heading.cellIndex;
  const order = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const left = keyOf(a, column);
    const right = keyOf(b, column);
    if (left === "" || right === "") return (left === "") - (right === "");
    return sign * compareKeys(left, right);
  });
  table.tBodies[0].append(...rows);
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    button.addEventListener("click", () => sortBy(table, heading));
    heading.replaceChildren(button);
  }
}

// Filtering: every word must stand somewhere in the row.
const table = document.getElementById("all-cases");
if (table) {
  const text = document.getElementById("filter");
  const mode = document.getElementById("mode");
  const failed = document.getElementById("failed");
  const shown = document.getElementById("shown");
  const rows = [...table.tBodies[0].rows];

  function applyFilter() {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const content = row.textContent.toLowerCase();
      row.hidden =
        !words.every((word) => content.includes(word)) ||
        (mode.value !== "" && row.dataset.mode !== mode.value) ||
        (failed.checked && !("failed" in row.dataset));
    }
    const count = rows.filter((row) => !row.hidden).length;
    shown.textContent = count === rows.length ? `${count} cases` : `${count} of ${rows.length} cases`;
  }

  for (const control of [text, mode, failed]) control.addEventListener("input", applyFilter);
  applyFilter(); // browsers keep what was typed when a page is loaded again
}

// Downloads are made from the data in the page.
function csvField(value) {
  const field = value === null ? "" : String(value);
  return /[",\r\n]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field;
}

function toCsv({ columns, rows }) {
  return [columns, ...rows].map((row) => row.map(csvField).join(",") + "\r\n").join("");
}

function save(name, type, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

for (const button of document.querySelectorAll("[data-download]")) {
  button.addEventListener("click", () => {
    const json = document.getElementById("data").textContent;
    if (button.dataset.download === "json") save("tlbench.json", "application/json", json);
    else save("tlbench-trials.csv", "text/csv", toCsv(JSON.parse(json).trials));
  });
}
