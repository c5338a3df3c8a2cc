soniq.panel("front", (app, root) => {
  const { el, plain, figures } = soniq;
  const find = (id) => root.querySelector(`#${id}`);
  const div = find("front-plot");
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const MANY = 60; // more points than this: their error bars would cover the marks
  const STALE = ["x", "y", "bars", "log", ...app.filters];
  const at = (point) => [app.value(point, app.state.x), app.value(point, app.state.y)];
  const logX = () => app.state.log && !app.state.x.startsWith("metric");
  const drawable = (point) => at(point).every((v) => v !== null) && (!logX() || at(point)[0] > 0);
  const visible = () => app.points.filter((p) => drawable(p) && (app.state.dominated || !p.dominated || p.role !== "design")
    && !app.isHidden(p));

  /** Designs of a machine that none better on the x axis equals on the y axis, best x first: a line of the figure. */
  function line(machine = app.byId.get(app.state.design)?.machine) {
    const [across, up] = [app.sense(app.state.x), app.sense(app.state.y)];
    const sorted = visible().filter((p) => p.role === "design" && p.machine === machine && app.passes(p))
      .sort((a, b) => across * (at(b)[0] - at(a)[0]) || up * (at(b)[1] - at(a)[1]));
    let best = null;
    return sorted.filter((p) => (best === null || up * (at(p)[1] - best) > 0) && ((best = at(p)[1]), true));
  }

  function hover(point) {
    const ratio = app.ratio(point), bits = app.bitsPerLayer(point.id), interval = app.interval(point);
    const seeds = point.metric_se === null ? "" : ` ± ${figures(point.metric_se * app.factor, 2)} (${point.n_seeds} seeds)`;
    const lines = [
      `${app.label("metric_test").split(" (")[0]} ${app.text("metric_test", point)}${seeds}`,
      `predicted ${app.text("latency_predicted_us", point)}${interval && ` (${interval})`}`,
      `measured ${app.text("latency_measured_us", point)}${ratio ? `, predicted/measured ${figures(ratio)}` : ""}`,
      `size ${app.text("size_bytes", point)} · ${app.text("bits_per_weight", point)} per weight`,
      ...(point.energy_uj === null ? [] : [`predicted energy ${app.text("energy_uj", point)}`]),
    ];
    const layers = bits.slice(0, 12).map(([name, mean]) => `${name} ${Number(mean.toFixed(2))}`);
    for (let i = 0; i < layers.length; i += 4) lines.push(`${i ? "" : "weight bits: "}${layers.slice(i, i + 4).join(" · ")}`);
    if (bits.length > 12) lines.push(`and ${bits.length - 12} more`);
    return `<b>${plain(point.name + app.where(point))}</b><br>${lines.map(plain).join("<br>")}`;
  }
  const hovers = new Map(app.points.map((p) => [p.id, hover(p)]));

  /** How far below and above its value on an axis a point may lie: standard error, interval, or spread of measurements. */
  function spread(point, field) {
    if (field === "metric_val") return [(point.metric_se || 0) * app.factor, (point.metric_se || 0) * app.factor];
    const { latency_predicted_us: predicted, latency_low_us: low, latency_high_us: high } = point;
    if (field === "latency_predicted_us" && low !== null && high !== null) return [predicted - low, high - predicted];
    const measured = (app.details.get(point.id) || {}).measurement;
    return field === "latency_measured_us" && measured && measured.mad_us ? [measured.mad_us, measured.mad_us] : [0, 0];
  }

  /** Error bars of the metric and of the latency shown; where designs are many, those of the front and the references. */
  function bars(points, front) {
    const shown = points.length <= MANY ? points : [...front, ...points.filter((p) => p.role !== "design")];
    const style = { type: "data", symmetric: false, thickness: 1, width: 3, color: app.colour("ink-faint") };
    const reach = (of, field) => ({ array: of.map((p) => spread(p, field)[1]), arrayminus: of.map((p) => spread(p, field)[0]) });
    return {
      type: "scatter", mode: "markers", name: "uncertainty", hoverinfo: "skip", visible: app.state.bars, marker: { opacity: 0 },
      x: shown.map((p) => at(p)[0]), y: shown.map((p) => at(p)[1]),
      error_y: { ...style, ...reach(shown, app.state.y) }, error_x: { ...style, ...reach(shown, app.state.x) },
    };
  }

  const marks = (points, marker, more) => ({
    type: "scatter", mode: "markers", x: points.map((p) => at(p)[0]), y: points.map((p) => at(p)[1]),
    customdata: points.map((p) => p.id), hovertext: points.map((p) => hovers.get(p.id)), hoverinfo: "text", marker, ...more,
  });

  /** The marks of one palette, either those of the front or the dominated ones, which lie below the line. */
  function palette(name, dominated, points) {
    const mark = app.marks[name], chosen = points.filter((p) => p.palette === name && p.dominated === dominated);
    return marks(chosen, {
      color: mark.colour, symbol: chosen.map((p) => app.symbol(p)), size: dominated ? 10 : 12,
      line: { color: chosen.map((p) => (app.symbol(p).includes("open") ? mark.colour : app.colour("paper"))), width: app.machines.length > 1 ? 1.5 : 1 },
      opacity: chosen.map((p) => (app.passes(p) ? (dominated ? 0.55 : 1) : 0.1)),
    }, { name: plain(name) });
  }

  /** A tick where the other latency of the same design lies: the prediction, with its interval, or the measurement. */
  const other = () => ({ latency_measured_us: "predicted", latency_predicted_us: "measured" })[app.state.x];
  const ticked = (front) => (app.state.bars && other() ? front.filter((p) => p[`latency_${other()}_us`] !== null) : []);

  function ticks(front) {
    const points = ticked(front), x = points.map((p) => p[`latency_${other()}_us`]);
    const reach = (p, end) => (other() === "predicted" && p[end] !== null ? Math.abs(p[end] - p.latency_predicted_us) : 0);
    return {
      type: "scatter", mode: "markers", name: "other latency", hoverinfo: "skip", x, y: points.map((p) => at(p)[1]),
      marker: { symbol: "line-ns-open", size: 9, color: app.colour("ink-faint"), line: { width: 2 } },
      error_x: { type: "data", symmetric: false, width: 0, thickness: 1, color: app.colour("ink-faint"),
        array: points.map((p) => reach(p, "latency_high_us")), arrayminus: points.map((p) => reach(p, "latency_low_us")) },
    };
  }

  /** A ring around the selected point, a square around the one it is compared with. */
  function ring(key, symbol) {
    const point = app.byId.get(app.state[key]);
    const [x, y] = point && drawable(point) ? at(point) : [null, null];
    return { type: "scatter", mode: "markers", name: key, x: [x], y: [y], hoverinfo: "skip",
      marker: { symbol, size: 22, color: app.colour("ink"), line: { width: 2 } } };
  }
  const selection = () => ring("design", "circle-open");

  function traces() {
    const points = visible(), machines = [...new Set(app.points.map((p) => p.machine))];
    const lines = machines.map((machine) => line(machine)), front = lines.flat();
    const designs = points.filter((p) => p.role === "design");
    const references = points.filter((p) => p.role !== "design");
    const names = Object.keys(app.marks);
    return [
      ...names.map((name) => palette(name, true, designs)),
      ticks([...front, ...references]),
      bars(points, front),
      ...lines.map((of, i) => ({ type: "scatter", mode: "lines", name: i ? plain(`front of ${machines[i]}`) : "front", x: of.map((p) => at(p)[0]),
        y: of.map((p) => at(p)[1]), line: { shape: "hv", color: app.colour("ink-soft"), width: 1.5, dash: DASHES[Math.min(i, 3)] }, hoverinfo: "skip" })),
      ...names.map((name) => palette(name, false, designs)),
      marks(references, { color: app.colour("ink"), size: 13, symbol: references.map((p) => app.symbol(p)),
        opacity: references.map((p) => (app.passes(p) ? 1 : 0.3)) },
      { name: "references", mode: "markers+text", text: references.map((p) => plain(p.role.toUpperCase() + app.where(p))), cliponaxis: false,
        textposition: references.map((p) => (p.role === "fp32" ? "top center" : "bottom center")) }),
      ring("other", "square-open"),
      selection(),
    ];
  }

  function shapes() {
    const fp32 = app.points.find((p) => p.role === "fp32");
    if (!fp32 || !app.state.y.startsWith("metric")) return [];
    const y = app.value(fp32, app.state.y);
    return [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, layer: "below",
      line: { color: app.colour("ink-faint"), width: 1, dash: "dot" } }];
  }

  /** A box drawn around points: the ranges that they span on both axes. */
  function select(ids) {
    const points = ids.map((id) => app.byId.get(id)).filter(Boolean);
    if (!points.length) return figure.redraw();
    app.brush(Object.fromEntries([app.state.x, app.state.y].map((field) => {
      const values = points.map((p) => app.value(p, field));
      return [field, [Math.min(...values), Math.max(...values)]];
    })));
  }

  function draw() {
    const { x, y } = app.state, log = logX();
    const reach = visible().flatMap((p) => (app.state.bars ? [at(p)[0] - spread(p, x)[0], at(p)[0] + spread(p, x)[1]] : [at(p)[0]]));
    reach.push(...ticked([...line(), ...visible().filter((p) => p.role !== "design")]).map((p) => p[`latency_${other()}_us`]));
    const across = log ? app.logAxis(app.label(x), reach) : app.axis(app.label(x), x.startsWith("metric") ? {} : { rangemode: "tozero" });
    return { traces: traces(), select, layout: {
      xaxis: across, yaxis: app.axis(app.label(y), { nticks: 8 }), shapes: shapes(),
      annotations: visible().length ? [] : [{ text: "Nothing to show here", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5 }],
      margin: { l: 56, r: 16, t: 32, b: 52 }, uirevision: `${x} ${y} ${log}`, selections: [], selectionrevision: app.state.brush, dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    } };
  }
  const figure = app.plot(div, draw);

  // -- around the figure -----------------------------------------------------------------------------------
  function legend() {
    const hidden = app.state.hidden.split(",").filter(Boolean);
    const chip = (name, ...content) => el("button", {
      type: "button", class: "chip", "data-hide": name, "aria-pressed": String(!hidden.includes(name)), on: { click: () => {
        app.set({ hidden: (hidden.includes(name) ? hidden.filter((h) => h !== name) : [...hidden, name]).join(",") });
        find("legend").querySelector(`[data-hide="${CSS.escape(name)}"]`).focus(); // the chips were made anew
      } },
    }, content);
    const shown = ["filled marks, solid line", "open marks, dashed line", "dotted marks and line", "open dotted marks"];
    const machines = app.machines.length < 2 ? [] : app.machines.map((name, i) => chip(`@${name}`, `${name}: ${shown[Math.min(i, 3)]}`));
    const chips = [...machines, ...Object.entries(app.marks).map(([name, mark]) => chip(name, app.markSvg(mark), name))];
    const tick = ticked(line()).length ? [el("span", { class: "key" }, `| ${other()} latency of the same design`)] : [];
    find("legend").replaceChildren(...chips, ...tick);
  }

  function axes() {
    for (const axis of ["x", "y"]) {
      const choices = [...new Set([app.defaults[axis], ...app.fields])];
      find(`axis-${axis}`).replaceChildren(...choices.map((f) => el("option", { value: f }, app.label(f))));
      find(`axis-${axis}`).addEventListener("change", (event) => app.set({ [axis]: event.target.value }));
    }
    for (const [id, key] of [["show-dominated", "dominated"], ["show-bars", "bars"], ["log-x", "log"]]) {
      find(id).addEventListener("change", (event) => app.set({ [key]: event.target.checked }));
    }
    app.on(["x", "y", "dominated", "bars", "log"], (state) => {
      for (const axis of ["x", "y"]) find(`axis-${axis}`).value = state[axis];
      find("show-dominated").checked = state.dominated;
      find("show-bars").checked = state.bars;
      find("log-x").checked = state.log;
    });
  }

  function knee() {
    const { knee_id: id, knee_reason: reason } = app.report.summary;
    if (!app.byId.has(id)) return;
    find("knee").replaceChildren("Knee of the front, where the trade turns: ",
      el("button", { type: "button", class: "link", on: { click: () => app.set({ design: id }) } }, app.byId.get(id).name), ` ${reason}.`);
  }

  const ways = (field) => ({ size_bytes: "Smaller", energy_uj: "Less energy", bits_per_weight: "Fewer bits" })[field]
    || (field.startsWith("metric") ? "Better" : "Faster");

  function card() {
    const point = app.byId.get(app.state.design);
    if (!point) return find("card").replaceChildren(el("p", { class: "help" }, "No design yet."));
    const { finding_id: best, knee_id: bend } = app.report.summary;
    const kind = { fp32: "Reference in 32-bit floating point", int8: "Reference in 8-bit integers", design: point.dominated
      ? "Dominated: another design is faster and no worse" : point.order_uncertain
        ? "Near the front: another design looks better, but the intervals leave the order open" : "On the front" }[point.role];
    const tags = [point.id === best && "the finding above", point.id === bend && "the knee"].filter(Boolean);
    const ratio = app.ratio(point), interval = app.interval(point);
    const row = (label, text, note) => [el("dt", {}, label), el("dd", {}, text, note ? el("small", {}, ` ${note}`) : null)];
    const index = line().findIndex((p) => p.id === point.id), front = line();
    const step = (label, to) => el("button", { type: "button", class: "quiet", disabled: !to, on: { click: () => {
      app.set({ design: to.id });
      find("card").querySelector(`[data-step="${label}"]:enabled, #permalink`).focus(); // the card was made anew
    } }, "data-step": label }, label);
    find("card").replaceChildren(
      el("p", { class: "eyebrow" }, "Selected design"),
      el("h3", { id: "card-name" }, app.markSvg(app.mark(point)), point.name),
      el("p", { class: "help" }, [kind, ...tags].join(" · ")),
      el("dl", {},
        row(`Test ${app.task.metric}`, app.text("metric_test", point), point.metric_se === null ? "one seed"
          : `± ${figures(point.metric_se * app.factor, 2)} over ${point.n_seeds} seeds`),
        row("Validation", app.text("metric_val", point)),
        row("Measured", app.text("latency_measured_us", point)),
        row("Predicted", app.text("latency_predicted_us", point), interval),
        ratio ? row("Predicted / measured", figures(ratio)) : [],
        point.machine ? row("Machine", point.machine) : [],
        row("Batch, threads", `${point.batch}, ${point.threads}`),
        row("Size", app.text("size_bytes", point)),
        point.energy_uj === null ? [] : row("Predicted energy", app.text("energy_uj", point)),
        row("Bits per weight", app.number("bits_per_weight", point.bits_per_weight)),
        point.budget ? row("Budget", app.budget(point), `takes ${app.budgetUsed(point)}`) : []),
      el("div", { class: "step" },
        step(`← ${ways(app.state.x)}`, index > 0 ? front[index - 1] : null),
        step(`${ways(app.state.y)} →`, index >= 0 ? front[index + 1] : front[0]),
        el("button", { type: "button", class: "quiet", id: "keep", on: { click: () => app.set({ other: point.id }) } }, "Keep to compare"),
        el("a", { href: app.hash(), id: "permalink" }, "Link")));
  }

  function walk(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key], front = line();
    if (!by || !front.length) return;
    event.preventDefault();
    const index = front.findIndex((p) => p.id === app.state.design);
    const to = index < 0 ? 0 : Math.min(front.length - 1, Math.max(0, index + by));
    app.set({ design: front[to].id });
  }

  axes();
  knee();
  app.on([...STALE, "other"], () => { figure.redraw(); legend(); });
  app.on(["design", "other", ...STALE], card);
  app.on(["design"], () => figure.ring(selection()));
  div.addEventListener("keydown", walk);
});
