// Shows ranked lists: what is in them, why, and what moved between two of them.

import { h } from "./dom.js";
import * as format from "./format.js";
import { itemLink, tags, term } from "./parts.js";

/** Where an answer came from, in words. */
export const SOURCES = {
  batch: "the list that the last batch wrote",
  live: "computed at this moment from the stored history",
  session: "computed at this moment from the history in the request",
  popular: "popular items, as nothing better is known of this user",
  stale: "the last list although it is out of date, because the live models were not at hand",
};

const SCORE = "The ranker's score. It orders one list; scores of two users do not compare.";

/** How each item of `rows` moved from `before`: {item_id: {from, to, words, mark, kind}}. */
export function moves(before, rows) {
  const places = new Map(before.map(({ item_id: id, rank }) => [id, rank]));
  return new Map(rows.map(({ item_id: id, rank }) => [id, moved(places.get(id), rank)]));
}

function moved(from, to) {
  if (from === undefined) return { from, to, kind: "new", mark: "new", words: "new in the list" };
  const by = from - to;
  if (by === 0) return { from, to, kind: "same", mark: "=", words: "same place" };
  const [kind, arrow, word] = by > 0 ? ["up", "▲", "up"] : ["down", "▼", "down"];
  return { from, to, kind, mark: `${arrow}${Math.abs(by)}`, words: `${word} from place ${from}` };
}

/** One sentence of what changed from one list to another. */
export function changeWords(before, rows) {
  const each = [...moves(before, rows).values()];
  const added = each.filter(({ kind }) => kind === "new").length;
  const shifted = each.filter(({ kind }) => kind === "up" || kind === "down").length;
  if (added === 0 && shifted === 0 && before.length === rows.length) return "Nothing changed.";
  const gone = before.length - (rows.length - added);
  return `${format.counted(added, "item")} new, ${format.count(gone)} gone, `
    + `${format.count(shifted)} at another place, ${rows.length - added - shifted} where they were.`;
}

/**
 * A ranked list.
 *
 * rows: of the API; options: reasons {item_id: reason}, before (rows of the list to compare with),
 * after (rows of the list that this one became), act ({label, words(row), run(row)}: a button of
 * each row), point (called with the item ids that a row's reason names, or []), explain (names of
 * features in words).
 */
export function ranked(rows, options = {}) {
  const change = options.before && moves(options.before, rows);
  const kept = options.after && new Set(options.after.map(({ item_id: id }) => id));
  return h("ol", { class: "ranked" }, rows.map((row) => entry(row, change?.get(row.item_id), {
    ...options, gone: kept && !kept.has(row.item_id),
  })));
}

function entry(row, move, options) {
  const reason = row.reason ?? options.reasons?.get(row.item_id);
  const causes = (reason?.because ?? []).map(({ item_id: id }) => id);
  const point = (ids) => () => options.point?.(ids);
  return h(
    "li",
    {
      class: options.gone ? "gone" : move?.kind,
      "data-item": row.item_id,
      onmouseenter: point(causes), onmouseleave: point([]),
      onfocusin: point(causes), onfocusout: point([]),
    },
    h("span", { class: "rank" }, row.rank, move && mark(move)),
    h(
      "div", { class: "what" },
      h("div", { class: "name" }, itemLink(row.item_id, row.title), " ", tags(row.categories), " ",
        labels(row, options)),
      reason && why(reason, row.attributes, options),
    ),
    h(
      "div", { class: "ends" },
      h("span", { class: "score" }, format.decimal(row.score, 3)),
      options.act && h(
        "button",
        {
          type: "button", class: "small", "aria-label": options.act.words(row),
          onclick: () => options.act.run(row),
        },
        options.act.label,
      ),
    ),
  );
}

const mark = ({ kind, mark: text, words }) => h(
  "span", { class: `move ${kind}`, title: words },
  h("span", { "aria-hidden": "true" }, text), h("span", { class: "unseen" }, `, ${words}`),
);

function labels(row, { gone, had }) {
  const each = [
    gone && h("span", { class: "tag bad" }, "gone"),
    had?.has(row.item_id) && h("span", { class: "tag" }, "had before"),
    ...(row.rules ?? []).map((name) => h("span", { class: "tag warn" }, `moved by rule: ${name}`)),
  ].filter(Boolean);
  return each.length > 0 && h("span", { class: "tags" }, each);
}

function why(reason, attributes, { explain = {} }) {
  const most = Math.max(...Object.values(reason.features).map(Math.abs), 0);
  return h(
    "details", { class: "why" },
    h("summary", {}, reason.text),
    Object.keys(attributes ?? {}).length > 0 && h("p", { class: "note" }, attributeWords(attributes)),
    reason.because.length > 0 && h(
      "div", {},
      h("h4", {}, "Items of the history that speak for it"),
      h("ul", { class: "bars" }, reason.because.map(({ item_id: id, title, share }) =>
        bar(itemLink(id, title), share, 1, format.percent(share, 0)))),
    ),
    most > 0 && h(
      "div", {},
      h("h4", {}, "What moved the score most"),
      h("ul", { class: "bars" }, Object.entries(reason.features).map(([name, value]) =>
        bar(h("code", {}, name), value, most, signed(value), explain[name]))),
    ),
  );
}

/** An item's attributes in one line. */
export const attributeWords = (attributes) => Object.entries(attributes ?? {})
  .map(([name, value]) => `${name}: ${format.attribute(value)}`).join(" · ");

const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;

function bar(name, value, most, words, note) {
  const line = h("span", { class: value < 0 ? "bar below" : "bar", "aria-hidden": "true" });
  line.style.setProperty("width", `${(100 * Math.abs(value)) / most}%`);
  return h(
    "li", {},
    h("span", { class: "of" }, name), h("span", { class: "track" }, line),
    h("span", { class: "number" }, words), note && h("span", { class: "note" }, note),
  );
}

/** The words above a list's scores. */
export const scoreNote = () => h(
  "p", { class: "note" },
  term("Score", SCORE), " at the right; a line opens to show why. ",
);

/** An answer's source and age in words. */
export function sourceWords(answer) {
  const age = answer.list_age_s === null ? "" : `, written ${format.ago(answer.list_age_s)}`;
  return `${SOURCES[answer.source] ?? answer.source}${age}`;
}

/** Labels of an answer: source, age, fallback. */
export const sourceTags = (answer) => h(
  "div", { class: "tags" },
  h("span", { class: "tag accent" }, `source: ${answer.source}`),
  h("span", { class: "tag" }, answer.list_age_s === null
    ? "made just now" : `list of ${format.ago(answer.list_age_s)}`),
  h("span", { class: "tag" }, format.milliseconds(answer.latency_ms)),
  answer.degraded && h("span", { class: "tag bad" }, "fallback: a part failed"),
);

/**
 * Two lists side by side, with a sentence of what moved.
 *
 * left and right: {title, note, rows}; options: as of `ranked`, for both.
 */
export function sideBySide(left, right, options = {}) {
  const words = changeWords(left.rows, right.rows);
  return [
    h("p", { class: "change" }, words),
    h(
      "div", { class: "pair" },
      listOf(left, { ...options, after: right.rows, act: null }),
      listOf(right, { ...options, before: left.rows }),
    ),
  ];
}

const listOf = ({ title, note, rows, reasons }, options) => h(
  "div", {},
  h("h3", {}, title),
  note && h("p", { class: "note" }, note),
  rows.length > 0 ? ranked(rows, { ...options, ...(reasons && { reasons }) }) : h("p", { class: "state" }, "No items are left."),
);
