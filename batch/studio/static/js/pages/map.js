// A map of the catalogue on canvas: items as points, with an item, a user and their list drawn in.

import { send, studio } from "../api.js";
import { COLOURS, QUIET } from "../charts.js";
import { announce, fill, h } from "../dom.js";
import * as format from "../format.js";
import { failure, field, itemLink, later, load, loading, table } from "../parts.js";

const POINTS = 5000;
const RADIUS = 2.6;
const NEAR = 14;
const MARGIN = 24;
const HISTORY = 60;
const LISTED = 10;
const ZOOM = [0.8, 40];

const ROLES = {
  chosen: "the chosen item", similar: "like the chosen item", history: "in the user's history",
  list: "in the user's list, with its place",
};

/**
 * The map's card: {element, choose, leave}.
 *
 * open: called with the id of a point that was clicked; choose(id, similar): marks an item and
 * those like it.
 */
export function catalogueMap(context, open) {
  const body = h("div", { class: "stack" });
  const element = h("section", { class: "card stack map-card", "aria-label": "Map of the catalogue" },
    h("h2", {}, "Map of the catalogue"), body);
  let drawn = null;
  let wanted = [null, []];
  load(body, async () => {
    const [map, release] = await Promise.all([studio("map", { limit: POINTS }), context.overview()]);
    if (map.points.length === 0) {
      return later("This release has no map.");
    }
    drawn = mapOf(map, release, open);
    drawn.choose(...wanted);
    return drawn.nodes;
  }, "Loading the map …");
  return {
    element,
    choose: (id, similar) => {
      wanted = [id, similar];
      drawn?.choose(id, similar);
    },
    leave: () => drawn?.leave(),
  };
}

function mapOf(map, release, open) {
  const points = new Map(map.points.map((point) => [point.id, point]));
  const named = release.categories.slice(0, COLOURS.length);
  const state = { marked: new Map(), only: null, transform: window.d3.zoomIdentity, hover: null };
  const surface = canvasOf([...map.points], state, named, open);
  const legend = legendOf(named, map.points, state, surface.redraw);
  const marks = h("div");
  const roles = { chosen: null, similar: [], history: [], list: [] };

  /** Adds items that are less popular than those of the map. */
  const bring = async (ids) => {
    if (ids.length === 0) return;
    const more = await studio("map", { limit: 1, also: ids });
    const added = more.points.filter(({ id }) => !points.has(id));
    for (const point of added) points.set(point.id, point);
    surface.add(added);
  };
  const mark = async () => {
    const pairs = [
      ...roles.history.map((id) => [id, { role: "history" }]),
      ...roles.similar.map((id) => [id, { role: "similar" }]),
      ...roles.list.map((id, place) => [id, { role: "list", rank: place + 1 }]),
      ...(roles.chosen ? [[roles.chosen, { role: "chosen" }]] : []),
    ];
    await bring(pairs.map(([id]) => id).filter((id) => !points.has(id)));
    state.marked = new Map(pairs.filter(([id]) => points.has(id)));
    fill(marks, state.marked.size > 0 && markedTable(state.marked, points));
    surface.redraw();
  };
  const drawUser = async (id) => {
    if (id === "") {
      [roles.history, roles.list] = [[], []];
      await mark();
      return null;
    }
    const [user, answer] = await Promise.all([
      studio("user", { id }), send("/recommend", { user_id: id, k: LISTED }),
    ]);
    const latest = [...user.history].filter(({ negative }) => !negative)
      .sort((one, other) => other.time - one.time).slice(0, HISTORY);
    roles.history = [...new Set(latest.map(({ item_id: item }) => item))];
    roles.list = answer.recommendations.map(({ item_id: item }) => item);
    await mark();
    announce(`History and list of user ${id} drawn in`);
    return user.known ? null : "Nothing is stored of this id: the list is of popular items.";
  };
  const nodes = [
    h("p", { class: "note" },
      `${format.counted(map.points.length, "item")} of ${format.count(map.total)}. Items that the model `
      + "finds alike lie near each other. Two of the vectors' many dimensions are shown"
      + `${map.explained === null ? "" : `, ${format.percent(map.explained, 0)} of all their spread`}, `
      + "so some that look near are not."),
    h("div", { class: "map-tools" }, userField(drawUser), surface.buttons),
    legend,
    keys(),
    surface.element,
    h("p", { class: "note" }, "Click a point to open it. Drag to move; zoom with the buttons, with "
      + "Ctrl and the wheel, or with two fingers. With the keyboard: arrows, plus and minus."),
    marks,
  ];
  return {
    nodes,
    choose: (id, similar) => {
      [roles.chosen, roles.similar] = [id, similar];
      mark().catch((error) => announce(error.message));
    },
    leave: surface.leave,
  };
}

