// Drives a real browser through the console page of a real flowtap.
//
//     node tests/e2e/page.mjs http://127.0.0.1:9464 [FOLDER]
//
// CHROMIUM names the browser, MODULES the folder whose node_modules hold playwright-core and axe-core,
// TAP the address of a tap of that flowtap, GUARDED the admin address of another one that asks for
// TOKEN. Every fault is a line on standard error, and the end is 1. With FOLDER, each view is saved
// there as a picture.
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [base, pictures] = process.argv.slice(2);
const { CHROMIUM, GUARDED, MODULES, TAP, TOKEN } = process.env;
const require = createRequire(join(MODULES, "index.js"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const hostile = JSON.parse(readFileSync(new URL("hostile.json", import.meta.url), "utf8"));

const VIEWS = ["/", "/tokens", "/quality", "/operations", "/samples", "/monitors", "/alerts", "/health"];
const SCREENS = [
  { name: "wide", axe: true, width: 1440, height: 900, colorScheme: "light" },
  { name: "dark", axe: true, width: 1440, height: 900, colorScheme: "dark" },
  { name: "narrow", axe: true, width: 360, height: 740, colorScheme: "light" },
  { name: "wall", width: 3840, height: 2160, colorScheme: "dark" },
];
/** A view has this long to show its data, on a busy machine. */
const SHOWN_WITHIN_MS = 120_000;
/** What a browser fetches to show the page, compressed. */
const PAGE_BYTES_MAX = 100_000;
/** A monitor of every minute has run by then, and the index has its result. */
const SAVED_RUNS_WITHIN_MS = 200_000;

const faults = [];
const check = (held, told) => held || faults.push(told);
const same = (is, wanted, what) => check(is === wanted, `${what}: shown is ${JSON.stringify(is)}, true is ${JSON.stringify(wanted)}`);
const get = async (path) => (await fetch(base + path)).json();

/** A page on which nothing may go wrong unseen: messages, failures, other hosts, dialogs. */
async function watched(browser, screen, where, origin = base) {
  const context = await browser.newContext({ viewport: screen, colorScheme: screen.colorScheme, timezoneId: "Europe/Berlin" });
  const page = await context.newPage();
  page.setDefaultTimeout(SHOWN_WITHIN_MS);
  page.on("console", (told) => ["error", "warning"].includes(told.type()) && faults.push(`${where()}: the console says: ${told.text()}`));
  page.on("pageerror", (error) => faults.push(`${where()}: a script failed: ${error.message}`));
  page.on("dialog", (dialog) => (faults.push(`${where()}: a dialog opened: ${dialog.message()}`), dialog.dismiss()));
  page.on("request", (request) => new URL(request.url()).origin === origin || faults.push(`${where()}: a request left for ${request.url()}`));
  return page;
}

/** Opens a view and waits until nothing of it is on its way any more. */
async function open(page, path) {
  await page.goto(base + path);
  await settled(page);
}

async function settled(page) {
  await page.waitForSelector("h1");
  await page.waitForFunction(() => !document.querySelector(".sketch, [aria-busy=true]"));
}

async function looksRight(page, screen, where) {
  const failed = await page.locator(".failed").allInnerTexts();
  check(failed.length === 0, `${where}: ${failed.join("; ")}`);
  const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  check(wider <= 0, `${where}: ${wider} pixels wider than the screen`);
  if (!screen.axe) return;
  // Run by the browser's own side: the page's policy lets no text become a script.
  const found = await page.evaluate(`${axe}; axe.run()`);
  for (const violation of found.violations) {
    const nodes = violation.nodes.slice(0, 3).map((node) => `${node.target} ${node.any[0]?.message ?? ""}`);
    faults.push(`${where}: axe: ${violation.id}: ${nodes.join(" | ")}`);
  }
}

async function everyViewOnEveryScreen(browser) {
  const backgrounds = {};
  const sample = (await get("/api/v1/samples?limit=1&q=waterproof")).samples[0];
  for (const screen of SCREENS) {
    let where = screen.name;
    const page = await watched(browser, screen, () => where);
    for (const view of [...VIEWS, `/samples/${sample.id}`]) {
      where = `${screen.name} ${view}`;
      await open(page, view);
      await looksRight(page, screen, where);
      if (pictures) {
        mkdirSync(pictures, { recursive: true });
        const name = view === "/" ? "overview" : view.startsWith("/samples/") ? "sample" : view.slice(1);
        await page.screenshot({ path: join(pictures, `${name}-${screen.name}.png`), fullPage: screen.name !== "wall" });
      }
    }
    backgrounds[screen.name] = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    await page.context().close();
  }
  check(backgrounds.wide !== backgrounds.dark, `light and dark look alike: ${backgrounds.wide}`);
}

/** The figure of this name, as a number: its exact form where it is shortened. */
async function figure(page, name) {
  const shown = page.locator(`[data-figure="${name}"]`).first();
  return Number(((await shown.getAttribute("title")) || (await shown.innerText())).replaceAll(/[^0-9.]/g, ""));
}

/** The sum of a family's series on /metrics. */
async function metric(family, ...labels) {
  const lines = (await (await fetch(`${base}/metrics`)).text()).split("\n");
  const series = lines.filter((line) => line.startsWith(`${family}{`) && labels.every((label) => line.includes(label)));
  return series.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
}

async function figuresAreTrue(browser) {
  const page = await watched(browser, SCREENS[0], () => "figures");
  const overview = await get("/api/v1/overview");
  await open(page, "/");
  same(await figure(page, "Requests"), overview.requests.requests, "requests, as the API has them");
  same(await figure(page, "Requests"), await metric("flowtap_requests_total"), "requests, as /metrics has them");
  same(await figure(page, "Prompt tokens"), overview.tokens.input, "prompt tokens");
  same(await figure(page, "Prompt tokens"), await metric("flowtap_tokens_total", 'type="input"'), "prompt tokens, as /metrics has them");
  same(await figure(page, "Completion tokens"), await metric("flowtap_tokens_total", 'type="output"'), "completion tokens, as /metrics has them");
  same(await figure(page, "Total tokens"), overview.tokens.total, "tokens in all");
  for (const judged of overview.quality) {
    const shown = await page.locator(`[data-score="${judged.criterion}"]`).innerText();
    same(Number(shown), Number(judged.average.toFixed(2)), `the average of ${judged.criterion}`);
  }
  const chat = await get("/api/v1/usage?tap=models&by=model");
  await open(page, "/tokens?tap=models");
  same(await figure(page, "Total tokens"), chat.tokens.total, "tokens of one tap");
  for (const group of chat.groups.filter((group) => group.group)) {
    const shown = await page.locator(`[data-share="${group.group}"]`).first().innerText();
    same(Number(shown.replaceAll(",", "")), group.tokens.total, `tokens of ${group.group}`);
  }
  const operations = await get("/api/v1/operations");
  await open(page, "/operations");
  for (const [outcome, requests] of Object.entries(operations.total.by_outcome).filter(([, requests]) => requests > 0)) {
    const shown = await page.locator(`[data-share="${outcome.replaceAll("_", " ")}"]`).innerText();
    same(Number(shown.replaceAll(",", "")), requests, `requests that ended ${outcome}`);
  }
  const health = await get("/api/v1/health");
  await open(page, "/health");
  const ledger = await page.getByRole("region", { name: "Loss ledger by hour" }).locator("tbody tr").first().innerText();
  check(ledger.includes(health.ledger.seen.toLocaleString("en")), `the ledger shows ${ledger}, seen were ${health.ledger.seen}`);
  await page.context().close();
}

/** What nobody may do without seeing it is shown by its number; the same rule as the page's, written anew. */
function spelt(text) {
  const hidden = (code) => (code < 32 && code !== 9 && code !== 10) || (code >= 127 && code < 160) || [0xad, 0x61c, 0x180e, 0x200b, 0x200e, 0x200f, 0xfeff].includes(code) || (code >= 0x2028 && code <= 0x202e) || (code >= 0x2060 && code <= 0x206f) || (code >= 0xfff9 && code <= 0xfffb) || (code >= 0xe0000 && code <= 0xe007f);
  const marks = [...text].map((mark) => (mark === "\r" ? "" : hidden(mark.codePointAt(0)) ? `U+${mark.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}` : mark));
  return marks.join("");
}

async function hostileTextIsText(browser) {
  let where = "";
  const page = await watched(browser, SCREENS[0], () => where);
  const listed = [];
  for (let next = ""; next !== null; ) {
    const answer = await get(`/api/v1/samples?limit=500${next && `&cursor=${next}`}`);
    listed.push(...answer.samples);
    next = answer.next;
  }
  const records = new Map();
  for (const sample of listed) {
    const { record } = await get(`/api/v1/samples/${sample.id}`);
    if (record?.request_id?.startsWith("hostile-")) records.set(Number(record.request_id.slice(8)), record);
  }
  check(records.size === hostile.length, `${records.size} of ${hostile.length} hostile prompts were stored`);
  // The list shows their beginnings: all of them pass by.
  where = "the list of hostile prompts";
  await open(page, "/samples?order=asc");
  for (let at = 0; at < 30 && !(await page.locator('[role="status"]').innerText()).endsWith("samples"); at++) {
    await page.locator(".list").evaluate((list) => list.scrollBy(0, list.clientHeight * 4));
    await page.waitForTimeout(150);
  }
  same((await page.locator("[data-count]").getAttribute("data-count")) ?? "", String(listed.length), "samples in the list");
  for (const [number, record] of records) {
    where = `hostile prompt ${number}`;
    same(record.question, hostile[number], `${where}, stored`);
    await open(page, `/samples/${record.id}`);
    const shown = await page.locator(".said .content").evaluateAll((said) => said.map((text) => text.textContent));
    same(shown[0], spelt(record.question), `${where}, the question`);
    same(shown[1], spelt(record.answer), `${where}, the answer`);
    const made = await page.locator(".content").evaluateAll((all) => all.flatMap((text) => [...text.querySelectorAll(":not(.mark)")].map((node) => node.outerHTML)));
    check(made.length === 0, `${where}: became markup: ${made}`);
  }
  await page.context().close();
}

async function theWindowIsInTheAddress(browser) {
  const page = await watched(browser, SCREENS[0], () => "the window");
  await open(page, "/");
  const picker = page.locator("button.window");
  check((await picker.innerText()).includes("Europe/Berlin (UTC"), "the time zone is shown");
  await picker.focus();
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Last 7 days" }).focus();
  await page.keyboard.press("Enter");
  await page.waitForURL(/last=7d/);
  await page.getByRole("link", { name: "Tokens", exact: true }).click();
  await page.waitForURL(/\/tokens\?last=7d/);
  await picker.click();
  await page.keyboard.press("Escape");
  check((await page.locator(".sheet").count()) === 0, "Escape closes the window's sheet");
  check(await picker.evaluate((button) => button === document.activeElement), "and the keyboard is back where it was");
  await picker.click();
  await page.getByLabel("From", { exact: true }).fill("2026-11-23T00:00");
  await page.getByLabel("To", { exact: true }).fill("2026-11-24T00:00");
  await page.getByRole("button", { name: "Apply" }).click();
  await page.waitForURL(/from=2026-11-22T23%3A00%3A00Z&to=2026-11-23T23%3A00%3A00Z/);
  await settled(page);
  check((await page.locator(".empty").count()) > 0, "an empty window says so, and what to do");
  await page.reload();
  check((await picker.innerText()).includes("23 Nov, 00:00"), "a link shows the same window");
  await page.goBack();
  await page.waitForURL(/last=7d/);
  await page.context().close();
}

async function samplesAreFound(browser) {
  const page = await watched(browser, SCREENS[0], () => "samples");
  await open(page, "/samples");
  await page.keyboard.press("/");
  await page.keyboard.type('"tent 77"');
  await page.waitForFunction(() => document.querySelector("[data-count='1']"));
  same(await page.locator(".row .q").innerText(), "Is tent 77 waterproof?", "what was searched for");
  await page.locator(".row a").focus();
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/samples\/[0-9A-Z]{26}/);
  await settled(page);
  await page.goBack();
  await page.waitForFunction(() => document.querySelector("[data-count='1']"));
  await open(page, "/samples?sort=score");
  const worst = await page.locator(".row .chip").first().innerText();
  check(worst.startsWith("U1"), `the worst score comes first, not ${worst}`);
  await open(page, "/samples?outcome=upstream_error");
  const outcomes = new Set(await page.locator(".row .badge").allInnerTexts());
  same([...outcomes].join(), "upstream error", "filtered by outcome");
  await open(page, "/samples?q=nothing+bears+these+words");
  check((await page.locator(".empty").innerText()).includes("No sample fits"), "a search without a hit says so");
  const link = await page.getByRole("link", { name: "CSV" }).count();
  same(link, 0, "nothing to download where nothing is");
  await open(page, "/samples");
  const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "CSV" }).click()]);
  const csv = readFileSync(await file.path(), "utf8");
  check(csv.includes(`"'=HYPERLINK`), "a formula in a prompt is guarded in the file");
  const [table] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "Parquet" }).click()]);
  const bytes = readFileSync(await table.path());
  same(`${bytes.subarray(0, 4)} ${bytes.subarray(-4)}`, "PAR1 PAR1", "a table with its end");
  await page.context().close();
}

