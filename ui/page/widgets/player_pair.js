// Other runs: the tree of branches, pinned runs, and one of them side by side with the run that is shown.
const second = find(".lc-second");
const divider = find(".lc-divider");
const knob = divider.querySelector("input");
const versus = find(".lc-versus");
const tree = find(".lc-tree");
const pairMenu = find("#lc-pair-menu");
const pinButton = find("[data-act=pin]");
const PINS = "latentcanvas-pins";
const MAX_PINS = 12;

function pins() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(PINS) || "[]");
    return Array.isArray(kept) ? kept : [];
  } catch {
    return [];
  }
}

function pin() {
  const others = pins().filter((kept) => kept.run !== run.run);
  const pinned = others.length < pins().length;
  const own = { run: run.run, prompt: run.prompt, said: run.said, thumbnail: run.thumbnails[0] || "" };
  try {
    sessionStorage.setItem(PINS, JSON.stringify(pinned ? others : [own, ...others].slice(0, MAX_PINS)));
  } catch {
    say("This browser stores no data for the page, so runs cannot be pinned.", true);
  }
  drawPin();
}

function drawPin() {
  const pinned = Boolean(run) && pins().some((kept) => kept.run === run.run);
  pinButton.setAttribute("aria-pressed", String(pinned));
  pinButton.textContent = pinned ? "Pinned" : "Pin";
}

// The tree of branches, indented by depth, each with the step at which it left its parent.
function drawTree() {
  drawPin();
  const family = run.family || [];
  show(tree, family.length > 1);
  const depth = {};
  const row = {};
  tree.querySelector("ul").replaceChildren(
    ...family.map((branch, i) => {
      depth[branch.run] = branch.parent in depth ? depth[branch.parent] + 1 : 0;
      row[branch.run] = i;
      const item = document.createElement("li");
      item.style.setProperty("--lc-depth", String(depth[branch.run]));
      item.style.setProperty("--lc-up", String(i - (row[branch.parent] ?? i)));
      item.classList.toggle("lc-child", depth[branch.run] > 0);
      const text = depth[branch.run] ? "from step " + branch.step + ": " + branch.changed : "first run";
      item.append(card(branch.thumbnail, text, () => trigger("open", { run: branch.run })));
      if (branch.run === run.run) item.firstChild.setAttribute("aria-current", "true");
      return item;
    }),
  );
}

function card(uri, text, act) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "lc-card";
  button.title = text;
  if (uri) button.append(thumbnail(uri));
  button.append(words(text));
  button.addEventListener("click", act);
  return button;
}

// The runs that can be compared with this one: its branches and relatives, and pinned runs.
function fillPairMenu() {
  const family = (run.family || []).map((branch) => ({
    ...branch,
    text: branch.step ? "branch from step " + branch.step + ": " + branch.changed : "the first run",
  }));
  const kept = pins().map((pinned) => ({ ...pinned, text: pinned.prompt + ", " + pinned.said }));
  const offered = [...family, ...kept.filter((one) => !family.some((branch) => branch.run === one.run))];
  const cards = offered
    .filter((one) => one.run !== run.run)
    .map((one) => card(one.thumbnail, one.text, () => { closeMenus(); pair(one.run, one.text); }));
  pairMenu.replaceChildren(...cards);
  if (cards.length) return;
  const hint = document.createElement("p");
  hint.textContent = "Nothing to compare with yet: pin another run, or branch this one.";
  pairMenu.append(hint);
}

async function pair(id, text) {
  const answer = await fetchOnce("fetch_pair", { run: run.run, image, view: view(), other: id });
  if (!answer || !done()) return;
  other = { ...answer, decodes: {}, text };
  versus.querySelector("span").textContent = text;
  say(other.between.length ? "" : "The two runs have different sizes, so their distance is not shown.");
  redraw();
}

function unpair() {
  if (!other) return;
  other = null;
  drawPair();
  if (run && done()) redraw();
}

function drawPair() {
  for (const part of [second, divider, versus]) show(part, Boolean(other));
  root.classList.toggle("lc-paired", Boolean(other));
  if (!other) return;
  const name = other.views.includes(view()) ? view() : "clean";
  const source = sourceOf(other, other.image, other.match[step - 1], name);
  if (source && second.getAttribute("src") !== source.uri) second.src = source.uri;
  second.alt = other.prompt + ", step " + other.match[step - 1];
  if (!other.frames[framesKey(other.image, name)]) fetchFrames(other, other.image, name);
  divide();
}

function divide() {
  const at = Number(knob.value);
  second.style.clipPath = "inset(0 0 0 " + at + "%)";
  divider.style.setProperty("--lc-at", at + "%");
  knob.setAttribute("aria-valuetext", at + " percent of the width is this run");
}

knob.addEventListener("input", divide);
const drag = (event) => {
  if (!other || !event.buttons || event.target.closest("button")) return;
  const box = find(".lc-frame").getBoundingClientRect();
  knob.value = String(Math.round((100 * (event.clientX - box.left)) / box.width));
  divide();
};
stage.addEventListener("pointerdown", drag);
stage.addEventListener("pointermove", drag);
