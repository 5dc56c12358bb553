// The grid of runs. Python answers in three props: `page` (runs that fit the filters), `run` (the selected run)
// and `done` (the result of a star, a deletion, an export). Images are inside the messages and have no URL.
const root = element.querySelector(".lch");
const find = (selector) => root.querySelector(selector);
const grid = find(".lch-grid");
const detail = find(".lch-detail");
const filters = [...root.querySelectorAll("[data-filter]")];
const text = find(".lch-text");
const picked = new Map(); // id -> number of images
const show = (node, visible) => node.toggleAttribute("hidden", !visible);

let asked = 0; // the newest request; replies to older ones are dropped
let waiting = false;
let total = 0;
let shown = new Map(); // id -> row, in the order of the grid
let chosen = null; // the run in the detail
let image = 0;
let timer = null;

const plural = (count, noun) => count.toLocaleString() + " " + noun + (count === 1 ? "" : "s");

function day(value, next) {
  const [year, month, date] = value.split("-").map(Number);
  return new Date(year, month - 1, date + next).getTime() / 1000;
}

function wanted() {
  const said = Object.fromEntries(filters.map((field) => [field.dataset.filter, field]));
  return {
    text: text.value,
    model: said.model.value || null,
    sampler: said.sampler.value || null,
    since: said.since.value ? day(said.since.value, 0) : null,
    until: said.until.value ? day(said.until.value, 1) : null,
    starred: said.starred.checked || null,
  };
}

const narrowed = () => Object.values(wanted()).some((value) => value);

function ask(offset) {
  waiting = true;
  asked += 1;
  trigger("ask", { ...wanted(), offset, seq: asked });
}

const refresh = () => (clearTimeout(timer), ask(0));

function options(select, names, all) {
  const was = select.value;
  const entries = [["", all], ...names.map((name) => [name, name])];
  if (was && !names.includes(was)) entries.push([was, was]);
  select.replaceChildren(...entries.map(([value, name]) => new Option(name, value, false, value === was)));
}

function drawPage() {
  const page = props.page;
  if (!page || page.seq !== asked) return;
  waiting = false;
  say(page.error);
  if (page.error) return;
  total = page.total;
  if (page.offset === 0) {
    shown = new Map();
    grid.replaceChildren();
    root.querySelector(".lch-scroll").scrollTop = 0;
  }
  options(find("[data-filter=model]"), page.models, "All models");
  options(find("[data-filter=sampler]"), page.samplers, "All samplers");
  for (const row of page.rows) if (!shown.has(row.id)) addTile(row);
  drawCounts(page.note);
  rove(grid.querySelector("[data-run]"));
  if (shown.size < total && page.rows.length) requestAnimationFrame(more);
}

function drawCounts(note) {
  show(find("[data-act=clear]"), narrowed());
  find(".lch-count").textContent = total ? plural(total, "run") : "";
  const empty = find(".lch-empty");
  show(empty, total === 0);
  if (total) return;
  const fill = note || "Images that you generate appear here, with their settings and steps.";
  const said = narrowed() ? ["No matching runs", "Remove a word or a filter to find more."] : ["No runs yet", fill];
  empty.replaceChildren(made("h2", said[0]), made("p", said[1]));
}

function made(tag, words, name) {
  const node = document.createElement(tag);
  node.textContent = words;
  if (name) node.className = name;
  return node;
}

function dayName(seconds) {
  const then = new Date(seconds * 1000);
  const midnight = new Date();
  midnight.setHours(0, 0, 0, 0);
  if (then >= midnight) return "Today";
  midnight.setDate(midnight.getDate() - 1);
  if (then >= midnight) return "Yesterday";
  return then.toLocaleDateString(undefined, { weekday: "long", day: "numeric", month: "long", year: "numeric" });
}

const label = (row) => (row.prompt || "no prompt") + (row.stopped ? ", stopped" : "") + (row.starred ? ", starred" : "");

function addTile(row) {
  const name = dayName(row.created);
  if (grid.dataset.day !== name || !grid.children.length) {
    grid.dataset.day = name;
    grid.append(made("li", name, "lch-day"));
  }
  const item = document.createElement("li");
  item.className = "lch-tile";
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.run = row.id;
  button.tabIndex = -1;
  const img = document.createElement("img");
  img.decoding = "async";
  img.alt = "";
  if (row.small) img.src = row.small;
  else button.classList.add("lch-gone");
  button.append(img, made("span", row.prompt, "lch-caption"));
  if (row.pictures > 1) button.append(made("span", String(row.pictures), "lch-many"));
  if (row.stopped) button.append(made("span", "stopped", "lch-stopped"));
  const box = document.createElement("input");
  box.type = "checkbox";
  box.tabIndex = -1;
  box.checked = picked.has(row.id);
  box.setAttribute("aria-label", "Select: " + (row.prompt || "no prompt"));
  box.addEventListener("change", () => pick(row.id, box.checked));
  item.append(button, box);
  grid.append(item);
  shown.set(row.id, { ...row, item, button, box, small: row.small });
  drawTile(row.id);
}

