// The step player. Python sends one message per change in `props.value`; the frames of a finished run arrive in one
// go, so the slider and the playback never ask the server. `props.answer` carries what was asked for afterwards.
const root = element.querySelector(".lc-player");
const find = (selector) => root.querySelector(selector);
const picture = find(".lc-picture");
const slider = find(".lc-slider");
const label = find(".lc-label");
const strip = find(".lc-strip");
const batch = find(".lc-batch");
const badge = find(".lc-badge");
const wait = find(".lc-wait");
const plot = find(".lc-plot");
const play = find("[data-act=play]");
const decode = find("[data-act=decode]");
const download = find("[data-act=download]");
const views = [...root.querySelectorAll(".lc-view input")];
const STRIP_CELLS = 20;

let run = null; // the finished run that the player holds
let live = null; // the newest message of the run in progress
let image = 0;
let step = 1;
let timer = null;
const asked = new Set();

const view = () => views.find((input) => input.checked).value;
const framesKey = (which, name) => which + "/" + name;
const decodeKey = (which, at) => which + "/" + at;
const show = (node, visible) => node.toggleAttribute("hidden", !visible); // an SVG has no `hidden` property

function sigmaText(sigma) {
  if (sigma === 0) return "0";
  return sigma >= 10 ? sigma.toFixed(1) : sigma >= 1 ? sigma.toFixed(2) : sigma.toFixed(3);
}

function ask(kind, detail) {
  const key = JSON.stringify([run.run, kind, detail]);
  if (asked.has(key)) return;
  asked.add(key);
  trigger(kind === "frames" ? "frames" : "decode", { run: run.run, ...detail });
}

// What to paint at this step: the finished picture, a full decode, or the preview of the chosen view.
function sourceAt(at) {
  const last = at === run.steps.length;
  if (view() === "clean") {
    if (last && run.finals[image]) return { uri: run.finals[image], note: run.stopped ? "stopped here, decoded" : "" };
    const decoded = run.decodes[decodeKey(image, at)];
    if (decoded) return { uri: decoded, note: "decoded in full" };
  }
  const frames = run.frames[framesKey(image, view())];
  return frames ? { uri: frames[at - 1], note: "preview" } : null;
}

function describe(number, total, sigma, evals) {
  const calls = evals === 1 ? "1 evaluation" : evals + " evaluations";
  label.textContent = "step " + number + " of " + total + ", sigma " + sigmaText(sigma) + ", " + calls;
  slider.setAttribute("aria-valuetext", "step " + number + " of " + total + ", sigma " + sigmaText(sigma));
}

function paint(uri, note, alt) {
  show(picture, Boolean(uri));
  if (uri && picture.getAttribute("src") !== uri) picture.src = uri;
  picture.alt = alt;
  badge.textContent = note;
  show(badge, Boolean(note));
}

function drawRun() {
  const at = run.steps[step - 1];
  slider.value = String(step);
  fill();
  describe(step, run.steps.length, at.sigma, at.evals);
  const source = sourceAt(step);
  if (source) paint(source.uri, source.note, run.prompt + ", step " + step);
  else ask("frames", { image, view: view() });
  root.dataset.step = String(step);
  decode.disabled = view() !== "clean" || step === run.steps.length || decodeKey(image, step) in run.decodes;
  const here = nearestCell(step);
  for (const cell of strip.children) cell.classList.toggle("lc-here", cell === here);
  plot.querySelector("line").setAttribute("x1", String(plotX(step)));
  plot.querySelector("line").setAttribute("x2", String(plotX(step)));
}

const plotX = (at) => (run.steps.length < 2 ? 120 : ((at - 1) / (run.steps.length - 1)) * 120);

function drawPlot() {
  const logs = run.steps.map((s) => Math.log(Math.max(s.sigma, 0.02)));
  const low = Math.min(...logs);
  const span = Math.max(...logs) - low || 1;
  const points = logs.map((value, i) => plotX(i + 1).toFixed(1) + "," + (22 - (20 * (value - low)) / span).toFixed(1));
  plot.querySelector("polyline").setAttribute("points", points.join(" "));
  show(plot, run.steps.length > 1);
}

