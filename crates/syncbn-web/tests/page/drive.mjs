// Drives the page in headless Chromium: `node drive.mjs SITE EXPECTED SCREENSHOTS CHROMIUM`.
// The last line is `web: P passed, F failed`.
import { createServer } from "node:http";
import { join } from "node:path";
import {
  address, assert, change, check, finish, firstEnds, native, pixels, rows, says, screenshots,
  site, slide, test, text,
} from "./harness.mjs";
import { serve } from "./serve.mjs";

// y of any device is within 8 ulp of the definition, in ulp of the largest |y| of its channel: two
// of them are within 16. |y| is below 8 here, where an ulp is 2^-21 at most.
const BOUND = 16 * 2 ** -21;

const shot = (page, name) => page.screenshot({ path: join(screenshots, `${name}.png`), fullPage: true });

/** As in the page: what a normalized value looks like. */
const brightness = (y) => Math.min(255, Math.max(0, Math.round(127.5 + 51 * y)));

/** The largest difference of a picture from values (3, pixels), in steps of brightness. */
async function furthest(page, id) {
  const [values, found, cuts] = [await native(id), await pixels(page, id), await firstEnds()];
  const count = values.length / 3;
  assert(found.length === 4 * count, `${id} has ${found.length / 4} pixels, expected ${count}`);
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

async function isThePhotos(page) {
  for (const id of ["synchronized", "local"]) {
    // A value that lies on the border of two steps may be rounded to either.
    const far = await furthest(page, id);
    assert(far <= 1, `${id} is ${far} steps of brightness from what it is natively`);
  }
}

/** The values themselves over several cuts, by a session of the test's own. */
async function valuesAreNative(page, gpu) {
  const [values, ends] = [await native("synchronized"), await firstEnds()];
  // With the native cut a host has the native bits; the other cuts sum in another order.
  const cuts = [[ends, gpu ? BOUND : 0], [[10, 500], BOUND], [[], BOUND]];
  for (const [cut, bound] of cuts) {
    const found = await page.evaluate(async ({ cut, gpu }) => {
      const { Session } = await import("./syncbn_web.js");
      const { loadPhotos } = await import("./photos.js");
      const session = await Session.open(4, gpu);
      const photos = await loadPhotos();
      session.set_photos(photos.data, photos.width);
      const result = await session.normalize(Uint32Array.from(cut));
      const values = [...result.synchronized()];
      result.free();
      session.free();
      return values;
    }, { cut, gpu });
    assert(found.length === values.length, `${found.length} values, expected ${values.length}`);
    const far = found.reduce((most, value, i) => Math.max(most, Math.abs(value - values[i])), 0);
    assert(far <= bound, `cut at ${cut}: a value is ${far} from its native one, allowed ${bound}`);
    console.log(`      cut at [${cut}]: largest difference from native ${far}, allowed ${bound}`);
  }
}

await check("the server gives files of its folder, and tells what it has not", async () => {
  const status = async (path) => (await fetch(`${address}${path}`)).status;
  assert(await status("/") === 200, "the page is served");
  for (const path of ["/none.html", "/%E0%A4%A", "/%2e%2e%2fweb.sh", "/photos"]) {
    assert(await status(path) === 404, `${path} gives ${await status(path)}`);
  }
  const taken = createServer();
  await new Promise((listening) => taken.listen(0, "127.0.0.1", listening));
  const error = await serve(site, taken.address().port).catch((error) => error);
  taken.close();
  assert(error.code === "EADDRINUSE", `a taken port gives ${error.code ?? "a server"}`);
});

await test("four WebGPU devices show the photos as they are natively", async (page, ready) => {
  console.log(`      first picture after ${ready.toFixed(0)} ms`);
  assert(!(await page.locator("#problem").isVisible()), await text(page, "#problem"));
  const ranks = await rows(page, "ranks");
  assert(ranks.length === 4 && ranks.every((rank) => rank[1].includes("swiftshader")), `${ranks}`);
  assert(ranks.every((rank) => /^\d+ MiB$/.test(rank[2])), `limits in ${ranks}`);
  await isThePhotos(page);
  assert(!/\d/.test(await text(page, "#change")), "nothing has changed before a second cut");
  const [count, share] = await page.evaluate(() => ["count", "share"].map(
    (id) => document.getElementById(id).getAttribute("aria-valuetext")));
  assert(count === "4 ranks" && share === "25 %: 224 of 896 rows", `${count}; ${share}`);
  await shot(page, "page");
  // For the README: from the sliders to the tables, with kernels that are compiled.
  await slide(page, "share", 40);
  await page.locator("section[aria-labelledby=photos-title]").screenshot({
    path: join(screenshots, "readme.jpg"), type: "jpeg", quality: 75,
  });
});

await test("values of WebGPU devices are those of the host within the bound, wherever the cut is",
  (page) => valuesAreNative(page, true));

await test("values of host ranks are the native bits", (page) => valuesAreNative(page, false),
  { webgpu: false });

await test("a cut changes the local picture and not the synchronized one", async (page) => {
  const [local, synchronized] = [await pixels(page, "local"), await pixels(page, "synchronized")];
  for (const [count, share] of [[4, 70], [2, 10], [3, 33]]) {
    await slide(page, "count", count);
    await slide(page, "share", share);
    const far = (a, b) => a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
    const [moved, kept] = [far(await pixels(page, "local"), local), far(await pixels(page, "synchronized"), synchronized)];
    assert(moved > 20, `${count} ranks, ${share} %: the local picture moved by ${moved}`);
    assert(kept <= 1, `${count} ranks, ${share} %: the synchronized picture moved by ${kept}`);
    const told = await change(page);
    assert(told <= BOUND, `a synchronized value changed by ${told}, allowed ${BOUND}`);
    assert((await rows(page, "statistics")).length === count + 1, "a row for each rank, and one for all");
  }
  await slide(page, "count", 1);
  assert(await page.locator("#share").isDisabled(), "one rank has all rows");
});

await test("training: synchronized ranks learn what one device learns, local ones do not",
  async (page) => {
    await page.locator("#train").focus();
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.getElementById("training-progress").value > 0.2);
    await shot(page, "during");
    await says(page, "training-status", "Trained.");
    const [local, synchronized, one] = await rows(page, "trainings");
    assert(local[1] === "80" && one[1] === "80", `80 steps, found ${local[1]}`);
    const loss = (row) => Number(row[2]);
    assert(Math.abs(loss(synchronized) - loss(one)) <= 2e-3, `${synchronized} and ${one}`);
    assert(loss(one) < 0.35, `the loss of one device is ${one[2]}`);
    assert(Math.abs(loss(local) - loss(one)) > 0.01, `${local} and ${one}`);
    assert(parseFloat(synchronized[3]) > 90 && parseFloat(local[3]) < 90, `${synchronized} and ${local}`);
    const dashes = await page.locator("#trainings .key line").evaluateAll(
      (keys) => keys.map((key) => key.getAttribute("stroke-dasharray")));
    assert(new Set(dashes).size === 3, `keys with dashes of ${dashes.join(" | ")}`);
    await shot(page, "training");
    for (const row of [local, synchronized, one]) console.log(`      ${row.join(", ")}`);
  });

