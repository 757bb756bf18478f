"use strict";
// Images: tiles of the strips that the page carries, the grid with its sliders, and the copy report.
const addresses = new Map();

function addressOf(name) {
  if (!addresses.has(name)) {
    const bytes = Uint8Array.from(atob(byId(`picture-${name}`).textContent), (letter) => letter.charCodeAt(0));
    addresses.set(name, URL.createObjectURL(new Blob([bytes], { type: "image/webp" })));
  }
  return addresses.get(name);
}

function tileOf(score, position, size, label) {
  if (!score || !score.picture || position < 0) {
    return element("span", { class: "missing", style: `width:${size}px;height:${size}px` }, "not drawn");
  }
  const [width, height] = score.tile;
  const scale = size / width;
  const rows = Math.ceil(score.cells.length / score.per_row);
  const [column, row] = [position % score.per_row, Math.floor(position / score.per_row)];
  return element("span", { class: width <= 64 ? "tile small" : "tile", role: "img", "aria-label": label,
    style: `width:${size}px;height:${height * scale}px;background-image:url(${addressOf(score.picture)});` +
      `background-size:${score.per_row * size}px ${rows * height * scale}px;background-position:${-column * size}px ${-row * height * scale}px` });
}

const scoresOf = (number) => data.scores.filter((score) => score.trial === number && score.cells.length);
const LABELS = { prompt: "", bare: "bare trigger: ", caption: "training caption: ", class: "no trigger: " };

function setUpGrid() {
  const scored = data.trials.filter((trial) => scoresOf(trial.number).length);
  const first = scored.filter((trial) => trial.choice);
  const rest = scored.filter((trial) => !trial.choice).sort((a, b) => ((b.axes.usefulness || [0])[0] || 0) - ((a.axes.usefulness || [0])[0] || 0));
  if (!state.picks.length) state.picks = [...first, ...rest].slice(0, 6).map((trial) => trial.number);
  options(byId("one"), scored.map((trial) => [String(trial.number), trialName(trial)]), String(state.picks[0]));
  byId("checkpoint").max = Math.max(0, grid.steps.length - 1);
  byId("checkpoint").value = grid.steps.length - 1;
  byId("strength").max = Math.max(0, grid.strengths.length - 1);
  byId("strength").value = grid.strengths.length - 1;
  byId("guidance").max = Math.max(0, grid.guidances.length - 1);
  byId("guidance").value = grid.guidances.indexOf((data.scores.find((score) => score.stage === "screen") || {}).guidance);
  if (!hasGuidances) byId("x-axis").querySelector("[value=guidances]").remove();
  for (const id of ["x-axis", "one", "checkpoint", "strength", "guidance", "prompt-filter", "size"]) byId(id).addEventListener("input", drawGrid);
}

function gridColumns() {
  const kind = byId("x-axis").value;
  const at = chosenArm();
  const one = Number(byId("one").value);
  if (kind === "checkpoints") return grid.steps.map((step) => ({ ...at, title: `step ${step}`, number: one, step }));
  if (kind === "strengths") return grid.strengths.map((strength) => ({ ...at, title: `strength ${strength}`, number: one, strength }));
  if (kind === "guidances") return grid.guidances.map((guidance) => ({ ...at, title: `guidance ${guidanceText(guidance)}`, number: one, guidance }));
  return data.trials.filter((trial) => state.picks.includes(trial.number)).map((trial) => ({ ...at, title: trialName(trial), number: trial.number }));
}

const chosenArm = () => ({ step: grid.steps[byId("checkpoint").value], strength: grid.strengths[byId("strength").value],
  guidance: grid.guidances[byId("guidance").value] });

// The images of a column: its newest checkpoint up to the step, at the strength and the guidance.
function chosenScores(column) {
  const fitting = scoresOf(column.number).filter((score) => score.strength === column.strength && score.guidance === column.guidance && score.step <= column.step);
  const newest = Math.max(...fitting.map((score) => score.step));
  return fitting.filter((score) => score.step === newest);
}

