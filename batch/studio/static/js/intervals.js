// Charts of figures with intervals, which the quality page is made of.

import { ACCENT, chart, COLOURS, QUIET } from "./charts.js";
import * as format from "./format.js";

const { Plot, d3 } = window;

export const OURS = "two_stage";
const HEADLINE = "ndcg@10";

/** A figure as "0.337". */
export const figure = (value) =>
  format.decimal(value, value !== null && Math.abs(value) >= 10 ? 1 : 3);

/** Whether a figure has an interval. */
export const hasEnds = ({ low, high }) =>
  Number.isFinite(low ?? NaN) && Number.isFinite(high ?? NaN);

/** The ends of an interval, "0.322 to 0.352". */
export const ends = (row) =>
  hasEnds(row) ? `${figure(row.low)} to ${figure(row.high)}` : format.NONE;

/** A p-value; resampling knows none below 1 / 2001. */
export const pValue = (p) =>
  p === null || p === undefined ? format.NONE : p < 0.0006 ? "< 0.001" : format.decimal(p, 3);

/** The baseline with the best headline figure. */
export function strongest(methods) {
  const rivals = Object.keys(methods).filter((name) => name !== OURS && name !== "retriever"
    && Number.isFinite(methods[name][HEADLINE]?.value ?? NaN));
  return d3.greatest(rivals, (name) => methods[name][HEADLINE].value) ?? null;
}

/** The methods worth a look at first: ours, its retriever, the strongest baseline, popularity. */
export const notable = (methods) =>
  [...new Set([OURS, "retriever", strongest(methods), "popularity"])]
    .filter((name) => name in methods);

const NOTABLE_COLOURS = [COLOURS[0], COLOURS[2], COLOURS[1], COLOURS[3]];

/** The colour of each method: those worth a look have their own, the others are grey. */
export function methodColour(methods) {
  const names = notable(methods);
  return (name) => NOTABLE_COLOURS[names.indexOf(name)] ?? QUIET;
}

/** Pixels that labels of rows need. */
export const room = (names, most = 170) =>
  Math.min(most, 16 + 7 * (d3.max(names, (name) => name.length) ?? 0));

/** The rows that have a value. */
export const known = (rows) =>
  rows.filter(({ value }) => value !== null && value !== undefined && Number.isFinite(value));

/**
 * A dot with its interval for each row {name, value, low, high}.
 *
 * colour: of a name; label: of the axis.
 */
export function dots({ caption, rows, label, colour = () => ACCENT, columns, zero = false }) {
  const there = known(rows);
  const names = there.map(({ name }) => name);
  return chart({
    caption,
    height: 44 + 24 * there.length,
    draw: () => ({
      marginLeft: room(names), marginRight: 20, marginBottom: 34,
      x: { label: `${label} →`, grid: true, nice: true, zero },
      y: { domain: names, label: null },
      marks: [
        zero && Plot.ruleX([0], { stroke: "var(--control)" }),
        Plot.ruleY(there.filter(hasEnds), {
          x1: "low", x2: "high", y: "name", stroke: ({ name }) => colour(name), strokeWidth: 2.5,
          strokeOpacity: 0.55,
        }),
        Plot.dot(there, {
          x: "value", y: "name", fill: ({ name }) => colour(name), r: 4.5,
          tip: { format: { x: false, y: false, fill: false } },
          title: ({ name, ...row }) => `${name}\n${figure(row.value)} (${ends(row)})`,
        }),
      ].filter(Boolean),
    }),
    columns: columns ?? [
      { name: "name", label: "Name" },
      { label, number: true, show: ({ value }) => figure(value) },
      { label: "95% interval", number: true, show: ends },
    ],
    rows,
  });
}

/**
 * Lines with bands of {x, value, low, high, series}.
 *
 * names: of the series, in order; zero: whether y begins at 0; scale: further options of x.
 */
export function lines({ caption, rows, names, colour, x, y, format: shown = figure,
  columns, height = 250, scale = {}, percent = false, zero = true }) {
  const there = known(rows);
  const paint = ({ series }) => colour(series);
  return chart({
    caption, height,
    draw: () => ({
      marginLeft: 52, marginBottom: 40, marginRight: 20,
      x: { label: `${x} →`, ...scale },
      y: { label: `↑ ${y}`, grid: true, zero, nice: true, percent },
      marks: [
        zero && Plot.ruleY([0], { stroke: "var(--control)" }),
        Plot.areaY(there.filter(hasEnds), {
          x: "x", y1: "low", y2: "high", z: "series", fill: paint, fillOpacity: 0.16,
        }),
        Plot.lineY(there, { x: "x", y: "value", z: "series", stroke: paint, strokeWidth: 2 }),
        there.length <= 60 && Plot.dot(there, { x: "x", y: "value", fill: paint, r: 3.5 }),
        Plot.tip(there, Plot.pointer({
          x: "x", y: "value",
          title: (row) => `${names.length > 1 ? `${row.series}\n` : ""}${x} ${row.x}\n`
            + shown(row.value)
            + (hasEnds(row) ? ` (${shown(row.low)} to ${shown(row.high)})` : ""),
        })),
      ].filter(Boolean),
    }),
    columns: columns ?? [
      ...(names.length > 1 ? [{ name: "series", label: "Of" }] : []),
      { name: "x", label: x, number: true },
      { label: y, number: true, show: ({ value }) => shown(value) },
      { label: "95% interval", number: true, show: (row) =>
        (hasEnds(row) ? `${shown(row.low)} to ${shown(row.high)}` : format.NONE) },
    ],
    rows,
  });
}
