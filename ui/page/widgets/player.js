// The step player. Python sends one message per change in `props.value`. The frames of a finished run arrive in one
// message, so the slider and the playback never wait for the server; everything else is fetched by the functions of
// `server`. The other player_*.js files follow this one in the same scope: plots, side by side, actions.
const root = element.querySelector(".lc-player");
const find = (selector) => root.querySelector(selector);
const stage = find(".lc-stage");
const picture = find(".lc-picture");
const slider = find(".lc-slider");
const label = find(".lc-label");
const strip = find(".lc-strip");
const batch = find(".lc-batch");
const badge = find(".lc-badge");
const wait = find(".lc-wait");
const bar = find(".lc-bar");
const play = find("[data-act=play]");
const views = [...root.querySelectorAll("[name=lc-view]")];
const STRIP_CELLS = 20;
const TITLES = {
  clean: "clean estimate", noisy: "noisy state", noise: "predicted noise", conditional: "conditional estimate",
  unconditional: "unconditional estimate", difference: "conditional less unconditional",
};

let run = null; // the finished run that the player holds
let other = null; // the run compared with it
let live = null; // the newest message of the run in progress
let image = 0;
let step = 1;
let timer = null;
const underway = new Set(); // what is being fetched
const refused = new Set(); // what could not be fetched for this run

const view = () => views.find((input) => input.checked).value;
const speed = () => Number(find("[name=lc-speed]:checked").value);
const done = () => root.dataset.phase === "done";
const count = () => (run ? run.steps.length : 0);
const framesKey = (which, name) => which + "/" + name;
const decodeKey = (which, name, at) => which + "/" + name + "/" + at;
const show = (node, visible) => node.toggleAttribute("hidden", !visible); // an SVG has no `hidden` property

function sigmaText(sigma) {
  if (sigma === 0) return "0";
  return sigma >= 10 ? sigma.toFixed(1) : sigma >= 1 ? sigma.toFixed(2) : sigma.toFixed(3);
}

function secondsText(seconds) {
  if (seconds < 60) return Math.max(Math.ceil(seconds), 1) + " s";
  return Math.floor(seconds / 60) + " min " + Math.round(seconds % 60) + " s";
}

function say(sentence, trouble) {
  find(".lc-said:not(.lc-trouble)").textContent = trouble ? "" : sentence;
  find(".lc-trouble").textContent = trouble ? sentence : "";
}

// Fetch from the server; null on an error, which is shown. The same request is never sent twice at a time.
async function fetchOnce(name, detail) {
  const mark = JSON.stringify([name, detail]);
  if (underway.has(mark) || refused.has(mark)) return null;
  underway.add(mark);
  const asker = run;
  try {
    const answer = await server[name]({ owner: run.owner, ...detail });
    if (run !== asker) return null;
    if (!answer.error) return answer;
    say(answer.error, true);
  } catch {
    say("The server does not respond. Is LatentCanvas still running?", true);
  } finally {
    underway.delete(mark);
  }
  refused.add(mark);
  return null;
}

// Merge a reply into its run.
function take(kept, answer) {
  for (const part of ["frames", "finals", "curves"]) Object.assign(kept[part], answer[part]);
}

async function fetchFrames(kept, which, name) {
  const answer = await fetchOnce("fetch_frames", { run: kept.run, image: which, view: name });
  if (!answer) return;
  take(kept, answer);
  if (done()) redraw();
}

// The image to show at this step: the final image, a full decode, or the preview of the chosen view.
function sourceOf(kept, which, at, name) {
  if (name === "clean" && at >= kept.steps.length && kept.finals[which]) {
    return { uri: kept.finals[which], note: kept.stopped ? "stopped here, decoded" : "" };
  }
  const decoded = kept.decodes[decodeKey(which, name, at)];
  if (decoded) return { uri: decoded, note: TITLES[name] + ", decoded in full" };
  const frames = kept.frames[framesKey(which, name)];
  return frames && frames[at - 1] ? { uri: frames[at - 1], note: TITLES[name] } : null;
}

