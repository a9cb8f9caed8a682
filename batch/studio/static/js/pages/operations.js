// How the service runs, and what an operator may change: releases, canary, blocked items, rules.

import { get, hasAdminKey, send, setAdminKey, studio } from "../api.js";
import { contents, wide } from "../contents.js";
import { announce, fill, h, settled } from "../dom.js";
import * as format from "../format.js";
import {
  confirmed, empty, failure, field, itemLink, loading, section, table, tags,
} from "../parts.js";
import { degradations, latencies, stateTiles } from "./operations_state.js";
import { rolesOf } from "./report_releases.js";

export const title = "Operations";

const { d3 } = window;

const REFRESH_SECONDS = 10;
const NO_RULES = { availability: [], pin: [], boost: [], bury: [], limit: [] };
const RULES_EXAMPLE = `{"pin": [{"name": "gift card", "item": "9001", "place": 3}],
 "bury": [{"name": "clearance", "category": "Clearance"}],
 "limit": [{"attribute": "brand", "at_most": 3}]}`;
/** Shows the page below `root`. */
export function mount(root, context) {
  const page = new Page(context);
  fill(root, h("h1", {}, "Operations"), page.body);
  page.reload();
  return { update() {}, leave: () => page.leave() };
}

/** The page's parts, which an action or the clock loads again. */
class Page {
  constructor(context) {
    this.context = context;
    this.state = h("div", { class: "stack" }, loading());
    this.releases = h("div", { class: "stack" }, loading());
    this.blocked = h("div", { class: "stack" }, loading());
    this.rules = h("div", { class: "stack" });
    this.traffic = h("div", { class: "stack" }, loading());
    this.updated = h("span", { class: "note" });
    this.timer = null;
    this.shownRules = null;
    this.body = h("div", { class: "stack" }, contents([
      wide(section("State", null, this.refreshing(), this.state)),
      section("Answers", "Counted by this server since it started; a fleet's figures are in its "
        + "own "
        + "monitoring.", this.traffic),
      this.keySection(),
      wide(section("Releases", "One pointer says which release serves. A flip takes effect "
        + "within seconds "
        + "and loses nothing: the lists of both releases stay in Redis.", this.releases)),
      section("Blocked items", "A blocked item leaves every answer at once, whatever the rules "
        + "say. "
        + "Blocks outlive releases.", this.blockForm(), this.blocked),
      section("Business rules", h("span", {}, "They move items in every answer, whatever its "
        + "source. One "
        + "set holds for all releases."), this.rules),
    ]));
    this.showRules();
  }

  refreshing() {
    const live = h("input", {
      type: "checkbox", id: "refresh-live", onchange: () => this.tick(live.checked),
    });
    return h(
      "div", { class: "row" },
      h("button", { type: "button", onclick: () => this.reload() }, "Refresh"),
      h("label", { for: live.id, class: "row" }, live, `Every ${REFRESH_SECONDS} seconds`),
      this.updated,
    );
  }

  tick(on) {
    clearInterval(this.timer);
    this.timer = on ? setInterval(() => this.reload(), 1000 * REFRESH_SECONDS) : null;
    announce(on ? `Refreshes every ${REFRESH_SECONDS} seconds` : "No longer refreshes by itself");
  }

  leave() {
    clearInterval(this.timer);
  }

  /** Asks for everything again; what an operator is typing stays. */
  async reload() {
    const [operations, releases] = await Promise.allSettled([
      studio("operations", {}, { admin: true }), studio("releases"),
    ]);
    const again = () => this.reload();
    if (operations.status === "fulfilled") {
      fill(this.state, stateTiles(operations.value));
      fill(this.traffic, latencies(operations.value), degradations(operations.value));
      fill(this.blocked, this.blockedTable(operations.value.blocked ?? []));
    } else {
      for (const box of [this.state, this.traffic, this.blocked]) {
        fill(box, failure(operations.reason, again));
      }
    }
    fill(this.releases, releases.status === "fulfilled" ? this.releaseTable(releases.value.releases)
      : failure(releases.reason, again));
    this.updated.textContent = `as of ${new Date().toLocaleTimeString("en-GB")}`;
  }

