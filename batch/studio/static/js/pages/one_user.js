// One user: history beside recommendations, the hold-out, and what changes the list.

import { latest, send, studio } from "../api.js";
import { asRequest, controls, isPlain, plain } from "../controls.js";
import { announce, fill, h } from "../dom.js";
import * as format from "../format.js";
import { attributeWords, ranked, scoreNote, sideBySide, sourceTags, sourceWords } from "../lists.js";
import { choice, empty, failure, field, itemLink, load, loading, term } from "../parts.js";
import { itemSearch } from "./item_search.js";
import { history } from "./history.js";

/** Most items for which reasons are asked: the list that is shown, and what it may become. */
const EXPLAINED = 50;

const VIEWS = [
  { value: "served", label: "As served", title: "The list that the API gives now" },
  { value: "click", label: "After a click", title: "The list before and after one more event" },
  { value: "live", label: "Cached beside live", title: "The stored list beside one computed now" },
  { value: "release", label: "Beside another release", title: "The serving release beside another" },
];

/** Explanations of features by name; {} where the release's facts lack them. */
let explained = null;
export const featureNames = () => (explained ??= studio("quality").then(
  ({ features }) => features ?? {}, () => { explained = null; return {}; },
));

export function oneUser(root, context, id) {
  const only = latest();
  const settings = plain();
  let gone = false;
  const page = h("div", { class: "stack" });
  load(root, async () => {
    const [user, release, explain] = await Promise.all([
      studio("user", { id }), context.overview(), featureNames(),
    ]);
    if (gone) return undefined;
    fill(page, ...whole({ user, release, explain, settings, only, context }));
    return page;
  }, `Loading user ${id} …`);
  return { leave: () => { gone = true; } };
}

function whole({ user, release, explain, settings, only, context }) {
  const past = history(user, release);
  const had = hadBefore(user, release);
  const list = h("div", { class: "list" });
  const state = { view: "served", clicked: null, other: null };
  const shared = { explain, had, point: past.point };
  const show = async (words = "Asking for the list …") => {
    if (!list.firstChild) fill(list, loading(words));
    list.setAttribute("aria-busy", "true");
    try {
      const nodes = await only((signal) =>
        SHOWN[state.view]({ user, release, settings, state, shared, signal, again: show }));
      if (nodes !== undefined) fill(list, nodes);
    } catch (error) {
      fill(list, failure(error, () => show()));
      announce(error.message);
    } finally {
      list.removeAttribute("aria-busy");
    }
  };
  shared.act = {
    label: "click",
    words: ({ title }) => `See the list after a click on ${title}`,
    run: (row) => {
      state.clicked = { id: row.item_id, title: row.title };
      state.view = "click";
      drawViews();
      show();
    },
  };
  const views = h("div");
  const grid = h("div", { class: "user-grid" });
  const widen = () => grid.classList.toggle("wide", state.view !== "served"); // for two lists
  const drawViews = () => {
    fill(views, choice({
      label: "Show the list", options: VIEWS, value: state.view,
      change: (value) => { state.view = value; fill(list); widen(); show(); },
    }));
    widen();
  };
  drawViews();
  show();
  fill(
    grid,
    h("section", { class: "card stack", "aria-label": "What the user did" },
      h("h2", {}, "What the user did"), past.element),
    h(
      "section", { class: "card stack recommended", "aria-label": "What is recommended" },
      h("h2", {}, "What is recommended"),
      views,
      h("details", { class: "adjust" }, h("summary", {}, "Adjust the list"),
        controls(release, settings, () => show())),
      list,
    ),
  );
  return [head(user), grid, heldOut(user)];
}

/** The items that the user had: by events that are predicted, such as purchases, not views. */
function hadBefore({ history: events }, { event_types: types }) {
  const others = new Set(types.filter(({ target }) => !target).map(({ name }) => name));
  return new Set(events.filter(({ negative, type }) => !negative && !others.has(type))
    .map(({ item_id: item }) => item));
}

function head(user) {
  const dates = user.history.map(({ time }) => time);
  const [first, last] = [Math.min(...dates), Math.max(...dates)];
  const negative = user.history.filter((event) => event.negative).length;
  return h(
    "div", { class: "user-head" },
    h("h2", {}, "User ", h("span", { class: "id" }, user.id)),
    h("p", { class: "note" }, [
      attributeWords(user.attributes),
      user.known ? null : "Nothing is stored of this id: they get popular items.",
      dates.length > 0 && `${format.counted(dates.length - negative, "event")}`
        + `${negative > 0 ? ` and ${negative} of negative feedback` : ""}`
        + ` from ${format.date(first)} to ${format.date(last)}`,
      user.list && `list written ${format.ago(user.list.age_s)}`,
      user.newer_events > 0 && `${format.counted(user.newer_events, "event")} newer than the list, `
        + "so answers are computed live",
      user.disliked?.length > 0 && `${format.counted(user.disliked.length, "item")} disliked, never offered`,
    ].filter(Boolean).join(" · ")),
  );
}

