"use strict";

/** Connects the parts: one broker, one federation, and at most one redraw for each frame. */
(() => {
  const { byId } = Elements;
  const link = { state: "connecting", detail: "", since: Date.now(), address: "" };
  const dirty = new Set();
  let where = null;
  let broker = null;
  let federation = new Federation(mark, Events.add);
  let asked = false;

  function mark(part) {
    dirty.add(part);
    if (asked) return;
    asked = true;
    requestAnimationFrame(draw);
  }

  function draw() {
    asked = false;
    const now = Date.now();
    const edges = federation.edges();
    if (dirty.has("edges")) Edges.draw(edges, federation);
    if (dirty.has("history")) {
      Curves.draw(federation.columns, federation.declared);
      Similarity.draw(federation.similarity);
    }
    Overview.draw(federation, edges, now);
    Banner.draw(federation, link, where?.prefix ?? "fl", now);
    dirty.clear();
  }

  function linked(state, detail) {
    if (link.state !== state) {
      const broken = link.state === "connected" && state === "lost";
      const back = link.state === "lost" && state === "connected";
      if (broken) Events.add({ at: Date.now(), tone: "bad", text: "The connection to the broker is lost" });
      if (back) Events.add({ at: Date.now(), tone: "good", text: "Connected to the broker again" });
      link.since = Date.now();
    }
    link.state = state;
    link.detail = detail;
    if (state === "refused") Settings.show({ ...where, password: "" }, `${detail}.`);
    mark("status");
  }

  function connect(to) {
    broker?.end();
    Participation.leave();
    where = to;
    federation = new Federation(mark, Events.add);
    Events.clear();
    Object.assign(link, { state: "connecting", detail: "", since: Date.now(), address: to.broker });
    for (const part of ["status", "history", "edges"]) mark(part);
    const mine = new Broker(to, linked, (topic, payload, retained, correlation) => {
      if (topic === mine.answers) Prediction.hear(payload, correlation);
      else federation.hear(topic, payload, retained, Date.now());
    });
    broker = mine;
  }

  async function start() {
    Edges.start();
    Prediction.start(() => broker);
    Settings.start(connect);
    Participation.start(() => where);
    byId("connection").addEventListener("click", () => Settings.show(where, null));
    // Ages and remaining times change without a message, too.
    setInterval(() => {
      federation.tellPresence(Date.now());
      broker?.tick(federation.status?.run === federation.run ? federation.status.round : null);
      Prediction.learn(federation.status);
      Participation.offer(federation);
      mark("status");
    }, 1000);
    where = await Settings.load();
    const why = Settings.wrong(where);
    if (why) Settings.show(where, why);
    else connect(where);
  }

  start();
})();
