// Makes the parts that pages share: states, tiles, tables, terms, tabs, dialogs.

import { setAdminKey, setApiKey } from "./api.js";
import { announce, fill, h, newId } from "./dom.js";

/** Words while something loads. */
export const loading = (words = "Loading …") =>
  h("p", { class: "state loading", role: "status" }, words);

/** Words for nothing to show; `detail` says why, or what to do. */
export const empty = (words, detail) =>
  h("div", { class: "state" }, h("p", {}, words), detail && h("p", { class: "note" }, detail));

/** What a release of before the studio lacks: `what` is a sentence that says it. */
export const later = (what) => empty(what, ["The next ", h("code", {}, "shortlist batch run"), " has it."]);

/** An error with its remedy; `again` is called by a button. One for want of a key asks for it. */
export function failure(error, again) {
  return h(
    "div", { class: "state failed", role: "alert" },
    h("p", {}, error.message),
    error.code === "admin_key_needed" ? keyForm("Admin key", setAdminKey)
      : error.status === 401 ? keyForm("API key", setApiKey)
        : again && h("button", { type: "button", onclick: again }, "Try again"),
  );
}

/** A field for a key, which stays in the page's memory; then the whole page is asked for again. */
function keyForm(label, keep) {
  const input = h("input", { type: "password", autocomplete: "off" });
  const use = (event) => {
    event.preventDefault();
    keep(input.value);
    window.dispatchEvent(new Event("keychange"));
  };
  return h("form", { class: "row key-form", onsubmit: use },
    field(label, input), h("button", { class: "primary" }, "Use it"));
}

/**
 * Fills `element` with what `work` gives: its loading words first, then the nodes, or the error.
 *
 * work: an async function that gives nodes; undefined leaves the element as it is.
 */
export async function load(element, work, words) {
  fill(element, loading(words));
  try {
    const nodes = await work();
    if (nodes !== undefined) fill(element, nodes);
  } catch (error) {
    fill(element, failure(error, () => load(element, work, words)));
    announce(error.message);
  }
}

/** A section with a heading of its own; `intro` is a sentence below it. */
export function section(title, intro, ...children) {
  const id = newId("section");
  return h(
    "section", { class: "card", "aria-labelledby": id },
    h("h2", { id }, title),
    intro && h("p", { class: "note" }, intro),
    children,
  );
}

/** Tiles of {label, value, detail, state: good|warn|bad|neutral}. */
export function tiles(each) {
  return h("dl", { class: "tiles" }, each.map(tile));
}

const STATE_WORDS = { good: "good", warn: "look at this", bad: "needs action" };

function tile({ label, value, detail, state = "neutral" }) {
  return h(
    "div", { class: `tile ${state}` },
    h("dt", {}, label, STATE_WORDS[state] && h("span", { class: "unseen" }, `: ${STATE_WORDS[state]}`)),
    h("dd", {}, h("strong", {}, value), detail && h("span", { class: "note" }, detail)),
  );
}

/**
 * A name that explains itself on hover, focus and touch.
 *
 * explanation: a sentence; without one the name is plain text.
 */
export function term(name, explanation) {
  if (!explanation) return h("span", {}, name);
  const id = newId("term");
  const words = h("span", { role: "tooltip", id, class: "tip" }, explanation);
  const close = (event) => event.key === "Escape" && event.target.blur();
  const button = h(
    "button", { type: "button", class: "term", "aria-describedby": id, onkeydown: close }, name,
  );
  const place = () => { // within the window, at whose edge the name may stand
    words.style.removeProperty("left");
    const over = words.getBoundingClientRect().right + 8 - document.documentElement.clientWidth;
    if (over > 0) words.style.setProperty("left", `${-over}px`);
  };
  return h("span", { class: "termed", onmouseenter: place, onfocusin: place }, button, words);
}

/**
 * A table within its own scrolling box.
 *
 * columns: [{name, label, number: true|false, show: (row) => node or text}]; rows: objects. A
 * column without `show` gives row[name]. `caption` names the table; `unseen` hides it from sight.
 */
export function table({ caption, columns, rows, unseen = false, rowClass }) {
  return h(
    "div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h(
      "table", {},
      h("caption", { class: unseen && "unseen" }, caption),
      h("thead", {}, h("tr", {}, columns.map(({ label, number }) =>
        h("th", { scope: "col", class: number && "number" }, label)))),
      h("tbody", {}, rows.map((row) =>
        h("tr", { class: rowClass?.(row) }, columns.map(({ name, number, show }) =>
          h("td", { class: number && "number" }, show ? show(row) : row[name]))))),
    ),
  );
}

/**
 * Buttons of which one is chosen: {label, options: [{value, label, title}], value, change}.
 *
 * change: called with the new value.
 */
export function choice({ label, options, value, change }) {
  const name = newId("choice");
  return h(
    "fieldset", { class: "choice" },
    h("legend", {}, label),
    h("div", { class: "choices" }, options.map((option) => {
      const input = h("input", {
        type: "radio", name, id: `${name}-${option.value}`, value: option.value,
        checked: option.value === value, onchange: () => change(option.value),
      });
      return [
        input,
        h("label", { for: input.id, title: option.title }, option.label ?? option.value),
      ];
    })),
  );
}

/** A labelled input: field("Search", h("input", …), "a hint below"). */
export function field(label, input, hint) {
  if (!input.id) input.id = newId("field");
  const hintId = hint && `${input.id}-hint`;
  if (hintId) input.setAttribute("aria-describedby", hintId);
  return h(
    "div", { class: "field" },
    h("label", { for: input.id }, label),
    input,
    hint && h("span", { class: "hint", id: hintId }, hint),
  );
}

/**
 * Asks for confirmation in a dialog, and gives true or false.
 *
 * body: nodes or text that say what will happen; action: the button's words.
 */
export function confirmed({ title, body, action, danger = false }) {
  const id = newId("dialog");
  return new Promise((resolve) => {
    const dialog = h(
      "dialog", { "aria-labelledby": id },
      h(
        "form", { method: "dialog" },
        h("h2", { id }, title),
        h("div", { class: "body" }, body),
        h(
          "div", { class: "actions" },
          h("button", { value: "no", autofocus: true }, "Cancel"),
          h("button", { value: "yes", class: danger ? "danger" : "primary" }, action),
        ),
      ),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** A link to a user's page. */
export const userLink = (id, words = id) =>
  h("a", { href: `#/users?id=${encodeURIComponent(id)}` }, words);

/** A link to an item's page. */
export const itemLink = (id, title) =>
  h("a", { href: `#/items?id=${encodeURIComponent(id)}` }, title || id);

/** Small labels, such as an item's categories. */
export const tags = (names) =>
  h("span", { class: "tags" }, (names ?? []).map((name) => h("span", { class: "tag" }, name)));