function fill() {
  const low = Number(slider.min);
  const share = slider.max > low ? (slider.value - low) / (slider.max - low) : root.dataset.phase === "done" ? 1 : 0;
  slider.style.setProperty("--lc-fill", (share * 100).toFixed(1) + "%");
}

// The thumbnails are a picture of the slider: a cell for each step, or for several when there are many.
function cellSteps(count) {
  const cells = Math.min(count, STRIP_CELLS);
  return Array.from({ length: cells }, (_, i) => (cells < 2 ? count : 1 + Math.round((i * (count - 1)) / (cells - 1))));
}

function nearestCell(at) {
  const distance = (cell) => Math.abs(cell.dataset.step - at);
  return [...strip.children].reduce((best, cell) => (distance(cell) < distance(best) ? cell : best), strip.firstChild);
}

function layStrip(count) {
  strip.replaceChildren(
    ...cellSteps(count).map((at) => {
      const cell = document.createElement("span");
      cell.dataset.step = String(at);
      return cell;
    }),
  );
}

function fillCell(cell, uri) {
  cell.style.backgroundImage = "url(" + uri + ")";
}

function drawStrip() {
  layStrip(run.steps.length);
  const frames = run.frames[framesKey(image, view())];
  if (frames) for (const cell of strip.children) fillCell(cell, frames[cell.dataset.step - 1]);
}

function drawBatch(thumbnails, chosen) {
  show(batch, thumbnails.length > 1);
  if (thumbnails.length < 2) return batch.replaceChildren();
  while (batch.children.length > thumbnails.length) batch.lastChild.remove();
  thumbnails.forEach((uri, i) => {
    let button = batch.children[i];
    if (!button) {
      button = document.createElement("button");
      button.type = "button";
      button.dataset.image = String(i);
      button.append(document.createElement("img"));
      batch.append(button);
    }
    button.setAttribute("aria-label", "Picture " + (i + 1) + " of " + thumbnails.length);
    button.setAttribute("aria-pressed", String(i === chosen));
    button.firstChild.alt = "";
    button.firstChild.src = uri;
  });
}

function enable() {
  const ready = root.dataset.phase === "done";
  slider.disabled = !ready;
  root.querySelectorAll(".lc-icon").forEach((button) => { button.disabled = !ready; });
  decode.disabled = true;
  download.disabled = !(ready && run.finals[image]);
  const offered = ready ? run.views : ["clean", "noisy"];
  for (const input of views) input.disabled = !offered.includes(input.value);
  if (views.find((input) => input.checked).disabled) views[0].checked = true;
}

function setPhase(phase) {
  root.dataset.phase = phase;
  show(find(".lc-empty"), phase === "empty");
  show(wait, phase === "wait");
  pause();
  enable();
}

function redraw() {
  drawStrip();
  drawPlot();
  drawBatch(run.thumbnails, image);
  drawRun();
}

function goTo(at) {
  if (!run || root.dataset.phase !== "done") return;
  step = Math.min(Math.max(at, 1), run.steps.length);
  drawRun();
}

function pause() {
  clearInterval(timer);
  timer = null;
  root.classList.remove("lc-playing");
  play.setAttribute("aria-label", "Play");
  play.title = "Play";
}

function start() {
  if (!run) return;
  if (step === run.steps.length) goTo(1);
  const pace = Math.min(Math.max(3000 / run.steps.length, 50), 300);
  timer = setInterval(() => (step < run.steps.length ? goTo(step + 1) : pause()), pace);
  root.classList.add("lc-playing");
  play.setAttribute("aria-label", "Pause");
  play.title = "Pause";
}

function choose(which) {
  image = which;
  if (root.dataset.phase === "live") return drawLive();
  if (!run.finals[image]) ask("frames", { image, view: view() });
  enable();
  redraw();
}