async function stepsStandBelowTheirParents(browser) {
  const page = await watched(browser, SCREENS[0], () => "trace");
  const sample = (await get("/api/v1/samples?limit=1&q=Which+steps")).samples[0];
  const { spans } = await get(`/api/v1/traces/${sample.id}`);
  await open(page, `/samples/${sample.id}`);
  const names = await page.locator(".spans .name .content").allInnerTexts();
  same(names.join(", "), "POST /score, qa_flow, look up, answer, <i>chat</i> gpt-4", "the steps in their order");
  same(names.length, spans.length, "steps");
  const left = await page.locator(".spans .track i").evaluateAll((bars) => bars.map((bar) => bar.getBoundingClientRect().left));
  check(left[1] < left[2] && left[2] < left[3] && left[3] < left[4], `each begins when it began: ${left}`);
  await page.locator(".spans button").last().click();
  check((await page.locator(".spans .more").innerText()).includes("<b>it broke</b>"), "a step's error is told, as text");
  await page.context().close();
}

async function monitorsTell(browser) {
  const page = await watched(browser, SCREENS[0], () => "monitors");
  const run = (await get("/api/v1/monitors")).latest[0];
  await open(page, "/monitors");
  const measures = run.signals.flatMap((signal) => signal.measures);
  same(await page.getByRole("region", { name: `Figures of ${run.monitor}` }).locator("tbody tr").count(), measures.length, "figures of the monitor");
  await page.getByRole("button", { name: `Edit ${run.monitor}` }).click();
  const area = page.getByLabel("Monitor as YAML");
  check((await area.inputValue()).includes(`name: ${run.monitor}`), "the configured monitor is shown");
  await page.getByText("Sound: 1 monitor.").waitFor();
  await area.fill("monitors:\n  - name: daily\n    shedule: x\n");
  await page.getByRole("button", { name: "Line 3, column 5" }).click();
  same(await area.evaluate((area) => area.selectionStart), "monitors:\n  - name: daily\n    ".length, "where a fault leads");
  check(await page.getByRole("button", { name: "Save", exact: true }).isDisabled(), "what is faulty cannot be saved");
  const { yaml } = (await get("/api/v1/configuration/monitors")).monitors.find((entry) => entry.name === run.monitor);
  const changed = `# mine\n${yaml}`;
  await area.fill(changed);
  const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "Download monitors.yaml" }).click()]);
  same(readFileSync(await file.path(), "utf8"), changed, "what is sound can be taken away");
  await savedAndTakenBack(page, run.monitor, changed);
  await page.goto(`${base}/monitors?monitor=${run.monitor}`); // as messages of alerts have it
  await page.getByRole("heading", { name: `Monitor ${run.monitor}` }).waitFor();
  await settled(page);
  same(await page.getByRole("region", { name: /^Figures of/ }).count(), 1, "one monitor");
  await open(page, "/alerts");
  const open_ = run.alerts.filter((alert) => alert.resolved === null);
  check(open_.length > 0, "the monitor found something");
  same(await page.locator(".badge", { hasText: "open" }).count(), open_.length, "open alerts");
  await open(page, "/");
  same(await figure(page, "Open alerts"), open_.length, "open alerts at a glance");
  await open(page, "/alerts");
  await page.getByRole("link", { name: "Read the worst answers" }).click();
  await page.waitForURL(/\/samples\?.*criterion=user_feedback/);
  await page.waitForSelector(".row .chip");
  check((await page.locator(".row .chip").first().innerText()).startsWith("U1"), "an alert about quality leads to the worst answers");
  await page.context().close();
}

