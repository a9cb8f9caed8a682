// How good the serving release is: its report, interactive, and the releases before it.

import { studio } from "../api.js";
import { chart, COLOURS, colourOf, legendOf } from "../charts.js";
import { contents, wide } from "../contents.js";
import { fill, h } from "../dom.js";
import * as format from "../format.js";
import {
  dots, ends, figure, hasEnds, known, lines, methodColour, notable, OURS, pValue, room, strongest,
} from "../intervals.js";
import { choice, empty, field, load, section, table, tags, term } from "../parts.js";

export const title = "Quality";

const { Plot, d3 } = window;

const HEADLINE = "ndcg@10";
const METRIC_LABELS = {
  "ndcg@10": "NDCG@10", "recall@10": "Recall@10", "recall@20": "Recall@20", mrr: "MRR",
  "map@10": "MAP@10", "hit_rate@10": "Hit rate@10", "stratified_recall@20": "Stratified recall@20",
  "novelty@10": "Novelty@10", "diversity@10": "Diversity@10", coverage: "Coverage",
};
// As in the report, whose intervals are wider below it.
const FEW_USERS = 30;
const BEYOND_ACCURACY = ["coverage", "novelty@10", "diversity@10"];
const metricLabel = (metric) => METRIC_LABELS[metric] ?? metric;

/** Shows the page below `root`. */
export function mount(root) {
  const body = h("div", { class: "stack" });
  fill(root, h("h1", {}, "Quality"), body);
  load(body, async () => {
    const [quality, { releases }] = await Promise.all([studio("quality"), studio("releases")]);
    return shown(quality, releases);
  }, "Reading the report …");
  return { update() {}, leave() {} };
}

function shown(quality, releases) {
  const { report, metrics = {}, warnings = [] } = quality;
  if (!report) {
    return [
      section("The report", null, empty(
        "This release was made before the studio kept its report.",
        h("span", {}, "The next ", h("code", {}, "shortlist batch run"), " keeps it; the page of the "
          + "release itself is named by ", h("code", {}, "shortlist release show VERSION"), "."),
      )),
      releasesOverTime(releases, metrics),
    ];
  }
  const words = { methods: {}, sources: {}, features: {}, left_out: {}, ...quality, metrics };
  return contents([
    wide(finding(report, warnings, words)),
    methodsSection(report, words),
    pairs(report, words),
    tradeOff(report, words),
    bySource(report, words),
    wide(segments(report, words)),
    calibration(report),
    knownEvents(report),
    curves(report),
    importances(report, words),
    wide(releasesOverTime(releases, metrics)),
    wide(audit(report)),
  ]);
}

const methodTerm = ({ methods }, name) => term(name, methods[name]);

function finding(report, warnings, words) {
  const { methods } = report;
  const ours = methods[OURS]?.[HEADLINE];
  const rival = strongest(methods);
  const pair = report.paired?.[OURS]?.[rival];
  return section(
    "The finding", null,
    warnings.map((warning) => h("p", { class: "warning" }, sentence(warning))),
    ours && h(
      "p", { class: "finding" },
      term("NDCG@10", words.metrics[HEADLINE]), " is ", h("strong", {}, figure(ours.value)),
      `${hasEnds(ours) ? ` (95% interval ${ends(ours)})` : ""}, measured on ${format.counted(methods[OURS].n_users, "user")} `,
      "whose last events were held out.",
      rival && [" The strongest baseline, ", methodTerm(words, rival),
        `, has ${figure(methods[rival][HEADLINE].value)}. `, verdict(pair, rival)],
    ),
    h("p", { class: "note" }, "The figures are about the method: the released model has also learnt "
      + "from the hold-out. They say how well the lists find what people did anyway; what a list "
      + "changes only an experiment with users can tell."),
    leftOut(report, words),
  );
}

const sentence = (words) => `${words[0].toUpperCase()}${words.slice(1)}.`;

function verdict(pair, rival) {
  if (!pair || pair.low === null) return "";
  const change = `The difference, user by user, is ${signed(pair.difference)} (${signed(pair.low)} to `
    + `${signed(pair.high)}): `;
  if (pair.low > 0) return `${change}better, by more than the choice of users explains.`;
  if (pair.high < 0) return `${change}worse than ${rival}, by more than the choice of users explains.`;
  return `${change}the two cannot be told apart on these users.`;
}

