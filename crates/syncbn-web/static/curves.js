// Curves of losses on a canvas.

const MARGIN = { left: 48, right: 12, top: 12, bottom: 30 };

/** Draws the losses of all runs; `steps` is the width of the picture. */
export function drawCurves(canvas, runs, steps) {
  const scale = window.devicePixelRatio || 1;
  const { width, height } = canvas.getBoundingClientRect();
  [canvas.width, canvas.height] = [width * scale, height * scale];
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  const style = getComputedStyle(canvas);
  const color = (name) => resolve(canvas, name);
  const top = Math.max(...runs.flatMap((run) => run.losses)) * 1.05;
  const x = (step) => MARGIN.left + step / (steps - 1) * (width - MARGIN.left - MARGIN.right);
  const y = (loss) => height - MARGIN.bottom - loss / top * (height - MARGIN.top - MARGIN.bottom);

  context.font = style.font;
  context.fillStyle = color("--quiet");
  context.strokeStyle = color("--edge");
  context.lineWidth = 1;
  for (let i = 0; i <= 4; i++) {
    const loss = top * i / 4;
    context.beginPath();
    context.moveTo(x(0), y(loss));
    context.lineTo(x(steps - 1), y(loss));
    context.stroke();
    context.fillText(loss.toFixed(2), 4, y(loss) + 4);
  }
  context.fillText("loss", 4, height - 8);
  context.fillText("step", x(steps - 1) - 30, height - 8);

  for (const run of runs) {
    context.strokeStyle = color(run.color);
    context.lineWidth = 2.5;
    context.setLineDash(run.dash);
    context.beginPath();
    run.losses.forEach((loss, step) => {
      if (step) context.lineTo(x(step), y(loss));
      else context.moveTo(x(step), y(loss));
    });
    context.stroke();
  }
  context.setLineDash([]);
}

/** The color that a custom property has in the scheme of the page. */
function resolve(element, name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  element.parentElement.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
