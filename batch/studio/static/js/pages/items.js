// The Items page: find an item, see what is like it, who is offered it, and where it lies.

import { get, latest, studio } from "../api.js";
import { ACCENT, chart } from "../charts.js";
import { announce, fill, h, settled } from "../dom.js";
import * as format from "../format.js";
import { attributeWords } from "../lists.js";
import { empty, field, itemLink, later, load, section, table, tags, tiles } from "../parts.js";
import { catalogueMap } from "./map.js";

export const title = "Items";

const SIMILAR = 12;

export function mount(root, context) {
  const detail = h("div", { class: "view" });
  const map = catalogueMap(context, (id) => context.go("items", { id }));
  const finder = h("aside", { class: "card stack", "aria-label": "Find an item" });
  let first = null;
  load(finder, async () => {
    const release = await context.overview();
    first = itemFinder(release, (id) => context.go("items", { id }));
    first.mark(current);
    return first.element;
  });
  fill(root, h("h1", { class: "unseen" }, "Items"), h(
    "div", { class: "split" }, finder, h("div", { class: "view" }, detail, map.element),
  ));
  let current = null;
  const only = latest();
  return {
    update: ({ id }) => {
      current = id ?? null;
      first?.mark(current);
      if (!id) {
        fill(detail);
        map.choose(null, []);
        return;
      }
      load(detail, () => only(async (signal) => {
        const [item, similar, release] = await Promise.all([
          studio("item", { id }, { signal }),
          get("/v1/item/similar", { item_id: id, k: SIMILAR }, { signal }),
          context.overview(),
        ]);
        map.choose(id, similar.items.map(({ item_id: other }) => other));
        announce(`Item ${item.title || id}`);
        return whole(item, similar.items, release);
      }), `Loading item ${id} …`);
    },
    leave: () => map.leave(),
  };
}