function drawTile(id) {
  const row = shown.get(id);
  if (!row) return;
  row.button.setAttribute("aria-label", label(row));
  row.item.classList.toggle("lch-starred", row.starred);
  row.item.classList.toggle("lch-here", Boolean(chosen) && chosen.id === id);
  if (chosen && chosen.id === id) row.button.setAttribute("aria-current", "true");
  else row.button.removeAttribute("aria-current");
  row.box.checked = picked.has(id);
}

function more() {
  if (waiting || shown.size >= total || !shown.size) return;
  const end = find(".lch-end").getBoundingClientRect();
  const frame = find(".lch-scroll").getBoundingClientRect();
  const bottom = Math.min(frame.bottom, window.innerHeight);
  if (root.offsetParent !== null && end.top < bottom + 600) ask(shown.size);
}

// Only one tile is reachable by Tab; the arrow keys move between tiles.
function rove(button) {
  for (const other of grid.querySelectorAll('[data-run][tabindex="0"]')) setTab(other, -1);
  if (button) setTab(button, 0);
}

function setTab(button, index) {
  for (const part of button.parentElement.querySelectorAll("button, input")) part.tabIndex = index;
}

function step(from, key) {
  const tiles = [...grid.querySelectorAll("[data-run]")];
  const at = tiles.indexOf(from);
  if (key === "ArrowRight") return tiles[at + 1];
  if (key === "ArrowLeft") return tiles[at - 1];
  if (key === "Home") return tiles[0];
  if (key === "End") return tiles[tiles.length - 1];
  const here = from.getBoundingClientRect();
  const way = key === "ArrowDown" ? tiles.slice(at + 1) : tiles.slice(0, at).reverse();
  return way.find((tile) => {
    const box = tile.getBoundingClientRect();
    return Math.abs(box.left - here.left) < here.width / 2 && Math.abs(box.top - here.top) > here.height / 2;
  });
}

function pick(id, on) {
  if (on) picked.set(id, shown.get(id)?.pictures || 1);
  else picked.delete(id);
  drawTile(id);
  drawPicked();
}

function drawPicked() {
  const count = picked.size;
  show(find(".lch-picked"), count > 0);
  root.classList.toggle("lch-picking", count > 0);
  find(".lch-number").textContent = count + " selected";
  show(find(".lch-picked .lch-sure"), false);
}

function choose(id, at) {
  image = at || 0;
  trigger("choose", { run: id, image, seq: asked });
}

function drawRun() {
  const run = props.run;
  if (!run) return;
  if (run.error) return say(run.error);
  const same = chosen && chosen.id === run.id;
  const before = chosen && chosen.id;
  chosen = run;
  image = run.image;
  drawTile(before);
  drawTile(run.id);
  const was = detail.hasAttribute("hidden");
  show(detail, true);
  root.classList.add("lch-open");
  const picture = find(".lch-picture");
  picture.alt = run.prompt || "image without a prompt";
  show(picture, Boolean(run.uri));
  if (run.uri) picture.src = run.uri;
  find(".lch-stage").classList.toggle("lch-gone", !run.uri);
  const link = find("a[data-act=download]");
  link.href = run.uri || "";
  link.download = run.names[image];
  link.toggleAttribute("hidden", !run.uri);
  drawBatch();
  drawStar();
  show(detail.querySelector(".lch-sure"), false);
  find(".lch-prompt").textContent = run.prompt || "No prompt";
  find(".lch-words").replaceChildren(
    ...[["Created", new Date(run.created * 1000).toLocaleString()], ...run.words].flatMap(
      ([name, value]) => [made("dt", name), made("dd", value)],
    ),
  );
  drawFamily();
  if (!same) detail.scrollTop = 0;
  if (was || !same) detail.focus({ preventScroll: true });
}

function drawBatch() {
  const bar = find(".lch-batch");
  show(bar, chosen.smalls.length > 1);
  bar.replaceChildren(
    ...chosen.smalls.map((uri, i) => {
      const button = thumb(uri, "Image " + (i + 1) + " of " + chosen.smalls.length);
      button.setAttribute("aria-pressed", String(i === image));
      button.addEventListener("click", () => choose(chosen.id, i));
      return button;
    }),
  );
}

function drawFamily() {
  const family = find(".lch-family");
  show(family, chosen.family.length > 1);
  family.querySelector("div").replaceChildren(
    ...chosen.family.map((member) => {
      const words = member.step === null ? "first run" : "from step " + member.step;
      const button = thumb(member.small, member.prompt + ", " + words);
      button.append(made("span", words));
      if (member.id === chosen.id) button.setAttribute("aria-current", "true");
      button.addEventListener("click", () => choose(member.id, 0));
      return button;
    }),
  );
}

