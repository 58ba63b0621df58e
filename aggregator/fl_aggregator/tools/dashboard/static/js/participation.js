"use strict";

/**
 * Lets the visitor's device take part in a run of handwritten digits, if the page is served with this offer (`dashboard --join`) and the visitor
 * asks for it: an edge in a worker, with a connection of its own. The worker is made from `examples/node-edge`.
 */
const Participation = (() => {
  const { byId, say } = Elements;
  const MAX_FILE = 16 * 2 ** 20;
  const section = byId("join");
  const problem = byId("join-problem");
  const file = byId("join-file");
  /** @type {?Worker} */
  let worker = null;
  let accepted = 0;
  let stopping = false;
  let where = () => null;

  /** Whether a browser can take part in the run. @param {?Federation} federation */
  function fits(federation) {
    const status = federation.status?.run === federation.run ? federation.status : null;
    return !!status && ["digits", "digits-mlp"].includes(status.task.split("?")[0]) && !status.masked && !status.privacy && !federation.over;
  }

  /** A name that this browser keeps. @param {string} what @param {string} fresh */
  function kept(what, fresh) {
    try {
      const known = localStorage.getItem(`fl-mqtt-${what}`);
      if (known && /^[A-Za-z0-9_-]{1,64}$/.test(known)) return known;
      localStorage.setItem(`fl-mqtt-${what}`, fresh);
    } catch {
      // A browser that keeps nothing takes part under a new name each time.
    }
    return fresh;
  }

  function fail(text) {
    say(problem, text);
    problem.hidden = false;
  }

  async function begin() {
    problem.hidden = true;
    const [chosen] = file.files;
    if (byId("join-own").checked && !chosen) return fail("Choose a file first.");
    if (byId("join-own").checked && chosen.size > MAX_FILE) return fail(`${chosen.name} has ${Format.bytes(chosen.size)}; expected at most ${Format.bytes(MAX_FILE)}.`);
    const own = byId("join-own").checked ? await chosen.text() : null;
    const { broker, prefix, user, password } = where();
    // An account may write to no other edge's topics than its own.
    const client = user || kept("edge", `browser-${Broker.token().slice(0, 8)}`);
    const library = /(Firefox|Edg|Chrome|Version)\/[\d.]+/.exec(navigator.userAgent)?.[0] ?? "JavaScript";
    accepted = 0;
    stopping = false;
    worker = new Worker("join/worker.js");
    worker.addEventListener("message", ({ data }) => hear(data));
    worker.addEventListener("error", () => end("The worker has failed."));
    worker.postMessage({ start: { broker, prefix, user, password, client, device: kept("device", Broker.token()), library, file: own } });
    say(byId("join-name"), client);
    show("Connecting.");
  }

  function hear(message) {
    if (message.text) say(byId("join-more"), message.text);
    if (!message.state) return;
    if (message.state === "accepted") accepted += 1;
    if (message.state === "stopped") end("");
    else if (message.state === "refused") end(`This device cannot take part: ${message.reason}.`);
    else show(Participation.sentence(message, accepted));
  }

  function show(text) {
    if (worker === null) return;
    byId("join-offer").hidden = true;
    byId("join-running").hidden = false;
    if (!stopping) say(byId("join-state"), text);
  }

  function end(why) {
    worker?.terminate();
    worker = null;
    byId("join-offer").hidden = false;
    byId("join-running").hidden = true;
    say(byId("join-more"), "");
    if (why) fail(why);
  }

  function stop() {
    stopping = true;
    say(byId("join-state"), "Stopping.");
    worker?.postMessage({ stop: true });
  }

  return {
    /** @param {() => ?object} settings the broker, the prefix and the account of the page */
    start(settings) {
      where = settings;
      byId("join-start").addEventListener("click", begin);
      byId("join-stop").addEventListener("click", stop);
      file.addEventListener("change", () => (byId("join-own").checked = file.files.length > 0));
    },

    /** Shows or hides the offer. It stays while this device takes part. */
    offer(federation) {
      section.hidden = !(Settings.join && (worker !== null || fits(federation)));
    },

    /** Another broker was chosen. */
    leave() {
      if (worker !== null) end("");
    },

    /** @param {{state: string, round?: number, examples?: number}} message @param {number} accepted updates */
    sentence({ state, round }, accepted) {
      const soFar = accepted === 0 ? "" : ` ${accepted} ${accepted === 1 ? "update from this device has" : "updates from this device have"} been accepted.`;
      if (state === "connected") return "Connected. Waiting for the aggregator.";
      if (state === "training") return `Training in round ${round}.${soFar}`;
      if (state === "rejected") return `The update for round ${round} was rejected.${soFar}`;
      return `Waiting for the next round.${soFar}`;
    },
  };
})();
