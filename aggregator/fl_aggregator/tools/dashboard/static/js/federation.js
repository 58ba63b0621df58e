"use strict";

/** Milliseconds without a message after which the status is stale: it is published at least every 5 s. */
const STALE_AFTER = 15_000;

/**
 * What is known of the federation, from messages that may arrive in any order. It uses no clock and no page.
 *
 * `changed` is called with the part to draw again: "status", "history", "edges".
 * `happened` is called with an entry of the event log: {key, at, tone, text}; an entry with the same key is replaced.
 */
class Federation {
  /** @param {(part: string) => void} changed @param {(event: object) => void} happened */
  constructor(changed, happened) {
    this.changed = changed;
    this.happened = happened;
    this.status = null;
    this.aggregator = null;
    this.history_ = null;
    this.edges_ = null;
    this.worst_ = null;
    /** @type {Map<string, {state: string, session: string}>} */
    this.presence = new Map();
    /** When the status was published, by this page's clock. */
    this.statusAt = null;
    this.came = [];
    this.went = [];
  }

  /** The run that is shown: the one that is online, else the one that published the last status. */
  get run() {
    return this.aggregator?.state === "online" ? this.aggregator.run : (this.status?.run ?? this.history_?.run ?? null);
  }
  /** The number of rounds so far, or null. */
  get history() {
    return this.history_?.run === this.run ? this.history_ : null;
  }
  /** The columns of the history, and in a private run with a budget that as a series; null before the first round. */
  get columns() {
    const columns = this.history?.columns ?? null;
    const budget = this.privacy?.budget ?? null;
    if (budget === null || !columns?.metrics.has("epsilon")) return columns;
    return { ...columns, metrics: new Map([...columns.metrics, ["budget", columns.round.map(() => budget)]]) };
  }
  /** How alike the updates of the newest compared round are; null if none were compared. */
  get similarity() {
    return this.history?.similarity ?? null;
  }
  /** The metric by which versions are compared. */
  get primary() {
    return (this.status?.run === this.run ? this.status?.primary : null) ?? Federation.LOSS;
  }
  /** The metrics that the task declares, as far as they are known. */
  get declared() {
    return this.history?.metrics ?? [];
  }
  /** Whether the run has ended, by itself or because it was stopped. */
  get over() {
    return this.status?.run === this.run && ["finished", "failed", "interrupted"].includes(this.status?.phase);
  }
  /** What the aggregator sees of masked updates; null if it sees each update. @returns {?{least: number, certified: boolean}} */
  get masked() {
    return this.status?.run === this.run ? (this.status?.masked ?? null) : null;
  }
  /** What the versions have told about an edge, at most; null without differential privacy. */
  get privacy() {
    return this.status?.run === this.run ? (this.status?.privacy ?? null) : null;
  }
  /** @param {number} now */
  age(now) {
    return this.statusAt === null ? null : Math.max(0, now - this.statusAt);
  }

  /** All known edges: what the aggregator says of each, otherwise whether it is online. @returns {Map<string, object>} */
  edges() {
    const told = this.edges_?.run === this.run ? this.edges_.edges : new Map();
    const all = new Map(told);
    for (const [client, { state }] of this.presence) {
      const known = told.get(client);
      // The edge's own presence is newer than the aggregator's message if the aggregator is offline or the run is over.
      const silent = this.aggregator?.state !== "online" || this.over;
      if (!known) all.set(client, { ...Federation.UNKNOWN, state: state === "online" ? "present" : "offline" });
      else if (state === "offline" && silent && known.state !== "offline") {
        all.set(client, { ...known, state: "offline", reason: known.reason ?? "its connection is lost" });
      } else if (state === "online" && silent && known.state === "offline") all.set(client, { ...known, state: "present", reason: null });
    }
    return all;
  }

  /** The newest result that names the edges at which the model is worth least, or null. */
  get worst() {
    return this.worst_?.run === this.run ? this.worst_ : null;
  }

