"use strict";
// The data, the state that a reader changes, and building blocks. Text reaches the document through textContent alone.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const state = { sort: "", down: false, filter: "", picks: [], open: null };

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// What images were drawn at. A guidance of null is the sampler's own, of a record that does not say which that is.
const unique = (values) => [...new Set(values)].sort((a, b) => a - b);
const grid = Object.fromEntries([["steps", "step"], ["strengths", "strength"], ["guidances", "guidance"]]
  .map(([axis, key]) => [axis, unique(data.scores.map((score) => score[key]))]));
const hasGuidances = grid.guidances.length > 1;
const guidanceText = (value) => (value === null || value === undefined ? "of the sampler" : String(value));
const spokenArm = ({ strength, guidance }) => (hasGuidances ? `${strength} and guidance ${guidanceText(guidance)}` : String(strength));

const figure = (value) => (value === null || value === undefined ? "" : Number(value).toFixed(2));
const interval = ([value, low, high]) => (value === null ? "" : low === null ? "no interval" : `${figure(low)} to ${figure(high)}`);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const settingText = (value) => (value === null || value === undefined ? "null"
  : typeof value === "number" && value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential() : String(value));
const trialName = (trial) => [trial.number, ...data.swept.map((key) => `${key}=${settingText(trial.settings[key])}`)].join(" ");

function options(select, values, chosen) {
  select.replaceChildren(...values.map(([value, text]) => element("option", { value, selected: value === chosen }, text)));
}

function copyButton(text) {
  const button = element("button", { type: "button", "aria-label": `Copy ${text}` }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // not allowed from disk in some browsers
      const area = element("textarea", {}, text);
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return button;
}
