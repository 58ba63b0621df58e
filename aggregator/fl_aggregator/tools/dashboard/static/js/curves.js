"use strict";

/** Accuracy and loss over the rounds (uPlot), with a table for users who cannot see them. */
const Curves = (() => {
  const { say, table } = Elements;
  const WANTED = {
    accuracy: { series: [["accuracy", "accuracy", "--curve-1", null]], show: (value) => Format.percent(value), axis: (value) => `${+(100 * value).toFixed(2)} %` },
    loss: {
      series: [["loss", "loss", "--curve-2", null], ["train_loss", "training loss", "--curve-3", [5, 4]]],
      show: (value) => Format.decimal(value), axis: (value) => String(+value.toPrecision(4)),
    },
  };
  const HEIGHT = 210;
  const charts = [];

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const fade = (name) => `color-mix(in srgb, ${colour(name)} 14%, transparent)`;

  class Curve {
    /** @param {HTMLElement} card */
    constructor(card) {
      this.wanted = WANTED[card.dataset.curve];
      this.name = card.dataset.curve;
      this.place = card.querySelector(".plot");
      this.readout = card.querySelector(".readout");
      this.details = card.querySelector("details");
      this.columns = null;
      this.plot = null;
      new ResizeObserver(() => this.plot?.setSize(this.#size())).observe(this.place);
      this.details.addEventListener("toggle", () => this.#table());
      this.place.addEventListener("keydown", (event) => this.#key(event));
      this.place.addEventListener("blur", () => this.#point(null));
    }

    #size() {
      return { width: Math.max(this.place.clientWidth, 120), height: HEIGHT };
    }

    #data() {
      const { columns } = this;
      return [columns.round, ...this.wanted.series.map(([name]) => columns[name])];
    }

    /** @param {?Record<string, any>} columns */
    set(columns) {
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
      const floor = Math.max(low - room, 0);
      return [floor, this.name === "accuracy" ? Math.min(high + room, 1) : high + room];
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
      const known = columns[this.name].findLastIndex((value) => value !== null);
      const at = row ?? (known < 0 ? columns.round.length - 1 : known);
      const values = this.wanted.series
        .filter(([name]) => row !== null || columns[name].some((value) => value !== null))
        .map(([name, label]) => `${label} ${this.wanted.show(columns[name][at])}`);
      const what = columns.version[at] === null ? "abandoned" : values.join(" · ");
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
      const known = columns ? columns[this.name].filter((value) => value !== null) : [];
      const text = known.length === 0 ? `${this.name}: nothing measured yet`
        : `${this.name} over ${Format.plural(columns.round.length, "round")}: from ${this.wanted.show(known[0])} to ${this.wanted.show(known.at(-1))}. Arrow keys read single rounds; a table follows.`;
      this.place.setAttribute("aria-label", text);
    }

    #table() {
      if (!this.details.open) return;
      const { columns } = this;
      const rows = (columns?.round ?? []).map((round, row) => [
        String(round), columns.version[row] === null ? "abandoned" : String(columns.version[row]),
        ...this.wanted.series.map(([name]) => this.wanted.show(columns[name][row])),
        `${columns.participants[row]} of ${columns.cohort[row]}`, Format.seconds(columns.seconds[row]),
      ]);
      const head = ["Round", "Version", ...this.wanted.series.map(([, label]) => label), "Updates", "Time"];
      this.details.querySelector("table").replaceChildren(...table(head, rows.reverse(), `${this.name} by round, newest first`));
    }
  }

  for (const card of document.querySelectorAll("[data-curve]")) charts.push(new Curve(card));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((one) => one.repaint()));

  /** @param {?Record<string, any>} columns of the history */
  const draw = (columns) => charts.forEach((one) => one.set(columns));
  return { draw };
})();
