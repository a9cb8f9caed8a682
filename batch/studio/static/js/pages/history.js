// A user's history: a time line of categories, and the events below it.

import { ACCENT, chart, COLOURS, legendOf, QUIET } from "../charts.js";
import { fill, h } from "../dom.js";
import * as format from "../format.js";
import { empty, itemLink, tags } from "../parts.js";

const LANES = 7;
const SHOWN = 60;
const OTHER = "other";
const NEGATIVE = "negative, such as a return";

/**
 * The history as {element, point}.
 *
 * point: called with item ids marks their events, on the time line and in the list.
 */
export function history(user, release) {
  const events = [...user.history].sort((one, other) => other.time - one.time);
  if (events.length === 0) {
    return {
      element: empty("No events are stored of this user."),
      point: () => {},
    };
  }
  const types = (release.event_types ?? []).filter(({ negative }) => !negative).map(({ name }) => name);
  const list = h("ul", { class: "events" });
  const more = h("button", { type: "button", class: "small", onclick: () => draw(events.length) });
  const draw = (most) => {
    fill(list, events.slice(0, most).map((event) => line(event, types.length > 1)));
    more.hidden = most >= events.length;
    more.textContent = `Show all ${format.counted(events.length, "event")}`;
  };
  draw(SHOWN);
  const figure = timeLine(events, types);
  const element = h("div", { class: "stack" }, figure, list, more);
  const point = (ids) => {
    const marked = new Set(ids);
    for (const each of list.children) each.classList.toggle("cause", marked.has(each.dataset.item));
    element.classList.toggle("pointing", marked.size > 0);
    for (const circle of figure.querySelectorAll("circle")) {
      circle.classList.toggle("cause", marked.has(events[circle.__data__]?.item_id));
    }
  };
  return { element, point };
}

function line(event, typed) {
  return h(
    "li", { "data-item": event.item_id, class: event.negative && "negative" },
    h("span", { class: "when" }, format.date(event.time)),
    h("span", {}, itemLink(event.item_id, event.title), " ", tags(event.categories)),
    h("span", { class: "tags" },
      typed && event.type && h("span", { class: "tag" }, event.type),
      event.weight !== null && event.weight !== undefined && event.weight !== 1
        && h("span", { class: "tag" }, `weight ${format.short(event.weight)}`),
      event.negative && h("span", { class: "tag bad" }, "negative")),
  );
}

function timeLine(events, types) {
  const { names, laneOf } = lanes(events);
  const clock = events.every(({ time }) => format.isDate(time));
  const at = ({ time }) => (clock ? new Date(1000 * time) : time);
  const anyNegative = events.some(({ negative }) => negative);
  const series = [...(types.length > 1 ? types : []), ...(anyNegative ? [NEGATIVE] : [])];
  const colourOfSeries = (name) => (name === NEGATIVE ? COLOURS[1]
    : COLOURS[[0, 2, 3, 4, 5, 6, 7][types.indexOf(name)]] ?? QUIET);
  const colour = ({ type, negative }) => (negative ? COLOURS[1]
    : types.length > 1 ? colourOfSeries(type) : ACCENT);
  return chart({
    caption: `Each point is an event; a line for each category${clock ? ", in UTC" : ""}.`,
    legend: series.length > 0 && legendOf(series, colourOfSeries),
    draw: (width) => ({
      height: 34 * names.length + 40,
      marginLeft: Math.min(120, Math.max(60, 7 * Math.max(...names.map((name) => name.length)) + 12)),
      marginRight: 12,
      x: { label: null, type: clock ? "utc" : "linear", ticks: Math.max(3, Math.floor(width / 100)) },
      y: { domain: names, label: null, tickSize: 0, tickFormat: (name) => cut(name, 16) },
      marks: [
        window.Plot.ruleY(names, { stroke: "var(--line)" }),
        window.Plot.dot(events, {
          x: at, y: laneOf, r: 4.5, fill: colour, fillOpacity: 0.65, stroke: "var(--card)",
          strokeWidth: 0.7,
          title: (event) => `${event.title}\n${format.time(event.time)}${event.type ? `\n${event.type}` : ""}`,
          tip: true,
        }),
      ],
    }),
    columns: [
      { name: "time", label: "When", show: ({ time }) => format.time(time) },
      { name: "title", label: "Item" },
      { name: "lane", label: "Category", show: laneOf },
      { name: "type", label: "Type", show: ({ type }) => type ?? format.NONE },
    ],
    rows: events,
  });
}

const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

/** The lanes, and the lane of an event: its first category, if it is one of the most frequent. */
function lanes(events) {
  const first = ({ categories }) => categories?.[0] ?? "no category";
  const counts = new Map();
  for (const event of events) counts.set(first(event), (counts.get(first(event)) ?? 0) + 1);
  const kept = [...counts].sort(([, one], [, other]) => other - one).slice(0, LANES)
    .map(([name]) => name);
  return {
    names: kept.length < counts.size ? [...kept, OTHER] : kept,
    laneOf: (event) => (kept.includes(first(event)) ? first(event) : OTHER),
  };
}
