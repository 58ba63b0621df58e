"use strict";

/**
 * Asks the edges over the broker, as any client may (protocol, section 7): what a drawing or a picture shows, or with a
 * form, whose fields are those of the example with which an edge answers an empty request. A task without an example has a
 * field for JSON.
 */
const Prediction = (() => {
  const { byId, make } = Elements;
  const DEADLINE = 15_000;
  /** A request is repeated, since it may be lost with the edge that received it (7.5). */
  const AGAIN_AFTER = 5_000;
  const MAX_PICTURE = 4 * 2 ** 20;
  const MOST_BARS = 10;
  const MOST_FIELDS = 40;

  const answer = byId("answer");
  const form = byId("predict-form");
  /** The example, once an edge has sent one for the run. @type {?{run: string, example: any}} */
  let known = null;
  let learning = { correlation: "", version: "" };
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
  byId("predict-ask").addEventListener("click", () => (form.hidden ? askSketch() : askForm()));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    askForm();
  });
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

  /** @param {string|Uint8Array} payload @param {string} correlation */
  function publish(payload, correlation) {
    if (broker()?.connected) broker().ask("predict", payload, correlation);
  }

  /** Asks once for each version, until an edge has answered with an example. @param {?Record<string, any>} status */
  function learn(status) {
    const version = status && status.version !== null ? `${status.run} ${status.version}` : "";
    if (!version || known?.run === status.run || version === learning.version || !broker()?.connected) return;
    learning = { correlation: Broker.token(), version };
    publish("", learning.correlation);
  }

  /** Shows the board if the example is a picture, or else a form. */
  function offer(example) {
    known = { run: learning.version.split(" ")[0], example };
    const picture = example !== null && typeof example === "object" && "pixels" in example;
    form.hidden = picture;
    for (const id of ["predict-board", "predict-picture", "sketch-clear", "sketch-help"]) byId(id).hidden = !picture;
    const fields = Object.entries(example ?? {});
    const flat = example !== null && !Array.isArray(example) && fields.length <= MOST_FIELDS && fields.every(([, value]) => ["string", "number"].includes(typeof value));
    form.replaceChildren(...(picture ? [] : flat
      ? fields.map(([name, value]) => make("label", {}, make("span", {}, name), make("input", { name, value, autocomplete: "off" })))
      : [make("label", {}, make("span", {}, "Request (JSON)"), make("textarea", { name: "json", rows: 6 }, JSON.stringify(example ?? {}, null, 1)))]));
  }

  function askForm() {
    const text = form.elements.namedItem("json");
    if (text instanceof HTMLTextAreaElement) {
      ask(text.value);
      return;
    }
    const fields = Object.entries(known.example).map(([name, value]) => {
      const given = form.elements.namedItem(name).value.trim();
      return [name, typeof value === "number" && given !== "" && Number.isFinite(Number(given)) ? Number(given) : given];
    });
    ask(JSON.stringify(Object.fromEntries(fields)));
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
      question.timers.push(setTimeout(() => publish(payload, question.correlation), at));
    }
    question.timers.push(setTimeout(() => {
      drop();
      fail(`No edge answered within ${DEADLINE / 1000} s. Is one with the role “predict” online, and is there a model yet?`);
    }, DEADLINE));
    return undefined;
  }

  /** @param {Uint8Array} payload @param {string} correlation */
  function hear(payload, correlation) {
    if (correlation === learning.correlation) {
      const taught = Messages.read(["prediction"], payload);
      if (taught && known?.run !== learning.version.split(" ")[0]) offer(taught.example);
      return;
    }
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

  /** A number with its unit, a series, or anything else as JSON. */
  function outputText(output) {
    const { value, values, unit, ...others } = output;
    const numbers = [value, ...(Array.isArray(values) ? values : [])].filter((one) => typeof one === "number");
    const parts = numbers.length ? [numbers.map((one) => Number(one.toPrecision(6))).join(", ") + (unit ? ` ${unit}` : "")] : [];
    if (!numbers.length) Object.assign(others, output);
    parts.push(...Object.entries(others).map(([name, one]) => `${name} ${JSON.stringify(one)}`));
    return parts.join("; ");
  }

  function show(found, milliseconds) {
    const texts = [found.label, found.output && outputText(found.output)].filter((one) => one !== null);
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
      make("p", { class: "label-line" }, make("span", { class: "hidden" }, "The answer: "), make("strong", { id: "answer-label" }, texts.join("; ") || Format.DASH)),
      ...(rows.length ? [make("ul", { class: "bars", "aria-label": "Probabilities" }, ...rows)] : []),
      make("p", { class: "small" }, `edge ${found.client}, ${found.first_version ? `mean of versions ${found.first_version}–${found.version}` : `version ${found.version}`}${found.version ? "" : ", which this run has not trained yet"}, ${Math.round(milliseconds)} ms`),
    );
  }

  /** @param {() => ?Broker} way returns the present connection */
  const start = (way) => {
    broker = way;
  };
  return { start, hear, learn };
})();
