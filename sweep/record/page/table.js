"use strict";
// The table of trials: sorting, filtering, picking columns for the images, and one trial's words.
const columns = [
  { name: "trial", value: (t) => t.number, number: true },
  ...[...data.swept, ...data.brought].map((key) => ({ name: key, value: (t) => t.settings[key], number: data.trials.every((t) => typeof t.settings[key] === "number") })),
  { name: "steps", value: (t) => t.steps, number: true },
  ...data.axes.map((name) => ({ name, value: (t) => (t.axes[name] || [null])[0], axis: true, number: true })),
  { name: "verdict", value: (t) => t.verdict, words: true },
  { name: "strength", value: (t) => t.strength, number: true },
  ...(hasGuidances ? [{ name: "guidance", value: (t) => t.guidance, number: true }] : []),
  { name: "minutes", value: (t) => t.minutes, number: true },
  { name: "file", value: (t) => t.file, words: true },
];

const CONDITION = /^([\w.\/-]+)(>=|<=|!=|=|>|<)(.+)$/;
const compare = {
  ">": (a, b) => a > b, "<": (a, b) => a < b, ">=": (a, b) => a >= b, "<=": (a, b) => a <= b,
  "=": (a, b) => a === b, "!=": (a, b) => a !== b,
};

function meets(trial, word) {
  const found = CONDITION.exec(word);
  const column = found && columns.find((each) => each.name === found[1]);
  if (column) {
    const value = column.value(trial);
    const isNumber = typeof value === "number" && found[3].trim() !== "" && Number.isFinite(Number(found[3]));
    if (!isNumber && (value === null || value === "") && found[2] !== "=" && found[2] !== "!=") return false;
    return isNumber ? compare[found[2]](value, Number(found[3])) : compare[found[2]](settingText(value), found[3]);
  }
  const text = [trialName(trial), trial.verdict, trial.file, trial.status, trial.choice, trial.reason, ...trial.notes].join(" ");
  return text.toLowerCase().includes(word.toLowerCase());
}

function shownTrials() {
  const words = state.filter.split(/\s+/).filter(Boolean);
  return data.trials.filter((trial) => words.every((word) => meets(trial, word)));
}

function sortedTrials() {
  const column = columns.find((each) => each.name === state.sort);
  const shown = shownTrials();
  if (!column) return shown;
  const isNothing = (value) => value === null || value === undefined || value === "";
  return shown.sort((a, b) => {
    const [x, y] = [column.value(a), column.value(b)];
    if (isNothing(x) || isNothing(y)) return isNothing(x) - isNothing(y) || a.number - b.number;  // unknown comes last either way
    const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), undefined, { numeric: true });
    return (state.down ? -order : order) || a.number - b.number;
  });
}

function cellOf(trial, column) {
  const value = column.value(trial);
  if (column.axis) {
    const axis = trial.axes[column.name] || [null, null, null];
    return element("td", { class: "number", title: interval(axis) }, figure(value),
      column.name === "usefulness" && value !== null ? element("span", { class: "interval" }, ` (${interval(axis)})`) : null);
  }
  if (column.name === "trial") {
    const open = () => { state.open = state.open === trial.number ? null : trial.number; drawDetails(); };
    return element("td", {}, element("button", { type: "button", onclick: open, "aria-label": `Words on trial ${trial.number}` },
      trial.choice ? `${value} (${trial.choice})` : String(value)));
  }
  const text = column.name === "minutes" ? Number(value).toFixed(1) : value === undefined || (column.number && value === null) ? "" : settingText(value);
  return element("td", { class: column.words ? "words" : column.number ? "number" : null }, text);
}

function drawTable() {
  const trials = sortedTrials();
  const sort = (column) => {
    state.down = state.sort === column.name ? !state.down : Boolean(column.axis);  // of scores the greatest is wanted first
    state.sort = column.name;
    drawTable();
    byId("table").querySelector(`th[data-name="${CSS.escape(column.name)}"] button`).focus();
  };
  const order = (column) => (state.sort !== column.name ? "none" : state.down ? "descending" : "ascending");
  const arrow = { none: "", ascending: " ▲", descending: " ▼" };
  const head = element("tr", {}, element("th", { scope: "col" }, element("span", { class: "hint" }, " ✓ ")),
    ...columns.map((column) => element("th", { scope: "col", "aria-sort": order(column), "data-name": column.name },
      element("button", { type: "button", onclick: () => sort(column) }, column.name + arrow[order(column)]))));
  const rows = trials.map((trial) => element("tr", { class: trial.choice ? "best" : trial.is_scored ? null : "failed", "data-trial": trial.number },
    element("td", {}, pickBox(trial)), ...columns.map((column) => cellOf(trial, column))));
  byId("table").replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
  byId("count").textContent = `${trials.length} of ${data.trials.length} trials`;
}

function pickBox(trial) {
  const box = element("input", { type: "checkbox", "aria-label": `Show images of trial ${trial.number}` });
  box.checked = state.picks.includes(trial.number);
  box.addEventListener("change", () => {
    state.picks = box.checked ? [...state.picks, trial.number] : state.picks.filter((number) => number !== trial.number);
    drawGrid();
  });
  return box;
}

function drawDetails() {
  const trial = data.trials.find((each) => each.number === state.open);
  byId("details").replaceChildren(...(trial ? [
    element("strong", {}, `Trial ${trialName(trial)}`), element("p", {}, trial.words),
    ...trial.notes.map((note) => element("p", {}, `Note: ${note}`)),
    element("p", {}, element("code", {}, trial.place || trial.id))] : []));
}
