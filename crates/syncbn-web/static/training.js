// Three trainings of one network, which differ in whose statistics normalize.
import { Trainer } from "./syncbn_web.js";
import { RANKS } from "./devices.js";
import { drawCurves } from "./curves.js";
import { fill, find, fixed, line } from "./dom.js";

const STEPS_AT_ONCE = 2;
const STEPS = 80;
/** `dash` tells the curves apart where colors do not. */
const WAYS = [
  { name: "local", title: "each rank's own", color: "--local", dash: [2, 4] },
  { name: "synchronized", title: "of all ranks", color: "--accent", dash: [] },
  { name: "one", title: "one device has it all", color: "--one", dash: [8, 6] },
];

const status = line("training");
let runs = [];
let stopped = false;
let training = false;

/** A piece of the curve, as a key. */
function key({ color, dash }) {
  const space = "http://www.w3.org/2000/svg";
  const picture = document.createElementNS(space, "svg");
  const stroke = document.createElementNS(space, "line");
  picture.setAttribute("class", "key");
  picture.setAttribute("aria-hidden", "true");
  for (const [name, value] of Object.entries({
    x1: 0, x2: "100%", y1: "50%", y2: "50%", "stroke-width": 3, "stroke-dasharray": dash.join(" "),
  })) stroke.setAttribute(name, value);
  stroke.style.stroke = `var(${color})`;
  picture.append(stroke);
  return picture;
}

const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];

/** Draws what there is, in the size and the colors that the page has now. */
export function draw() {
  if (runs.length) drawCurves(find("curves"), runs, STEPS);
}

function show() {
  draw();
  fill("trainings", runs.map((run) => [
    run.title, run.losses.length, fixed(run.losses.at(-1), 4),
    `${fixed(100 * run.accuracy)} %`, fixed(median(run.times)),
  ]));
  find("trainings").tBodies[0].querySelectorAll("td:first-child")
    .forEach((cell, i) => cell.prepend(key(runs[i])));
}

async function advance(run) {
  const began = performance.now();
  run.losses.push(...await run.trainer.steps(STEPS_AT_ONCE));
  run.times.push((performance.now() - began) / STEPS_AT_ONCE);
  run.accuracy = await run.trainer.accuracy();
}

/** Whether a training has not ended yet. */
export const isTraining = () => training;

/** Ends a training after the step that it is at. */
export function stop() {
  stopped = true;
}

/** Trains in the three ways, step by step in turn, until the end or `stop`. */
export async function train(session) {
  find("stop").disabled = false;
  find("stop").focus();
  find("train").disabled = true;
  find("results").hidden = false;
  [training, stopped] = [true, false];
  const trainers = [];
  try {
    runs = WAYS.map((way) => {
      const trainer = new Trainer(session, RANKS, way.name);
      trainers.push(trainer);
      return { ...way, losses: [], times: [], accuracy: 0, trainer };
    });
    for (let step = 0; step < STEPS && !stopped; step += STEPS_AT_ONCE) {
      status.working("Training…", step / STEPS);
      find("training-step").textContent = `step ${step + STEPS_AT_ONCE} of ${STEPS}`;
      for (const run of runs) await advance(run);
      show();
    }
    status.done(stopped ? "Training was stopped." : "Trained.");
  } catch (error) {
    status.failed(error);
  } finally {
    training = false;
    find("training-step").textContent = "";
    for (const trainer of trainers) trainer.free();
    find("train").disabled = false;
    if (document.activeElement === find("stop")) find("train").focus();
    find("stop").disabled = true;
  }
}
