"use strict";

/** The same edges as rows, which can be sorted by any column. */
class EdgeTable {
  /** @param {HTMLElement} place @param {(client: string) => void} onChoose */
  constructor(place, onChoose) {
    this.place = place;
    this.onChoose = onChoose;
    this.by = "name";
    this.down = false;
    this.most = EdgeTable.ROWS;
    this.edges = [];
    const { make } = Elements;
    this.head = make("tr");
    for (const [name, label] of EdgeTable.COLUMNS) {
      const button = make("button", { type: "button" }, label);
      button.addEventListener("click", () => this.#sort(name));
      this.head.append(make("th", { scope: "col", "data-column": name }, button));
    }
    this.primary = this.head.querySelector("[data-column=primary]");
    this.personal = this.head.querySelector("[data-column=personal]");
    this.body = make("tbody");
    this.more = make("button", { type: "button" }, "Show more");
    this.more.addEventListener("click", () => {
      this.most *= 4;
      this.draw(this.edges, this.metric, this.masked);
    });
    place.append(make("table", {}, make("caption", { class: "hidden" }, "Edges and their newest updates"), make("thead", {}, this.head), this.body), this.more);
  }

  #sort(name) {
    this.down = this.by === name ? !this.down : name !== "name" && name !== "state";
    this.by = name;
    this.draw(this.edges, this.metric, this.masked);
  }

  /** @param {[string, object][]} edges in the order of their names @param {object} metric the primary one
   * @param {boolean} masked whether there are no numbers of single edges */
  draw(edges, metric, masked) {
    this.edges = edges;
    this.metric = metric;
    this.masked = masked;
    const ours = metric !== Federation.LOSS;
    Elements.say(this.primary.firstElementChild, metric.name);
    for (const name of EdgeTable.NUMBERS) this.head.querySelector(`[data-column=${name}]`).hidden = masked;
    this.primary.hidden ||= !ours;
    const haveOwn = edges.some(([, edge]) => edge.personal !== null);
    this.personal.hidden = !haveOwn;
    const rank = ([client, edge]) => (this.by === "name" ? client : this.by === "state" ? Edges.ORDER.indexOf(edge.state) : this.by === "personal" ? (edge.personal?.after ?? null) : edge[this.by]);
    const sign = this.down ? -1 : 1;
    const sorted = this.by === "name" ? (this.down ? edges.toReversed() : edges) : edges.toSorted((one, other) => {
      const [left, right] = [rank(one), rank(other)];
      // Edges without a number come last, in either order.
      if (left === null || right === null) return left === right ? 0 : left === null ? 1 : -1;
      return sign * (left - right);
    });
    for (const cell of this.head.children) {
      cell.setAttribute("aria-sort", cell.dataset.column !== this.by ? "none" : this.down ? "descending" : "ascending");
    }
    const { make } = Elements;
    this.body.replaceChildren(...sorted.slice(0, this.most).map(([client, edge]) => {
      const name = make("button", { type: "button", class: "link" }, client);
      name.addEventListener("click", () => this.onChoose(client));
      const state = make("td", {}, make("span", { class: "sign", "data-state": edge.state, "aria-hidden": "true" }), ` ${Edges.WORDS[edge.state]}`);
      if (edge.reason) state.append(make("span", { class: "why" }, ` ${edge.reason}`));
      const values = [...(ours ? [Format.measured(edge.primary, metric)] : []), ...(haveOwn ? [Format.gained(edge.personal, metric)] : []), Format.decimal(edge.loss), Format.count(edge.examples), Format.seconds(edge.seconds), Format.bytes(edge.bytes)];
      return make("tr", {}, make("th", { scope: "row" }, name), state, ...(masked ? [] : values).map((value) => make("td", { class: "number" }, value)));
    }));
    this.more.hidden = edges.length <= this.most;
  }
}
EdgeTable.ROWS = 200;
/** The columns of numbers that a masked update does not tell. */
EdgeTable.NUMBERS = ["primary", "loss", "examples", "seconds", "bytes"];
EdgeTable.COLUMNS = [
  ["name", "Edge"], ["state", "State"], ["primary", "Metric"], ["personal", "Personal model"], ["loss", "Loss"], ["examples", "Examples"], ["seconds", "Training"], ["bytes", "Update"],
];
