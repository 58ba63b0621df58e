"use strict";

/**
 * Which broker, which prefix, which account. The URL may contain the address (after #), but never the account. A link can therefore name anyone's
 * broker: the page connects to another host than its own, or without TLS to a broker that has it, only if the user agrees.
 */
const Settings = (() => {
  const { byId } = Elements;
  const dialog = byId("settings");
  const problem = byId("settings-problem");
  const ADDRESS = /^wss?:\/\/[^\s/?#@]+(\/[^\s#]*)?$/;
  let join = false;
  const PREFIX = /^[^+#$\s/]+(\/[^+#$\s/]+){0,4}$/;

  /** @param {string} address @returns {string} its host and port, empty if it has none */
  const hostOf = (address) => (URL.canParse(address) ? new URL(address).host : "");

  /** The settings that the page was served with, or linked to. If Mosquitto serves the page, the broker has the same host. */
  async function load() {
    let given = {};
    try {
      const answer = await fetch("config.json", { cache: "no-store", signal: AbortSignal.timeout(5000) });
      if (answer.ok) given = await answer.json();
    } catch {
      // The file is missing or not JSON: the defaults apply.
    }
    join = given?.join === true;
    const linked = new URLSearchParams(location.hash.slice(1));
    const one = (name, otherwise) => linked.get(name) ?? (typeof given?.[name] === "string" ? given[name] : otherwise);
    const own = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host || "localhost:9001"}/mqtt`;
    const user = typeof given?.user === "string" ? given.user : "";
    const served = { broker: typeof given?.broker === "string" ? given.broker : own, prefix: one("prefix", "fl"), user, password: "" };
    const broker = linked.get("broker") ?? served.broker;
    const isSameHost = hostOf(broker) === hostOf(served.broker);
    if (isSameHost && (broker.startsWith("wss:") || !served.broker.startsWith("wss:"))) return { ...served, broker };
    if (await (isSameHost ? agreesTo(broker, served.broker) : agreesTo(hostOf(broker) || broker, hostOf(served.broker)))) return { ...served, broker, user: "" };
    history.replaceState(null, "", `#${new URLSearchParams({ prefix: served.prefix })}`);
    return served;
  }

  /** Asks whether to connect to the host that a link names, instead of our own. @returns {Promise<boolean>} */
  function agreesTo(host, own) {
    const question = byId("stranger");
    Elements.say(byId("stranger-host"), host);
    Elements.say(byId("stranger-yes"), `Connect to ${host}`);
    Elements.say(byId("stranger-no"), `Stay with ${own}`);
    question.showModal();
    return new Promise((resolve) => {
      byId("stranger-yes").addEventListener("click", () => question.close("yes"));
      byId("stranger-no").addEventListener("click", () => question.close());
      question.addEventListener("close", () => resolve(question.returnValue === "yes"));
    });
  }

  /** @returns {?string} what is wrong with an address and prefix */
  function wrong({ broker, prefix }) {
    if (!ADDRESS.test(broker)) return `The address “${broker}” is not a WebSocket address; expected ws://host:port/mqtt or wss://host:port/mqtt.`;
    if (location.protocol === "https:" && broker.startsWith("ws:")) return "A page loaded over https can only use wss://.";
    if (!PREFIX.test(prefix)) return `The prefix “${prefix}” has a wildcard, $, a space or an empty level; expected for example fl or plant7/fl.`;
    return null;
  }

  function show(where, why) {
    for (const name of ["broker", "prefix", "user", "password"]) byId(`s-${name}`).value = where[name];
    problem.hidden = !why;
    Elements.say(problem, why ?? "");
    if (!dialog.open) dialog.showModal();
  }

  /** @param {(where: object) => void} onChosen */
  function start(onChosen) {
    byId("settings-cancel").addEventListener("click", () => dialog.close());
    byId("settings-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const where = Object.fromEntries(["broker", "prefix", "user", "password"].map((name) => [name, byId(`s-${name}`).value]));
      where.broker = where.broker.trim();
      where.prefix = where.prefix.trim();
      const why = wrong(where);
      if (why) {
        show(where, why);
        return;
      }
      byId("s-password").value = "";
      dialog.close();
      history.replaceState(null, "", `#${new URLSearchParams({ broker: where.broker, prefix: where.prefix })}`);
      onChosen(where);
    });
  }

  return {
    load,
    wrong,
    show,
    start,
    /** Whether the page is served with the offer to take part. */
    get join() {
      return join;
    },
  };
})();
