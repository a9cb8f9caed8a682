// Words that the sections of a report share.

import { h } from "../dom.js";
import * as format from "../format.js";
import { figure } from "../intervals.js";
import { term } from "../parts.js";

export const HEADLINE = "ndcg@10";

/** Every metric of a method, in the order of the choices. */
export const METRIC_LABELS = {
  "ndcg@10": "NDCG@10", "recall@10": "Recall@10", "recall@20": "Recall@20", mrr: "MRR",
  "map@10": "MAP@10", "hit_rate@10": "Hit rate@10", "stratified_recall@20": "Stratified recall@20",
  "novelty@10": "Novelty@10", "diversity@10": "Diversity@10", coverage: "Coverage",
};

export const metricLabel = (metric) => METRIC_LABELS[metric] ?? metric;

/** A method's name, which explains itself. */
export const methodTerm = ({ methods }, name) => term(name, methods[name]);

/** A difference with its sign. */
export const signed = (value) =>
  (value === null ? format.NONE : `${value < 0 ? "−" : "+"}${figure(Math.abs(value))}`);

/** Names and their explanations, for those who neither hover nor focus. */
export function glossary(heading, all, explained) {
  const there = all.filter((name) => explained[name]);
  return there.length > 0 && h(
    "details", {}, h("summary", {}, heading),
    h("dl", { class: "glossary" },
      there.map((name) => [h("dt", {}, name), h("dd", {}, explained[name])])),
  );
}
