soniq.panel("agreement", (app, root) => {
  const { plain, figures } = soniq;
  const div = root.querySelector("#agreement-plot");
  if (!div) return;
  const measured = app.points.filter((p) => app.ratio(p));
  const all = measured.flatMap((p) => [p.latency_measured_us, p.latency_predicted_us]);
  const ends = all.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [Infinity, 0]);
  const range = [ends[0] / 1.5, ends[1] * 1.5];

  function hover(p) {
    const agreement = (app.details.get(p.id) || {}).agreement;
    const lines = [`predicted ${app.text("latency_predicted_us", p)} (${app.interval(p) || "no interval"})`,
      `measured ${app.text("latency_measured_us", p)}`, `predicted/measured ${figures(app.ratio(p))}`,
      agreement && agreement.reason].filter(Boolean);
    return `<b>${plain(p.name + app.where(p))}</b><br>${lines.map(plain).join("<br>")}`;
  }

  const trace = (points, name, marker) => ({
    type: "scatter", mode: "markers", name: plain(name), x: points.map((p) => p.latency_measured_us),
    y: points.map((p) => p.latency_predicted_us), customdata: points.map((p) => p.id), hovertext: points.map(hover), hoverinfo: "text",
    marker: { size: 11, line: { color: app.colour("paper"), width: 1 }, ...marker },
    error_y: { type: "data", symmetric: false, thickness: 1, width: 0, color: app.colour("ink-faint"),
      array: points.map((p) => (p.latency_high_us ?? p.latency_predicted_us) - p.latency_predicted_us),
      arrayminus: points.map((p) => p.latency_predicted_us - (p.latency_low_us ?? p.latency_predicted_us)) },
  });

  const selected = () => app.byId.get(app.state.design);
  const ring = () => {
    const [x, y] = selected() && app.ratio(selected()) ? [selected().latency_measured_us, selected().latency_predicted_us] : [null, null];
    return { type: "scatter", mode: "markers", name: "selected", x: [x], y: [y], hoverinfo: "skip",
      marker: { symbol: "circle-open", size: 22, color: app.colour("ink"), line: { width: 2 } } };
  };

  function draw() {
    const axis = (title) => app.logAxis(title, ends, { range: range.map(Math.log10) });
    const designs = measured.filter((p) => p.role === "design"), references = measured.filter((p) => p.role !== "design");
    return { traces: [
      { type: "scatter", mode: "lines", name: "equal", x: range, y: range, hoverinfo: "skip", line: { color: app.colour("ink-soft"), width: 1.2 } },
      ...Object.entries(app.marks).map(([name, mark]) => trace(designs.filter((p) => p.palette === name), name,
        { color: mark.colour, symbol: designs.filter((p) => p.palette === name).map((p) => app.symbol(p)) })),
      trace(references, "references", { color: app.colour("ink"), symbol: references.map((p) => app.symbol(p)) }),
      ring(),
    ], layout: { xaxis: axis("measured latency (µs)"), yaxis: axis("predicted latency (µs)"), dragmode: false } };
  }

  root.querySelectorAll("[data-design]").forEach((button) => button.addEventListener("click", () => app.set({ design: button.dataset.design })));

  const figure = app.plot(div, draw);
  app.on(["design"], () => figure.ring(ring()));

  // -- layers, by what bounds them -----------------------------------------------------------------------------
  const MOST = 4000; // dots drawn: the boxes hold every layer
  const ratios = new Map(); // what a layer waits for -> [ratio, design, layer]
  for (const { id, estimate, measurement } of app.details.values()) {
    for (const layer of estimate && measurement ? estimate.per_layer : []) {
      const of = measurement.per_layer_us[layer.name];
      if (!of || !layer.latency_us) continue;
      if (!ratios.has(layer.bound)) ratios.set(layer.bound, []);
      ratios.get(layer.bound).push([layer.latency_us / of, id, layer.name]);
    }
  }
  const n = [...ratios.values()].reduce((sum, found) => sum + found.length, 0);
  root.querySelector("#regime-part").hidden = !n;
  if (!n) return;

  function regime([bound, found]) {
    const few = n <= MOST;
    return { type: "box", name: `${bound} (${found.length})`, y: found.map(([ratio]) => ratio), boxpoints: few ? "all" : "outliers",
      jitter: 0.5, pointpos: few ? -1.6 : 0, customdata: found.map(([, id]) => id), marker: { size: 5, color: app.colour("accent"), opacity: 0.6 },
      line: { color: app.colour("ink-soft"), width: 1.5 }, fillcolor: "rgba(0,0,0,0)", hoveron: "points", hoverinfo: "text",
      hovertext: found.map(([ratio, id, name]) => plain(`${app.byId.get(id)?.name}, ${name}: ${figures(ratio)}`)) };
  }

  app.plot(root.querySelector("#regime-plot"), () => ({ traces: [...ratios].sort((a, b) => b[1].length - a[1].length).map(regime), layout: {
    yaxis: app.logAxis("predicted / measured", [...ratios.values()].flat().map(([ratio]) => ratio)), xaxis: app.axis("waits for (number of layers)"),
    shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1, layer: "below", line: { color: app.colour("ink-faint"), width: 1 } }],
    dragmode: false,
  } }));
});
