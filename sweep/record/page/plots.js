"use strict";
// Plots by plotly. Each is drawn when it first comes into view, and again when the filter or the colours change; plotly
// itself, 5 MB of script, is read when the first one does, so that the table does not wait for it.
const PALETTE = ["#3b7dd8", "#d8613b", "#3ba55d", "#9b59b6", "#c9a227", "#16a2a2", "#d14d8b", "#7f8c8d"];
const seen = new Set();

const layout = (more) => ({
  paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour("--front"), size: 12 },
  margin: { l: 56, r: 16, t: 16, b: 48 }, hoverlabel: { namelength: -1 }, ...more,
  xaxis: { gridcolor: colour("--grid"), zerolinecolor: colour("--line"), automargin: true, ...more.xaxis },
  yaxis: { gridcolor: colour("--grid"), zerolinecolor: colour("--line"), automargin: true, ...more.yaxis },
});

// Plotly reads a little markup in its texts; what comes from outside must show as it is.
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function draw(id, traces, more, label) {
  const place = byId(id);
  place.setAttribute("aria-label", label);
  place.classList.toggle("empty", !traces.length);
  if (!traces.length) {
    Plotly.purge(place);
    place.textContent = label;
    return;
  }
  if (!place.classList.contains("js-plotly-plot")) place.textContent = "";
  Plotly.react(place, traces, layout(more), { displaylogo: false, responsive: true, displayModeBar: false });
}

const axisOf = (trial, name) => (trial.axes[name] || [null, null, null]);
const scored = (...names) => shownTrials().filter((trial) => names.every((name) => axisOf(trial, name)[0] !== null));
const bars = (trials, name) => ({
  type: "data", symmetric: false, thickness: 1, width: 0, color: colour("--soft"),
  array: trials.map((t) => (axisOf(t, name)[2] ?? axisOf(t, name)[0]) - axisOf(t, name)[0]),
  arrayminus: trials.map((t) => axisOf(t, name)[0] - (axisOf(t, name)[1] ?? axisOf(t, name)[0])),
});

function hoverOf(trial) {
  const lines = data.axes.filter((name) => axisOf(trial, name)[0] !== null)
    .map((name) => `${name} ${figure(axisOf(trial, name)[0])} (${interval(axisOf(trial, name))})`);
  return [`trial ${trialName(trial)}`, trial.verdict, ...lines].map(plain).join("<br>") + "<extra></extra>";
}

// Those that no other trial beats in both (Pareto).
function frontOf(trials) {
  let best = -Infinity;
  return [...trials].sort((a, b) => axisOf(b, "adherence")[0] - axisOf(a, "adherence")[0] || axisOf(b, "likeness")[0] - axisOf(a, "likeness")[0])
    .filter((trial) => axisOf(trial, "likeness")[0] > best && ((best = axisOf(trial, "likeness")[0]), true));
}

function drawTradeoff() {
  const trials = scored("likeness", "adherence");
  const front = frontOf(trials);
  const text = trials.length ? `Scatter of ${trials.length} trials; on the front: ${front.map((t) => `trial ${t.number}`).join(", ")}; `
    + `with diversity and memorisation: ${trials.filter((t) => data.front.includes(t.number)).map((t) => `trial ${t.number}`).join(", ") || "none"}`
    : "No trial that is shown has both figures.";
  draw("plot-tradeoff", trials.length ? [
    { x: front.map((t) => axisOf(t, "adherence")[0]), y: front.map((t) => axisOf(t, "likeness")[0]), mode: "lines", hoverinfo: "skip",
      line: { color: colour("--accent"), dash: "dot", width: 1.5 }, showlegend: false },
    { x: trials.map((t) => axisOf(t, "adherence")[0]), y: trials.map((t) => axisOf(t, "likeness")[0]), mode: trials.length > 40 ? "markers" : "markers+text",
      text: trials.map((t) => String(t.number)), textposition: "top center", hovertemplate: trials.map(hoverOf), showlegend: false,
      error_x: { ...bars(trials, "adherence"), visible: trials.length <= 25 }, error_y: { ...bars(trials, "likeness"), visible: trials.length <= 25 },
      marker: { size: trials.map((t) => (t.choice ? 15 : 10)), color: trials.map((t) => axisOf(t, "memorisation")[0]), cmin: 0, cmax: 1,
        colorscale: [[0, "#2f9e6e"], [0.5, "#e3b341"], [1, "#d1242f"]], showscale: true, line: { width: trials.map((t) => (data.front.includes(t.number) ? 3 : 1)), color: colour("--front") },
        symbol: trials.map((t) => (t.choice ? "star" : "circle")), colorbar: { title: { text: "memorisation", side: "right" }, thickness: 12 } } },
  ] : [], { xaxis: { title: { text: "adherence" } }, yaxis: { title: { text: "likeness" } } }, text);
}

