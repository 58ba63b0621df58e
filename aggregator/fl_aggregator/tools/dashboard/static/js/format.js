"use strict";

/** Formats numbers, sizes and times for people. Unknown values become a dash. */
const Format = (() => {
  const DASH = "–";
  /** Compares names so that 9 comes before 10. */
  const collator = new Intl.Collator("en", { numeric: true });
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

  /** @param {?number} value a fraction @param {number} [digits] */
  const percent = (value, digits = 1) => (value == null ? DASH : `${(100 * value).toFixed(digits)} %`);

  /** @param {?number} value */
  const decimal = (value) => {
    if (value == null) return DASH;
    const size = Math.abs(value);
    if (size !== 0 && (size < 0.001 || size >= 1e6)) return value.toExponential(2);
    return value.toFixed(size < 10 ? 3 : size < 1000 ? 1 : 0);
  };

  /** Three digits, as short as they can be. @param {number} value */
  const short = (value) => (value !== 0 && (Math.abs(value) < 0.001 || Math.abs(value) >= 1e6) ? value.toExponential().replace(/^(-?\d(?:\.\d{1,2})?)\d*/, "$1") : String(+value.toPrecision(3)));

  /** A value of a metric with its unit; the unit % says that the value is a fraction. @param {?number} value @param {{unit: string}} metric */
  const measured = (value, { unit }, digits = 1) => {
    if (unit === "%") return percent(value, digits);
    return value == null || unit === "" ? decimal(value) : `${decimal(value)} ${unit}`;
  };

  /** What an edge's own model is worth, and the run's last model before. @param {?{before: number, after: number}} score */
  const gained = (score, metric) => (score == null ? DASH : `${measured(score.before, metric)} → ${measured(score.after, metric)}`);

  /** @param {?number} value */
  const count = (value) => (value == null ? DASH : value.toLocaleString("en").replaceAll(",", "\u202f"));

  /** @param {?number} value bytes; powers of 1,000 */
  const bytes = (value) => {
    if (value == null) return DASH;
    const units = ["B", "kB", "MB", "GB", "TB"];
    let unit = 0;
    while (value >= 999.5 && unit < units.length - 1) {
      value /= 1000;
      unit += 1;
    }
    return `${unit === 0 || value >= 100 ? value.toFixed(0) : value.toFixed(1)} ${units[unit]}`;
  };

  /** @param {?number} value seconds */
  const seconds = (value) => {
    if (value == null) return DASH;
    if (value > 0 && value < 0.1) return `${Math.ceil(1000 * value)} ms`;
    if (value < 10) return `${value.toFixed(1)} s`;
    if (value < 100) return `${Math.round(value)} s`;
    if (value < 5400) return `${Math.floor(value / 60)} min ${String(Math.floor(value % 60)).padStart(2, "0")} s`;
    if (value < 172800) return `${Math.floor(value / 3600)} h ${String(Math.floor((value % 3600) / 60)).padStart(2, "0")} min`;
    return `${Math.round(value / 86400)} days`;
  };

  /** An estimated duration, rounded coarsely. @param {?number} value seconds */
  const roughly = (value) => {
    if (value == null) return DASH;
    if (value < 90) return `≈ ${Math.ceil(value)} s`;
    if (value < 5400) return `≈ ${Math.round(value / 60)} min`;
    return value < 172800 ? `≈ ${Math.floor(value / 3600)} h ${Math.round((value % 3600) / 60)} min` : `≈ ${Math.round(value / 86400)} days`;
  };

  /** @param {number} at milliseconds since 1970 */
  const time = (at) => clock.format(new Date(at));

  /** Some names, and how many more there are. @param {string[]} all @param {number} [shown] */
  const names = (all, shown = 5) =>
    all.length <= shown + 1 ? all.join(", ") : `${all.slice(0, shown).join(", ")} and ${all.length - shown} more`;

  /** @param {number} number @param {string} one @param {string} [many] */
  const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

  return { DASH, collator, percent, decimal, short, measured, gained, count, bytes, seconds, roughly, time, names, plural };
})();
