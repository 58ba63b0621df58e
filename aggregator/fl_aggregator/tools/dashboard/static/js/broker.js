"use strict";

/**
 * The page's own connection to the broker: MQTT 5 over WebSockets (mqtt.js). It reconnects until it is refused.
 *
 * `onState(state, detail)`: "connecting", "connected", "lost" (reconnects), "refused" (does not reconnect: the user has to act).
 * `onMessage(topic, payload, retained, correlation)`: topic without the prefix, payload bytes.
 */
class Broker {
  /** @param {{broker: string, prefix: string, user: string, password: string}} where */
  constructor(where, onState, onMessage) {
    this.prefix = where.prefix;
    // An account may read no other answers than its own (protocol, 7.2).
    this.answers = `predictions/${/^[A-Za-z0-9_-]{1,64}$/.test(where.user) ? where.user : `dashboard-${Broker.token()}`}`;
    this.ended = false;
    this.edges = new EdgesFeed(
      (topic) => this.client.subscribe(`${this.prefix}/${topic}`, { qos: 0 }),
      (topic) => this.client.unsubscribe(`${this.prefix}/${topic}`),
    );
    const options = {
      protocolVersion: 5,
      clean: true,
      clientId: `fl-dashboard-${Broker.token()}`,
      // A broker that disappears silently is noticed after 15 s.
      keepalive: 10,
      connectTimeout: 8000,
      reconnectPeriod: 1500,
      resubscribe: false,
      timerVariant: "native", // no worker from a blob, which the page's policy forbids
      properties: { maximumPacketSize: 4 * 2 ** 20 },
      ...(where.user ? { username: where.user } : {}),
      ...(where.password ? { password: where.password } : {}),
    };
    onState("connecting", "");
    const client = mqtt.connect(where.broker, options);
    this.client = client;
    client.on("connect", () => {
      // The most important messages first, large ones last. QoS 0, since brokers cut off a burst of retained messages
      // at QoS 1 (protocol, 1.7).
      const below = ["aggregator", "status", "history", this.answers, "clients/+/presence", "replies/+", "round/+/result"];
      client.subscribe(below.map((one) => `${this.prefix}/${one}`), { qos: 0 }, (error, granted) => {
        if (error && !this.ended) onState("refused", `The broker does not allow this account to read: ${error.message}`);
        else if (granted?.some((one) => one.qos >= 128)) onState("connected", "The broker does not allow this account to read everything");
        else onState("connected", "");
      });
      this.edges.connected(Date.now());
    });
    client.on("message", (topic, payload, packet) => {
      if (this.ended || !topic.startsWith(`${this.prefix}/`)) return;
      if (topic.endsWith("/edges")) this.edges.heard(payload.length, Date.now());
      onMessage(topic.slice(this.prefix.length + 1), payload, packet.retain, Broker.text(packet.properties?.correlationData));
    });
    client.on("close", () => this.ended || onState("lost", ""));
    client.on("error", (error) => {
      if (this.ended) return;
      // Bad credentials (134), not authorised (135), banned (138); 4 and 5 in MQTT 3.1.1.
      if ([4, 5, 134, 135, 138].includes(error.code)) {
        onState("refused", "The broker refused the account: check the user and the password");
        this.end();
      } else onState("lost", "");
    });
  }

  /** @param {string} topic without the prefix @param {string|Uint8Array} payload @param {string} correlation */
  ask(topic, payload, correlation) {
    this.client.publish(`${this.prefix}/${topic}`, payload, {
      qos: 1,
      properties: {
        responseTopic: `${this.prefix}/${this.answers}`,
        correlationData: correlation,
        messageExpiryInterval: 30,
      },
    });
  }

  /** Must be called once a second. @param {?number} round the open round */
  tick(round) {
    if (this.connected) this.edges.tick(Date.now(), round);
  }

  get connected() {
    return !this.ended && this.client.connected;
  }

  end() {
    this.ended = true;
    this.client.end(true);
  }

  /** @param {?Uint8Array} bytes */
  static text(bytes) {
    return bytes ? new TextDecoder().decode(bytes) : "";
  }

  /** A random name. */
  static token() {
    return Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  }
}
