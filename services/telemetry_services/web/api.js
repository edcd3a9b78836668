// The REST API. The key is in a cookie that this script cannot see.

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Called when a request finds no valid key. */
let onLoggedOut = () => {};
export const whenLoggedOut = (told) => { onLoggedOut = told; };

export function query(parameters) {
  const search = new URLSearchParams();
  for (const [name, given] of Object.entries(parameters)) {
    for (const one of Array.isArray(given) ? given : [given]) {
      if (one !== null && one !== undefined && one !== "") search.append(name, one);
    }
  }
  return search.toString();
}

/** Makes a request, and gives its JSON; throws ApiError with a sentence for people. */
export async function call(path, { method = "GET", body, signal, quiet = false } = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      signal,
      headers: body === undefined ? { Accept: "application/json" } : { Accept: "application/json", "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "The service does not answer. Is it running? This page tries again by itself.");
  }
  if (answer.status === 204) return null;
  const told = await answer.json().catch(() => null);
  if (answer.ok) return told;
  if (answer.status === 401 && !quiet) onLoggedOut();
  throw new ApiError(answer.status, told?.error ?? "http.error", told?.message ?? `The service answered ${answer.status}.`);
}

let metrics = null;

/** What is known about each metric, by name. */
export async function metricCatalogue({ fresh = false } = {}) {
  if (!metrics || fresh) {
    const told = await call("/api/v1/metrics");
    metrics = new Map(told.metrics.map((metric) => [metric.name, metric]));
  }
  return metrics;
}

export const describe = (name) => metrics?.get(name) ?? { name, title: name, unit: "", scale: null, help: "" };
export const forgetMetrics = () => { metrics = null; };

/** Server-Sent Events that end when they are told to. Handlers are by the name of the event; the browser reconnects. */
export function stream(path, handlers, onState = () => {}) {
  const source = new EventSource(path);
  for (const [name, handle] of Object.entries(handlers)) {
    source.addEventListener(name, (event) => handle(JSON.parse(event.data), event));
  }
  let again = 0;
  source.onopen = () => onState("open");
  source.onerror = () => {
    onState("lost");
    // The browser gives up for good where the answer was no stream: perhaps the key is gone, perhaps a proxy is down.
    if (source.readyState === EventSource.CLOSED && !again) {
      again = setTimeout(() => call("/api/v1/session").then(() => onState("closed"), () => onState("closed")), 1000);
    }
  };
  return () => { clearTimeout(again); source.close(); };
}
