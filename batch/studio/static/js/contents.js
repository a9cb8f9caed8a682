// Lays out a page's sections, with a table of contents before them.

import { h } from "./dom.js";

/**
 * A row of buttons, one for each section, and the sections; null ones are left out.
 *
 * The address's hash names the page, so that a section cannot have an address of its own: a button
 * scrolls to its heading, which takes the focus.
 */
export function contents(sections) {
  const there = sections.filter(Boolean);
  const links = there.map((section) => {
    const heading = section.querySelector("h2");
    heading.setAttribute("tabindex", "-1");
    const go = () => {
      section.scrollIntoView({ block: "start" });
      heading.focus({ preventScroll: true });
    };
    return h("li", {}, h("button", { type: "button", class: "quiet", onclick: go },
      heading.textContent));
  });
  return [
    h("nav", { class: "contents", "aria-label": "On this page" }, h("ul", {}, links)),
    h("div", { class: "board" }, there),
  ];
}

/** A section that takes the whole width, where two stand side by side otherwise. */
export function wide(section) {
  section?.classList.add("wide");
  return section;
}
