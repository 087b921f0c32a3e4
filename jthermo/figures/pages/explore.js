// The page of `jthermo explore`. Everything shown is a function of `state`: the selected view and the exponent of each control.
"use strict";
(async () => {
const content = JSON.parse(document.getElementById("content").textContent);
const { controls, views, clocks, least } = content;
const element = (id) => document.getElementById(id);
const sliders = controls.map((_, i) => element(`p-${i}`));
const SPREAD_POINTS = 200;
// points of a profile over the whole slider, and around the interval
const COARSE = 97, FINE = 49;
// milliseconds per frame for profiles, while a slider moves and while none does
const BUDGET = { moving: 2, still: 12 };

// ---- numbers

function unpack(text, Kind) {
  return new Kind(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
}

/** The outline of a band: once along the numbers, then back. */
function outline(numbers, at = (x) => x) {
  const number = numbers.length, out = new Float64Array(2 * number);
  for (let i = 0; i < number; i++) {
    out[i] = at(numbers[i], i, -1);
    out[2 * number - 1 - i] = at(numbers[i], i, 1);
  }
  return out;
}

for (const view of views) {
  for (const condition of view.conditions) {
    condition.log_time = unpack(condition.log_time, Float64Array);
    condition.time = condition.log_time.map(Math.exp);
    condition.mean = unpack(condition.mean, Float64Array);
    const error = unpack(condition.error, Float32Array);
    condition.band = outline(condition.mean, (y, i, way) => y + way * error[i]);
    const all = unpack(condition.runs, Float32Array), length = condition.time.length;
    condition.runs = condition.replicates.map((_, i) => all.subarray(i * length, (i + 1) * length));
  }
  const fit = view.objective;
  fit.log_time = unpack(fit.log_time, Float64Array);
  fit.mean = unpack(fit.mean, Float64Array);
  fit.ends = [...fit.starts.slice(1), fit.log_time.length];
  const flat = unpack(fit.whitener, Float32Array);
  // the rows of the lower triangular W = Ω^(−1/2), each with the index of its first column
  fit.rows = [];
  let at = 0, first = 0;
  for (const size of fit.sizes) {
    for (let i = 1; i <= size; i++) {
      fit.rows.push({ first, weights: flat.subarray(at, at + i) });
      at += i;
    }
    first += size;
  }
  fit.white_mean = fit.rows.map(({ first, weights }) => weights.reduce((sum, w, j) => sum + w * fit.mean[first + j], 0));
}

/** log τ − log t of every condition: Σ p·log(c/c₀), with c₀ the geometric mean of the control c. */
function shifts(view, powers) {
  return view.conditions.map(({ centred }) => centred.reduce((sum, log, i) => sum + log * powers[i], 0));
}

/** The objective that the fit minimised (jthermo/collapse/curve.py), minus its value at the fit:
    f = ½[|Wm|² − b'M⁻¹b + log|M| − (q−2) log λ] with M = B'W'WB + λD'D and b = B'W'Wm. */
function lost(view, powers) {
  const fit = view.objective, shift = shifts(view, powers), number = fit.mean.length;
  const scaled = new Float64Array(fit.log_time.length);
  for (let j = 0; j < number; j++) {
    for (let n = fit.starts[j]; n < fit.ends[j]; n++) scaled[n] = (fit.log_time[n] + shift[fit.condition[j]]) / fit.spacing;
  }
  let low = Infinity, high = -Infinity;
  for (const at of scaled) { low = Math.min(low, Math.floor(at)); high = Math.max(high, Math.floor(at)); }
  const q = high - low + 4;
  // B: cubic B-splines, averaged over each bin
  const basis = Array.from({ length: number }, () => new Float64Array(q));
  for (let j = 0; j < number; j++) {
    const share = 1 / (6 * (fit.ends[j] - fit.starts[j]));
    for (let n = fit.starts[j]; n < fit.ends[j]; n++) {
      const cell = Math.floor(scaled[n]), u = scaled[n] - cell, v = 1 - u, k = cell - low, row = basis[j];
      row[k] += share * v ** 3;
      row[k + 1] += share * (3 * u ** 3 - 6 * u ** 2 + 4);
      row[k + 2] += share * (3 * v ** 3 - 6 * v ** 2 + 4);
      row[k + 3] += share * u ** 3;
    }
  }
  const ends = basis.map((row) => [row.findIndex((x) => x !== 0), row.findLastIndex((x) => x !== 0)]);
  // the lower triangle of M
  const normal = Array.from({ length: q }, () => new Float64Array(q));
  const moment = new Float64Array(q);
  let power = 0;
  fit.rows.forEach(({ first, weights }, i) => {
    const white = new Float64Array(q);
    for (let j = 0; j < weights.length; j++) {
      const [from, to] = ends[first + j], row = basis[first + j];
      for (let k = from; k <= to; k++) white[k] += weights[j] * row[k];
    }
    for (let k = 0; k < q; k++) {
      const weight = white[k], row = normal[k];
      if (weight === 0) continue;
      moment[k] += weight * fit.white_mean[i];
      for (let l = 0; l <= k; l++) row[l] += weight * white[l];
    }
    power += fit.white_mean[i] ** 2;
  });
  const ridge = 1e-13 * normal.reduce((sum, row, k) => sum + row[k], 0) / q;
  const bend = [1, -2, 1];
  for (let k = 0; k + 2 < q; k++) {
    for (let a = 0; a < 3; a++) for (let b = 0; b <= a; b++) normal[k + a][k + b] += fit.stiffness * bend[a] * bend[b];
  }
  let value = power - (q - 2) * Math.log(fit.stiffness);
  // Cholesky factor L of M, and the solution of L y = b, row by row
  for (let k = 0; k < q; k++) {
    const row = normal[k];
    row[k] += ridge;
    for (let l = 0; l <= k; l++) {
      const other = normal[l];
      let sum = row[l];
      for (let i = 0; i < l; i++) sum -= row[i] * other[i];
      row[l] = l < k ? sum / other[l] : Math.sqrt(sum);
    }
    let sum = moment[k];
    for (let i = 0; i < k; i++) sum -= row[i] * moment[i];
    moment[k] = sum / row[k];
    value += 2 * Math.log(row[k]) - moment[k] ** 2;
  }
  return 0.5 * value - fit.best;
}

/** Linear interpolation; NaN outside the range of x. */
function interpolate(x, y, at) {
  if (at < x[0] || at > x[x.length - 1]) return NaN;
  let low = 0, high = x.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (x[middle] <= at) low = middle; else high = middle;
  }
  return high === low ? y[low] : y[low] + (y[high] - y[low]) * (at - x[low]) / (x[high] - x[low]);
}

/** Standard deviation between the means on an even grid of log τ, as the root mean square over the points where at
    least two curves overlap, in units of the range of all means; and the share of such points. */
function spread(view, powers) {
  const shift = shifts(view, powers), { conditions } = view;
  const starts = conditions.map((c, k) => c.log_time[0] + shift[k]);
  const ends = conditions.map((c, k) => c.log_time[c.log_time.length - 1] + shift[k]);
  const low = Math.min(...starts), high = Math.max(...ends);
  let total = 0, seen = 0;
  for (let n = 0; n < SPREAD_POINTS; n++) {
    const at = low + (high - low) * n / (SPREAD_POINTS - 1);
    const here = conditions.map((c, k) => interpolate(c.log_time, c.mean, at - shift[k])).filter(Number.isFinite);
    if (here.length < 2) continue;
    const mean = here.reduce((sum, y) => sum + y, 0) / here.length;
    total += here.reduce((sum, y) => sum + (y - mean) ** 2, 0) / here.length;
    seen += 1;
  }
  return { spread: Math.sqrt(total / seen) / (view.top - view.bottom), overlap: seen / SPREAD_POINTS };
}

for (const view of views) {
  const levels = view.conditions.flatMap((c) => [...c.mean]).filter(Number.isFinite);
  view.bottom = Math.min(...levels);
  view.top = Math.max(...levels);
}

// ---- the figures

Bokeh.logger.set_level("error");

async function embed(item, id) {
  await Bokeh.embed.embed_item({ ...item, target_id: id });
  return Bokeh.documents.at(-1).roots()[0];
}

const curves = await embed(content.plots.curves, "curves");
const qualities = [];
for (const [i, item] of content.plots.qualities.entries()) qualities.push(await embed(item, `quality-${i}`));
const part = (figure, name) => figure.select_one(name);
const dark = matchMedia("(prefers-color-scheme: dark)"), narrow = matchMedia("(max-width: 52rem)");

/** Logarithmic or linear, along one direction. */
function scale(direction, places, logarithmic) {
  const [first, second] = curves[places];
  const log = first.type === "LogAxis" ? first : second, linear = log === first ? second : first;
  log.visible = logarithmic;
  linear.visible = !logarithmic;
  curves.center.find((g) => g.type === "Grid" && g.dimension === (direction === "x" ? 0 : 1)).axis = logarithmic ? log : linear;
  curves[`${direction}_scale`] = new (Bokeh.Models.get(logarithmic ? "LogScale" : "LinearScale"))();
}

/** A range with a little room at both ends, to which the reset tool goes back. */
function fill(range, low, high, logarithmic) {
  const room = logarithmic ? (high / low) ** 0.03 : 0.04 * (high - low);
  const [start, end] = logarithmic ? [low / room, high * room] : [low - room, high + room];
  range.setv({ start, end, reset_start: start, reset_end: end });
}

// ---- selection

const state = { view: views[0], powers: [] };
const words = (value) => (value === null ? "" : value.toFixed(3).replace("-", "−"));

/** Select the view of the chosen observable and setting; settings without a view are disabled. */
function choose() {
  const offered = views.filter((view) => view.label === element("label").value);
  for (const option of element("choice").options) option.disabled = !offered.some((v) => v.choice === option.value);
  state.view = offered.find((view) => view.choice === element("choice").value) ?? offered[0];
  element("choice").value = state.view.choice;
  state.view.exponents.forEach(({ value, low, high, reach }, i) => {
    [sliders[i].min, sliders[i].max] = reach;
    qualities[i].x_range.setv({ start: reach[0], end: reach[1] });
    const known = value !== null;
    part(qualities[i], "fitted").setv({ location: value, visible: known });
    part(qualities[i], "interval").setv({ left: low ?? 0, right: high ?? 0, visible: known });
    element(`fitted-${i}`).textContent = !known
      ? "The data do not determine this exponent."
      : `Fitted ${words(value)}, ${100 * state.view.confidence} % interval ${words(low)} to ${words(high)}.`;
  });
  element("verdict").textContent = state.view.verdict;
  element("summary").textContent = state.view.summary;
  element("log-value").disabled = !(state.view.bottom > 0);
  set_clock();
}

/** Set the exponents to those of the chosen clock; the custom clock keeps those of the sliders. */
function set_clock() {
  const clock = element("clock").value;
  if (clock === "fit") state.powers = state.view.exponents.map(({ value }) => value ?? 0);
  else if (clock !== "own") state.powers = controls.map(({ name }) => clocks[clock][name] ?? 0);
  sliders.forEach((slider, i) => { slider.value = state.powers[i]; });
  repaint();
}

// when a slider last moved, in ms
let moved = -Infinity;
function move(i, power) {
  moved = performance.now();
  state.powers[i] = power;
  element("clock").value = "own";
  ask();
}

// ---- drawing: everything when the view or the style changes, only the parts that depend on the exponents when a slider moves

function repaint() {
  const { view } = state, style = getComputedStyle(document.documentElement);
  const [ink, accent] = ["--ink", "--accent"].map((name) => style.getPropertyValue(name).trim());
  view.colours = view.shades[dark.matches ? "dark" : "light"];
  for (const quality of qualities) {
    part(quality, "profile").glyph.line_color = { value: ink };
    part(quality, "marker").glyph.setv({ fill_color: { value: accent }, line_color: { value: accent } });
    part(quality, "fitted").line_color = ink;
    part(quality, "interval").fill_color = accent;
  }
  curves.height = narrow.matches ? 280 : 440;
  const log_value = element("log-value").checked && !element("log-value").disabled;
  scale("x", "below", element("log-time").checked);
  scale("y", "left", log_value);
  const single = element("single").checked;
  part(curves, "runs").visible = single;
  curves.toolbar.tools.find((tool) => tool.name === "hover").renderers = [part(curves, single ? "runs" : "means")];
  let [low, high] = [Infinity, -Infinity];
  for (const line of view.conditions.flatMap((c) => [c.band, ...(single ? c.runs : [])])) {
    for (const y of line) if (Number.isFinite(y) && (y > 0 || !log_value)) { low = Math.min(low, y); high = Math.max(high, y); }
  }
  fill(curves.y_range, low, high, log_value);
  for (const axis of curves.left) axis.axis_label = view.label.replaceAll("_", " ");
  lines("means", (c) => [c.mean], (c) => [`${c.name}: mean of ${c.num_runs}`]);
  lines("bands", (c) => [c.band], () => [""]);
  lines("runs", (c) => c.runs, (c) => c.replicates.map((name) => `${c.name}, ${content.replicate} ${name}`));
  const chips = view.conditions.map(({ name, num_runs }, k) => {
    const chip = document.createElement("li");
    chip.style.setProperty("--shade", view.colours[k]);
    chip.textContent = `${name} (${num_runs} ${num_runs === 1 ? "curve" : "curves"})`;
    return chip;
  });
  const gap = chips.length > 24 ? [Object.assign(document.createElement("li"), { textContent: `… ${chips.length} settings in total …` })] : [];
  element("legend").replaceChildren(...(gap.length ? [...chips.slice(0, 3), ...gap, ...chips.slice(-3)] : chips));
  follow();
}

/** Set the heights, colours and tooltips of a glyph; `place` sets its times. */
function lines(name, heights, texts) {
  const { conditions, colours } = state.view, ys = conditions.map(heights);
  const colour = ys.flatMap((heights, k) => heights.map(() => colours[k]));
  part(curves, name).data_source.data = { xs: ys.flat(), ys: ys.flat(), colour, text: conditions.flatMap(texts) };
}

/** Change columns in place: on a new `data` object Bokeh would search all its models. */
function place(figure, name, columns) {
  const source = part(figure, name).data_source;
  Object.assign(source.data, columns);
  source.change.emit();
}

let asked = false;
/** Draw once in the next frame, however often this is called. */
function ask() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; follow(); });
}

