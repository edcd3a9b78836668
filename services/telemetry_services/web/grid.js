// The fleet as a grid of cells on a canvas: one draw for ten thousand of them, and one for a change of all.
// A second canvas above it holds what moves with the pointer and the keyboard.

import { ramp, token } from "/web/colors.js";

const SIZES = [22, 20, 18, 16, 14, 12, 11, 10, 9, 8, 7, 6];
const BLOCK_CELLS = 16; // up to so many GPUs, a group is a block beside others; larger ones are sections
const LABEL_FROM = 10;
const FONT = "12px system-ui, sans-serif";
const SECTION_FONT = "600 13px system-ui, sans-serif";

/** Where each cell lies, for a width and, where it can be, a height. */
function layOut(groups, width, height) {
  const largest = groups.reduce((most, group) => Math.max(most, group.gpus.length), 1);
  const place = largest <= BLOCK_CELLS ? placeBlocks : placeSections;
  let found = null;
  for (const cell of SIZES) {
    found = place(groups, width, cell, largest);
    if (found.height <= height) break;
  }
  return found;
}

function placeBlocks(groups, width, cell, largest) {
  const gap = cell >= 14 ? 3 : cell >= 9 ? 2 : 1;
  const across = Math.min(largest, 8);
  const label = cell >= LABEL_FROM ? 17 : 0;
  const blockWidth = across * (cell + gap) - gap;
  const rows = Math.ceil(largest / across);
  const blockHeight = label + rows * (cell + gap) - gap;
  const [marginX, marginY] = label ? [Math.max(18, cell), Math.max(14, cell * 0.7)] : [Math.max(5, gap * 4), Math.max(4, gap * 3)];
  const columns = Math.max(1, Math.floor((width + marginX) / (blockWidth + marginX)));
  // What is left over widens the margins, so that the grid fills its width.
  const spread = columns > 1 && groups.length >= columns ? Math.min(marginX * 1.8, (width - columns * blockWidth) / (columns - 1)) : marginX;
  const cells = [];
  const labels = [];
  groups.forEach((group, at) => {
    const left = Math.round((at % columns) * (blockWidth + spread));
    const top = Math.floor(at / columns) * (blockHeight + marginY);
    if (label) labels.push({ text: group.name, x: left, y: top + 11, width: blockWidth, font: FONT });
    group.gpus.forEach((gpu, i) => {
      cells.push({ gpu, x: left + (i % across) * (cell + gap), y: top + label + Math.floor(i / across) * (cell + gap) });
    });
  });
  return { cell, cells, labels, height: Math.ceil(groups.length / columns) * (blockHeight + marginY) };
}

function placeSections(groups, width, cell) {
  const gap = cell >= 14 ? 3 : cell >= 9 ? 2 : 1;
  const across = Math.max(1, Math.floor((width + gap) / (cell + gap)));
  const cells = [];
  const labels = [];
  let top = 0;
  for (const group of groups) {
    labels.push({ text: `${group.name}  ·  ${group.gpus.length}`, x: 0, y: top + 13, width, font: SECTION_FONT });
    top += 24;
    group.gpus.forEach((gpu, i) => {
      cells.push({ gpu, x: (i % across) * (cell + gap), y: top + Math.floor(i / across) * (cell + gap) });
    });
    top += Math.ceil(group.gpus.length / across) * (cell + gap) + 18;
  }
  return { cell, cells, labels, height: top };
}