  keySection() {
    const input = h("input", { type: "password", autocomplete: "off", name: "admin-key" });
    const said = h("p", { class: "note", role: "status" });
    const show = () => {
      said.textContent = hasAdminKey()
        ? "A key is kept in this page's memory; it is gone when the page is closed or reloaded."
        : "Without a key the page shows everything and changes nothing.";
      forget.hidden = !hasAdminKey();
    };
    const forget = h("button", {
      type: "button",
      onclick: () => { setAdminKey(""); input.value = ""; show(); this.showRules(); },
    }, "Forget the key");
    const form = h(
      "form", {
        onsubmit: async (event) => {
          event.preventDefault();
          setAdminKey(input.value);
          input.value = "";
          await this.tryKey(said, show);
        },
      },
      field("Admin key", input, h("span", {}, "The server's ", h("code", {}, "SHORTLIST_ADMIN_KEY"),
        ". This page alone sends it.")),
      h("div", { class: "row" }, h("button", { class: "primary" }, "Use the key"), forget),
    );
    form.classList.add("stack");
    show();
    return section("Changes", "Promote, roll back, canary, block and rules need the admin key; "
      + "each asks "
      + "before it changes what is served.", form, said);
  }

  async tryKey(said, show) {
    try {
      await get("/v1/releases", {}, { admin: true });
      show();
    } catch (error) {
      setAdminKey("");
      show();
      said.textContent = error.message;
      return;
    }
    announce("The key is right");
    this.showRules();
  }

  releaseTable(releases) {
    if (!releases || releases.length === 0) {
      return empty("No release was published yet.", h("code", {}, "shortlist batch run"));
    }
    const serving = releases.find((release) => release.serving);
    const previous = releases.find((release) => release.previous);
    const canary = releases.find((release) => release.canary);
    return [
      h(
        "div", { class: "row" },
        h("button", { type: "button", class: "danger", disabled: !previous,
          onclick: () => this.rollback(serving, previous) }, "Roll back"),
        canary && h("button", { type: "button", onclick: () => this.endCanary(canary) },
          "End the canary"),
        h("span", { class: "note" }, previous ? `A rollback serves ${previous.version} again.`
          : "There is no release before this one to roll back to."),
      ),
      table({
        caption: "Published releases, the newest first",
        columns: [
          { label: "Release", show: (row) => h("div", { class: "stack" },
            h("div", { class: "row" },
              h("code", { class: "nowrap" }, row.version), tags(rolesOf(row))),
            this.releaseActions(row)) },
          { label: "Made",
            show: (row) => h("span", { class: "nowrap" }, format.time(row.created_at)) },
          { label: "NDCG@10", number: true, show: (row) => format.decimal(row.headline?.value) },
          { label: "Batch took", number: true, show: (row) => format.duration(row.seconds) },
        ],
        rows: d3.sort(releases, (a, b) => b.created_at - a.created_at),
      }),
    ];
  }

  releaseActions(release) {
    if (release.serving) return null;
    if (release.whole === false) {
      return h("span", { class: "note" }, release.fault
        ?? "its lists expired: only a batch run brings it back");
    }
    const percent = h("input", {
      type: "number", min: 1, max: 100, step: "any", value: release.canary?.percent ?? 5,
      class: "percent", "aria-label": `Percent of the users for ${release.version}`,
    });
    return h(
      "div", { class: "row tight" },
      h("button", { type: "button", class: "small", onclick: () => this.promote(release) },
        "Promote", h("span", { class: "unseen" }, ` ${release.version}`)),
      h("form", {
        class: "row tight",
        onsubmit: (event) => {
          event.preventDefault();
          this.canary(release, Number(percent.value));
        },
      }, percent, "%", h("button", { class: "small" }, "Canary",
        h("span", { class: "unseen" }, ` ${release.version}`))),
    );
  }

