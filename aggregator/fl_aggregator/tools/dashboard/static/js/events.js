"use strict";

/** The log of events, newest first, of a limited length. */
const Events = (() => {
  const { byId, make } = Elements;
  const MOST = 300;
  const place = byId("events");
  /** @type {Map<string, HTMLElement>} */
  const keyed = new Map();

  /** @param {{key?: string, at: ?number, tone: string, text: string, order?: number}} event `at` null: before the page was opened */
  function add({ key, at, tone, text, order }) {
    const when = at === null ? make("span", { class: "when" }, "earlier") : make("time", { class: "when", datetime: new Date(at).toISOString() }, Format.time(at));
    const known = key === undefined ? undefined : keyed.get(key);
    if (known) {
      known.dataset.tone = tone;
      Elements.say(known.lastElementChild, text);
      return;
    }
    const entry = make("li", { "data-tone": tone }, when, make("span", { class: "what" }, text));
    if (key !== undefined) keyed.set(key, entry);
    if (at === null) {
      // Retained messages arrive in any order.
      entry.dataset.order = String(order);
      const later = [...place.children].find((one) => one.dataset.order !== undefined && Number(one.dataset.order) < order);
      place.insertBefore(entry, later ?? null);
    } else place.prepend(entry);
    while (place.childElementCount > MOST) {
      const last = place.lastElementChild;
      for (const [name, one] of keyed) if (one === last) keyed.delete(name);
      last.remove();
    }
    if (at !== null && tone !== "plain") Elements.say(byId("announce"), text);
  }

  byId("events-problems").addEventListener("change", (event) => {
    place.dataset.only = event.target.checked ? "problems" : "";
  });

  /** Removes all events, which do not apply to another broker. */
  function clear() {
    place.replaceChildren();
    keyed.clear();
  }

  return { add, clear };
})();