function describe(number, total, sigma, evals, more) {
  const calls = evals === 1 ? "1 evaluation" : evals + " evaluations";
  const place = "step " + number + " of " + total + ", sigma " + sigmaText(sigma);
  label.textContent = place + ", " + (more || calls);
  slider.setAttribute("aria-valuetext", place);
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
  if (at) describe(step, count(), at.sigma, at.evals);
  else label.textContent = "the steps of this run were not saved";
  const source = sourceOf(run, image, step, view());
  if (source) paint(source.uri, source.note, run.prompt + (at ? ", step " + step : ""));
  if (!run.frames[framesKey(image, view())] || !run.finals[image]) fetchFrames(run, image, view());
  drawPair();
  root.dataset.step = String(step);
  find("[data-act=decode]").disabled = !canDecode();
  const here = nearestCell(step);
  for (const cell of strip.children) cell.classList.toggle("lc-here", cell === here);
  markPlots();
  namePlay();
}

function canDecode() {
  if (!done() || !count()) return false;
  return !(view() === "clean" && step === count()) && !(decodeKey(image, view(), step) in run.decodes);
}

function fill() {
  const low = Number(slider.min);
  const share = slider.max > low ? (slider.value - low) / (slider.max - low) : done() ? 1 : 0;
  slider.style.setProperty("--lc-fill", (share * 100).toFixed(1) + "%");
}

// The strip of thumbnails follows the slider: a cell for each step, or for several when there are many.
function cellSteps(total) {
  const cells = Math.min(total, STRIP_CELLS);
  return Array.from({ length: cells }, (_, i) => (cells < 2 ? total : 1 + Math.round((i * (total - 1)) / (cells - 1))));
}

function nearestCell(at) {
  const distance = (cell) => Math.abs(cell.dataset.step - at);
  return [...strip.children].reduce((best, cell) => (distance(cell) < distance(best) ? cell : best), strip.firstChild);
}

function layStrip(total) {
  strip.replaceChildren(
    ...cellSteps(total).map((at) => {
      const cell = document.createElement("span");
      cell.dataset.step = String(at);
      return cell;
    }),
  );
}

function fillCell(cell, uri) {
  if (cell) cell.style.backgroundImage = "url(" + uri + ")";
}

function drawStrip() {
  const frames = run.frames[framesKey(image, view())];
  if (!frames && strip.dataset.run === run.run) return; // the old ones stay until the new ones arrive
  layStrip(count());
  strip.dataset.run = run.run;
  delete strip.dataset.total;
  if (frames) for (const cell of strip.children) fillCell(cell, frames[cell.dataset.step - 1]);
}

function drawBatch(thumbnails, chosen) {
  show(batch, thumbnails.length > 1);
  root.classList.toggle("lc-batched", thumbnails.length > 1);
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
    button.setAttribute("aria-label", "Image " + (i + 1) + " of " + thumbnails.length);
    button.setAttribute("aria-pressed", String(i === chosen));
    button.firstChild.alt = "";
    if (button.firstChild.getAttribute("src") !== uri) button.firstChild.src = uri;
  });
}

function enable() {
  const ready = done();
  const steps = ready && count() > 0;
  slider.disabled = !(ready && count() > 1);
  root.querySelectorAll(".lc-icon").forEach((button) => { button.disabled = slider.disabled; });
  root.querySelectorAll(".lc-actions button").forEach((button) => { button.disabled = !steps; });
  for (const name of ["act=link", "menu=save", "act=pin", "act=verify"]) find("[data-" + name + "]").disabled = !ready;
  for (const name of ["[data-act=download]", "[data-menu=send]", "[data-act^=to-]"]) {
    root.querySelectorAll(name).forEach((button) => { button.disabled = !(ready && run.finals[image]); });
  }
  find("[data-act=branch]").disabled = !(steps && canBranch());
  find("[data-act=decode]").disabled = !canDecode();
  const offered = ready ? run.views : ["clean", "noisy"];
  for (const input of views) input.disabled = root.dataset.phase === "empty" || !offered.includes(input.value);
  if (views.find((input) => input.checked).disabled) views[0].checked = true;
}

// After its last step, only a stopped run has steps left.
const canBranch = () => step < count() || run.stopped;

function setPhase(phase) {
  root.dataset.phase = phase;
  show(find(".lc-empty"), phase === "empty");
  show(wait, phase === "wait");
  show(bar, phase === "live");
  if (phase !== "done") unpair();
  closeMenus();
  pause();
  enable();
}

function redraw() {
  drawStrip();
  drawBatch(run.thumbnails, image);
  drawPlots();
  drawTree();
  drawReport();
  drawRun();
  enable();
}

