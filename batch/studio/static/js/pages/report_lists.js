// The report's lists: for whom they work, where hits come from, what a place is worth.

import { chart, COLOURS, colourOf, legendOf } from "../charts.js";
import { fill, h } from "../dom.js";
import * as format from "../format.js";
import { ends, figure, hasEnds, known, lines, methodColour, notable, room } from "../intervals.js";
import { choice, empty, section, term } from "../parts.js";
import { glossary } from "./report_words.js";

const { Plot, d3 } = window;

// As in the report, whose intervals are wider below it.
const FEW_USERS = 30;

export function segments(report, words) {
  const kinds = { ...(report.segments ?? {}) };
  if (report.popularity) kinds["popularity of the item"] = popularityRows(report);
  const names = Object.keys(kinds).filter((kind) => kinds[kind].length > 0);
  if (names.length === 0) return null;
  const methods = Object.keys(report.methods);
  let kind = names[0];
  let chosen = new Set(notable(report.methods));
  const box = h("div", { class: "stack" });
  const draw = () => fill(box, segmentChart(report, kind, kinds[kind], [...chosen]));
  draw();
  const boxes = methods.map((name) => {
    const input = h("input", {
      type: "checkbox", id: `segment-${name}`, checked: chosen.has(name),
      onchange: () => {
        if (input.checked) chosen.add(name);
        else chosen.delete(name);
        draw();
      },
    });
    return [input, h("label", { for: input.id }, name)];
  });
  return section(
    "By segment", "For whom, and for which items, it works well or badly.",
    choice({
      label: "Segments by", value: kind,
      options: names.map((value) => ({ value })), change: (value) => { kind = value; draw(); },
    }),
    h("fieldset", {}, h("legend", {}, "Methods"), h("div", { class: "choices" }, boxes)),
    box,
    glossary("What the methods are", methods, words.methods),
  );
}

const popularityRows = (report) => Object.entries(report.popularity).map(([third, row]) => ({
  segment: third, n_users: null,
  methods: Object.fromEntries(Object.entries(row).map(([name, value]) => [name, { value }])),
}));

const POPULARITY_WORDS = "The head holds the most popular items, which have a third of all "
  + "events; the "
  + "tail the least popular, which have the last third.";

function segmentChart(report, kind, rows, chosen) {
  if (chosen.length === 0) return empty("No method is chosen.", "Choose one above.");
  const byItem = kind === "popularity of the item";
  const metric = byItem ? "Recall@20" : "NDCG@10";
  const colour = methodColour(report.methods);
  const few = rows.filter(({ n_users: n }) => n !== null && n < FEW_USERS)
    .map(({ segment }) => segment);
  const flat = rows.flatMap((row) => chosen.filter((name) => row.methods[name]).map((name) => ({
    segment: row.segment, n_users: row.n_users, name, ...row.methods[name],
  })));
  const label = ({ segment, n_users: n }) => segment + (n === null ? "" : ` (${format.count(n)})`);
  const names = chosen.filter((name) => flat.some((row) => row.name === name));
  const labels = rows.map(label);
  return [
    legendOf(names, colour),
    chart({
      caption: byItem ? `${metric} by how popular the held-out item is. ${POPULARITY_WORDS}`
        : `${metric} by ${kind} with 95% intervals; in brackets the number of users`,
      height: 46 + rows.length * (14 + 13 * names.length),
      draw: (width) => {
        const left = Math.min(width / 3, room(labels, 200));
        const shown = (words) =>
          (7 * words.length > left ? `${words.slice(0, left / 7 - 1)}…` : words);
        return {
          marginLeft: left, marginBottom: 40, marginRight: 16,
          x: { label: `${metric} →`, grid: true, zero: true, nice: true },
          fy: { domain: labels, label: null, padding: 0.06 },
          y: { domain: names, axis: null, padding: 0.4 },
          marks: [
            Plot.axisFy({ anchor: "left", textAnchor: "end", dx: -6, text: shown, label: null }),
            Plot.ruleX([0], { stroke: "var(--line)" }),
            Plot.ruleY(flat.filter(hasEnds), {
              x1: "low", x2: "high", y: "name", fy: label, stroke: ({ name }) => colour(name),
              strokeWidth: 2, strokeOpacity: 0.5,
            }),
            Plot.dot(known(flat), {
              x: "value", y: "name", fy: label, fill: ({ name }) => colour(name), r: 4,
              tip: { format: { x: false, y: false, fy: false, fill: false } },
              title: (row) => `${row.segment}\n${row.name} ${figure(row.value)}`
                + `${hasEnds(row) ? ` (${ends(row)})` : ""}`,
            }),
          ],
        };
      },
      columns: [
        { name: "segment", label: "Segment" },
        { label: "Users", number: true, show: ({ n_users: n }) => format.count(n) },
        { name: "name", label: "Method" },
        { label: metric, number: true, show: ({ value }) => figure(value) },
        { label: "95% interval", number: true, show: ends },
      ],
      rows: flat,
    }),
    few.length > 0 && h("p", { class: "warning" }, `Fewer than ${FEW_USERS} users: `
      + `${few.join(", ")}. What looks better there may be chance.`),
  ];
}