function save() {
  const bytes = Uint8Array.from(atob(run.finals[image].split(",")[1]), (c) => c.charCodeAt(0));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
  link.download = run.names[image];
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function drawLive() {
  const shots = live[view() === "noisy" ? "noisy" : "clean"];
  paint(shots[Math.min(image, shots.length - 1)], view() === "noisy" ? "noisy state" : "clean estimate", "The picture forming");
  slider.min = "0";
  slider.max = String(live.total);
  slider.value = String(live.step);
  fill();
  describe(live.step, live.total, live.sigma, live.evals);
  root.dataset.step = String(live.step);
  if (strip.dataset.total !== String(live.total)) {
    layStrip(live.total);
    strip.dataset.total = String(live.total);
  }
  fillCell(nearestCell(live.step), picture.getAttribute("src"));
  drawBatch(live.clean, image);
}

function cards(examples) {
  const list = find(".lc-cards");
  list.replaceChildren();
  for (const example of examples) {
    const item = document.createElement("div");
    item.setAttribute("role", "listitem");
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Use this prompt and generate";
    if (example.picture) {
      const shot = document.createElement("img");
      shot.src = example.picture;
      shot.alt = "";
      button.append(shot);
    }
    const words = document.createElement("span");
    words.textContent = example.prompt;
    button.append(words);
    button.addEventListener("click", () => trigger("start", { prompt: example.prompt }));
    item.append(button);
    list.append(item);
  }
}

const receive = {
  wait(message) {
    wait.textContent = message.text;
    if (window.innerWidth <= 860) root.scrollIntoView({ block: "start", behavior: "smooth" });
    setPhase("wait");
    label.textContent = "";
    strip.replaceChildren();
    show(plot, false);
    show(batch, false);
    paint("", "", "");
  },
  live(message) {
    if (!live) {
      image = 0;
      delete strip.dataset.total;
    }
    live = message;
    if (root.dataset.phase !== "live") setPhase("live");
    drawLive();
  },
  done(message) {
    live = null;
    run = { ...message, decodes: {} };
    image = Math.min(image, run.names.length - 1);
    if (!run.finals[image]) image = 0;
    step = run.steps.length;
    slider.min = "1";
    slider.max = String(run.steps.length);
    asked.clear();
    setPhase("done");
    redraw();
  },
  back() {
    live = null;
    if (!run) {
      setPhase("empty");
      label.textContent = "no steps yet";
      return paint("", "", "");
    }
    slider.min = "1";
    slider.max = String(run.steps.length);
    setPhase("done");
    redraw();
  },
};

function answered(answer) {
  if (!run || !answer || answer.run !== run.run) return;
  if (answer.uri) run.decodes[decodeKey(answer.image, answer.step)] = answer.uri;
  if (answer.frames) run.frames[framesKey(answer.image, answer.view)] = answer.frames;
  if (answer.final) run.finals[answer.image] = answer.final;
  if (root.dataset.phase !== "done") return;
  enable();
  redraw();
}

slider.addEventListener("input", () => { pause(); goTo(Number(slider.value)); });
strip.addEventListener("click", (event) => {
  if (event.target.dataset.step) { pause(); goTo(Number(event.target.dataset.step)); }
});
batch.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) choose(Number(button.dataset.image));
});
for (const input of views) {
  input.addEventListener("change", () => {
    if (root.dataset.phase === "live") drawLive();
    else if (run) redraw();
  });
}
const actions = {
  first: () => goTo(1),
  previous: () => goTo(step - 1),
  next: () => goTo(step + 1),
  last: () => goTo(run.steps.length),
  decode: () => ask("decode", { image, step }),
  download: save,
};
root.addEventListener("click", (event) => {
  const button = event.target.closest("[data-act]");
  if (!button || button.disabled) return;
  if (button.dataset.act === "play") return timer ? pause() : start();
  pause();
  actions[button.dataset.act]();
});
find(".lc-stage").addEventListener("keydown", (event) => {
  const moves = { ArrowLeft: step - 1, ArrowRight: step + 1, Home: 1, End: run ? run.steps.length : 1 };
  if (event.target !== event.currentTarget || !(event.key in moves)) return;
  event.preventDefault();
  pause();
  goTo(moves[event.key]);
});
watch("value", () => { if (props.value && receive[props.value.phase]) receive[props.value.phase](props.value); });
watch("answer", () => answered(props.answer));
watch("examples", () => cards(props.examples || []));
cards(props.examples || []);
setPhase("empty");
fill();
