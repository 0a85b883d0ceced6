// Recorded attacks, step by step and two at a time: one module for the widget and for a page without
// a kernel. It reads the model's recordings, step, shown, offer, state, progress and message, and
// asks for new attacks with model.send. What a step looks like is in drawing.js.

const PAUSE = 350; // milliseconds until a screen reader is told where the slider stands

// A row of choices; each offers what is recorded together with those before it.
function choices(fields, list, chosen, changed, label) {
  const row = node("div", { className: "tkx-choices", role: "group", "aria-label": label });
  let left = list;
  for (const { title, key, text, none } of fields) {
    const found = unique(left.map(key));
    const id = `tkx-${++count}`;
    const select = node("select", { id });
    if (none) select.append(node("option", { value: "" }, none));
    for (const value of found) select.append(node("option", { value }, text(value)));
    const mine = chosen ? key(chosen) : none ? "" : found[0];
    select.value = mine;
    const before = left;
    select.addEventListener("change", () => {
      const same = before.filter((r) => key(r) === select.value);
      changed(same.length ? nearest(same, chosen, fields) : null, title);
    });
    row.append(node("div", { className: "tkx-field" }, [node("label", { for: id }, title), select]));
    left = left.filter((r) => key(r) === mine);
    if (none && !chosen) break;
  }
  return row;
}

// Of some recordings the one that agrees with another in most choices.
function nearest(list, other, fields) {
  if (!other) return list[0];
  const same = (r) => fields.filter(({ key }) => key(r) === key(other)).length;
  return list.reduce((best, r) => (same(r) > same(best) ? r : best));
}

const SCENE = [
  { title: "Image", key: (r) => r.image, text: (v) => v },
  { title: "Hide", key: (r) => names(r, r.specified).join(", "), text: (v) => v },
  { title: "k", key: (r) => String(r.k), text: (v) => v },
];
const RUN = [
  { title: "Method", key: (r) => r.method, text: (v) => v },
  { title: "Stop", key: (r) => r.stop, text: stopName },
  { title: "Pixels", key: (r) => bitsName(r.bits), text: (v) => v },
];
const sceneOf = (r) => SCENE.map(({ key }) => key(r)).join("\n");

// The form for a new attack; `draw` is called when the state of the kernel changes.
function newAttack(model, offer) {
  const mine = ++count;
  const id = (name) => `tkx-${mine}-${name}`;
  const field = (title, control, name) => {
    control.id = id(name);
    return node("div", { className: "tkx-field" }, [node("label", { for: control.id }, title), control]);
  };
  const options = (pairs) => pairs.map(([value, text]) => node("option", { value }, text));
  const image = node("select", {}, options(offer.images.map(({ name }) => [name, name])));
  const method = node("select", {}, options(offer.methods));
  const stop = node("select", {}, options(offer.stops.map((name) => [name, stopName(name)])));
  const k = node("input", { type: "number", min: 1, max: offer.most_k, value: Math.min(3, offer.most_k) });
  const steps = node("input", { type: "number", min: 1, max: offer.most_steps, value: 100 });
  const bits = node("input", { type: "checkbox", checked: true, id: id("bits") });
  const labels = node("div", { className: "tkx-labels" });
  const fill = () => {
    const { labels: found } = offer.images.find(({ name }) => name === image.value);
    const boxes = found.map((name, i) => {
      const box = node("input", { type: "checkbox", value: name, checked: i === 0 });
      return node("label", {}, [box, name]);
    });
    labels.replaceChildren(...boxes);
  };
  image.addEventListener("change", fill);
  fill();
  const go = node("button", { type: "button", className: "tkx-go" }, "Attack");
  const cancel = node("button", { type: "button" }, "Cancel");
  const bar = node("progress", { "aria-label": "Steps of the new attack" });
  const share = node("span");
  const said = node("p", { className: "tkx-message", role: "status" });
  const controls = [image, method, stop, k, steps, bits];
  go.addEventListener("click", () => {
    if (go.getAttribute("aria-disabled") === "true") return;
    const hide = [...labels.querySelectorAll("input:checked")].map((box) => box.value);
    const wish = {
      image: image.value, hide, k: Number(k.value), method: method.value, stop: stop.value,
      bits: bits.checked ? 8 : null, max_iter: Number(steps.value),
    };
    model.send({ do: "attack", wish });
  });
  cancel.addEventListener("click", () => {
    if (cancel.getAttribute("aria-disabled") !== "true") model.send({ do: "cancel" });
  });
  const draw = () => {
    const state = model.get("state");
    const [taken, most] = model.get("progress");
    for (const control of [...controls, ...labels.querySelectorAll("input")]) {
      control.disabled = state !== "idle";
    }
    // not `disabled`, which would throw the focus of a keyboard away
    go.setAttribute("aria-disabled", String(state !== "idle"));
    cancel.setAttribute("aria-disabled", String(state !== "running"));
    Object.assign(bar, { max: most, value: state === "idle" ? 0 : taken });
    share.textContent = state === "idle" ? "" : `step ${taken} of at most ${most}`;
    const text = { running: "Attacking…", cancelling: "Cancelling…" }[state] ?? model.get("message");
    if (said.textContent !== text) said.textContent = text;
  };
  const form = node("details", { className: "tkx-new" }, [
    node("summary", {}, "A new attack"),
    node("div", { className: "tkx-choices" }, [
      field("Image", image, "image"),
      node("fieldset", {}, [node("legend", {}, "Hide"), labels]),
      field("k", k, "k"),
      field("Method", method, "method"),
      field("Stop", stop, "stop"),
      field("Most steps", steps, "steps"),
      node("label", { className: "tkx-check" }, [bits, "8 bits"]),
    ]),
    node("div", { className: "tkx-run" }, [go, cancel, bar, share]),
    said,
  ]);
  return { form, draw };
}

