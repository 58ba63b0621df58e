/**
 * An edge of fl-mqtt that trains: it knows neither Node nor a page.
 *
 * ```
 * const edge = new Edge(mqtt, where, settings, { log, changed, ended });
 * edge.start();
 * await edge.stop();
 * ```
 */

import { Connection } from "./connection.js";
import { Download } from "./download.js";
import { Membership } from "./membership.js";
import { MalformedError, VERSION, read, readable, toJson, toMsgpack } from "./messages.js";
import { RoundWork } from "./round.js";

const TENSORS = ["update", "offer", "update-chunk", "failed", "delayed"];
const ROUND_TOPIC = /^round\/(\d{1,16})\/(selected|result)$/;

export class Edge {
  /**
   * @param {object} mqtt the library MQTT.js
   * @param {{url: string, options: object, prefix: string, client: string}} where
   * @param {{device: string, task: ?string, environment: object, loadJob: Function, trust: ?object}} settings
   *   `trust`: checks signatures and seals messages (`trust.js`); null in a lab without kits
   * @param {{log: (text: string) => void, changed: (what: object) => void, ended: (reason: string) => void}} tells
   */
  constructor(mqtt, where, settings, tells) {
    Object.assign(this, { where, tells, trust: settings.trust });
    this.connection = new Connection(mqtt, where, {
      connected: () => this.connected(),
      message: (...message) => this.hear(...message),
      log: tells.log,
    });
    this.membership = new Membership(settings, {
      register: (members) => this.send("register", members),
      ready: () => this.ready(),
      left: () => this.leave(),
      ended: tells.ended,
      log: tells.log,
    });
    this.seq = 0;
    this.downloads = new Map(); // by digest
    this.leave();
    this.dropped = 0;
  }

  start() {
    this.connection.open();
  }

  /** @param {string} reason why the edge leaves, for those who watch the run: nothing of its data */
  async stop(reason) {
    this.membership.stop();
    this.work?.cancel();
    this.endDownloads();
    await this.connection.close(reason);
  }

  /** Forgets what belongs to a run. */
  leave() {
    this.work?.cancel();
    this.work = null;
    this.selected = null; // the newest selection of this edge
    this.finished = -1; // the newest round in which nothing more is to be done
    this.evaluated = ""; // the newest announcement that was answered
    this.announced = null;
    this.endDownloads();
    this.models = new Map(); // the last two models, by digest
  }

  /** Ends downloads except of the models with these digests. */
  endDownloads(...needed) {
    for (const [digest, download] of this.downloads) if (!needed.includes(digest)) download.end();
  }

  endOldDownloads() {
    this.endDownloads(this.work?.selected.base?.digest, this.announced?.candidate?.digest ?? this.announced?.digest);
  }

  connected() {
    this.trust?.connected();
    const { client } = this.where;
    this.connection.subscribe(["aggregator", `replies/${client}`, `clients/${client}/work`, "round/+/selected", "round/+/result", "model"]);
    this.connection.subscribe([this.connection.presenceTopic], 0);
    this.connection.announce();
    for (const download of this.downloads.values()) download.ask();
    this.membership.connected();
    this.tells.changed({ state: "connected" });
  }

  /** Sends a message to the aggregator. */
  send(kind, members) {
    const { run, incarnation } = this.membership.run ?? {};
    const { client } = this.where;
    const envelope = kind === "register" ? { run: null, incarnation: null } : { run, incarnation };
    const message = { v: VERSION, kind, ...envelope, seq: ++this.seq, client, session: this.connection.session, ...members };
    const below = { register: "register", evaluation: "evaluations" }[kind] ?? "updates";
    const payload = TENSORS.includes(kind) ? toMsgpack(message) : toJson(message);
    const topic = `${below}/${client}`;
    this.connection.publish(topic, this.trust ? this.trust.seal(this.connection.topic(topic), payload) : payload);
  }

  hear(topic, payload, retained) {
    try {
      if (topic.startsWith("model/")) for (const download of [...this.downloads.values()]) download.hear(topic, payload);
      else if (topic === this.connection.presenceTopic) this.hearPresence(payload);
      else if (payload.length === 0) this.hearCleared(topic);
      else if (this.trust && !this.trust.verifies(this.connection.topic(topic), payload)) throw new MalformedError("no valid signature");
      else this.dispatch(topic, payload, retained);
    } catch (error) {
      if (!(error instanceof MalformedError)) throw error;
      this.dropped += 1;
      if (Number.isInteger(Math.log10(this.dropped))) this.tells.log(`dropped ${this.dropped} messages; ${topic}: ${readable(error.message)}`);
    }
  }

  dispatch(topic, payload, retained) {
    const { client } = this.where;
    if (topic === "aggregator") this.membership.hearAggregator(read(payload, "aggregator"));
    else if (topic === `replies/${client}`) this.hearReply(topic, read(payload, "admitted", "refused", "grant", "accepted", "rejected", "limited"), retained);
    else if (topic === "model") this.hearModel(topic, read(payload, "model"));
    else if (topic === `clients/${client}/work`) this.hearSelected(topic, read(payload, "selected"), true);
    else this.hearRound(topic, payload);
  }

  hearRound(topic, payload) {
    const [, round, what] = ROUND_TOPIC.exec(topic) ?? [];
    if (round === undefined) return;
    const message = read(payload, what);
    if (message.round !== Number(round)) throw new MalformedError("round: another one than in the topic");
    if (what === "selected") this.hearSelected(topic, message, false);
    else if (this.membership.obeys(topic, message)) this.endRound(message.round);
  }