/** Saves what stands in the open editor, meets somebody who was faster, and goes back. */
async function savedAndTakenBack(page, name, text) {
  const path = `/api/v1/configuration/monitors/${name}`;
  const area = page.getByLabel("Monitor as YAML");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByText(`${name} is saved.`).waitFor();
  same((await get(path)).yaml, text, "what was saved");
  await page.getByText("saved here, in place of the configuration file's").waitFor();
  await page.getByRole("button", { name: `Edit ${name}` }).click();
  await area.fill(`# mine too\n${text}`);
  const theirs = `# theirs\n${text}`;
  same((await fetch(base + path, { method: "PUT", body: theirs, headers: { "if-match": "*" } })).status, 200, "somebody else saves");
  page.removeAllListeners("console"); // a browser tells of every 412
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByText("somebody changed it meanwhile").waitFor();
  same((await get(path)).yaml, theirs, "nothing is written over unseen");
  await page.getByRole("button", { name: "Show what is saved now" }).click();
  await page.waitForFunction((theirs) => document.querySelector("textarea.yaml").value === theirs, theirs);
  const found = await page.evaluate(`${axe}; axe.run()`);
  same(found.violations.map((violation) => violation.id).join(), "", "axe at the editor");
  await page.getByRole("button", { name: "Go back to the configuration file" }).click();
  await page.getByText(`${name} is as the configuration file has it again.`).waitFor();
  same((await get(path)).saved, false, "and what is configured counts again");
  await page.getByRole("button", { name: "New monitor" }).click();
  await area.fill("monitors: [{name: saved-here, schedule: '* * * * *', window: PT1H, signals: {operations: {error_rate_max: 0.9}}}]");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.getByText("saved-here is saved.").waitFor();
}

