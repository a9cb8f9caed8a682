// Writes numbers, times and sizes for people. A missing value is a dash.

export const NONE = "–";
const has = (value) => value !== null && value !== undefined && Number.isFinite(Number(value));

const whole = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });

/** 12345 as "12,345". */
export const count = (value) => (has(value) ? whole.format(value) : NONE);

/** "1 user", "2 users". */
export const counted = (value, one, many = `${one}s`) =>
  `${count(value)} ${Number(value) === 1 ? one : many}`;

/** A number with a fixed number of decimals. */
export const decimal = (value, digits = 3) =>
  has(value) ? Number(value).toFixed(digits).replace("-", "−") : NONE;

/** A number with three significant digits. */
export const short = (value) =>
  has(value) ? new Intl.NumberFormat("en-GB", { maximumSignificantDigits: 3 }).format(value) : NONE;

/** A share from 0 to 1 as "12.3%". */
export const percent = (value, digits = 1) =>
  has(value) ? `${(100 * value).toFixed(digits)}%` : NONE;

/** Milliseconds as "12 ms". */
export const milliseconds = (value) =>
  has(value) ? `${value < 10 ? Number(value).toFixed(1) : whole.format(value)} ms` : NONE;

const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB"];

/** Bytes as "1.2 MiB". */
export function bytes(value) {
  if (!has(value)) return NONE;
  let [size, unit] = [Number(value), 0];
  while (size >= 1024 && unit < UNITS.length - 1) [size, unit] = [size / 1024, unit + 1];
  return `${unit === 0 || size >= 100 ? whole.format(size) : size.toFixed(1)} ${UNITS[unit]}`;
}

const STEPS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

/** Seconds as "3 hours"; its largest unit, rounded down. */
export function duration(seconds) {
  if (!has(seconds)) return NONE;
  const [name, size] = STEPS.find(([, each]) => seconds >= each) ?? STEPS.at(-1);
  return counted(Math.floor(seconds / size), name);
}

/** How long ago: "3 hours ago". */
export const ago = (seconds) => (has(seconds) ? `${duration(Math.max(0, seconds))} ago` : NONE);

// Tables may hold sequence numbers instead of times: a year before 1980 is no date of an event.
const FIRST_DATE = 315532800;
export const isDate = (seconds) => has(seconds) && seconds >= FIRST_DATE;

const day = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeZone: "UTC" });
const minute = new Intl.DateTimeFormat("en-GB", {
  dateStyle: "medium", timeStyle: "short", timeZone: "UTC",
});

/** Unix seconds as a day in UTC; a sequence number as it is. */
export const date = (seconds) =>
  isDate(seconds) ? day.format(new Date(1000 * seconds)) : count(seconds);

/** Unix seconds as a day and minute in UTC. */
export const time = (seconds) =>
  isDate(seconds) ? `${minute.format(new Date(1000 * seconds))} UTC` : count(seconds);

/** A value of an attribute: lists with commas, truth values as yes and no. */
export function attribute(value) {
  if (Array.isArray(value)) return value.join(", ");
  if (typeof value === "boolean") return value ? "yes" : "no";
  return has(value) && typeof value === "number" ? short(value) : String(value ?? NONE);
}