export class Grid {
  /** @param host element that the canvases go into; `on`: {describe(gpu), open(gpu), hover(gpu | null, rect)} */
  constructor(host, on) {
    this.on = on;
    this.canvas = document.createElement("canvas");
    this.overlay = document.createElement("canvas");
    this.overlay.className = "overlay";
    this.overlay.tabIndex = 0;
    this.overlay.setAttribute("role", "application");
    this.overlay.setAttribute("aria-roledescription", "grid of GPUs");
    this.overlay.setAttribute("aria-label", "Grid of GPUs. Arrow keys move between GPUs, Enter opens one. The table has the same values.");
    this.canvas.setAttribute("aria-hidden", "true");
    this.spoken = document.createElement("div");
    this.spoken.className = "visually-hidden";
    this.spoken.setAttribute("aria-live", "polite");
    host.append(this.canvas, this.overlay, this.spoken);
    this.host = host;
    this.placed = { cell: 12, cells: [], labels: [], height: 0 };
    this.at = -1; // the cell under pointer or keyboard
    this.drawn = new Int16Array(0);
    this.overlay.addEventListener("pointermove", (event) => this.#point(event));
    this.overlay.addEventListener("pointerleave", () => this.#mark(-1));
    this.overlay.addEventListener("click", (event) => { this.#point(event); this.#open(); });
    this.overlay.addEventListener("keydown", (event) => this.#key(event));
    this.overlay.addEventListener("blur", () => this.#mark(-1));
  }

  /** Lays groups out anew: [{name, gpus: [number]}]. */
  setGroups(groups, height) {
    this.groups = groups;
    this.height = height;
    this.#resize();
  }

  /** @param look {stepOf(gpu), isSilent(gpu)} */
  setLook(look) { this.look = look; }

  #resize() {
    const width = Math.max(120, Math.floor(this.host.clientWidth));
    this.placed = layOut(this.groups, width, this.height);
    this.byGpu = new Map(this.placed.cells.map((cell, at) => [cell.gpu, at]));
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    const height = Math.max(1, Math.ceil(this.placed.height));
    for (const canvas of [this.canvas, this.overlay]) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
      canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    this.host.style.height = `${height}px`;
    this.at = -1;
    this.draw();
  }

  resize(height) {
    this.height = height;
    if (this.groups) this.#resize();
  }

  /** Draws everything. */
  draw() {
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.fillStyle = token("--muted");
    context.textBaseline = "alphabetic";
    for (const label of this.placed.labels) {
      context.font = label.font;
      context.fillText(fitted(context, label.text, label.width), label.x, label.y);
    }
    this.drawn = new Int16Array(this.placed.cells.length).fill(-9);
    this.#drawCells(context, null);
  }

  /** Draws what has changed of these GPUs; null: of all. */
  update(gpus) {
    this.#drawCells(this.canvas.getContext("2d"), gpus);
    if (this.at >= 0) this.#tell();
  }

  #drawCells(context, gpus) {
    const { cell, cells } = this.placed;
    const colors = ramp();
    const [none, silent, back] = [token("--cell-none"), token("--cell-silent"), token("--background")];
    const radius = cell >= 14 ? 3 : cell >= 9 ? 2 : 0;
    const draw = (at) => {
      const { gpu, x, y } = cells[at];
      const step = this.look.isSilent(gpu) ? -2 : this.look.stepOf(gpu);
      if (this.drawn[at] === step) return;
      this.drawn[at] = step;
      if (radius) { context.fillStyle = back; context.fillRect(x - 0.5, y - 0.5, cell + 1, cell + 1); }
      if (step === -2) { drawSilent(context, x, y, cell, silent, back); return; }
      if (step < 0) { drawNone(context, x, y, cell, none, back); return; }
      context.fillStyle = colors[step];
      if (radius) { context.beginPath(); context.roundRect(x, y, cell, cell, radius); context.fill(); }
      else context.fillRect(x, y, cell, cell);
    };
    if (gpus) for (const gpu of gpus) { const at = this.byGpu.get(gpu); if (at !== undefined) draw(at); }
    else for (let at = 0; at < cells.length; at += 1) draw(at);
  }

  #point(event) {
    const box = this.overlay.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const { cell, cells } = this.placed;
    const reach = cell < 9 ? 1 : 2;
    this.#mark(cells.findIndex((one) => x >= one.x - reach && x < one.x + cell + reach && y >= one.y - reach && y < one.y + cell + reach));
  }

  #mark(at) {
    if (at === this.at) return;
    this.at = at;
    const context = this.overlay.getContext("2d");
    context.clearRect(0, 0, this.overlay.width, this.overlay.height);
    this.overlay.style.cursor = at >= 0 ? "pointer" : "default";
    if (at >= 0) {
      const { x, y } = this.placed.cells[at];
      const { cell } = this.placed;
      context.lineWidth = 2;
      context.strokeStyle = token("--background");
      context.strokeRect(x - 1, y - 1, cell + 2, cell + 2);
      context.strokeStyle = token("--text");
      context.strokeRect(x - 2.5, y - 2.5, cell + 5, cell + 5);
    }
    this.#tell();
  }

  #tell() {
    if (this.at < 0) { this.on.hover(null); return; }
    const { gpu, x, y } = this.placed.cells[this.at];
    this.on.hover(gpu, { x, y, size: this.placed.cell });
  }

  #open() { if (this.at >= 0) this.on.open(this.placed.cells[this.at].gpu); }

  #key(event) {
    const { cells } = this.placed;
    if (!cells.length) return;
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: "up", ArrowDown: "down", Home: "first", End: "last" };
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); this.#open(); return; }
    if (event.key === "Escape") { this.#mark(-1); return; }
    const move = moves[event.key];
    if (move === undefined) return;
    event.preventDefault();
    let next = 0;
    if (move === "last") next = cells.length - 1;
    else if (this.at < 0 || move === "first") next = 0;
    else if (typeof move === "number") next = Math.min(cells.length - 1, Math.max(0, this.at + move));
    else next = this.#vertical(move === "down");
    this.#mark(next);
    this.overlay.scrollIntoView?.({ block: "nearest" });
    this.spoken.textContent = this.on.describe(cells[next].gpu);
  }

  #vertical(down) {
    const { cells } = this.placed;
    const from = cells[this.at];
    let [best, bestFar] = [this.at, Infinity];
    cells.forEach((cell, at) => {
      const dy = down ? cell.y - from.y : from.y - cell.y;
      const far = dy * 4 + Math.abs(cell.x - from.x);
      if (dy > 1 && far < bestFar) [best, bestFar] = [at, far];
    });
    return best;
  }
}

/** A GPU that reports, but not this metric: a dot. */
function drawNone(context, x, y, cell, color, back) {
  context.fillStyle = back;
  context.fillRect(x, y, cell, cell);
  context.fillStyle = color;
  const size = Math.max(2, Math.round(cell / 3));
  context.fillRect(x + (cell - size) / 2, y + (cell - size) / 2, size, size);
}

function drawSilent(context, x, y, cell, color, back) {
  const inset = cell >= 9 ? 1 : 0.5;
  context.fillStyle = back;
  context.fillRect(x, y, cell, cell);
  context.strokeStyle = color;
  context.lineWidth = cell >= 9 ? 1.6 : 1;
  context.beginPath();
  context.rect(x + inset, y + inset, cell - 2 * inset, cell - 2 * inset);
  context.moveTo(x + inset, y + cell - inset);
  context.lineTo(x + cell - inset, y + inset);
  context.stroke();
}

function fitted(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let end = text.length;
  while (end > 1 && context.measureText(`${text.slice(0, end)}…`).width > width) end -= 1;
  return `${text.slice(0, end)}…`;
}

export const scaleOf = (metric, values) => {
  if (metric.scale) return metric.scale;
  let [low, high] = [Infinity, -Infinity];
  for (const one of values) {
    if (one < low) low = one;
    if (one > high) high = one;
  }
  if (!(high > -Infinity)) return [0, 1];
  return high > low ? [low, high] : [Math.min(0, low), Math.max(1, high)];
};

