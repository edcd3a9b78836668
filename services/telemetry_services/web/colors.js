// Scales whose even steps look even, and that can be read without seeing red or green: Viridis on a dark page; on a light
// one its blues and greens from pale to deep. On either, a GPU at rest lies near the background, one at work stands out.

const DARK = ["#440154", "#482475", "#414487", "#355f8d", "#2a788e", "#21918c", "#22a884", "#44bf70", "#7ad151", "#bddf26", "#fde725"];
const LIGHT = ["#dcebe2", "#c0e0d2", "#9fd3c4", "#79c3b8", "#53b0ae", "#3599a3", "#2a8098", "#2b678c", "#305084", "#323a74", "#2c2560"];
const STEPS = 128;

const ramps = [LIGHT, DARK].map((stops) => {
  const parsed = stops.map((color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)));
  return Array.from({ length: STEPS }, (_, step) => shade(parsed, step / (STEPS - 1)));
});

function shade(parsed, share) {
  const at = share * (parsed.length - 1);
  const low = Math.min(Math.floor(at), parsed.length - 2);
  const mixed = parsed[low].map((part, i) => Math.round(part + (parsed[low + 1][i] - part) * (at - low)));
  return `rgb(${mixed.join(",")})`;
}

export const isDark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

/** The colours from the lowest to the highest value. */
export const ramp = () => ramps[isDark() ? 1 : 0];

/** Which of the colours a value has; -1: none. */
export function stepOf(value, [low, high]) {
  if (Number.isNaN(value)) return -1;
  const share = high > low ? (value - low) / (high - low) : 0;
  return Math.round(Math.min(1, Math.max(0, share)) * (STEPS - 1));
}

/** Colours of lines on one chart, told apart by eyes of all kinds (Okabe and Ito), as the theme allows. */
export const lines = () => (isDark()
  ? ["#56b4e9", "#e69f00", "#2fc79a", "#cc79a7", "#f0e442", "#7c9cff", "#ff8a5c", "#b9c0cc"]
  : ["#0072b2", "#b26a00", "#007a5a", "#a8497f", "#7a6a00", "#3f51b5", "#c2410c", "#4b5563"]);

/** A colour of the style sheet. */
export const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
