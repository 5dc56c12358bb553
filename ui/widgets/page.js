() => {
  const click = (selector) => {
    const button = document.querySelector(selector);
    if (button && !button.disabled) button.click();
  };
  document.addEventListener(
    "keydown",
    (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      event.stopPropagation();
      if (document.activeElement instanceof HTMLInputElement) document.activeElement.blur();
      setTimeout(() => click("#generate"), 30);
    },
    true,
  );
  document.addEventListener("click", (event) => {
    if (event.target.closest("#theme-switch")) document.body.classList.toggle("dark");
  });
}