function drawGrid() {
  const kind = byId("x-axis").value;
  const size = Number(byId("size").value);
  byId("one-label").hidden = kind === "trials";
  byId("checkpoint-label").hidden = kind === "checkpoints";
  byId("strength-label").hidden = kind === "strengths";
  byId("guidance-label").hidden = !hasGuidances || kind === "guidances";
  const { step, strength, guidance } = chosenArm();
  byId("checkpoint-text").textContent = step === undefined ? "" : `step ${step}`;
  byId("strength-text").textContent = strength === undefined ? "" : String(strength);
  byId("guidance-text").textContent = guidanceText(guidance);
  const shown = gridColumns().map((column) => ({ ...column, scores: chosenScores(column) }));
  const words = byId("prompt-filter").value.toLowerCase();
  const cells = [...new Set(shown.flatMap((column) => column.scores.flatMap((score) => score.cells)))]
    .filter((cell) => data.cells[cell].text.toLowerCase().includes(words)).sort((a, b) => a - b);
  const head = element("tr", {}, element("th", { class: "prompt", scope: "col" }, "prompt (seed)"),
    ...shown.map((column) => element("th", { scope: "col" }, column.title,
      element("span", { class: "under" }, column.scores.length ? `step ${column.scores[0].step} at ${spokenArm(column)}` : "not drawn here"))));
  byId("grid").replaceChildren(element("thead", {}, head), element("tbody", {}, ...cells.map((cell) => rowOf(cell, shown, size))));
  const rest = data.pictures_left_out ? ` ${data.pictures_left_out} sheets did not fit into this file; they lie in the trials' images folders.` : "";
  byId("images-hint").textContent = !data.scores.some((score) => score.cells.length) ? "No images were scored."
    : `${cells.length} prompts, ${shown.length} columns. Checkpoints are screened at strength 1, the best are drawn at the others too. Beneath each image stand its own raw scores: likeness is the cosine to the reference photos, and a probe's figure the probability of what the prompt asks for.${rest}`;
}

function rowOf(cell, shown, size) {
  const { text, seed, kind } = data.cells[cell];
  const title = `${LABELS[kind] ?? `${kind}: `}${text} (${seed})`;
  return element("tr", {}, element("th", { class: "prompt", scope: "row" }, title), ...shown.map((column) => {
    const score = column.scores.find((each) => each.cells.includes(cell) && each.picture) || column.scores.find((each) => each.cells.includes(cell));
    const position = score ? score.cells.indexOf(cell) : -1;
    return element("td", {}, tileOf(score, position, size, `${column.title}: ${title}`),
      score && score.images[position] ? element("span", { class: "under" }, score.images[position]) : null);
  }));
}

function drawCopies() {
  const { limit, pairs, photos, attract, num_images: numImages, num_copies: numCopies } = data.copies;
  byId("copies-text").textContent = !pairs.length ? "No image was compared with the training photos."
    : (limit === null ? `${numImages} images were compared with the training photos. ` : `${numCopies} of ${numImages} images are copies ` +
      `(perceptual distance below ${limit}). `) + "Nearest first: the image, and beside it the photo that it comes nearest to.";
  const photoOf = (number) => {
    const photo = photos[number];
    if (!photo) return element("span", { class: "missing", style: "width:120px;height:120px" }, "photo not found");
    return photo.picture ? element("img", { src: photo.picture, alt: `training photo ${photo.name}`, loading: "lazy" })
      : element("span", { class: "missing", style: "width:120px;height:120px" }, photo.name);
  };
  byId("copy-pairs").replaceChildren(...pairs.map((pair) => {
    const score = data.scores[pair.score];
    const cell = data.cells[score.cells[pair.tile]];
    return element("figure", { class: pair.is_copy ? "pair copy" : "pair" },
      element("div", { class: "two" }, tileOf(score, pair.tile, 120, `image of trial ${pair.trial}: ${cell.text}`), photoOf(pair.photo)),
      element("figcaption", {}, `${pair.is_copy ? "Copy. " : ""}Distance ${figure(pair.distance)}, trial ${pair.trial}, step ${score.step} at ${spokenArm(score)}: ${cell.text}`,
        photos[pair.photo] ? element("span", { class: "under" }, `${photos[pair.photo].name}: ${photos[pair.photo].caption}`) : null));
  }));
  byId("attract-title").hidden = !attract.length;
  byId("attract").replaceChildren(...attract.map(({ photo, count }) => element("figure", { class: "pair" },
    element("div", { class: "two" }, photoOf(photo)),
    element("figcaption", {}, `${photos[photo].name}: ${count} ${numCopies ? "copies" : "nearest images"}`, element("span", { class: "under" }, photos[photo].caption)))));
}