await test("a slider that is moved during a training has a status of its own", async (page) => {
  await page.locator("#train").click();
  await page.waitForFunction(() => document.querySelectorAll("#trainings tbody tr").length === 3);
  await slide(page, "share", 60);
  assert(await text(page, "#training-status") === "Training…", await text(page, "#training-status"));
  assert(await page.locator("#training-progress").isVisible(), "the training goes on");
  await page.locator("#stop").click();
  await says(page, "training-status", "Training was stopped.");
  assert(await text(page, "#photos-status") === "Ready.", await text(page, "#photos-status"));
  assert(await page.locator("#train").isEnabled(), "training may start again");
});

await test("ranks that are changed during a training stop it, the last choice counts, sessions are freed",
  async (page) => {
    await page.evaluate(async () => {
      const { Session } = await import("./syncbn_web.js");
      const free = Session.prototype.free;
      window.freed = 0;
      Session.prototype.free = function () {
        free.call(this);
        window.freed += 1;
      };
    });
    await page.locator("#train").click();
    await page.waitForFunction(() => document.querySelectorAll("#trainings tbody tr").length === 3);
    for (const kind of ["host", "gpu", "host"]) await page.locator(`input[value=${kind}]`).check();
    await page.waitForFunction(() => document.querySelector("#ranks tbody").textContent.includes("host")
      && window.freed === 3 && !document.getElementById("train").disabled);
    await says(page, "training-status", "Training was stopped.");
    await says(page, "photos-status", "Ready.");
    assert(!(await page.locator("#problem").isVisible()), "host ranks were asked for");
    await slide(page, "share", 60);
    await slide(page, "share", 25);
    await isThePhotos(page);
    assert(await change(page) <= BOUND, `a value changed by ${await change(page)}`);
    assert(await page.evaluate(() => window.freed) === 3, "the session in use is not freed");
  });

