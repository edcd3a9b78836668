// Numbers, units and times as people read them.

const plain = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const oneDigit = new Intl.NumberFormat("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const twoDigits = new Intl.NumberFormat("en-US", { maximumFractionDigits: 2 });

export const count = (value) => plain.format(value);

/** A value with as many digits as it means, without its unit. */
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size >= 100 || Number.isInteger(value)) return plain.format(value);
  return size >= 10 ? oneDigit.format(value) : twoDigits.format(value);
}

/** A value of a metric with its unit; thousands of watts and MiB are said in kW and GiB. */
export function value(amount, unit = "") {
  if (amount === null || amount === undefined || Number.isNaN(amount)) return "–";
  const [scaled, shown] = scaledUnit(amount, unit);
  return shown ? `${number(scaled)} ${shown}` : number(scaled);
}

export function scaledUnit(amount, unit) {
  const size = Math.abs(amount);
  if (unit === "W" && size >= 1e6) return [amount / 1e6, "MW"];
  if (unit === "W" && size >= 1e4) return [amount / 1e3, "kW"];
  if (unit === "MiB" && size >= 1024) return [amount / 1024, "GiB"];
  return [amount, unit];
}

export function bytes(amount) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (amount >= 1024 && at < units.length - 1) { amount /= 1024; at += 1; }
  return `${at ? number(amount) : plain.format(amount)} ${units[at]}`;
}

/** "12 s", "3 min", "2 h", "5 d". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

export const ago = (ms, now = Date.now()) => {
  if (!(ms > 0)) return "never";
  return now - ms < 2000 ? "just now" : `${duration((now - ms) / 1000)} ago`;
};

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const clockShort = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

export const time = (ms) => clock.format(ms);
export const dateTime = (ms) => `${day.format(ms)}, ${clock.format(ms)}`;

/** The label of a tick on a time axis whose ticks lie `step` ms apart. */
export function tick(ms, step) {
  if (step >= 86_400_000) return day.format(ms);
  return step < 60_000 ? clock.format(ms) : clockShort.format(ms);
}
