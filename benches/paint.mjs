// The page in a browser: when each view is first painted, when its data is there, and what the page weighs.
//
//     MODULES=$PWD/.cache/peers/browser CHROMIUM=$(tests/peers/browser.sh bin) node benches/paint.mjs http://127.0.0.1:9464 [TIMES] [QUERY]
//
// Each visit is a browser's first: a context of its own, nothing cached. Medians and worst of TIMES visits (7), in
// milliseconds since the navigation began. QUERY is a window for all views, as `last=90d`.
import { createRequire } from "node:module";
import { join } from "node:path";

const [base, times = "7", query = ""] = process.argv.slice(2);
const { chromium } = createRequire(join(process.env.MODULES, "index.js"))("playwright-core");
const VIEWS = ["/", "/tokens", "/quality", "/operations", "/samples", "/monitors", "/alerts", "/health"];
const WAIT_MS = 120_000;

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"] });

async function visit(view) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 } });
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS);
  await page.goto(`${base}${view}${query && `?${query}`}`);
  await page.waitForSelector("h1");
  await page.waitForFunction(() => !document.querySelector(".sketch, [aria-busy=true]"));
  const seen = await page.evaluate(() => {
    const paint = performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? null;
    const files = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
    const isPage = ({ name }) => !/\/(api|metrics)/.test(new URL(name).pathname);
    const of = files.filter((file) => !isPage(file)).map((file) => file.responseEnd);
    return { paint, bytes: files.filter(isPage).reduce((sum, file) => sum + file.encodedBodySize, 0), data: Math.max(...of, 0) };
  });
  await context.close();
  return seen;
}

const middle = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
const told = (values) => `${Math.round(middle(values))}, ${Math.round(Math.max(...values))}`;
await visit("/"); // the browser's own first steps
console.log("| View | First paint | Last data | Page, compressed |\n|---|--:|--:|--:|");
for (const view of VIEWS) {
  const visits = [];
  for (let time = 0; time < Number(times); time++) visits.push(await visit(view));
  const of = (name) => visits.map((seen) => seen[name]);
  console.log(`| \`${view}\` | ${told(of("paint"))} ms | ${told(of("data"))} ms | ${(Math.max(...of("bytes")) / 1000).toFixed(1)} kB |`);
}
await browser.close();