const signed = (value) => (value === null ? format.NONE : `${value < 0 ? "−" : "+"}${figure(Math.abs(value))}`);

function leftOut(report, words) {
  const reasons = Object.entries(report.left_out ?? {});
  if (reasons.length === 0) return null;
  const total = d3.sum(reasons, ([, n]) => n);
  return h(
    "details", {},
    h("summary", {}, `Who is not measured: ${format.counted(total, "user")} of `
      + format.count(report.data?.n_users)),
    table({
      caption: "Users who are not measured, by the first reason that holds",
      columns: [
        { label: "Reason", show: ([reason]) => reason },
        { label: "Users", number: true, show: ([, n]) => format.count(n) },
        { label: "", show: ([reason]) => words.left_out[reason] },
      ],
      rows: reasons,
    }),
  );
}

const partsOf = (report) => ({
  all: { methods: report.methods, paired: report.paired ?? {} },
  ...(report.repeats?.parts ?? {}),
});
const PART_LABELS = { all: "All items", new: "New to the user", repeated: "Had before" };

/** A choice of all, new and repeated items; nothing where there is only one part. */
const partChoice = (parts, change) => Object.keys(parts).length > 1 && choice({
  label: "Held-out items", value: "all", change,
  options: Object.keys(parts).map((value) => ({ value, label: PART_LABELS[value] ?? value })),
});

function methodsSection(report, words) {
  const parts = partsOf(report);
  const metrics = Object.keys(METRIC_LABELS).filter((metric) => report.methods[OURS]?.[metric]);
  let [metric, part] = [HEADLINE, "all"];
  const box = h("div", { class: "stack" });
  const draw = () => {
    const { methods } = parts[part];
    const rows = Object.entries(methods)
      .map(([name, row]) => ({ name, ...row[metric] }))
      .sort((a, b) => (b.value ?? -1) - (a.value ?? -1));
    fill(
      box,
      h("p", { class: "note" }, words.metrics[metric]),
      dots({
        caption: `${metricLabel(metric)} of each method with its 95% interval over `
          + `${format.counted(methods[OURS].n_users, "user")}${part === "all" ? ""
            : `; ${PART_LABELS[part].toLowerCase()}`}`,
        rows, label: metricLabel(metric), colour: methodColour(report.methods),
        zero: metric === HEADLINE,
        columns: [
          { label: "Method", show: ({ name }) => methodTerm(words, name) },
          { label: metricLabel(metric), number: true, show: ({ value }) => figure(value) },
          { label: "95% interval", number: true, show: ends },
        ],
      }),
    );
  };
  draw();
  return section(
    "Methods", "All methods know the same past and are judged by the same held-out events. two_stage "
      + "is what is served.",
    h(
      "div", { class: "row" },
      choice({
        label: "Metric", value: metric,
        options: metrics.map((value) => ({ value, label: metricLabel(value) })),
        change: (value) => { metric = value; draw(); },
      }),
      partChoice(parts, (value) => { part = value; draw(); }),
    ),
    box,
    glossary("What the methods are", Object.keys(report.methods), words.methods),
  );
}

/** Names and their explanations, for those who neither hover nor focus. */
function glossary(heading, all, explained) {
  const there = all.filter((name) => explained[name]);
  return there.length > 0 && h(
    "details", {}, h("summary", {}, heading),
    h("dl", { class: "glossary" }, there.map((name) => [h("dt", {}, name), h("dd", {}, explained[name])])),
  );
}

