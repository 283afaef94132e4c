// Common code of the tests of the page: a browser, pages, and readings from them.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { serve } from "./serve.mjs";

export const [site, expected, screenshots, executablePath] = process.argv.slice(2);
// A software GPU compiles slowly, and CI's cores are shared.
const PATIENCE = 120_000;
const WEBGPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];

const server = await serve(site);
export const address = `http://127.0.0.1:${server.address().port}`;
let passed = 0;
const failures = [];

export function assert(condition, message) {
  if (!condition) throw new Error(message);
}

/** Runs a test and counts it. */
export async function check(name, body) {
  const began = performance.now();
  try {
    await body();
    passed += 1;
    console.log(`ok    ${name} (${((performance.now() - began) / 1e3).toFixed(1)} s)`);
  } catch (error) {
    failures.push(name);
    console.log(`FAIL  ${name}: ${error.message}`);
  }
}

/**
 * Runs a test on a page in a browser of its own; an error on its console fails it. `before` runs on
 * the page before any of its scripts.
 */
export async function test(name, body, { webgpu = true, before, ...options } = {}) {
  await check(name, async () => {
    const args = webgpu ? WEBGPU : [];
    const browser = await chromium.launch({ executablePath, args, chromiumSandbox: false });
    try {
      const context = await browser.newContext(options);
      const page = await context.newPage();
      const errors = [];
      page.setDefaultTimeout(PATIENCE);
      page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
      page.on("pageerror", (error) => errors.push(`${error}`));
      if (before) await page.addInitScript(before);
      const began = performance.now();
      await page.goto(`${address}/`);
      await page.waitForFunction(() => window.syncbnReady === true);
      await body(page, performance.now() - began);
      assert(errors.length === 0, `errors on the console: ${errors.join("; ")}`);
    } finally {
      await browser.close();
    }
  });
}

/** Prints the last line, `web: P passed, F failed`. */
export function finish() {
  server.close();
  console.log(`web: ${passed} passed, ${failures.length} failed`);
  process.exitCode = failures.length ? 1 : 0;
}

export const text = (page, selector) => page.locator(selector).innerText();
export const rows = (page, table) => page.locator(`#${table} tbody tr`).evaluateAll(
  (found) => found.map((row) => [...row.cells].map((cell) => cell.textContent)));

/** Waits until an element has this text. */
export const says = (page, id, words) => page.waitForFunction(
  ([id, words]) => document.getElementById(id).textContent.includes(words), [id, words]);

/** Sets a slider as a visitor does, and waits until the page has followed. */
export async function slide(page, id, value) {
  await page.locator(`#${id}`).fill(String(value));
  await says(page, "photos-status", "Ready.");
}

/** The pixels of a canvas. */
export const pixels = (page, id) => page.evaluate((id) => {
  const canvas = document.getElementById(id);
  return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
}, id);

/** The largest change of a synchronized value that the page tells. */
export async function change(page) {
  const number = (await text(page, "#change")).match(/([\d.]+e[+-]\d+)/);
  assert(number, `no number in: ${await text(page, "#change")}`);
  return Number(number[1]);
}

/** Values that were computed natively. */
export async function native(name) {
  const bytes = await readFile(join(expected, `${name}.f32`));
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
}

/** The rows at which the ranks of the page end first. */
export const firstEnds = async () => JSON.parse(await readFile(join(expected, "ends.json")));
