"use strict";

/** One tile for each edge; colour, shape and sign show its state. It is a list box: arrow keys move the choice. */
class EdgeGrid {
  /** @param {HTMLElement} place @param {(client: string) => void} onChoose */
  constructor(place, onChoose) {
    this.place = place;
    this.onChoose = onChoose;
    /** @type {Map<string, HTMLElement>} */
    this.tiles = new Map();
    this.chosen = null;
    place.addEventListener("click", (event) => {
      const tile = event.target.closest("[role=option]");
      if (tile) this.choose(tile.dataset.client, true);
    });
    place.addEventListener("keydown", (event) => this.#key(event));
  }

  /** @param {[string, object][]} edges in order @param {number} known how many there are without the filter @param {object} metric the primary one */
  draw(edges, known, metric) {
    // By the number of all edges, not of those found: tiles must not change their size while the user types.
    this.place.dataset.density = known <= 64 ? "roomy" : known <= 260 ? "middle" : "dense";
    const wanted = new Set();
    let before = null;
    for (const [client, edge] of edges) {
      wanted.add(client);
      let tile = this.tiles.get(client);
      if (!tile) {
        tile = this.#tile(client);
        this.tiles.set(client, tile);
      }
      this.#update(tile, client, edge, metric);
      const next = before === null ? this.place.firstElementChild : before.nextElementSibling;
      if (next !== tile) this.place.insertBefore(tile, next);
      before = tile;
    }
    for (const [client, tile] of this.tiles) {
      if (wanted.has(client)) continue;
      tile.remove();
      this.tiles.delete(client);
    }
    if (!this.tiles.has(this.chosen) || !this.place.querySelector("[tabindex='0']")) this.#reachable();
  }

  #tile(client) {
    const { make } = Elements;
    return make("li", { role: "option", id: `edge-${client}`, "data-client": client, tabindex: "-1", "aria-selected": "false" },
      make("span", { class: "sign", "aria-hidden": "true" }),
      make("span", { class: "name" }, client),
      make("span", { class: "value" }),
      make("span", { class: "bar", "aria-hidden": "true" }));
  }

  #update(tile, client, edge, metric) {
    const value = metric === Federation.LOSS ? edge.loss : edge.primary;
    const measured = value === null ? "" : Format.measured(value, metric, 0);
    const key = `${edge.state}|${edge.reason ?? ""}|${metric.name}|${measured}`;
    if (tile.dataset.key === key) return;
    tile.dataset.key = key;
    tile.dataset.state = edge.state;
    const words = `edge ${client}: ${Edges.WORDS[edge.state]}${edge.reason ? ` (${edge.reason})` : ""}`;
    tile.title = words + (measured ? `, ${metric.name} ${measured}` : "");
    tile.setAttribute("aria-label", tile.title);
    // For an edge that is missing or offline, its state is shown, not its last value.
    const away = edge.state === "missing" || edge.state === "offline";
    Elements.say(tile.children[2], (!away && measured) || Edges.WORDS[edge.state]);
    // A bar needs a scale, which a metric without a declared range does not have.
    const { minimum, maximum } = metric;
    const part = value === null || minimum === null || maximum === null ? 0 : (value - minimum) / (maximum - minimum);
    tile.children[3].style.inlineSize = `${Math.max(0, Math.min(1, part)) * 100}%`;
  }

  /** @param {?string} client @param {boolean} [focus] */
  choose(client, focus = false) {
    const before = this.tiles.get(this.chosen);
    before?.setAttribute("aria-selected", "false");
    this.chosen = client;
    const tile = this.tiles.get(client);
    tile?.setAttribute("aria-selected", "true");
    this.#reachable();
    if (focus) tile?.focus();
    this.onChoose(client);
  }

  /** Makes exactly one tile reachable with Tab. */
  #reachable() {
    for (const tile of this.place.querySelectorAll("[tabindex='0']")) tile.tabIndex = -1;
    const tile = this.tiles.get(this.chosen) ?? this.place.firstElementChild;
    if (tile) tile.tabIndex = 0;
  }

  #key(event) {
    const tiles = [...this.place.children];
    const at = tiles.indexOf(document.activeElement);
    if (at < 0) return;
    const top = tiles[0].offsetTop;
    const across = Math.max(tiles.findIndex((tile) => tile.offsetTop !== top), 1);
    const width = tiles.at(-1).offsetTop === top ? tiles.length : across;
    const to = {
      ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + width, ArrowUp: at - width,
      Home: 0, End: tiles.length - 1, Enter: at, " ": at,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    if (to >= 0 && to < tiles.length) this.choose(tiles[to].dataset.client, true);
  }
}
