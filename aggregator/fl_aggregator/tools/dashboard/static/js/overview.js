"use strict";

/** The head of the page: the name of the run, its progress and its numbers. */
const Overview = (() => {
  const { byId, make, say } = Elements;
  const STAGES = ["selecting", "collecting", "agreeing", "unmasking", "aggregating", "buffering", "evaluating"];
  /** The phases of a masked round in which its edges answer, and what is counted then. */
  const ANSWERS = { agreeing: "Signatures", unmasking: "Shares" };
  const MASKED = Object.keys(ANSWERS);
  const MAX_SEGMENTS = 60;

  /** @param {Federation} federation */
  function title({ status }) {
    if (!status) return "Waiting for a run";
    const version = status.version ?? 0;
    const words = { finished: "Finished", failed: "Failed", interrupted: "Interrupted" };
    if (words[status.phase]) return `${words[status.phase]}: ${version} of ${status.rounds} versions`;
    if (status.phase === "selecting" && status.version === null) return "Waiting for edges";
    // Round 0 creates the initial weights.
    if (status.round === 0) return "First weights";
    const next = `Version ${Math.min(version + 1, status.rounds)} of ${status.rounds}`;
    // The two differ after a round was abandoned.
    return status.round === null || status.round === version + 1 || status.round <= version ? next : `${next}, round ${status.round}`;
  }

  /** Draws one segment for each round; if there are too many, one bar. */
  function strip(federation) {
    const { status } = federation;
    const place = byId("strip");
    const columns = federation.history?.columns;
    const done = status?.version ?? 0;
    const planned = Math.max(status?.rounds ?? 0, 1);
    const abandoned = columns ? columns.version.filter((version) => version === null).length : 0;
    place.setAttribute("aria-label", status ? `${done} of ${planned} versions made, ${Format.plural(abandoned, "round")} abandoned` : "No round yet");
    const parts = [];
    if (planned + abandoned > MAX_SEGMENTS) {
      parts.push(["done", done], [federation.over ? "open" : "now", 1], ["open", Math.max(planned - done - 1, 0)]);
    } else {
      const rounds = columns ? columns.version.map((version) => (version === null ? "abandoned" : "done")) : [];
      const made = rounds.filter((one) => one === "done").length;
      rounds.push(...Array(Math.max(done - made, 0)).fill("done"));
      const left = Math.max(planned - Math.max(done, made), 0);
      rounds.push(...Array.from({ length: left }, (_, index) => (index === 0 && !federation.over ? "now" : "open")));
      parts.push(...rounds.map((one) => [one, 1]));
    }
    const key = parts.map(([kind, size]) => `${kind}${size}`).join();
    if (place.dataset.key === key) return;
    place.dataset.key = key;
    place.replaceChildren(...parts.filter(([, size]) => size > 0).map(([kind, size]) => {
      const part = make("span", { "data-kind": kind });
      part.style.flexGrow = String(size);
      return part;
    }));
  }

  /** Estimated seconds until the run's end, from its last rounds; null if unknown. @param {Federation} federation */
  function runLeft(federation) {
    const { status, history } = federation;
    if (!status || federation.over || !history || history.columns.round.length === 0) return null;
    const last = history.columns.seconds.slice(-5).sort((a, b) => a - b);
    const typical = last[Math.floor(last.length / 2)];
    return Math.max(status.rounds - (status.version ?? 0), 0) * typical;
  }

  /** @param {?number[]} column @returns {string} how the last value compares with the one before */
  function trend(column, show) {
    const known = (column ?? []).filter((value) => value !== null);
    if (known.length < 2) return "";
    const change = known.at(-1) - known.at(-2);
    return `${change > 0 ? "▲" : change < 0 ? "▼" : "="} ${show(Math.abs(change))} since the last`;
  }

  /** Shows what the edges' own models are worth: the mean, and the three worst. @param {Map<string, object>} edges @param {object} metric */
  function personal(edges, metric) {
    const known = [...edges].flatMap(([client, edge]) => (edge.personal === null ? [] : [[client, edge.personal]]));
    byId("f-personal-box").hidden = known.length === 0;
    if (known.length === 0) return;
    const mean = (when) => known.reduce((sum, [, score]) => sum + score[when], 0) / known.length;
    say(byId("f-personal"), Format.gained({ before: mean("before"), after: mean("after") }, metric));
    const worst = known.toSorted(([, a], [, b]) => (metric.higher_is_better ? a.after - b.after : b.after - a.after)).slice(0, 3);
    say(byId("f-personal-more"), [`mean of ${Format.plural(known.length, "edge")}; worst:`, ...worst.map(([client, score]) => `${client}: ${Format.gained(score, metric)}`)].join("\n"));
  }

  /** Shows what the aggregator sees of the edges' updates. @param {Federation} federation */
  function seen({ status, masked }) {
    say(byId("f-seen"), status === null ? Format.DASH : masked === null ? "Each update" : "Sums only");
    byId("f-seen-more").dataset.tone = masked !== null && !masked.certified ? "bad" : "";
    const keys = masked === null || masked.certified ? "" : "\nkeys not certified: no kits";
    say(byId("f-seen-more"), masked === null ? "" : `of at least ${Format.plural(masked.least, "update")}${keys}`);
  }

  const SEES = { wire: "to who sees models and who took part", models: "to who sees the models only" };

  /** Shows what the versions have told about an edge, beside the budget. @param {Federation} federation */
  function privacy({ privacy: spent }) {
    byId("f-privacy-box").hidden = spent === null;
    if (spent === null) return;
    const { epsilon, budget, delta, against, insecure } = spent;
    say(byId("f-privacy"), budget === null ? Format.short(epsilon) : `${Format.short(epsilon)} of ${Format.short(budget)}`);
    byId("f-privacy-bar").hidden = !budget;
    if (budget) byId("f-privacy-bar").value = Math.min(epsilon / budget, 1);
    byId("f-privacy-more").dataset.tone = insecure ? "bad" : "";
    const loud = insecure ? "noise from a known seed: not private\n" : "";
    say(byId("f-privacy-more"), `${loud}at δ = ${Format.short(delta)},\n${SEES[against]}`);
  }

  /** @param {Federation} federation @param {Map<string, object>} edges @param {number} now */
  function draw(federation, edges, now) {
    const { status } = federation;
    const columns = federation.history?.columns ?? null;
    const run = federation.run;
    say(byId("which"), run === null ? "" : `${status?.task ?? federation.history?.task ?? ""} · run ${run}${status?.attack ? ` · ${status.attack}` : ""}`);
    say(byId("overview-title"), title(federation));
    document.title = status ? `${title(federation)} · fl-mqtt` : "fl-mqtt";
    const asynchronous = status?.phase === "buffering" || Boolean(columns?.metrics.has("staleness_mean"));
    for (const stage of byId("stages").children) {
      if (stage.dataset.stage === "buffering") stage.hidden = !asynchronous;
      if (MASKED.includes(stage.dataset.stage)) stage.hidden = federation.masked === null;
      if (["collecting", "aggregating"].includes(stage.dataset.stage)) stage.hidden = asynchronous;
      const current = stage.dataset.stage === status?.phase;
      if (current) stage.setAttribute("aria-current", "step");
      else stage.removeAttribute("aria-current");
      stage.dataset.past = String(!current && STAGES.indexOf(stage.dataset.stage) < STAGES.indexOf(status?.phase ?? ""));
    }
    strip(federation);

    const { primary } = federation;
    const known = (columns?.metrics.get(primary.name) ?? []).filter((value) => value !== null);
    const best = known.reduce((one, other) => ((other > one) === primary.higher_is_better ? other : one), known[0] ?? null);
    byId("f-primary").parentElement.hidden = primary === Federation.LOSS;
    say(byId("f-primary-name"), status?.split ? `${primary.name} (${status.split})` : primary.name);
    say(byId("f-primary"), Format.measured(status?.metrics.get(primary.name) ?? null, primary));
    say(byId("f-primary-more"), best === null ? "" : `best ${Format.measured(best, primary)}`);
    say(byId("f-loss"), Format.decimal(status?.metrics.get("loss") ?? null));
    say(byId("f-loss-more"), trend(columns?.metrics.get("loss"), Format.decimal));
    const open = status && !federation.over && ["collecting", ...MASKED].includes(status.phase);
    // Before a round, the numbers count edges; after the run, they have no meaning.
    const counted = status && !federation.over && status.phase !== "evaluating";
    say(byId("f-updates-name"), status?.phase === "selecting" ? "Edges ready" : ANSWERS[status?.phase] ?? "Updates in");
    say(byId("f-updates"), counted ? `${Format.count(status.have)} of ${Format.count(status.need)}` : Format.DASH);
    byId("f-updates-bar").value = counted && status.need > 0 ? Math.min(status.have / status.need, 1) : 0;
    let present = 0;
    let evaluators = 0;
    for (const [client, edge] of edges) {
      if (edge.reason === "only evaluates") {
        evaluators += 1;
        continue;
      }
      if (edge.state !== "offline" && federation.presence.get(client)?.state !== "offline") present += 1;
    }
    say(byId("f-present"), edges.size ? Format.count(present) : Format.DASH);
    say(byId("f-present-more"), edges.size ? `of ${Format.count(edges.size - evaluators + federation.leftOut)} known${evaluators ? `, ${Format.count(evaluators)} evaluating` : ""}` : "");

    const { worst } = federation;
    byId("f-worst-box").hidden = worst === null;
    if (worst !== null) {
      const metric = worst.primary ?? Federation.LOSS;
      // Sorted again, since JavaScript puts keys that are whole numbers first.
      const ranked = [...worst.worst_edges].sort(([, a], [, b]) => (metric.higher_is_better ? a - b : b - a))
        .map(([name, value]) => `${name} ${Format.measured(value, metric)}`);
      say(byId("f-worst"), ranked[0]);
      say(byId("f-worst-more"), [...ranked.slice(1), `mean ${Format.measured(worst.metrics.get("edges_mean") ?? null, metric)}`].join(" · "));
    }

    seen(federation);
    privacy(federation);
    personal(edges, primary);

    const left = runLeft(federation);
    const since = federation.age(now) ?? 0;
    const roundLeft = open && status.seconds_left !== null ? Math.max(status.seconds_left - (status.paused ? 0 : since / 1000), 0) : null;
    say(byId("f-left"), federation.over ? "none" : Format.roughly(left));
    say(byId("f-left-more"), roundLeft === null ? "" : `${MASKED.includes(status.phase) ? "this phase" : "this round"} ≤ ${Format.seconds(roundLeft)}`);
    // The history of a long run is thinned: each row represents several rounds.
    const thinned = columns?.round.length ? (columns.round.at(-1) - columns.round[0] + 1) / columns.round.length : 1;
    const sum = (column) => thinned * (column ?? []).reduce((total, value) => total + value, 0);
    const [up, down] = [sum(columns?.bytes_up), sum(columns?.bytes_down)];
    say(byId("f-bytes"), columns?.round.length ? (thinned > 1 ? "≈ " : "") + Format.bytes(up + down) : Format.DASH);
    say(byId("f-bytes-more"), columns?.round.length ? `↑ ${Format.bytes(up)}  ↓ ${Format.bytes(down)}` : "");
  }

  return { draw };
})();
