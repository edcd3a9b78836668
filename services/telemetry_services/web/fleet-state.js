// The fleet as the server tells it: once whole, then what has changed. Columns of numbers, by GPU.

import { query, stream } from "/web/api.js";

const unfold = (column) => column.at.map((index) => column.names[index]);

export class FleetState {
  constructor() {
    this.count = 0;
    this.metrics = [];
    this.values = new Map();
    this.seen = new Float64Array(0);
    this.silentAfter = 60;
    this.clockOffset = 0;
    this.version = -1;
  }

  /** @returns whether the GPUs are other ones than before, or have other names */
  setState(body) {
    const isOther = body.version !== this.version || body.epoch !== this.epoch;
    this.epoch = body.epoch;
    this.version = body.version;
    this.count = body.count;
    this.metrics = body.metrics;
    this.silentAfter = body.silent_after_seconds;
    this.clockOffset = body.time_ms - Date.now();
    this.uuid = body.uuid;
    this.device = unfold(body.device_id);
    this.host = unfold(body.hostname);
    this.namespace = unfold(body.namespace);
    this.pod = unfold(body.pod);
    this.model = unfold(body.model_name);
    this.instance = unfold(body.gpu_instance_id);
    this.seen = Float64Array.from(body.seen_ms);
    this.values = new Map(Object.entries(body.values).map(([metric, column]) => [metric, Float64Array.from(column, (v) => (v === null ? NaN : v))]));
    return isOther;
  }

  /** @returns the numbers of the GPUs that changed; null: all */
  addFrame(body) {
    this.clockOffset = body.time_ms - Date.now();
    const gpus = body.gpus;
    const length = gpus ? gpus.length : this.count;
    for (let row = 0; row < length; row += 1) this.seen[gpus ? gpus[row] : row] = body.seen_ms[row];
    for (const [metric, column] of Object.entries(body.values)) {
      const held = this.values.get(metric);
      for (let row = 0; row < length; row += 1) held[gpus ? gpus[row] : row] = column[row] === null ? NaN : column[row];
    }
    return gpus;
  }

  now() { return Date.now() + this.clockOffset; }
  isSilent(gpu, now = this.now()) { return now - this.seen[gpu] > this.silentAfter * 1000; }
  value(metric, gpu) { return this.values.get(metric)?.[gpu] ?? NaN; }

  /** The text that the filter box looks in. */
  text(gpu) {
    return `${this.host[gpu]} ${this.device[gpu]} ${this.uuid[gpu]} ${this.model[gpu]} ${this.namespace[gpu]} ${this.pod[gpu]}`.toLowerCase();
  }

  name(gpu) {
    const slice = this.instance[gpu] ? ` slice ${this.instance[gpu]}` : "";
    return `${this.host[gpu] || "unknown host"} · ${this.device[gpu] || this.uuid[gpu]}${slice}`;
  }
}

/** Keeps a state up to date. `onChange(kind, gpus)`: kind is "state" or "frame"; see addFrame for gpus. */
export function watchFleet(state, metrics, onChange, onLive) {
  return stream(`/api/v1/fleet/live?${query({ metric: metrics })}`, {
    state: (body) => onChange(state.setState(body) ? "state" : "frame", null),
    frame: (body) => onChange("frame", state.addFrame(body)),
  }, onLive);
}