  /** The number of edges that the aggregator had to leave out of its message. */
  get leftOut() {
    return this.edges_?.run === this.run ? (this.edges_.left_out ?? 0) : 0;
  }

  /** The distinct environments of the edges, which these name by index. */
  get environments() {
    return this.edges_?.run === this.run ? (this.edges_.environments ?? []) : [];
  }

  /**
   * Processes a message on `topic` (without the prefix).
   * @param {string} topic @param {Uint8Array} payload @param {boolean} retained @param {number} now ms since 1970
   */
  hear(topic, payload, retained, now) {
    const [first, second, third] = topic.split("/");
    if (topic === "status") this.#hearStatus(Messages.read(["status"], payload), retained, now);
    else if (topic === "aggregator") this.#hearAggregator(Messages.read(["aggregator"], payload), retained, now);
    else if (topic === "history") this.#hearHistory(Messages.read(["history"], payload));
    else if (first === "round" && third === "edges") this.#hearEdges(Number(second), Messages.read(["edges"], payload), retained, now);
    else if (first === "round" && third === "result") this.#hearResult(Messages.read(["result"], payload), retained, now);
    else if (first === "clients" && third === "presence") this.#hearPresence(second, Messages.read(["presence"], payload), retained);
    else if (first === "replies") this.#hearReply(second, payload, now);
  }

