// The frame of the page: which view is shown, the key, the theme.

import { call, forgetMetrics, whenLoggedOut } from "/web/api.js";
import { isDark } from "/web/colors.js";
import { fleetView } from "/web/views/fleet.js";
import { gpuView } from "/web/views/gpu.js";
import { groupsView } from "/web/views/groups.js";
import { loginView } from "/web/views/login.js";
import { pipelineView } from "/web/views/pipeline.js";

const VIEWS = {
  fleet: { title: "Fleet", show: fleetView },
  gpu: { title: "GPU", show: gpuView, tab: "fleet" },
  groups: { title: "Hosts & jobs", show: groupsView },
  pipeline: { title: "Pipeline", show: pipelineView },
  login: { title: "Log in", show: loginView },
};

const main = document.getElementById("main");
const live = document.getElementById("live");
const logout = document.getElementById("logout");
let end = () => {};
let current = "";
let session = null;

/** "#/gpu/GPU-1?range=1h" as {name, parts, query}. */
function parse(hash) {
  const [path, search = ""] = hash.replace(/^#\/?/, "").split("?");
  const [name, ...parts] = path.split("/").map(decode);
  return { name: name in VIEWS ? name : "fleet", parts, query: new URLSearchParams(search) };
}

function decode(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

const app = {
  /** Goes to another view, with a step in the browser's history. */
  go(hash) { location.hash = hash; },
  /** Says in the address what is shown, without a step. */
  replace(hash) {
    current = hash;
    history.replaceState(null, "", hash);
  },
  reload() { show(location.hash); },
  loggedIn() {
    session = null;
    location.hash = back && !back.startsWith("#/login") ? back : "#/fleet";
    if (parse(location.hash).name !== "login") show(location.hash);
  },
  setLive(state, text) {
    const known = { open: "Live", lost: "Reconnecting", closed: "Reconnecting", off: "Not live" };
    live.dataset.state = state;
    live.lastElementChild.textContent = text ?? known[state];
  },
  /** Whether the key has a role; asked once a key. */
  async can(role) {
    session ??= call("/api/v1/session").catch((error) => { session = null; throw error; });
    return (await session).roles.includes(role);
  },
  setTitle(title) { document.title = `${title} · telemetry-broker`; },
};

let back = "";
whenLoggedOut(() => {
  if (parse(location.hash).name === "login") return;
  back = location.hash;
  location.hash = "#/login";
});

function show(hash) {
  end();
  end = () => {};
  current = hash;
  const route = parse(hash);
  const view = VIEWS[route.name];
  app.setTitle(view.title);
  for (const tab of document.querySelectorAll("[data-view]")) {
    if (tab.dataset.view === (view.tab ?? route.name)) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  live.hidden = route.name === "login";
  app.setLive("off", "Connecting");
  logout.hidden = route.name === "login";
  window.scrollTo(0, 0);
  end = view.show(main, route, app);
}

window.addEventListener("hashchange", () => { if (location.hash !== current) { show(location.hash); main.focus({ preventScroll: true }); } });
window.addEventListener("pagehide", () => end());

document.getElementById("theme").addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try { localStorage.setItem("theme", theme); } catch { /* it holds until the page is closed */ }
  window.dispatchEvent(new Event("themechange"));
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => window.dispatchEvent(new Event("themechange")));

logout.addEventListener("click", async () => {
  await call("/api/v1/session", { method: "DELETE", quiet: true }).catch(() => {});
  session = null;
  forgetMetrics();
  back = "";
  location.hash = "#/login";
});

show(location.hash || "#/fleet");
