// Drives a headless Chromium: one order a line on standard input, one answer a line on standard output. See
// testkit/src/browser.rs. Run in the folder where playwright-core and axe-core are installed.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(`${process.cwd()}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const args = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
];
// Until whatever has to happen, on a busy machine.
const PATIENCE = 120_000;
// A new profile in a folder of its own, which playwright removes.
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, headless: true, args, timeout: PATIENCE });
let context = null;
let page = null;
let complaints = [];

const orders = {
  async window({ width, height, scheme }) {
    await context?.close();
    context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, reducedMotion: "reduce" });
    page = await context.newPage();
    page.setDefaultTimeout(PATIENCE);
    complaints = [];
    page.on("pageerror", (error) => complaints.push(`error: ${error.message}`));
    page.on("dialog", (dialog) => {
      complaints.push(`dialog: ${dialog.message()}`);
      dialog.dismiss();
    });
    page.on("console", (message) => message.type() === "error" && complaints.push(`console: ${message.text()}`));
    page.on("request", (request) => {
      if (page.url() !== "about:blank" && new URL(request.url()).host !== new URL(page.url()).host) {
        complaints.push(`asked elsewhere: ${request.url()}`);
      }
    });
  },
  async visit({ url, selector }) {
    await page.goto("about:blank");
    await page.goto(url);
    await page.waitForSelector(selector, { state: "attached" });
  },
  // Not playwright's own, which the page's policy forbids.
  async wait({ expression }) {
    const until = Date.now() + PATIENCE;
    while (!(await page.evaluate(expression))) {
      if (Date.now() > until) {
        throw new Error(`it did not become true; ${complaints.join("; ")}; the page says: ${await page.innerText("body")}`);
      }
      await new Promise((done) => setTimeout(done, 40));
    }
  },
  value: ({ expression }) => page.evaluate(expression),
  press: ({ key }) => page.keyboard.press(key),
  type: ({ text }) => page.keyboard.type(text),
  hover: ({ selector }) => page.hover(selector),
  click: ({ selector }) => page.click(selector),
  picture: ({ path }) => page.screenshot({ path }).then(() => null),
  async faults() {
    // Evaluated by the debugger, which the page's policy does not concern.
    const found = await page.evaluate(`${axe};axe.run().then((result) => result.violations.map((violation) =>
      violation.id + ": " + violation.nodes.slice(0, 5).map((node) => node.html.slice(0, 200)).join(" ; ")))`);
    return [...found, ...complaints];
  },
  complaints: () => complaints,
};

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  let answer;
  try {
    answer = { value: (await orders[order.do](order)) ?? null };
  } catch (error) {
    answer = { error: String(error.message ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
