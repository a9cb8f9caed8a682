// Releases over time: their figures, and the gate's word on each.

import { chart, COLOURS } from "../charts.js";
import { h } from "../dom.js";
import * as format from "../format.js";
import { ends, figure, hasEnds, known } from "../intervals.js";
import { empty, section, table, tags, term } from "../parts.js";
import { HEADLINE } from "./report_words.js";

const { Plot, d3 } = window;

export function releasesOverTime(releases, metrics) {
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
          h("div", { class: "row" },
            h("code", { class: "nowrap" }, row.version), tags(rolesOf(row))),
          h("p", { class: "note" }, row.fault ?? row.gate?.words ?? "no word was kept")) },
        { label: "Made",
          show: (row) => h("span", { class: "nowrap" }, format.time(row.created_at)) },
        { label: term("NDCG@10", metrics[HEADLINE]), number: true,
          show: ({ value }) => figure(value) },
        { label: "95% interval", number: true,
          show: (row) => h("span", { class: "nowrap" }, ends(row)) },
        { label: "Users", number: true, show: (row) => format.count(row.n_users) },
        { label: "Items", number: true, show: (row) => format.count(row.n_items) },
        { label: "Events", number: true, show: (row) => format.count(row.n_events) },
      ],
      rows: rows.toReversed(),
    }),
  );
}

/** A release's roles in a word each. */
export const rolesOf = (release) => [
  release.serving && "serving", release.previous && "previous",
  release.canary && `canary ${format.short(release.canary.percent)}%`,
  release.whole === false && "not whole",
].filter(Boolean);

function releaseChart(rows) {
  return chart({
    caption: "NDCG@10 of each release on its own hold-out, with 95% intervals: the data differ "
      + "from "
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
          x: "at", y: "value", r: 4.5,
          fill: ({ serving }) => (serving ? COLOURS[0] : "var(--card)"),
          stroke: COLOURS[0], strokeWidth: 1.5,
          tip: { format: { x: false, y: false, fill: false, stroke: false } },
          title: (row) => `${row.version}\n${format.time(row.created_at)}\n`
            + `NDCG@10 ${figure(row.value)} (${ends(row)})`,
        }),
      ],
    }),
  });
}
