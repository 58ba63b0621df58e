/** Messages that are repeated until they are answered, after growing, jittered pauses (protocol, 4.2 and 5.5). */

/** @param {number} first @param {number} longest seconds @returns {() => number} the next pause, in seconds */
export function growingPauses(first, longest) {
  let next = first;
  return () => {
    const pause = Math.min(longest, next * (1 + 0.25 * Math.random()));
    next = Math.min(longest, 2 * next);
    return pause;
  };
}

/** Calls `send` at once if `now`, and then after each pause until it is stopped. */
export class Repeater {
  constructor(send, first, longest, now = true) {
    this.send = send;
    this.pauses = growingPauses(first, longest);
    if (now) send();
    this.wait();
  }

  wait() {
    this.timer = setTimeout(() => {
      this.send();
      this.wait();
    }, 1000 * this.pauses());
  }

  stop() {
    clearTimeout(this.timer);
  }
}
