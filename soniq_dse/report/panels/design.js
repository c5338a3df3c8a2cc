soniq.panel("design", (app, root) => {
  const { el, svg, plain, figures } = soniq;
  const find = (id) => root.querySelector(`#${id}`);
  const TERMS = ["compute", "memory", "packing", "epilogue", "overhead"];
  const detail = () => app.details.get(app.state.design);

  // -- bit map ---------------------------------------------------------------------------------------------
  const shade = (bits) => app.colour(`bits-${bits <= 4 ? bits : 8}`);

  /** Neighbouring channels of one level: [level, first channel, count]. */
  function runs(levels) {
    const found = [];
    levels.forEach((level, channel) => {
      const last = found[found.length - 1];
      if (last && last[0] === level) last[2] += 1;
      else found.push([level, channel, 1]);
    });
    return found;
  }

  function mapRow(assignment, layer, name) {
    const levels = assignment.level_of_channel[name];
    const palette = (assignment.pinned[name] || assignment.palette).levels;
    const pinned = name in assignment.pinned;
    const title = (level) => `w${palette[level].weight_bits}` + (palette[level].activation_bits === 32 ? "" : `a${palette[level].activation_bits}`);
    const counts = palette.map((_, level) => [title(level), levels.filter((l) => l === level).length]).filter(([, n]) => n);
    const words = counts.map(([label, n]) => `${n} × ${label}`).join(", ");
    const strip = svg("svg", { viewBox: `0 0 ${levels.length} 1`, preserveAspectRatio: "none", role: "img",
      "aria-label": `${layer}: ${words}`, class: "strip" },
    runs(levels).map(([level, first, n]) => svg("rect", { x: first, y: 0, width: n, height: 1, fill: shade(palette[level].weight_bits) },
      svg("title", {}, `${layer}, channel ${first}${n > 1 ? `–${first + n - 1}` : ""}: ${title(level)}`))));
    return el("div", { class: "map-row" }, el("span", { class: "map-name" }, layer), strip,
      el("span", { class: "map-words" }, `${words}${pinned ? " (pinned)" : ""}`));
  }

  function bitMap() {
    const assignment = (detail() || { assignments: [] }).assignments[Math.min(app.state.seed, (detail()?.assignments.length || 1) - 1)];
    if (!assignment) {
      const words = detail() ? "No bits per channel: all layers of this point are alike." : "No design yet.";
      return find("bit-map").replaceChildren(el("p", { class: "empty-note" }, words));
    }
    const levels = [assignment.palette, ...Object.values(assignment.pinned)].flatMap((p) => p.levels.map((l) => l.weight_bits));
    const key = [...new Set(levels)].sort((a, b) => a - b).map((bits) => el("span", { class: "key" },
      el("i", { class: "swatch", style: `background:${shade(bits)}` }), `${bits} bit${bits > 1 ? "s" : ""}`));
    const rows = app.layersOf(assignment).map(([layer, name]) => mapRow(assignment, layer, name));
    find("bit-map").replaceChildren(el("div", { class: "legend" }, key), ...rows);
  }

  // -- latency ---------------------------------------------------------------------------------------------
  const termColour = (name) => app.colour(`term-${name}`);

  function bar(layer, longest) {
    const sum = layer.terms.reduce((total, t) => total + t.cycles, 0) || 1;
    const parts = layer.terms.filter((t) => t.cycles > 0).map((t) => el("i", {
      title: `${t.name}: ${figures(t.cycles)} cycles`,
      style: `width:${(100 * t.cycles / sum).toFixed(2)}%;background:${termColour(t.name)}`,
    }));
    const whole = layer.terms.length ? parts : [el("i", { style: `width:100%;background:${termColour("compute")}` })];
    return el("div", { class: "bar", style: `width:${(100 * layer.latency_us / longest).toFixed(2)}%` }, whole);
  }

  function layerRow(layer, measured, longest) {
    const of = measured[layer.name];
    const number = (text) => el("td", { class: "number" }, text);
    return el("tr", {}, el("th", { scope: "row" }, layer.name, el("small", {}, ` ${layer.op}`)),
      el("td", { class: "bar-cell" }, bar(layer, longest)),
      number(figures(layer.latency_us)), number(of === undefined ? "–" : figures(of)),
      number(of ? figures(layer.latency_us / of) : "–"),
      el("td", {}, el("span", { title: app.bounds[layer.bound] }, layer.bound)),
      number(`${figures(100 * layer.padding_waste, 2)} %`), number(layer.macs ? layer.macs.toLocaleString("en") : "–"),
      el("td", { class: "kernels" }, [...layer.kernels, layer.note].filter(Boolean).join("; ")));
  }

  function latency() {
    const estimate = detail()?.estimate;
    const measurement = detail()?.measurement;
    const note = [];
    if (measurement?.skipped) note.push(`Not measured: ${measurement.skipped}.`);
    if (detail()?.agreement?.reason) note.push(`Predicted against measured: ${detail().agreement.reason}.`);
    if (estimate) note.unshift(`The whole network waits most for ${app.bounds[estimate.bound]} (${estimate.bound}). Interval: ${estimate.interval}.`);
    find("layer-note").textContent = note.join(" ").replace(/\.\./g, ".");
    if (!estimate) {
      find("bound-legend").replaceChildren();
      const none = el("td", { class: "empty-note" }, "No latency was predicted for this point.");
      return find("layers").replaceChildren(el("tbody", {}, el("tr", {}, none)));
    }
    const used = TERMS.filter((name) => estimate.per_layer.some((l) => l.terms.some((t) => t.name === name && t.cycles > 0)));
    find("bound-legend").replaceChildren(...used.map((name) => el("span", { class: "key" },
      el("i", { class: "swatch", style: `background:${termColour(name)}` }), name)));
    const longest = Math.max(...estimate.per_layer.map((l) => l.latency_us), 1e-9);
    const heads = ["Layer", "Time", "Predicted (µs)", "Measured (µs)", "Ratio", "Waits for", "Padding", "Multiply-accumulates", "Kernel"];
    const numeric = [2, 3, 4, 6, 7];
    find("layers").replaceChildren(
      el("thead", {}, el("tr", {}, heads.map((h, i) => el("th", { scope: "col", class: numeric.includes(i) ? "number" : null }, h)))),
      el("tbody", {}, estimate.per_layer.map((l) => layerRow(l, measurement?.per_layer_us || {}, longest))));
  }

  // -- the whole design --------------------------------------------------------------------------------------
  function facts(point) {
    const layers = detail()?.estimate?.per_layer || [];
    const macs = layers.reduce((sum, l) => sum + l.macs, 0), wasted = layers.reduce((sum, l) => sum + l.macs * l.padding_waste, 0);
    const sizes = ["fp32", "int8"].map((role) => [role, app.points.find((p) => p.role === role)])
      .filter(([, p]) => p && p.id !== point.id).map(([role, p]) => `${figures(p.size_bytes / point.size_bytes)} times smaller than ${role.toUpperCase()}`);
    const rows = [
      ["Size on disk", [app.text("size_bytes", point), ...sizes].join(", ")],
      ["Padding", macs ? `${figures(100 * wasted / macs, 2)} % of ${macs.toLocaleString("en")} multiply-accumulates` : "not known"],
    ];
    find("design-facts").replaceChildren(...rows.flatMap(([name, text]) => [el("dt", {}, name), el("dd", {}, text)]));
  }

  /** The predicted interval as a band, the prediction and the measurement as marks on one scale. */
  function interval(point) {
    const { latency_low_us: low, latency_high_us: high, latency_predicted_us: predicted, latency_measured_us: measured } = point;
    if (predicted === null || low === null || high === null) return find("interval").replaceChildren();
    const [from, to] = [Math.min(low, measured ?? low), Math.max(high, measured ?? high)], room = 0.12 * (to - from) || 1;
    const x = (value) => (100 * (value - from + room)) / (to - from + 2 * room);
    const tick = (value, colour, more) => svg("line", { x1: x(value), x2: x(value), y1: 2, y2: 18, stroke: colour, "stroke-width": 3,
      "vector-effect": "non-scaling-stroke", ...more });
    const words = [`predicted ${app.text("latency_predicted_us", point)}, interval ${app.interval(point)}`,
      measured === null ? "not measured" : `measured ${app.text("latency_measured_us", point)}, ${low <= measured && measured <= high ? "inside it" : "outside it"}`];
    find("interval").replaceChildren(
      el("p", { class: "help", id: "interval-words" }, "Latency: ", el("span", { class: "key" }, el("i", { class: "swatch", style: `background:${app.colour("accent")}` }), words[0]),
        el("span", { class: "key" }, el("i", { class: "swatch", style: `background:${app.colour("second")}` }), words[1])),
      svg("svg", { viewBox: "0 0 100 20", preserveAspectRatio: "none", class: "strip", role: "img", "aria-label": words.join("; ") },
        svg("rect", { x: x(low), y: 6, width: x(high) - x(low), height: 8, fill: app.colour("line-strong") }),
        tick(predicted, app.colour("accent")),
        measured === null ? null : tick(measured, app.colour("second"), { "stroke-dasharray": "3 2" })));
  }

  // -- confusion -------------------------------------------------------------------------------------------
  function confusion() {
    const cells = detail()?.confusion;
    find("confusion-part").hidden = !cells;
    if (!cells) return;
    const wrong = cells.flatMap((row, i) => row.map((n, j) => [n, i, j])).filter(([n, i, j]) => n && i !== j).sort((a, b) => b[0] - a[0]);
    const total = cells.flat().reduce((a, b) => a + b, 0), missed = wrong.reduce((sum, [n]) => sum + n, 0);
    const worst = wrong.slice(0, 3).map(([n, i, j]) => `${i} as ${j} (${n} ${n === 1 ? "time" : "times"})`).join(", ");
    find("confusion-words").textContent = `${missed} of ${total} examples are mistaken${worst && `, most of all ${worst}`}.`;
    const most = Math.max(1, ...wrong.map(([n]) => n));
    const cell = (n, i, j) => el("td", { class: i === j ? "number right" : "number",
      style: n && i !== j ? `background:color-mix(in srgb, var(--second) ${Math.round(10 + 35 * n / most)}%, var(--paper))` : null }, n || "·");
    find("confusion").replaceChildren(
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "true \\ said"), cells.map((_, j) => el("th", { scope: "col", class: "number" }, j)))),
      el("tbody", {}, cells.map((row, i) => el("tr", {}, el("th", { scope: "row" }, i), row.map((n, j) => cell(n, i, j))))));
  }

  // -- text ------------------------------------------------------------------------------------------------
  function samples() {
    const found = detail()?.samples || [];
    find("samples-part").hidden = !found.length;
    find("samples").replaceChildren(...found.map(({ source, reference, output }) => el("dl", { class: "sample" },
      [["Given", source], ["Reference", reference], ["Network", output]].flatMap(([name, text]) =>
        [el("dt", {}, name), el("dd", { class: name === "Network" ? "said" : null }, text)]))));
  }

  // -- training --------------------------------------------------------------------------------------------
  const PHASES = ["baseline", "noise", "finetune"];

  /** Epochs of several seeds follow one another: a new one starts where phase or epoch goes back. */
  function courses(epochs) {
    const found = [];
    const rank = (e) => PHASES.indexOf(e.phase) * 1e6 + e.epoch;
    epochs.forEach((epoch, i) => {
      if (!i || rank(epoch) <= rank(epochs[i - 1])) found.push([]);
      found[found.length - 1].push(epoch);
    });
    return found;
  }

  function training() {
    const all = courses(detail()?.epochs || []);
    const line = (course, i) => ({
      type: "scatter", mode: "lines+markers", name: `loss, seed ${i + 1}`, x: course.map((_, k) => k + 1), y: course.map((e) => e.loss),
      line: { color: app.colour("accent"), width: 2 }, marker: { size: 4 }, opacity: i ? 0.5 : 1,
      hovertext: course.map((e) => plain(`${e.phase}, epoch ${e.epoch}: loss ${figures(e.loss)}`)), hoverinfo: "text",
    });
    const dots = (course, i) => {
      const scored = course.map((e, k) => [e, k + 1]).filter(([e]) => e.metric_val !== null);
      return { type: "scatter", mode: "markers", yaxis: "y2", name: `score, seed ${i + 1}`, x: scored.map(([, k]) => k),
        y: scored.map(([e]) => e.metric_val * app.factor), marker: { color: app.colour("second"), size: 7 }, opacity: i ? 0.5 : 1,
        hovertext: scored.map(([e]) => plain(`${e.phase}, epoch ${e.epoch}: ${app.label("metric_val")} ${figures(e.metric_val * app.factor, 4)}`)),
        hoverinfo: "text" };
    };
    const first = all[0] || [];
    const starts = first.map((e, k) => [e.phase, k]).filter(([phase, k]) => !k || first[k - 1].phase !== phase);
    const names = { baseline: "baseline", noise: "noise phase", finetune: "fine-tuning" };
    return { traces: all.flatMap((course, i) => [line(course, i), dots(course, i)]), layout: {
      xaxis: app.axis("epoch", { dtick: first.length > 12 ? undefined : 1, range: [0.5, first.length + 0.5] }),
      yaxis: app.axis("training loss", { rangemode: "tozero" }),
      yaxis2: app.axis(app.label("metric_val"), { overlaying: "y", side: "right", showgrid: false, tickmode: "auto", nticks: 5 }),
      margin: { l: 56, r: 60, t: 28, b: 52 },
      shapes: starts.slice(1).map(([, k]) => ({ type: "line", x0: k + 0.5, x1: k + 0.5, yref: "paper", y0: 0, y1: 1,
        line: { color: app.colour("line-strong"), width: 1, dash: "dot" } })),
      annotations: starts.map(([phase, k]) => ({ x: k + 0.6, y: 1.02, yref: "paper", xanchor: "left", yanchor: "bottom", showarrow: false,
        text: names[phase], font: { color: app.colour("ink-soft"), size: 12 } })),
    } };
  }
  const figure = app.plot(find("training-plot"), training);

  function seeds() {
    const n = detail()?.assignments.length || 0;
    find("seed-choice").hidden = n < 2;
    find("seed").replaceChildren(...Array.from({ length: n }, (_, i) => el("option", { value: i }, `${i + 1} of ${n}`)));
    find("seed").value = app.state.seed;
  }

  function whole() {
    const point = app.byId.get(app.state.design);
    find("design-facts").hidden = !point;
    if (!point) return;
    facts(point);
    interval(point);
  }

  find("seed").addEventListener("change", (event) => app.set({ seed: Number(event.target.value) }));
  app.on(["design"], () => {
    find("design-name").textContent = app.byId.get(app.state.design)?.name || "No design yet";
    whole();
    latency();
    confusion();
    samples();
    find("training-part").hidden = !(detail()?.epochs || []).length;
    figure.redraw();
  });
  app.on(["design", "seed"], () => { seeds(); bitMap(); });
  app.repaint(() => { whole(); bitMap(); latency(); });
});
