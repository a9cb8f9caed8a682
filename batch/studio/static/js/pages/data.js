// The data that the serving release has learnt from: events, users, items, rejects, drift.

import { studio } from "../api.js";
import { ACCENT, chart, colourOf, colours } from "../charts.js";
import { contents, wide } from "../contents.js";
import { announce, fill, h } from "../dom.js";
import * as format from "../format.js";
import { choice, empty, field, load, section, table, tags, term, tiles } from "../parts.js";

export const title = "Data";

const { Plot, d3 } = window;

const DAY = 86400;
const GRAINS = {
  day: { label: "Day", start: (date) => d3.utcDay(date), interval: d3.utcDay },
  week: { label: "Week", start: (date) => d3.utcMonday(date), interval: d3.utcMonday },
  month: { label: "Month", start: (date) => d3.utcMonth(date), interval: d3.utcMonth },
};
// More bars than this cannot be told apart on a screen.
const MOST_BARS = 180;

const ROLES = {
  target: ["target", "A list is meant to bring about events of this type: they are predicted, and "
    + "held out to measure with."],
  negative: ["negative", "Negative feedback takes an event back and keeps the item away from the "
    + "user."],
  context: ["context", "The models learn from it, but it is not what is predicted."],
};

const MEASURES = {
  kl: "Kullback-Leibler divergence in nats: 0 where nothing changed; 0.02 is what a normal "
    + "variable "
    + "shows that moves by a fifth of its spread.",
  psi: "Population stability index: a rule of thumb calls 0.1 a change, whatever the sample's "
    + "size.",
  ks: "Kolmogorov-Smirnov distance: the greatest difference between the two cumulative shares.",
};

/** Shows the page below `root`. */
export function mount(root, context) {
  const body = h("div", { class: "stack" });
  fill(root, h("h1", {}, "Data"), body);
  load(body, async () => {
    const [facts, release] = await Promise.all([studio("data"), context.overview()]);
    return shown(facts, release);
  }, "Counting events …");
  return { update() {}, leave() {} };
}

function shown(facts, release) {
  return contents([
    wide(summary(facts, release)),
    wide(eventsOverTime(facts.days ?? [], facts.unit)),
    types(facts.types ?? []),
    repeats(facts.repeats),
    activity(facts),
    longTail(facts),
    wide(rejects(facts)),
    wide(drift(facts.drift)),
  ]);
}

function summary(facts, release) {
  const absent = [
    facts.users_without_events > 0
      && `${format.counted(facts.users_without_events, "user")} without an event`,
    facts.items_without_events > 0
      && `${format.counted(facts.items_without_events, "item")} without an event`,
  ].filter(Boolean);
  return section(
    "At a glance", "What the serving release has learnt from.",
    tiles([
      { label: "Events", value: format.count(release.n_events),
        detail: release.as_of === null ? null : `up to ${format.date(release.as_of)}` },
      { label: "Users", value: format.count(release.n_users),
        detail: `${format.decimal(release.n_events / release.n_users, 1)} events each on average` },
      { label: "Items", value: format.count(release.n_items),
        detail: `${format.decimal(release.n_events / release.n_items, 1)} events each on average` },
      { label: "Rejected rows", value: format.percent(facts.rejected_share),
        state: facts.rejected_share > 0.01 ? "warn" : "neutral",
        detail: "rows that break a rule, left out" },
    ]),
    absent.length > 0 && h("p", { class: "note" }, `${absent.join(" and ")}: nothing can be learnt `
      + "of them but what their columns say."),
  );
}