  promote(release) {
    return this.change({
      title: "Serve everybody from another release?",
      body: h("p", {}, h("code", {}, release.version), " serves everybody within seconds. A "
        + "canary ends. A "
        + "rollback goes back."),
      action: "Promote",
      path: `/v1/releases/${encodeURIComponent(release.version)}/promote`,
      done: (pointer) => `${pointer.current} serves`,
    });
  }

  rollback(serving, previous) {
    return this.change({
      title: "Roll back?",
      body: h("p", {}, h("code", {}, previous.version), " serves everybody again, in place of ",
        h("code", {}, serving.version), ". A canary ends."),
      action: "Roll back", danger: true,
      path: "/v1/releases/rollback",
      done: (pointer) => `${pointer.current} serves again`,
    });
  }

  canary(release, percent) {
    return this.change({
      title: "Start a canary?",
      body: h("p", {},
        `${format.short(percent)}% of the users, always the same ones, are served from `,
        h("code", {}, release.version), "; all others stay."),
      action: "Start",
      path: `/v1/releases/${encodeURIComponent(release.version)}/canary`, content: { percent },
      done: () => `${release.version} serves ${format.short(percent)}% of the users`,
    });
  }

  endCanary(release) {
    return this.change({
      title: "End the canary?",
      body: h("p", {}, "Everybody is served from the serving release again; ",
        h("code", {}, release.version), " stays for later."),
      action: "End it",
      path: `/v1/releases/${encodeURIComponent(release.version)}/canary`, content: { percent: 0 },
      done: () => "The canary is ended",
    });
  }

  blockForm() {
    const input = h("input", {
      type: "search", placeholder: "Title or id", autocomplete: "off", name: "block-search",
    });
    const found = h("ul", { class: "found" });
    let asked = 0;
    const search = settled(async () => {
      const mine = (asked += 1);
      if (input.value.trim() === "") return fill(found);
      try {
        const { items } = await studio("items", { q: input.value, limit: 8 });
        if (mine !== asked) return undefined;
        announce(`${format.counted(items.length, "item")} found`);
        return fill(found, items.length === 0 ? h("li", { class: "note" }, "No such item.")
          : items.map((item) => h("li", { class: "row" }, itemLink(item.id, item.title),
            h("code", {}, item.id),
            h("button", { type: "button", class: "small", onclick: () => this.block(item) },
              "Block",
              h("span", { class: "unseen" }, ` ${item.title || item.id}`)))));
      } catch (error) {
        return fill(found, h("li", {}, failure(error)));
      }
    });
    input.addEventListener("input", search);
    return h("div", { class: "stack" }, field("Find an item to block", input), found);
  }

  blockedTable(blocked) {
    const rows = blocked.map((each) => (typeof each === "string" ? { id: each } : each));
    if (rows.length === 0) return empty("No item is blocked.");
    return table({
      caption: format.counted(rows.length, "blocked item"),
      columns: [
        { label: "Item", show: ({ id, title: name }) => itemLink(id, name) },
        { label: "Id", show: ({ id }) => h("code", {}, id) },
        { label: "", show: (item) => h("button", {
          type: "button", class: "small", onclick: () => this.unblock(item),
        }, "Unblock", h("span", { class: "unseen" }, ` ${item.title || item.id}`)) },
      ],
      rows,
    });
  }

  block(item) {
    return this.change({
      title: "Block an item?",
      body: h("p", {}, h("strong", {}, item.title || item.id), " is no longer in any answer, "
        + "until it is "
        + "unblocked."),
      action: "Block", danger: true, path: "/v1/item/block", content: { item_id: item.id },
      done: () => `${item.title || item.id} is blocked`,
    });
  }

  unblock(item) {
    return this.change({
      title: "Unblock an item?",
      body: h("p", {}, h("strong", {}, item.title || item.id), " may be in answers again."),
      action: "Unblock", path: "/v1/item/unblock", content: { item_id: item.id },
      done: () => `${item.title || item.id} is no longer blocked`,
    });
  }

