// The page of `jthermo explore`. Everything shown is a function of `state`: the selected view and the numbers of the sliders.
"use strict";
(async () => {
const content = JSON.parse(document.getElementById("content").textContent);
const { controls, views, clocks, least } = content;
const element = (id) => document.getElementById(id);
const sliders = views[0].exponents.map((_, i) => element(`p-${i}`));
const SPREAD_POINTS = 200;
// most records of a curve that are also drawn as points
const MOST_POINTS = 64;
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
    // the time since the origin of the clock
    condition.since = condition.log_time.map(view.clock.signed ? (x) => view.clock.unit * Math.sinh(x) : Math.exp);
    condition.mean = unpack(condition.mean, Float64Array);
    condition.error = unpack(condition.error, Float32Array);
    const all = unpack(condition.runs, Float32Array), length = condition.since.length;
    condition.runs = condition.replicates.map((_, i) => all.subarray(i * length, (i + 1) * length));
  }
  const fit = view.objective;
  // the place of every record, log t or asinh t
  fit.place = view.conditions.flatMap(({ log_time }) => [...log_time]);
  fit.mean = unpack(fit.mean, Float64Array);
  // values in the units of the data, from which an offset of logs is subtracted
  fit.value = fit.mean.map((y) => Math.exp(fit.origin + fit.unit * y));
  fit.ends = [...fit.starts.slice(1), fit.place.length];
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
}

/** What the numbers do to the conditions: log τ grows by `shift` and the log value by `lift`; t_c and v₀. */
function moves(view, numbers) {
  const out = { shift: view.conditions.map(() => 0), lift: view.conditions.map(() => 0), critical: view.clock.origin, offset: null };
  view.exponents.forEach(({ kind, column }, i) => {
    if (kind === "shift") column.forEach((x, k) => { out.shift[k] += x * numbers[i]; });
    else if (kind === "height") column.forEach((x, k) => { out.lift[k] += x * numbers[i]; });
    else if (kind === "critical_point") out.critical = numbers[i];
    else out.offset = numbers[i];
  });
  return out;
}

/** log τ, or asinh τ of signed times. */
function placed({ clock }, { shift, critical }, place, k) {
  if (!clock.signed) return place + shift[k];
  return Math.asinh((Math.sinh(place) - (critical - clock.origin) / clock.unit) * Math.exp(shift[k]));
}

/** The weight w of each mean and w·y, y being the mean on the axis of the curve (jthermo/collapse/means.py). */
function ordinates(view, { lift, offset }) {
  const { mean, value, condition, unit, origin, bend } = view.objective;
  if (!view.logs) {
    const base = offset === null ? 0 : (offset - origin) / unit;
    return { weight: condition.map((k) => Math.exp(lift[k])), target: mean.map((y) => y - base) };
  }
  if (offset === null) return { weight: condition.map(() => 1), target: mean.map((y, j) => y - lift[condition[j]] / unit) };
  // near the offset, logs are linear
  const far = condition.map((k, j) => (value[j] - offset) * Math.exp(-lift[k])), twice = 2 * bend;
  const weight = condition.map((k, j) => Math.exp(lift[k]) * Math.hypot(far[j], twice) / value[j]);
  return { weight, target: far.map((d, j) => weight[j] * (Math.asinh(d / twice) + Math.log(bend) - origin) / unit) };
}

/** The objective that the fit minimised (jthermo/collapse/likelihood.py), minus its value at the fit:
    f = ½[|Wm|² − b'M⁻¹b + log|M| − r log λ] with M = B'W'WB + λD'D, b = B'W'Wm and r the rank of D. */
