// The pipeline: what comes in, what waits, what was given up.

import { call, query } from "/web/api.js";
import { Chart, TimeAxis } from "/web/chart.js";
import { emptyState, errorState, fill, h } from "/web/dom.js";
import * as format from "/web/format.js";

const EACH_MS = 2000;
const SPAN_MS = 600_000;
const SUFFIX = ".dlq";

export function pipelineView(main, route, app) {
  const axis = new TimeAxis(SPAN_MS);
  axis.onZoom = () => {};
  const rate = new Chart(axis, { title: "Records a second", height: 150, fromZero: true });
  const lag = new Chart(axis, { title: "Lag, records not acked", height: 150, fromZero: true });
  rate.setSeries([{ name: "in", times: [], values: [], gap: 15_000 }, { name: "acked", times: [], values: [], gap: 15_000 }]);
  lag.setSeries([{ name: "lag", times: [], values: [], gap: 15_000 }]);
  const brokers = h("div.broker-cards");
  const tables = h("div.table-host");
  const letters = h("div.letters");
  const opened = { topic: route.parts[0] === "dead-letters" ? route.parts[1] ?? "" : "" };
  let before = null;
  let timer = 0;
  let isShown = false;
  let ended = false;
  fill(main, h("div.loading", { role: "status" }, "Loading the pipeline…"));

  async function look() {
    try {
      const told = await call("/api/v1/pipeline");
      if (ended) return;
      if (!isShown) {
        fill(main, h("div.content", {}, h("h1.visually-hidden", {}, "Pipeline"), brokers, h("div.charts.two", {}, rate.root, lag.root), tables, letters));
        isShown = true;
        if (opened.topic) showLetters(opened.topic);
      }
      draw(told);
      app.setLive(told.brokers.every((one) => one.healthy) ? "open" : "lost", told.brokers.every((one) => one.healthy) ? "Live" : "Broker does not answer");
    } catch (error) {
      if (ended) return;
      app.setLive("lost");
      if (!isShown) fill(main, errorState(error, look));
      if (error.status === 401) return;
    }
    timer = setTimeout(look, EACH_MS);
  }

  function draw(told) {
    const now = Date.parse(told.time);
    const topics = told.topics.filter((topic) => !topic.name.endsWith(SUFFIX));
    const seconds = before ? (now - before.time) / 1000 : 0;
    const rates = new Map();
    for (const topic of topics) {
      const earlier = before?.topics.get(topic.name);
      const acked = topic.groups.reduce((sum, group) => sum + group.acked, 0);
      const groupsBefore = earlier?.groups.reduce((sum, group) => sum + group.acked, 0);
      rates.set(topic.name, earlier && seconds ? { in: Math.max(0, topic.end_offset - earlier.end_offset) / seconds, acked: Math.max(0, acked - groupsBefore) / seconds } : null);
    }
    if (before) {
      const sum = (what) => [...rates.values()].reduce((total, one) => total + (one?.[what] ?? 0), 0);
      rate.push(0, now, sum("in"));
      rate.push(1, now, sum("acked"));
    }
    lag.push(0, now, topics.reduce((total, topic) => total + topic.groups.reduce((sum, group) => sum + group.lag, 0), 0));
    axis.advance();
    before = { time: now, topics: new Map(topics.map((topic) => [topic.name, topic])) };
    drawBrokers(told);
    drawTables(topics, rates, told);
  }

  function drawBrokers(told) {
    fill(brokers, told.brokers.map((broker) => h("section.card.broker", { "data-healthy": String(broker.healthy) },
      h("h2", {}, h("i.dot", { "aria-hidden": "true" }), broker.healthy ? (broker.message || "Broker is healthy") : "The broker does not answer"),
      broker.healthy
        ? h("dl.facts", {}, [["Up for", format.duration((Date.parse(told.time) - Date.parse(broker.started)) / 1000)], ["Free disk", format.bytes(broker.free_bytes)],
          ["Partitions", format.count(broker.partitions)], ["Version", broker.version], ["Id", broker.broker_id]].map(([name, text]) => h("div", {}, h("dt", {}, name), h("dd", {}, text))))
        : h("p", {}, broker.message),
      broker.healthy && broker.free_bytes < broker.min_free_bytes * 2 && h("p.alarm", {}, `Producing stops below ${format.bytes(broker.min_free_bytes)} of free disk: make room.`))));
  }

  function drawTables(topics, rates, told) {
    if (tables.contains(document.activeElement) && document.activeElement.tagName !== "DIV") return;
    if (!topics.length) {
      fill(tables, emptyState("There is no topic yet", "The first producer makes it; `telemetry streamer` and `telemetry up` are such ones."));
      return;
    }
    const topicRows = topics.map((topic) => {
      const speed = rates.get(topic.name);
      const poisoned = topic.partitions.filter((partition) => partition.poisoned);
      return h("tr", {}, h("th", { scope: "row" }, topic.name, poisoned.length > 0 && h("span.alarm", {}, ` ${poisoned.length} stopped: ${poisoned[0].poisoned}`)),
        h("td.number", {}, format.count(topic.partitions.length)), h("td.number", {}, speed ? `${format.number(Math.round(speed.in))}/s` : "–"),
        h("td.number", {}, format.count(topic.end_offset)), h("td.number", {}, format.bytes(topic.bytes)), h("td", {}, topic.durability),
        h("td.number", {}, topic.dead_letters ? h("button.link.alarm", { type: "button", onclick: () => showLetters(topic.name) }, format.count(topic.dead_letters)) : "0"));
    });
    const groupRows = topics.flatMap((topic) => topic.groups.map((group) => h("tr", {},
      h("th", { scope: "row" }, group.name), h("td", {}, topic.name), h("td", {}, group.mode),
      h("td.number", {}, format.count(group.lag)), h("td.number", {}, format.count(group.in_flight)),
      h("td.number", {}, group.lag ? format.duration(group.oldest_unacked_seconds) : "none"), h("td.number", {}, format.count(group.redelivered)))));
    const table = (label, names, rows) => h("div.scroll", { tabindex: "0", role: "region", "aria-label": label }, h("table", {}, h("thead", {}, h("tr", {}, names.map(([name, numeric]) => h(numeric ? "th.number" : "th", { scope: "col" }, name)))), h("tbody", {}, rows)));
    fill(tables,
      h("h2", {}, "Topics"), table("Topics", [["Topic"], ["Partitions", 1], ["In", 1], ["Records ever", 1], ["On disk", 1], ["Durability"], ["Dead letters", 1]], topicRows),
      told.topics_left_out > 0 && h("p.note", {}, `${told.topics_left_out} more topics are not shown.`),
      h("h2", {}, "Consumer groups"),
      groupRows.length ? table("Consumer groups", [["Group"], ["Topic"], ["Mode"], ["Lag", 1], ["In flight", 1], ["Oldest unacked", 1], ["Redelivered", 1]], groupRows)
        : h("p.note", {}, "No group reads a topic yet. A group is made by its first consumer."));
  }

  async function showLetters(topic, after = null) {
    app.replace(`#/pipeline/dead-letters/${encodeURIComponent(topic)}`);
    let [told, isAdmin] = [];
    try {
      [told, isAdmin] = await Promise.all([call(`/api/v1/pipeline/dead-letters?${query({ topic, after, limit: 20 })}`), app.can("admin")]);
    } catch (error) {
      fill(letters, errorState(error, () => showLetters(topic, after)));
      return;
    }
    const close = h("button", { type: "button", onclick: () => { fill(letters); app.replace("#/pipeline"); } }, "Close");
    const all = h("button", { type: "button", disabled: !isAdmin, onclick: () => redrive({ topic }, `All ${format.count(told.total)} dead letters of ${topic} go back to every group. Go on?`) }, "Redrive all");
    fill(letters, h("section.card", {},
      h("div.card-head", {}, h("h2", { tabindex: "-1" }, `Dead letters of ${topic}`), told.total > 0 && all, close),
      !isAdmin && told.total > 0 && h("p.note", {}, "Your key may look. To put letters back it needs the role admin."),
      told.letters.length === 0 && h("p.note", {}, "There is none: every record was handled."),
      told.letters.map((letter) => h("article.letter", {},
        h("header", {}, h("strong", {}, letter.reason || "max attempts"), h("span", {}, `${letter.partition}/${letter.offset} · group ${letter.group} · ${letter.attempts} ${letter.attempts === 1 ? "attempt" : "attempts"} · ${format.ago(Date.parse(letter.time))}`),
          h("button", { type: "button", disabled: !isAdmin, onclick: () => redrive({ topic, partition: letter.partition, offsets: [letter.offset] }) }, "Redrive")),
        h("pre", { tabindex: "0" }, letter.value + (letter.bytes > letter.value.length ? "…" : "")))),
      told.next && h("button", { type: "button", onclick: () => showLetters(topic, told.next) }, "Next")));
    letters.querySelector("h2").focus({ preventScroll: false });
  }

  async function redrive(body, question = "") {
    if (question && !window.confirm(question)) return;
    try {
      await call("/api/v1/pipeline/redrive", { method: "POST", body });
      await showLetters(body.topic);
    } catch (error) {
      fill(letters, errorState(error, () => showLetters(body.topic)));
    }
  }

  const onTheme = () => axis.drawAll();
  window.addEventListener("themechange", onTheme);
  look();
  return () => {
    ended = true;
    clearTimeout(timer);
    rate.destroy();
    lag.destroy();
    window.removeEventListener("themechange", onTheme);
  };
}
