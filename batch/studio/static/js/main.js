// Routes addresses such as #/users?id=7 to pages, and shows the serving release above them.
//
// A page is a module with `title` and `mount(root, context)`, which gives {update(parameters),
// leave()}. `update` is called with the address's parameters, a plain object, at once and at each
// change; `leave`, which may be absent, when another page comes. `context` has `overview()`, the
// promise of the release's facts; `refresh()`, which asks for them again; and `go(page,
// parameters)`, which changes the address.

import { studio } from "./api.js";
import { announce, fill, h } from "./dom.js";
import * as format from "./format.js";
import { failure, loading, tiles } from "./parts.js";

const PAGES = [
  { name: "users", label: "Users" },
  { name: "items", label: "Items" },
  { name: "data", label: "Data" },
  { name: "quality", label: "Quality" },
  { name: "operations", label: "Operations" },
];

const root = document.getElementById("page");
const strip = document.getElementById("overview");
let facts = null;
let shown = { name: null, page: null };
let latestRoute = 0;

const context = {
  overview: () => (facts ??= studio("overview")),
  refresh: () => {
    facts = null;
    return showOverview();
  },
  go: (page, parameters = {}) => {
    const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
    location.hash = `#/${page}${query.size ? `?${query}` : ""}`;
  },
};

/** The page's name and parameters in an address's hash. */
function parsed(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const page = PAGES.find(({ name }) => name === path) ?? PAGES[0];
  return { page, parameters: Object.fromEntries(new URLSearchParams(query)) };
}

async function route() {
  const mine = (latestRoute += 1);
  const { page, parameters } = parsed(location.hash);
  markCurrent(page.name);
  if (shown.name !== page.name) {
    shown.page?.leave?.();
    shown = { name: page.name, page: null };
    fill(root, loading());
    if (await lacksRelease()) {
      shown.name = null;
      if (mine === latestRoute) fill(root, firstSteps());
      return;
    }
    try {
      const module = await import(`./pages/${page.name}.js`);
      if (mine !== latestRoute) return;
      fill(root);
      shown.page = module.mount(root, context);
    } catch (error) {
      fill(root, failure(error));
      shown.name = null;
      return;
    }
    document.title = `${page.label} · Shortlist studio`;
    announce(`${page.label} page`);
    window.scrollTo(0, 0);
  }
  shown.page?.update(parameters);
}

/** Whether nothing serves yet; other errors are told by the parts that meet them. */
const lacksRelease = () => context.overview().then(() => false, ({ code }) => code === "no_release");

/** What to do where nothing serves yet. */
function firstSteps() {
  const again = () => {
    context.refresh();
    route();
  };
  return h(
    "section", { class: "card stack first-steps", "aria-label": "First steps" },
    h("h1", {}, "No release serves yet"),
    h("p", {}, "The studio shows a release: what the batch learnt from your data. Make one, then look again."),
    h("pre", {}, h("code", {}, "shortlist data check orders.csv products.csv --write data.toml\n"
      + "shortlist batch run --data data.toml")),
    h("p", { class: "note" }, "Without data of your own, ", h("code", {}, "shortlist data fetch shop --out data"),
      " makes up a shop; its mapping file is ", h("code", {}, "data/data.toml"), "."),
    h("button", { type: "button", class: "primary", onclick: again }, "Look again"),
  );
}

function markCurrent(name) {
  for (const link of document.querySelectorAll("#pages a")) {
    const current = link.dataset.page === name;
    if (current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

async function showOverview() {
  try {
    fill(strip, overviewOf(await context.overview()));
  } catch (error) {
    facts = null;
    fill(strip, error.code !== "no_release" && failure(error, context.refresh));
  }
}

function overviewOf(release) {
  const open = window.matchMedia("(min-width: 700px)").matches;
  return h(
    "details", { class: "release", open },
    h(
      "summary", {},
      h("span", {}, "Serving ", h("strong", {}, release.version ?? "no release")),
      release.as_of !== null && h("span", { class: "note" },
        `knows events up to ${format.date(release.as_of)}`),
    ),
    tiles(release.tiles),
    release.headline?.warning && h("p", { class: "warning" }, release.headline.warning),
    !release.has_studio_facts && h("p", { class: "note" },
      "This release was made before the studio kept its facts: some charts come with the next ",
      h("code", {}, "shortlist batch run"), "."),
  );
}

const THEMES = { light: "dark", dark: "light" };
const themeButton = document.getElementById("theme");

function theme() {
  const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
  return document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
}

function showTheme() {
  themeButton.textContent = theme() === "dark" ? "Light" : "Dark";
  themeButton.setAttribute("aria-label", `Change to the ${THEMES[theme()]} theme`);
}

themeButton.addEventListener("click", () => {
  document.documentElement.dataset.theme = THEMES[theme()];
  localStorage.setItem("studio-theme", theme());
  showTheme();
  window.dispatchEvent(new Event("themechange"));
});

fill(document.getElementById("pages"), PAGES.map(({ name, label }) =>
  h("li", {}, h("a", { href: `#/${name}`, "data-page": name }, label))));
showTheme();
window.addEventListener("hashchange", route);
window.addEventListener("keychange", () => {
  shown.page?.leave?.();
  shown = { name: null, page: null };
  context.refresh();
  route();
});
showOverview();
route();
