"use strict";

/**
 * When to be subscribed to what the aggregator says of all edges.
 *
 * It is a large message where there are many, and some ways to a browser are slow (Mosquitto 2.0 sends 4 kB every
 * tenth of a second when nothing else happens): one after the other would queue up in front of everything else.
 * So the page stays subscribed only while the messages are small. Else it asks for one, and, having got it, leaves
 * the line free for as long as that took before it asks again.
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

  /** A new connection, which has no subscription. @param {number} now milliseconds */
  connected(now) {
    this.#ask(EdgesFeed.EVERY_ROUND, now);
  }

  /** @param {number} size bytes of a message that came @param {number} now */
  heard(size, now) {
    if (size <= EdgesFeed.SMALL || this.topic === null) return;
    this.unsubscribe(this.topic);
    this.topic = null;
    this.dueAt = now + Math.max(now - this.askedAt, EdgesFeed.PAUSE);
  }

  /** Once a second. @param {number} now @param {?number} round the one that is open */
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
/** Bytes: about a hundred edges. */
EdgesFeed.SMALL = 16_384;
/** Milliseconds. */
EdgesFeed.PAUSE = 1000;
