const root = element.querySelector(".lc-grid");
const find = (name) => root.querySelector(".lc-grid-" + name);
const spots = new Map();
let shown = null;

function make(tag, name, words) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (words !== undefined) made.textContent = words;
  return made;
}

function spot(x, y, z) {
  const button = make("button", "lc-spot");
  button.type = "button";
  button.disabled = true;
  button.addEventListener("click", () => trigger("open", { run: button.dataset.run, grid: shown }));
  spots.set([x, y, z].join(), button);
  return button;
}

function flow(axis) {
  const list = make("ol", "lc-grid-flow");
  axis.values.forEach((value, x) => {
    const item = make("li");
    item.append(make("span", "lc-grid-label", value), spot(x, 0, 0));
    list.append(item);
  });
  return list;
}

function sheet(axes, shape, z) {
  const table = make("table");
  if (axes.length > 2) table.append(make("caption", "", axes[2].title + ": " + axes[2].values[z]));
  const head = table.createTHead().insertRow();
  head.append(make("td", "lc-grid-corner", axes[1].title + " ↓  " + axes[0].title + " →"));
  for (const value of axes[0].values) {
    const cell = make("th", "", value);
    cell.scope = "col";
    head.append(cell);
  }
  const body = table.createTBody();
  for (let y = 0; y < shape[1]; y++) {
    const row = body.insertRow();
    const label = make("th", "", axes[1].values[y]);
    label.scope = "row";
    row.append(label);
    for (let x = 0; x < shape[0]; x++) row.insertCell().append(spot(x, y, z));
  }
  return table;
}

function build(message) {
  spots.clear();
  shown = message.grid;
  const { axes, shape } = message;
  const place = find("scroll");
  const tall = (window.innerHeight - 230) / Math.min(shape[1], 4) / 1.25; // so that three or four rows fit
  const largest = Math.max(Math.min(Math.max(message.largest, 200), 256, tall), 110);
  place.style.setProperty("--lc-largest", Math.round(largest) + "px");
  place.style.setProperty("--lc-columns", shape[0]);
  if (axes.length === 1) place.replaceChildren(make("p", "lc-grid-axis", axes[0].title), flow(axes[0]));
  else place.replaceChildren(...Array.from({ length: shape[2] }, (_, z) => sheet(axes, shape, z)));
}

function paint(cell) {
  const button = spots.get(cell.at.join());
  if (!button) return;
  const words = { waiting: "queued", running: "running", stopped: cell.run ? "stopped early" : "not run", failed: "failed" };
  const state = words[cell.state] || "";
  button.dataset.state = cell.state;
  button.disabled = !cell.run;
  button.dataset.run = cell.run || "";
  button.title = cell.error || (cell.run ? cell.words + "; open this run" : state);
  button.setAttribute("aria-label", cell.words + (state ? ", " + state : "") + (cell.run ? ", open" : ""));
  const inside = [];
  if (cell.src) {
    const picture = make("img");
    picture.src = cell.src;
    picture.alt = "";
    inside.push(picture);
  }
  if (state) inside.push(make("span", "lc-spot-state", cell.error || state));
  button.replaceChildren(...inside);
}

function tell(message) {
  root.dataset.state = message.done ? "done" : "running";
  find("words").textContent = message.words;
  find("bar").firstElementChild.style.width = message.share * 100 + "%";
  find("bar").hidden = message.done;
  message.cells.forEach(paint);
}

function draw() {
  const message = props.value;
  find("empty").hidden = Boolean(message);
  find("head").hidden = find("scroll").hidden = !message;
  if (!message) {
    root.dataset.state = "empty";
    return;
  }
  build(message);
  tell(message);
}

find("examples").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) trigger("example", { number: Number(button.dataset.number) });
});
watch("value", draw);
watch("news", () => {
  if (props.news && props.news.grid === shown) tell(props.news);
});
draw();