/** " · (η/0.05)^2" as DOM nodes; empty for the power 0. */
function grown(symbol, centre, power) {
  if (power === 0) return [];
  const raised = Object.assign(document.createElement("sup"), { textContent: `${+power.toFixed(2)}`.replace("-", "−") });
  return [` · (${symbol}/${+centre.toPrecision(3)})`, raised];
}

/** Update everything that depends on the exponents. */
function follow() {
  const { view, powers } = state, factors = shifts(view, powers).map(Math.exp);
  const times = view.conditions.map(({ time }, k) => time.map((t) => t * factors[k]));
  place(curves, "means", { xs: times });
  place(curves, "bands", { xs: times.map((x) => outline(x)) });
  if (part(curves, "runs").visible) place(curves, "runs", { xs: view.conditions.flatMap((c, k) => c.runs.map(() => times[k])) });
  fill(curves.x_range, Math.min(...times.map((x) => x[0])), Math.max(...times.map((x) => x.at(-1))), element("log-time").checked);
  element("time").replaceChildren(content.time, ...controls.flatMap(({ symbol }, i) => grown(symbol, view.centre[i], powers[i])));

  const here = lost(view, powers), apart = spread(view, powers);
  Object.assign(element("lost"), { value: here, textContent: `${here < 0.05 ? "0.0" : +here.toPrecision(3)}` });
  const percent = (share, digits) => `${+(100 * share).toPrecision(digits)} %`;
  Object.assign(element("spread"), { value: apart.spread, textContent: apart.overlap === 0
    ? "No two curves overlap."
    : `The curves differ by ${percent(apart.spread, 2)} of their range (root mean square over the ${percent(apart.overlap, 2)} of the logarithmic time axis where at least two curves overlap).` });
  powers.forEach((power, i) => {
    element(`at-${i}`).textContent = words(power);
    place(qualities[i], "marker", { x: [power], y: [Math.max(here, least)] });
  });
  profile_again();
}

