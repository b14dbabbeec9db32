// Drives a real browser through the console page of a real flowtap.
//
//     node tests/e2e/page.mjs http://127.0.0.1:9464 [FOLDER]
//
// CHROMIUM names the browser, MODULES the folder whose node_modules hold playwright-core and axe-core.
// Every fault is a line on standard error, and the end is 1. With FOLDER, each view is saved there as a
// picture, light and dark, wide and narrow.
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [base, pictures] = process.argv.slice(2);
const require = createRequire(join(process.env.MODULES, "index.js"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const VIEWS = ["/", "/tokens", "/quality", "/operations", "/samples", "/monitors", "/alerts", "/health"];
const SCREENS = [
  { name: "wide", width: 1440, height: 900, colorScheme: "light" },
  { name: "wide-dark", width: 1440, height: 900, colorScheme: "dark" },
  { name: "narrow", width: 360, height: 740, colorScheme: "light" },
  { name: "wall", width: 3840, height: 2160, colorScheme: "dark" },
];
/** A view has this long to show its data. */
const SHOWN_WITHIN_MS = 15_000;

const faults = [];
const check = (held, told) => held || faults.push(told);

/** A page on which nothing may go wrong unseen: messages, failures, other hosts, dialogs. */
async function watched(browser, screen, where) {
  const context = await browser.newContext({ viewport: screen, colorScheme: screen.colorScheme, timezoneId: "Europe/Berlin" });
  const page = await context.newPage();
  page.setDefaultTimeout(SHOWN_WITHIN_MS);
  page.on("console", (told) => ["error", "warning"].includes(told.type()) && faults.push(`${where()}: the console says: ${told.text()}`));
  page.on("pageerror", (error) => faults.push(`${where()}: a script failed: ${error.message}`));
  page.on("dialog", (dialog) => (faults.push(`${where()}: a dialog opened: ${dialog.message()}`), dialog.dismiss()));
  page.on("request", (request) => new URL(request.url()).origin === new URL(base).origin || faults.push(`${where()}: a request left for ${request.url()}`));
  return page;
}

/** Opens a view and waits until nothing of it is on its way any more. */
async function open(page, path) {
  await page.goto(base + path);
  await page.waitForSelector("h1");
  await page.waitForFunction(() => !document.querySelector(".sketch, [aria-busy=true]"));
}

async function looksRight(page, screen, view) {
  const where = `${screen.name} ${view}`;
  const failed = await page.locator(".failed").allInnerTexts();
  check(failed.length === 0, `${where}: ${failed.join("; ")}`);
  const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  check(wider <= 0, `${where}: ${wider} pixels wider than the screen`);
  // Read by the browser's own side: the page's policy lets no text become a script.
  const found = await page.evaluate(`${axe}; axe.run()`);
  for (const violation of found.violations) {
    const nodes = violation.nodes.slice(0, 3).map((node) => `${node.target} ${node.any[0]?.message ?? ""}`);
    faults.push(`${where}: axe: ${violation.id}: ${nodes.join(" | ")}`);
  }
}

async function everyViewOnEveryScreen(browser) {
  for (const screen of SCREENS) {
    let view = "";
    const page = await watched(browser, screen, () => `${screen.name} ${view}`);
    const sample = (await (await page.request.get(`${base}/api/v1/samples?limit=1`)).json()).samples[0];
    for (view of [...VIEWS, `/samples/${sample.id}`]) {
      await open(page, view);
      await looksRight(page, screen, view);
      if (pictures) {
        mkdirSync(pictures, { recursive: true });
        const name = view === "/" ? "overview" : view.startsWith("/samples/") ? "sample" : view.slice(1);
        await page.screenshot({ path: join(pictures, `${name}-${screen.name}.png`), fullPage: true });
      }
    }
    await page.context().close();
  }
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
});
try {
  await everyViewOnEveryScreen(browser);
} catch (error) {
  faults.push(String(error.stack ?? error));
} finally {
  await browser.close();
}
for (const fault of faults) console.error(fault);
process.exitCode = faults.length ? 1 : 0;
