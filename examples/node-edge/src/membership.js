/** Whether an edge belongs to a run: its registrations, and what they are answered (protocol, section 4 and 9.5 to 9.7). */

import { readable } from "./messages.js";
import { Repeater } from "./repeating.js";
import { manifestDigest } from "./sections.js";

const MAX_REASON = 200;
/** Refusals after which an edge ends (4.6). */
const FINAL = ["id-in-use", "wrong-role", "kit-expired", "kit-revoked"];

export class Membership {
  /**
   * @param {{device: string, task: ?string, environment: object, loadJob: (task: string, partition: object) => Promise<object>}} settings
   *   `loadJob` gives the model and the examples, or throws if this edge cannot take part
   * @param {{register: (members: object) => void, ready: () => void, left: () => void, ended: (reason: string) => void, log: (text: string) => void}} does
   */
  constructor(settings, does) {
    Object.assign(this, { settings, does });
    this.run = null; // {run, incarnation, job, ready, online}
    this.birth = null; // the aggregator that was heard last
    this.past = new Map(); // run: the newest incarnation that this edge was in
    this.newest = new Map(); // topic: the greatest seq of this run and incarnation
    this.repeater = null;
    this.stage = "first";
  }

  /** On each connection. */
  connected() {
    if (this.run !== null) this.run.ready = false;
    this.registerFirst();
  }

  registerFirst() {
    this.stage = "first";
    this.repeat(() => this.does.register(this.registration()));
  }

  registration() {
    const { device, task, environment } = this.settings;
    const declared = { manifest: null, examples: null, metrics: null };
    const abilities = ["prox", "clip-gradients"];
    return { device, roles: ["train"], task, ...declared, encodings: ["f32", "bf16"], abilities, unable: null, environment };
  }

  repeat(send, pause = 2) {
    this.repeater?.stop();
    this.repeater = new Repeater(send, pause, 30);
  }

  stop() {
    clearTimeout(this.later);
    this.repeater?.stop();
  }

  /** The aggregator's birth or will (4.2, 4.3). */
  hearAggregator(birth) {
    if (birth.state === "offline") {
      if (this.birth?.session === birth.session) this.birth = birth;
      if (this.run !== null && birth.run === this.run.run) this.run.online = false;
      return;
    }
    const known = this.birth?.session === birth.session && this.birth.incarnation === birth.incarnation && this.birth.state === "online";
    if (this.run !== null && birth.run !== this.run.run && this.run.online) return;
    this.birth = birth;
    if (this.run !== null && birth.run === this.run.run) this.run.online = true;
    if (!known) this.registerFirst();
  }

  /** Whether a message of the aggregator is of the run and incarnation that this edge belongs to, and no recording. */
  obeys(topic, { run, incarnation, seq }) {
    if (this.run === null || run !== this.run.run || incarnation !== this.run.incarnation) return false;
    if (seq < (this.newest.get(topic) ?? 0)) return false;
    this.newest.set(topic, seq);
    return true;
  }

  /** Whether a reply to this connection may admit the edge (4.3, 9.6). */
  mayJoin({ run, incarnation }) {
    if (this.run === null) return incarnation > (this.past.get(run) ?? 0);
    if (run === this.run.run) return incarnation >= this.run.incarnation;
    return this.birth?.run === run && incarnation > (this.past.get(run) ?? 0);
  }

  async hearAdmitted(message) {
    if (!this.mayJoin(message)) return;
    const same = this.run !== null && this.run.run === message.run && this.run.incarnation === message.incarnation;
    if (!same) this.join(message);
    if (message.partition === null) return; // another one follows when partitions are assigned
    const what = JSON.stringify([message.task, message.partition]);
    if (this.stage === "second" && this.run.what === what && message.examples !== null && message.examples === this.run.job?.training.length) {
      this.repeater.stop();
      this.stage = "answered";
      this.run.ready = true;
      this.run.admitted = message;
      this.does.ready();
      return;
    }
    if (this.stage !== "first") return;
    this.repeater?.stop();
    this.stage = "loading";
    const { run } = this;
    if (run.what !== what) run.loaded = this.load(message, what);
    await run.loaded;
    if (run === this.run && this.stage === "loading") this.registerSecond();
  }

  join({ run, incarnation }) {
    if (this.run !== null) this.past.set(this.run.run, Math.max(this.run.incarnation, this.past.get(this.run.run) ?? 0));
    const keeps = this.run?.run === run;
    this.run = { ...(keeps ? this.run : { job: null, what: null, unable: null }), run, incarnation, ready: false, online: true };
    this.newest.clear();
    this.does.log(`admitted to run ${run}, incarnation ${incarnation}`);
    if (!keeps) this.does.left();
  }

  async load(message, what) {
    const { run } = this;
    run.what = what;
    run.job = null;
    run.unable = null;
    try {
      if (message.masked || message.private) throw new Error("this edge takes no part in masked or private runs");
      run.job = await this.settings.loadJob(message.task, message.partition);
    } catch (error) {
      run.unable = readable(error.message).slice(0, MAX_REASON);
      this.does.log(`this edge takes no part: ${run.unable}`);
    }
  }

  registerSecond() {
    this.stage = "second";
    const { run, incarnation, job, unable } = this.run;
    const declared = job && { manifest: manifestDigest(job.model.arrays), examples: job.training.length, metrics: job.metrics };
    this.repeat(() => this.does.register({ ...this.registration(), run, incarnation, ...declared, unable }));
  }

  hearRefused(message) {
    if (!this.mayJoin(message)) return;
    this.repeater?.stop();
    this.does.log(`refused (${message.reason}): ${readable(message.detail)}`);
    if (FINAL.includes(message.reason)) this.does.ended(message.reason);
    else if (message.reason === "no-partition-left") this.later = setTimeout(() => this.registerFirst(), 1000 * (10 + 20 * Math.random()));
    // After any other refusal the edge waits for the birth of another run or incarnation.
  }
}
