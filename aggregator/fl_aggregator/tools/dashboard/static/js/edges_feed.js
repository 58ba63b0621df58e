"use strict";

/**
 * Decides when to subscribe to the aggregator's message about all edges.
 *
 * With many edges it is a large message, and some connections to a browser are slow (an idle Mosquitto 2.0 sends 4 kB
 * every 0.1 s): such messages would delay all others. The page therefore stays subscribed only while the messages are
 * small. Otherwise it subscribes for one message, and afterwards waits as long as that message took before the next.
 */
class EdgesFeed {
  /** @param {(topic: string) => void} subscribe @param {(topic: string) => void} unsubscribe */
  constructor(subscribe, unsubscribe) {
    this.subscribe = subscribe;
    this.unsubscribe = unsubscribe;
    this.topic = null;
    this.askedAt = 0;
    this.dueAt = Infinity;
  }

  /** Must be called for a new connection, which has no subscription. @param {number} now milliseconds */
  connected(now) {
    this.#ask(EdgesFeed.EVERY_ROUND, now);
  }

  /** @param {number} size bytes of a message that arrived @param {number} now */
  heard(size, now) {
    if (size <= EdgesFeed.SMALL || this.topic === null) return;
    this.unsubscribe(this.topic);
    this.topic = null;
    this.dueAt = now + Math.max(now - this.askedAt, EdgesFeed.PAUSE);
  }

  /** Must be called once a second. @param {number} now @param {?number} round the open round */
  tick(now, round) {
    const wanted = round === null ? EdgesFeed.EVERY_ROUND : `round/${round}/edges`;
    if (this.topic === null) {
      if (now >= this.dueAt) this.#ask(wanted, now);
    } else if (this.topic !== wanted && this.topic !== EdgesFeed.EVERY_ROUND) {
      this.unsubscribe(this.topic);
      this.#ask(wanted, now);
    }
  }

  #ask(topic, now) {
    this.topic = topic;
    this.askedAt = now;
    this.subscribe(topic);
  }
}
EdgesFeed.EVERY_ROUND = "round/+/edges";
/** Bytes of a small message: about a hundred edges. */
EdgesFeed.SMALL = 16_384;
/** Milliseconds, at least, between two subscriptions for a large message. */
EdgesFeed.PAUSE = 1000;
