"use strict";

/** Shows the edges that match the filter, as a grid or a table, and details of the chosen edge. */
const Edges = (() => {
  const { byId, make, say } = Elements;
  /** The states, in the order in which they need attention. */
  const ORDER = ["missing", "in", "uploading", "training", "selected", "present", "offline"];
  const WORDS = {
    missing: "missing", in: "in", uploading: "uploading", training: "training", selected: "selected", present: "present", offline: "offline",
  };
  const MEANING = {
    missing: "Selected for this round, but will not contribute", in: "Its update for this round has arrived", uploading: "Is sending its update",
    training: "Is training on its own data", selected: "Selected for this round, not training yet", present: "Connected, but not selected in this round",
    offline: "Known, but not connected",
  };
  const MOST_TILES = 3000;
  const NO_NUMBERS = "Updates are masked: nobody sees how many examples a single edge has, nor its losses and metrics.";

  const chips = new Map();
  const hiddenStates = new Set();
  let all = new Map();
  let order = [];
  let search = "";
  let asTable = false;
  let chosen = null;
  let leftOut = 0;
  let places = [];
  let metric = Federation.LOSS;
  let masked = false;
  // Created late, since both need this module.
  let grid;
  let table;

  function start() {
    grid = new EdgeGrid(byId("edges-grid"), choose);
    table = new EdgeTable(byId("edges-table"), choose);
    for (const state of ORDER) {
      const chip = make("button", { type: "button", class: "chip", "data-state": state, "aria-pressed": "true", title: MEANING[state] },
        make("span", { class: "sign", "data-state": state, "aria-hidden": "true" }), make("span", {}, WORDS[state]), make("b", {}, "0"));
      chip.addEventListener("click", () => toggle(state));
      chips.set(state, chip);
      byId("edges-states").append(chip);
    }
    byId("edges-search").addEventListener("input", (event) => {
      search = event.target.value.trim().toLowerCase();
      show();
    });
    byId("edges-as-grid").addEventListener("click", () => view(false));
    byId("edges-as-table").addEventListener("click", () => view(true));
  }

  function toggle(state) {
    if (hiddenStates.has(state)) hiddenStates.delete(state);
    else hiddenStates.add(state);
    chips.get(state).setAttribute("aria-pressed", String(!hiddenStates.has(state)));
    show();
  }

  function view(tabular) {
    asTable = tabular;
    byId("edges-as-grid").setAttribute("aria-pressed", String(!tabular));
    byId("edges-as-table").setAttribute("aria-pressed", String(tabular));
    byId("edges-grid").hidden = tabular;
    byId("edges-table").hidden = !tabular;
    show();
  }

  function choose(client) {
    chosen = client;
    detail();
  }

  /** @param {Map<string, object>} edges @param {Federation} federation */
  function draw(edges, federation) {
    metric = federation.primary;
    places = federation.environments;
    masked = federation.masked !== null;
    const same = edges.size === all.size && order.every((client) => edges.has(client));
    all = edges;
    leftOut = federation.leftOut;
    if (!same) order = [...edges.keys()].sort(Format.collator.compare);
    const counts = Object.fromEntries(ORDER.map((state) => [state, 0]));
    for (const { state } of edges.values()) counts[state] += 1;
    for (const [state, chip] of chips) {
      say(chip.lastElementChild, Format.count(counts[state]));
      chip.dataset.none = String(counts[state] === 0);
    }
    show();
    detail();
  }

  function show() {
    const wanted = order
      .filter((client) => !hiddenStates.has(all.get(client).state) && client.toLowerCase().includes(search))
      .map((client) => [client, all.get(client)]);
    const shown = asTable ? wanted : wanted.slice(0, MOST_TILES);
    if (asTable) table.draw(shown, metric, masked);
    else grid.draw(shown, all.size, metric);
    const notes = [];
    if (all.size === 0) notes.push("No edge is known yet.");
    else if (wanted.length === 0) notes.push("No edge matches.");
    if (shown.length < wanted.length) notes.push(`${Format.count(wanted.length - shown.length)} more are not shown here: search, or use the table.`);
    if (leftOut > 0) notes.push(`${Format.plural(leftOut, "more edge")} left out by the aggregator: they do not fit into its message.`);
    if (masked && asTable) notes.push(NO_NUMBERS);
    byId("edges-note").hidden = notes.length === 0;
    say(byId("edges-note"), notes.join(" "));
  }

  /** Its software and its machine, as the edge says. @param {object} [environment] */
  function surroundings(environment) {
    if (!environment) return [];
    const { fl_mqtt: ours, python, library, platform, memory, cores } = environment;
    const software = [library, python && `Python ${python}`, ours && `fl-mqtt ${ours}`].filter(Boolean).join(", ");
    const machine = [platform, cores && Format.plural(cores, "core"), memory && Format.bytes(memory)].filter(Boolean).join(", ");
    return [["Software", software || "–"], ["Machine", machine || "–"]];
  }

  function detail() {
    const place = byId("edges-detail");
    const edge = all.get(chosen);
    if (!edge) {
      const measured = metric !== Federation.LOSS && [...all.values()].some((one) => one.primary !== null);
      const meaning = measured ? ` The ${metric.name} of an edge is that of its own model on its own holdout, often a few examples.` : "";
      say(place, all.size ? `Choose an edge to see its details.${meaning}` : "");
      return;
    }
    const numbers = [
      ...(metric === Federation.LOSS ? [] : [[metric.name, Format.measured(edge.primary, metric)]]), ...(edge.personal === null ? [] : [["Personal model", Format.gained(edge.personal, metric)]]),
      ["Loss", Format.decimal(edge.loss)], ["Examples", Format.count(edge.examples)],
      ["Training", Format.seconds(edge.seconds)], ["Update", Format.bytes(edge.bytes)],
    ];
    const pairs = [...(masked ? [] : numbers), ...surroundings(places[edge.environment])];
    const key = `${chosen}|${edge.state}|${edge.reason}|${masked}|${pairs.join()}`;
    if (place.dataset.key === key && place.childElementCount) return;
    place.dataset.key = key;
    place.replaceChildren(
      make("p", { class: "who" }, make("span", { class: "sign", "data-state": edge.state, "aria-hidden": "true" }), make("strong", {}, `Edge ${chosen}`), ` ${edge.reason ?? MEANING[edge.state]}`),
      make("dl", {}, ...pairs.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)))),
      ...(masked ? [make("p", { class: "note" }, NO_NUMBERS)] : []),
    );
  }

  return { ORDER, WORDS, start, draw };
})();