/** A field that draws a user's history and list in; draw: gives what to say of it, or null. */
function userField(draw) {
  const problem = h("div");
  const input = h("input", { type: "search", autocomplete: "off", placeholder: "id of a user" });
  const run = async () => {
    fill(problem, input.value.trim() && loading("Asking …"));
    try {
      const note = await draw(input.value.trim());
      fill(problem, note && h("p", { class: "note" }, note));
    } catch (error) {
      fill(problem, failure(error));
    }
  };
  input.addEventListener("keydown", (event) => { if (event.key === "Enter") run(); });
  input.addEventListener("search", () => { if (input.value === "") run(); });
  const label = field("Draw a user in", input);
  label.append(problem);
  return h("div", { class: "row" }, label,
    h("button", { type: "button", onclick: run }, "Draw"),
    h("button", { type: "button", onclick: () => { input.value = ""; run(); } }, "Clear"));
}

/** Categories as buttons: one that is pressed leaves its items alone in colour. */
function legendOf(named, points, state, redraw) {
  const more = points.some(({ category }) => !named.includes(category));
  const buttons = named.map((name, place) => {
    const swatch = h("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.setProperty("background", COLOURS[place]);
    return h("button", {
      type: "button", class: "small", "aria-pressed": "false",
      onclick: (event) => {
        state.only = state.only === name ? null : name;
        for (const each of buttons) {
          each.setAttribute("aria-pressed", String(each === event.currentTarget && state.only !== null));
        }
        redraw();
      },
    }, swatch, name);
  });
  const rest = h("span", { class: "swatch", "aria-hidden": "true" });
  rest.style.setProperty("background", QUIET);
  return h("div", {
    class: "legend map-legend", role: "group", "aria-label": "Show one category alone",
  }, buttons, more && h("span", { class: "row note" }, rest, "others"));
}

/** What the marks mean. */
const keys = () => h("ul", { class: "legend note" }, Object.entries(ROLES).map(([role, words]) =>
  h("li", {}, h("span", { class: `key ${role}`, "aria-hidden": "true" }, role === "list" ? "1" : ""), words)));

function markedTable(marked, points) {
  const rows = [...marked].map(([id, { role, rank }]) => ({ ...points.get(id), role, rank }));
  return h("details", { class: "as-table" },
    h("summary", {}, `Show the ${format.counted(rows.length, "marked item")} as a table`),
    table({
      caption: "Items marked on the map", unseen: true, rows,
      columns: [
        { name: "title", label: "Item", show: ({ id, title }) => itemLink(id, title) },
        { name: "category", label: "Category" },
        { name: "role", label: "Marked as", show: ({ role, rank }) => (rank ? `place ${rank} of the list` : ROLES[role]) },
      ],
    }));
}

/** The canvas with its zoom, its pointer and its keys. */
function canvasOf(points, state, named, open) {
  const { d3 } = window;
  const canvas = h("canvas", {
    tabindex: "0", role: "img",
    "aria-label": "Map of the catalogue; the marked items are in the table below it",
  });
  const tip = h("div", { class: "map-tip", hidden: true });
  const element = h("div", { class: "map" }, canvas, tip);
  const size = { width: 0, height: 0 };
  const x = d3.scaleLinear(d3.extent(points, (point) => point.x), [0, 1]);
  const y = d3.scaleLinear(d3.extent(points, (point) => point.y), [1, 0]);
  let tree = null;

  const layOut = () => {
    x.range([MARGIN, size.width - MARGIN]);
    y.range([size.height - MARGIN, MARGIN]);
    tree = d3.quadtree(points, (point) => x(point.x), (point) => y(point.y));
  };
  let waiting = 0;
  const redraw = () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => paint(canvas, size, points, { x, y }, state, named));
  };
  const watch = new ResizeObserver(([entry]) => {
    const width = Math.floor(entry.contentRect.width);
    if (width === 0 || width === size.width) return;
    [size.width, size.height] = [width, Math.min(520, Math.max(300, Math.round(0.62 * width)))];
    const scale = window.devicePixelRatio || 1;
    [canvas.width, canvas.height] = [size.width * scale, size.height * scale];
    canvas.style.setProperty("height", `${size.height}px`);
    layOut();
    redraw();
  });
  watch.observe(element);

  const zoom = d3.zoom().scaleExtent(ZOOM)
    // The page must still scroll: a wheel alone and one finger are the page's.
    .filter((event) => (event.type === "wheel" ? event.ctrlKey || event.metaKey
      : event.type.startsWith("touch") ? event.touches.length > 1 : event.button === 0))
    .on("zoom", ({ transform }) => {
      state.transform = transform;
      redraw();
    });
  const selection = d3.select(canvas).call(zoom).on("dblclick.zoom", null);
  canvas.style.setProperty("touch-action", "pan-y");

  const nearest = (event) => {
    if (!tree) return null;
    const [left, top] = state.transform.invert(d3.pointer(event, canvas));
    return tree.find(left, top, NEAR / state.transform.k) ?? null;
  };
  canvas.addEventListener("pointermove", (event) => {
    const point = nearest(event);
    canvas.classList.toggle("over", point !== null);
    if (point === state.hover) return;
    state.hover = point;
    showTip(tip, point, state, { x, y }, size);
    redraw();
  });
  canvas.addEventListener("pointerleave", () => {
    state.hover = null;
    tip.hidden = true;
    redraw();
  });
  canvas.addEventListener("click", (event) => {
    const point = nearest(event);
    if (point) open(point.id);
  });
  const zoomBy = (factor) => selection.call(zoom.scaleBy, factor);
  const reset = () => selection.call(zoom.transform, d3.zoomIdentity);
  canvas.addEventListener("keydown", (event) => {
    const step = 40 / state.transform.k;
    const actions = {
      "+": () => zoomBy(1.4), "-": () => zoomBy(1 / 1.4), 0: reset,
      ArrowLeft: () => selection.call(zoom.translateBy, step, 0),
      ArrowRight: () => selection.call(zoom.translateBy, -step, 0),
      ArrowUp: () => selection.call(zoom.translateBy, 0, step),
      ArrowDown: () => selection.call(zoom.translateBy, 0, -step),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  });
  const button = (words, label, act) => h(
    "button", { type: "button", "aria-label": label, onclick: act }, words,
  );
  const buttons = h("div", { class: "row" }, button("+", "Zoom in", () => zoomBy(1.6)),
    button("−", "Zoom out", () => zoomBy(1 / 1.6)), button("Reset", "Show the whole map", reset));
  const themes = window.matchMedia("(prefers-color-scheme: dark)");
  themes.addEventListener("change", redraw);
  window.addEventListener("themechange", redraw);
  const leave = () => {
    watch.disconnect();
    themes.removeEventListener("change", redraw);
    window.removeEventListener("themechange", redraw);
  };
  const add = (more) => {
    points.push(...more);
    if (size.width > 0) layOut();
  };
  return { element, buttons, redraw, add, leave };
}

