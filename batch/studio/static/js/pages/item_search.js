// A search for items with a button for each result.

import { latest, studio } from "../api.js";
import { announce, fill, h, settled } from "../dom.js";
import * as format from "../format.js";
import { failure, field, tags } from "../parts.js";

/**
 * The search: {element, input, clear}.
 *
 * choose: called with {id, title, categories} of the chosen item; action: the buttons' word; shown:
 * results at most. The first result is chosen by Enter.
 */
export function itemSearch({ label, action, choose, shown = 8, hint }) {
  const results = h("ul", { class: "found" });
  const only = latest();
  const find = async () => {
    const q = input.value.trim();
    if (q === "") {
      only(async () => {}); // a search that still runs must not fill them again
      fill(results);
      return;
    }
    try {
      const found = await only((signal) => studio("items", { q, limit: shown }, { signal }));
      if (found === undefined) return;
      announce(`${format.counted(found.total, "item")} found`);
      fill(results, found.items.length === 0
        ? h("li", { class: "note" }, `No title or id has “${q}”.`)
        : found.items.map(row));
    } catch (error) {
      fill(results, h("li", {}, failure(error, find)));
    }
  };
  const row = (item) => h(
    "li", {},
    h("button", {
      type: "button", class: "small", "aria-label": `${action} ${item.title || item.id}`,
      onclick: () => choose(item),
    }, action),
    h("span", {}, item.title || item.id, " ", tags(item.categories)),
  );
  const input = h("input", {
    type: "search", autocomplete: "off", spellcheck: "false", placeholder: "title or id",
    oninput: settled(find, 80),
    onkeydown: (event) => {
      // What stands there may be of an earlier text.
      if (event.key === "Enter") find().then(() => results.querySelector("button")?.click());
    },
  });
  const clear = () => {
    input.value = "";
    find();
  };
  return { element: h("div", { class: "stack" }, field(label, input, hint), results), input, clear };
}
