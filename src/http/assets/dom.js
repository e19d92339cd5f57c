// Elements, words and times. Text from outside only ever becomes a text node or an attribute's value.

export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Text that somebody else wrote: its direction is its own affair.
export const quoted = (text) => h("bdi", {}, text);

export const STATUSES = {
  i: { word: "in sync", sign: "✓" },
  p: { word: "pending", sign: "…" },
  f: { word: "failing", sign: "!" },
  u: { word: "unreachable", sign: "↓" },
  r: { word: "refused", sign: "×" },
  b: { word: "blocked", sign: "–" },
  a: { word: "awaiting signature", sign: "✎" },
};

const LETTERS = {
  in_sync: "i", pending: "p", failing: "f", unreachable: "u", refused: "r", blocked: "b", awaiting_signature: "a",
};
export const letterOf = (status) => LETTERS[status] ?? "b";

export function sign(letter) {
  const status = STATUSES[letter];
  return status
    ? h("span", { class: `sign ${letter}`, "aria-hidden": "true" }, status.sign)
    : h("span", { class: "sign none", "aria-hidden": "true" }, "·");
}

export const host = (url) => url.replace(/^wss?:\/\//, "");
export const shortNpub = (npub) => `${npub.slice(0, 9)}…${npub.slice(-4)}`;
export const count = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
export const repoLink = (npub, d) => `#/r/${npub}/${encodeURIComponent(d)}`;

// What the server's clock says: ages are told by it.
let skew = 0;
export function setClock(date) {
  const server = Date.parse(date ?? "");
  if (!Number.isNaN(server)) skew = Math.round((server - Date.now()) / 1000);
}
export const now = () => Math.floor(Date.now() / 1000) + skew;

export function span(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.floor(seconds))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}
export const ago = (at) => (now() - at < 10 ? "just now" : `${span(now() - at)} ago`);
export const until = (at) => (at <= now() ? "now" : `in ${span(at - now())}`);

const CLOCK = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
export const clock = (at) => CLOCK.format(new Date(at * 1000));
export const time = (at, text = ago(at)) =>
  h("time", { datetime: new Date(at * 1000).toISOString(), title: clock(at) }, text);

// Whether it was copied.
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

function copyButton(text, code) {
  const button = h("button", { type: "button", class: "plain", "aria-label": `Copy: ${text}` }, "Copy");
  button.addEventListener("click", async () => {
    if (await copy(text)) {
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 2000);
    } else {
      // Browsers copy only on pages they trust; then it is at least selected.
      getSelection().selectAllChildren(code);
    }
  });
  return button;
}

export function command(text) {
  const code = h("code", { tabindex: "0" }, quoted(text));
  return h("div", { class: "clone" }, code, copyButton(text, code));
}