function eventsOverTime(days, unit) {
  const known = days.filter(({ day }) => format.isDate(day));
  const words = "How many events there were, by type. A gap is a day that the data lack; a fall at "
    + "the end is often a table that came late.";
  if (known.length === 0) {
    return section("Events over time", words, empty(
      days.length > 0 ? "The times are sequence numbers, so there are no days."
        : "This release kept no events by day.",
      days.length > 0 ? null : "The next batch run keeps them.",
    ));
  }
  const names = [...new Set(known.map(({ type }) => type))];
  const span = (d3.max(known, ({ day }) => day) - d3.min(known, ({ day }) => day)) / DAY;
  // Of a long time the batch kept months alone.
  const grains = Object.entries(GRAINS).filter(([name]) => unit !== "month" || name === "month");
  let grain = "month";
  if (unit !== "month" && span <= 7 * MOST_BARS) grain = span <= MOST_BARS ? "day" : "week";
  let type = "";
  const box = h("div", {});
  const draw = () => fill(box, dayChart(known, names, grain, type));
  draw();
  return section(
    "Events over time", words,
    h(
      "div", { class: "row" },
      choice({
        label: "Bars of a", value: grain,
        options: grains.map(([value, { label }]) => ({ value, label })),
        change: (value) => { grain = value; draw(); },
      }),
      names.length > 1 && choice({
        label: "Type", value: type,
        options: [{ value: "", label: "All" }, ...names.map((value) => ({ value }))],
        change: (value) => { type = value; draw(); },
      }),
    ),
    box,
  );
}

function dayChart(days, names, grain, type) {
  const { start, interval } = GRAINS[grain];
  const chosen = days.filter((row) => type === "" || row.type === type);
  const rows = d3.flatRollup(
    chosen, (group) => d3.sum(group, ({ n }) => n),
    ({ day }) => +start(new Date(1000 * day)), (row) => row.type,
  ).map(([at, name, n]) => ({ at: new Date(at), type: name, n }))
    .sort((a, b) => a.at - b.at);
  const total = d3.sum(rows, ({ n }) => n);
  const what = type === "" ? "events" : `events of type ${type}`;
  return chart({
    caption: `${format.count(total)} ${what}; a bar is a ${grain} in UTC`,
    legend: names.length > 1 && type === "" && names,
    height: 240,
    draw: (width) => ({
      marginLeft: 52,
      x: { type: "utc", label: null },
      y: { label: `events a ${grain}`, grid: true, tickFormat: "~s" },
      color: colours(names),
      marks: [
        Plot.rectY(rows, {
          x: "at", y: "n", fill: "type", interval, order: names, tip: width > 500,
          insetLeft: 0.25, insetRight: 0.25, title: (row) =>
            `${format.date(+row.at / 1000)}\n${row.type}: ${format.count(row.n)}`,
        }),
        Plot.ruleY([0]),
      ],
    }),
    columns: [
      { label: grain, show: (row) => format.date(+row.at / 1000) },
      { name: "type", label: "Type" },
      { label: "Events", number: true, show: (row) => format.count(row.n) },
    ],
    rows,
  });
}

function types(rows) {
  const total = d3.sum(rows, ({ n }) => n);
  if (rows.length === 0) return null;
  return section(
    "What events mean",
    "The mapping of the data says how much each type counts and what it is for.",
    table({
      caption: "Types of events",
      columns: [
        { name: "name", label: "Type" },
        { label: "Events", number: true, show: ({ n }) => format.count(n) },
        { label: "Share", number: true, show: ({ n }) => format.percent(n / total) },
        { label: "Weight", number: true, show: ({ weight }) => format.short(weight) },
        { label: "Role", show: ({ role }) => term(...(ROLES[role] ?? [role])) },
      ],
      rows,
    }),
  );
}

const rangeWords = ({ from, to }) =>
  to === null || to === undefined ? `${format.count(from)} or more`
    : from === to ? format.count(from) : `${format.count(from)} to ${format.count(to)}`;

function activity(facts) {
  const rows = (facts.activity ?? []).map((row) => ({ ...row, label: rangeWords(row) }));
  const words = "How many events the users have. A short history is no obstacle: a list for one "
    + "event is made too, only less surely (see Quality, known events).";
  if (rows.length === 0) {
    return section("How active users are", words, empty("Not kept by this release."));
  }
  const total = d3.sum(rows, ({ users }) => users);
  return section(
    "How active users are", words,
    chart({
      caption: `Users by their number of events; ${format.counted(total, "user")} with an event`,
      height: 30 + 26 * rows.length,
      draw: () => ({
        marginLeft: 92, marginRight: 56,
        x: { label: null, ticks: [], },
        y: { domain: rows.map(({ label }) => label), label: null },
        marks: [
          Plot.barX(rows, { x: "users", y: "label", fill: ACCENT, rx: 2 }),
          Plot.text(rows, {
            x: "users", y: "label", dx: 4, textAnchor: "start", fill: "currentColor",
            text: ({ users }) => format.percent(users / total),
          }),
        ],
      }),
      columns: [
        { name: "label", label: "Events of a user" },
        { label: "Users", number: true, show: ({ users }) => format.count(users) },
        { label: "Share", number: true, show: ({ users }) => format.percent(users / total) },
      ],
      rows,
    }),
  );
}

