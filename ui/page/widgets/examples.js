// Example prompts, and behind a link the subjects that the model can paint.
const chips = element.querySelector(".lc-chips");
const link = element.querySelector(".lc-link");
const subjects = element.querySelector(".lc-subjects");

function button(text, event, detail) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = made.title = text;
  made.addEventListener("click", () => trigger(event, detail));
  return made;
}

// Image `i` of the sheet, which has `count` images one below the other.
function image(sheet, i, count) {
  const made = document.createElement("span");
  made.style.background = `url(${sheet}) 0 ${count > 1 ? (100 * i) / (count - 1) : 0}% / 100% auto`;
  return made;
}

// Gradio may report a change before the value is there.
function draw() {
  if (!props.value?.prompts) return;
  const { prompts, phrases, sheet } = props.value;
  chips.replaceChildren(...prompts.map((prompt) => button(prompt, "pick", { prompt })));
  link.hidden = !phrases.length;
  if (link.hidden) open(false);
  subjects.replaceChildren(
    ...phrases.map((phrase, i) => {
      const made = button(phrase, "append", { phrase });
      if (sheet) made.prepend(image(sheet, i, phrases.length));
      return made;
    }),
  );
}

function open(wanted) {
  subjects.hidden = !wanted;
  link.setAttribute("aria-expanded", String(wanted));
  if (wanted && !props.value.sheet) trigger("open");
}

link.addEventListener("click", () => open(subjects.hidden));
watch("value", draw);
draw();
