// A fresh user: titles put into a basket, and the list that changes at each.

import { latest, send } from "../api.js";
import { chart, colourOf } from "../charts.js";
import { asRequest, controls, plain } from "../controls.js";
import { announce, fill, h } from "../dom.js";
import { changeWords, ranked, scoreNote, sourceTags, sourceWords } from "../lists.js";
import { failure, load, tags } from "../parts.js";
import { itemSearch } from "./item_search.js";
import { featureNames } from "./one_user.js";

/** Ranks that the chart of changes follows. */
const FOLLOWED = 10;

export function freshUser(root, context) {
  load(root, async () => {
    const [release, explain] = await Promise.all([context.overview(), featureNames()]);
    return tried(release, explain);
  });
  return {};
}

function tried(release, explain) {
  const only = latest();
  const settings = plain();
  const basket = [];
  let steps = [];
  const [chips, list, change] = [
    h("ul", { class: "basket" }), h("div", { class: "list" }), h("section", { class: "card steps" }),
  ];
  const types = (release.event_types ?? []).filter(({ name }) => name);
  const strongest = types.find(({ target }) => target)?.name ?? types[0]?.name ?? null;

  const ask = async (label) => {
    list.setAttribute("aria-busy", "true");
    try {
      const history = basket.map(({ id, type }) => (type ? { item_id: id, event_type: type } : id));
      const answer = await only((signal) => send("/recommend", {
        user_id: null, ...asRequest(settings), history, explain: true,
      }, { signal }));
      if (answer === undefined) return;
      const before = steps.at(-1)?.rows;
      steps.push({ label, rows: answer.recommendations });
      const words = before ? changeWords(before, answer.recommendations) : "";
      announce(words || `${answer.recommendations.length} items`);
      fill(
        list, sourceTags(answer), h("p", { class: "note" }, `This is ${sourceWords(answer)}.`),
        words && h("p", { class: "change" }, words), scoreNote(),
        ranked(answer.recommendations, {
          explain, before,
          act: {
            label: "add", words: ({ title }) => `Put ${title} into the basket`,
            run: (row) => add({ ...row, id: row.item_id }),
          },
        }),
      );
      change.hidden = steps.length < 2;
      fill(change, !change.hidden && ranksOverSteps(steps.slice(-6)));
    } catch (error) {
      fill(list, failure(error, () => ask(label)));
      announce(error.message);
    } finally {
      list.removeAttribute("aria-busy");
    }
  };

  const add = (item) => {
    if (!basket.some(({ id }) => id === item.id)) {
      basket.push({ ...item, type: strongest });
      showBasket();
      ask(`+ ${item.title || item.id}`);
    }
    search.clear();
    search.input.focus();
  };
  const remove = (item) => {
    basket.splice(basket.indexOf(item), 1);
    showBasket();
    ask(`− ${item.title || item.id}`);
    search.input.focus();
  };
  const showBasket = () => fill(chips, basket.length === 0
    ? h("li", { class: "note" }, "Empty: popular items are recommended. Search for a title, and add it.")
    : basket.map((item) => h(
      "li", {},
      h("span", {}, item.title || item.id, " ", tags(item.categories)),
      types.length > 1 && kind(item),
      h("button", {
        type: "button", class: "small", "aria-label": `Take ${item.title || item.id} out`,
        onclick: () => remove(item),
      }, "remove"),
    )));
  const kind = (item) => {
    const select = h("select", {
      "aria-label": `Kind of event with ${item.title || item.id}`,
      onchange: () => {
        item.type = select.value;
        ask(`${item.title || item.id}: ${item.type}`);
      },
    }, types.map(({ name }) => h("option", { value: name }, name)));
    select.value = item.type;
    return select;
  };
  const search = itemSearch({
    label: "Search titles", action: "Add", choose: add,
    hint: "Put two or three into the basket, and watch the list.",
  });
  const empty = h("button", {
    type: "button", class: "small",
    onclick: () => { basket.length = 0; steps = []; showBasket(); ask("start"); },
  }, "Empty the basket");
  showBasket();
  change.hidden = true;
  ask("start");
  return [
    h("div", { class: "user-head" }, h("h2", {}, "A fresh user"), h("p", { class: "note" },
      "Nobody the release knows: only the basket counts, and nothing is stored.")),
    h(
      "div", { class: "user-grid fresh" },
      h("section", { class: "card stack", "aria-label": "Basket" },
        h("h2", {}, "Basket"), search.element, chips, empty),
      h("section", { class: "card stack", "aria-label": "What is recommended" },
        h("h2", {}, "What is recommended"),
        h("details", { class: "adjust" }, h("summary", {}, "Adjust the list"),
          controls(release, settings, () => ask("adjusted"))),
        list),
      change,
    ),
  ];
}

/** The ranks of items from step to step: a line for each item of the latest list. */
function ranksOverSteps(steps) {
  const now = steps.at(-1).rows.slice(0, FOLLOWED);
  const names = now.map(({ item_id: id }) => id);
  const colour = colourOf(names);
  const points = steps.flatMap(({ rows, label }, step) => rows
    .filter(({ rank, item_id: id }) => rank <= FOLLOWED && names.includes(id))
    .map(({ item_id: id, title, rank }) => ({ step, label, id, title, rank })));
  const { line, dot, text } = window.Plot;
  return chart({
    caption: "How the first ten came about: the place of each item after each step, 1 at the top.",
    draw: () => ({
      height: 250, marginLeft: 44, marginRight: 48, marginBottom: 34,
      x: {
        label: null, ticks: steps.map((_, step) => step), tickSize: 0,
        tickFormat: (step) => cut(steps[step].label, steps.length > 3 ? 10 : 16),
      },
      y: { reverse: true, domain: [1, FOLLOWED], ticks: [1, 5, 10], label: null, grid: true },
      marks: [
        line(points, { x: "step", y: "rank", z: "id", stroke: ({ id }) => colour(id), strokeWidth: 2 }),
        dot(points, { x: "step", y: "rank", r: 4, fill: ({ id }) => colour(id), title: "title", tip: true }),
        text(points.filter(({ step }) => step === steps.length - 1), {
          x: "step", y: "rank", dx: 8, text: "rank", textAnchor: "start",
        }),
      ],
    }),
    columns: [
      { name: "label", label: "Step" }, { name: "rank", label: "Place", number: true },
      { name: "title", label: "Item" },
    ],
    rows: points,
  });
}

const cut = (words, most) => (words.length > most ? `${words.slice(0, most - 1)}…` : words);