/** The search and its results. */
function itemFinder(release, open) {
  const results = h("div", { class: "results" });
  const only = latest();
  const state = { q: "", category: "" };
  const find = () => load(results, () => only(async (signal) => {
    const found = await studio("items", { ...state, limit: 50 }, { signal });
    announce(`${format.counted(found.total, "item")} found`);
    return listed(found, state);
  }), "Looking for items …").then(() => mark(marked));
  const search = h("input", {
    type: "search", autocomplete: "off", spellcheck: "false", placeholder: "words of a title, or an id",
    oninput: settled(() => { state.q = search.value.trim(); find(); }, 80),
    onkeydown: (event) => {
      if (event.key !== "Enter") return;
      state.q = search.value.trim(); // what stands there may be of an earlier text
      find().then(() => results.querySelector("a")?.dataset.item).then((id) => id && open(id));
    },
  });
  const categories = h("select", {
    onchange: () => { state.category = categories.value; find(); },
  }, h("option", { value: "" }, "all"), release.categories.map((name) => h("option", {}, name)));
  let marked = null;
  const mark = (id) => {
    marked = id;
    for (const link of results.querySelectorAll("a")) {
      if (link.dataset.item === id) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };
  find();
  const element = h(
    "div", { class: "stack" },
    field("Search items", search, "Enter opens the first result."),
    release.categories.length > 0 && field("Category", categories),
    results,
  );
  return { element, mark };
}

function listed({ items, total }, { q, category }) {
  if (items.length === 0) {
    return empty(`No item${category ? ` of ${category}` : ""} has “${q}” in its title or id.`,
      "Try fewer or shorter words.");
  }
  return [
    h("p", { class: "note" }, q === ""
      ? `The most popular of ${format.counted(total, "item")}`
      : `${format.count(items.length)} of ${format.counted(total, "item")}`),
    h("ul", { class: "picker" }, items.map((item) => h("li", {}, h(
      "a", { href: `#/items?id=${encodeURIComponent(item.id)}`, "data-item": item.id },
      h("span", { class: "id" }, item.title || item.id),
      h("span", { class: "note" }, [
        ...(item.categories ?? []).slice(0, 3), format.counted(item.n_events, "event"),
        item.reach !== null && `in ${format.counted(item.reach, "list")}`,
      ].filter(Boolean).join(" · ")),
    )))),
  ];
}

function whole(item, similar, release) {
  return [
    h(
      "div", { class: "user-head" },
      h("h2", {}, item.title || item.id),
      h("p", { class: "note" }, `id ${item.id} `, tags(item.categories), " ",
        attributeWords(item.attributes)),
    ),
    h("div", { class: "card stack" }, tiles(facts(item, release)),
      item.rules.length > 0 && h("p", { class: "warning" }, item.rules.join(" "))),
    h(
      "div", { class: "columns" },
      section("Similar items", "By the item vectors and by what the same users took.", similar.length > 0
        ? table({
          caption: `Items like ${item.title || item.id}`, unseen: true, rows: similar,
          columns: [
            { name: "rank", label: "", number: true },
            { name: "title", label: "Item", show: (row) => h(
              "span", {}, itemLink(row.item_id, row.title), " ", tags(row.categories)) },
            { name: "score", label: "Likeness", number: true, show: ({ score }) => format.decimal(score, 2) },
          ],
        })
        : empty("No item is like this one.")),
      h("div", { class: "stack" }, offered(item, release), popularity(item)),
    ),
  ];
}

function facts(item, release) {
  const lists = item.reach?.lists ?? null;
  return [
    {
      label: "Events", value: format.count(item.n_events),
      detail: item.first ? `${format.date(item.first)} to ${format.date(item.last)}` : "in training",
    },
    {
      label: "Offered to", value: lists === null ? format.NONE : format.counted(lists, "user"),
      detail: lists === null ? "comes with the next batch"
        : `${format.percent(lists / Math.max(1, release.n_users))} of all, anywhere in their list`,
    },
    {
      label: "Shown", value: item.blocked ? "blocked" : "yes",
      detail: item.blocked ? "kept out of every answer" : ruleWords(item.rules),
      state: item.blocked ? "warn" : "neutral",
    },
  ];
}

const ruleWords = ({ length }) => (length === 0 ? "no rule names it" : format.counted(length, "rule"));

function offered({ reach }, release) {
  const title = "Who is offered it, and at which places";
  if (!reach) return section(title, null, later("This release has not counted it."));
  if (reach.lists === 0) {
    return section(title, null, empty("No user is offered it.",
      `It is in none of the ${format.count(release.n_users)} lists: too few events, or better ones before it.`));
  }
  const rows = reach.by_rank.filter(({ from }) => from <= release.list_length).map(({ from, to, n }) => ({ places: from === to ? `${from}` : `${from}–${to}`, n }));
  return section(title, null, chart({
    caption: "Users, by the place that it has in their list.",
    draw: () => ({
      height: 190, marginLeft: 46,
      x: { label: null, domain: rows.map(({ places }) => places) },
      y: { label: null, grid: true, tickFormat: "~s" },
      marks: [
        window.Plot.barY(rows, { x: "places", y: "n", fill: ACCENT, tip: true, title: ({ places, n }) =>
          `${format.counted(n, "user")} at ${places}` }),
        window.Plot.ruleY([0], { stroke: "var(--control)" }),
      ],
    }),
    columns: [{ name: "places", label: "Places" },
      { name: "n", label: "Users", number: true, show: ({ n }) => format.count(n) }],
    rows,
  }));
}

/** The months from the first to the last, with 0 where nothing happened. */
function everyMonth(months) {
  const counts = new Map(months.map(({ month, n }) => [month, n]));
  const at = new Date(`${months[0].month}-01T00:00:00Z`);
  const rows = [];
  for (let month = months[0].month; month <= months.at(-1).month; month = at.toISOString().slice(0, 7)) {
    rows.push({ month, at: new Date(at), n: counts.get(month) ?? 0 });
    at.setUTCMonth(at.getUTCMonth() + 1);
  }
  return rows;
}

function popularity({ months }) {
  const title = "Popularity over time";
  if (!months) return section(title, null, later("This release has not counted it."));
  if (months.length === 0) return section(title, null, empty("It had no event yet."));
  const clock = months.every(({ month }) => /^\d{4}-\d\d$/.test(month));
  const rows = clock ? everyMonth(months) : months;
  const x = clock ? "at" : "month";
  return section(title, null, chart({
    caption: `Events in each ${clock ? "month, by UTC" : "stretch of the data"}.`,
    draw: () => ({
      height: 190, marginLeft: 46,
      x: { label: null, type: clock ? "utc" : undefined },
      y: { label: null, grid: true, zero: true, tickFormat: "~s" },
      marks: [
        window.Plot.areaY(rows, { x, y: "n", fill: ACCENT, fillOpacity: 0.18, curve: "step" }),
        window.Plot.lineY(rows, { x, y: "n", stroke: ACCENT, curve: "step", tip: true, title: ({ month, n }) =>
          `${format.counted(n, "event")} in ${month}` }),
        window.Plot.ruleY([0], { stroke: "var(--control)" }),
      ],
    }),
    columns: [{ name: "month", label: "Month" },
      { name: "n", label: "Events", number: true, show: ({ n }) => format.count(n) }],
    rows,
  }));
}
