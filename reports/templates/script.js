"use strict";

// The view (theme, order of the tables, filter) stands in the query of the address, so
// that a link shows it again; the fragment stays free for the section or the row.
const params = new URLSearchParams(location.search);

function keepView(isNewEntry) {
  const query = params.toString();
  const address = `${location.pathname}${query ? `?${query}` : ""}${location.hash}`;
  if (isNewEntry) history.pushState(null, "", address);
  else history.replaceState(null, "", address);
}

function setParam(name, value) {
  if (value) params.set(name, value);
  else params.delete(name);
}

// Theme: the system's, until the reader chooses the other one.
const root = document.documentElement;
const themeButton = document.getElementById("theme");
const systemDark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches;
}

function showTheme() {
  const theme = params.get("theme");
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;
  else delete root.dataset.theme;
  themeButton.textContent = isDark() ? "Light" : "Dark";
}

themeButton.hidden = false;
themeButton.addEventListener("click", () => {
  setParam("theme", isDark() ? "light" : "dark");
  keepView(true);
  showTheme();
});
systemDark.addEventListener("change", showTheme);

// Sections: the one that is read is marked; on a narrow screen the list opens on demand.
const contents = document.getElementById("contents");
const contentsButton = document.getElementById("contents-button");
const here = document.getElementById("here");
const links = [...contents.querySelectorAll("a")];
const headings = links.map((link) => document.getElementById(link.hash.slice(1)));

function openContents(isOpen) {
  contentsButton.setAttribute("aria-expanded", String(isOpen));
}

contentsButton.hidden = false;
contents.classList.add("folds");
contentsButton.addEventListener("click", () => {
  openContents(contentsButton.getAttribute("aria-expanded") !== "true");
});
contents.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || contentsButton.getAttribute("aria-expanded") !== "true") return;
  openContents(false);
  contentsButton.focus();
});
for (const link of links) link.addEventListener("click", () => openContents(false));

function markSection() {
  const isAtEnd = innerHeight + scrollY >= document.body.scrollHeight - 2;
  const passed = headings.filter((heading) => heading.getBoundingClientRect().top < 120);
  const current = isAtEnd && scrollY > 0 ? headings.length - 1 : Math.max(0, passed.length - 1);
  links.forEach((link, place) => {
    if (place !== current) link.removeAttribute("aria-current");
    else if (!link.hasAttribute("aria-current")) {
      link.setAttribute("aria-current", "true");
      here.textContent = `: ${link.textContent}`;
      const list = link.closest("#contents-list");
      const [box, frame] = [link.getBoundingClientRect(), list.getBoundingClientRect()];
      if (box.top < frame.top || box.bottom > frame.bottom) list.scrollTop += box.top - frame.top - frame.height / 2;
    }
  });
}

let isMarking = false;
addEventListener("scroll", () => {
  if (isMarking) return;
  isMarking = true;
  requestAnimationFrame(() => {
    isMarking = false;
    markSection();
  });
}, { passive: true });

// A link to a row inside folded details opens them.
function showTarget() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  const folded = target.closest("details:not([open])");
  if (folded) folded.open = true;
  if (target.hidden) clearFilter();
  target.scrollIntoView();
}

// Sorting: each heading becomes a button; cells without a key stay last.
const tables = [...document.querySelectorAll("table.sortable")];
const asWritten = new Map(tables.map((table) => [table, [...table.tBodies[0].rows]]));

function textOf(cell) {
  return (cell.firstChild ? cell.firstChild.textContent : "").trim();
}

function keyOf(row, column) {
  const cell = row.cells[column];
  const key = cell.dataset.key ?? textOf(cell);
  return key === "" || isNaN(key) ? key : Number(key);
}

function compareKeys(left, right) {
  if (typeof left === "number" && typeof right === "number") return left - right;
  return String(left).localeCompare(String(right), undefined, { numeric: true });
}

function order(table, column, direction) {
  const cells = table.tHead.rows[0].cells;
  for (const heading of cells) heading.removeAttribute("aria-sort");
  const rows = [...asWritten.get(table)];
  if (cells[column]) {
    cells[column].setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const keys = new Map(rows.map((row) => [row, keyOf(row, column)]));
    rows.sort((a, b) => {
      const [left, right] = [keys.get(a), keys.get(b)];
      if (left === "" || right === "") return (left === "") - (right === "");
      return sign * compareKeys(left, right);
    });
  }
  table.tBodies[0].append(...rows);
}

function sortName(table) {
  return `sort-${table.id.replace(/-table$/, "")}`;
}

function showOrder(table) {
  const [column, direction] = (params.get(sortName(table)) ?? "").split(".");
  const isAsked = /^\d+$/.test(column) && /^(asc|desc)ending$/.test(direction);
  order(table, isAsked ? Number(column) : -1, direction);
}