function longTail(facts) {
  const rows = facts.tail ?? [];
  const words = "How unevenly the events are spread over the catalogue.";
  if (rows.length === 0) return section("The long tail", words, empty("Not kept by this release."));
  const tenth = shareAt(rows, 0.1);
  return section(
    "The long tail", words,
    h(
      "p", {}, "The most popular tenth of the items has ",
      h("strong", {}, format.percent(tenth, 0)), " of the events; the ",
      term("Gini coefficient", "0 where all items have as many events, 1 where one item has them "
        + "all."),
      " is ", h("strong", {}, format.decimal(facts.gini, 2)), ".",
    ),
    chart({
      caption: "Share of all events that the most popular items have, the most popular first; the "
        + "straight line is a catalogue without favourites",
      height: 260,
      draw: () => ({
        marginLeft: 48, marginBottom: 36,
        x: { label: "share of the items →", percent: true, domain: [0, 100] },
        y: { label: "↑ share of the events", percent: true, domain: [0, 100], grid: true },
        marks: [
          Plot.line([[0, 0], [1, 1]], { stroke: "var(--quiet-line)", strokeDasharray: "4 4" }),
          Plot.areaY(rows, {
            x: "share_items", y: "share_events", fill: ACCENT, fillOpacity: 0.14,
          }),
          Plot.line(rows, { x: "share_items", y: "share_events", stroke: ACCENT, strokeWidth: 2 }),
          Plot.dot(rows, Plot.pointerX({
            x: "share_items", y: "share_events", fill: ACCENT, r: 4,
          })),
          Plot.tip(rows, Plot.pointerX({
            x: "share_items", y: "share_events",
            title: (row) => `${format.percent(row.share_items)} of the items have\n`
              + `${format.percent(row.share_events)} of the events`,
          })),
        ],
      }),
      columns: [
        { label: "Items", number: true, show: (row) => format.percent(row.share_items) },
        { label: "Events", number: true, show: (row) => format.percent(row.share_events) },
      ],
      rows,
    }),
  );
}

/** The share of events at a share of items, by a straight line between the two nearest points. */
function shareAt(rows, share) {
  const after = Math.max(d3.bisector((row) => row.share_items).left(rows, share), 1);
  const [a, b] = [rows[after - 1], rows[Math.min(after, rows.length - 1)]];
  if (a === b || b.share_items === a.share_items) return b.share_events;
  const along = (share - a.share_items) / (b.share_items - a.share_items);
  return a.share_events + along * (b.share_events - a.share_events);
}

function repeats(facts) {
  if (!facts) return null;
  const allowed = facts.setting === "allow";
  return section(
    "Repeats", null,
    h(
      "p", {}, h("strong", {}, format.percent(facts.share)),
      " of the events that are to be predicted are with an item that their user had before. ",
      allowed ? "What a user had is offered again when it is due "
        : "What a user had is never offered again ",
      "(", h("code", {}, `SHORTLIST_REPEATS=${facts.setting}`), ").",
    ),
    facts.note && h("p", { class: "warning" }, facts.note),
  );
}

function rejects(facts) {
  const rows = facts.rejects ?? [];
  const words = "Rows that break a rule cost themselves and nothing else. Too many of them stop "
    + "a batch.";
  if (rows.length === 0) {
    return section("Rejected rows", words, empty("No row was rejected."));
  }
  return section(
    "Rejected rows", words,
    table({
      caption: `Rejected rows by reason, ${format.percent(facts.rejected_share)} of all`,
      columns: [
        { name: "reason", label: "Reason" },
        { label: "Rows", number: true, show: ({ n }) => format.count(n) },
        { label: "Samples", show: ({ samples }) => sampled(samples ?? []) },
      ],
      rows,
    }),
  );
}