/** The answer for a body, and the reasons of its items from the live models. */
async function answered(body, signal) {
  const k = body.diversity ? body.k : Math.max(body.k, EXPLAINED);
  const [answer, reasons] = await Promise.all([
    send("/recommend", body, { signal }),
    send("/recommend", { ...body, k, explain: true }, { signal }).catch((error) => {
      if (error.name === "AbortError") throw error;
      return { recommendations: [] }; // the list stands without its reasons
    }),
  ]);
  const of = new Map(reasons.recommendations.map((row) => [row.item_id, row.reason]));
  return { ...answer, reasons: of };
}

const SHOWN = { served, click, live, release: beside };

async function served({ user, settings, shared, signal }) {
  const body = { user_id: user.id, ...asRequest(settings) };
  const adjusted = !isPlain(settings);
  const [answer, before] = await Promise.all([
    answered(body, signal),
    adjusted ? send("/recommend", { user_id: user.id, k: settings.k }, { signal }) : null,
  ]);
  const rows = answer.recommendations;
  announce(`${format.counted(rows.length, "item")}, ${sourceWords(answer)}`);
  if (adjusted) {
    return [
      sourceTags(answer), unknown(answer),
      sideBySide(
        { title: "As served", note: sourceWords(before), rows: before.recommendations },
        { title: "Adjusted", note: sourceWords(answer), rows },
        { ...shared, reasons: answer.reasons },
      ),
    ];
  }
  if (rows.length === 0) return empty("No items are left to recommend.", sourceWords(answer));
  return [
    sourceTags(answer),
    h("p", { class: "note" }, `This is ${sourceWords(answer)}.`),
    scoreNote(),
    ranked(rows, { ...shared, reasons: answer.reasons }),
  ];
}

/** Values of filters that no item has, which explain an empty list. */
function unknown({ unknown_values: values = {} }) {
  const names = Object.entries(values);
  return names.length > 0 && h("p", { class: "warning" }, names.map(([name, each]) =>
    `No item has ${name} ${each.join(", ")}. `));
}

async function click({ user, release, settings, state, shared, signal, again }) {
  const chooser = clickChooser(release, state, again);
  if (!state.clicked) {
    return [chooser, empty("Choose an item that the user clicks.",
      "Nothing is stored: the click is part of the question alone.")];
  }
  const body = { user_id: user.id, use_cache: false, ...asRequest(settings) };
  const event = { item_id: state.clicked.id, ...(state.type && { event_type: state.type }) };
  const [before, after] = await Promise.all([
    answered(body, signal),
    answered({ ...body, history: [...asked(user.history), clickedAt(event, user)] }, signal),
  ]);
  announce("The list after the click");
  return [chooser, sideBySide(
    {
      title: "Before", rows: before.recommendations, reasons: before.reasons,
      note: "Computed now from the stored history.",
    },
    {
      title: "After the click", rows: after.recommendations, reasons: after.reasons,
      note: `With ${state.clicked.title} as the latest event.`,
    },
    shared,
  )];
}

/** Most events that a request may bring, less the click. */
const SENT = 999;

/** Stored events as a request's history, oldest first. */
const asked = (events) => [...events].sort((one, other) => one.time - other.time).slice(-SENT)
  .map(({ item_id: item, time, weight, type, negative }) => ({
    item_id: item,
    ...(time !== null && { timestamp: time }),
    ...(weight !== null && weight !== undefined && { weight }),
    ...(type && { event_type: type }),
    // Negative feedback is stored without a weight, and a type need not tell: this says what it is.
    ...(negative && (weight ?? null) === null && { weight: -1 }),
  }));

/** The click now, where the times of the data are a clock's. */
function clickedAt(event, { history: events }) {
  const last = Math.max(0, ...events.map(({ time }) => time));
  const clock = events.length === 0 || format.isDate(last);
  return { ...event, timestamp: clock ? Math.max(last, Math.floor(Date.now() / 1000)) : last };
}