  /** Shows the rules' editor, or that it needs the key. */
  async showRules() {
    if (!hasAdminKey()) {
      fill(this.rules, empty("The rules are shown with the admin key.", "Give it under Changes."));
      return;
    }
    fill(this.rules, loading());
    try {
      const stored = await get("/v1/admin/rules", {}, { admin: true });
      fill(this.rules, this.rulesForm(stored));
    } catch (error) {
      fill(this.rules, failure(error, () => this.showRules()));
    }
  }

  rulesForm(stored) {
    const known = { ...NO_RULES, ...stored.rules };
    const text = h("textarea", {
      rows: 14, spellcheck: "false", name: "rules", value: JSON.stringify(known, null, 2),
    });
    const said = h("p", { class: "warning", role: "alert", hidden: true });
    const tell = (words) => { said.textContent = words; said.hidden = words === ""; };
    const save = async (event) => {
      event.preventDefault();
      tell("");
      let rules;
      try {
        rules = JSON.parse(text.value);
      } catch (error) {
        tell(`This is not JSON: ${error.message}. Correct it, then save.`);
        return;
      }
      await this.change({
        title: "Replace the business rules?",
        body: changesOf(known, rules),
        action: "Save", path: "/v1/admin/rules", method: "PUT",
        content: { version: stored.version, rules },
        done: (answer) => `The rules hold now, as version ${answer.version}`,
        refused: (error) => tell(error.message),
      });
    };
    return h(
      "form", { class: "stack", onsubmit: save },
      h("p", { class: "note" }, stored.version === 0 ? "There are no rules yet."
        : `Version ${stored.version}, put by ${stored.by || "an operator"}${stored.at
          ? ` on ${format.time(stored.at)}` : ""}.`),
      (stored.notes ?? []).map((note) => h("p", { class: "warning" }, note)),
      field("Rules as JSON", text, "Kinds: availability, pin, boost, bury, limit."),
      h("details", {}, h("summary", {}, "An example"), h("pre", {}, RULES_EXAMPLE)),
      h("div", { class: "row" }, h("button", { class: "primary" }, "Save the rules"),
        h("button", { type: "button", onclick: () => this.showRules() }, "Read them again")),
      said,
    );
  }

  /**
   * Asks, sends with the admin key, says what happened, and shows everything again.
   *
   * done: the words for the answer; refused: takes an error instead of the dialog that shows it.
   */
  async change({
    title: asked, body, action, danger, path, content = {}, method = "POST", done, refused,
  }) {
    if (!hasAdminKey()) {
      document.querySelector("[name=admin-key]").focus();
      announce("Give the admin key first");
      await told("The admin key is missing", "Give it under Changes: without it nothing can be "
        + "changed.");
      return;
    }
    if (!(await confirmed({ title: asked, body, action, danger }))) return;
    try {
      const answer = await send(path, content, { method, admin: true });
      announce(done(answer));
      await Promise.all([this.reload(), this.context.refresh(), this.showRules()]);
    } catch (error) {
      if (refused) refused(error);
      else await told("Nothing was changed", error.message);
    }
  }
}

/** A dialog that only tells. */
function told(heading, words) {
  return confirmed({ title: heading, body: h("p", {}, words), action: "Understood" });
}

/** What a save adds and removes, kind by kind. */
function changesOf(before, after) {
  const kinds = [...new Set([...Object.keys(before), ...Object.keys(after ?? {})])];
  const textsOf = (rules, kind) =>
    (Array.isArray(rules?.[kind]) ? rules[kind] : []).map((rule) => JSON.stringify(rule));
  const lines = kinds.flatMap((kind) => {
    const [old, now] = [textsOf(before, kind), textsOf(after, kind)];
    return [
      ...now.filter((rule) => !old.includes(rule)).map((rule) => ["adds", kind, rule]),
      ...old.filter((rule) => !now.includes(rule)).map((rule) => ["removes", kind, rule]),
    ];
  });
  if (lines.length === 0) return h("p", {}, "Nothing changes but the order of the rules.");
  return h("ul", { class: "stack" }, lines.map(([verb, kind, rule]) =>
    h("li", {}, h("span", { class: `tag ${verb === "adds" ? "good" : "bad"}` }, verb), ` ${kind} `,
      h("code", {}, rule))));
}
