// The fleet by host, namespace or pod: a table of them, and each one with its GPUs and their metrics over time.

import { call, describe, metricCatalogue, query } from "/web/api.js";
import { Chart, TimeAxis } from "/web/chart.js";
import { ramp, stepOf } from "/web/colors.js";
import { emptyState, errorState, fill, h } from "/web/dom.js";
import { FleetState, watchFleet } from "/web/fleet-state.js";
import * as format from "/web/format.js";
import { askFor, rangeButtons, rangeOf, rangeText, spanOf } from "/web/views/ranges.js";

const [UTIL, TEMP, POWER, MEMORY] = ["DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_FB_USED"];
const KINDS = { host: "Hosts", namespace: "Namespaces", pod: "Pods" };
const FILTERS = { host: "hostname", namespace: "namespace", pod: "pod" };
const ROWS = 200;
const MOST_LINES = 16;
const collate = new Intl.Collator("en", { numeric: true }).compare;

export function groupsView(main, route, app) {
  const kind = route.parts[0] in KINDS ? route.parts[0] : "host";
  return route.parts[1] ? oneGroup(main, route, app, kind, route.parts[1]) : allGroups(main, route, app, kind);
}

const tabs = (kind) => h("nav.segmented", { "aria-label": "Group by" }, Object.entries(KINDS).map(([name, title]) => h("a", { href: `#/groups/${name}`, "aria-current": name === kind ? "page" : null }, title)));

/** Sums of some GPUs. */
function summarise(state, gpus, now) {
  const sum = { gpus: gpus.length, silent: 0, util: NaN, power: NaN, hottest: NaN, memory: NaN };
  let utils = 0, utilCount = 0, powers = 0, powerCount = 0, memory = 0, memoryCount = 0;
  for (const gpu of gpus) {
    if (state.isSilent(gpu, now)) { sum.silent += 1; continue; }
    const [util, power, temp, used] = [UTIL, POWER, TEMP, MEMORY].map((name) => state.value(name, gpu));
    if (util >= 0) { utils += util; utilCount += 1; }
    if (power >= 0) { powers += power; powerCount += 1; }
    if (used >= 0) { memory += used; memoryCount += 1; }
    if (!(temp <= sum.hottest)) sum.hottest = Number.isNaN(temp) ? sum.hottest : temp;
  }
  if (utilCount) sum.util = utils / utilCount;
  if (powerCount) sum.power = powers;
  if (memoryCount) sum.memory = memory;
  return sum;
}

