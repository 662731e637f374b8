"use strict";
// The text of a mark beside it: under the pointer, or by the arrow keys once its chart has the focus.
const tip = document.createElement("div");
tip.id = "tip";
tip.hidden = true;
tip.setAttribute("role", "status");
document.querySelector("main").append(tip);
let shown = null;

function show(mark) {
  if (mark === shown) return;
  if (shown) shown.classList.remove("on");
  shown = mark;
  tip.hidden = !mark;
  if (!mark) return;
  mark.classList.add("on");
  tip.textContent = mark.dataset.tip;
  const box = mark.getBoundingClientRect();
  const left = box.left + box.width / 2 - tip.offsetWidth / 2;
  const above = box.top - tip.offsetHeight - 8;
  tip.style.left = `${Math.max(8, Math.min(left, document.documentElement.clientWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${above < 8 ? box.bottom + 8 : above}px`;
}

function marksOf(chart) {
  return [...chart.querySelectorAll("[data-tip]")].filter((mark) => !mark.classList.contains("off"));
}

function nearest(chart, x, y) {
  let best = null, least = 24;
  for (const mark of marksOf(chart)) {
    const box = mark.getBoundingClientRect();
    const away = Math.hypot(box.left + box.width / 2 - x, box.top + box.height / 2 - y);
    if (away < least) [best, least] = [mark, away];
  }
  return best;
}

for (const chart of document.querySelectorAll("svg.chart[tabindex]")) {
  const point = (event) => show(event.target.closest("[data-tip]:not(.off)") || nearest(chart, event.clientX, event.clientY));
  chart.addEventListener("pointermove", point);
  chart.addEventListener("pointerdown", point);
  chart.addEventListener("pointerleave", () => show(null));
  chart.addEventListener("blur", () => show(null));
  let last = null;
  chart.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") show(null);
    if (!step) return;
    event.preventDefault();
    const marks = marksOf(chart), at = marks.indexOf(last);
    last = marks[at < 0 && step < 0 ? marks.length - 1 : (at + step + marks.length) % marks.length] || null;
    show(last);
  });
}
addEventListener("scroll", () => show(null), { passive: true });

// A key of a legend hides and shows the marks of its colour.
for (const key of document.querySelectorAll("button.key")) {
  key.addEventListener("click", () => {
    const off = key.getAttribute("aria-pressed") === "true";
    key.setAttribute("aria-pressed", String(!off));
    const colour = key.dataset.colour, chart = key.closest("figure").querySelector("svg.chart[role]");
    const own = `:is([fill="${colour}"], [stroke="${colour}"])`;
    for (const mark of chart.querySelectorAll(own)) mark.classList.toggle("off", off);
  });
}

// Paper has no folds.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));

// A page of a study that still runs is read again.
const wait = Number(document.body.dataset.refresh);
if (wait) setTimeout(() => location.reload(), 1000 * wait);
