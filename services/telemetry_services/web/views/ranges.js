// The range of time of a view with charts: buttons, zoom, and how both stand in the address.

import { h } from "/web/dom.js";
import * as format from "/web/format.js";

export const RANGES = { "5m": 300, "15m": 900, "1h": 3600, "6h": 21_600, "24h": 86_400, "7d": 604_800 };
const POINTS = 400;
const WINDOWS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600];

/** The range that an address names: {key} of RANGES, or {start, end} in ms. */
export function rangeOf(query, fallback = "1h") {
  const [start, end] = ["start", "end"].map((name) => Date.parse(query.get(name) ?? ""));
  if (start < end) return { start, end };
  const key = query.get("range");
  return { key: key in RANGES ? key : fallback };
}

export const spanOf = (range) => (range.key ? RANGES[range.key] * 1000 : range.end - range.start);

/** What the address says of a range. */
export const rangeText = (range, fallback = "1h") => (range.key
  ? (range.key === fallback ? {} : { range: range.key })
  : { start: new Date(range.start).toISOString(), end: new Date(range.end).toISOString() });

/** What the API is asked for: a window that gives some hundred points. */
export function askFor(range) {
  const span = spanOf(range) / 1000;
  const window = WINDOWS.find((seconds) => span / seconds <= POINTS) ?? WINDOWS[WINDOWS.length - 1];
  const [start, end] = range.key ? [Date.now() - span * 1000, null] : [range.start, range.end];
  return {
    windowMs: window * 1000,
    parameters: { start: new Date(start).toISOString(), end: end && new Date(end).toISOString(), window: `${window}s`, agg: "mean" },
  };
}

/** The buttons. `choose(range)` is called with what was chosen. */
export function rangeButtons(range, choose) {
  const zoomed = !range.key;
  return h("div.range", {},
    zoomed && h("span.zoomed", {}, `${format.dateTime(range.start)} – ${format.time(range.end)}`, " ",
      h("button", { type: "button", onclick: () => choose({ key: "1h" }) }, "Back to live")),
    h("div.segmented", { role: "group", "aria-label": "Range" },
      Object.keys(RANGES).map((key) => h("button", { type: "button", "aria-pressed": String(range.key === key), onclick: () => choose({ key }) }, key))));
}