function showTip(tip, point, state, { x, y }, size) {
  tip.hidden = point === null;
  if (point === null) return;
  const role = state.marked.get(point.id);
  fill(tip, h("strong", {}, point.title || point.id), h("span", {}, point.category ?? "no category"),
    h("span", {}, format.counted(point.n_events, "event")),
    role && h("span", {}, role.rank ? `place ${role.rank} of the list` : ROLES[role.role]));
  const [left, top] = state.transform.apply([x(point.x), y(point.y)]);
  tip.style.setProperty("left", `${Math.min(Math.max(left, 70), size.width - 70)}px`);
  tip.style.setProperty("top", `${top}px`);
  tip.classList.toggle("below", top < 90);
}

function paint(canvas, size, points, { x, y }, state, named) {
  const context = canvas.getContext("2d");
  const scale = window.devicePixelRatio || 1;
  const style = getComputedStyle(canvas);
  const resolved = (colour) => style.getPropertyValue(colour.slice(4, -1)).trim();
  const [series, rest] = [COLOURS.map(resolved), resolved(QUIET)];
  const [ink, ground] = [resolved("var(--ink)"), resolved("var(--card)")];
  const colour = ({ category }) => series[named.indexOf(category)] ?? rest;
  const at = (point) => state.transform.apply([x(point.x), y(point.y)]);
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, size.width, size.height);
  const dimmed = state.marked.size > 0;
  const radius = RADIUS * Math.min(3, Math.max(1, Math.sqrt(state.transform.k)))
    * (points.length < 1500 ? 1.3 : 1);
  for (const point of points) {
    const hidden = state.only !== null && point.category !== state.only;
    context.globalAlpha = hidden ? 0.06 : dimmed ? 0.4 : 0.75;
    disc(context, at(point), radius, colour(point));
  }
  context.globalAlpha = 1;
  const byId = new Map(points.map((point) => [point.id, point]));
  for (const [id, mark] of state.marked) {
    const point = byId.get(id);
    MARKS[mark.role](context, at(point), { colour: colour(point), ink, ground, rank: mark.rank });
  }
  if (state.hover) ring(context, at(state.hover), radius + 4, ink, 2);
}

const MARKS = {
  history: (context, place, { colour, ink }) => {
    disc(context, place, 5, colour);
    ring(context, place, 5, ink, 1.2);
  },
  similar: (context, place, { colour, ink }) => {
    square(context, place, 5, colour);
    outline(context, ink);
  },
  list: (context, place, { ink, ground, rank }) => {
    disc(context, place, 9, ink);
    label(context, place, String(rank), ground);
  },
  chosen: (context, place, { colour, ink }) => {
    disc(context, place, 6, colour);
    ring(context, place, 10, ink, 2.5);
  },
};

function disc(context, [left, top], radius, colour) {
  context.beginPath();
  context.arc(left, top, radius, 0, 2 * Math.PI);
  context.fillStyle = colour;
  context.fill();
}

function ring(context, [left, top], radius, colour, width) {
  context.beginPath();
  context.arc(left, top, radius, 0, 2 * Math.PI);
  context.lineWidth = width;
  context.strokeStyle = colour;
  context.stroke();
}

function square(context, [left, top], half, colour) {
  context.beginPath();
  context.rect(left - half, top - half, 2 * half, 2 * half);
  context.fillStyle = colour;
  context.fill();
}

function outline(context, colour) {
  context.lineWidth = 1.2;
  context.strokeStyle = colour;
  context.stroke();
}

function label(context, [left, top], words, colour) {
  context.font = "600 10px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillStyle = colour;
  context.fillText(words, left, top + 0.5);
}
