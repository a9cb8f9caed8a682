// How good the serving release is: its report, interactive, and the releases before it.

import { studio } from "../api.js";
import { contents, wide } from "../contents.js";
import { fill, h } from "../dom.js";
import * as format from "../format.js";
import { ends, figure, hasEnds, OURS, strongest } from "../intervals.js";
import { empty, load, section, table, term } from "../parts.js";
import { bySource, calibration, knownEvents, segments } from "./report_lists.js";
import { methodsSection, pairs, tradeOff } from "./report_methods.js";
import { releasesOverTime } from "./report_releases.js";
import { audit, curves, importances } from "./report_training.js";
import { HEADLINE, methodTerm, signed } from "./report_words.js";

export const title = "Quality";

const { d3 } = window;

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
        h("span", {}, "The next ", h("code", {}, "shortlist batch run"),
          " keeps it; the page of the release itself is named by ",
          h("code", {}, "shortlist release show VERSION"), "."),
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
      hasEnds(ours) && ` (95% interval ${ends(ours)})`,
      `, measured on ${format.counted(methods[OURS].n_users, "user")} `,
      "whose last events were held out.",
      rival && [" The strongest baseline, ", methodTerm(words, rival),
        `, has ${figure(methods[rival][HEADLINE].value)}. `, verdict(pair, rival)],
    ),
    h("p", { class: "note" }, "The figures are about the method: the released model has also "
      + "learnt "
      + "from the hold-out. They say how well the lists find what people did anyway; what a list "
      + "changes only an experiment with users can tell."),
    leftOut(report, words),
  );
}

const sentence = (words) => `${words[0].toUpperCase()}${words.slice(1)}.`;

function verdict(pair, rival) {
  if (!pair || pair.low === null) return "";
  const change = `The difference, user by user, is ${signed(pair.difference)} `
    + `(${signed(pair.low)} to ${signed(pair.high)}): `;
  if (pair.low > 0) return `${change}better, by more than the choice of users explains.`;
  if (pair.high < 0) {
    return `${change}worse than ${rival}, by more than the choice of users explains.`;
  }
  return `${change}the two cannot be told apart on these users.`;
}

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
