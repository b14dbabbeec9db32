// Bundles the tests with what they test, for a browser's modules are not node's, and runs them.
import { spawnSync } from "node:child_process";
import { build } from "rolldown";

// What format.ts asks a browser for.
const banner = `globalThis.localStorage = { getItem: () => null, setItem() {} }; globalThis.addEventListener ??= () => {}; globalThis.location ??= { pathname: "/", search: "" };`;
const file = "node_modules/.test/page.test.mjs";
await build({ input: "test/page.test.mjs", output: { file, format: "esm", banner }, platform: "node", moduleTypes: { ".css": "empty" }, logLevel: "silent", transform: { jsx: { importSource: "preact" } } });
process.exitCode = spawnSync(process.execPath, ["--test", "--test-reporter=dot", file], { stdio: "inherit", env: { ...process.env, TZ: "Europe/Berlin" } }).status ?? 1;