const SOURCE_ORDER = ["history", "retriever", "neighbours", "trending"];

export function bySource(report, words) {
  const recall = report.recall_by_source;
  const bound = report.candidate_recall;
  const intro = "Each place of a list was proposed by one source of candidates and ordered by the "
    + "ranker. A source that is never hit could go; what no source proposes no ranker can find.";
  if (!bound) return null;
  const sources = SOURCE_ORDER.filter((name) => name in bound);
  const parts = [...sources, ...(recall ? ["other"] : [])];
  const depths = recall ? Object.keys(recall.all).sort((a, b) => a - b) : [];
  const rows = depths.flatMap((k) => {
    const of = Object.fromEntries(sources.map((name) => [name, recall[name]?.[k] ?? 0]));
    of.other = Math.max(0, (recall.all[k] ?? 0) - d3.sum(Object.values(of)));
    return parts.map((name) => ({ k, source: name, share: of[name] }));
  });
  const all = "all";
  rows.push(...parts.map((name) => ({ k: all, source: name, share: bound[name] ?? 0 })));
  const kept = parts.filter((name) => rows.some((row) => row.source === name && row.share > 0));
  const colour = colourOf(kept);
  const sourceWords = (name) => words.sources[name] ?? NO_SOURCE;
  const domain = [...depths, all];
  return section(
    "Recall by source", intro,
    chart({
      caption: "Share of all held-out items that are in the first k places, by the source that "
        + `proposed them; the last bar is the bound: all candidates (${format.percent(bound.all)})`,
      legend: kept,
      height: 270,
      draw: () => ({
        marginLeft: 48, marginBottom: 40,
        x: { domain, label: "first k places →", type: "band" },
        y: { label: "↑ % of the held-out items", percent: true, grid: true, domain: [0, 100] },
        color: { domain: kept, range: kept.map(colour) },
        marks: [
          Plot.barY(rows.filter(({ source }) => kept.includes(source)), Plot.stackY({
            x: "k", y: "share", fill: "source", order: kept,
            tip: { format: { x: false, y: false, fill: false } },
            title: (row) =>
              `${row.source}, ${row.k === all ? "all candidates" : `first ${row.k}`}\n`
              + format.percent(row.share),
          })),
          Plot.ruleY([0]),
        ],
      }),
      columns: [
        { label: "First", show: ({ k }) => k },
        ...kept.map((name) => ({
          label: term(name, sourceWords(name)), number: true,
          show: (row) => format.percent(row[name]),
        })),
        { label: "Together", number: true, show: (row) => format.percent(row.all) },
      ],
      rows: domain.map((k) => ({
        k, all: k === all ? bound.all : recall.all[k],
        ...Object.fromEntries(
          rows.filter((row) => row.k === k).map((row) => [row.source, row.share])),
      })),
    }),
    !recall && h("p", { class: "note" }, "This release kept the bound alone; the next batch run "
      + "also "
      + "keeps which source each hit came from."),
    glossary("What the sources are", kept,
      Object.fromEntries(kept.map((name) => [name, sourceWords(name)]))),
  );
}

const NO_SOURCE = "What no source proposed, such as new items that are given a place to gather "
  + "feedback.";

export function calibration(report) {
  const facts = report.calibration;
  const intro = "What a place in a list is worth, and whether a higher score really means more. "
    + "A score "
    + "has no unit; only its order counts.";
  if (!facts?.ranks?.length) {
    return section("Calibration", intro, empty("This report has none.", "The next batch run "
      + "measures it."));
  }
  let by = "rank";
  const box = h("div", {});
  const draw = () => fill(box, by === "rank" ? rankChart(facts.ranks) : scoreChart(facts.scores));
  draw();
  return section(
    "Calibration", intro,
    choice({
      label: "By", value: by,
      options: [{ value: "rank", label: "place in the list" }, { value: "score", label: "score" }],
      change: (value) => { by = value; draw(); },
    }),
    box,
  );
}

