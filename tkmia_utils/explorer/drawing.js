// What one step of a recording looks like: sentence, list, charts, table, pictures. The module is this
// file and explorer.js after it, put together by widget.py. All text is set as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";
const SIGNS = { specified: "✕", relevant: "●", irrelevant: "□" };
const BELOW = 3; // labels of the list that are shown under the top k
const STOPS = {
  excluded: "labels hidden",
  refilled: "and P@k kept",
  imperceptible: "and no measure lower",
};
const FOCUSABLE = ["input", "select", "button", "summary"];
let count = 0;

function node(tag, properties = {}, children = []) {
  const made = document.createElement(tag);
  // JupyterLab would take keys for its own: arrows go to another cell, two d's delete it
  if (FOCUSABLE.includes(tag) || "tabIndex" in properties) {
    made.setAttribute("data-lm-suppress-shortcuts", "true");
  }
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role" || name === "for") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...[children].flat());
  return made;
}

function drawn(tag, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

const two = (value) => value.toFixed(2);
const unique = (values) => [...new Set(values)];
const names = (r, at) => at.map((c) => r.classes[c]);
const lastOf = (r) => r.l2.length - 1;
const measureName = (name, k) => name.replace("@k", `@${k}`);
const bitsName = (bits) => (bits === null ? "floats" : `${bits} bits`);
const stopName = (stop) => STOPS[stop] ?? stop;

function kindOf(r, c) {
  if (r.specified.includes(c)) return "specified";
  return r.relevant.includes(c) ? "relevant" : "irrelevant";
}

// Labels by falling score; of equal scores the first comes first.
function orderAt(r, step) {
  const ranks = r.ranks[step];
  return r.classes.map((_, c) => c).sort((a, b) => ranks[a] - ranks[b] || a - b);
}

// "step 12 of 40: person has rank 4, hidden; P@3 1.00, was 1.00"
function stateOf(r, wanted) {
  const last = lastOf(r);
  const step = Math.min(wanted, last);
  const over = wanted > last ? ", where it ended" : "";
  const labels = r.specified.map((c) => {
    const rank = r.ranks[step][c];
    return `${r.classes[c]} has rank ${rank}, ${rank > r.k ? "hidden" : "seen"}`;
  });
  const measures = Object.entries(r.measures).map(
    ([name, values]) => `${measureName(name, r.k)} ${two(values[step])}, was ${two(values[0])}`,
  );
  return `${r.name}, step ${step} of ${last}${over}: ${[...labels, ...measures].join("; ")}`;
}

function endOf(r) {
  const last = lastOf(r);
  const steps = `${last} step${last === 1 ? "" : "s"}`;
  const back = r.result === last ? "" : ` The image that it gives back is that of step ${r.result}.`;
  const ends = { success: "success", limit: r.success ? "success" : "no success, the limit was reached" };
  return `Ended after ${steps}: ${ends[r.reason] ?? r.reason}.${back}`;
}

function sign(kind) {
  return node("span", { className: "tkx-sign", "aria-hidden": "true" }, SIGNS[kind]);
}

function listItem(r, c, step, value) {
  const kind = kindOf(r, c);
  const score = node("span", { className: "tkx-score" }, two(r.logits[step][c]));
  const word = node("span", { className: "tkx-kind" }, kind);
  const name = node("span", { className: "tkx-name" }, r.classes[c]);
  return node("li", { className: `tkx-${kind}`, value }, [sign(kind), name, word, score]);
}

function listAt(r, step) {
  const order = orderAt(r, step);
  const item = (c) => listItem(r, c, step, order.indexOf(c) + 1);
  const low = order.slice(r.k + BELOW).filter((c) => r.specified.includes(c));
  return [
    node("h4", {}, `Top ${r.k}: what the user sees`),
    node("ol", { className: "tkx-top" }, order.slice(0, r.k).map(item)),
    node("h4", {}, "Below it"),
    node("ol", { className: "tkx-below" }, [...order.slice(r.k, r.k + BELOW), ...low].map(item)),
  ];
}

// Ranks of all labels by step; names of those that count at the right end.
function rankChart(r, step, longest, width, picked) {
  const classes = r.classes.length;
  const row = Math.max(4, Math.min(13, 360 / classes));
  const counted = r.relevant.map((c) => ({ c, at: 0 }));
  const widest = Math.max(...counted.map(({ c }) => r.classes[c].length), 3);
  const [left, top, bottom] = [30, 8, 34];
  const right = Math.min(width * 0.4, 20 + 7.6 * Math.min(widest, 18));
  const height = top + row * classes + bottom;
  const x = (t) => left + ((width - left - right) * t) / Math.max(1, longest);
  const y = (rank) => top + row * (rank - 0.5);
  const last = lastOf(r);
  const chart = drawn("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img" });
  const moves = r.specified.map(
    (c) => `${r.classes[c]} from rank ${r.ranks[0][c]} to rank ${r.ranks[last][c]}`,
  );
  const text = `Rank of every label by step. The specified ones: ${moves.join(", ")}. The line stands under rank ${r.k}.`;
  chart.setAttribute("aria-label", text);
  const under = y(r.k + 0.5);
  chart.append(
    drawn("rect", { x: left, y: top, width: width - left - right, height: under - top, class: "tkx-seen" }),
  );
  const path = (c) => r.ranks.map((ranks, t) => `${t ? "L" : "M"}${x(t).toFixed(1)} ${y(ranks[c]).toFixed(1)}`);
  const order = r.classes.map((_, c) => c);
  const weight = (c) => ["irrelevant", "relevant", "specified"].indexOf(kindOf(r, c));
  for (const c of order.sort((a, b) => weight(a) - weight(b))) {
    chart.append(drawn("path", { d: path(c).join(""), class: `tkx-line tkx-${kindOf(r, c)}` }));
  }
  chart.append(drawn("line", { x1: left, x2: width - right, y1: under, y2: under, class: "tkx-rule" }));
  if (r.result !== last) {
    const at = x(r.result);
    chart.append(drawn("line", { x1: at, x2: at, y1: top, y2: height - bottom, class: "tkx-result" }));
  }
  chart.append(drawn("line", { x1: x(step), x2: x(step), y1: top, y2: height - bottom, class: "tkx-cursor" }));
  for (const { c } of counted) {
    const kind = kindOf(r, c);
    const marks = unique([0, step, last]);
    for (const t of marks) {
      const place = { x: x(t), y: y(r.ranks[t][c]), class: `tkx-mark tkx-${kind}` };
      chart.append(drawn("text", place, SIGNS[kind]));
    }
  }
  counted.sort((a, b) => r.ranks[last][a.c] - r.ranks[last][b.c]);
  let free = 0;
  for (const entry of counted) {
    entry.at = Math.max(y(r.ranks[last][entry.c]), free);
    free = entry.at + 12;
    const name = r.classes[entry.c];
    const short = name.length > 18 ? `${name.slice(0, 17)}…` : name;
    const place = { x: width - right + 12, y: entry.at, class: `tkx-end tkx-${kindOf(r, entry.c)}` };
    chart.append(drawn("text", place, short));
  }
  for (const rank of unique([1, r.k, ...[10, 20, 40, 60, 80].filter((n) => n <= classes)])) {
    chart.append(drawn("text", { x: left - 8, y: y(rank), class: "tkx-tick tkx-before" }, rank));
  }
  for (const t of unique([0, Math.round(longest / 2), longest])) {
    chart.append(drawn("text", { x: x(t), y: height - bottom + 13, class: "tkx-tick tkx-under" }, t));
  }
  chart.append(drawn("text", { x: (left + width - right) / 2, y: height - 5, class: "tkx-tick tkx-under" }, "step"));
  chart.addEventListener("click", (event) => {
    const box = chart.getBoundingClientRect();
    const there = ((event.clientX - box.left) * width) / box.width;
    picked(Math.round(((there - left) / (width - left - right)) * Math.max(1, longest)));
  });
  return chart;
}