// ---- profiles: a few points per frame, so that the sliders respond without delay

/** Exponents over the slider of one control, more densely spaced around the fit. */
function ladder(view, i) {
  const { value, low, high, reach: [from, to] } = view.exponents[i];
  const steps = (a, b, number) => Array.from({ length: number }, (_, n) => a + (b - a) * n / (number - 1));
  const about = value === null ? [] : [...steps(2 * low - value, 2 * high - value, FINE), value].filter((p) => p > from && p < to);
  return [...steps(from, to, COARSE), ...about].sort((a, b) => a - b);
}

// for each profile on display, the view and exponents it was computed for
const known = qualities.map(() => "");
// the profile being computed
let working = null;

/** Compute the profiles for which another exponent or the view has changed. */
function profile_again() {
  const key = (i) => [views.indexOf(state.view), ...state.powers.map((p, j) => (j === i ? "" : p))].join();
  const i = known.findIndex((was, j) => was !== key(j));
  if (i < 0) { working = null; return; }
  if (working?.key !== key(i) || working.i !== i) {
    const begun = working !== null;
    working = { i, key: key(i), view: state.view, powers: [...state.powers], x: ladder(state.view, i), y: [] };
    if (begun) return;
    requestAnimationFrame(work);
  }
}

function work() {
  if (working === null) return;
  const { i, view, powers, x, y } = working, now = performance.now();
  const until = now + (now - moved < 100 ? BUDGET.moving : BUDGET.still);
  while (y.length < x.length && performance.now() < until) {
    y.push(Math.max(lost(view, powers.map((p, j) => (j === i ? x[y.length] : p))), least));
  }
  if (y.length < x.length) { requestAnimationFrame(work); return; }
  known[i] = working.key;
  place(qualities[i], "profile", { x, y });
  qualities[i].y_range.setv({ start: least / 2, end: 2 * Math.max(...y, 10 * least) });
  working = null;
  profile_again();
}

// ---- events

element("label").addEventListener("change", choose);
element("choice").addEventListener("change", choose);
element("clock").addEventListener("change", set_clock);
for (const id of ["single", "log-time", "log-value"]) element(id).addEventListener("change", repaint);
for (const look of [dark, narrow]) look.addEventListener("change", repaint);
sliders.forEach((slider, i) => {
  slider.addEventListener("input", () => move(i, slider.valueAsNumber));
  slider.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (!way || !event.shiftKey) return;
    event.preventDefault();
    slider.value = slider.valueAsNumber + 0.1 * way;
    move(i, slider.valueAsNumber);
  });
});
choose();
})();
