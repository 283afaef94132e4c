// The page: photos that are cut over ranks, and three trainings. All numbers come from the layer.
import init, { Session, Trainer } from "./syncbn_web.js";
import { loadPhotos, loadFiles, PHOTO_SIZE } from "./photos.js";
import { drawCurves } from "./curves.js";

const RANKS = 4;
const STEPS_AT_ONCE = 2;
const STEPS = 80;
const WAYS = [
  { name: "local", title: "each rank's own", color: "--local" },
  { name: "synchronized", title: "of all ranks", color: "--accent" },
  { name: "one", title: "one device has it all", color: "--one" },
];

const find = (id) => document.getElementById(id);
const cell = (text) => Object.assign(document.createElement("td"), { textContent: text });
const fixed = (value, digits = 1) => value.toFixed(digits);

const state = {
  session: null, generation: 0, pixels: null, rows: 0, kept: null, busy: false, again: false, stop: false,
};

/** Shows what is under way, and that it ended. */
function working(text) {
  find("status").textContent = text;
  find("progress").hidden = false;
}
function done(text) {
  find("status").textContent = text;
  find("progress").hidden = true;
}

/** Fills the body of a table with rows of texts. */
function fill(table, rows) {
  const body = find(table).tBodies[0];
  body.replaceChildren(...rows.map((texts) => {
    const row = document.createElement("tr");
    row.append(...texts.map(cell));
    return row;
  }));
}

function problem(error) {
  find("problem-text").textContent = `${error.message ?? error}`;
  find("problem").hidden = false;
  document.querySelector("input[value=host]").checked = true;
}

/** What the browser says of its adapter. Names are often kept from a page. */
function describe({ info, limits, features }) {
  const names = [info.vendor, info.architecture, info.device, info.description];
  const known = names.filter((name) => name).join(", ") || "of a name that the browser keeps";
  find("adapter").textContent =
    `The adapter: ${known}; buffers of up to ${limits.maxBufferSize / 2 ** 20} MiB, `
    + `${limits.maxComputeInvocationsPerWorkgroup} invocations per workgroup, `
    + `f16 arithmetic ${features.has("shader-f16") ? "yes" : "no"}. `
    + "All ranks are devices on it unless the browser gives several.";
}

/** Opens the ranks; where there is no WebGPU device they are on the host. */
async function open(gpu) {
  find("problem").hidden = true;
  find("adapter").textContent = "";
  working(gpu ? "Opening WebGPU devices…" : "Opening host ranks…");
  if (gpu) {
    try {
      if (!navigator.gpu) throw new Error("This browser has no navigator.gpu.");
      const adapter = await navigator.gpu.requestAdapter();
      if (!adapter) throw new Error("The browser has WebGPU, but gave no adapter.");
      const session = await Session.open(RANKS, true);
      describe(adapter);
      return session;
    } catch (error) {
      problem(error);
    }
  }
  return await Session.open(RANKS, false);
}

async function start(gpu) {
  state.stop = true;
  const mine = ++state.generation;
  const session = await open(gpu);
  // Another choice was made meanwhile: the last one counts.
  if (mine !== state.generation) return;
  state.session = session;
  const ranks = JSON.parse(state.session.ranks());
  fill("ranks", ranks.map((rank, i) => [
    i, rank.name, rank.largest_binding ? `${rank.largest_binding / 2 ** 20} MiB` : "memory",
  ]));
  if (!state.pixels) await takePhotos(await loadPhotos());
  state.session.set_photos(state.pixels.data, state.pixels.width);
  state.kept = null;
  await show();
}

/** Keeps the pixels of photos, one below the other. */
async function takePhotos(pixels) {
  state.pixels = pixels;
  state.rows = pixels.height;
  state.kept = null;
}

/** The rows at which ranks end: the first has the share of the slider, the others the rest alike. */
function ends() {
  const count = Number(find("count").value);
  if (count === 1) return new Uint32Array();
  const first = Math.round(state.rows * Number(find("share").value) / 100);
  const rest = (state.rows - first) / (count - 1);
  return Uint32Array.from({ length: count - 1 }, (_, i) => Math.round(first + i * rest));
}

function paint(id, bytes, cuts = []) {
  const canvas = find(id);
  [canvas.width, canvas.height] = [state.pixels.width, state.rows];
  const context = canvas.getContext("2d");
  context.putImageData(new ImageData(new Uint8ClampedArray(bytes), canvas.width), 0, 0);
  context.fillStyle = "#ff2d78";
  for (const cut of cuts) context.fillRect(0, cut - 1, canvas.width, 3);
}

/** The largest change of the synchronized values since the first cut. */
function change(values) {
  state.kept ??= values;
  let largest = 0;
  for (let i = 0; i < values.length; i++) {
    largest = Math.max(largest, Math.abs(values[i] - state.kept[i]));
  }
  return largest;
}

