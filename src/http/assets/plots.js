// Small plots, as SVG. Each has its words beside it.

import { STATUSES, clock, h, letterOf, now, span, svg } from "./dom.js";

const DAY = 86400;
const SLOT = 900;

// How a mirror stood from its first noted change until now.
export function timeline(history) {
  const end = now();
  const first = history[0]?.at ?? end;
  const start = Math.min(first, end - 3600);
  const width = 600;
  const x = (at) => ((Math.min(Math.max(at, start), end) - start) / Math.max(1, end - start)) * width;
  const segments = history.map((change, index) => {
    const [from, to] = [x(change.at), x(history[index + 1]?.at ?? end)];
    const letter = letterOf(change.status);
    return svg("rect", { class: `seg-${letter}`, x: from.toFixed(1), y: 0, width: Math.max(1.5, to - from - 1).toFixed(1), height: 16, rx: 2 },
      svg("title", {}, `${STATUSES[letter].word} since ${clock(change.at)}`));
  });
  const label = `${history.length} changes in ${span(end - first)}`;
  return h("figure", { class: "timeline" },
    svg("svg", { viewBox: `0 0 ${width} 16`, preserveAspectRatio: "none", role: "img", "aria-label": label }, segments),
    h("figcaption", {}, ends(`${span(end - start)} ago`)));
}

const ends = (from) => [h("span", {}, from), h("span", {}, "now")];
export const caption = (from) => h("div", { class: "ends", "aria-hidden": "true" }, ends(from));

// Answers of the last day: how long they took, and below what went wrong.
export function latency(slots) {
  const [width, height] = [480, 72];
  const start = now() - DAY;
  const x = (at) => (((at + SLOT / 2 - start) / DAY) * width).toFixed(1);
  const answered = slots.filter(([, slot]) => slot.answered);
  const means = answered.map(([, slot]) => (slot.latency_ms ?? 0) / slot.answered);
  const top = Math.max(1, ...means);
  const y = (ms) => (height - 4 - (ms / top) * (height - 12)).toFixed(1);
  const points = answered.map(([at], index) => [x(at), y(means[index])]);
  const label = means.length
    ? `Time to answer over the last day: ${Math.round(Math.min(...means))} to ${Math.round(top)} ms`
    : "No answer within the last day";
  return h("div", { class: "plot" }, h("p", {}, label),
    svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
      svg("line", { class: "axis", x1: 0, x2: width, y1: height - 3.5, y2: height - 3.5 }),
      points.length > 1 && svg("polyline", { class: "line", points: points.map((point) => point.join(",")).join(" ") }),
      points.map(([px, py]) => svg("circle", { class: "point", cx: px, cy: py, r: points.length > 1 ? 1.6 : 2.5 }))));
}

export function errors(slots) {
  const [width, height] = [480, 36];
  const start = now() - DAY;
  const bar = (width / DAY) * SLOT;
  const parts = (slot) => [
    ["unanswered", (slot.asked ?? 0) - (slot.answered ?? 0)],
    ["failures", slot.failures ?? 0],
    ["refusals", slot.refusals ?? 0],
  ];
  const sum = (slot) => parts(slot).reduce((all, [, n]) => all + n, 0);
  const total = slots.reduce((all, [, slot]) => all + sum(slot), 0);
  const top = Math.max(1, ...slots.map(([, slot]) => sum(slot)));
  const bars = slots.flatMap(([at, slot]) => {
    let below = height - 3;
    return parts(slot).filter(([, n]) => n > 0).map(([kind, n]) => {
      const tall = Math.max(2, (n / top) * (height - 6));
      below -= tall;
      return svg("rect", { class: kind, x: (((at - start) / DAY) * width).toFixed(1), y: below.toFixed(1), width: Math.max(2, bar - 0.5).toFixed(1), height: tall.toFixed(1) },
        svg("title", {}, `${clock(at)}: ${n} ${kind}`));
    });
  });
  const label = total ? `${total} errors over the last day` : "No errors over the last day";
  return h("div", { class: "plot" }, h("p", {}, label),
    svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
      svg("line", { class: "axis", x1: 0, x2: width, y1: height - 2.5, y2: height - 2.5 }), bars));
}
