// Actions on a run (full decodes, files, links, branches, verification), and the keys and clicks that start them.
const report = find(".lc-report");

function drawReport() {
  const parts = Object.entries(run.seconds).filter(([, value]) => value >= 0.005);
  const total = parts.reduce((sum, [, value]) => sum + value, 0);
  const calls = run.evals === 1 ? "1 evaluation" : run.evals + " evaluations";
  const spent = parts.map(([name, value]) => name + " " + value.toFixed(2)).join(", ");
  const said = [calls + (total ? " in " + total.toFixed(2) + " s" + (parts.length > 1 ? ": " + spent : "") : "")];
  if (run.words) said.push(run.words);
  if (run.stopped) said.push("stopped after step " + count() + " of " + run.total);
  said.push("seed " + (run.seed + image));
  said.push(run.saved ? "saved as " + run.names[image] : "not saved");
  report.replaceChildren(...said.map(words));
}

async function decode() {
  const wanted = { run: run.run, image, view: view(), step };
  say("Decoding step " + step + "...");
  const answer = await fetchOnce("fetch_decode", wanted);
  if (!answer) return;
  run.decodes[decodeKey(wanted.image, wanted.view, wanted.step)] = answer.uri;
  say("");
  if (done()) drawRun();
}

function saveUri(uri, name) {
  const [head, data] = uri.split(",");
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes], { type: head.slice(5, head.indexOf(";")) }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function saveFile(kind) {
  closeMenus();
  say("Making the file...");
  const answer = await fetchOnce("fetch_file", { run: run.run, image, view: view(), step, kind });
  if (!answer) return;
  saveUri(answer.uri, answer.name);
  say("Saved " + answer.name + ".");
}

async function copyLink() {
  closeMenus();
  const address = new URL(location.pathname, location.origin);
  address.searchParams.set("run", run.run);
  if (count()) address.searchParams.set("step", String(step));
  if (image) address.searchParams.set("image", String(image + 1));
  try {
    await navigator.clipboard.writeText(address.href);
    say("Copied a link to this run at step " + step + ".");
  } catch {
    say("The browser does not allow copying. The link is " + address.href, true);
  }
}

function send(to) {
  closeMenus();
  trigger("send", { run: run.run, image, to });
}

function showVerdict(verdict) {
  if (run && verdict && verdict.run === run.run) say(verdict.text, verdict.trouble);
}

const menus = [...root.querySelectorAll("[data-menu]")];

function closeMenus() {
  for (const button of menus) {
    button.setAttribute("aria-expanded", "false");
    show(button.nextElementSibling, false);
  }
}

function toggleMenu(button) {
  const open = button.getAttribute("aria-expanded") === "true";
  closeMenus();
  if (open) return;
  if (button.dataset.menu === "pair") fillPairMenu();
  button.setAttribute("aria-expanded", "true");
  show(button.nextElementSibling, true);
  const first = button.nextElementSibling.querySelector("button");
  if (first) first.focus();
}

const moves = {
  first: () => goTo(1),
  previous: () => goTo(step - 1),
  next: () => goTo(step + 1),
  last: () => goTo(count()),
};
const actions = {
  ...moves,
  play: () => start(),
  decode,
  branch: () => trigger("branch", { run: run.run, image, step }),
  unpair,
  pin,
  verify: () => { say("Queued: the run is made again and compared."); trigger("verify", { run: run.run }); },
  "to-img2img": () => send("img2img"),
  "to-inpaint": () => send("inpaint"),
  link: copyLink,
  download: () => saveUri(run.finals[image], run.names[image]),
  "save-step": () => saveFile("step"),
  "save-gif": () => saveFile("gif"),
  "save-sheet": () => saveFile("sheet"),
};
root.addEventListener("click", (event) => {
  const menu = event.target.closest("[data-menu]");
  if (menu && !menu.disabled) return toggleMenu(menu);
  const button = event.target.closest("[data-act]");
  if (!button || button.disabled) return;
  const playing = timer;
  pause();
  if (playing && button.dataset.act === "play") return;
  actions[button.dataset.act]();
});

const KEYS = { ArrowLeft: "previous", ArrowRight: "next", Home: "first", End: "last" };

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (event.key === "Escape" && menus.some((menu) => menu.getAttribute("aria-expanded") === "true")) {
    const opened = menus.find((menu) => menu.getAttribute("aria-expanded") === "true");
    closeMenus();
    event.stopPropagation();
    return opened.focus();
  }
  const at = event.target;
  if (!done() || at.matches("[type=radio], textarea, select") || (at.matches("input") && at !== slider)) return;
  if (event.key === " " && !at.closest("button")) {
    event.preventDefault();
    return timer ? pause() : start();
  }
  if (!(event.key in KEYS) || at === slider) return; // a slider handles these keys itself
  event.preventDefault();
  pause();
  moves[KEYS[event.key]]();
}

root.addEventListener("keydown", onKey);
// The arrow keys also work when nothing has the focus.
document.addEventListener("keydown", (event) => {
  if (document.activeElement === document.body && find(".lc-stage").offsetParent && event.key in KEYS) onKey(event);
});
document.addEventListener("pointerdown", (event) => { if (!event.target.closest(".lc-menu")) closeMenus(); });

slider.addEventListener("input", () => { pause(); goTo(Number(slider.value)); });
const scrubStrip = (event) => {
  const cell = event.target.closest("[data-step]");
  if (cell && done()) { pause(); goTo(Number(cell.dataset.step)); }
};
strip.addEventListener("pointerdown", scrubStrip);
strip.addEventListener("pointermove", (event) => { if (event.buttons) scrubStrip(event); });
batch.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) choose(Number(button.dataset.image));
});
for (const input of views) {
  input.addEventListener("change", () => {
    if (root.dataset.phase === "live") drawLive();
    else if (run && done()) redraw();
  });
}
// A message with a mark is told again in case it was lost: what is shown already stays as it is.
let heard = null;
const hear = () => {
  const message = props.value;
  if (!message || (message.mark && message.mark === heard)) return;
  heard = message.mark;
  receive[message.phase]?.(message);
};
watch("value", hear);
watch("verdict", () => showVerdict(props.verdict));
watch("examples", () => cards(props.examples || []));
cards(props.examples || []);
setPhase("empty");
fill();
hear(); // what came before this script is told by no watch
