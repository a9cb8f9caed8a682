// Draws charts with Plot, each with a caption and a table of its data.

import { fill, h, newId } from "./dom.js";
import { table } from "./parts.js";

const { Plot } = window;

/** Colours of series, in order; they have the same meaning in both themes. */
export const COLOURS = [1, 2, 3, 4, 5, 6, 7, 8].map((number) => `var(--series-${number})`);

export const ACCENT = COLOURS[0];
export const QUIET = "var(--quiet-line)";

/** The colour of a name among names: the first eight have their own, the others are grey. */
export const colourOf = (names) => (name) => COLOURS[names.indexOf(name)] ?? QUIET;

/** Options of a colour scale for these names. */
export const colours = (names) => ({ domain: names, range: names.map(colourOf(names)) });

/**
 * A figure: a chart, its caption, and its data behind "Show as table".
 *
 * caption: one sentence that says what is seen, with units; draw: gives Plot's options for a width
 * in pixels; columns and rows: as `table` takes them; legend: names of series, coloured in order, or
 * a legend that `legendOf` made.
 */
export function chart({ caption, draw, columns, rows, legend, height }) {
  const id = newId("chart");
  const box = h("div", { class: "plot", role: "img", "aria-labelledby": id });
  let drawn = 0;
  const redraw = (width) => {
    if (width <= 0 || Math.abs(width - drawn) < 2) return;
    drawn = width;
    fill(box, plotted({ height, ...draw(width), width }));
  };
  new ResizeObserver(([entry]) => redraw(Math.floor(entry.contentRect.width))).observe(box);
  return h(
    "figure", { class: "chart" },
    h("figcaption", { id }, caption),
    legend instanceof Node ? legend : legend && legendOf(legend),
    box,
    columns && h(
      "details", { class: "as-table" },
      h("summary", {}, "Show as table"),
      table({ caption, columns, rows, unseen: true }),
    ),
  );
}

/** A legend of names, coloured in order. */
export function legendOf(names, colour = colourOf(names)) {
  return h("ul", { class: "legend" }, names.map((name) => {
    const swatch = h("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.setProperty("background", colour(name));
    return h("li", {}, swatch, name);
  }));
}

/** Plot's element without its own style sheet, which the page's policy refuses: studio.css has it. */
function plotted(options) {
  const element = Plot.plot({
    className: "plot-svg",
    style: { background: "transparent", fontFamily: "inherit", fontSize: "12px", overflow: "visible" },
    ...options,
  });
  for (const each of element.querySelectorAll("style")) each.remove();
  for (const each of element.matches("svg") ? [element] : element.querySelectorAll("svg")) {
    each.setAttribute("aria-hidden", "true"); // the caption and the table say it
  }
  return element;
}