const valuesOf = (key) => [...new Map(data.trials.map((t) => [settingText(t.settings[key]), t.settings[key]])).values()]
  .sort((a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b))));
const moving = data.swept.filter((key) => valuesOf(key).length > 1);
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

function setUpPlots() {
  options(byId("settings-axis"), data.axes.map((name) => [name, name]), "usefulness");
  const kinds = [];
  for (let i = 0; i < moving.length; i++) for (let j = i + 1; j < moving.length; j++) kinds.push([`${i},${j}`, `heat map: ${moving[i]} × ${moving[j]}`]);
  moving.forEach((key, i) => kinds.push([String(i), `line: ${key}`]));
  kinds.push(["parallel", "parallel coordinates"]);
  options(byId("settings-kind"), kinds, moving.length === 2 ? "0,1" : moving.length === 1 ? "0" : "parallel");
  const metrics = [...new Set(data.trials.flatMap((trial) => Object.keys(trial.curves)))].sort();
  options(byId("metric"), metrics.map((name) => [name, name]), metrics.includes("screen/usefulness") ? "screen/usefulness" : "train/loss");
  for (const id of ["settings-axis", "settings-kind"]) byId(id).addEventListener("input", drawSettings);
  byId("metric").addEventListener("input", drawCurves);
}

function drawSettings() {
  const [name, kind] = [byId("settings-axis").value, byId("settings-kind").value];
  const trials = scored(name);
  if (!trials.length || (!moving.length && kind !== "parallel")) return draw("plot-settings", [], {}, "No trial that is shown has this figure.");
  if (kind === "parallel") return drawParallel(trials, name);
  const keys = kind.split(",").map((i) => moving[i]);
  return keys.length === 2 ? drawHeat(trials, name, keys) : drawLine(trials, name, keys[0]);
}

function drawHeat(trials, name, [across, up]) {
  const [xs, ys] = [valuesOf(across), valuesOf(up)];
  const cells = ys.map((y) => xs.map((x) => trials.filter((t) => t.settings[across] === x && t.settings[up] === y).map((t) => axisOf(t, name)[0])));
  const z = cells.map((row) => row.map((values) => (values.length ? mean(values) : null)));
  const text = cells.map((row) => row.map((values) => (values.length ? `${figure(mean(values))}${values.length > 1 ? ` (${values.length})` : ""}` : "")));
  draw("plot-settings", [{ type: "heatmap", x: xs.map((v) => plain(settingText(v))), y: ys.map((v) => plain(settingText(v))), z, text,
    texttemplate: "%{text}", colorscale: "Viridis", hovertemplate: `${plain(across)} %{x}<br>${plain(up)} %{y}<br>${plain(name)} %{z:.2f}<extra></extra>`,
    colorbar: { thickness: 12 } }],
  { xaxis: { title: { text: plain(across) }, type: "category" }, yaxis: { title: { text: plain(up) }, type: "category" } },
  `Heat map of ${name} over ${across} and ${up}; of several trials the mean, with their number`);
}

