// Drives the page in headless Chromium: `node drive.mjs SITE EXPECTED SCREENSHOTS CHROMIUM`.
// The last line is `web: P passed, F failed`.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { serve } from "./serve.mjs";

const [site, expected, screenshots, executablePath] = process.argv.slice(2);
const WEBGPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];
// A software GPU compiles slowly, and CI's cores are shared.
const PATIENCE = 120_000;
// y of any device is within 8 ulp of the definition, in ulp of the largest |y| of its channel: two
// of them are within 16. |y| is below 8 here, where an ulp is 2^-21 at most.
const BOUND = 16 * 2 ** -21;

const server = await serve(site);
const url = `http://127.0.0.1:${server.address().port}/`;
let passed = 0;
const failures = [];

function assert(condition, message) {
  if (!condition) throw new Error(message);
}

/** Runs a test on a page of its own; an error on its console fails it. */
async function test(name, flags, body, options = {}) {
  const browser = await chromium.launch({ executablePath, args: flags, chromiumSandbox: false });
  const errors = [];
  try {
    const context = await browser.newContext(options);
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE);
    page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
    page.on("pageerror", (error) => errors.push(`${error}`));
    const began = performance.now();
    await page.goto(url);
    await page.waitForFunction(() => window.syncbnReady === true);
    const ready = performance.now() - began;
    await body(page, ready);
    assert(errors.length === 0, `errors on the console: ${errors.join("; ")}`);
    passed += 1;
    console.log(`ok    ${name}`);
  } catch (error) {
    failures.push(name);
    console.log(`FAIL  ${name}: ${error.message}\n${errors.join("\n")}`);
  } finally {
    await browser.close();
  }
}

const text = (page, selector) => page.locator(selector).innerText();
const rows = (page, table) => page.locator(`#${table} tbody tr`).evaluateAll(
  (found) => found.map((row) => [...row.cells].map((cell) => cell.textContent)));

/** Sets a slider as a visitor does, and waits until the page has followed. */
async function slide(page, id, value) {
  await page.locator(`#${id}`).fill(String(value));
  await page.waitForFunction(() => document.getElementById("status").textContent === "Ready.");
}

/** The pixels of a canvas. */
const pixels = (page, id) => page.evaluate((id) => {
  const canvas = document.getElementById(id);
  return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
}, id);

/** As in the page: what a normalized value looks like. */
const brightness = (y) => Math.min(255, Math.max(0, Math.round(127.5 + 51 * y)));

/** The largest difference of a picture from values (3, pixels), in steps of brightness. */
async function furthest(page, id, file) {
  const bytes = await readFile(join(expected, file));
  const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const found = await pixels(page, id);
  const count = values.length / 3;
  assert(found.length === 4 * count, `${id} has ${found.length / 4} pixels, expected ${count}`);
  const cuts = JSON.parse(await readFile(join(expected, "ends.json")));
  const width = await page.evaluate((id) => document.getElementById(id).width, id);
  let largest = 0;
  for (let i = 0; i < count; i++) {
    // The local picture has lines at its cuts.
    if (id === "local" && cuts.some((cut) => Math.abs(Math.floor(i / width) - cut) < 3)) continue;
    for (let c = 0; c < 3; c++) {
      largest = Math.max(largest, Math.abs(found[4 * i + c] - brightness(values[c * count + i])));
    }
  }
  return largest;
}

async function isThePhotos(page, moved = 0) {
  for (const id of ["synchronized", "local"]) {
    // A value that lies on the border of two steps may be rounded to either.
    const far = await furthest(page, id, `${id}.f32`);
    assert(far <= 1, `${id} is ${far} steps of brightness from what it is natively`);
  }
  const change = Number((await text(page, "#change")).match(/([\d.]+e[+-]\d+)/)[1]);
  assert(change <= moved, `a value changed by ${change}, allowed ${moved}`);
}

/** The values themselves, by a session of the test's own. */
async function valuesAreNative(page, gpu) {
  const bytes = await readFile(join(expected, "synchronized.f32"));
  const native = [...new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)];
  const ends = JSON.parse(await readFile(join(expected, "ends.json")));
  const found = await page.evaluate(async ({ ends, gpu }) => {
    const { Session } = await import("./syncbn_web.js");
    const { loadPhotos } = await import("./photos.js");
    const session = await Session.open(4, gpu);
    const photos = await loadPhotos();
    session.set_photos(photos.data, photos.width);
    const result = await session.normalize(Uint32Array.from(ends));
    return [...result.synchronized()];
  }, { ends, gpu });
  assert(found.length === native.length, `${found.length} values, expected ${native.length}`);
  let largest = 0;
  for (let i = 0; i < found.length; i++) largest = Math.max(largest, Math.abs(found[i] - native[i]));
  const bound = gpu ? BOUND : 0;
  assert(largest <= bound, `a value is ${largest} from its native one, allowed ${bound}`);
  console.log(`      largest difference from native: ${largest}, allowed ${bound}`);
}

await test("four WebGPU devices show the photos as they are natively", WEBGPU, async (page, ready) => {
  console.log(`      first picture after ${ready.toFixed(0)} ms`);
  assert(!(await page.locator("#problem").isVisible()), await text(page, "#problem"));
  const ranks = await rows(page, "ranks");
  assert(ranks.length === 4 && ranks.every((rank) => rank[1].includes("webgpu")), `${ranks}`);
  await isThePhotos(page);
  assert((await text(page, "#adapter")).includes("MiB"), "the adapter and its limits are shown");
  await page.screenshot({ path: join(screenshots, "page.png"), fullPage: true });
  // For the README: from the sliders to the first rows of the tables.
  await page.locator("#photos-title").scrollIntoViewIfNeeded();
  await page.locator("section[aria-labelledby=photos-title]").screenshot({
    path: join(screenshots, "readme.jpg"), type: "jpeg", quality: 75,
  });
});