const offeredColumn = {
  label: "Offered", number: true, show: ({ offered }) => format.count(offered),
};
const hitsColumn = { label: "Hits", number: true, show: ({ hits }) => format.count(hits) };

function rankChart(ranks) {
  const rows = ranks.map((row) => ({ ...row, x: row.rank, value: row.share, series: "hits" }));
  return lines({
    caption: "Share of the users whose item at this place was among their held-out ones, with 95% "
      + "intervals; a list in the right order falls from left to right",
    rows, names: ["hits"], colour: () => COLOURS[0], x: "place", y: "% of users", percent: true,
    format: (value) => format.percent(value),
    scale: { ticks: [1, 5, 10, 15, 20], domain: [1, d3.max(rows, ({ x }) => x)] },
    columns: [
      { name: "rank", label: "Place", number: true }, offeredColumn, hitsColumn,
      { label: "Share", number: true, show: ({ share }) => format.percent(share) },
      { label: "95% interval", number: true,
        show: ({ low, high }) => `${format.percent(low)} to ${format.percent(high)}` },
    ],
  });
}

function scoreChart(scores) {
  const label = ({ from, to }) => `${figure(from)} to ${figure(to)}`;
  const rows = scores.map((row, place) => ({
    ...row, x: place + 1, value: row.share, series: "hits", label: label(row),
  }));
  return lines({
    caption: "Share of the first 20 places that were hits, by their score in tenths, the lowest "
      + "scores "
      + "first; scores that mean something rise from left to right",
    rows, names: ["hits"], colour: () => COLOURS[0], x: "tenth of the scores", y: "% hits",
    percent: true, format: (value) => format.percent(value),
    scale: { ticks: rows.map(({ x }) => x), tickFormat: "d" },
    columns: [
      { name: "x", label: "Tenth", number: true }, { name: "label", label: "Scores", number: true },
      offeredColumn, hitsColumn,
      { label: "Share", number: true, show: ({ share }) => format.percent(share) },
      { label: "95% interval", number: true,
        show: ({ low, high }) => `${format.percent(low)} to ${format.percent(high)}` },
    ],
  });
}

export function knownEvents(report) {
  const short = report.known_events ?? [];
  const fresh = report.fresh_users ?? [];
  const intro = "How good a list is for somebody of whom little is known, and how many events "
    + "are needed.";
  if (short.length === 0 && fresh.length === 0) {
    return section("Fresh users", intro, empty(
      "This report has no such figures.",
      "They need 30 users with ten events before the hold-out; the next batch run measures them.",
    ));
  }
  const options = [
    short.length > 0 && { value: "short", label: "Only the latest events are known" },
    fresh.length > 0 && { value: "fresh", label: "Users whom training has not seen" },
  ].filter(Boolean);
  const SERIES = {
    short: ["two_stage", "popularity"], fresh: ["fresh", "retrained", "popularity"],
  };
  const CAPTIONS = {
    short: (n) => `NDCG@10 of the same ${format.counted(n, "user")}, as if only so many of their `
      + "latest events were known",
    fresh: (n) => `NDCG@10 of ${format.counted(n, "user")} who were kept out of training, by how `
      + "many of their events are known; retrained: by a model that has learnt from those events "
      + "too",
  };
  let kind = options[0].value;
  const box = h("div", {});
  const draw = () => {
    const source = kind === "short" ? short : fresh;
    const names = SERIES[kind];
    fill(box, legendOf(names), lines({
      caption: `${CAPTIONS[kind](source[0].n_users)}, with 95% intervals`,
      rows: names.flatMap((name) =>
        source.map((row) => ({ x: row.events, series: name, ...row[name] }))),
      names, colour: colourOf(names), x: "known events", y: "NDCG@10",
      scale: { type: "sqrt", ticks: source.map(({ events }) => events), tickFormat: "d" },
    }));
  };
  draw();
  return section(
    "Fresh users", intro,
    options.length > 1 && choice({
      label: "Measured on", value: kind, options, change: (value) => { kind = value; draw(); },
    }),
    box,
    fresh.length === 0 && h("p", { class: "note" }, "The towers have seen these users' past, so "
      + "the "
      + "curve is a little kind. ", h("code", {}, "shortlist evaluate"), " also keeps users out of "
      + "training altogether."),
    newItems(report.new_items),
  );
}

const newItems = (facts) => facts && h("p", {}, "New items, which training has not seen: of the "
  + "new items "
  + `that users took, ${format.percent(facts["recall@20"].value)} are among the first 20 of `
  + `${format.count(facts.n_items)} new ones (by chance ${format.percent(facts.random)}).`);