function render({ model, el }) {
  const root = node("section", { className: "tkx", "aria-label": "Explorer of recorded attacks" });
  const scene = node("div");
  const id = `tkx-${++count}-step`;
  const slider = node("input", { type: "range", id, min: 0, step: 1 });
  const button = (text, label) => node("button", { type: "button", "aria-label": label }, text);
  const back = button("−", "One step back");
  const on = button("+", "One step on");
  const where = node("output", { for: id });
  const bar = node("div", { className: "tkx-slider" }, [
    node("label", { for: id }, "Step"), back, slider, on, where,
  ]);
  const panels = node("div", { className: "tkx-panels" });
  const told = node("p", { className: "tkx-aloud", role: "status", "aria-live": "polite" });
  const empty = node("p", {}, "Nothing is recorded.");
  const stage = node("div", {}, [scene, bar, legend(), panels]);
  root.append(empty, stage, told);
  const off = [];
  const hear = (name, listener) => {
    model.on(name, listener);
    off.push(() => model.off(name, listener));
  };

  const recordings = () => model.get("recordings");
  const find = (wanted) => recordings().find((r) => r.id === wanted) ?? null;
  const shown = () => {
    const [first, second] = model.get("shown").map(find);
    return [first ?? recordings()[0] ?? null, second ?? null];
  };
  const longest = () => Math.max(0, ...shown().filter(Boolean).map(lastOf));
  const show = (pair) => {
    model.set("shown", pair.map((r) => r?.id ?? ""));
    go(Math.min(model.get("step"), longest()));
  };
  let timer = 0;
  let sent = 0;
  const go = (wanted) => {
    model.set("step", Math.max(0, Math.min(longest(), wanted)));
    clearTimeout(sent);
    sent = setTimeout(() => model.save_changes(), 100); // not every step of a slider that is moved
  };

  let parts = []; // what changes with the step, a function a panel
  let refocus = null; // of the select that was just used, which is made anew

  const panel = (r, side) => {
    const [first] = shown();
    const mine = recordings().filter((other) => sceneOf(other) === sceneOf(first));
    const title = side ? "Right" : "Left";
    const changed = (to, field) => {
      refocus = `${title} ${field}`;
      show(side ? [first, to] : [to, shown()[1]]);
    };
    const named = Object.fromEntries(mine.map((other) => [other.method, other.name]));
    const fields = RUN.map((field, i) => ({
      ...field,
      text: i ? field.text : (v) => named[v],
      none: i || !side ? "" : "none",
    }));
    const row = choices(fields, mine, r, changed, `${title} attack`);
    row.dataset.side = title;
    const made = node("article", { className: "tkx-panel", "aria-label": `${title} attack` }, row);
    if (!r) return made;
    const state = node("p", { className: "tkx-state" });
    const [seen, list, chart, table] = ["pictures", "list", "chart", "scroll"].map((name) =>
      node("div", { className: `tkx-${name}` }),
    );
    const look = pictures(r, seen);
    const advice = r.advice.map((text) => node("p", { className: "tkx-advice" }, text));
    const settings = `At most ${r.settings.max_iter} steps. ${endOf(r)}`;
    made.append(
      state, seen, list, node("h4", {}, "Ranks by step"), chart, table,
      node("p", { className: "tkx-end-text" }, settings), ...advice, stepTable(r),
    );
    parts.push(() => {
      const step = Math.min(model.get("step"), lastOf(r));
      const width = Math.max(240, Math.round(chart.clientWidth || 420));
      state.textContent = stateOf(r, model.get("step"));
      look(step);
      list.replaceChildren(...listAt(r, step));
      chart.replaceChildren(rankChart(r, step, longest(), width, go));
      table.replaceChildren(measureTable(r, step, longest()));
    });
    return made;
  };

  const move = () => {
    const [step, most] = [Math.min(model.get("step"), longest()), longest()];
    slider.value = step;
    const text = `step ${step} of ${most}`;
    slider.setAttribute("aria-valuetext", text);
    where.textContent = text;
    for (const part of parts) part();
    clearTimeout(timer);
    timer = setTimeout(() => {
      told.textContent = shown().filter(Boolean).map((r) => stateOf(r, step)).join(". ");
    }, PAUSE);
  };

  const build = () => {
    const [first, second] = shown();
    empty.hidden = Boolean(first);
    stage.hidden = !first;
    if (!first) return;
    const changed = (to, field) => {
      refocus = `Scene ${field}`;
      const there = recordings().filter((r) => sceneOf(r) === sceneOf(to));
      const other = second && there.filter((r) => r.id !== to.id);
      show([to, other?.length ? nearest(other, second, RUN) : null]);
    };
    const row = choices(SCENE, recordings(), first, changed, "Image and labels");
    row.dataset.side = "Scene";
    scene.replaceChildren(row);
    const fits = second && sceneOf(second) === sceneOf(first) ? second : null;
    parts = [];
    slider.max = longest();
    panels.replaceChildren(panel(first, 0), panel(fits, 1));
    move();
    if (refocus) {
      const [side, ...title] = refocus.split(" ");
      const labels = [...stage.querySelectorAll(`[data-side="${side}"] label`)];
      const label = labels.find((l) => l.textContent === title.join(" "));
      if (label) stage.querySelector(`#${label.htmlFor}`).focus();
      refocus = null;
    }
  };

  slider.addEventListener("input", () => go(Number(slider.value)));
  back.addEventListener("click", () => go(model.get("step") - 1));
  on.addEventListener("click", () => go(model.get("step") + 1));
  hear("change:step", move);
  hear("change:shown", build);
  hear("change:recordings", build);

  const offer = model.get("offer");
  if (offer.images) {
    const { form, draw } = newAttack(model, offer);
    root.insertBefore(form, told);
    for (const name of ["state", "progress", "message"]) hear(`change:${name}`, draw);
    draw();
    hear("msg:custom", (content) => {
      if (!content?.new) return;
      const kept = recordings().filter((r) => r.id !== content.new.id);
      model.set("recordings", [...kept, content.new]);
      const other = kept.find((r) => sceneOf(r) === sceneOf(content.new));
      model.set("step", 0);
      show([content.new, other ?? null]);
      build();
    });
  } else {
    const why = "New attacks need a running kernel: open this notebook in JupyterLab and run it.";
    root.insertBefore(node("p", { className: "tkx-note" }, why), told);
  }

  el.replaceChildren(root);
  build();
  let before = 0;
  const watch = new ResizeObserver(([entry]) => {
    const width = Math.round(entry.contentRect.width);
    if (width && width !== before) for (const part of parts) part();
    before = width;
  });
  watch.observe(root);
  return () => {
    clearTimeout(timer);
    clearTimeout(sent);
    watch.disconnect();
    for (const stop of off) stop();
  };
}

export default { render };
