// The report's methods: their figures, paired tests, and accuracy against coverage and novelty.

import { chart } from "../charts.js";
import { fill, h } from "../dom.js";
import * as format from "../format.js";
import { dots, ends, figure, known, methodColour, OURS, pValue } from "../intervals.js";
import { choice, field, section } from "../parts.js";
import {
  glossary, HEADLINE, METRIC_LABELS, metricLabel, methodTerm, signed,
} from "./report_words.js";

const { Plot, d3 } = window;

const BEYOND_ACCURACY = ["coverage", "novelty@10", "diversity@10"];

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

export function methodsSection(report, words) {
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
    "Methods", "All methods know the same past and are judged by the same held-out events. "
      + "two_stage "
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

export function pairs(report, words) {
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
        caption: `${against} minus each other method, NDCG@10 user by user, with 95% intervals; `
          + `right of the line, ${against} is better`,
        rows, label: "difference in NDCG@10", zero: true,
        colour: methodColour(report.methods),
        columns: [
          { label: "Method", show: ({ name }) => methodTerm(words, name) },
          { label: `${against} minus it`, number: true, show: ({ value }) => signed(value) },
          { label: "95% interval", number: true,
            show: ({ low, high }) => `${signed(low)} to ${signed(high)}` },
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

export function tradeOff(report, words) {
  const there = BEYOND_ACCURACY.filter(
    (metric) => Number.isFinite(report.methods[OURS]?.[metric]?.value ?? NaN));
  if (there.length === 0) return null;
  let across = there[0];
  const box = h("div", {});
  const draw = () => fill(box, tradeOffChart(report, across, words));
  draw();
  return section(
    "Accuracy against coverage and novelty",
    "A method that is as accurate and reaches more of the catalogue is the better one. Up and to "
      + "the "
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

/** The rows whose labels have room: of two that would overlap, the better method's stays. */
function apart(rows, width) {
  const [left, right] = d3.extent(rows, ({ x }) => x);
  const top = d3.max(rows, ({ value }) => value) || 1;
  const placed = [];
  for (const row of d3.sort(rows, (a, b) => b.value - a.value)) {
    const at = {
      x: ((row.x - left) / (right - left || 1)) * (width - 140), y: (row.value / top) * 240,
    };
    const reach = 6.5 * row.name.length;
    const ends = anchorOf(rows, row) === "end";
    const box = { x0: ends ? at.x - reach : at.x, x1: ends ? at.x : at.x + reach, y: at.y };
    const overlaps = (other) =>
      Math.abs(other.y - box.y) < 13 && box.x0 < other.x1 && other.x0 < box.x1;
    if (placed.some(overlaps)) continue;
    placed.push({ ...box, row });
  }
  return placed.map(({ row }) => row);
}
