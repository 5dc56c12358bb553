// Small plots over the steps, of the run and of the one compared with it. A click goes to the step.
const SVG = "http://www.w3.org/2000/svg";
const PAD = 5;
const plots = [...root.querySelectorAll(".lc-plot")].map((figure) => ({
  figure,
  name: figure.dataset.curve,
  svg: figure.querySelector("svg"),
  value: figure.querySelector("output"),
  points: [],
}));

function curveOf(kept, which, name) {
  return (kept.curves[which] || {})[name] || [];
}

// The values to draw, one line for each run: this one, and the other at the matching steps.
function linesOf(name) {
  if (root.dataset.phase === "live") return name === "sigma" ? [live.sigmas] : [];
  if (name === "between") return other ? [other.between] : [];
  const lines = [curveOf(run, image, name)];
  if (other) {
    const theirs = curveOf(other, other.image, name);
    lines.push(other.match.map((at) => theirs[at - 1]));
  }
  return lines;
}

function node(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  return made;
}

function clearPlots() {
  for (const plot of plots) {
    plot.points = [];
    plot.svg.replaceChildren();
    plot.value.textContent = "";
    show(plot.figure, plot.name === "sigma");
  }
  show(tree, false);
}

const isKnown = (value) => value !== null && value !== undefined;

// First decide which plots are shown, since they share the height; then draw each.
function drawPlots() {
  for (const plot of plots) {
    plot.lines = linesOf(plot.name);
    const known = plot.lines.flat().filter(isKnown);
    const nothing = plot.name === "guidance" && known.every((value) => value === 0);
    show(plot.figure, known.length > 0 && !nothing);
  }
  for (const plot of plots) drawPlot(plot);
  markPlots();
}

function drawPlot(plot) {
  const raw = plot.lines;
  const known = raw.flat().filter(isKnown);
  plot.svg.replaceChildren();
  plot.points = [];
  const { clientWidth: width, clientHeight: height } = plot.svg;
  if (!known.length || !width) return;
  const total = raw[0].length;
  const scale = plot.name === "sigma" ? (value) => Math.log10(Math.max(value, floorOf(known))) : (value) => value;
  const low = plot.name === "sigma" ? scale(0) : 0;
  const span = Math.max(...known.map(scale)) - low || 1;
  const y = (value) => height - PAD - ((height - 2 * PAD) * (scale(value) - low)) / span;
  const x = (at) => (total < 2 ? width / 2 : PAD + ((width - 2 * PAD) * (at - 1)) / (total - 1));
  plot.svg.setAttribute("viewBox", "0 0 " + width + " " + height);
  const base = height - PAD;
  plot.svg.append(node("line", { class: "lc-base", x1: PAD, x2: width - PAD, y1: base, y2: base }));
  plot.points = raw.map((values) =>
    values.map((value, i) => (!isKnown(value) ? null : { x: x(i + 1), y: y(value), value })),
  );
  plot.points.forEach((points, i) => {
    const drawn = points.filter(Boolean);
    const path = drawn.map((p) => p.x.toFixed(1) + " " + p.y.toFixed(1)).join("L");
    const last = drawn.at(-1);
    if (!last) return;
    const kind = i ? "lc-theirs" : "lc-ours";
    if (!i) plot.svg.append(node("path", { class: "lc-area", d: "M" + path + "L" + last.x + " " + base + "L" + drawn[0].x + " " + base + "Z" }));
    plot.svg.append(node("path", { class: kind, d: "M" + path }));
  });
  plot.mark = node("line", { class: "lc-mark", y1: 0, y2: height });
  plot.dots = plot.points.map((_, i) => node("circle", { class: i ? "lc-theirs" : "lc-ours", r: 3.5 }));
  plot.svg.append(plot.mark, ...plot.dots);
}

// The bottom of the logarithmic scale for levels that end at 0: half the smallest positive one.
function floorOf(values) {
  return Math.min(...values.filter((value) => value > 0), 1) / 2;
}

function markPlots() {
  const at = root.dataset.phase === "live" ? live.step : step;
  for (const plot of plots) {
    const here = plot.points.map((points) => points[at - 1]);
    if (!here[0]) {
      plot.value.textContent = "";
      continue;
    }
    plot.mark.setAttribute("x1", here[0].x);
    plot.mark.setAttribute("x2", here[0].x);
    here.forEach((point, i) => {
      show(plot.dots[i], Boolean(point));
      if (!point) return;
      plot.dots[i].setAttribute("cx", point.x);
      plot.dots[i].setAttribute("cy", point.y);
    });
    plot.value.textContent = here.map((point) => (point ? numberText(point.value) : "-")).join(" | ");
  }
}

function numberText(value) {
  if (value === 0) return "0";
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value >= 1 ? value.toFixed(2) : value.toFixed(3);
}

for (const plot of plots) {
  const scrub = (event) => {
    const points = plot.points[0];
    if (!points || !done()) return;
    const at = event.clientX - plot.svg.getBoundingClientRect().left;
    const share = (at - PAD) / (plot.svg.clientWidth - 2 * PAD);
    pause();
    goTo(1 + Math.round(share * (count() - 1)));
  };
  plot.svg.addEventListener("pointerdown", scrub);
  plot.svg.addEventListener("pointermove", (event) => { if (event.buttons) scrub(event); });
}
new ResizeObserver(() => { if (done() || root.dataset.phase === "live") drawPlots(); }).observe(find(".lc-side"));