const sampled = (samples) => (samples.length === 0 ? h("span", { class: "note" }, "none kept")
  : h("details", {}, h("summary", {}, format.counted(samples.length, "sample")),
    h("ul", { class: "stack samples" }, samples.map(({ source, row, values }) => h("li", {},
      h("span", { class: "note", title: source },
        `${source.split("/").at(-1)}, row ${format.count(row)}: `),
      h("code", {}, Object.entries(values)
        .map(([name, value]) => `${name} ${JSON.stringify(value)}`).join(", ")))))));

const featureName = (row) => `${row.table}.${row.feature}`;

function drift(facts) {
  const words = "Whether users, items and the ranker's features look as they did when the release "
    + "before was made. Far drift is refused by the gate: it is often a broken feed.";
  const rows = facts?.features ?? [];
  if (rows.length === 0) {
    return section("Drift since the last release", words, empty(
      facts?.note ?? "There is nothing to compare with yet.", "Drift is measured against the "
        + "release that served when the batch ran.",
    ));
  }
  const flagged = rows.filter((row) => row.flagged).length;
  const box = h("div", { class: "stack" });
  let everything = flagged === 0;
  const input = h("input", { type: "search", placeholder: "such as popularity" });
  const draw = () => {
    const wanted = input.value.trim().toLowerCase();
    const left = rows.filter((row) => (everything || row.flagged)
      && featureName(row).toLowerCase().includes(wanted));
    announce(`${format.counted(left.length, "column")} shown`);
    fill(box, left.length === 0 ? empty("No column is so.", "Show all, or search for another name.")
      : driftTable(left));
  };
  input.addEventListener("input", draw);
  draw();
  return section(
    "Drift since the last release", words,
    h("p", {}, flagged === 0 ? "Nothing is flagged." : h("span", {},
      h("strong", {}, format.counted(flagged, "column")),
      ` of ${format.count(rows.length)} differ by more than chance, and by enough to matter.`)),
    h(
      "div", { class: "row" },
      choice({
        label: "Columns", value: everything ? "all" : "flagged",
        options: [{ value: "flagged", label: `Flagged (${flagged})` },
          { value: "all", label: `All (${rows.length})` }],
        change: (value) => { everything = value === "all"; draw(); },
      }),
      field("Search a column", input),
    ),
    box,
  );
}

function driftTable(rows) {
  return h(
    "div", { class: "stack" },
    rows.length > 1 && driftChart(rows.slice(0, 15)),
    table({
      caption: "Columns, the most different first",
      columns: [
        { name: "table", label: "Table" },
        { name: "feature", label: "Column" },
        ...Object.entries(MEASURES).map(([name, words]) => ({
          label: term(name.toUpperCase(), words), number: true,
          show: (row) => format.decimal(row[name], 3),
        })),
        { label: "", show: (row) => row.flagged && tags(["flagged"]) },
      ],
      rows,
    }),
  );
}

function driftChart(rows) {
  const names = ["flagged", "not flagged"];
  const marked = rows.map((row) => ({
    ...row, name: featureName(row), mark: row.flagged ? names[0] : names[1],
  }));
  const left = Math.min(210, 12 + 6.6 * d3.max(marked, ({ name }) => name.length));
  return chart({
    caption: "Divergence of the columns that moved most, in nats; from 0.02 on, the dashed "
      + "line, what chance does not explain is flagged",
    legend: names,
    height: 50 + 22 * rows.length,
    draw: () => ({
      marginLeft: left, marginBottom: 36,
      x: { label: "KL divergence, nats →", grid: true },
      y: { domain: marked.map(({ name }) => name), label: null },
      color: { domain: names, range: names.map(colourOf(names)) },
      marks: [
        Plot.barX(marked, { x: "kl", y: "name", fill: "mark", rx: 2 }),
        Plot.ruleX([0.02], { stroke: "var(--ink)", strokeDasharray: "3 3" }),
      ],
    }),
  });
}
