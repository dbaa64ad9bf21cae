"use strict";
for (const part of document.querySelectorAll(".controls")) part.hidden = false;
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});

const share = (part, whole) => (whole ? (part / whole).toFixed(4) : "-");
const compare = (a, b) => (isNaN(a - b) ? a.localeCompare(b, "en", {numeric: true}) : a - b);

for (const part of document.querySelectorAll(".threshold")) {
  const {thresholds, true: trues, false: falses} = JSON.parse(part.dataset.counts);
  const slider = part.querySelector("input");
  const show = () => {
    const [tp, fp] = [trues[slider.value], falses[slider.value]];
    const [fn, tn] = [trues[0] - tp, falses[0] - fp];
    const shown = {
      tp, fp, fn, tn,
      threshold: String(thresholds[slider.value]),
      accuracy: share(tp + tn, tp + tn + fp + fn),
      sensitivity: share(tp, tp + fn), specificity: share(tn, tn + fp),
      ppv: share(tp, tp + fp), npv: share(tn, tn + fn),
      f1_positive: share(2 * tp, 2 * tp + fp + fn),
      f1_negative: share(2 * tn, 2 * tn + fp + fn),
    };
    for (const field of part.querySelectorAll("[data-field]")) {
      field.textContent = shown[field.dataset.field].toLocaleString("en-US");
    }
    slider.setAttribute("aria-valuetext", shown.threshold);
  };
  slider.addEventListener("input", show);
  show(); // A browser may keep where the slider was.
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => {
    const value = (row) => row.cells[place].dataset.value ?? row.cells[place].textContent;
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const isUp = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", isUp ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].sort((a, b) => compare(value(a), value(b)));
      table.tBodies[0].append(...(isUp ? rows.reverse() : rows));
    });
  });
}

for (const part of document.querySelectorAll("div.controls")) {
  const list = part.nextElementSibling;
  const cards = [...list.children];
  const inputs = part.querySelectorAll("select, input");
  const show = () => {
    const [group, label, order, text] = [...inputs].map((input) => input.value);
    for (const card of cards) {
      card.hidden = !(
        (!group || card.dataset.group === group) &&
        (!label || card.dataset.label === label) &&
        card.textContent.toLowerCase().includes(text.trim().toLowerCase())
      );
    }
    const sorted = [...cards];
    if (order) sorted.sort((a, b) => compare(a.dataset[order], b.dataset[order]));
    list.append(...sorted);
    const shown = cards.filter((card) => !card.hidden).length;
    part.querySelector("[role=status]").textContent = `${shown} of ${cards.length} patches`;
  };
  for (const input of inputs) input.addEventListener("input", show);
  show();
}
