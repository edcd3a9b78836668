// Elements from a description: h("button.primary", {onclick}, "Save"). Texts are texts, never HTML.

/** @param {string} what tag, classes and id, such as "div.card#totals" */
export function h(what, attributes = {}, ...children) {
  const [head, id] = what.split("#");
  const [tag, ...classes] = head.split(".");
  const element = document.createElement(tag || "div");
  if (id) element.id = id;
  if (classes.length) element.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "hidden") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Replaces what an element holds. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Sets a text only where it differs, so that nothing is laid out for nothing. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** What there is to see when there is nothing: a sentence that says why, and what to do. */
export function emptyState(title, ...explanation) {
  return h("section.empty", {}, h("h2", {}, title), ...explanation.map((part) => (typeof part === "string" ? h("p", {}, part) : part)));
}

/** An error, as the API told it. */
export function errorState(error, retry) {
  return h("section.empty.error", { role: "alert" },
    h("h2", {}, "This could not be loaded"),
    h("p", {}, error.message),
    retry && h("button.primary", { type: "button", onclick: retry }, "Try again"));
}