for (const table of tables) {
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    button.addEventListener("click", () => {
      const isAscending = heading.getAttribute("aria-sort") === "ascending";
      const direction = isAscending ? "descending" : "ascending";
      setParam(sortName(table), `${heading.cellIndex}.${direction}`);
      keepView(true);
      order(table, heading.cellIndex, direction);
    });
    heading.replaceChildren(button);
  }
}

// Filtering: every word must stand somewhere in the row, and each chosen value.
const filters = document.getElementById("filters");
const caseTable = document.getElementById("cases-table");
const controls = filters ? [...filters.querySelectorAll("input, select")] : [];

function isShown(row) {
  return controls.every((control) => {
    if (control.value === "") return true;
    if (control.tagName === "SELECT") return row.dataset[control.name].split("|").includes(control.value);
    const content = row.textContent.toLowerCase();
    return control.value.toLowerCase().split(/\s+/).every((word) => content.includes(word));
  });
}

function applyFilter() {
  const rows = [...caseTable.tBodies[0].rows];
  for (const row of rows) row.hidden = !isShown(row);
  const count = rows.filter((row) => !row.hidden).length;
  document.getElementById("shown").textContent =
    (count === rows.length ? "" : `${count} of `) + (rows.length === 1 ? "1 case" : `${rows.length} cases`);
}

function showFilter() {
  for (const control of controls) control.value = params.get(control.name) ?? "";
  applyFilter();
}

function clearFilter() {
  for (const control of controls) params.delete(control.name);
  keepView(false);
  showFilter();
}

if (filters) {
  let isTyping = false; // one entry in the history for a word, not one for each letter
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("input", ({ target }) => {
    if (target.tagName !== "INPUT") return;
    setParam(target.name, target.value);
    keepView(!isTyping);
    isTyping = true;
    applyFilter();
  });
  filters.addEventListener("change", ({ target }) => {
    isTyping = false;
    if (target.tagName !== "SELECT") return;
    setParam(target.name, target.value);
    keepView(true);
    applyFilter();
  });
  filters.addEventListener("reset", (event) => {
    event.preventDefault();
    keepView(true);
    clearFilter();
  });
}

function showView() {
  for (const name of [...params.keys()]) params.delete(name);
  for (const [name, value] of new URLSearchParams(location.search)) params.set(name, value);
  showTheme();
  for (const table of tables) showOrder(table);
  if (filters) showFilter();
}

addEventListener("popstate", showView);
addEventListener("hashchange", showTarget);
showView(); // browsers also keep what was typed when a page is loaded again
showTarget();
markSection();

// Downloads are made from what is in the page; values in base units.
function csvField(value) {
  const field = value === null || value === undefined ? "" : String(value);
  return /[",\r\n]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field;
}

function toCsv(lines) {
  return lines.map((line) => line.map(csvField).join(",") + "\r\n").join("");
}

// Of the rows that are shown, in the order in which they are.
function tableLines(table) {
  const columns = [...table.tHead.rows[0].cells];
  const names = columns.map((heading) => heading.dataset.download ?? heading.textContent);
  const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden);
  return [names, ...rows.map((row) => columns.map((_, column) => keyOf(row, column)))];
}

function readData() {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { columns, rows } = data.trials; // the commands stand in the page already
  const id = columns.indexOf("trial_id");
  columns.push("command");
  for (const row of rows) row.push(document.querySelector(`#trial-${row[id]} code`).textContent);
  return data;
}

// What trials of one case have in common stands in the case's row only.
function trialLines({ cases, trials, settings }) {
  const place = trials.columns.indexOf("case_row");
  const columns = settings.map((name) => cases.columns.indexOf(name));
  const without = (line) => line.filter((_, column) => column !== place);
  return [
    [...without(trials.columns), ...settings],
    ...trials.rows.map((row) => [...without(row), ...columns.map((c) => cases.rows[row[place]][c])]),
  ];
}

function save(name, type, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

for (const button of document.querySelectorAll("[data-save]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const data = readData();
    if (button.dataset.save === "json") save("tlbench.json", "application/json", JSON.stringify(data));
    else save("tlbench-trials.csv", "text/csv", toCsv(trialLines(data)));
  });
}

for (const table of tables) {
  const name = table.id.replace(/-table$/, "");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "save";
  button.textContent = "Table as CSV";
  button.setAttribute("aria-label", `${table.caption.textContent}: table as CSV`);
  button.addEventListener("click", () => save(`tlbench-${name}.csv`, "text/csv", toCsv(tableLines(table))));
  table.closest(".scroll").after(button);
}

// On paper the reasons of what failed are read without a click.
const folded = [...document.querySelectorAll(".failure details")];
addEventListener("beforeprint", () => {
  for (const details of folded.filter((d) => !d.open)) {
    details.dataset.printed = "";
    details.open = true;
  }
});
addEventListener("afterprint", () => {
  for (const details of folded.filter((d) => "printed" in d.dataset)) {
    delete details.dataset.printed;
    details.open = false;
  }
});
