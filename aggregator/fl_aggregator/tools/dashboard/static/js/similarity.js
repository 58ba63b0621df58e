"use strict";

/**
 * Who is unlike the others: the edges that stand out, the groups of edges that are alike, and the cosines of all pairs
 * as a map, groups side by side. The same is a table, for users who cannot see the map.
 */
const Similarity = (() => {
  const { byId, make, say, table } = Elements;
  const [canvas, drawing, details] = [byId("similarity-map"), byId("similarity-drawing"), byId("similarity-details")];
  /** Of the map, in CSS pixels: its largest side, and the sides of a cell: the largest, and from which on it has a name or a number. */
  const [MOST, LARGEST, NAMED, NUMBERED] = [620, 40, 10, 26];
  const FONT = "system-ui, -apple-system, sans-serif";
  const MOST_NAMES = 24;

  let key = "";
  /** The map that is shown. @type {?Record<string, any>} */
  let found = null;
  /** The number of each edge's group, from 0. @type {number[]} */
  let groupOf = [];
  /** Where the map begins beside the names, and the side of a cell. */
  let [left, side] = [0, 1];
  /** The pair that is pointed at. @type {?[number, number]} */
  let pair = null;

  const decimal = (value) => (value / 100).toFixed(2).replace("-", "−");
  /** @param {number} one */
  const inGroup = (one) => (found.groups[groupOf[one]] === 1 ? "alone" : `group ${groupOf[one] + 1}`);
  const marked = (name) => (found.outliers.has(name) ? `⚠ ${name}` : name);

  /** 100 × the cosine. @param {number} one @param {number} other */
  function cosine(one, other) {
    if (one === other) return 100;
    const [i, j] = [Math.min(one, other), Math.max(one, other)];
    return found.cosines[(i * (2 * found.edges.length - i - 1)) / 2 + j - i - 1];
  }

  /** The edge that is most alike. @param {number} one */
  function nearest(one) {
    const others = found.edges.map((_, other) => other).filter((other) => other !== one);
    return others.reduce((best, other) => (cosine(one, other) > cosine(one, best) ? other : best));
  }

  /** @param {?Record<string, any>} similarity of the newest compared round */
  function draw(similarity) {
    byId("similarity").hidden = similarity === null;
    const now = similarity === null ? "" : JSON.stringify([similarity.round, similarity.edges, similarity.groups, [...similarity.outliers], String(similarity.cosines)]);
    if (now === key) return;
    [key, found, pair] = [now, similarity, null];
    if (found === null) return;
    groupOf = found.groups.flatMap((size, group) => Array(size).fill(group));
    byId("similarity-outliers").replaceChildren(...(found.outliers.size === 0 ? [make("li", {}, "Nobody is unlike the others.")]
      : [...found.outliers].map(([name, why]) => make("li", { "data-tone": "warn" }, `⚠ Edge ${name}: ${why}`))));
    byId("similarity-pairs").hidden = found.edges.length === 0;
    if (found.edges.length > 0) {
      byId("similarity-groups").replaceChildren(...groups());
      canvas.setAttribute("aria-label", `Cosines of the updates of ${Format.plural(found.edges.length, "edge")} in ${Format.plural(found.groups.length, "group")}. Arrow keys read single pairs; a table follows.`);
      paint();
      fill();
    }
    read();
  }

  /** A line for each group with its mean cosine, and one for all edges that are alone. */
  function groups() {
    let begin = 0;
    const lines = [];
    const alone = [];
    for (const [group, size] of found.groups.entries()) {
      const names = found.edges.slice(begin, begin + size).map(marked);
      if (size === 1) alone.push(...names);
      else {
        let sum = 0;
        for (let one = begin; one < begin + size; one += 1) for (let other = begin; other < one; other += 1) sum += cosine(one, other);
        const mean = decimal(sum / ((size * (size - 1)) / 2));
        lines.push(make("li", {}, make("b", {}, `Group ${group + 1}: `), Format.names(names, MOST_NAMES), make("span", { class: "more" }, ` (${Format.plural(size, "edge")}, mean cosine ${mean})`)));
      }
      begin += size;
    }
    if (alone.length > 0) lines.push(make("li", {}, make("b", {}, "Alone: "), Format.names(alone, MOST_NAMES)));
    return lines;
  }

  function paint() {
    if (!found?.edges.length || drawing.clientWidth === 0) return;
    const { edges } = found;
    const context = canvas.getContext("2d");
    const style = getComputedStyle(byId("similarity"));
    const colour = (name) => style.getPropertyValue(name).trim();
    const ratio = devicePixelRatio;
    context.font = `700 11px ${FONT}`;
    const labels = edges.map((name) => marked(name.length > 12 ? `${name.slice(0, 11)}…` : name));
    const gutter = Math.ceil(Math.max(...labels.map((label) => context.measureText(label).width))) + 8;
    // Whole pixels of the screen, so that all cells are of one size.
    const fit = (from) => Math.max(Math.floor(Math.min((Math.min(drawing.clientWidth, MOST) - from) / edges.length, LARGEST) * ratio), 1) / ratio;
    const named = fit(gutter) >= NAMED;
    left = named ? gutter : 8;
    side = fit(left);
    const [width, height] = [left + side * edges.length, side * edges.length];
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    [canvas.style.inlineSize, canvas.style.blockSize] = [`${width}px`, `${height}px`];
    context.scale(ratio, ratio);

    const numbered = side >= NUMBERED;
    const gap = side > 6 ? 1 : 0;
    const shades = [colour("--alike"), colour("--opposite")];
    for (let row = 0; row < edges.length; row += 1) {
      for (let column = 0; column < edges.length; column += 1) {
        const value = cosine(row, column);
        // Behind a number the colour is half as strong, for the contrast.
        context.globalAlpha = (Math.abs(value) / 100) * (numbered ? 0.5 : 1);
        context.fillStyle = shades[value < 0 ? 1 : 0];
        context.fillRect(left + column * side, row * side, side - gap, side - gap);
      }
    }
    context.globalAlpha = 1;
    context.textBaseline = "middle";
    for (const [row, label] of labels.entries()) {
      const outlier = found.outliers.has(edges[row]);
      context.fillStyle = colour(outlier ? "--warn" : "--ink");
      context.font = `${outlier ? "700 " : ""}11px ${FONT}`;
      context.textAlign = "end";
      if (named) context.fillText(label, left - 5, (row + 0.5) * side);
      else if (outlier) context.fillRect(0, row * side, left - 2, side);
    }
    if (numbered) {
      context.font = `11px ${FONT}`;
      context.fillStyle = colour("--ink");
      context.textAlign = "center";
      for (let row = 0; row < edges.length; row += 1) {
        for (let column = 0; column < edges.length; column += 1) {
          context.fillText((cosine(row, column) / 100).toFixed(1).replace("-", "−").replace("0.", "."), left + (column + 0.5) * side - gap, (row + 0.5) * side);
        }
      }
    }
    context.strokeStyle = colour("--ink");
    context.lineWidth = 1.5;
    let begin = 0;
    for (const size of found.groups) {
      context.strokeRect(left + begin * side + 0.5, begin * side + 0.5, size * side - 1, size * side - 1);
      begin += size;
    }
    if (pair === null) return;
    context.lineWidth = 3;
    context.strokeRect(left + pair[1] * side + 1, pair[0] * side + 1, Math.max(side - 2, 2), Math.max(side - 2, 2));
  }

  /** Fills the table when it is open. */
  function fill() {
    if (!details.open || !found) return;
    const rows = found.edges.map((name, one) => {
      const next = nearest(one);
      return [name, inGroup(one), `${found.edges[next]} (${decimal(cosine(one, next))})`, found.outliers.has(name) ? `⚠ ${found.outliers.get(name)}` : ""];
    });
    details.querySelector("table").replaceChildren(...table(["Edge", "Group", "Nearest edge", "Unlike the others"], rows, "Edges by group, with the one that is most alike"));
  }

  function read() {
    const many = found.edges.length === 0 ? "more than 100 edges, too many for a map" : Format.plural(found.edges.length, "edge");
    if (pair === null) return say(byId("similarity-readout"), `round ${found.round}: ${many}`);
    const [one, other] = pair;
    const where = groupOf[one] === groupOf[other] ? inGroup(one) : `${inGroup(one)}, ${inGroup(other)}`;
    return say(byId("similarity-readout"), `${found.edges[one]} and ${found.edges[other]}: cosine ${decimal(cosine(one, other))} (${where})`);
  }

  /** @param {?[number, number]} next */
  function point(next) {
    if (!found || String(next) === String(pair)) return;
    pair = next;
    paint();
    read();
  }

  function pointed(event) {
    const box = canvas.getBoundingClientRect();
    const cell = [event.clientY - box.top, event.clientX - box.left - left].map((at) => Math.floor(at / side));
    point(cell.every((at) => at >= 0 && at < found.edges.length) ? cell : null);
  }

  canvas.addEventListener("pointermove", pointed);
  canvas.addEventListener("pointerdown", pointed);
  canvas.addEventListener("pointerleave", () => point(null));
  canvas.addEventListener("blur", () => point(null));
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    const from = pair ?? [0, 0];
    point(pair === null ? from : from.map((at, axis) => Math.min(Math.max(at + move[axis], 0), found.edges.length - 1)));
  });
  details.addEventListener("toggle", fill);
  new ResizeObserver(paint).observe(drawing);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);

  return { draw };
})();
