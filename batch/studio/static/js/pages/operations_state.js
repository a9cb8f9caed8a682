// What the service says of itself: its state, how long answers take, and which fell back.

import { chart, colours } from "../charts.js";
import { h } from "../dom.js";
import * as format from "../format.js";
import { room } from "../intervals.js";
import { empty, table, term, tiles } from "../parts.js";

const { Plot, d3 } = window;

const DEGRADATIONS = {
  StoreUnavailable: "Redis did not answer.",
  ArtefactsUnavailable: "The folder or bucket of releases did not answer.",
  BundleMismatch: "The release's model is of other features than the code.",
  CorruptArtefact: "A file of the release is not what was written.",
  ReleaseNotFound: "The release's model is not there.",
  UnreadableRecord: "A record in Redis cannot be read.",
  LoadFailed: "The model could not be loaded: disk or memory.",
};

/** A release's name, in small letters, as it is long. */
const version = (name) => h("code", { class: "version" }, name);

export function stateTiles({ pointer, redis, lists, rules, blocked, limits }) {
  const up = redis && !redis.error;
  const used = up && redis.maxmemory > 0 ? redis.used_memory / redis.maxmemory : null;
  return tiles([
    { label: "Serving", value: pointer?.current ? version(pointer.current) : "no release",
      detail: pointer?.previous ? ["before: ", version(pointer.previous)] : "none before it",
      state: pointer?.current ? "good" : "bad" },
    { label: "Canary",
      value: pointer?.canary ? `${format.short(pointer.canary.percent)}% of the users` : "none",
      detail: pointer?.canary && version(pointer.canary.version) },
    { label: "Lists written", value: format.count(lists?.written),
      detail: lists?.oldest_age_s === null || lists?.oldest_age_s === undefined ? null
        : `the oldest was made ${format.ago(lists.oldest_age_s)}` },
    up ? { label: "Redis memory", value: format.bytes(redis.used_memory),
      detail: `${used === null ? "no limit is set"
        : `${format.percent(used, 0)} of ${format.bytes(redis.maxmemory)}`}, ${redis.policy}`,
      state: used !== null && used > 0.8 ? "warn" : "neutral" }
      : { label: "Redis", value: "does not answer", detail: redis?.error, state: "bad" },
    up && { label: "Memory a user", value: format.bytes(redis.bytes_a_user),
      detail: `${format.counted(redis.users, "user")} with a list or a history` },
    up && { label: "Redis", value: redis.version,
      detail: format.counted(redis.connected, "client") },
    { label: "Business rules", value: format.count(rules?.n ?? 0),
      detail: rules?.version ? `version ${rules.version}` : "none yet" },
    { label: "Blocked items", value: format.count(blocked?.length ?? 0) },
    limits && { label: "Events waiting", value: format.count(limits.events_waiting),
      detail: `for a drain; at most ${format.count(limits.max_waiting_events)}`,
      state: limits.events_waiting > limits.max_waiting_events / 2 ? "warn" : "neutral" },
  ].filter(Boolean));
}

const MOST_TIMED = 12;
const PERCENTILES = ["median", "99th percentile"];

export function latencies({ latencies: rows = [] }) {
  const asked = rows.filter(({ n }) => n > 0);
  if (asked.length === 0) {
    return empty("Nothing was answered yet.", "Look at a user's page, then come back and refresh.");
  }
  // The rest, such as commands that were sent once, is in the table.
  const most = new Set(d3.sort(asked, (a, b) => b.n - a.n).slice(0, MOST_TIMED));
  const drawn = asked.filter((row) => most.has(row)).map((row) => ({
    ...row, what: row.what.replace(/^the answer to /, ""),
  }));
  const flat = drawn.flatMap((row) => [
    { what: row.what, of: PERCENTILES[0], ms: row.p50_ms },
    { what: row.what, of: PERCENTILES[1], ms: row.p99_ms },
  ]).filter(({ ms }) => Number.isFinite(ms ?? NaN) && ms > 0);
  const names = drawn.map(({ what }) => what);
  return chart({
    caption: "How long answers and their parts take, in milliseconds on a logarithmic scale, "
      + `estimated from the buckets of the metrics${drawn.length < asked.length
        ? `; the ${drawn.length} most frequent, all are in the table` : ""}`,
    legend: PERCENTILES,
    height: 50 + 24 * names.length,
    draw: (width) => {
      const left = Math.min(width / 2, room(names, 260));
      const letters = Math.floor(left / 7) - 2;
      const shown = (name) => (name.length > letters ? `…${name.slice(1 - letters)}` : name);
      return {
        marginLeft: left, marginRight: 24, marginBottom: 34,
        x: { type: "log", label: "ms →", grid: true, tickFormat: "~g" },
        y: { domain: names, label: null, tickFormat: shown },
        color: colours(PERCENTILES),
        marks: [
          Plot.link(drawn, {
            x1: "p50_ms", x2: "p99_ms", y1: "what", y2: "what", stroke: "var(--quiet-line)",
          }),
          Plot.dot(flat, {
            x: "ms", y: "what", fill: "of", r: 4.5,
            tip: { format: { x: false, y: false, fill: false } },
            title: (row) => `${row.what}\n${row.of}: ${format.milliseconds(row.ms)}`,
          }),
        ],
      };
    },
    columns: [
      { name: "what", label: "What" },
      { label: "Median", number: true, show: ({ p50_ms: ms }) => format.milliseconds(ms) },
      { label: "99th percentile", number: true, show: ({ p99_ms: ms }) => format.milliseconds(ms) },
      { label: "Times", number: true, show: ({ n }) => format.count(n) },
    ],
    rows: asked,
  });
}

export function degradations({ degradations: all = [] }) {
  const rows = all.filter(({ n }) => n > 0);
  if (rows.length === 0) {
    return h("p", {}, h("span", { class: "tag good" }, "good"), " No answer fell back: each was "
      + "made as it "
      + "was meant to be.");
  }
  return [
    h("p", { class: "warning" }, "Some answers fell back to popular or older items, because a "
      + "part did not "
      + "work. The log has each reason."),
    table({
      caption: "Answers that fell back, by what failed",
      columns: [
        { label: "What failed", show: ({ reason }) => term(reason, DEGRADATIONS[reason]) },
        { label: "Answers", number: true, show: ({ n }) => format.count(n) },
      ],
      rows,
    }),
  ];
}
