soniq.panel("table", (app, root) => {
  const { el, figures, capital, download } = soniq;
  const find = (id) => root.querySelector(`#${id}`);
  const PAGE = 100; // rows drawn at first: a browser lays out thousands slowly
  const COLUMNS = [
    { key: "name", label: "Design", of: (p) => p.name },
    { key: "palette", label: "Palette", of: (p) => (p.role === "design" ? p.palette : "reference") },
    ...(app.machines.length > 1 ? [{ key: "machine", label: "Machine", of: (p) => p.machine }] : []),
    { key: "bits_per_weight", label: "Bits per weight" },
    { key: "metric_val", label: capital(app.label("metric_val")), down: true },
    { key: "metric_test", label: capital(app.label("metric_test")), down: true },
    { key: "latency_predicted_us", label: "Predicted (µs)" },
    { key: "latency_measured_us", label: "Measured (µs)" },
    { key: "ratio", label: "Ratio", of: (p) => app.ratio(p) },
    { key: "size_bytes", label: "Size (KiB)" },
    ...(app.fields.includes("energy_uj") ? [{ key: "energy_uj", label: "Energy (µJ)" }] : []),
    ...(app.points.some((p) => p.budget) ? [{ key: "budget_used", label: "Of its budget", of: (p) => (p.budget ? p.budget_used / p.budget : null) }] : []),
    { key: "dominated", label: "Front", of: (p) => (p.role === "design" ? (p.dominated ? "no" : p.order_uncertain ? "uncertain" : "yes") : "–") },
  ].map((column) => ({ of: (p) => app.value(p, column.key), ...column }));
  let limit = PAGE;

  function order() {
    const [key, way] = (app.state.sort || `${app.latencyField}.up`).split(".");
    return { column: COLUMNS.find((c) => c.key === key) || COLUMNS[0], down: way === "down" };
  }

  function rows() {
    const { column, down } = order();
    const compare = (a, b) => {
      const [x, y] = [column.of(a), column.of(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      const sign = typeof x === "string" ? x.localeCompare(y) : x - y;
      return (down ? -sign : sign) || (a.id < b.id ? -1 : 1);
    };
    return app.shown().sort(compare);
  }

  function cell(point, column) {
    const value = column.of(point);
    if (column.key === "name") {
      return el("th", { scope: "row" }, el("span", { class: "with-mark" }, app.markSvg(app.mark(point)),
        el("button", { type: "button", class: "link" }, point.name)));
    }
    if (typeof value === "string") return el("td", { class: column.key === "palette" ? "palette" : null }, value);
    if (column.key === "ratio") return el("td", { class: "number" }, value === null ? "–" : figures(value));
    if (column.key === "budget_used") {
      return el("td", { class: "number" }, value === null ? "–" : `${(100 * value).toFixed(1)} %`,
        value === null ? null : el("small", {}, `of ${app.budget(point)}`));
    }
    const error = column.key === "metric_test" && point.metric_se !== null ? ` ± ${figures(point.metric_se * app.factor, 2)}` : "";
    const interval = column.key === "latency_predicted_us" ? app.interval(point).replace(" µs", "") : "";
    return el("td", { class: "number" }, app.number(column.key, value), error,
      interval ? el("small", {}, interval) : null);
  }

  function row(point) {
    return el("tr", { "data-id": point.id, on: { click: () => app.set({ design: point.id }), keydown: move } },
      COLUMNS.map((column) => cell(point, column)));
  }

  /** Up and down arrows walk through the rows. */
  function move(event) {
    const next = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    const target = next && event.currentTarget[next];
    if (!target) return;
    event.preventDefault();
    target.querySelector("button").focus();
    app.set({ design: target.dataset.id });
  }

  function head() {
    const { column: sorted, down } = order();
    const cells = COLUMNS.map((column) => el("th", {
      scope: "col", "aria-sort": column === sorted ? (down ? "descending" : "ascending") : "none",
      class: column.key === "palette" ? "palette" : ["name", "dominated", "machine"].includes(column.key) ? null : "number",
    }, el("button", { type: "button", "data-sort": column.key, on: { click: () => {
      const turn = column === sorted ? !down : Boolean(column.down);
      app.set({ sort: `${column.key}.${turn ? "down" : "up"}` });
      root.querySelector(`[data-sort="${column.key}"]`).focus();
    } } }, column.label)));
    find("designs").tHead.replaceChildren(el("tr", {}, cells));
  }

  function draw() {
    const all = rows();
    head();
    find("designs").tBodies[0].replaceChildren(...all.slice(0, limit).map(row));
    find("row-count").textContent = `${all.length} of ${app.points.length} shown`;
    find("more-rows").hidden = all.length <= limit;
    find("more-rows").textContent = `Show all ${all.length} rows`;
    mark();
  }

  function mark() {
    for (const tr of find("designs").tBodies[0].rows) {
      if (tr.dataset.id === app.state.design) tr.setAttribute("aria-current", "true");
      else tr.removeAttribute("aria-current");
    }
    const detail = app.details.get(app.state.design);
    find("reproduce").replaceChildren(...(detail ? [
      el("p", { class: "help" }, `To make ${app.byId.get(app.state.design).name} again:`),
      el("pre", { tabindex: "0" }, el("code", {}, detail.command)),
    ] : []));
  }

  // -- taking rows away ------------------------------------------------------------------------------------
  const records = () => rows().map((p) => ({ ...p, command: (app.details.get(p.id) || { command: "" }).command }));

  function csv() {
    const quoted = (value) => {
      const text = value === null ? "" : String(value);
      return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
    };
    const found = records();
    const columns = [...Object.keys(app.points[0] || {}), "command"];
    return `${[columns, ...found.map((p) => columns.map((c) => p[c]))].map((r) => r.map(quoted).join(",")).join("\n")}\n`;
  }

  // -- controls --------------------------------------------------------------------------------------------
  let timer = 0; // a figure of thousands of points cannot follow every key
  find("filter-text").addEventListener("input", (event) => {
    clearTimeout(timer);
    timer = setTimeout(() => app.set({ text: event.target.value }), 120);
  });
  find("more-rows").addEventListener("click", () => { limit = Infinity; draw(); });
  find("download-csv").addEventListener("click", () => download("designs.csv", "text/csv", csv()));
  find("download-json").addEventListener("click", () =>
    download("designs.json", "application/json", `${JSON.stringify(records(), null, 1)}\n`));

  app.on(["text"], (state) => {
    if (document.activeElement !== find("filter-text")) find("filter-text").value = state.text;
  });
  app.on([...app.filters, "x", "y", "sort"], draw);
  app.on(["design"], mark);
});