/** What was saved in the browser ran meanwhile, without a restart. */
async function whatWasSavedRuns(browser) {
  const page = await watched(browser, SCREENS[0], () => "the saved monitor");
  const until = Date.now() + SAVED_RUNS_WITHIN_MS;
  const ran = async () => (await get("/api/v1/monitors?monitor=saved-here")).latest.length > 0;
  while (!(await ran()) && Date.now() < until) await page.waitForTimeout(1000);
  await open(page, "/monitors?monitor=saved-here");
  same(await page.getByRole("region", { name: "Figures of saved-here" }).count(), 1, "its figures");
  await page.getByRole("button", { name: "Edit saved-here" }).click();
  await page.getByRole("button", { name: "Delete saved-here" }).click();
  await page.getByText("saved-here is deleted.").waitFor();
  await page.context().close();
}

async function operationsMove(browser) {
  const page = await watched(browser, SCREENS[0], () => "live");
  await open(page, "/operations");
  const before = await figure(page, "Since the start");
  for (let number = 0; number < 5; number++) await (await fetch(`${TAP}/score`, { method: "POST", headers: { "content-type": "application/json" }, body: '{"question":"live?"}' })).text();
  await page.waitForFunction((wanted) => Number(document.querySelector('[data-figure="Since the start"]').title.replaceAll(",", "")) === wanted, before + 5);
  await page.context().close();
}

