"use strict";
// Puts the page together: the answer, the parts, and what a reader can do.
function drawAnswer() {
  byId("name").textContent = data.name;
  byId("answer").textContent = data.answer.sentence;
  byId("choices").replaceChildren(...data.answer.choices.slice(0, 3).map((choice) => element("div", { class: "choice" },
    element("code", {}, choice.paste), copyButton(choice.paste), element("span", { class: "hint" }, `${choice.place} — ${choice.verdict}. ${choice.reason}`))));
  for (const note of [data.note, ...data.notes].filter(Boolean)) byId("choices").append(element("p", { class: "hint" }, `Note: ${note}`));
  byId("learned-part").hidden = !data.learned.length;
  byId("learned-part").open = data.learned.length <= 8;
  byId("learned").replaceChildren(...(data.learned.length ? [element("ul", {}, ...data.learned.map((line) => element("li", {}, line)))] : []));
  const { minutes, steps, images, stages, saved } = data.cost;
  byId("cost").textContent = `${minutes.toFixed(1)} minutes in all for ${steps} trial-steps and ${images} scored images: ${stages}; `
    + `started ${data.started} on ${data.hardware}. Base ${data.base_model}, ${data.num_photos ? `${data.num_photos} photos` : "photos"} (${data.dataset}). ${saved}`;
  byId("command").textContent = data.command;
  const rows = { swept: data.swept.join(", ") || "nothing, one trial", ...data.question, commit: data.commit || "unknown", ...data.versions };
  byId("question").replaceChildren(...Object.entries(rows).flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, String(value))]));
}

function setTheme(isDark) {
  document.documentElement.classList.toggle("dark", isDark);
}

// In a live view the page is loaded again when the record has grown; what the reader has set comes back.
const INPUTS = ["filter", "settings-axis", "settings-kind", "metric", "x-axis", "one", "checkpoint", "strength", "guidance", "prompt-filter", "size"];

function keepState() {
  const inputs = Object.fromEntries(INPUTS.map((id) => [id, byId(id).value]));
  sessionStorage.setItem("report", JSON.stringify({ ...state, inputs, scroll: window.scrollY, isDark: document.documentElement.classList.contains("dark") }));
}

function bringBackState() {
  const kept = JSON.parse(sessionStorage.getItem("report") || "null");
  if (!kept) return;
  const { inputs, scroll, isDark, ...rest } = kept;
  Object.assign(state, rest);
  for (const [id, value] of Object.entries(inputs)) {
    if (byId(id).tagName !== "SELECT" || [...byId(id).options].some((option) => option.value === value)) byId(id).value = value;
  }
  setTheme(isDark);
  requestAnimationFrame(() => window.scrollTo(0, scroll));
}

async function watchForNews() {
  let known = null;
  for (;;) {
    try {
      const now = await (await fetch("/version", { cache: "no-store" })).text();
      if (known !== null && now !== known) {
        keepState();
        location.reload();
      }
      known = now;
    } catch { /* the server has ended; the page stays as it is */ }
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}

function start() {
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches);
  drawAnswer();
  setUpGrid();
  setUpPlots();
  if (data.live) bringBackState();
  drawTable();
  drawDetails();
  drawGrid();
  drawCopies();
  byId("filter").addEventListener("input", (event) => { state.filter = event.target.value; drawTable(); redrawPlots(); });
  byId("theme").addEventListener("click", () => { setTheme(!document.documentElement.classList.contains("dark")); redrawPlots(); });
  watchPlots();
  if (data.live) watchForNews();
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}

start();