await test("values of WebGPU devices are those of the host within the bound", WEBGPU,
  (page) => valuesAreNative(page, true));

await test("values of host ranks are the native bits", WEBGPU, (page) => valuesAreNative(page, false));

await test("a cut changes the local picture and not the synchronized one", WEBGPU, async (page) => {
  const [local, synchronized] = [await pixels(page, "local"), await pixels(page, "synchronized")];
  for (const [count, share] of [[4, 70], [2, 10], [3, 33]]) {
    await slide(page, "count", count);
    await slide(page, "share", share);
    const far = (a, b) => a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
    const [moved, kept] = [far(await pixels(page, "local"), local), far(await pixels(page, "synchronized"), synchronized)];
    assert(moved > 20, `${count} ranks, ${share} %: the local picture moved by ${moved}`);
    assert(kept <= 1, `${count} ranks, ${share} %: the synchronized picture moved by ${kept}`);
    const change = Number((await text(page, "#change")).match(/([\d.]+e[+-]\d+)/)[1]);
    assert(change <= BOUND, `a synchronized value changed by ${change}, allowed ${BOUND}`);
    assert((await rows(page, "statistics")).length === count + 1, "a row for each rank, and one for all");
  }
  await slide(page, "count", 1);
  assert(await page.locator("#share").isDisabled(), "one rank has all rows");
});

await test("training: synchronized ranks learn what one device learns, local ones do not", WEBGPU,
  async (page) => {
    await page.locator("#train").focus();
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.getElementById("status").textContent === "Trained.");
    const [local, synchronized, one] = await rows(page, "trainings");
    assert(local[1] === "80" && one[1] === "80", `80 steps, found ${local[1]}`);
    const loss = (row) => Number(row[2]);
    assert(Math.abs(loss(synchronized) - loss(one)) <= 2e-3, `${synchronized} and ${one}`);
    assert(loss(one) < 0.35, `the loss of one device is ${one[2]}`);
    assert(Math.abs(loss(local) - loss(one)) > 0.01, `${local} and ${one}`);
    assert(parseFloat(synchronized[3]) > 90 && parseFloat(local[3]) < 90, `${synchronized} and ${local}`);
    await page.screenshot({ path: join(screenshots, "training.png"), fullPage: true });
    for (const row of [local, synchronized, one]) console.log(`      ${row.join(", ")}`);
  });

await test("ranks that are changed during a training stop it, and the last choice counts", WEBGPU,
  async (page) => {
    await page.locator("#train").click();
    await page.waitForFunction(() => document.querySelectorAll("#trainings tbody tr").length === 3);
    for (const kind of ["host", "gpu", "host"]) await page.locator(`input[value=${kind}]`).check();
    await page.waitForFunction(() => document.querySelector("#ranks tbody").textContent.includes("host")
      && document.getElementById("progress").hidden
      && !document.getElementById("train").disabled);
    assert(!(await page.locator("#problem").isVisible()), "host ranks were asked for");
    await slide(page, "share", 60);
    await slide(page, "share", 25);
    await isThePhotos(page, BOUND);
  });

await test("a training that is stopped ends", WEBGPU, async (page) => {
  await page.locator("#train").click();
  await page.waitForFunction(() => document.querySelectorAll("#trainings tbody tr").length === 3);
  await page.locator("#stop").click();
  await page.waitForFunction(() => document.getElementById("status").textContent === "Training was stopped.");
  assert(await page.locator("#train").isEnabled(), "training may start again");
});

await test("photos of the visitor take the place of the page's", WEBGPU, async (page) => {
  const before = await pixels(page, "synchronized");
  await page.locator("#files").setInputFiles(["coffee", "rocket"].map((name) => join(site, `photos/${name}.png`)));
  await page.waitForFunction((length) => {
    const canvas = document.getElementById("synchronized");
    return 4 * canvas.width * canvas.height === length / 2;
  }, before.length);
  await page.locator("#files").setInputFiles({ name: "a.txt", mimeType: "text/plain", buffer: Buffer.from("no") });
  await page.waitForFunction(() => document.getElementById("status").textContent.includes("none of them is a picture"));
});

await test("without an adapter the page says what to switch on, and goes on with the host", [],
  async (page) => {
    assert(await page.locator("#problem").isVisible(), "there is an explanation");
    assert((await text(page, "#problem")).includes("chrome://flags"), "it names what to switch on");
    await isThePhotos(page);
    await page.screenshot({ path: join(screenshots, "without.png"), fullPage: true });
  });

await test("on a narrow dark screen nothing is wider than the page", WEBGPU, async (page) => {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  assert(wide <= 0, `the page is ${wide} pixels too wide`);
  const reached = new Set();
  for (let i = 0; i < 12; i++) {
    await page.keyboard.press("Tab");
    reached.add(await page.evaluate(() => document.activeElement.id || document.activeElement.name));
  }
  for (const id of ["kind", "count", "share", "files", "train"]) {
    assert(reached.has(id), `the keyboard reaches ${[...reached]}, and not ${id}`);
  }
  await page.screenshot({ path: join(screenshots, "narrow.png"), fullPage: true });
}, { viewport: { width: 360, height: 740 }, colorScheme: "dark" });

server.close();
console.log(`web: ${passed} passed, ${failures.length} failed`);
process.exitCode = failures.length ? 1 : 0;
