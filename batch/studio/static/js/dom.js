// Makes elements. Text is always set as text, so no value from data can become markup.

/**
 * An element: h("p", {class: "note", onclick: f, hidden: true}, "text", node, [more]).
 *
 * Properties that begin with `on` are listeners; false, null and undefined leave one out; true sets
 * an empty attribute. Children that are null or false are left out.
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...shown(children));
  return element;
}

/** Replaces all that an element holds. */
export function fill(element, ...children) {
  element.replaceChildren(...shown(children));
  return element;
}

function shown(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : String(child)));
}

let made = 0;

/** A new id for a pair of elements that name each other. */
export function newId(prefix = "id") {
  made += 1;
  return `${prefix}-${made}`;
}

/** Says a change to screen readers. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

/** Calls `work` once `ms` have passed without a further call. */
export function settled(work, ms = 150) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...values), ms);
  };
}
