soniq.panel("search", (app, root) => {
  const { plain, figures } = soniq;
  const div = root.querySelector("#search-plot");
  if (!div) return;
  const steps = app.report.search.filter(({ id }) => app.byId.has(id));
  const unit = `hypervolume (${app.unit || app.task.metric} × µs)`;
  const shown = (step) => step.hypervolume * app.factor;

  function ring(key = "design") {
    const step = steps.find(({ id }) => id === app.state[key]);
    return { type: "scatter", mode: "markers", name: key, x: [step ? step.epochs : null], y: [step ? shown(step) : null], hoverinfo: "skip",
      marker: { symbol: "circle-open", size: 20, color: app.colour("ink"), line: { width: 2 } } };
  }

  function draw() {
    const marks = steps.map(({ id }) => app.mark(app.byId.get(id)));
    const hover = ({ id, epochs }, i) => {
      const gain = shown(steps[i]) - (i ? shown(steps[i - 1]) : 0);
      return `<b>${plain(app.byId.get(id).name)}</b><br>${gain > 0 ? `adds ${figures(gain)}` : "adds nothing"} after ${epochs} epochs`;
    };
    return { traces: [
      { type: "scatter", mode: "lines+markers", name: "front", x: steps.map((s) => s.epochs), y: steps.map(shown), line: { shape: "hv",
        color: app.colour("ink-soft"), width: 1.5 }, customdata: steps.map((s) => s.id), hovertext: steps.map(hover), hoverinfo: "text",
      marker: { size: 9, color: marks.map((m) => m.colour), symbol: marks.map((m) => m.symbol), line: { color: app.colour("paper"), width: 1 } } },
      ring(),
    ], layout: { xaxis: app.axis("spent (epochs)", { rangemode: "tozero" }), yaxis: app.axis(unit, { rangemode: "tozero" }) } };
  }

  const figure = app.plot(div, draw);
  app.on(["design"], () => figure.ring(ring()));
});
