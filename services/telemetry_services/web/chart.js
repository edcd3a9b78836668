// Lines over time on a canvas. Charts of one view share an axis: one range, one crosshair, one zoom.

import { lines, token } from "/web/colors.js";
import * as format from "/web/format.js";

const STEPS_MS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800].map((s) => s * 1000);
const LEFT = 48;
const RIGHT = 12;
const TOP = 10;
const BOTTOM = 24;

/** The range of time that charts show. Live: its end is now, and moves. */
export class TimeAxis {
  constructor(spanMs) {
    this.live = true;
    this.span = spanMs;
    this.end = Date.now();
    this.hover = null;
    this.charts = new Set();
    this.onZoom = () => {};
  }

  get start() { return this.end - this.span; }
  setLive(spanMs) { this.live = true; this.span = spanMs; this.end = Date.now(); this.drawAll(); }
  setRange(start, end) { this.live = false; this.end = end; this.span = end - start; this.drawAll(); }
  advance() { if (this.live) { this.end = Date.now(); this.drawAll(); } }
  setHover(time) { if (time !== this.hover) { this.hover = time; for (const chart of this.charts) chart.drawOverlay(); } }
  drawAll() { for (const chart of this.charts) chart.draw(); }
}

/** One chart. Series: {name, color?, times: number[], values: number[], gap: ms}. */
export class Chart {
  constructor(axis, { title, unit = "", scale = null, height = 180, showNames = true, fromZero = false }) {
    Object.assign(this, { axis, title, unit, scale, height, showNames, fromZero });
    this.series = [];
    this.note = "Loading…";
    this.root = document.createElement("figure");
    this.root.className = "chart";
    const caption = document.createElement("figcaption");
    this.heading = document.createElement("span");
    this.heading.className = "chart-title";
    this.heading.textContent = title;
    this.readout = document.createElement("span");
    this.readout.className = "chart-readout";
    caption.append(this.heading, this.readout);
    this.plot = document.createElement("div");
    this.plot.className = "plot";
    this.canvas = document.createElement("canvas");
    this.overlay = document.createElement("canvas");
    this.overlay.className = "overlay";
    this.overlay.tabIndex = 0;
    this.overlay.setAttribute("role", "img");
    this.plot.append(this.canvas, this.overlay);
    this.root.append(caption, this.plot);
    axis.charts.add(this);
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.plot);
    this.#listen();
  }

  destroy() { this.observer.disconnect(); this.axis.charts.delete(this); }

  setSeries(series, note = "No samples in this range") { this.series = series; this.note = note; this.draw(); }

  /** Adds a point behind the last one of a series; what has left the axis on its other side goes. */
  push(at, time, value) {
    const one = this.series[at];
    if (!one || (one.times.length && time <= one.times[one.times.length - 1])) return;
    one.times.push(time);
    one.values.push(value);
    const cut = this.axis.start - this.axis.span * 0.1;
    if (one.times[0] < cut && one.times.length > 512) {
      const keep = lowerBound(one.times, cut);
      if (keep > 256) { one.times.splice(0, keep); one.values.splice(0, keep); }
    }
  }

  resize() {
    const width = Math.max(160, this.plot.clientWidth);
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    for (const canvas of [this.canvas, this.overlay]) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(this.height * ratio);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${this.height}px`;
      canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    this.width = width;
    this.draw();
  }

  #bounds() {
    let [low, high] = [Infinity, -Infinity];
    for (const { times, values } of this.series) {
      for (let at = Math.max(0, lowerBound(times, this.axis.start) - 1); at < times.length && times[at] <= this.axis.end; at += 1) {
        const value = values[at];
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
    if (!(high > -Infinity)) return this.scale ?? [0, 1];
    // A share of a whole is shown against the whole; anything else fills the chart, but noise is not made mountains.
    if (this.fromZero) return [0, Math.max(1, high * 1.1)];
    if (this.unit === "%") return [0, Math.max(100, high)];
    const margin = Math.max((high - low) * 0.12, Math.abs(high) * 0.02, 0.5);
    return [low >= 0 && low < high * 0.4 ? 0 : Math.max(low >= 0 ? 0 : -Infinity, low - margin), high + margin];
  }

  draw() {
    if (!this.width) return;
    const context = this.canvas.getContext("2d");
    const { width, height, axis } = this;
    context.clearRect(0, 0, width, height);
    const [low, high] = this.bounds = this.#bounds();
    const y = this.y = (value) => TOP + (1 - (value - low) / (high - low)) * (height - TOP - BOTTOM);
    const x = this.x = (time) => LEFT + ((time - axis.start) / axis.span) * (width - LEFT - RIGHT);
    this.#drawGrid(context, x, y, low, high);
    const colors = lines();
    context.save();
    context.beginPath();
    context.rect(LEFT, 0, width - LEFT - RIGHT + 1, height - BOTTOM + 1);
    context.clip();
    this.series.forEach((one, number) => {
      const color = one.color ?? colors[number % colors.length];
      drawLine(context, one, x, y, axis, color, this.series.length === 1 ? height - BOTTOM : 0);
    });
    context.restore();
    if (!this.series.some((one) => one.times.length)) {
      context.fillStyle = token("--muted");
      context.font = "13px system-ui, sans-serif";
      context.textAlign = "center";
      context.fillText(this.note, LEFT + (width - LEFT - RIGHT) / 2, height / 2 - 6);
    }
    this.overlay.setAttribute("aria-label", this.#summary());
    this.drawOverlay();
  }

  #drawGrid(context, x, y, low, high) {
    const { width, height, axis } = this;
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = token("--muted");
    context.strokeStyle = token("--line");
    context.lineWidth = 1;
    context.textAlign = "right";
    context.textBaseline = "middle";
    const factor = this.unit === "MiB" && high >= 1024 ? 1024 : 1; // so that ticks are round in the unit that is shown
    const unit = factor === 1 ? this.unit : "GiB";
    this.heading.textContent = unit ? `${this.title}, ${unit}` : this.title;
    for (const value of niceTicks(low / factor, high / factor, 4).map((tick) => tick * factor)) {
      const at = Math.round(y(value)) + 0.5;
      context.beginPath();
      context.moveTo(LEFT, at);
      context.lineTo(width - RIGHT, at);
      context.stroke();
      context.fillText(format.number(value / factor) + unitSuffix(value, this.unit), LEFT - 8, at);
    }
    const most = Math.max(2, Math.floor((width - LEFT - RIGHT) / 90));
    const step = STEPS_MS.find((ms) => axis.span / ms <= most) ?? STEPS_MS[STEPS_MS.length - 1];
    const zone = new Date(axis.start).getTimezoneOffset() * 60_000;
    context.textAlign = "center";
    context.textBaseline = "alphabetic";
    for (let time = Math.ceil((axis.start - zone) / step) * step + zone; time <= axis.end; time += step) {
      const at = x(time);
      if (at > LEFT + 16 && at < width - RIGHT - 14) context.fillText(format.tick(time, step), at, height - 7);
    }
  }

  drawOverlay() {
    if (!this.width || !this.x) return;
    const context = this.overlay.getContext("2d");
    const { width, height, axis } = this;
    context.clearRect(0, 0, width, height);
    const colors = lines();
    if (this.drag) {
      context.fillStyle = token("--accent-soft");
      context.fillRect(Math.min(this.drag.from, this.drag.to), TOP, Math.abs(this.drag.to - this.drag.from), height - TOP - BOTTOM);
    }
    const hovered = axis.hover !== null && axis.hover >= axis.start && axis.hover <= axis.end;
    const found = this.series.map((one) => (hovered ? nearest(one, axis.hover) : one.times.length - 1));
    if (hovered) {
      const at = Math.round(this.x(axis.hover)) + 0.5;
      context.strokeStyle = token("--muted");
      context.setLineDash([3, 3]);
      context.beginPath();
      context.moveTo(at, TOP);
      context.lineTo(at, height - BOTTOM);
      context.stroke();
      context.setLineDash([]);
    }
    this.series.forEach((one, number) => {
      const at = found[number];
      if (at < 0 || Number.isNaN(one.values[at]) || one.times[at] < axis.start) return;
      context.fillStyle = one.color ?? colors[number % colors.length];
      context.beginPath();
      context.arc(this.x(one.times[at]), this.y(one.values[at]), 3, 0, 7);
      context.fill();
    });
    this.#read(found, hovered, colors);
  }

  #read(found, hovered, colors) {
    const parts = this.series.slice(0, 8).map((one, number) => {
      const item = document.createElement("span");
      const at = found[number];
      const text = format.value(at >= 0 ? one.values[at] : NaN, this.unit);
      if (this.series.length > 1) {
        const swatch = document.createElement("i");
        swatch.style.background = one.color ?? colors[number % colors.length];
        item.append(swatch, `${this.showNames ? `${one.name} ` : ""}${text}`);
      } else item.textContent = text;
      return item;
    });
    if (hovered) {
      const when = document.createElement("span");
      when.className = "chart-time";
      when.textContent = this.axis.span > 86_400_000 ? format.dateTime(this.axis.hover) : format.time(this.axis.hover);
      parts.unshift(when);
    }
    this.readout.replaceChildren(...parts);
  }

  #summary() {
    const told = this.series.slice(0, 4).map((one) => {
      const values = one.values.filter((value) => !Number.isNaN(value));
      if (!values.length) return `${one.name}: no samples`;
      const [low, high] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
      return `${one.name}: latest ${format.value(values[values.length - 1], this.unit)}, from ${format.value(low, this.unit)} to ${format.value(high, this.unit)}`;
    });
    return `${this.title}, ${format.duration(this.axis.span / 1000)}. ${told.join("; ") || this.note}. Arrow keys move the crosshair, + and - zoom, 0 goes back.`;
  }

  #listen() {
    const timeAt = (event) => {
      const at = event.clientX - this.overlay.getBoundingClientRect().left;
      return this.axis.start + ((at - LEFT) / (this.width - LEFT - RIGHT)) * this.axis.span;
    };
    const clamp = (event) => Math.min(this.width - RIGHT, Math.max(LEFT, event.clientX - this.overlay.getBoundingClientRect().left));
    this.overlay.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "touch" || event.button !== 0) return;
      this.drag = { from: clamp(event), to: clamp(event), start: timeAt(event) };
      this.overlay.setPointerCapture(event.pointerId);
    });
    this.overlay.addEventListener("pointermove", (event) => {
      if (this.drag) this.drag.to = clamp(event);
      this.axis.setHover(timeAt(event));
      if (this.drag) this.drawOverlay();
    });
    this.overlay.addEventListener("pointerup", (event) => {
      const drag = this.drag;
      this.drag = null;
      if (drag && Math.abs(drag.to - drag.from) > 8) {
        const [start, end] = [drag.start, timeAt(event)].sort((a, b) => a - b);
        this.axis.onZoom(Math.max(start, this.axis.start), Math.min(end, this.axis.end));
      } else this.drawOverlay();
    });
    this.overlay.addEventListener("pointerleave", () => { if (!this.drag) this.axis.setHover(null); });
    this.overlay.addEventListener("dblclick", () => this.axis.onZoom(null, null));
    this.overlay.addEventListener("blur", () => this.axis.setHover(null));
    this.overlay.addEventListener("keydown", (event) => this.#key(event));
  }

  #key(event) {
    const { axis } = this;
    const middle = axis.hover ?? axis.end;
    const step = axis.span / 60;
    if (event.key === "ArrowLeft") axis.setHover(Math.max(axis.start, middle - step));
    else if (event.key === "ArrowRight") axis.setHover(Math.min(axis.end, middle + step));
    else if (event.key === "+" || event.key === "=") axis.onZoom(Math.max(axis.start, middle - axis.span / 4), Math.min(axis.end, middle + axis.span / 4));
    else if (event.key === "-") axis.onZoom(axis.start - axis.span / 2, Math.min(Date.now(), axis.end + axis.span / 2));
    else if (event.key === "0" || event.key === "Escape") axis.onZoom(null, null);
    else return;
    event.preventDefault();
  }
}

function unitSuffix(value, unit) {
  const shown = format.scaledUnit(value, unit)[1];
  return shown === "%" || shown === "°C" ? shown.replace("°C", "°") : "";
}

function drawLine(context, { times, values, gap = Infinity }, x, y, axis, color, floor) {
  context.strokeStyle = color;
  context.lineWidth = 1.6;
  context.lineJoin = "round";
  let begun = null;
  const runs = [];
  for (let at = Math.max(0, lowerBound(times, axis.start) - 1); at < times.length && times[at] <= axis.end + axis.span * 0.02; at += 1) {
    const broken = Number.isNaN(values[at]);
    if (broken || (begun && times[at] - begun.last > gap)) begun = null;
    if (broken) continue;
    if (!begun) { begun = { points: [], last: times[at] }; runs.push(begun); }
    begun.points.push([x(times[at]), y(values[at])]);
    begun.last = times[at];
  }
  for (const { points } of runs) {
    if (floor) {
      context.globalAlpha = 0.12;
      context.fillStyle = color;
      context.beginPath();
      context.moveTo(points[0][0], floor);
      for (const [px, py] of points) context.lineTo(px, py);
      context.lineTo(points[points.length - 1][0], floor);
      context.fill();
      context.globalAlpha = 1;
    }
    context.beginPath();
    points.forEach(([px, py], number) => (number ? context.lineTo(px, py) : context.moveTo(px, py)));
    if (points.length === 1) context.arc(points[0][0], points[0][1], 1, 0, 7);
    context.stroke();
  }
}

export function niceTicks(low, high, most) {
  const rough = (high - low) / most;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * size).find((one) => (high - low) / one <= most) ?? rough;
  const ticks = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step) ticks.push(Math.abs(value) < step / 1e6 ? 0 : value);
  return ticks;
}

export function lowerBound(sorted, wanted) {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

function nearest({ times }, wanted) {
  const at = lowerBound(times, wanted);
  if (at >= times.length) return times.length - 1;
  return at > 0 && wanted - times[at - 1] < times[at] - wanted ? at - 1 : at;
}
