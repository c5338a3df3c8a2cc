soniq.panel("parallel", (app, root) => {
  const { el, capital } = soniq;
  const find = (id) => root.querySelector(`#${id}`);
  const canvas = find("parallel-canvas"), pen = canvas.getContext("2d");
  const HEIGHT = 260, EDGE = 12;
  const axes = app.fields.map(axisOf).filter(Boolean);
  const lines = app.points.map((point) => ({ point, at: axes.map((axis) => axis.place(point)) }))
    .filter(({ at }) => at.some((v) => v !== null));
  let hovered = null, frame = 0, drawn = null, moved = false;

  /** An axis: where a point lies on it, 0 the worst and 1 the best; none where all points are alike. */
  function axisOf(field) {
    const values = app.points.map((p) => app.value(p, field)).filter((v) => v !== null);
    const [low, high] = values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
    if (!(high > low)) return null;
    const turn = low > 0 && !/^(metric|bits)/.test(field) ? Math.log : (v) => v, up = app.sense(field) > 0;
    const part = (value) => {
      const found = (turn(value) - turn(low)) / (turn(high) - turn(low));
      return up ? found : 1 - found;
    };
    const place = (point) => {
      const value = app.value(point, field);
      return value === null ? null : part(value);
    };
    const back = turn === Math.log ? Math.exp : (v) => v;
    const value = (at) => back(turn(low) + (up ? at : 1 - at) * (turn(high) - turn(low)));
    return { field, place, part, value, best: up ? high : low, worst: up ? low : high };
  }

  const x = (i) => (canvas.clientWidth * (i + 0.5)) / axes.length;
  const y = (part) => EDGE + (1 - part) * (HEIGHT - 2 * EDGE);

  function trace(at) {
    pen.beginPath();
    let down = false;
    at.forEach((part, i) => {
      if (part === null) { down = false; return; }
      if (down) pen.lineTo(x(i), y(part));
      else pen.moveTo(x(i), y(part));
      down = true;
    });
    pen.stroke();
  }

  function emphasise(line, dash) {
    pen.setLineDash(dash);
    Object.assign(pen, { globalAlpha: 1, lineWidth: 3, strokeStyle: app.colour("ink") });
    trace(line.at);
    pen.setLineDash([]);
    line.at.forEach((part, i) => {
      if (part === null) return;
      pen.save();
      pen.translate(x(i), y(part));
      pen.fillStyle = app.mark(line.point).colour;
      pen.fill(new Path2D(app.mark(line.point).path));
      pen.restore();
    });
  }

  function paint() {
    frame = 0;
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth;
    Object.assign(canvas, { width: Math.round(width * ratio), height: Math.round(HEIGHT * ratio) });
    pen.scale(ratio, ratio);
    Object.assign(pen, { strokeStyle: app.colour("line-strong"), lineWidth: 1 });
    axes.forEach((_, i) => { pen.beginPath(); pen.moveTo(x(i), EDGE); pen.lineTo(x(i), HEIGHT - EDGE); pen.stroke(); });
    pen.fillStyle = app.colour("accent");
    for (const [i, from, to] of drawn ? [...marked(), drawn] : marked()) {
      pen.globalAlpha = 0.25;
      pen.fillRect(x(i) - 9, y(Math.max(from, to)), 18, Math.max(2, y(Math.min(from, to)) - y(Math.max(from, to))));
    }
    const faint = lines.length > 200 ? 0.25 : 0.7;
    const shown = lines.map((line) => [line, app.passes(line.point)]).sort((a, b) => a[1] - b[1]);
    for (const [line, passes] of shown) {
      Object.assign(pen, { strokeStyle: app.mark(line.point).colour, lineWidth: passes ? 1.6 : 1, globalAlpha: passes ? faint : 0.06 });
      trace(line.at);
    }
    for (const [id, dash] of [[app.state.other, [6, 4]], [app.state.design, []], [hovered, [2, 3]]]) {
      const line = id && lines.find(({ point }) => point.id === id);
      if (line) emphasise(line, dash);
    }
  }
  /** [axis, from, to] of each range drawn. */
  const marked = () => app.brushes.map(({ field, low, high }) => {
    const i = axes.findIndex((axis) => axis.field === field);
    return i < 0 ? null : [i, ...[low, high].map((v) => Math.min(1, Math.max(0, axes[i].part(v))))];
  }).filter(Boolean);
  const repaint = () => { frame = frame || requestAnimationFrame(paint); };

  /** The line that passes nearest to the pointer, among those shown. */
  function nearest(event) {
    const box = canvas.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
    const left = Math.min(axes.length - 2, Math.max(0, Math.floor((px / box.width) * axes.length - 0.5)));
    const part = Math.min(1, Math.max(0, (px - x(left)) / (x(left + 1) - x(left))));
    let best = null, least = 30;
    for (const { point, at } of lines) {
      if (at[left] === null || at[left + 1] === null || !app.passes(point)) continue;
      const off = Math.abs(y(at[left] + part * (at[left + 1] - at[left])) - py);
      if (off < least) [best, least] = [point, off];
    }
    return best;
  }

  const shownEnd = (axis, value) => app.number(axis.field, value);
  function labels() {
    const columns = { style: `grid-template-columns:repeat(${axes.length},minmax(0,1fr))` };
    for (const [id, cell] of [
      ["parallel-top", (axis) => [el("strong", {}, capital(app.label(axis.field))), el("span", {}, shownEnd(axis, axis.best))]],
      ["parallel-bottom", (axis) => [el("span", {}, shownEnd(axis, axis.worst))]],
    ]) {
      find(id).setAttribute("style", columns.style);
      find(id).replaceChildren(...axes.map((axis) => el("div", {}, cell(axis))));
    }
  }

  if (axes.length < 2) {
    root.querySelectorAll("canvas, .parallel-labels").forEach((node) => node.remove());
    find("parallel-words").textContent = "Too few designs to compare.";
    return;
  }
  labels();
  canvas.addEventListener("pointermove", (event) => {
    const point = nearest(event), id = point && point.id;
    if (id === hovered) return;
    hovered = id;
    find("parallel-words").textContent = point ? point.name + app.where(point) : "";
    repaint();
  });
  canvas.addEventListener("pointerleave", () => { hovered = null; find("parallel-words").textContent = ""; repaint(); });
  /** Where the pointer is on the nearest axis: [axis, 0..1]; none between axes. */
  function onAxis(event) {
    const box = canvas.getBoundingClientRect(), px = event.clientX - box.left;
    const i = Math.min(axes.length - 1, Math.max(0, Math.round((px / box.width) * axes.length - 0.5)));
    return Math.abs(px - x(i)) > 24 ? null : [i, height(event)];
  }
  const height = (event) => Math.min(1, Math.max(0, 1 - (event.clientY - canvas.getBoundingClientRect().top - EDGE) / (HEIGHT - 2 * EDGE)));

  canvas.addEventListener("pointerdown", (event) => {
    const at = event.pointerType === "touch" ? null : onAxis(event);
    moved = false;
    if (!at) return;
    drawn = [at[0], at[1], at[1]];
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drawn) return;
    drawn[2] = height(event);
    moved = moved || Math.abs(drawn[2] - drawn[1]) * HEIGHT > 4;
    repaint();
  });
  canvas.addEventListener("pointerup", () => {
    if (drawn && moved) {
      const [i, ...ends] = drawn, values = ends.map((part) => axes[i].value(part)).sort((a, b) => a - b);
      app.brush({ [axes[i].field]: values });
    }
    drawn = null;
    repaint();
  });
  canvas.addEventListener("pointercancel", () => { drawn = null; repaint(); });
  canvas.addEventListener("dblclick", (event) => {
    const at = onAxis(event);
    if (at) app.brush({ [axes[at[0]].field]: null });
  });
  canvas.addEventListener("click", (event) => {
    if (moved) return;
    const point = nearest(event);
    if (point) app.set({ design: point.id });
  });
  new ResizeObserver(repaint).observe(canvas);
  app.on([...app.filters, "design", "other", "x", "y"], repaint);
  app.repaint(repaint);
});