function pairs(report, words) {
  const parts = partsOf(report);
  const all = Object.keys(report.paired ?? {});
  if (all.length < 2) return null;
  let [against, part] = [all.includes(OURS) ? OURS : all[0], "all"];
  const box = h("div", { class: "stack" });
  const draw = () => {
    const rows = Object.entries(parts[part].paired[against] ?? {})
      .map(([name, pair]) => ({ name, ...pair, value: pair.difference }))
      .sort((a, b) => (a.value ?? 0) - (b.value ?? 0));
    fill(
      box,
      dots({
        caption: `${against} minus each other method, NDCG@10 user by user, with 95% intervals; right `
          + `of the line, ${against} is better`,
        rows, label: "difference in NDCG@10", zero: true,
        colour: methodColour(report.methods),
        columns: [
          { label: "Method", show: ({ name }) => methodTerm(words, name) },
          { label: `${against} minus it`, number: true, show: ({ value }) => signed(value) },
          { label: "95% interval", number: true, show: ({ low, high }) => `${signed(low)} to ${signed(high)}` },
          { label: "p", number: true, show: ({ p_value: p }) => pValue(p) },
          { label: "In words", show: pairWords },
        ],
      }),
    );
  };
  draw();
  const select = h("select", { onchange: () => { against = select.value; draw(); } },
    all.map((name) => h("option", { value: name, selected: name === against }, name)));
  return section(
    "Paired tests", "The same users under two methods: the difference of each user, and a "
      + "randomisation test of whether its sign could be chance.",
    h("div", { class: "row" }, field("Compare", select),
      partChoice(parts, (value) => { part = value; draw(); })),
    box,
  );
}

function pairWords({ low, high }) {
  if (low === null) return format.NONE;
  if (low > 0) return h("span", { class: "tag good" }, "better");
  if (high < 0) return h("span", { class: "tag bad" }, "worse");
  return h("span", { class: "tag" }, "cannot be told apart");
}

function tradeOff(report, words) {
  const there = BEYOND_ACCURACY.filter(
    (metric) => Number.isFinite(report.methods[OURS]?.[metric]?.value ?? NaN));
  if (there.length === 0) return null;
  let across = there[0];
  const box = h("div", {});
  const draw = () => fill(box, tradeOffChart(report, across, words));
  draw();
  return section(
    "Accuracy against coverage and novelty",
    "A method that is as accurate and reaches more of the catalogue is the better one. Up and to the "
      + "right is good; popularity stands at the left, as it offers everybody the same.",
    choice({
      label: "Across", value: across,
      options: there.map((value) => ({ value, label: metricLabel(value) })),
      change: (value) => { across = value; draw(); },
    }),
    box,
  );
}

function tradeOffChart(report, across, words) {
  const colour = methodColour(report.methods);
  const rows = known(Object.entries(report.methods).map(([name, row]) => ({
    name, value: row[HEADLINE]?.value, x: row[across]?.value, low: row[HEADLINE]?.low,
    high: row[HEADLINE]?.high, x1: row[across]?.low, x2: row[across]?.high,
  }))).filter(({ x }) => Number.isFinite(x ?? NaN));
  const percent = across === "coverage";
  return h(
    "div", { class: "stack" },
    h("p", { class: "note" }, words.metrics[across]),
    chart({
      caption: `NDCG@10 against ${metricLabel(across).toLowerCase()}, one dot a method`,
      height: 320,
      draw: (width) => ({
        marginLeft: 52, marginBottom: 42, marginRight: 30, marginTop: 24,
        x: { label: `${metricLabel(across)}${percent ? ", % of the items" : ""} →`, nice: true,
          grid: true, percent, inset: 14 },
        y: { label: "↑ NDCG@10", nice: true, grid: true, zero: true },
        marks: [
          Plot.link(rows, { x1: "x1", x2: "x2", y1: "value", y2: "value", stroke: ({ name }) =>
            colour(name), strokeOpacity: 0.5 }),
          Plot.link(rows, { x1: "x", x2: "x", y1: "low", y2: "high", stroke: ({ name }) =>
            colour(name), strokeOpacity: 0.5 }),
          Plot.dot(rows, { x: "x", y: "value", fill: ({ name }) => colour(name), r: 5 }),
          ...["start", "end"].map((anchor) => Plot.text(
            apart(rows, width).filter((row) => anchorOf(rows, row) === anchor), {
              x: "x", y: "value", text: "name", fill: "currentColor", textAnchor: anchor, dy: -11,
              stroke: "var(--card)", strokeWidth: 3,
            },
          )),
          Plot.tip(rows, Plot.pointer({
            x: "x", y: "value",
            title: (row) => `${row.name}\nNDCG@10 ${figure(row.value)}\n`
              + `${metricLabel(across)} ${figure(row.x)}`,
          })),
        ],
      }),
      columns: [
        { label: "Method", show: ({ name }) => methodTerm(words, name) },
        { label: "NDCG@10", number: true, show: ({ value }) => figure(value) },
        { label: metricLabel(across), number: true, show: ({ x }) => figure(x) },
      ],
      rows: d3.sort(rows, (a, b) => b.value - a.value),
    }),
  );
}

