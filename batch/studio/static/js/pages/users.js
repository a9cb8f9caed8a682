// The Users page: find a user, see what they did and what they are offered, and why.

import { latest, studio } from "../api.js";
import { announce, fill, h, settled } from "../dom.js";
import * as format from "../format.js";
import { choice, empty, field, load } from "../parts.js";
import { freshUser } from "./fresh_user.js";
import { oneUser } from "./one_user.js";

export const title = "Users";

const PICKS = [
  { value: "heavy", label: "heavy", title: "Most events" },
  { value: "light", label: "light", title: "Fewest events" },
  { value: "new", label: "new", title: "First seen latest" },
  { value: "worst", label: "worst served", title: "Lowest NDCG@10 in the hold-out" },
  { value: "best", label: "best served", title: "Highest NDCG@10 in the hold-out" },
  { value: "random", label: "random", title: "Another draw at each click" },
];

const NARROW = window.matchMedia("(max-width: 699px)");

export function mount(root, context) {
  const view = h("div", { class: "view" });
  const finder = userFinder((id) => context.go("users", { id }));
  const fresh = h("a", { class: "button primary", href: "#/users?fresh=1" }, "Try as a fresh user");
  fill(root, h("h1", { class: "unseen" }, "Users"), h(
    "div", { class: "split" },
    h("aside", { class: "card stack", "aria-label": "Find a user" }, fresh, finder.element),
    view,
  ));
  let current = {};
  let shownBefore = false;
  const show = (parameters) => {
    current.leave?.();
    current = {};
    if (parameters.fresh) current = freshUser(view, context);
    else if (parameters.id) current = oneUser(view, context, parameters.id);
    else fill(view, h("div", { class: "card" }, empty(
      "Choose a user on the left, or try as a fresh one.",
      "You see what the user did, what is recommended and why, and what a click would change.",
    )));
    finder.mark(parameters.id);
    fresh.toggleAttribute("hidden", Boolean(parameters.fresh));
    // On a phone the user stands below the search: a choice goes there.
    if (shownBefore && NARROW.matches) view.scrollIntoView();
    shownBefore = Boolean(parameters.id || parameters.fresh);
  };
  return {
    update: async (parameters) => {
      show(parameters);
      if (parameters.id || parameters.fresh) return;
      const first = await finder.first;
      if (first && location.hash.replace(/^#\/?/, "").match(/^(users)?$/)) {
        // In the place of this address: the browser's way back must not end here again.
        location.replace(`#/users?id=${encodeURIComponent(first)}`);
      }
    },
    leave: () => current.leave?.(),
  };
}

/** The search, the picks and their results; `open` is called with the id of a chosen user. */
function userFinder(open) {
  const results = h("div", { class: "results" });
  const only = latest();
  const state = { q: "", pick: "heavy" };
  const find = () => load(results, () => only(async (signal) => {
    const found = await studio("users", { ...state, limit: 50 }, { signal });
    announce(`${format.counted(found.total, "user")} found`);
    return listed(found, state);
  }), "Looking for users …").then(() => mark(marked));
  const search = h("input", {
    type: "search", autocomplete: "off", spellcheck: "false", placeholder: "part of an id",
    oninput: settled(() => { state.q = search.value.trim(); find(); }),
    onkeydown: (event) => {
      if (event.key === "Enter" && search.value.trim()) open(search.value.trim());
    },
  });
  const picks = choice({
    label: "Or pick", options: PICKS, value: state.pick,
    change: (value) => { state.pick = value; find(); },
  });
  picks.addEventListener("click", (event) => {
    // A chosen radio button does not change again: the draw does.
    if (event.target.value === "random" && state.pick === "random") find();
  });
  let marked = null;
  const mark = (id) => {
    marked = id;
    for (const link of results.querySelectorAll("a")) {
      if (link.dataset.user === id) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };
  const first = find().then(() => results.querySelector("a")?.dataset.user);
  const element = h(
    "div", { class: "stack" }, field("Search users", search, "Enter opens the exact id."), picks, results,
  );
  return { element, mark, first };
}

function listed({ users, total, sampled }, { q }) {
  if (users.length === 0) {
    return empty(q ? `No user's id contains “${q}”.` : "There are no users to pick.",
      q ? "Press Enter to open the id all the same: it may be newer than the release." : null);
  }
  return [
    h("p", { class: "note" }, `${format.count(users.length)} of ${format.counted(total, "user")}`
      + (sampled ? ", a sample of all" : "")),
    h("ul", { class: "picker" }, users.map((user) => h("li", {}, h(
      "a", { href: `#/users?id=${encodeURIComponent(user.id)}`, "data-user": user.id },
      h("span", { class: "id" }, user.id),
      h("span", { class: "note" }, facts(user)),
      user.hit !== null && h("span", { class: user.hit ? "tag good" : "tag" }, user.hit ? "hit" : "miss"),
    )))),
  ];
}

function facts({ n_events: events, last, ndcg }) {
  const served = ndcg === null ? "" : ` · NDCG ${format.decimal(ndcg, 2)}`;
  return `${format.counted(events, "event")} · last ${format.date(last)}${served}`;
}