function thumb(uri, name) {
  const button = document.createElement("button");
  button.type = "button";
  button.title = name;
  button.setAttribute("aria-label", name);
  const img = document.createElement("img");
  img.alt = "";
  if (uri) img.src = uri;
  button.append(img);
  return button;
}

function drawStar() {
  const button = find("[data-act=star]");
  button.textContent = chosen.starred ? "Starred" : "Star";
  button.setAttribute("aria-pressed", String(chosen.starred));
}

function close() {
  const id = chosen && chosen.id;
  chosen = null;
  show(detail, false);
  root.classList.remove("lch-open");
  drawTile(id);
  if (shown.has(id)) shown.get(id).button.focus();
}

function say(sentence) {
  const note = find(".lch-note");
  show(note, Boolean(sentence));
  note.textContent = sentence || "";
}

function drawDone() {
  const done = props.done;
  if (!done) return;
  say(done.error);
  for (const id of done.starred || []) setStar(id, true);
  for (const id of done.unstarred || []) setStar(id, false);
  if (!done.removed) return;
  for (const id of done.removed) {
    picked.delete(id);
    const row = shown.get(id);
    if (row) row.item.remove();
    if (shown.delete(id)) total -= 1;
    if (chosen && chosen.id === id) close();
  }
  for (const head of grid.querySelectorAll(".lch-day"))
    if (!head.nextElementSibling || head.nextElementSibling.classList.contains("lch-day")) head.remove();
  drawPicked();
  drawCounts();
  rove(grid.querySelector("[data-run]"));
  more();
}

function setStar(id, on) {
  if (shown.has(id)) shown.get(id).starred = on;
  if (chosen && chosen.id === id) {
    chosen.starred = on;
    drawStar();
  }
  drawTile(id);
}

// Deletion is confirmed once, next to the button.
function sure(box, runs, pictures) {
  const these = pictures === 1 ? "its image" : "its " + plural(pictures, "image");
  const what = runs === 1 ? "this run and " + these : runs + " runs with " + plural(pictures, "image");
  box.querySelector("span").textContent = "Delete " + what + "?";
  show(box, true);
  box.querySelector("button").focus();
}

const pictures = () => [...picked.values()].reduce((sum, count) => sum + count, 0);
const acts = {
  clear: () => {
    text.value = "";
    for (const field of filters) field.type === "checkbox" ? (field.checked = false) : (field.value = "");
    refresh();
  },
  close,
  reopen: () => trigger("reopen", { run: chosen.id, seq: asked }),
  star: () => trigger("star", { runs: [chosen.id], on: !chosen.starred }),
  "star-picked": () => trigger("star", { runs: [...picked.keys()], on: true }),
  pack: () => trigger("pack", { runs: [...picked.keys()] }),
  remove: () => sure(detail.querySelector(".lch-sure"), 1, chosen.names.length),
  "remove-picked": () => sure(find(".lch-picked .lch-sure"), picked.size, pictures()),
  "remove-one": () => trigger("remove", { runs: [chosen.id] }),
  "remove-sure": () => trigger("remove", { runs: [...picked.keys()] }),
  keep: () => root.querySelectorAll(".lch-sure").forEach((box) => show(box, false)),
  unpick: () => [...picked.keys()].forEach((id) => pick(id, false)),
};

root.addEventListener("click", (event) => {
  const tile = event.target.closest("[data-run]");
  if (tile && grid.contains(tile)) {
    rove(tile);
    if (root.classList.contains("lch-picking") && (event.ctrlKey || event.metaKey || event.shiftKey)) pick(tile.dataset.run, !picked.has(tile.dataset.run));
    else choose(tile.dataset.run, 0);
    return;
  }
  const act = event.target.closest("[data-act]");
  if (act && act.dataset.act in acts) acts[act.dataset.act]();
});
grid.addEventListener("keydown", (event) => {
  const from = event.target.closest("[data-run]");
  if (!from || !["ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp", "Home", "End"].includes(event.key)) return;
  event.preventDefault();
  const to = step(from, event.key);
  if (!to) return;
  rove(to);
  to.focus();
});
detail.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  event.stopPropagation();
  close();
});
find("form").addEventListener("submit", (event) => {
  event.preventDefault();
  refresh();
});
text.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(refresh, 250);
});
for (const field of filters) field.addEventListener("change", refresh);
find(".lch-scroll").addEventListener("scroll", more, { passive: true });
window.addEventListener("scroll", more, { passive: true });
root.addEventListener("refresh", refresh);
watch("page", drawPage);
watch("run", drawRun);
watch("done", drawDone);
options(find("[data-filter=model]"), [], "All models");
options(find("[data-filter=sampler]"), [], "All samplers");
refresh();