/** Which end of its label a dot is at: labels on the right would leave the chart. */
const anchorOf = (rows, { x }) => (x > d3.mean(d3.extent(rows, (row) => row.x)) ? "end" : "start");

/** The rows whose labels have room: of names that would overlap, that of the better method stays. */
function apart(rows, width) {
  const [left, right] = d3.extent(rows, ({ x }) => x);
  const top = d3.max(rows, ({ value }) => value) || 1;
  const placed = [];
  for (const row of d3.sort(rows, (a, b) => b.value - a.value)) {
    const at = { x: ((row.x - left) / (right - left || 1)) * (width - 140), y: (row.value / top) * 240 };
    const reach = 6.5 * row.name.length;
    const ends = anchorOf(rows, row) === "end";
    const box = { x0: ends ? at.x - reach : at.x, x1: ends ? at.x : at.x + reach, y: at.y };
    if (placed.some((other) => Math.abs(other.y - box.y) < 13 && box.x0 < other.x1 && other.x0 < box.x1)) {
      continue;
    }
    placed.push({ ...box, row });
  }
  return placed.map(({ row }) => row);
}

function segments(report, words) {
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

const POPULARITY_WORDS = "The head holds the most popular items, which have a third of all events; the "
  + "tail the least popular, which have the last third.";

function segmentChart(report, kind, rows, chosen) {
  if (chosen.length === 0) return empty("No method is chosen.", "Choose one above.");
  const byItem = kind === "popularity of the item";
  const metric = byItem ? "Recall@20" : "NDCG@10";
  const colour = methodColour(report.methods);
  const few = rows.filter(({ n_users: n }) => n !== null && n < FEW_USERS).map(({ segment }) => segment);
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
        const shown = (words) => (7 * words.length > left ? `${words.slice(0, left / 7 - 1)}…` : words);
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

function bySource(report, words) {
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
  const kept = parts.filter((name) => d3.max(rows, (row) => (row.source === name ? row.share : 0)) > 0);
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
            title: (row) => `${row.source}, ${row.k === all ? "all candidates" : `first ${row.k}`}\n`
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
        ...Object.fromEntries(rows.filter((row) => row.k === k).map((row) => [row.source, row.share])),
      })),
    }),
    !recall && h("p", { class: "note" }, "This release kept the bound alone; the next batch run also "
      + "keeps which source each hit came from."),
    glossary("What the sources are", kept, Object.fromEntries(kept.map((name) => [name, sourceWords(name)]))),
  );
}

const NO_SOURCE = "What no source proposed, such as new items that are given a place to gather feedback.";

