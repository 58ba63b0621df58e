/** One round of an edge: fetch the base, train, and send the update until it is answered (protocol, 5.2 to 5.7). */

import { Generator } from "./random.js";
import { trainingSeed } from "./training.js";
import { Upload } from "./upload.js";

/** Says why this edge cannot do what a round asks for, or null. */
export function whyNot(selected) {
  const { training, correction } = selected;
  if (selected.ticket) return "tickets: this edge takes part in rounds only";
  if (selected.masked) return "masked: this edge masks no updates";
  if (selected.privacy) return "privacy: this edge takes no part in private rounds";
  if (selected.encoding !== "f32") return `encoding: ${selected.encoding}; this edge has f32`;
  if (correction && correction.name !== "prox") return `correction: ${correction.name}; this edge has prox`;
  if (training.logit_adjustment > 0) return "logit_adjustment: this edge has none";
  if (training.precision === "bf16") return "precision: this edge trains in float32";
  return null;
}

export class RoundWork {
  /**
   * @param {object} selected the message @param {object} job model, examples, training and holdout
   * @param {{client: string, maximumPacket: () => number, fetch: (digest: string, round: number) => Promise<?Float32Array>, send: (kind: string, members: object) => void}} edge
   */
  constructor(selected, job, edge) {
    Object.assign(this, { selected, job, edge, cancelled: false, upload: null });
    this.round = selected.round;
  }

  async start() {
    try {
      const refusal = whyNot(this.selected);
      if (refusal !== null) throw new Error(refusal);
      const { base } = this.selected;
      const { report, delta } = base === null ? this.firstWeights() : await this.train(base);
      if (this.cancelled) return;
      const limits = { inlineLimit: this.selected.inline_limit, maximumPacket: this.edge.maximumPacket() };
      this.upload = new Upload(report, delta, this.job.model.arrays, base === null, limits, this.edge.send);
      this.upload.start();
    } catch (error) {
      if (!this.cancelled) this.edge.send("failed", { round: this.round, detail: String(error.message).slice(0, 1000) });
    }
  }

  /** The update of round 0: whole weights, which follow from the seed (5.3). */
  firstWeights() {
    const { model, training } = this.job;
    const metrics = { before: null, after: null, train: null };
    const report = { round: this.round, base: null, examples: training.length, steps: 0, seconds: 0, metrics };
    return { report, delta: model.firstWeights(this.selected.training.seed) };
  }

  async train({ digest }) {
    const { model, examples, training, holdout, defaults } = this.job;
    const base = await this.edge.fetch(digest, this.round);
    if (this.cancelled || base === null) return {};
    const asked = this.selected.training;
    const settings = {
      epochs: asked.epochs ?? defaults.epochs,
      batchSize: asked.batch_size ?? defaults.batch_size,
      rate: (asked.lr ?? defaults.lr) * (asked.lr_factor ?? 1),
      momentum: asked.momentum ?? defaults.momentum,
      clip: asked.clip_gradients ?? 0,
      mu: this.selected.correction?.settings.mu ?? 0,
    };
    const began = performance.now();
    const random = new Generator(trainingSeed(asked.seed, this.round, this.edge.client));
    const trained = await model.train(base, examples, training, settings, random, () => this.cancelled);
    if (trained === null) return {};
    const seconds = (performance.now() - began) / 1000;
    const measured = (weights) => (holdout.length > 0 ? { ...model.evaluate(weights, examples, holdout), examples: holdout.length } : null);
    const metrics = { before: measured(base), after: measured(trained.weights), train: { loss: trained.loss } };
    const report = { round: this.round, base: digest, examples: training.length, steps: trained.steps, seconds, metrics };
    return { report, delta: trained.weights.map((weight, index) => weight - base[index]) };
  }

  cancel() {
    this.cancelled = true;
    this.upload?.stop();
  }
}
