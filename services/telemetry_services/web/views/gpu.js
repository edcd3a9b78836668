// One GPU: what it is, how it is, and its metrics over time, live at the right edge.

import { call, describe, metricCatalogue, query, stream } from "/web/api.js";
import { Chart, TimeAxis } from "/web/chart.js";
import { emptyState, errorState, fill, h, setText } from "/web/dom.js";
import * as format from "/web/format.js";
import { askFor, rangeButtons, rangeOf, rangeText, spanOf } from "/web/views/ranges.js";

const FIRST = ["DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_FB_USED"];

export function gpuView(main, route, app) {
  const id = route.parts[0] ?? "";
  const host = route.query.get("host") ?? "";
  const axis = new TimeAxis(3_600_000);
  let range = rangeOf(route.query);
  let chosen = route.query.getAll("metric").length ? route.query.getAll("metric") : null;
  let charts = new Map();
  let details = null;
  let stopLive = () => {};
  let abort = new AbortController();
  const latest = new Map();

  axis.onZoom = (start, end) => choose(start === null ? { range: { key: "1h" } } : { range: { start: Math.round(start), end: Math.round(end) } });
  const address = () => `#/gpu/${encodeURIComponent(id)}?${query({ host, ...rangeText(range), metric: chosen })}`;

  function choose(change) {
    if (change.range) range = change.range;
    if (change.chosen) chosen = change.chosen;
    app.replace(address());
    draw();
  }

  const cards = h("dl.totals.small");
  const controls = h("div.toolbar");
  const chartHost = h("div.charts");
  const loading = h("div.loading", { role: "status" }, "Loading the GPU…");
  fill(main, loading);

  async function load() {
    try {
      await metricCatalogue();
      details = await call(`/api/v1/gpus/${encodeURIComponent(id)}?${query({ hostname: host })}`, { signal: abort.signal });
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.status === 404) fill(main, emptyState("There is no such GPU", error.message, h("p", {}, h("a", { href: "#/fleet" }, "Back to the fleet"))));
      else fill(main, errorState(error, load));
      return;
    }
    if (details.count > 1) { fill(main, several(details)); return; }
    const gpu = details.gpus[0];
    app.setTitle(`${gpu.hostname} ${gpu.device_id}`);
    for (const one of gpu.latest) latest.set(one.metric, { value: one.value, time: Date.parse(one.time) });
    const names = gpu.latest.map((one) => one.metric);
    chosen ??= FIRST.filter((name) => names.includes(name));
    if (!chosen.length) chosen = names.slice(0, 4);
    fill(main, h("div.content", {}, heading(gpu), cards, controls, chartHost));
    drawCards();
    draw();
  }

  function heading(gpu) {
    const where = [["Model", gpu.model_name], ["UUID", gpu.uuid], ["Namespace", gpu.namespace], ["Pod", gpu.pod], ["Container", gpu.container]].filter(([, text]) => text);
    return h("div.heading", {},
      h("nav.crumbs", { "aria-label": "Where this is" }, h("a", { href: "#/fleet" }, "Fleet"), " / ",
        h("a", { href: `#/groups/host/${encodeURIComponent(gpu.hostname)}` }, gpu.hostname || "unknown host")),
      h("h1", {}, gpu.device_id || gpu.uuid, " ", h("span.badge", { class: `badge ${gpu.state}` }, gpu.state === "silent" ? `silent, last seen ${format.ago(Date.parse(gpu.last_seen))}` : "reporting")),
      h("dl.facts", {}, where.map(([name, text]) => h("div", {}, h("dt", {}, name), h("dd", {}, text)))));
  }

  function drawCards() {
    const boxes = [...latest].sort(([a], [b]) => order(a) - order(b)).slice(0, 8).map(([name, { value }]) => {
      const metric = describe(name);
      return h("div.total", { "data-metric": name }, h("dt", {}, metric.title), h("dd", {}, format.value(value, metric.unit)));
    });
    fill(cards, boxes);
  }

  const order = (name) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);

  function draw() {
    stopLive();
    abort.abort();
    abort = new AbortController();
    for (const chart of charts.values()) chart.destroy();
    if (range.key) axis.setLive(spanOf(range));
    else axis.setRange(range.start, range.end);
    charts = new Map(chosen.map((name) => {
      const metric = describe(name);
      return [name, new Chart(axis, { title: metric.title, unit: metric.unit, scale: metric.scale })];
    }));
    drawControls();
    fill(chartHost, [...charts.values()].map((chart) => chart.root));
    goLive(askFor(range).windowMs);
    loadSeries(abort.signal);
  }

  function drawControls() {
    const names = [...latest.keys()].sort((a, b) => order(a) - order(b) || a.localeCompare(b));
    const picker = h("details.picker", {}, h("summary", {}, `Metrics (${chosen.length})`),
      h("div.options", {}, names.map((name) => h("label", {}, h("input", {
        type: "checkbox", value: name, checked: chosen.includes(name),
        onchange: (event) => choose({ chosen: event.target.checked ? [...chosen, name] : chosen.filter((one) => one !== name) }),
      }), describe(name).title))));
    picker.open = controls.querySelector("details")?.open ?? false;
    const span = askFor(range).parameters;
    const download = `/api/v1/gpus/${encodeURIComponent(id)}/telemetry?${query({ hostname: host, metric: chosen, start: span.start, end: span.end, limit: 100_000, format: "csv" })}`;
    fill(controls, rangeButtons(range, (next) => choose({ range: next })), picker,
      h("a.button", { href: download, download: `${details.gpus[0].hostname}-${details.gpus[0].device_id}.csv` }, "Download CSV"));
  }

  async function loadSeries(signal) {
    if (!chosen.length) { fill(chartHost, emptyState("No metric is chosen", "Choose some under Metrics.")); return; }
    const asked = askFor(range);
    try {
      const answer = await call(`/api/v1/query?${query({ ...idFilter(), metric: chosen, ...asked.parameters, limit: 20_000 })}`, { signal });
      const times = answer.columns.time.map(Date.parse);
      for (const [name, chart] of charts) {
        const values = (answer.columns[name] ?? []).map((value) => (value === null ? NaN : value));
        const kept = times.map((_, at) => at).filter((at) => !Number.isNaN(values[at] ?? NaN));
        const stored = { name: describe(name).title, times: kept.map((at) => times[at]), values: kept.map((at) => values[at]), gap: Math.max(asked.windowMs * 3.5, 30_000) };
        const cameMeanwhile = chart.series[0];
        chart.setSeries([stored]);
        cameMeanwhile?.times.forEach((time, at) => chart.push(0, time, cameMeanwhile.values[at]));
      }
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(chartHost, errorState(error, draw));
      return;
    }
  }

  const idFilter = () => (details.gpus[0].uuid ? { id: details.gpus[0].uuid } : { id, hostname: details.gpus[0].hostname });

  function goLive(windowMs) {
    const each = Math.max(1000, windowMs / 2);
    stopLive = stream(`/api/v1/live?${query(idFilter())}`, {
      samples: (body) => {
        body.times.forEach((text, row) => {
          const time = Date.parse(text);
          for (const [name, column] of Object.entries(body.values)) {
            const value = column[row];
            if (value === null) continue;
            latest.set(name, { value, time });
            const chart = charts.get(name);
            if (chart && !chart.series.length) chart.series = [{ name: describe(name).title, times: [], values: [], gap: 30_000 }];
            const series = chart?.series[0];
            if (range.key && series && (!series.times.length || time - series.times[series.times.length - 1] >= each)) chart.push(0, time, value);
            const box = cards.querySelector(`[data-metric="${CSS.escape(name)}"] dd`);
            if (box) setText(box, format.value(value, describe(name).unit));
          }
        });
      },
      dropped: () => {},
    }, app.setLive);
  }

  const everySecond = setInterval(() => axis.advance(), 1000);
  const onTheme = () => axis.drawAll();
  window.addEventListener("themechange", onTheme);
  load();
  return () => {
    stopLive();
    abort.abort();
    clearInterval(everySecond);
    for (const chart of charts.values()) chart.destroy();
    window.removeEventListener("themechange", onTheme);
  };
}

function several(details) {
  return h("div.content", {}, h("h1", {}, details.gpu_id), h("p", {}, `${details.count} GPUs are called so. Which one?`),
    h("ul.links", {}, details.gpus.map((gpu) => h("li", {}, h("a", { href: `#/gpu/${encodeURIComponent(gpu.uuid || gpu.device_id)}?host=${encodeURIComponent(gpu.hostname)}` }, `${gpu.hostname} · ${gpu.device_id} · ${gpu.model_name}`)))));
}