function goTo(at) {
  if (!done() || !count()) return;
  step = Math.min(Math.max(at, 1), count());
  drawRun();
  find("[data-act=branch]").disabled = !canBranch();
}

function namePlay() {
  const name = timer ? "Pause" : count() > 1 && step === count() ? "Replay" : "Play";
  play.setAttribute("aria-label", name);
  play.title = name + " (space)";
  root.classList.toggle("lc-playing", Boolean(timer));
  root.classList.toggle("lc-ended", name === "Replay");
}

function pause() {
  cancelAnimationFrame(timer);
  timer = null;
  namePlay();
}

// About four seconds for a run at normal speed, but never too slow or too quick to see a step.
function start() {
  if (!done() || count() < 2) return;
  if (step === count()) goTo(1);
  let at = step;
  let before = performance.now();
  const tick = (now) => {
    at += ((now - before) * speed()) / Math.min(Math.max(4000 / count(), 50), 300);
    before = now;
    if (Math.floor(at) > step) goTo(Math.floor(at));
    if (step >= count()) return pause();
    timer = requestAnimationFrame(tick);
  };
  timer = requestAnimationFrame(tick);
  namePlay();
}

function choose(which) {
  image = which;
  if (root.dataset.phase === "live") return drawLive();
  if (other) unpair();
  redraw();
}

function drawLive() {
  const name = view() === "noisy" ? "noisy" : "clean";
  const shots = live[name];
  paint(shots[Math.min(image, shots.length - 1)], TITLES[name], "Preview of the image");
  slider.min = "0";
  slider.max = String(live.total);
  slider.value = String(live.step);
  fill();
  const left = live.eta === null || live.eta === undefined ? "" : ", " + secondsText(live.eta) + " left";
  const due = live.evals_due || live.total;
  describe(live.step, live.total, live.sigma, live.evals, live.evals + " of " + due + " evaluations" + left);
  bar.setAttribute("aria-valuemax", String(due));
  bar.setAttribute("aria-valuenow", String(live.evals));
  bar.firstChild.style.width = (100 * live.evals) / due + "%";
  root.dataset.step = String(live.step);
  if (strip.dataset.total !== String(live.total)) {
    layStrip(live.total);
    strip.dataset.total = String(live.total);
    delete strip.dataset.run;
  }
  fillCell(nearestCell(live.step), picture.getAttribute("src"));
  drawBatch(live.clean, image);
  drawPlots();
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
    if (example.picture) button.append(thumbnail(example.picture));
    button.append(words(example.prompt));
    button.addEventListener("click", () => trigger("start", { prompt: example.prompt }));
    item.append(button);
    list.append(item);
  }
}

function thumbnail(uri) {
  const shot = document.createElement("img");
  shot.src = uri;
  shot.alt = "";
  return shot;
}

function words(text) {
  const span = document.createElement("span");
  span.textContent = text;
  return span;
}

const receive = {
  wait(message) {
    live = null;
    wait.textContent = message.text;
    if (window.innerWidth <= 860) find(".lc-stage").scrollIntoView({ block: "start", behavior: "smooth" });
    setPhase("wait");
    label.textContent = "";
    say("");
    strip.replaceChildren();
    delete strip.dataset.run;
    drawBatch([]);
    clearPlots();
    paint("", "", "");
  },
  live(message) {
    if (!live || live.job !== message.job) {
      image = 0;
      delete strip.dataset.total;
      clearPlots();
      say("");
    }
    const sigmas = live && live.job === message.job ? live.sigmas : [];
    sigmas.length = message.total;
    sigmas[message.step - 1] = message.sigma;
    live = { ...message, sigmas };
    if (root.dataset.phase !== "live") setPhase("live");
    drawLive();
  },
  done(message) {
    live = null;
    unpair();
    run = { ...message, decodes: {} };
    image = run.image;
    step = run.at || count() || 1;
    refused.clear();
    say("");
    hold();
  },
  back() {
    live = null;
    if (run) return hold();
    setPhase("empty");
    label.textContent = "no steps yet";
    paint("", "", "");
  },
};

function hold() {
  slider.min = "1";
  slider.max = String(Math.max(count(), 1));
  delete strip.dataset.run;
  setPhase("done");
  redraw();
}
