"use strict";

/** A metric that the user chooses, and the loss, over the rounds (uPlot), with a table for users who cannot see them. */
const Curves = (() => {
  const { make, say, table } = Elements;
  const EPSILON = Object.freeze({ name: "epsilon", higher_is_better: false, unit: "", minimum: 0, maximum: null });
  /** What a curve shows: of each series its name, its label, its colour and its dashes. @param {object} metric */
  const wanted = (metric) => ({
    metric,
    series: metric === EPSILON ? [["epsilon", "ε", "--curve-1", null], ["budget", "budget", "--curve-3", [5, 4]]] : metric === Federation.LOSS
      ? [["loss", "loss", "--curve-2", null], ["train_loss", "training loss", "--curve-3", [5, 4]]]
      : [[metric.name, metric.name, "--curve-1", null], [`after_${metric.name}`, "on the edges' holdouts", "--curve-3", [5, 4]]],
    show: (value) => (metric === EPSILON && value != null ? Format.short(value) : Format.measured(value, metric)),
    axis: (value) => (metric.unit === "%" ? `${+(100 * value).toFixed(2)} %` : String(+value.toPrecision(4))),
  });
  const HEIGHT = 210;
  const charts = [];

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const fade = (name) => `color-mix(in srgb, ${colour(name)} 14%, transparent)`;

  class Curve {
    /** @param {HTMLElement} card */
    constructor(card) {
      this.card = card;
      this.title = card.querySelector("h2");
      this.choice = card.querySelector("select");
      this.private = card.dataset.curve === "epsilon";
      this.wanted = wanted(this.private ? EPSILON : Federation.LOSS);
      this.place = card.querySelector(".plot");
      this.readout = card.querySelector(".readout");
      this.details = card.querySelector("details");
      this.columns = null;
      this.plot = null;
      new ResizeObserver(() => this.plot?.setSize(this.#size())).observe(this.place);
      this.declared = [];
      this.choice?.addEventListener("change", () => this.set(this.columns, this.declared));
      this.details.addEventListener("toggle", () => this.#table());
      this.place.addEventListener("keydown", (event) => this.#key(event));
      this.place.addEventListener("blur", () => this.#point(null));
    }

    #size() {
      return { width: Math.max(this.place.clientWidth, 120), height: HEIGHT };
    }

    #data() {
      return [this.columns.round, ...this.wanted.series.map(([name]) => this.#column(name))];
    }

    #column(name) {
      return this.columns.metrics.get(name) ?? this.columns.round.map(() => null);
    }

    /** The name of the metric, which is the first series. */
    get name() {
      return this.wanted.metric.name;
    }

    /** Offers the metrics that the task declares, and takes the one that is chosen. @param {object[]} declared */
    #offer(declared) {
      const chosen = this.choice.value;
      if (declared.map(({ name }) => name).join("\n") !== [...this.choice.options].map(({ value }) => value).join("\n")) {
        this.choice.replaceChildren(...declared.map(({ name }) => make("option", { value: name }, name)));
        if (declared.some(({ name }) => name === chosen)) this.choice.value = chosen;
      }
      this.card.hidden = declared.length === 0;
      this.choice.hidden = declared.length < 2;
      const metric = declared.find(({ name }) => name === this.choice.value) ?? Federation.LOSS;
      if (JSON.stringify(metric) === JSON.stringify(this.wanted.metric)) return;
      this.wanted = wanted(metric);
      this.plot?.destroy();
      this.plot = null;
      say(this.title, metric.name + (metric.unit && metric.unit !== "%" ? ` (${metric.unit})` : ""));
    }

    /** @param {?Record<string, any>} columns @param {object[]} declared */
    set(columns, declared) {
      this.declared = declared;
      if (this.private) this.card.hidden = !columns?.metrics.has("epsilon");
      if (this.choice) this.#offer(declared);
      this.columns = columns?.round.length ? columns : null;
      this.place.dataset.empty = String(this.columns === null);
      if (this.columns === null) {
        this.plot?.destroy();
        this.plot = null;
      } else if (this.plot === null) this.#build();
      else this.plot.setData(this.#data());
      this.#read(null);
      this.#describe();
      this.#table();
    }

    /** Draws the curves again, since a canvas keeps the colours that it was drawn with. */
    repaint() {
      if (this.plot) this.#build();
    }

    #build() {
      this.plot?.destroy();
      const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
      const few = (plot) => plot.data[0].length <= 40;
      const options = {
        ...this.#size(),
        legend: { show: false },
        padding: [10, 12, 0, 0],
        cursor: { y: false, drag: { x: false, y: false }, points: { size: 9 } },
        scales: { x: { time: false, range: (_plot, low, high) => (low === high ? [low - 1, high + 1] : [low, high]) }, y: { range: (_plot, low, high) => this.#range(low, high) } },
        series: [{}, ...this.wanted.series.map(([, label, shade, dash], index) => ({
          label, stroke: colour(shade), width: 2.25, spanGaps: true, dash: dash ?? undefined,
          fill: index === 0 ? fade(shade) : undefined, points: { show: few, size: 6 },
        }))],
        axes: [
          { ...axis, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000], space: 46, size: 30 },
          { ...axis, size: 62, values: (_plot, ticks) => ticks.map(this.wanted.axis), space: 34 },
        ],
        hooks: { draw: [(plot) => this.#abandoned(plot)], setCursor: [(plot) => this.#read(plot.cursor.idx ?? null)] },
      };
      this.plot = new uPlot(options, this.#data(), this.place);
      // The label, the readout and the table say in words what it shows.
      this.plot.root.setAttribute("aria-hidden", "true");
    }

    #range(low, high) {
      if (low == null) return [0, 1];
      const room = Math.max((high - low) * 0.12, Math.abs(high) * 0.01, 1e-6);
      const { minimum, maximum } = this.wanted.metric;
      const floor = this.private ? 0 : Math.max(low - room, minimum ?? (low >= 0 ? 0 : -Infinity));
      return [floor, Math.min(high + room, maximum ?? Infinity)];
    }

    /** Draws a cross for each round that was abandoned, where the curve is interrupted. */
    #abandoned(plot) {
      const { ctx, bbox } = plot;
      const ratio = devicePixelRatio;
      ctx.save();
      ctx.strokeStyle = colour("--bad");
      ctx.lineWidth = 1.5 * ratio;
      ctx.setLineDash([]);
      this.columns?.version.forEach((version, row) => {
        if (version !== null) return;
        const x = plot.valToPos(this.columns.round[row], "x", true);
        const [y, arm] = [bbox.top + bbox.height - 7 * ratio, 3.5 * ratio];
        ctx.beginPath();
        ctx.moveTo(x - arm, y - arm);
        ctx.lineTo(x + arm, y + arm);
        ctx.moveTo(x + arm, y - arm);
        ctx.lineTo(x - arm, y + arm);
        ctx.stroke();
      });
      ctx.restore();
    }

    /** @param {?number} row null: the newest row with a value */
    #read(row) {
      const { columns } = this;
      if (columns === null) return say(this.readout, "");
      const known = this.#column(this.name).findLastIndex((value) => value !== null);
      const at = row ?? (known < 0 ? columns.round.length - 1 : known);
      const values = this.wanted.series
        .filter(([name]) => this.#column(name).some((value) => value !== null))
        .map(([name, label, , dash]) => `${dash ? "dashed: " : ""}${label} ${this.wanted.show(this.#column(name)[at])}`);
      const split = columns.split[at] === null ? "" : ` (${columns.split[at]})`;
      const what = columns.version[at] === null ? "abandoned" : values.join(" · ") + (this.private ? "" : split);
      return say(this.readout, `round ${columns.round[at]}: ${what}`);
    }

    #point(row) {
      if (!this.plot) return;
      const x = row === null ? -10 : this.plot.valToPos(this.columns.round[row], "x");
      this.plot.setCursor({ left: x, top: row === null ? -10 : 20 });
    }

    #key(event) {
      if (!this.columns) return;
      const last = this.columns.round.length - 1;
      const at = this.plot.cursor.idx ?? last;
      const next = { ArrowLeft: Math.max(at - 1, 0), ArrowRight: Math.min(at + 1, last), Home: 0, End: last }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      this.#point(next);
    }

    #describe() {
      const { columns } = this;
      const known = columns ? this.#column(this.name).filter((value) => value !== null) : [];
      const text = known.length === 0 ? `${this.name}: nothing measured yet`
        : `${this.name} over ${Format.plural(columns.round.length, "round")}: from ${this.wanted.show(known[0])} to ${this.wanted.show(known.at(-1))}. Arrow keys read single rounds; a table follows.`;
      this.place.setAttribute("aria-label", text);
    }

    #table() {
      if (!this.details.open) return;
      const { columns } = this;
      const rows = (columns?.round ?? []).map((round, row) => [
        String(round), columns.version[row] === null ? "abandoned" : String(columns.version[row]),
        ...this.wanted.series.map(([name]) => this.wanted.show(this.#column(name)[row])),
        columns.split[row] ?? Format.DASH, `${columns.participants[row]} of ${columns.cohort[row]}`, Format.seconds(columns.seconds[row]),
      ]);
      const head = ["Round", "Version", ...this.wanted.series.map(([, label]) => label), "Split", "Updates", "Time"];
      this.details.querySelector("table").replaceChildren(...table(head, rows.reverse(), `${this.name} by round, newest first`));
    }
  }

  for (const card of document.querySelectorAll("[data-curve]")) charts.push(new Curve(card));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((one) => one.repaint()));

  /** @param {?Record<string, any>} columns of the history @param {object[]} declared metrics */
  const draw = (columns, declared) => charts.forEach((one) => one.set(columns, declared));
  return { draw };
})();