function drawLine(trials, name, key) {
  const order = valuesOf(key);
  const sorted = [...trials].sort((a, b) => order.indexOf(a.settings[key]) - order.indexOf(b.settings[key]));
  draw("plot-settings", [{ x: sorted.map((t) => plain(settingText(t.settings[key]))), y: sorted.map((t) => axisOf(t, name)[0]), mode: "markers",
    error_y: bars(sorted, name), marker: { size: 10, color: PALETTE[0] }, hovertemplate: sorted.map(hoverOf) }],
  { xaxis: { title: { text: plain(key) }, type: "category" }, yaxis: { title: { text: name } } }, `${name} by ${key}, with 90 % intervals`);
}

function drawParallel(trials, name) {
  const dimensions = [...moving, ...data.axes.filter((axis) => trials.some((t) => axisOf(t, axis)[0] !== null))];
  const place = (trial, key) => {
    if (data.axes.includes(key)) return axisOf(trial, key)[0] === null ? null : Math.min(Math.max(axisOf(trial, key)[0], 0), 1.2) / 1.2;
    const values = valuesOf(key);
    return values.indexOf(trial.settings[key]) / (values.length - 1);
  };
  const shade = (value) => `hsl(${220 - 190 * Math.min(Math.max(value, 0), 1)} 75% 50%)`;
  const ticks = moving.flatMap((key) => valuesOf(key).map((value, i, all) => ({ x: key, y: i / (all.length - 1), text: plain(settingText(value)), showarrow: false,
    xanchor: "left", xshift: 5, font: { size: 11, color: colour("--soft") } })));
  draw("plot-settings", trials.map((trial) => ({ x: dimensions, y: dimensions.map((key) => place(trial, key)), mode: "lines+markers",
    line: { color: shade(axisOf(trial, name)[0]), width: trial.choice ? 4 : 1.5 }, opacity: 0.75, showlegend: false, hovertemplate: hoverOf(trial) })),
  { xaxis: { type: "category", showgrid: true }, yaxis: { visible: false, range: [-0.06, 1.06] }, annotations: ticks },
  `Parallel coordinates of ${trials.length} trials, coloured by ${name} from blue (0) to red (1); filter the table to narrow them down`);
}

function drawCurves() {
  const name = byId("metric").value;
  const trials = shownTrials().filter((trial) => trial.curves[name]);
  const only = (curve) => (curve.x.length > 60 ? "lines" : "lines+markers");
  draw("plot-curves", trials.map((trial, i) => ({ x: trial.curves[name].x, y: trial.curves[name].y, mode: only(trial.curves[name]), name: plain(trialName(trial)),
    line: { color: PALETTE[i % PALETTE.length], width: trial.choice ? 3 : 1.4 }, showlegend: trials.length <= 12,
    hovertemplate: `trial ${plain(trialName(trial))}<br>step %{x}: %{y:.4g}<extra></extra>` })),
  { xaxis: { title: { text: "step" } }, yaxis: { title: { text: plain(name) } }, legend: { orientation: "h", y: -0.2 } },
  trials.length ? `${name} over steps of ${trials.length} trials` : "No trial that is shown has a curve yet.");
}

const PLOTS = { "plot-tradeoff": drawTradeoff, "plot-settings": drawSettings, "plot-curves": drawCurves };

function watchPlots() {
  const readPlotly = () => {
    if (!window.Plotly) document.body.append(element("script", {}, byId("plotly").textContent));
  };
  const watcher = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
    watcher.unobserve(entry.target);
    readPlotly();
    seen.add(entry.target.id);
    PLOTS[entry.target.id]();
  }), { rootMargin: "200px" });
  Object.keys(PLOTS).forEach((id) => watcher.observe(byId(id)));
}

const redrawPlots = () => seen.forEach((id) => PLOTS[id]());
