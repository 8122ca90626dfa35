// The events per second of the last ten minutes, as a line with an area below.

import { count, rate } from "./format.js";

export const POINTS = 300;
const WIDTH = 600;
const HEIGHT = 96;
const STEP = WIDTH / (POINTS - 1);

// The top of the scale: 1, 2, 2.5 or 5 times a power of ten, so that it seldom changes.
export function ceiling(highest) {
  if (highest <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(highest));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((top) => top >= highest);
}

// `current` is the number to show; the chart's last point is up to two seconds old.
export function draw(figure, rates, current) {
  const highest = Math.max(0, ...rates);
  const top = ceiling(highest);
  const y = (value) => (HEIGHT - 0.5 - (value / top) * (HEIGHT - 2)).toFixed(1);
  const first = WIDTH - (rates.length - 1) * STEP;
  const points = rates.map((value, index) => `${(first + index * STEP).toFixed(1)} ${y(value)}`);
  const line = points.length ? `M${points.join("L")}` : "";
  figure.querySelector(".line").setAttribute("d", line);
  figure.querySelector(".area").setAttribute(
    "d", line && `${line}L${WIDTH} ${HEIGHT}L${first.toFixed(1)} ${HEIGHT}Z`);
  const now = rate(current);
  figure.querySelector(".rate").textContent = now;
  figure.querySelector(".peak").textContent = `highest ${rate(highest)}`;
  figure.querySelector(".top").textContent = count(top);
  figure.querySelector("svg").setAttribute(
    "aria-label", `Events per second in the last ten minutes: now ${now}, highest ${rate(highest)}`);
}
