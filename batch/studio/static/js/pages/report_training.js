// The report's training: learning curves, what the ranker looks at, and the leak audit.

import { chart, COLOURS } from "../charts.js";
import { fill, h } from "../dom.js";
import * as format from "../format.js";
import { figure, lines, room } from "../intervals.js";
import { choice, section, table, term } from "../parts.js";
import { glossary } from "./report_words.js";

const { Plot, d3 } = window;

const CURVES = {
  towers: { over: "round", intro: "The retriever's towers: the loss on what they learn from, and "
    + "the "
    + "recall on events that are held back. Training stops where that no longer rises." },
  ranker: { over: "tree", intro: "The ranker: NDCG@10 on held-back users by the number of trees. "
    + "It "
    + "keeps as many as were best." },
};

export function curves(report) {
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

export function importances(report, words) {
  const all = Object.entries(report.importances ?? {})
    .map(([name, value]) => ({ name, value })).sort((a, b) => b.value - a.value);
  const rows = all.filter(({ value }) => value > 0).slice(0, MOST_FEATURES);
  if (rows.length === 0) return null;
  return section(
    "Features of the ranker", "What it looks at: the share of the trees' gain by feature. A "
      + "feature with a small share can "
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

export function audit(report) {
  const rows = report.audit ?? [];
  if (rows.length === 0) return null;
  return section(
    "Leak audit", "Can the figures be believed? Checks that nothing knew the future. One that "
      + "does not hold stops "
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
