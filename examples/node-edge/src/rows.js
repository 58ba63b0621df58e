/** Reads examples from CSV (inputs, and the class at the end of each row) or JSON (`{"inputs": [[…], …], "labels": […]}`). */

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** @param {string} text @param {string} name of the file, for messages @returns {{inputs: number[][], labels: number[]}} */
export function parseRows(text, name) {
  return text.trimStart().startsWith("{") ? fromJson(text, name) : fromCsv(text, name);
}

function fromJson(text, name) {
  const { inputs, labels } = JSON.parse(text);
  if (!Array.isArray(inputs) || !Array.isArray(labels) || inputs.length !== labels.length) {
    throw new Error(`${name}: expected {"inputs": [[numbers], …], "labels": [class, …]}, as many labels as inputs`);
  }
  inputs.forEach((row, index) => {
    if (!Array.isArray(row) || !row.every(isNumber)) throw new Error(`${name}: inputs ${index + 1} are not numbers`);
  });
  return { inputs, labels };
}

function fromCsv(text, name) {
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== "");
  const rows = lines.map((line) => line.split(",").map((cell) => (cell.trim() === "" ? NaN : Number(cell))));
  if (rows.length > 0 && rows[0].some(Number.isNaN)) rows.shift(); // names of columns
  rows.forEach((row, index) => {
    if (!row.every(isNumber)) throw new Error(`${name}: row ${index + 1} of the data has a cell that is no number`);
  });
  return { inputs: rows.map((row) => row.slice(0, -1)), labels: rows.map((row) => row.at(-1)) };
}

/** Unpacks what GZIP packed; leaves all else as it is. @param {Uint8Array} bytes @returns {Promise<string>} */
export async function unpacked(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return new TextDecoder().decode(bytes);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}
