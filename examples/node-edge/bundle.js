/** Bundles the worker of the dashboard, with the licences of what is in it: `node bundle.js DIRECTORY`. */

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { build } from "esbuild";

const HEAD = "/* The edge of examples/node-edge, for browsers. Made by `npm run bundle` there; do not edit. */";
const [, , directory] = process.argv;

const { metafile, outputFiles } = await build({
  entryPoints: ["src/browser.js"],
  bundle: true,
  minify: true,
  charset: "utf8",
  format: "iife",
  target: "es2022",
  legalComments: "none",
  banner: { js: HEAD },
  metafile: true,
  write: false,
});
const packages = new Set(Object.keys(metafile.inputs).map((path) => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1]));
packages.delete(undefined);
const licences = [...packages].sort().map((name) => {
  const { version } = JSON.parse(readFileSync(join("node_modules", name, "package.json"), "utf8"));
  return `# ${name} ${version}\n\n${readFileSync(join("node_modules", name, "LICENSE"), "utf8").trim()}\n`;
});
mkdirSync(directory, { recursive: true });
writeFileSync(join(directory, "worker.js"), outputFiles[0].text);
writeFileSync(join(directory, "worker.LICENSE"), licences.join("\n"));