function clickChooser(release, state, again) {
  const found = itemSearch({
    label: "Item that is clicked", action: "Click",
    choose: (item) => { state.clicked = item; again(); },
  });
  const types = (release.event_types ?? []).filter(({ name }) => name);
  const select = types.length > 1 && h("select", {
    onchange: (event) => { state.type = event.target.value; if (state.clicked) again(); },
  }, types.map(({ name, negative }) => h(
    "option", { value: name, selected: name === state.type }, negative ? `${name} (negative)` : name,
  )));
  if (select && !state.type) state.type = types.find(({ target }) => target)?.name ?? types[0].name;
  if (select) select.value = state.type;
  return h(
    "div", { class: "stack chooser" },
    state.clicked && h("p", {}, "Clicked: ", itemLink(state.clicked.id, state.clicked.title)),
    found.element,
    select && field("Kind of event", select),
  );
}

async function live({ user, settings, shared, signal }) {
  const body = { user_id: user.id, ...asRequest(settings) };
  const [cached, now] = await Promise.all([
    send("/recommend", body, { signal }), answered({ ...body, use_cache: false }, signal),
  ]);
  announce("The stored list beside a live answer");
  return [
    cached.source !== "batch" && h("p", { class: "warning" },
      `No stored list was served here: the answer is ${sourceWords(cached)}.`),
    sideBySide(
      { title: "As served", note: sourceWords(cached), rows: cached.recommendations },
      { title: "Live", note: sourceWords(now), rows: now.recommendations },
      { ...shared, reasons: now.reasons },
    ),
  ];
}

async function beside({ user, settings, state, shared, signal, again }) {
  const { releases } = await studio("releases", {}, { signal });
  const others = releases.filter(({ serving, whole: complete }) => !serving && complete !== false);
  if (others.length === 0) {
    return empty("There is no other release to compare with.",
      ["After a second ", h("code", {}, "shortlist batch run"), " the one before stands here."]);
  }
  state.other ??= (others.find(({ canary }) => canary) ?? others[0]).version;
  const select = h("select", {
    onchange: () => { state.other = select.value; again(); },
  }, others.map(({ version, canary, previous, created_at: at }) => h(
    "option", { value: version, selected: version === state.other },
    `${version}${canary ? " (canary)" : previous ? " (before)" : ""}, ${format.date(at)}`,
  )));
  select.value = state.other;
  const both = await studio(
    "compare", { user: user.id, with: state.other, k: settings.k }, { signal },
  );
  announce("The serving release beside the other");
  const reasons = new Map(
    [...both.serving, ...both.other].map((row) => [row.item_id, row.reason]),
  );
  return [
    field("Other release", select, "Both are computed live; only the length is adjusted here."),
    sideBySide(
      { title: "Serving release", rows: both.serving },
      { title: "Other release", note: state.other, rows: both.other },
      { ...shared, reasons },
    ),
  ];
}

const HOLD_OUT = "For the report, each user's latest events were hidden while the model learnt. "
  + "A hit is a hidden item that the model had recommended among the first ten.";

function heldOut(user) {
  const box = h("section", { class: "card stack", "aria-label": "The hold-out" },
    h("h2", {}, term("The hold-out", HOLD_OUT)));
  if (!user.held_out || user.held_out.length === 0) {
    box.append(h("p", { class: "note" }, "Nothing of this user was held out: they are too new, "
      + "had too little, or are not among the users that the release keeps for the studio."));
    return box;
  }
  const hits = user.held_out.filter(({ hit }) => hit).length;
  const hidden = new Set(user.held_out.map(({ item_id: item }) => item));
  box.append(
    h("p", {}, `${format.counted(user.held_out.length, "event")} of this user `
      + `${user.held_out.length === 1 ? "was" : "were"} hidden; the list of then had ${hits} of them.`),
    h(
      "div", { class: "pair" },
      h("div", {}, h("h3", {}, "Hidden"), h("ul", { class: "plain-list" }, user.held_out.map((item) => h(
        "li", {}, h("span", {}, itemLink(item.item_id, item.title)),
        h("span", { class: item.hit ? "tag good" : "tag" },
          item.hit ? `hit, place ${item.rank}` : item.rank ? `place ${item.rank}` : "not in the list"),
      )))),
      h("div", {}, h("h3", {}, "Recommended then"), h("ol", { class: "plain-list" },
        (user.holdout_list ?? []).map((item, place) => h(
          "li", {}, h("span", {}, `${place + 1}. `, itemLink(item.item_id, item.title)),
          hidden.has(item.item_id) && h("span", { class: "tag good" }, "hit"),
        )))),
    ),
  );
  return box;
}
