"use strict";

/** Asks the edges what a drawing or a picture shows, over the broker, as any client may (protocol, section 7). */
const Prediction = (() => {
  const { byId, make } = Elements;
  const DEADLINE = 15_000;
  /** A request is repeated, since it may be lost with the edge that received it (7.5). */
  const AGAIN_AFTER = 5_000;
  const MAX_PICTURE = 4 * 2 ** 20;
  const MOST_BARS = 10;

  const answer = byId("answer");
  /** @type {?{correlation: string, asked: number, timers: number[]}} */
  let open = null;
  /** @type {() => ?Broker} */
  let broker = () => null;
  let soon = 0;

  const sketch = new Sketch(byId("sketch"), {
    onChange: () => {
      byId("sketch-hint").hidden = !sketch.empty;
      clearTimeout(soon);
    },
    onDone: () => {
      clearTimeout(soon);
      soon = setTimeout(askSketch, 500); // a 4 has two strokes
    },
  });
  byId("sketch-clear").addEventListener("click", () => {
    clearTimeout(soon);
    drop();
    sketch.clear();
    answer.replaceChildren();
    answer.setAttribute("aria-busy", "false");
  });
  byId("predict-ask").addEventListener("click", askSketch);
  byId("predict-file").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (!file) return;
    if (file.size > MAX_PICTURE) fail(`${file.name} has ${Format.bytes(file.size)}; expected at most ${Format.bytes(MAX_PICTURE)}.`);
    else ask(new Uint8Array(await file.arrayBuffer()));
  });

  function askSketch() {
    clearTimeout(soon);
    if (sketch.empty) fail("Draw something first.");
    else ask(JSON.stringify({ pixels: sketch.rows() }));
  }

  function drop() {
    open?.timers.forEach((timer) => clearTimeout(timer));
    open = null;
  }

  /** @param {string|Uint8Array} payload */
  function ask(payload) {
    drop();
    const way = broker();
    if (!way?.connected) return fail("Not connected to the broker.");
    const question = { correlation: Broker.token(), asked: performance.now(), timers: [] };
    open = question;
    answer.setAttribute("aria-busy", "true");
    if (!answer.querySelector(".bars")) answer.replaceChildren(make("p", { class: "note" }, "Asking …"));
    for (let at = 0; at < DEADLINE; at += AGAIN_AFTER) {
      question.timers.push(setTimeout(() => broker()?.connected && broker().ask("predict", payload, question.correlation), at));
    }
    question.timers.push(setTimeout(() => {
      drop();
      fail(`No edge answered within ${DEADLINE / 1000} s. Is one with the role “predict” online, and is there a model yet?`);
    }, DEADLINE));
    return undefined;
  }

  /** @param {Uint8Array} payload @param {string} correlation */
  function hear(payload, correlation) {
    if (!open || correlation !== open.correlation) return;
    const found = Messages.read(["prediction"], payload);
    if (!found) return;
    const milliseconds = performance.now() - open.asked;
    drop();
    if (found.error !== null) fail(`Edge ${found.client} could not answer: ${found.error}`);
    else show(found, milliseconds);
  }

  function fail(text) {
    answer.setAttribute("aria-busy", "false");
    answer.replaceChildren(make("p", { class: "problem" }, text));
  }

  function show(found, milliseconds) {
    let bars = [...(found.probabilities ?? new Map())].map(([label, value]) => [label, Math.min(Math.max(value, 0), 1)]);
    if (bars.length > MOST_BARS) bars = bars.sort((one, other) => other[1] - one[1]).slice(0, MOST_BARS);
    const rows = bars.map(([label, value]) => {
      const fill = make("span", { class: "fill" });
      fill.style.inlineSize = `${value * 100}%`;
      const best = label === found.label;
      return make("li", best ? { class: "best" } : {}, make("span", { class: "label" }, label), make("span", { class: "track", "aria-hidden": "true" }, fill), make("span", { class: "chance" }, Format.percent(value, value > 0.995 || value < 0.0005 ? 0 : 1)));
    });
    answer.setAttribute("aria-busy", "false");
    answer.replaceChildren(
      make("p", { class: "label-line" }, make("span", { class: "hidden" }, "It shows: "), make("strong", { id: "answer-label" }, found.label ?? Format.DASH)),
      make("ul", { class: "bars", "aria-label": "Probabilities" }, ...rows),
      make("p", { class: "small" }, `edge ${found.client}, version ${found.version}, ${Math.round(milliseconds)} ms`),
    );
  }

  /** @param {() => ?Broker} way returns the present connection */
  const start = (way) => {
    broker = way;
  };
  return { start, hear };
})();
