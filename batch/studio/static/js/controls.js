// Makes the controls of a list: length, diversity, categories, filters, repeats.

import { fill, h, settled } from "./dom.js";
import * as format from "./format.js";
import { choice, field } from "./parts.js";

const REPEATS = [
  { value: "release", label: "as the release", title: "As the release was trained" },
  { value: "no", label: "never", title: "Nothing that the user had" },
  { value: "yes", label: "allowed", title: "Also what the user had, when it is due again" },
];

/** The settings of a plain request. */
export const plain = () => ({ k: 10, diversity: 0, categories: [], where: {}, repeats: "release" });

/** Tells whether settings ask for the list as it is, whatever its length. */
export const isPlain = ({ diversity, categories, where, repeats }) =>
  diversity === 0 && categories.length === 0 && Object.keys(where).length === 0
  && repeats === "release";

/** The fields of a request with these settings. */
export function asRequest({ k, diversity, categories, where, repeats }) {
  return {
    k,
    ...(diversity > 0 && { diversity }),
    ...(categories.length > 0 && { categories }),
    ...(Object.keys(where).length > 0 && { where }),
    ...(repeats !== "release" && { allow_repeats: repeats === "yes" }),
  };
}

/**
 * The controls, which change `settings` and then call `change`.
 *
 * release: of the overview: its categories and attributes can be filtered by.
 */
export function controls(release, settings, change) {
  const later = settled(change);
  const box = h("div", { class: "controls" });
  const draw = () => fill(
    box,
    slider("Length of the list", { min: 3, max: 50, step: 1, value: settings.k }, format.count,
      (value) => { settings.k = value; later(); }),
    slider("Diversity", { min: 0, max: 1, step: 0.05, value: settings.diversity },
      (value) => (value === 0 ? "off" : value.toFixed(2)),
      (value) => { settings.diversity = value; later(); },
      "0 ranks by score alone; towards 1 each item is unlike those above it."),
    choice({
      label: "Items that the user had", options: REPEATS, value: settings.repeats,
      change: (value) => { settings.repeats = value; change(); },
    }),
    release.categories.length > 0 && several("Categories", release.categories, settings.categories,
      (chosen) => { settings.categories = chosen; change(); }),
    (release.attributes ?? []).filter(({ name }) => name !== "categories")
      .map((attribute) => condition(attribute, settings, later)),
    h("button", {
      type: "button", class: "small reset",
      onclick: () => { Object.assign(settings, plain()); draw(); change(); },
    }, "Reset all"),
  );
  draw();
  return box;
}

function slider(label, range, show, change, hint) {
  const shown = h("output", {}, show(range.value));
  const input = h("input", {
    type: "range", ...range,
    oninput: () => {
      shown.textContent = show(Number(input.value));
      input.setAttribute("aria-valuetext", shown.textContent);
      change(Number(input.value));
    },
  });
  input.value = range.value; // after min, max and step
  input.setAttribute("aria-valuetext", shown.textContent);
  const made = field(label, input, hint);
  made.querySelector("label").append(" ", shown);
  return made;
}

/** Check boxes of which several may be chosen, in a box that opens. */
function several(label, values, chosen, change) {
  const set = new Set(chosen);
  const count = h("span", { class: "tag accent" });
  const say = () => { count.textContent = set.size === 0 ? "all" : `${set.size} chosen`; };
  say();
  return h(
    "details", { class: "several", open: set.size > 0 },
    h("summary", {}, label, " ", count),
    h("div", { class: "boxes", role: "group", "aria-label": label }, values.map((value) => {
      const box = h("input", {
        type: "checkbox", checked: set.has(value),
        onchange: () => {
          if (box.checked) set.add(value);
          else set.delete(value);
          say();
          change([...set]);
        },
      });
      return h("label", {}, box, " ", format.attribute(value));
    })),
  );
}

/** A filter by one attribute: values to choose, yes or no, or a range. */
function condition({ name, kind, values, range }, settings, change) {
  const set = (value) => {
    if (value === null) delete settings.where[name];
    else settings.where[name] = value;
    change();
  };
  if (range) return between(name, kind, range, settings.where[name] ?? {}, set);
  if (kind === "boolean") {
    return choice({
      label: name, value: String(settings.where[name] ?? "any"),
      options: ["any", "true", "false"].map((value) => ({
        value, label: { any: "any", true: "yes", false: "no" }[value],
      })),
      change: (value) => set(value === "any" ? null : value === "true"),
    });
  }
  if (!values?.length) return null; // too many to choose from
  return several(name, values, settings.where[name] ?? [],
    (chosen) => set(chosen.length > 0 ? chosen : null));
}

function between(name, kind, range, chosen, set) {
  const dates = kind === "date";
  const [low, high] = Array.isArray(range) ? range : [range.min, range.max];
  const shown = (value) => (dates ? format.date(value) : format.short(value));
  const inputs = [["from", "gte", low], ["to", "lte", high]].map(([word, bound, end]) => {
    const input = h("input", {
      type: dates ? "date" : "number", step: dates ? null : "any",
      placeholder: dates ? null : shown(end), value: chosen[bound] ?? "",
      "aria-label": `${name}, ${word}`,
      oninput: () => {
        if (input.value === "") delete chosen[bound];
        else chosen[bound] = dates ? input.value : Number(input.value);
        set(Object.keys(chosen).length > 0 ? { ...chosen } : null);
      },
    });
    return [word, " ", input];
  });
  return h(
    "fieldset", { class: "between" },
    h("legend", {}, `${name} (${shown(low)} to ${shown(high)})`),
    h("div", { class: "row" }, inputs.map((each) => h("span", {}, each))),
  );
}
