"use strict";

/** Says in one sentence what is wrong, if anything, and how old the data on the page are. */
const Banner = (() => {
  const place = Elements.byId("banner");
  const pill = Elements.byId("connection");
  const pillText = Elements.byId("connection-text");

  /**
   * @param {Federation} federation @param {{state: string, detail: string, since: number, address: string}} link
   * @returns {?{tone: string, text: string}}
   */
  function judge(federation, link, prefix, now) {
    const { status, aggregator } = federation;
    const age = federation.age(now);
    const then = federation.statusAt === null ? "" : ` The data below is from ${Format.time(federation.statusAt)}.`;
    if (link.state === "refused") return { tone: "bad", text: `${link.detail}.` };
    if (link.state === "lost") return { tone: "bad", text: `No connection to the broker ${link.address} since ${Format.time(link.since)}; trying again.${then}` };
    if (link.state === "connecting") return now - link.since > 1500 ? { tone: "warn", text: `Connecting to the broker ${link.address} …` } : null;
    if (link.detail) return { tone: "warn", text: `${link.detail}.` };
    if (!status) return now - link.since < 3000 ? null : { tone: "warn", text: `Nothing is published under the prefix ${prefix} at ${link.address}: is an aggregator running there?` };
    if (status.phase === "finished") return { tone: "good", text: "The run is finished. Connected edges still answer prediction requests." };
    if (status.phase === "failed") return { tone: "bad", text: "The run failed; the aggregator's terminal and log say why." };
    if (status.phase === "interrupted") return { tone: "warn", text: "The run was interrupted. Continue it with fl-aggregator start --resume." };
    if (aggregator?.state === "offline") return { tone: "bad", text: `The aggregator is offline.${then} Edges keep their updates until it is back.` };
    if (age > STALE_AFTER) return { tone: "bad", text: `No message from the aggregator for ${Format.seconds(age / 1000)}.${then}` };
    if (status.paused) {
      const end = status.held ? ". Continue it with fl-aggregator resume." : "";
      return { tone: "warn", text: `The run is paused: ${status.paused}${end}` };
    }
    return null;
  }

  function draw(federation, link, prefix, now) {
    const found = judge(federation, link, prefix, now);
    place.hidden = found === null;
    if (found) {
      place.dataset.tone = found.tone;
      Elements.say(place, found.text);
    }
    const stale = link.state === "connected" && !federation.over && (federation.age(now) ?? 0) > STALE_AFTER;
    const offline = federation.aggregator?.state === "offline" && !federation.over;
    const shown = link.state !== "connected" ? link.state : offline || stale ? "stale" : federation.over ? "over" : "connected";
    pill.dataset.state = shown;
    const words = { connecting: "Connecting", connected: "Live", lost: "Reconnecting", refused: "Refused", stale: "Stale", over: "Ended" };
    Elements.say(pillText, words[shown]);
    pill.setAttribute("aria-label", `${words[shown]}: broker settings`);
    pill.title = `${link.address}, prefix ${prefix}`;
  }

  return { draw };
})();