await test("photos of the visitor take the place of the page's, and the last choice counts",
  async (page) => {
    const photo = (name) => join(site, `photos/${name}.png`);
    const height = (rows) => page.waitForFunction(
      (rows) => document.getElementById("synchronized").height === rows, rows);
    await page.locator("#files").setInputFiles([photo("coffee"), photo("rocket")]);
    await height(2 * 224);
    // The first of the next files takes long to read.
    await page.evaluate(() => {
      const read = createImageBitmap;
      window.slow = 0;
      window.createImageBitmap = async (...of) => {
        window.createImageBitmap = read;
        await new Promise((later) => setTimeout(later, 1000));
        window.slow = 1;
        return await read(...of);
      };
    });
    await page.locator("#files").setInputFiles(["coffee", "hubble", "rocket"].map(photo));
    await page.locator("#files").setInputFiles(photo("hubble"));
    await height(224);
    await page.waitForFunction(() => window.slow === 1);
    await slide(page, "share", 40);
    await page.waitForTimeout(500);
    await height(224);
    await page.locator("#files").setInputFiles({ name: "a.txt", mimeType: "text/plain", buffer: Buffer.from("no") });
    await says(page, "photos-status", "none of them is a picture");
  }, { webgpu: false });

await test("without an adapter the page says what to switch on, and goes on with the host",
  async (page) => {
    assert((await text(page, "#problem-text")).includes("gives no adapter"), await text(page, "#problem"));
    assert((await text(page, "#hints")).includes("chrome://flags"), "it names what to switch on");
    await isThePhotos(page);
    await shot(page, "without");
  }, { webgpu: false });

await test("a browser without WebGPU is told apart from one without an adapter", async (page) => {
  assert((await text(page, "#problem-text")).includes("has no WebGPU"), await text(page, "#problem"));
  assert(await page.locator("#hints").isVisible(), "it says what to switch on");
}, { before: () => Object.defineProperty(Navigator.prototype, "gpu", { value: undefined }) });

await test("a device that does not open is told, without hints on what to switch on", async (page) => {
  assert((await text(page, "#problem")).includes("did not open"), await text(page, "#problem"));
  assert(!(await page.locator("#hints").isVisible()), "WebGPU is switched on already");
  await isThePhotos(page);
}, {
  before: () => {
    GPUAdapter.prototype.requestDevice = () => Promise.reject(new DOMException("no memory", "OperationError"));
  },
});

await test("on a narrow dark screen nothing is wider than the page", async (page) => {
  await page.locator("#train").click();
  await page.waitForFunction(() => document.getElementById("training-progress").value > 0.2);
  await page.locator("#stop").click();
  await says(page, "training-status", "Training was stopped.");
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  assert(wide <= 0, `the page is ${wide} pixels too wide`);
  // The keyboard begins at the top again.
  await page.evaluate(() => {
    document.activeElement.blur();
    window.getSelection().setPosition(document.body, 0);
  });
  const reached = new Set();
  for (let i = 0; i < 12; i++) {
    await page.keyboard.press("Tab");
    reached.add(await page.evaluate(() => document.activeElement.id || document.activeElement.name));
  }
  for (const id of ["kind", "count", "share", "files", "train"]) {
    assert(reached.has(id), `the keyboard reaches ${[...reached]}, and not ${id}`);
  }
  await shot(page, "narrow");
}, { viewport: { width: 360, height: 740 }, colorScheme: "dark" });

finish();