function allGroups(main, route, app, kind) {
  const state = new FleetState();
  const wanted = { filter: route.query.get("q") ?? "", sort: route.query.get("sort") ?? "name" };
  const filterBox = h("input", { id: "filter", type: "search", placeholder: "Name", value: wanted.filter, oninput: () => choose({ filter: filterBox.value }) });
  const tableHost = h("div.table-host");
  let isShown = false;
  fill(main, h("div.loading", { role: "status" }, "Loading…"));

  function choose(change) {
    Object.assign(wanted, change);
    app.replace(`#/groups/${kind}?${query({ q: wanted.filter, sort: wanted.sort === "name" ? "" : wanted.sort })}`);
    draw();
  }

  function draw() {
    if (!state.count) { fill(main, emptyState("No GPU has reported yet", "This view fills by itself as soon as samples come in.")); isShown = false; return; }
    if (!isShown) {
      fill(main, h("div.content", {}, h("h1.visually-hidden", {}, KINDS[kind]),
        h("div.toolbar", {}, tabs(kind), h("label.field.grow", { for: "filter" }, h("span", {}, "Filter"), filterBox)), tableHost));
      isShown = true;
    }
    const groups = new Map();
    const column = state[kind];
    for (let gpu = 0; gpu < state.count; gpu += 1) {
      if (!column[gpu]) continue;
      if (!groups.has(column[gpu])) groups.set(column[gpu], []);
      groups.get(column[gpu]).push(gpu);
    }
    const words = wanted.filter.toLowerCase();
    const now = state.now();
    const found = [...groups].filter(([name]) => name.toLowerCase().includes(words)).map(([name, gpus]) => ({ name, members: gpus, ...summarise(state, gpus, now) }));
    const by = wanted.sort;
    found.sort((a, b) => (by === "name" ? collate(a.name, b.name) : (by === "silent" ? b.silent - a.silent : (b[by] || -1) - (a[by] || -1)) || collate(a.name, b.name)));
    if (!found.length) {
      fill(tableHost, groups.size ? emptyState("Nothing matches the filter", `None of ${format.count(groups.size)} names contains “${wanted.filter}”.`)
        : emptyState(`No GPU has a ${kind}`, "GPUs get one from the labels of their samples: dcgm-exporter adds them for GPUs that a pod uses."));
      return;
    }
    const heading = (name, title, numeric = true) => h(numeric ? "th.number" : "th", { scope: "col", "aria-sort": by === name ? (name === "name" ? "ascending" : "descending") : null },
      h("button", { type: "button", onclick: () => choose({ sort: name }) }, title));
    const colors = ramp();
    const rows = found.slice(0, ROWS).map((group) => h("tr", {},
      h("th", { scope: "row" }, h("a", { href: `#/groups/${kind}/${encodeURIComponent(group.name)}` }, group.name)),
      h("td.cells", {}, strip(state, group.members, colors, now)),
      h("td.number", {}, format.count(group.gpus)),
      h("td.number", { class: group.silent ? "number alarm" : "number" }, format.count(group.silent)),
      h("td.number", {}, format.value(Math.round(group.util), "%")),
      h("td.number", {}, Number.isNaN(group.power) ? "–" : `${format.number(group.power / 1000)} kW`),
      h("td.number", {}, format.value(group.hottest, "°C")),
      h("td.number", {}, format.value(group.memory, "MiB"))));
    fill(tableHost, h("div.scroll", { tabindex: "0", role: "region", "aria-label": KINDS[kind] }, h("table", {}, h("thead", {}, h("tr", {},
      heading("name", KINDS[kind].slice(0, -1), false), h("th", { scope: "col" }, "Utilisation of each GPU"), heading("gpus", "GPUs"), heading("silent", "Silent"),
      heading("util", "Mean"), heading("power", "Power"), heading("hottest", "Hottest"), heading("memory", "Memory used"))), h("tbody", {}, rows))),
    found.length > ROWS && h("p.note", {}, `The first ${ROWS} of ${format.count(found.length)}. Sort by a column, or filter, to see others.`));
  }

  let due = 0;
  const onChange = (what) => {
    // Numbers that change four times a second cannot be read.
    if (what !== "state" && (performance.now() < due || tableHost.contains(document.activeElement))) return;
    due = performance.now() + 1500;
    draw();
  };
  let stop = () => {};
  metricCatalogue().then(() => { stop = watchFleet(state, [UTIL, TEMP, POWER, MEMORY], onChange, app.setLive); }, (error) => fill(main, errorState(error, () => app.reload())));
  const onTheme = () => draw();
  window.addEventListener("themechange", onTheme);
  return () => { stop(); window.removeEventListener("themechange", onTheme); };
}

/** The GPUs of a row as cells. */
function strip(state, gpus, colors, now) {
  const [cell, gap, most] = [10, 2, 24];
  const shown = gpus.slice(0, most);
  const ratio = Math.min(2, window.devicePixelRatio || 1);
  const width = shown.length * (cell + gap);
  const canvas = h("canvas", { width: width * ratio, height: cell * ratio, "aria-hidden": "true" });
  canvas.style.width = `${width}px`;
  canvas.style.height = `${cell}px`;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const style = getComputedStyle(document.documentElement);
  shown.forEach((gpu, at) => {
    if (state.isSilent(gpu, now)) {
      context.strokeStyle = style.getPropertyValue("--cell-silent");
      context.strokeRect(at * (cell + gap) + 1, 1, cell - 2, cell - 2);
      return;
    }
    const step = stepOf(state.value(UTIL, gpu), [0, 100]);
    context.fillStyle = step < 0 ? style.getPropertyValue("--cell-none") : colors[step];
    context.fillRect(at * (cell + gap), 0, cell, cell);
  });
  return canvas;
}

