() => {
  const body = document.body;
  const seen = (selector) => [...document.querySelectorAll(selector)].find((node) => node.offsetParent !== null);
  const click = (selector) => {
    const button = seen(selector);
    if (button && !button.disabled) button.click();
    return Boolean(button);
  };
  // A tab that is clicked before the page is restored as it was left is shown after that too.
  let clicked = null;
  const note = (event) => {
    clicked = event.target.closest("#tabs > .tab-wrapper button[role=tab]") || clicked;
  };
  document.addEventListener("click", note);
  window.latentcanvas = {
    restored: () => {
      document.removeEventListener("click", note);
      if (clicked && clicked.getAttribute("aria-selected") !== "true") clicked.click();
    },
    tab: (name) => {
      const shown = ["txt2img", "img2img", "inpaint"].includes(name) ? name : "none";
      const bench = document.querySelector("#workbench");
      if (bench && bench.dataset.tab !== shown) bench.dataset.tab = shown;
    },
    generate: () => setTimeout(() => click(".lc-generate"), 30),
  };
  // The event that a tab was chosen can get lost on a busy machine: then its panel tells.
  const tabs = document.querySelector("#tabs");
  const follow = () => {
    const panels = [...tabs.querySelectorAll(":scope > .tabitem")]; // each from its first opening on
    const panel = panels.find((node) => node.style.display !== "none");
    if (panel) window.latentcanvas.tab(panel.id.slice("tab-".length));
  };
  let late = 0;
  const changed = () => {
    clearTimeout(late);
    late = setTimeout(follow, 300);
  };
  if (tabs) new MutationObserver(changed).observe(tabs, { subtree: true, childList: true, attributeFilter: ["style"] });
  const store = "latentcanvas-theme";
  const remembered = localStorage.getItem(store);
  if (remembered) body.classList.toggle("dark", remembered === "dark");

  for (const [list, words] of [["#styles", "Styles"], ["#preset", "Preset"]]) {
    const input = document.querySelector(list + " input");
    if (input) input.placeholder = words;
  }

  // A field sends its value when it loses focus, so blur it first.
  const settle = () => {
    if (document.activeElement instanceof HTMLInputElement) document.activeElement.blur();
  };
  const popups = "[role=listbox], [aria-modal=true], .lc-pop:not([hidden])";
  document.addEventListener(
    "keydown",
    (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        event.stopPropagation();
        settle();
        window.latentcanvas.generate();
      } else if (event.key === "Escape" && !seen(popups)) {
        click("#stop");
      }
    },
    true,
  );
  document.addEventListener("click", (event) => {
    if (!event.target.closest("#theme-switch")) return;
    const dark = body.classList.toggle("dark");
    localStorage.setItem(store, dark ? "dark" : "light");
  });
}
