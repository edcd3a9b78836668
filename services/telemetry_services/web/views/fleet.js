// The whole fleet in one look.

import { describe, metricCatalogue } from "/web/api.js";
import { ramp, stepOf } from "/web/colors.js";
import { emptyState, errorState, fill, h, setText } from "/web/dom.js";
import { FleetState, watchFleet } from "/web/fleet-state.js";
import * as format from "/web/format.js";
import { Grid, scaleOf } from "/web/grid.js";

const UTIL = "DCGM_FI_DEV_GPU_UTIL";
const TEMP = "DCGM_FI_DEV_GPU_TEMP";
const POWER = "DCGM_FI_DEV_POWER_USAGE";
const GROUPS = { host: "Host", namespace: "Namespace", pod: "Pod", model: "Model" };
const TABLE_ROWS = 100;

export function fleetView(main, route, app) {
  const wanted = {
    metric: route.query.get("metric") || UTIL,
    filter: route.query.get("q") || "",
    by: route.query.get("by") in GROUPS ? route.query.get("by") : "host",
    look: route.query.get("look") === "table" ? "table" : "grid",
    sort: route.query.get("sort") || "value",
  };
  const state = new FleetState();
  let shown = []; // the GPUs that pass the filter
  let scale = [0, 100];
  let stop = () => {};
  let isEmpty = null;
  let isDescribed = false; // the metrics are: what comes before that waits

  const total = (name, title) => {
    const value = h("dd", {}, "–");
    const note = h("dd.note", {}, "\u00a0");
    return { box: h(`div.total.${name}`, {}, h("dt", {}, title), value, note), value, note };
  };
  const totals = {
    gpus: total("gpus", "GPUs reporting"),
    silent: total("silent", "Silent"),
    util: total("util", "Mean utilisation"),
    power: total("power", "Power"),
    hottest: total("hottest", "Hottest"),
  };
  const metricSelect = h("select", { id: "metric", onchange: () => choose({ metric: metricSelect.value }) });
  const bySelect = h("select", { id: "by", onchange: () => choose({ by: bySelect.value }) },
    Object.entries(GROUPS).map(([name, title]) => h("option", { value: name }, title)));
  bySelect.value = wanted.by;
  const filterBox = h("input", {
    id: "filter", type: "search", placeholder: "Host, GPU, model, namespace, pod", value: wanted.filter, autocomplete: "off", spellcheck: "false",
    oninput: () => choose({ filter: filterBox.value }),
  });
  const lookButtons = ["grid", "table"].map((look) => h("button", {
    type: "button", "aria-pressed": String(wanted.look === look), onclick: () => choose({ look }),
  }, look === "grid" ? "Grid" : "Table"));
  const legend = h("div.legend", { role: "img" });
  const gridHost = h("div.grid-host");
  const tip = h("div.tip", { hidden: true, role: "presentation" });
  const tableHost = h("div.table-host");
  const body = h("div.fleet-body", {}, gridHost, tableHost, tip);
  const content = h("div.content", {},
    h("h1.visually-hidden", {}, "Fleet"),
    h("dl.totals", {}, Object.values(totals).map((one) => one.box)),
    h("div.toolbar", {},
      h("label.field", { for: "metric" }, h("span", {}, "Colour by"), metricSelect),
      h("label.field", { for: "by" }, h("span", {}, "Group by"), bySelect),
      h("label.field.grow", { for: "filter" }, h("span", {}, "Filter"), filterBox),
      h("div.segmented", { role: "group", "aria-label": "Show as" }, lookButtons),
      legend),
    body);
  fill(main, h("div.loading", { role: "status" }, "Loading the fleet…"));

  const grid = new Grid(gridHost, {
    describe: (gpu) => [state.name(gpu), ...facts(gpu).map(([name, value]) => `${name} ${value}`)].join(", "),
    open: (gpu) => app.go(linkTo(gpu)),
    hover: (gpu, at) => showTip(gpu, at),
  });
  grid.setLook({
    stepOf: (gpu) => stepOf(state.value(wanted.metric, gpu), scale),
    isSilent: (gpu) => state.isSilent(gpu, lookTime),
  });
  let lookTime = Date.now();

  const linkTo = (gpu) => `#/gpu/${encodeURIComponent(state.uuid[gpu] || state.device[gpu])}${state.uuid[gpu] ? "" : `?host=${encodeURIComponent(state.host[gpu])}`}`;

  function facts(gpu) {
    const names = [...new Set([wanted.metric, UTIL, TEMP, POWER])].filter((name) => state.values.has(name));
    const values = names.map((name) => [describe(name).title || name, format.value(state.value(name, gpu), describe(name).unit)]);
    const where = [["Job", [state.namespace[gpu], state.pod[gpu]].filter(Boolean).join(" / ")], ["Model", state.model[gpu]]].filter(([, text]) => text);
    const seen = state.isSilent(gpu) ? [["Silent", `last seen ${format.ago(state.seen[gpu], state.now())}`]] : [];
    return [...seen, ...values, ...where];
  }

  function showTip(gpu, at) {
    if (gpu === null) { tip.hidden = true; return; }
    fill(tip, h("strong", {}, state.name(gpu)), h("dl", {}, facts(gpu).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])));
    tip.hidden = false;
    const width = tip.offsetWidth;
    const left = Math.min(Math.max(0, at.x - width / 2 + at.size / 2), Math.max(0, gridHost.clientWidth - width));
    const box = gridHost.getBoundingClientRect();
    const above = box.top + at.y > tip.offsetHeight + 80;
    tip.style.left = `${left}px`;
    tip.style.top = above ? `${at.y - tip.offsetHeight - 10}px` : `${at.y + at.size + 12}px`;
  }

  function choose(change) {
    const before = { ...wanted };
    Object.assign(wanted, change);
    app.replace(`#/fleet?${new URLSearchParams(Object.entries({
      metric: wanted.metric === UTIL ? "" : wanted.metric, q: wanted.filter, by: wanted.by === "host" ? "" : wanted.by,
      look: wanted.look === "grid" ? "" : wanted.look, sort: wanted.sort === "value" ? "" : wanted.sort,
    }).filter(([, text]) => text))}`);
    lookButtons.forEach((button, at) => button.setAttribute("aria-pressed", String((at === 1) === (wanted.look === "table"))));
    if (before.metric !== wanted.metric) connect();
    else regroup();
  }

  function regroup() {
    const words = wanted.filter.toLowerCase().split(/\s+/).filter(Boolean);
    shown = [];
    for (let gpu = 0; gpu < state.count; gpu += 1) {
      if (!words.length || (() => { const text = state.text(gpu); return words.every((word) => text.includes(word)); })()) shown.push(gpu);
    }
    const column = state[wanted.by];
    const groups = new Map();
    for (const gpu of shown) {
      const name = column[gpu] || `no ${GROUPS[wanted.by].toLowerCase()}`;
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(gpu);
    }
    const sorted = [...groups].map(([name, gpus]) => ({ name, gpus: gpus.sort((a, b) => collate(state.host[a], state.host[b]) || collate(state.device[a], state.device[b])) }))
      .sort((a, b) => collate(a.name, b.name));
    rescale();
    gridHost.hidden = wanted.look !== "grid" || !shown.length;
    tableHost.hidden = wanted.look !== "table" && shown.length > 0;
    if (!shown.length) {
      fill(tableHost, emptyState("No GPU matches the filter", `Nothing of ${format.count(state.count)} GPUs contains “${wanted.filter}”.`,
        h("button", { type: "button", onclick: () => { filterBox.value = ""; choose({ filter: "" }); filterBox.focus(); } }, "Clear the filter")));
    } else if (wanted.look === "grid") grid.setGroups(sorted, roomBelow());
    else drawTable();
    drawTotals();
  }

  const roomBelow = () => Math.max(260, window.innerHeight - (body.getBoundingClientRect().top + window.scrollY) - 32);

  function rescale() {
    const metric = describe(wanted.metric);
    scale = scaleOf(metric, state.values.get(wanted.metric) ?? []);
    const colors = ramp();
    const canvas = h("canvas", { width: colors.length, height: 1, "aria-hidden": "true" });
    const context = canvas.getContext("2d");
    colors.forEach((color, at) => { context.fillStyle = color; context.fillRect(at, 0, 1, 1); });
    const [low, high] = scale.map((value) => format.value(value, metric.unit));
    legend.setAttribute("aria-label", `Colours: from ${low} to ${high}. A struck cell is a silent GPU.`);
    fill(legend, h("span", {}, low), canvas, h("span", {}, high), h("span.legend-silent", {}, h("i", { "aria-hidden": "true" }), "silent"));
  }

  function drawTotals() {
    const now = state.now();
    let silent = 0, util = 0, utils = 0, power = 0, powers = 0, hottest = -1;
    const [utilOf, powerOf, tempOf] = [UTIL, POWER, TEMP].map((name) => state.values.get(name) ?? new Float64Array(0));
    for (const gpu of shown) {
      if (state.isSilent(gpu, now)) { silent += 1; continue; }
      if (utilOf[gpu] >= 0) { util += utilOf[gpu]; utils += 1; }
      if (powerOf[gpu] >= 0) { power += powerOf[gpu]; powers += 1; }
      if (tempOf[gpu] > (hottest < 0 ? -Infinity : tempOf[hottest])) hottest = gpu;
    }
    setText(totals.gpus.value, format.count(shown.length - silent));
    const hosts = new Set(shown.map((gpu) => state.host[gpu])).size;
    setText(totals.gpus.note, `of ${format.count(shown.length)} on ${format.count(hosts)} ${hosts === 1 ? "host" : "hosts"}`);
    setText(totals.silent.value, format.count(silent));
    setText(totals.silent.note, silent ? `no sample for ${state.silentAfter} s` : "all report");
    totals.silent.box.dataset.alarm = String(silent > 0);
    setText(totals.util.value, utils ? `${format.number(Math.round(util / utils * 10) / 10)} %` : "–");
    setText(totals.util.note, utils ? "of GPUs that report" : "no GPU reports it");
    setText(totals.power.value, powers ? `${format.number(power / 1000)} kW` : "–");
    setText(totals.power.note, powers ? `${format.number(power / powers)} W a GPU` : "no GPU reports it");
    setText(totals.hottest.value, hottest < 0 ? "–" : `${format.number(tempOf[hottest])} °C`);
    if (hottest < 0) setText(totals.hottest.note, "no GPU reports it");
    else if (totals.hottest.gpu !== hottest) fill(totals.hottest.note, h("a", { href: linkTo(hottest) }, state.name(hottest)));
    totals.hottest.gpu = hottest;
  }

  function drawTable() {
    const columns = [...new Set([wanted.metric, UTIL, TEMP, POWER])].filter((name) => state.values.has(name));
    const sort = wanted.sort === "value" ? wanted.metric : wanted.sort;
    const order = [...shown];
    if (sort === "name") order.sort((a, b) => collate(state.name(a), state.name(b)));
    else if (sort === "seen") order.sort((a, b) => state.seen[a] - state.seen[b]);
    else order.sort((a, b) => (state.value(sort, b) || -Infinity) - (state.value(sort, a) || -Infinity));
    const heading = (name, title, numeric) => h(numeric ? "th.number" : "th", { scope: "col", "aria-sort": sort === name ? (name === "name" || name === "seen" ? "ascending" : "descending") : null },
      h("button", { type: "button", onclick: () => choose({ sort: name === wanted.metric ? "value" : name }) }, title));
    const rows = order.slice(0, TABLE_ROWS).map((gpu) => h("tr", {},
      h("th", { scope: "row" }, h("a", { href: linkTo(gpu) }, state.name(gpu))),
      columns.map((name) => h("td.number", {}, format.value(state.value(name, gpu), describe(name).unit))),
      h("td", {}, [state.namespace[gpu], state.pod[gpu]].filter(Boolean).join(" / ") || "–"),
      h("td.number", { class: state.isSilent(gpu) ? "number alarm" : "number" }, format.ago(state.seen[gpu], state.now()))));
    fill(tableHost,
      h("div.scroll", { tabindex: "0", role: "region", "aria-label": "Table of GPUs" },
        h("table", {}, h("thead", {}, h("tr", {}, heading("name", "GPU", false), columns.map((name) => heading(name, describe(name).title || name, true)),
          h("th", { scope: "col" }, "Job"), heading("seen", "Last seen", true))), h("tbody", {}, rows))),
      order.length > TABLE_ROWS && h("p.note", {}, `The first ${TABLE_ROWS} of ${format.count(order.length)} GPUs. Sort by a column, or filter, to see others.`));
  }

  function changed(kind, gpus) {
    if (!isDescribed) return;
    lookTime = state.now();
    if (!state.count) {
      if (isEmpty !== true) fill(main, noGpus());
      isEmpty = true;
      return;
    }
    if (isEmpty !== false) fill(main, content);
    const isFirst = isEmpty !== false;
    isEmpty = false;
    if (kind === "state" || isFirst) { fillMetrics(); regroup(); performance.mark("fleet-painted"); return; }
    performance.mark("frame-begin");
    if (wanted.look === "grid" && shown.length) grid.update(gpus);
    drawTotals();
    performance.measure("frame", "frame-begin");
    performance.clearMarks("frame-begin");
    if (gpus?.length !== 0) noteDelay(gpus);
  }

  /** For who measures: how old a sample is when it has been painted. */
  function noteDelay(gpus) {
    const newest = gpus ? Math.max(...gpus.slice(0, 1000).map((gpu) => state.seen[gpu])) : state.seen.reduce((a, b) => Math.max(a, b), 0);
    requestAnimationFrame(() => performance.mark("sample-painted", { detail: Date.now() - newest }));
    if (performance.getEntriesByName("sample-painted").length > 500) for (const name of ["sample-painted", "frame"]) { performance.clearMarks(name); performance.clearMeasures(name); }
  }

  function fillMetrics() {
    const names = state.metrics.includes(wanted.metric) ? state.metrics : [wanted.metric, ...state.metrics];
    fill(metricSelect, names.map((name) => { const metric = describe(name); return h("option", { value: name }, metric.title + (metric.unit ? `, ${metric.unit}` : "")); }));
    metricSelect.value = wanted.metric;
  }

  function connect() {
    stop();
    stop = watchFleet(state, [...new Set([wanted.metric, UTIL, TEMP, POWER])], changed, (live) => {
      app.setLive(live);
      if (live === "closed") setTimeout(connect, 2000);
    });
  }

  // Silence comes with time alone, and a table is drawn by the second: it would flicker under the pointer otherwise.
  const everySecond = setInterval(() => {
    lookTime = state.now();
    if (isEmpty !== false || !shown.length) return;
    if (wanted.look === "table") { if (!tableHost.contains(document.activeElement) && !tableHost.matches(":hover")) drawTable(); } else grid.update(null);
    drawTotals();
  }, 1000);
  const onResize = () => { if (isEmpty === false && wanted.look === "grid") grid.resize(roomBelow()); };
  const onTheme = () => { if (isEmpty === false) regroup(); };
  window.addEventListener("resize", onResize);
  window.addEventListener("themechange", onTheme);
  connect();
  metricCatalogue({ fresh: true }).then(() => { isDescribed = true; if (state.version >= 0) changed("state", null); }, (error) => { stop(); fill(main, errorState(error, () => app.reload())); });
  return () => {
    stop();
    clearInterval(everySecond);
    window.removeEventListener("resize", onResize);
    window.removeEventListener("themechange", onTheme);
  };
}

const collator = new Intl.Collator("en", { numeric: true });
const collate = collator.compare;

function noGpus() {
  return emptyState("No GPU has reported yet",
    "This page fills by itself as soon as samples come in. To send some:",
    h("ul", {},
      h("li", {}, h("code", {}, "telemetry up"), " streams a sample dump, and goes on as a live fleet."),
      h("li", {}, h("code", {}, "telemetry streamer --csv dump.csv"), " streams a dump of dcgm-exporter."),
      h("li", {}, "Or POST samples to ", h("code", {}, "/api/v1/telemetry"), "; ", h("a", { href: "/swagger/" }, "the API's documentation"), " shows how.")));
}
