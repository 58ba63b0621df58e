/**
 * The connection to the broker (protocol, 1.7 and 4.1): each one has a random name, a clean session, and a will with a
 * session name of its own. It is made anew with growing pauses until it is closed.
 */

import { MAX_PACKET, VERSION, randomName, toJson } from "./messages.js";
import { growingPauses } from "./repeating.js";

export class Connection {
  /**
   * @param {object} mqtt the library MQTT.js
   * @param {{url: string, options: object, prefix: string, client: string}} where `options` for MQTT.js: account, certificates
   * @param {{connected: () => void, message: (topic: string, payload: Uint8Array, retained: boolean) => void, log: (text: string) => void}} hears
   *   topics are without the prefix
   */
  constructor(mqtt, where, hears) {
    Object.assign(this, { mqtt, where, hears, session: "", client: null, maximumPacket: MAX_PACKET, closed: false, timer: null });
    this.pauses = growingPauses(1, 30);
  }

  get presenceTopic() {
    return `clients/${this.where.client}/presence`;
  }

  presence(state, session = this.session, reason = null) {
    return toJson({ v: VERSION, kind: "presence", client: this.where.client, state, session, reason });
  }

  /** Publishes the birth (4.1). */
  announce() {
    clearTimeout(this.birthTimer);
    this.publish(this.presenceTopic, this.presence("online"), true);
  }

  /** Publishes the birth again, after a pause: of two edges with one name, each would answer the other at once. */
  announceAgain() {
    clearTimeout(this.birthTimer);
    this.birthTimer = setTimeout(() => this.announce(), 500 + 500 * Math.random());
  }

  open() {
    const session = randomName();
    const client = this.mqtt.connect(this.where.url, {
      ...this.where.options,
      protocolVersion: 5,
      clean: true,
      clientId: `fl-${randomName()}`,
      keepalive: 30,
      connectTimeout: 20_000,
      reconnectPeriod: 0,
      resubscribe: false,
      timerVariant: "native", // no worker from a blob, which a page's policy may forbid
      properties: { sessionExpiryInterval: 0, maximumPacketSize: MAX_PACKET },
      will: { topic: this.topic(this.presenceTopic), payload: this.presence("offline", session), qos: 1, retain: true },
    });
    this.client = client;
    client.on("connect", (acknowledged) => {
      if (this.closed) return;
      this.session = session;
      this.maximumPacket = Math.min(MAX_PACKET, acknowledged.properties?.maximumPacketSize ?? MAX_PACKET);
      this.pauses = growingPauses(1, 30);
      this.hears.connected();
    });
    client.on("message", (topic, payload, packet) => {
      const prefix = `${this.where.prefix}/`;
      if (client === this.client && topic.startsWith(prefix)) this.hears.message(topic.slice(prefix.length), payload, packet.retain);
    });
    client.on("error", (error) => this.hears.log(`broker: ${error.message}`));
    client.on("close", () => this.lost(client));
  }

  lost(client) {
    if (client !== this.client) return;
    this.client = null;
    client.end(true);
    if (this.closed) return;
    const pause = this.pauses();
    this.hears.log(`no connection to the broker; next attempt in ${pause.toFixed(1)} s`);
    this.timer = setTimeout(() => this.open(), 1000 * pause);
  }

  topic(below) {
    return `${this.where.prefix}/${below}`;
  }

  /** Sends at QoS 1, at most `maximumPacket` bytes. What is not confirmed is lost with the connection: only an answer of the aggregator counts (1.8). */
  publish(below, payload, retain = false) {
    this.client?.publish(this.topic(below), payload, { qos: 1, retain }, () => {});
  }

  subscribe(below, qos = 1) {
    this.client?.subscribe(below.map((one) => this.topic(one)), { qos }, () => {});
  }

  unsubscribe(below) {
    this.client?.unsubscribe(below.map((one) => this.topic(one)), () => {});
  }

  /** Says that the edge is offline, and why, and disconnects. */
  async close(reason) {
    this.closed = true;
    clearTimeout(this.timer);
    clearTimeout(this.birthTimer);
    const client = this.client;
    if (client === null) return;
    if (client.connected) {
      await Promise.race([
        client.publishAsync(this.topic(this.presenceTopic), this.presence("offline", this.session, reason), { qos: 1, retain: true }).catch(() => {}),
        new Promise((resolve) => setTimeout(resolve, 2000)),
      ]);
    }
    this.client = null;
    await new Promise((resolve) => client.end(true, {}, resolve));
  }
}
