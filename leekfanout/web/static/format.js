// Numbers and times as people read them.

const counts = new Intl.NumberFormat();
const compact = new Intl.NumberFormat(undefined, { notation: "compact", maximumSignificantDigits: 4 });
const oneDigit = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1, minimumFractionDigits: 1 });
const moments = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export const NOTHING = "–";

// Short from a hundred million on, so that it fits its place: "1.235B".
export function count(value) {
  if (value === null) return NOTHING;
  return (value < 1e8 ? counts : compact).format(value);
}

export function rate(value) {
  return value >= 100 ? counts.format(Math.round(value)) : oneDigit.format(value);
}

export function bytes(value) {
  if (value === 0) return NOTHING;
  if (value < 1e6) return `${counts.format(Math.max(1, Math.round(value / 1e3)))} kB`;
  return value < 1e9 ? `${oneDigit.format(value / 1e6)} MB` : `${oneDigit.format(value / 1e9)} GB`;
}

export function percent(value) {
  return value === null ? NOTHING : `${oneDigit.format(value)} %`;
}

// The two largest units, or only the largest: "3 min 20 s", "3 min".
export function duration(seconds, units = 2) {
  let left = Math.max(0, Math.floor(seconds));
  const parts = [];
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]]) {
    const number = Math.floor(left / size);
    left %= size;
    if (number || (unit === "s" && !parts.length)) parts.push(`${number} ${unit}`);
    else if (parts.length) break;
    if (parts.length === units) break;
  }
  return parts.join(" ");
}

// A sentence's text and <code> elements: `words` between backticks are names out of the configuration.
export function words(sentence) {
  return sentence.split("`").map((part, index) => {
    if (index % 2 === 0) return part;
    const element = document.createElement("code");
    element.textContent = part;
    return element;
  });
}

// A <time> of epoch seconds: its text is given or local time, its title says it in UTC too.
export function time(epoch, text) {
  const moment = new Date(epoch * 1000);
  const element = document.createElement("time");
  element.dateTime = moment.toISOString();
  element.textContent = text ?? moments.format(moment);
  const utc = `${moment.toISOString().slice(0, 19).replace("T", " ")} UTC`;
  element.title = text === undefined ? utc : `${moments.format(moment)} (${utc})`;
  return element;
}

export function zone() {
  const minutes = -new Date().getTimezoneOffset();
  const two = (number) => String(number).padStart(2, "0");
  const absolute = Math.abs(minutes);
  const offset = `UTC${minutes < 0 ? "−" : "+"}${two(Math.floor(absolute / 60))}:${two(absolute % 60)}`;
  const name = Intl.DateTimeFormat().resolvedOptions().timeZone;
  return `Times are those of ${name} (${offset}); logs are in UTC`;
}
