"use strict";

/** A canvas of 28 × 28 pixels for mouse, pen, finger or keyboard. Light on dark, as in data sets of digits. */
class Sketch {
  /** @param {HTMLCanvasElement} canvas @param {{onChange: () => void, onDone: () => void}} told */
  constructor(canvas, told) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.told = told;
    this.pixels = new Float32Array(Sketch.SIDE ** 2);
    this.last = null;
    /** The position of the keyboard's pen. */
    this.pen = { x: 13.5, y: 5.5, down: false };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.last = null;
      this.#line(this.#where(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (this.last === null || !canvas.hasPointerCapture(event.pointerId)) return;
      for (const one of event.getCoalescedEvents?.() ?? [event]) this.#line(this.#where(one));
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, () => {
        if (this.last !== null) this.told.onDone();
        this.last = null;
      });
    }
    canvas.addEventListener("keydown", (event) => this.#key(event));
    for (const name of ["focus", "blur"]) canvas.addEventListener(name, () => this.#paint());
    this.#paint();
  }

  get empty() {
    return this.pixels.every((value) => value === 0);
  }

  clear() {
    this.pixels.fill(0);
    this.#paint();
    this.told.onChange();
  }

  /**
   * Rows of 0 to 255, with one empty pixel around. The larger size tells an edge to find and centre the digit, as in any
   * picture that has not been prepared.
   */
  rows() {
    const side = Sketch.SIDE;
    const rim = Array(side + 2).fill(0);
    const inner = Array.from({ length: side }, (_, row) => [0, ...Array.from(this.pixels.subarray(row * side, (row + 1) * side), (value) => Math.round(255 * value)), 0]);
    return [rim, ...inner, [...rim]];
  }

  #where(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * Sketch.SIDE, y: ((event.clientY - box.top) / box.height) * Sketch.SIDE };
  }

  #line(to) {
    const from = this.last ?? to;
    const steps = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y) * 3));
    for (let step = 0; step <= steps; step += 1) this.#dab(from.x + ((to.x - from.x) * step) / steps, from.y + ((to.y - from.y) * step) / steps);
    this.last = to;
    this.#paint();
    this.told.onChange();
  }

  /** Draws a soft round point: full within `RADIUS` of its centre, and zero one pixel further out. */
  #dab(x, y) {
    const reach = Sketch.RADIUS + 1;
    for (let row = Math.max(0, Math.floor(y - reach)); row < Math.min(Sketch.SIDE, y + reach); row += 1) {
      for (let column = Math.max(0, Math.floor(x - reach)); column < Math.min(Sketch.SIDE, x + reach); column += 1) {
        const ink = Math.min(1, Math.max(0, reach - Math.hypot(column + 0.5 - x, row + 0.5 - y)));
        const at = row * Sketch.SIDE + column;
        if (ink > this.pixels[at]) this.pixels[at] = ink;
      }
    }
  }

  #key(event) {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (move) {
      const limit = (value) => Math.min(Math.max(value, 0.5), Sketch.SIDE - 0.5);
      this.last = { x: this.pen.x, y: this.pen.y };
      this.pen.x = limit(this.pen.x + move[0]);
      this.pen.y = limit(this.pen.y + move[1]);
      if (this.pen.down) this.#line({ x: this.pen.x, y: this.pen.y });
      this.last = null;
      this.#paint();
    } else if (event.key === " ") {
      if (event.repeat) return event.preventDefault();
      this.pen.down = !this.pen.down;
      if (this.pen.down) this.#line({ x: this.pen.x, y: this.pen.y });
      else this.told.onDone();
      this.last = null;
      this.#paint();
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.pen.down = false;
      this.clear();
    } else if (event.key === "Enter") this.told.onDone();
    else return undefined;
    return event.preventDefault();
  }

  #paint() {
    const { context, canvas } = this;
    const size = canvas.width / Sketch.SIDE;
    context.fillStyle = "#10151f";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = "#1a2130";
    for (let line = 4; line < Sketch.SIDE; line += 4) {
      context.fillRect(line * size, 0, 1, canvas.height);
      context.fillRect(0, line * size, canvas.width, 1);
    }
    this.pixels.forEach((value, at) => {
      if (value === 0) return;
      context.fillStyle = `rgb(255 255 255 / ${value})`;
      context.fillRect((at % Sketch.SIDE) * size, Math.floor(at / Sketch.SIDE) * size, size, size);
    });
    if (document.activeElement === canvas && canvas.matches(":focus-visible")) {
      context.strokeStyle = this.pen.down ? "#ffb86b" : "#8aa4ff";
      context.lineWidth = 2;
      context.strokeRect((this.pen.x - 0.5) * size, (this.pen.y - 0.5) * size, size, size);
    }
  }
}
Sketch.SIDE = 28;
Sketch.RADIUS = 1;
