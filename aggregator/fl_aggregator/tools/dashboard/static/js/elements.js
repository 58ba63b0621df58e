"use strict";

/** Makes and changes elements of the page. Texts become text nodes, never markup. */
const Elements = (() => {
  /** @param {string} id @returns {any} */
  const byId = (id) => {
    const found = document.getElementById(id);
    if (!found) throw new Error(`no element #${id}`);
    return found;
  };

  /**
   * @param {string} tag @param {Record<string, string|number|null>} [attributes] null: left out
   * @param {...(Node|string)} content
   */
  const make = (tag, attributes = {}, ...content) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, String(value));
    element.append(...content);
    return element;
  };

  /** Sets the text if it differs, so that screen readers and layout are not disturbed. @param {Element} element @param {string} text */
  const say = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };

  /** @param {string[]} head @param {string[][]} rows @param {string} caption @returns {Node[]} a table's content */
  const table = (head, rows, caption) => [
    make("caption", { class: "hidden" }, caption),
    make("thead", {}, make("tr", {}, ...head.map((one) => make("th", { scope: "col" }, one)))),
    make("tbody", {}, ...rows.map((cells) => make("tr", {}, ...cells.map((cell, column) => make(column ? "td" : "th", column ? {} : { scope: "row" }, cell))))),
  ];

  return { byId, make, say, table };
})();