function lost(view, numbers) {
  const fit = view.objective, moved = moves(view, numbers), number = fit.mean.length;
  const { weight, target } = ordinates(view, moved);
  const scaled = new Float64Array(fit.place.length);
  for (let j = 0; j < number; j++) {
    for (let n = fit.starts[j]; n < fit.ends[j]; n++) scaled[n] = placed(view, moved, fit.place[n], fit.condition[j]) / fit.spacing;
  }
  // the first cell of each branch and the number of splines before it; a curve without branches has one
  const side = (at) => (fit.broken && at >= 0 ? 1 : 0);
  const low = [Infinity, Infinity], high = [-Infinity, -Infinity];
  for (const at of scaled) {
    const cell = Math.floor(at), part = side(at);
    low[part] = Math.min(low[part], cell);
    high[part] = Math.max(high[part], cell);
  }
  const sizes = low.map((from, part) => (high[part] < from ? 0 : high[part] - from + 4));
  const before = [0, sizes[0]], q = sizes[0] + sizes[1];
  // B: cubic B-splines, averaged over each bin
  const basis = Array.from({ length: number }, () => new Float64Array(q));
  for (let j = 0; j < number; j++) {
    const share = weight[j] / (6 * (fit.ends[j] - fit.starts[j]));
    for (let n = fit.starts[j]; n < fit.ends[j]; n++) {
      const cell = Math.floor(scaled[n]), u = scaled[n] - cell, v = 1 - u, part = side(scaled[n]), k = cell - low[part] + before[part], row = basis[j];
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
  fit.rows.forEach(({ first, weights }) => {
    const white = new Float64Array(q);
    let height = 0;
    for (let j = 0; j < weights.length; j++) {
      height += weights[j] * target[first + j];
      const [from, to] = ends[first + j], row = basis[first + j];
      for (let k = from; k <= to; k++) white[k] += weights[j] * row[k];
    }
    for (let k = 0; k < q; k++) {
      const weight = white[k], row = normal[k];
      if (weight === 0) continue;
      moment[k] += weight * height;
      for (let l = 0; l <= k; l++) row[l] += weight * white[l];
    }
    power += height ** 2;
  });
  const ridge = 1e-13 * normal.reduce((sum, row, k) => sum + row[k], 0) / q;
  const bend = [1, -2, 1];
  let rank = 0;
  sizes.forEach((size, part) => {
    for (let k = before[part]; k + 2 < before[part] + size; k++, rank++) {
      for (let a = 0; a < 3; a++) for (let b = 0; b <= a; b++) normal[k + a][k + b] += fit.stiffness * bend[a] * bend[b];
    }
  });
  let value = power - rank * Math.log(fit.stiffness);
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

/** The values of a condition on the axis of the curve: (value − v₀)/Π c^q. */
function rescaled(view, { lift, offset }, k, values) {
  const base = offset ?? view.offset, factor = Math.exp(-lift[k]);
  return base === 0 && factor === 1 ? values : values.map((y) => (y - base) * factor);
}

/** Standard deviation between the means on an even grid of log τ (or asinh τ), as the root mean square over the points
    where at least two curves overlap, in units of the range of all means; and the share of such points. */
function spread(view, numbers) {
  const moved = moves(view, numbers), { conditions } = view;
  const places = conditions.map((c, k) => c.log_time.map((x) => placed(view, moved, x, k)));
  const heights = conditions.map((c, k) => {
    const values = rescaled(view, moved, k, c.mean);
    return view.logs ? values.map(Math.log) : values;
  });
  const low = Math.min(...places.map((x) => x[0])), high = Math.max(...places.map((x) => x[x.length - 1]));
  let total = 0, seen = 0;
  for (let n = 0; n < SPREAD_POINTS; n++) {
    const at = low + (high - low) * n / (SPREAD_POINTS - 1);
    const here = conditions.map((_, k) => interpolate(places[k], heights[k], at)).filter(Number.isFinite);
    if (here.length < 2) continue;
    const mean = here.reduce((sum, y) => sum + y, 0) / here.length;
    total += here.reduce((sum, y) => sum + (y - mean) ** 2, 0) / here.length;
    seen += 1;
  }
  const all = heights.flatMap((y) => [...y]).filter(Number.isFinite);
  const range = Math.max(...all) - Math.min(...all);
  return { spread: Math.sqrt(total / seen) / range, overlap: seen / SPREAD_POINTS };
}

for (const view of views) {
  const levels = view.conditions.flatMap((c) => [...c.mean]).filter(Number.isFinite);
  view.bottom = Math.min(...levels) - view.offset;
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

/** The least and the largest number of some lists, or the least positive one on a logarithmic axis. */
function ends(lists, logarithmic) {
  let [low, high] = [Infinity, -Infinity];
  for (const list of lists) {
    for (const at of list) if (Number.isFinite(at) && (at > 0 || !logarithmic)) { low = Math.min(low, at); high = Math.max(high, at); }
  }
  return [low, high];
}

/** A range with a little room at both ends, to which the reset tool goes back. */
function fill(range, low, high, logarithmic) {
  const room = logarithmic ? (high / low) ** 0.03 : 0.04 * (high - low);
  const [start, end] = logarithmic ? [low / room, high * room] : [low - room, high + room];
  range.setv({ start, end, reset_start: start, reset_end: end });
}

// ---- selection

const state = { view: views[0], powers: [] };
/** A number with one digit more than the step of its slider has. */
const words = (value, step) => (value === null ? "" : value.toFixed(Math.max(3, 1 - Math.round(Math.log10(step)))).replace("-", "−"));

/** Select the view of the chosen observable and setting; settings without a view are disabled. */
function choose() {
  const offered = views.filter((view) => view.label === element("label").value);
  for (const option of element("choice").options) option.disabled = !offered.some((v) => v.choice === option.value);
  state.view = offered.find((view) => view.choice === element("choice").value) ?? offered[0];
  element("choice").value = state.view.choice;
  state.view.exponents.forEach(({ value, low, high, held, reach, step }, i) => {
    [sliders[i].min, sliders[i].max] = reach;
    sliders[i].step = step;
    qualities[i].x_range.setv({ start: reach[0], end: reach[1] });
    const known = value !== null;
    part(qualities[i], "fitted").setv({ location: value, visible: known });
    part(qualities[i], "interval").setv({ left: low ?? 0, right: high ?? 0, visible: known && !held });
    element(`fitted-${i}`).textContent = held
      ? `Held at ${words(value, step)}.`
      : !known
      ? "The data do not determine this number."
      : `Fitted ${words(value, step)}, ${100 * state.view.confidence} % interval ${words(low, step)} to ${words(high, step)}.`;
  });
  element("verdict").textContent = state.view.verdict;
  element("summary").textContent = state.view.summary;
  element("log-value").disabled = !(state.view.bottom > 0);
  set_clock();
}

/** Set the numbers to those of the fit, and then the exponents of the time to those of the chosen clock; the clock t
    leaves the value as it is, too. The custom clock keeps the sliders. */
function set_clock() {
  const clock = element("clock").value;
  if (clock !== "own") state.powers = state.view.exponents.map(({ value }) => value ?? 0);
  if (clock in clocks) {
    state.view.exponents.forEach(({ kind }, i) => {
      if (kind === "shift") state.powers[i] = clocks[clock][i] ?? 0;
      if (kind === "height" && clock === "t") state.powers[i] = 0;
    });
  }
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
  // Both sides of a critical point are drawn against |τ| on a logarithmic axis.
  view.folded = view.clock.signed && element("log-time").checked;
  const single = element("single").checked;
  part(curves, "runs").visible = single;
  curves.toolbar.tools.find((tool) => tool.name === "hover").renderers = [part(curves, single ? "runs" : "means")];
  part(curves, "points").visible = view.conditions.every(({ since }) => since.length <= MOST_POINTS);
  const colour = view.conditions.flatMap(({ since }, k) => Array(since.length).fill(view.colours[k]));
  part(curves, "points").data_source.data = { x: colour.map(() => NaN), y: colour.map(() => NaN), colour };
  paint("means", (c) => [`${c.name}: mean of ${c.num_runs}`]);
  paint("bands", () => [""]);
  paint("runs", (c) => c.replicates.map((name) => `${c.name}, ${content.replicate} ${name}`));
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

/** Set the colours and tooltips of a glyph; `follow` sets its places. */
function paint(name, texts) {
  const { conditions, colours } = state.view, text = conditions.map(texts);
  const colour = text.flatMap((each, k) => each.map(() => colours[k])), empty = colour.map(() => []);
  part(curves, name).data_source.data = { xs: empty, ys: empty, colour, text: text.flat() };
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

/** The value and its factors as text: (m − 0.1) · (L/64)^0.125. */
function height_words(view, { offset }) {
  const base = offset ?? view.offset, value = view.label.replaceAll("_", " ");
  const factors = view.exponents.flatMap(({ kind, control }, i) => {
    const power = +(-state.powers[i]).toFixed(3);
    return kind === "height" && power !== 0 ? [`(${controls[control]}/${+view.centre[control].toPrecision(3)})^${power}`] : [];
  });
  return [base === 0 ? value : `(${value} − ${+base.toPrecision(4)})`, ...factors].join(" · ").replace(/- ?(?=[\d])/g, "−");
}

/** The time and its factors as DOM nodes. */
function time_words(view, { critical }) {
  const origin = view.exponents.find(({ kind }) => kind === "critical_point");
  const since = view.clock.critical ? `(${content.time} − ${origin ? words(critical, origin.step) : critical})` : content.time;
  const factors = view.exponents.flatMap(({ kind, control, correction }, i) => {
    if (kind !== "shift") return [];
    if (correction === null) return grown(controls[control], view.centre[control], state.powers[i]);
    return [` · exp(${state.powers[i].toFixed(2)}·${correction})`.replaceAll("-", "−")];
  });
  return view.folded ? ["|", since, ...factors, "|"] : [since, ...factors];
}

/** One side of τ = 0 and then the other with a gap between them if the axis is folded, else all at once. */
function sides(view, tau, draw) {
  const cut = view.folded ? tau.filter((at) => at <= 0).length : 0;
  return cut === 0 || cut === tau.length ? draw(0, tau.length) : [...draw(0, cut), NaN, ...draw(cut, tau.length)];
}

/** Update everything that depends on the numbers. */
function follow() {
  const { view, powers } = state, moved = moves(view, powers), log_time = element("log-time").checked;
  const log_value = element("log-value").checked && !element("log-value").disabled;
  const past = view.clock.signed ? moved.critical - view.clock.origin : 0;
  const drawn = view.conditions.map((c, k) => {
    const tau = c.since.map((t) => (t - past) * Math.exp(moved.shift[k]));
    const mean = rescaled(view, moved, k, c.mean), error = c.error.map((y) => y * Math.exp(-moved.lift[k]));
    const runs = c.runs.map((values) => rescaled(view, moved, k, values));
    return { tau, x: view.folded ? tau.map((at) => Math.abs(at) || NaN) : tau, mean, error, runs };
  });
  const single = part(curves, "runs").visible;
  place(curves, "means", {
    xs: drawn.map(({ tau, x }) => sides(view, tau, (a, b) => x.subarray(a, b))),
    ys: drawn.map(({ tau, mean }) => sides(view, tau, (a, b) => mean.subarray(a, b))),
  });
  place(curves, "bands", {
    xs: drawn.map(({ tau, x }) => sides(view, tau, (a, b) => outline(x.subarray(a, b)))),
    ys: drawn.map(({ tau, mean, error }) => sides(view, tau, (a, b) => outline(mean.subarray(a, b), (y, i, way) => y + way * error[a + i]))),
  });
  if (part(curves, "points").visible) {
    place(curves, "points", { x: drawn.flatMap(({ x }) => [...x]), y: drawn.flatMap(({ mean }) => [...mean]) });
  }
  if (single) {
    place(curves, "runs", {
      xs: drawn.flatMap(({ tau, x, runs }) => runs.map(() => sides(view, tau, (a, b) => x.subarray(a, b)))),
      ys: drawn.flatMap(({ tau, runs }) => runs.map((values) => sides(view, tau, (a, b) => values.subarray(a, b)))),
    });
  }
  fill(curves.x_range, ...ends(drawn.map(({ x }) => x), log_time), log_time);
  const heights = drawn.flatMap(({ mean, error, runs }) => [outline(mean, (y, i, way) => y + way * error[i]), ...(single ? runs : [])]);
  fill(curves.y_range, ...ends(heights, log_value), log_value);
  for (const axis of curves.left) axis.axis_label = height_words(view, moved);
  element("time").replaceChildren(...time_words(view, moved));

  const here = lost(view, powers), apart = spread(view, powers);
  Object.assign(element("lost"), { value: here, textContent: `${here < 0.05 ? "0.0" : +here.toPrecision(3)}` });
  const percent = (share, digits) => `${+(100 * share).toPrecision(digits)} %`;
  Object.assign(element("spread"), { value: apart.spread, textContent: apart.overlap === 0
    ? "No two curves overlap."
    : `The curves differ by ${percent(apart.spread, 2)} of their${view.logs ? " logarithmic" : ""} range (root mean square over the ${percent(apart.overlap, 2)} of the ${view.clock.signed ? "axis of τ" : "logarithmic time axis"} where at least two curves overlap).` });
  powers.forEach((power, i) => {
    element(`at-${i}`).textContent = words(power, view.exponents[i].step);
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
    slider.value = slider.valueAsNumber + 10 * slider.step * way;
    move(i, slider.valueAsNumber);
  });
});
choose();
})();