async function thePageIsLight(browser) {
  const page = await watched(browser, SCREENS[0], () => "weight");
  let bytes = 0;
  page.on("response", async (answer) => {
    if (!/\/(api|metrics)/.test(answer.url())) bytes += Number((await answer.allHeaders())["content-length"]);
  });
  await open(page, "/");
  check(bytes > 1000 && bytes < PAGE_BYTES_MAX, `the page weighs ${bytes} bytes`);
  await page.context().close();
}

async function theTokenOpens(browser) {
  const page = await watched(browser, SCREENS[0], () => "signing in", GUARDED);
  page.removeAllListeners("console"); // a browser tells of every 401
  await page.goto(`${GUARDED}/health?last=7d`);
  await page.waitForURL(/\/login\?next=/);
  const found = await page.evaluate(`${axe}; axe.run()`);
  same(found.violations.map((violation) => violation.id).join(), "", "axe at the sign-in form");
  await page.getByLabel("Token").fill("wrong");
  await page.keyboard.press("Enter");
  await page.getByText("That is not the token.").waitFor();
  await page.getByLabel("Token").fill(TOKEN);
  await page.keyboard.press("Enter");
  await page.waitForURL(`${GUARDED}/health?last=7d`);
  await settled(page);
  same((await page.locator(".failed").allInnerTexts()).join(), "", "faults after signing in");
  same(await page.evaluate(() => document.cookie), "flowtap_signed_in=1", "what scripts see of the cookies");
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.waitForURL(/\/login$/);
  await page.goto(`${GUARDED}/health`);
  await page.waitForURL(/\/login\?next=/);
  await page.context().close();
}

const browser = await chromium.launch({
  executablePath: CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
});
const steps = [figuresAreTrue, everyViewOnEveryScreen, hostileTextIsText, theWindowIsInTheAddress, samplesAreFound, stepsStandBelowTheirParents, monitorsTell, thePageIsLight, operationsMove, whatWasSavedRuns, ...(GUARDED ? [theTokenOpens] : [])];
for (const step of steps) {
  const begun = Date.now();
  try {
    await step(browser);
  } catch (error) {
    faults.push(`${step.name}: ${error.stack ?? error}`);
  }
  console.log(`${step.name}: ${((Date.now() - begun) / 1000).toFixed(1)} s`);
}
await browser.close();
for (const fault of faults) console.error(fault);
process.exitCode = faults.length ? 1 : 0;