  #hearStatus(status, retained, now) {
    if (!status || Number.isNaN(Date.parse(status.written))) return;
    const before = this.status;
    this.status = status;
    // Clocks differ: the aggregator's time counts only for a retained status.
    this.statusAt = retained ? Math.min(now, Date.parse(status.written)) : now;
    if (before?.run === status.run) {
      if (status.paused && !before.paused) this.happened({ at: now, tone: "bad", text: `The run is paused: ${status.paused}` });
      if (!status.paused && before.paused) this.happened({ at: now, tone: "good", text: "The run continues" });
      if (status.phase !== before.phase && ["finished", "failed", "interrupted"].includes(status.phase)) {
        const reached = Federation.reached(status);
        const tone = { finished: "good", failed: "bad", interrupted: "warn" }[status.phase];
        this.happened({ at: now, tone, text: `The run ${status.phase === "interrupted" ? "was interrupted" : status.phase} with version ${status.version ?? "–"} of ${status.rounds}${reached}` });
      }
    }
    this.changed("status");
    if (before?.run !== status.run) this.#all();
  }

  #hearAggregator(birth, retained, now) {
    if (!birth) return;
    const before = this.aggregator;
    this.aggregator = birth;
    if (!retained && (before?.state !== birth.state || before?.run !== birth.run)) {
      const online = birth.state === "online";
      this.happened({ at: now, tone: online ? "good" : this.over ? "plain" : "bad", text: `The aggregator is ${birth.state} (run ${birth.run})` });
    }
    this.#all();
  }

  #hearHistory(history) {
    if (!history) return;
    this.history_ = history;
    this.changed("history");
    this.changed("status");
  }

  #hearEdges(round, found, retained, now) {
    if (!found || found.round !== round) return;
    const before = this.edges_;
    const same = before?.run === found.run;
    // Messages of two rounds are retained, and arrive in any order.
    if (same && (found.incarnation < before.incarnation || (found.incarnation === before.incarnation && found.round < before.round))) return;
    if (!same && before?.run === this.run && retained && found.run !== this.run) return;
    for (const [client, edge] of found.edges) edge.personal = found.personal?.get(client) ?? null;
    this.edges_ = found;
    this.changed("edges");
    if (!same) return;
    const lost = [];
    for (const [client, edge] of found.edges) {
      const earlier = before.edges.get(client)?.state;
      if (edge.state === "missing" && !(earlier === "missing" && before.round === found.round)) lost.push([client, edge.reason]);
    }
    if (lost.length === 0) return;
    const [client, why] = lost[0];
    const text = lost.length === 1 ? `Round ${round}: edge ${client} is missing: ${why ?? "no reason given"}`
      : `Round ${round}: ${lost.length} edges are missing: ${Format.names(lost.map(([name]) => name))}`;
    this.happened({ at: now, tone: "bad", text });
  }

  #hearResult(result, retained, now) {
    if (!result) return;
    // The last results are retained, and arrive in any order.
    if (result.worst_edges?.size && (this.worst_?.run !== result.run || result.round >= this.worst_.round)) {
      this.worst_ = result;
      this.changed("status");
    }
    const missing = result.missing.size === 0 ? "" : `; missing: ${Format.names([...result.missing].map(([name, why]) => `${name} (${why})`), 3)}`;
    const unlike = result.outliers?.size ? `; unlike the others: ${Format.names([...result.outliers].map(([name, why]) => `${name} (${why})`), 3)}` : "";
    const reached = Federation.reached(result);
    const text = result.outcome === "committed"
      ? `Round ${result.round}: version ${result.version} from ${result.masked ? "the sum of " : ""}${Format.plural(result.participants.length, result.masked ? "masked update" : "update")} in ${Format.seconds(result.seconds)}${reached}${missing}${unlike}`
      : `Round ${result.round} was abandoned: ${result.reason ?? "no reason given"}${missing}`;
    const tone = result.outcome === "abandoned" ? "bad" : result.missing.size || unlike ? "warn" : "good";
    this.happened({ key: `result/${result.run}/${result.incarnation}/${result.round}`, at: retained ? null : now, tone, text, order: result.round });
  }

  #hearPresence(client, presence, retained) {
    if (!presence || presence.client !== client) return;
    const before = this.presence.get(client);
    // The will of an earlier connection says nothing about the newest one.
    if (presence.state === "offline" && before && before.session !== presence.session) return;
    if (!before && this.presence.size >= 20_000) return;
    this.presence.set(client, { state: presence.state, session: presence.session });
    if (!retained && before?.state !== presence.state) (presence.state === "online" ? this.came : this.went).push(client);
    this.changed("edges");
  }

  #hearReply(client, payload, now) {
    // Only short replies are shown; longer ones are skipped without being parsed.
    if (payload.length > 8192) return;
    const reply = Messages.read(["refused", "rejected"], payload);
    if (!reply || reply.client !== client) return;
    const what = reply.kind === "refused" ? "was refused" : `had its update for round ${reply.round} rejected`;
    this.happened({ at: now, tone: "warn", text: `Edge ${client} ${what}: ${reply.reason}${reply.detail ? `: ${reply.detail}` : ""}` });
  }

  /** Logs the edges that came or left since the last call, in one line. @param {number} now */
  tellPresence(now) {
    for (const [names, tone, word] of [[this.came, "plain", "online"], [this.went, "warn", "offline"]]) {
      if (names.length === 0) continue;
      names.sort(Format.collator.compare);
      const what = names.length === 1 ? `Edge ${names[0]} is ${word}` : `${names.length} edges are ${word}: ${Format.names(names)}`;
      this.happened({ at: now, tone, text: what });
      names.length = 0;
    }
  }

  /** The primary metric of a status or a result as the end of a sentence; empty if it was not measured. */
  static reached({ metrics, primary, split }) {
    const metric = primary ?? Federation.LOSS;
    const value = metrics.get(metric.name);
    return value === undefined ? "" : `, ${metric.name} ${Format.measured(value, metric)}${split ? ` (${split})` : ""}`;
  }

  #all() {
    for (const part of ["status", "history", "edges"]) this.changed(part);
  }
}

/** An edge of which only the name is known. */
Federation.UNKNOWN = Object.freeze({ state: "present", reason: null, examples: null, seconds: null, bytes: null, primary: null, loss: null, environment: null, personal: null });

Federation.LOSS = Object.freeze({ name: "loss", higher_is_better: false, unit: "", minimum: null, maximum: null });