function sparkline(values, step, longest, most) {
  const [width, height] = [150, 30];
  const x = (t) => 4 + ((width - 8) * t) / Math.max(1, longest);
  const y = (value) => height - 5 - ((height - 10) * value) / (most || 1);
  const points = values.map((value, t) => `${x(t).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  const chart = drawn("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true", class: "tkx-spark" });
  chart.append(
    drawn("line", { x1: 4, x2: width - 4, y1: y(values[0]), y2: y(values[0]), class: "tkx-was" }),
    drawn("polyline", { points, class: "tkx-curve" }),
    drawn("line", { x1: x(step), x2: x(step), y1: 1, y2: height - 1, class: "tkx-cursor" }),
    drawn("circle", { cx: x(step), cy: y(values[step]), r: 3, class: "tkx-dot" }),
  );
  return chart;
}

function measureTable(r, step, longest) {
  const head = ["", "by step", "now", "was", "change"].map((text) => node("th", { scope: "col" }, text));
  const body = node("tbody");
  const rows = Object.entries(r.measures).map(([name, values]) => [measureName(name, r.k), values, 1]);
  for (const [name, values, most] of rows) {
    const change = values[step] - values[0];
    const [look, word] =
      Math.abs(change) < 1e-6 ? ["same", "= same"] : change < 0 ? ["fell", "▼ fell"] : ["rose", "▲ rose"];
    body.append(
      node("tr", {}, [
        node("th", { scope: "row" }, name),
        node("td", {}, sparkline(values, step, longest, most)),
        node("td", { className: "tkx-number" }, two(values[step])),
        node("td", { className: "tkx-number" }, two(values[0])),
        node("td", { className: `tkx-${look}` }, word),
      ]),
    );
  }
  const norm = r.l2_paper;
  body.append(
    node("tr", {}, [
      node("th", { scope: "row", title: "of the perturbation, over pixels in [-1, 1]" }, "norm ‖ε‖"),
      node("td", {}, sparkline(norm, step, longest, Math.max(...norm))),
      node("td", { className: "tkx-number" }, two(norm[step])),
      node("td", { className: "tkx-number" }, two(norm[0])),
      node("td"),
    ]),
  );
  const caption = node("caption", {}, "Measures and norm at this step");
  return node("table", { className: "tkx-measures" }, [caption, node("thead", {}, node("tr", {}, head)), body]);
}

// Bytes of an image, pixel by pixel, as recording.py packs them.
async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function paint(canvas, bytes, clean) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  for (let i = 0; i < bytes.length; i += 1) {
    // into an array of bytes that clips, and so modulo 256 before
    image.data[4 * Math.floor(i / 3) + (i % 3)] = (bytes[i] + (clean ? clean[i] : 0)) % 256;
  }
  for (let i = 3; i < image.data.length; i += 4) image.data[i] = 255;
  context.putImageData(image, 0, 0);
}

// Perturbation and image; the function returned shows those of the kept step that is nearest.
function pictures(r, place) {
  const [height, width] = r.size;
  const [perturbation, image] = ["", ""].map(() => ({
    canvas: node("canvas", { width, height, role: "img" }),
    caption: node("figcaption"),
  }));
  for (const { canvas, caption } of [perturbation, image]) {
    place.append(node("figure", {}, [canvas, caption]));
  }
  const clean = unpacked(r.clean);
  const ready = r.pictures.map(() => null);
  const load = (i) =>
    (ready[i] ??= Promise.all([clean, unpacked(r.pictures[i].image), unpacked(r.pictures[i].perturbation)]));
  const shown = names(r, r.relevant).join(", ");
  let now = -1;
  return (step) => {
    const far = r.pictures.map((p) => Math.abs(p.step - step));
    const i = far.indexOf(Math.min(...far));
    const at = r.pictures[i].step;
    const where = at === step ? `step ${step}` : `step ${at}, the nearest that was kept`;
    perturbation.caption.textContent = `Perturbation ×${r.factor}, ${where}`;
    image.caption.textContent = `Image, ${where}`;
    if (i === now) return;
    now = i;
    const strong = `Perturbation at step ${at}, ${r.factor} times as strong; grey is no change.`;
    perturbation.canvas.setAttribute("aria-label", strong);
    image.canvas.setAttribute("aria-label", `${r.image} at step ${at}. In it: ${shown}.`);
    load(i).then(([first, difference, magnified]) => {
      if (i !== now) return; // the slider has moved on
      paint(perturbation.canvas, magnified);
      paint(image.canvas, difference, first);
    });
  };
}

function stepTable(r) {
  const details = node("details", {}, node("summary", {}, "Every step as a table"));
  details.addEventListener("toggle", () => {
    if (!details.open || details.querySelector("table")) return;
    const measured = Object.keys(r.measures);
    const head = [
      "step",
      ...names(r, r.specified).map((name) => `rank of ${name}`),
      ...measured.map((name) => measureName(name, r.k)),
      "norm ‖ε‖",
    ];
    const body = r.l2.map((_, t) => [
      t,
      ...r.specified.map((c) => r.ranks[t][c]),
      ...measured.map((name) => two(r.measures[name][t])),
      two(r.l2_paper[t]),
    ]);
    const line = (cells, tag) => node("tr", {}, cells.map((cell) => node(tag, {}, String(cell))));
    const table = node("table", {}, [
      node("thead", {}, line(head, "th")),
      node("tbody", {}, body.map((cells) => line(cells, "td"))),
    ]);
    const box = { className: "tkx-scroll", tabIndex: 0, role: "region", "aria-label": `Every step of ${r.name}` };
    details.append(node("div", box, table));
  });
  return details;
}

function legend() {
  const kinds = {
    specified: "specified: to be hidden",
    relevant: "relevant: also in the image",
    irrelevant: "irrelevant: not in the image",
  };
  const items = Object.entries(kinds).map(([kind, text]) =>
    node("li", { className: `tkx-${kind}` }, [sign(kind), text]),
  );
  return node("ul", { className: "tkx-legend", "aria-label": "Kinds of label" }, items);
}