function oneGroup(main, route, app, kind, name) {
  const axis = new TimeAxis(3_600_000);
  let range = rangeOf(route.query);
  let charts = [];
  let abort = new AbortController();
  const controls = h("div.toolbar");
  const chartHost = h("div.charts");
  const gpuHost = h("div.table-host");
  app.setTitle(name);
  axis.onZoom = (start, end) => choose(start === null ? { key: "1h" } : { start: Math.round(start), end: Math.round(end) });

  function choose(next) {
    range = next;
    app.replace(`#/groups/${kind}/${encodeURIComponent(name)}?${query(rangeText(range))}`);
    draw();
  }

  fill(main, h("div.content", {},
    h("div.heading", {}, h("nav.crumbs", { "aria-label": "Where this is" }, h("a", { href: `#/groups/${kind}` }, KINDS[kind])), h("h1", {}, name)),
    controls, chartHost, h("h2", {}, "GPUs"), gpuHost));

  async function draw() {
    abort.abort();
    abort = new AbortController();
    const { signal } = abort;
    for (const chart of charts) chart.destroy();
    if (range.key) axis.setLive(spanOf(range));
    else axis.setRange(range.start, range.end);
    charts = [UTIL, TEMP, POWER, MEMORY].map((metric) => {
      const { title, unit, scale } = describe(metric);
      return new Chart(axis, { title, unit, scale, showNames: true });
    });
    fill(controls, rangeButtons(range, choose));
    fill(chartHost, charts.map((chart) => chart.root));
    await loadSeries(signal);
  }

  async function loadSeries(signal) {
    const asked = askFor(range);
    try {
      const names = [UTIL, TEMP, POWER, MEMORY];
      const isSmall = kind === "host";
      const answer = await call(`/api/v1/query?${query({ [FILTERS[kind]]: name, metric: names.filter((metric) => known.has(metric)), ...asked.parameters, group_by: isSmall ? "gpu" : kind, limit: 20_000 })}`, { signal });
      names.forEach((metric, at) => charts[at].setSeries(split(answer.columns, metric, isSmall ? "device" : kind, Math.max(asked.windowMs * 3.5, 30_000))));
    } catch (error) {
      if (error.name !== "AbortError") fill(chartHost, errorState(error, draw));
    }
  }

  const state = new FleetState();
  let due = 0;
  function drawGpus() {
    const now = state.now();
    const members = [];
    for (let gpu = 0; gpu < state.count; gpu += 1) if (state[kind][gpu] === name) members.push(gpu);
    if (!members.length) { fill(gpuHost, emptyState("No GPU is here now", `None was last seen with the ${kind} ${name}. The charts show what is stored.`)); return; }
    members.sort((a, b) => collate(state.name(a), state.name(b)));
    fill(gpuHost, h("div.scroll", { tabindex: "0", role: "region", "aria-label": "GPUs" }, h("table", {}, h("thead", {}, h("tr", {},
      h("th", { scope: "col" }, "GPU"), [UTIL, TEMP, POWER, MEMORY].map((metric) => h("th.number", { scope: "col" }, describe(metric).title)), h("th.number", { scope: "col" }, "Last seen"))),
    h("tbody", {}, members.slice(0, ROWS).map((gpu) => h("tr", {},
      h("th", { scope: "row" }, h("a", { href: `#/gpu/${encodeURIComponent(state.uuid[gpu] || state.device[gpu])}${state.uuid[gpu] ? "" : `?host=${encodeURIComponent(state.host[gpu])}`}` }, kind === "host" ? state.device[gpu] || state.uuid[gpu] : state.name(gpu))),
      [UTIL, TEMP, POWER, MEMORY].map((metric) => h("td.number", {}, format.value(state.value(metric, gpu), describe(metric).unit))),
      h("td.number", { class: state.isSilent(gpu, now) ? "number alarm" : "number" }, format.ago(state.seen[gpu], now))))))),
    members.length > ROWS && h("p.note", {}, `The first ${ROWS} of ${format.count(members.length)}.`));
  }

  let stop = () => {};
  let known = new Map();
  metricCatalogue().then((catalogue) => {
    known = catalogue;
    draw();
    stop = watchFleet(state, [UTIL, TEMP, POWER, MEMORY], (what) => {
      if (what !== "state" && (performance.now() < due || gpuHost.contains(document.activeElement))) return;
      due = performance.now() + 1500;
      drawGpus();
    }, app.setLive);
  }, (error) => fill(main, errorState(error, () => app.reload())));
  const everySecond = setInterval(() => axis.advance(), 1000);
  const refresh = setInterval(() => { if (range.key && !document.hidden) loadSeries(abort.signal); }, 10_000);
  const onTheme = () => axis.drawAll();
  window.addEventListener("themechange", onTheme);
  return () => {
    stop();
    abort.abort();
    clearInterval(everySecond);
    clearInterval(refresh);
    for (const chart of charts) chart.destroy();
    window.removeEventListener("themechange", onTheme);
  };
}

/** One series for each name in a column; at most MOST_LINES. */
function split(columns, metric, nameColumn, gap) {
  const found = new Map();
  const values = columns[metric] ?? [];
  columns.time.forEach((text, row) => {
    if (values[row] === null || values[row] === undefined) return;
    const name = columns[nameColumn][row] || "–";
    if (!found.has(name)) {
      if (found.size >= MOST_LINES) return;
      found.set(name, { name, times: [], values: [], gap });
    }
    const series = found.get(name);
    series.times.push(Date.parse(text));
    series.values.push(values[row]);
  });
  return [...found.values()].sort((a, b) => collate(a.name, b.name));
}