async function normalizeOnce() {
  const cuts = ends();
  const { session, pixels } = state;
  working("Normalizing…");
  const result = await session.normalize(cuts);
  let report, values;
  try {
    // Of photos or ranks that were changed meanwhile: the next result is on its way.
    if (session !== state.session || pixels !== state.pixels) {
      state.again = true;
      return;
    }
    report = JSON.parse(result.report());
    values = result.synchronized();
    paint("original", pixels.data, cuts);
    paint("local", result.local_pixels(), cuts);
    paint("synchronized", result.synchronized_pixels());
  } finally {
    result.free();
  }
  const { ranks, all, times } = report;
  const line = (name, s) => [
    name, s.count, ...s.mean.map((mean, c) => `${fixed(mean)} ± ${fixed(s.deviation[c])}`),
  ];
  fill("statistics", [...ranks.map((rank, i) => line(`${i}`, rank)), line("all", all)]);
  const { upload, local, synchronize, apply, read } = times;
  fill("times", [[upload, local, synchronize, apply, read].map((ms) => fixed(ms, 2))]);
  find("change").textContent =
    `Largest change of a synchronized value since the first cut: ${change(values).toExponential(1)} deviations.`;
  done("Ready.");
}

/** Normalizes again; a cut that is moved meanwhile comes next, and those between are left out. */
async function show() {
  find("count-value").textContent = find("count").value;
  find("share-value").textContent = `${find("share").value} %`;
  find("share").disabled = find("count").value === "1";
  if (state.busy) {
    state.again = true;
    return;
  }
  state.busy = true;
  try {
    do {
      state.again = false;
      await normalizeOnce();
    } while (state.again);
  } catch (error) {
    done(`Failed: ${error.message ?? error}`);
    console.error(error);
  } finally {
    state.busy = false;
  }
}

async function train() {
  find("stop").disabled = false;
  find("stop").focus();
  find("train").disabled = true;
  state.stop = false;
  const runs = [];
  try {
    for (const way of WAYS) {
      const trainer = new Trainer(state.session, RANKS, way.name);
      runs.push({ ...way, losses: [], ms: 0, accuracy: 0, trainer });
    }
    for (let step = 0; step < STEPS && !state.stop; step += STEPS_AT_ONCE) {
      working(`Training: step ${step + STEPS_AT_ONCE} of ${STEPS}`);
      for (const run of runs) {
        const began = performance.now();
        run.losses.push(...await run.trainer.steps(STEPS_AT_ONCE));
        run.ms += performance.now() - began;
        run.accuracy = await run.trainer.accuracy();
      }
      drawCurves(find("curves"), runs, STEPS);
      fill("trainings", runs.map((run) => [
        run.title, run.losses.length, fixed(run.losses.at(-1), 4),
        `${fixed(100 * run.accuracy)} %`, fixed(run.ms / run.losses.length),
      ]));
      find("trainings").tBodies[0].querySelectorAll("td:first-child").forEach((td, i) => {
        const key = Object.assign(document.createElement("span"), { className: "key" });
        key.style.background = `var(${WAYS[i].color})`;
        td.prepend(key);
      });
    }
    done(state.stop ? "Training was stopped." : "Trained.");
  } catch (error) {
    done(`Failed: ${error.message ?? error}`);
    console.error(error);
  } finally {
    runs.forEach((run) => run.trainer.free());
    find("train").disabled = false;
    if (document.activeElement === find("stop")) find("train").focus();
    find("stop").disabled = true;
  }
}

async function own(files) {
  if (!files.length) return;
  try {
    await takePhotos(await loadFiles(files));
    state.session.set_photos(state.pixels.data, state.pixels.width);
    await show();
  } catch (error) {
    done(`These files cannot be shown: ${error.message ?? error}`);
  }
}

function listen() {
  find("count").addEventListener("input", show);
  find("share").addEventListener("input", show);
  find("train").addEventListener("click", train);
  find("stop").addEventListener("click", () => { state.stop = true; });
  find("files").addEventListener("change", (event) => own([...event.target.files]));
  const drop = find("drop");
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    own([...event.dataTransfer.files]);
  });
  for (const input of document.querySelectorAll("input[name=kind]")) {
    input.addEventListener("change", () => restart(input.value === "gpu"));
  }
}

async function restart(gpu) {
  try {
    await start(gpu);
    for (const id of ["train", "count", "files"]) find(id).disabled = false;
    window.syncbnReady = true;
  } catch (error) {
    done(`Failed: ${error.message ?? error}`);
    console.error(error);
  }
}

await init();
listen();
await restart(true);