  /** Another wrote on this edge's presence topic: its birth is published again (4.1). */
  hearPresence(payload) {
    const presence = payload.length === 0 ? null : read(payload, "presence");
    const { session } = this.connection;
    if (presence?.session === session && presence.state === "online") return;
    this.connection.announceAgain();
    if (presence?.session === session) this.membership.registerFirst();
  }

  /** A cleared selection: its round is no longer open (2.2). It cannot be signed, so with a kit it says nothing (9.4). */
  hearCleared(topic) {
    if (this.trust || this.work === null) return;
    if (topic === `round/${this.work.round}/selected` || topic === this.work.topic) this.endRound(this.work.round);
  }

  hearReply(topic, message, retained) {
    if (retained || message.client !== this.where.client || message.session !== this.connection.session) return;
    if (message.kind === "admitted") this.membership.hearAdmitted(message);
    else if (message.kind === "refused") this.membership.hearRefused(message);
    else if (!this.membership.obeys(topic, message)) return;
    else if (message.kind === "limited") this.tells.log(`limited (${message.reason}): ${readable(message.detail)}`);
    else if (message.kind === "grant") this.work?.upload?.grant(message);
    else this.hearAnswer(message);
  }

  hearAnswer({ kind, round, digest, reason, detail }) {
    const upload = this.work?.upload;
    if (!upload || round !== upload.round || (digest !== null && digest !== upload.digest)) return;
    if (kind === "accepted") this.tells.log(`round ${round}: the update is accepted`);
    else this.tells.log(`round ${round}: the update is rejected (${reason}): ${readable(detail)}`);
    this.tells.changed({ state: kind, round });
    this.endRound(round);
  }

  /** The second registration is answered. */
  ready() {
    const { admitted } = this.membership.run;
    const { awaited, newest_round: newest = null, finished_round: finished = null } = admitted;
    if (awaited && newest !== null) this.finished = Math.min(this.finished, newest - 1);
    if (finished !== null) this.endRound(finished);
    this.tells.changed({ state: "waiting", examples: admitted.examples });
    this.work?.upload?.restart();
    this.consider();
    if (this.announced !== null) this.evaluate(this.announced);
  }

  hearSelected(topic, message, work) {
    if (!this.membership.obeys(topic, message)) return;
    if (this.work !== null && message.round > this.work.round) this.endRound(this.work.round);
    const mine = work || (message.cohort !== null && message.cohort.includes(this.where.client));
    if (!mine || (this.selected !== null && message.round < this.selected.round)) return;
    this.selected = { ...message, topic };
    this.consider();
  }

  /** Begins the round that this edge is selected for, if it has not yet. */
  consider() {
    const { run } = this.membership;
    const { selected } = this;
    if (!run?.ready || selected === null || selected.run !== run.run || selected.incarnation !== run.incarnation) return;
    if (selected.round <= this.finished || this.work?.round === selected.round) return;
    this.work?.cancel();
    const edge = {
      client: this.where.client,
      maximumPacket: () => this.connection.maximumPacket,
      fetch: (digest, round) => this.fetch(digest, round),
      send: (kind, members) => this.send(kind, members),
    };
    this.work = new RoundWork(selected, run.job, edge);
    this.work.topic = selected.topic;
    this.tells.log(`round ${selected.round}: selected`);
    this.tells.changed({ state: "training", round: selected.round });
    this.work.start();
  }

  endRound(round) {
    this.finished = Math.max(this.finished, round);
    if (this.work === null || this.work.round > round) return;
    this.work.cancel();
    this.work = null;
    this.endOldDownloads();
    this.tells.changed({ state: "waiting" });
  }

  /** @returns {Promise<?Float32Array>} the weights of a model, null if they are no longer needed */
  async fetch(digest, round) {
    const known = this.models.get(digest);
    if (known !== undefined) return known;
    if (!this.downloads.has(digest)) {
      const { model } = this.membership.run.job;
      const delayed = () => this.send("delayed", { round, awaits: "model" });
      this.downloads.set(digest, new Download(this.connection, digest, model.arrays, delayed));
    }
    const weights = await this.downloads.get(digest).result;
    this.downloads.delete(digest);
    if (weights !== null) {
      this.models.set(digest, weights);
      if (this.models.size > 2) this.models.delete(this.models.keys().next().value);
    }
    return weights;
  }

  hearModel(topic, message) {
    if (!this.membership.obeys(topic, message)) return;
    this.announced = message;
    this.endOldDownloads();
    if (this.membership.run.ready) this.evaluate(message);
  }

  /** Measures an announced version on this edge's holdout, if it is asked to (5.11). */
  async evaluate(announced) {
    const split = announced.evaluate;
    const { version, digest } = announced.candidate ?? announced; // (15.4)
    const once = JSON.stringify([version, digest, split, this.connection.session]);
    if (!["holdout", "personal"].includes(split) || once === this.evaluated) return;
    this.evaluated = once;
    const { examples, holdout, model } = this.membership.run.job;
    // This edge makes no model of its own (5.18).
    const none = split === "personal" || holdout.length === 0;
    const weights = none ? null : await this.fetch(digest, null);
    if (!none && (weights === null || this.announced !== announced)) return;
    const { loss, ...metrics } = none ? { loss: 0 } : model.evaluate(weights, examples, holdout);
    this.send("evaluation", { version, digest, split, examples: none ? 0 : holdout.length, loss, metrics });
  }
}