function calibration(report) {
  const facts = report.calibration;
  const intro = "What a place in a list is worth, and whether a higher score really means more. A score "
    + "has no unit; only its order counts.";
  if (!facts?.ranks?.length) {
    return section("Calibration", intro, empty("This report has none.", "The next batch run measures it."));
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

const offeredColumn = { label: "Offered", number: true, show: ({ offered }) => format.count(offered) };
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
    caption: "Share of the first 20 places that were hits, by their score in tenths, the lowest scores "
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

function knownEvents(report) {
  const short = report.known_events ?? [];
  const fresh = report.fresh_users ?? [];
  const intro = "How good a list is for somebody of whom little is known, and how many events are needed.";
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
  const SERIES = { short: ["two_stage", "popularity"], fresh: ["fresh", "retrained", "popularity"] };
  const CAPTIONS = {
    short: (n) => `NDCG@10 of the same ${format.counted(n, "user")}, as if only so many of their latest `
      + "events were known",
    fresh: (n) => `NDCG@10 of ${format.counted(n, "user")} who were kept out of training, by how many of `
      + "their events are known; retrained: by a model that has learnt from those events too",
  };
  let kind = options[0].value;
  const box = h("div", {});
  const draw = () => {
    const source = kind === "short" ? short : fresh;
    const names = SERIES[kind];
    fill(box, legendOf(names), lines({
      caption: `${CAPTIONS[kind](source[0].n_users)}, with 95% intervals`,
      rows: names.flatMap((name) => source.map((row) => ({ x: row.events, series: name, ...row[name] }))),
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
    fresh.length === 0 && h("p", { class: "note" }, "The towers have seen these users' past, so the "
      + "curve is a little kind. ", h("code", {}, "shortlist evaluate"), " also keeps users out of "
      + "training altogether."),
    newItems(report.new_items),
  );
}

const newItems = (facts) => facts && h("p", {}, "New items, which training has not seen: of the new items "
  + `that users took, ${format.percent(facts["recall@20"].value)} are among the first 20 of `
  + `${format.count(facts.n_items)} new ones (by chance ${format.percent(facts.random)}).`);

const CURVES = {
  towers: { over: "round", intro: "The retriever's towers: the loss on what they learn from, and the "
    + "recall on events that are held back. Training stops where that no longer rises." },
  ranker: { over: "tree", intro: "The ranker: NDCG@10 on held-back users by the number of trees. It "
    + "keeps as many as were best." },
};

function curves(report) {
  const there = Object.keys(CURVES).filter((stage) => report.learning_curves?.[stage]?.length > 1);
  if (there.length === 0) return null;
  let stage = there[0];
  const box = h("div", { class: "stack" });
  const draw = () => {
    const { over, intro } = CURVES[stage];
    const rows = report.learning_curves[stage];
    // One round is no curve.
    const measures = Object.keys(rows[0]).filter((name) => name !== over
      && rows.filter((row) => Number.isFinite(row[name] ?? NaN)).length > 1);
    const best = d3.greatest(rows, ({ validation }) => validation);
    fill(
      box, h("p", { class: "note" }, intro),
      h("div", { class: "columns" }, measures.map((measure, place) => lines({
        caption: `${measure === "loss" ? "Loss" : "Figure on held-back events"} by ${over}`
          + `${measure === "validation" && best ? `; best at ${over} ${best[over]}` : ""}`,
        rows: rows.map((row) => ({ x: row[over], value: row[measure], series: measure })),
        names: [measure], colour: () => COLOURS[place], x: over, y: measure, height: 200,
        zero: false,
        scale: rows.length <= 12 ? { ticks: rows.map((row) => row[over]), tickFormat: "d" } : {},
        columns: [
          { name: "x", label: over, number: true },
          { label: measure, number: true, show: ({ value }) => figure(value) },
        ],
      }))),
      stage === "ranker" && report.ranker?.reported?.note
        && h("p", { class: "note" }, report.ranker.reported.note),
    );
  };
  draw();
  return section(
    "Learning curves", null,
    there.length > 1 && choice({
      label: "Of the", value: stage, options: there.map((value) => ({ value })),
      change: (value) => { stage = value; draw(); },
    }),
    box,
  );
}

const MOST_FEATURES = 15;

function importances(report, words) {
  const all = Object.entries(report.importances ?? {})
    .map(([name, value]) => ({ name, value })).sort((a, b) => b.value - a.value);
  const rows = all.filter(({ value }) => value > 0).slice(0, MOST_FEATURES);
  if (rows.length === 0) return null;
  return section(
    "Features of the ranker", "What it looks at: the share of the trees' gain by feature. A feature with a small share can "
      + "still decide single lists.",
    chart({
      caption: `The ${format.counted(rows.length, "feature")} with the largest share of gain, of `
        + format.count(all.length),
      height: 24 + 22 * rows.length,
      draw: () => ({
        marginLeft: room(rows.map(({ name }) => name)), marginRight: 50,
        x: { label: null, ticks: [] },
        y: { domain: rows.map(({ name }) => name), label: null },
        marks: [
          Plot.barX(rows, { x: "value", y: "name", fill: COLOURS[0], rx: 2 }),
          Plot.text(rows, { x: "value", y: "name", dx: 4, textAnchor: "start", fill: "currentColor",
            text: ({ value }) => format.percent(value) }),
        ],
      }),
      columns: [
        { label: "Feature", show: ({ name }) => term(name, words.features[name]) },
        { label: "Share of gain", number: true, show: ({ value }) => format.percent(value) },
      ],
      rows: all,
    }),
    glossary("What the features are", all.map(({ name }) => name), words.features),
  );
}

function audit(report) {
  const rows = report.audit ?? [];
  if (rows.length === 0) return null;
  return section(
    "Leak audit", "Can the figures be believed? Checks that nothing knew the future. One that does not hold stops "
      + "the release.",
    table({
      caption: "The leak audit",
      columns: [
        { name: "check", label: "Check" },
        { label: "Outcome", show: ({ outcome }) =>
          h("span", { class: `tag ${outcome === "held" ? "good" : "bad"}` }, outcome) },
        { name: "detail", label: "Detail" },
      ],
      rows,
    }),
  );
}

function releasesOverTime(releases, metrics) {
  const intro = "Each batch makes a release; the gate lets it serve or not. A refused one never "
    + "gets here: the log of its batch has the reason.";
  if (!releases || releases.length === 0) {
    return section("Releases over time", intro, empty("No release was published yet."));
  }
  const rows = d3.sort(releases, ({ created_at: at }) => at).map((release) => ({
    ...release.headline, ...release, at: new Date(1000 * release.created_at),
  }));
  const there = known(rows);
  return section(
    "Releases over time", intro,
    there.length > 1 && releaseChart(there),
    table({
      caption: "Releases, the newest first",
      columns: [
        { label: "Release, and the gate's word", show: (row) => h("div", { class: "gate" },
          h("div", { class: "row" }, h("code", { class: "nowrap" }, row.version), tags(roles(row))),
          h("p", { class: "note" }, row.fault ?? row.gate?.words ?? "no word was kept")) },
        { label: "Made", show: (row) => h("span", { class: "nowrap" }, format.time(row.created_at)) },
        { label: term("NDCG@10", metrics[HEADLINE]), number: true, show: ({ value }) => figure(value) },
        { label: "95% interval", number: true, show: (row) => h("span", { class: "nowrap" }, ends(row)) },
        { label: "Users", number: true, show: (row) => format.count(row.n_users) },
        { label: "Items", number: true, show: (row) => format.count(row.n_items) },
        { label: "Events", number: true, show: (row) => format.count(row.n_events) },
      ],
      rows: rows.toReversed(),
    }),
  );
}

export const roles = (release) => [
  release.serving && "serving", release.previous && "previous", release.canary && "canary",
  release.whole === false && "not whole",
].filter(Boolean);

function releaseChart(rows) {
  return chart({
    caption: "NDCG@10 of each release on its own hold-out, with 95% intervals: the data differ from "
      + "release to release, so a small step is no news",
    height: 220,
    draw: (width) => ({
      marginLeft: 52, marginBottom: 40, marginRight: 24,
      x: { type: "utc", label: null, inset: 14, ticks: Math.round(width / 160) },
      y: { label: "↑ NDCG@10", grid: true, zero: true, nice: true },
      marks: [
        Plot.ruleX(rows.filter(hasEnds), {
          x: "at", y1: "low", y2: "high", stroke: COLOURS[0], strokeOpacity: 0.5, strokeWidth: 2.5,
        }),
        Plot.lineY(rows, { x: "at", y: "value", stroke: COLOURS[0], strokeOpacity: 0.5 }),
        Plot.dot(rows, {
          x: "at", y: "value", r: 4.5, fill: ({ serving }) => (serving ? COLOURS[0] : "var(--card)"),
          stroke: COLOURS[0], strokeWidth: 1.5,
          tip: { format: { x: false, y: false, fill: false, stroke: false } },
          title: (row) => `${row.version}\n${format.time(row.created_at)}\n`
            + `NDCG@10 ${figure(row.value)} (${ends(row)})`,
        }),
      ],
    }),
  });
}
