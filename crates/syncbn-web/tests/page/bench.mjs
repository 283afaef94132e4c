// Times a step of the layer beside TensorFlow.js's batch normalization, composed of its operations
// as its training does, on one page and one adapter, in turn: `node bench.mjs SITE PACKAGES CHROMIUM`.
// Prints a line of JSON for each shape.
import { cp } from "node:fs/promises";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { serve } from "./serve.mjs";

const [site, packages, executablePath] = process.argv.slice(2);
const SHAPES = [[8, 16, 8, 8], [16, 64, 28, 28], [8, 64, 56, 56], [32, 256, 7, 7]];
const [ROUNDS, STEPS] = [7, 5];
const NAMES = ["tfjs", "tfjs-backend-webgpu"];

for (const name of NAMES) {
  await cp(join(packages, "@tensorflow", name, "dist", `${name.replace("tfjs", "tf")}.min.js`), join(site, `${name}.js`));
}
const server = await serve(site);
const browser = await chromium.launch({
  executablePath, chromiumSandbox: false,
  args: ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"],
});
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(600_000);
  page.on("pageerror", (error) => console.error(`${error}`));
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await page.waitForFunction(() => window.syncbnReady === true);
  for (const name of NAMES) {
    await page.addScriptTag({ url: `${name}.js` });
  }
  for (const [n, c, h, w] of SHAPES) {
    const times = await page.evaluate(async ({ n, c, h, w, rounds, steps }) => {
      const { Session, Step } = await import("./syncbn_web.js");
      await tf.setBackend("webgpu");
      await tf.ready();
      const session = await Session.open(1, true);
      const ours = {
        syncbn_nchw: new Step(session, [n, c, h, w], false),
        syncbn_nhwc: new Step(session, [n, h, w, c], true),
      };
      const [x, dy] = [tf.randomNormal([n, h, w, c]), tf.randomNormal([n, h, w, c])];
      const [gamma, beta] = [tf.ones([c]), tf.zeros([c])];
      const layer = (x, gamma, beta) => {
        const { mean, variance } = tf.moments(x, [0, 1, 2]);
        return tf.batchNorm(x, mean, variance, beta, gamma, 1e-5);
      };
      const gradients = tf.valueAndGrads(layer);
      const theirs = async (count) => {
        for (let i = 0; i < count; i++) {
          const { value, grads } = gradients([x, gamma, beta], dy);
          // A few values of the last step, which come after all that was submitted before them.
          if (i === count - 1) await grads[1].data();
          tf.dispose([value, ...grads]);
        }
      };
      const run = {
        ...Object.fromEntries(Object.entries(ours).map(([name, step]) => [name, async (count) => {
          step.submit(count);
          await step.wait();
        }])),
        tfjs_nhwc: theirs,
      };
      const found = Object.fromEntries(Object.keys(run).map((name) => [name, []]));
      // Kernels are compiled; then where a step takes long, fewer of them make a round.
      const count = {};
      for (const name of Object.keys(run)) {
        await run[name](1);
        const began = performance.now();
        await run[name](1);
        count[name] = Math.min(steps, Math.max(1, Math.floor(2000 / (performance.now() - began))));
      }
      for (let round = 0; round < rounds; round++) {
        for (const name of Object.keys(run)) {
          const began = performance.now();
          await run[name](count[name]);
          found[name].push((performance.now() - began) / count[name]);
        }
      }
      for (const step of Object.values(ours)) step.free();
      session.free();
      tf.dispose([x, dy, gamma, beta]);
      const median = (list) => list.sort((a, b) => a - b)[list.length >> 1];
      return Object.fromEntries(Object.entries(found).map(([name, list]) => [name, median(list)]));
    }, { n, c, h, w, rounds: ROUNDS, steps: STEPS });
    console.log(JSON.stringify({ shape: [n, c, h, w], ms: times }));
  }
} finally {
  await browser.close();
  server.close();
}
