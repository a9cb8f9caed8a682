// Sets the chosen theme before the first paint; not a module, because modules wait for the page.
(() => {
  const kept = localStorage.getItem("studio-theme");
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
})();
