soniq.panel("compare", (app, root) => {
  const { el, figures, capital } = soniq;
  const find = (id) => root.querySelector(`#${id}`);
  const number = (text, more) => el("td", { class: "number", ...more }, text);
  const ratio = (a, b) => (a && b ? figures(a / b) : "–");
  const signed = (value, text) => (value > 0 ? `+${text}` : text);

  function table(id, heads, rows) {
    find(id).replaceChildren(
      el("thead", {}, el("tr", {}, heads.map((h, i) => el("th", { scope: "col", class: i ? "number" : null }, h)))),
      el("tbody", {}, rows));
  }

  function quantity(field, a, b) {
    const [x, y] = [app.value(a, field), app.value(b, field)], known = x !== null && y !== null;
    const better = known && x !== y ? (app.sense(field) * (x - y) > 0 ? "better" : "worse") : "";
    return el("tr", {}, el("th", { scope: "row" }, capital(app.label(field))),
      number(app.number(field, x)), number(app.number(field, y)),
      number(known ? signed(x - y, figures(x - y)) : "–"), number(field.startsWith("metric") ? "–" : ratio(x, y)), number(better));
  }

  function layers(a, b) {
    const bits = [a, b].map((p) => new Map(app.bitsPerLayer(p.id)));
    const times = [a, b].map((p) => new Map(((app.details.get(p.id) || {}).estimate?.per_layer || []).map((l) => [l.name, l])));
    const names = [...new Set([...times[0].keys(), ...times[1].keys(), ...bits[0].keys(), ...bits[1].keys()])];
    const shownBits = (found) => (found === undefined ? "–" : String(Number(found.toFixed(2))));
    return names.map((name) => {
      const [x, y] = times.map((t) => t.get(name));
      return el("tr", {}, el("th", { scope: "row" }, name),
        ...bits.map((found) => number(shownBits(found.get(name)))),
        ...[x, y].map((layer) => number(layer ? figures(layer.latency_us) : "–")), number(ratio(x?.latency_us, y?.latency_us)),
        ...[x, y].map((layer) => number(layer ? layer.bound : "–")));
    });
  }

  function choices() {
    const named = [["INT8", app.points.find((p) => p.role === "int8")], ["FP32", app.points.find((p) => p.role === "fp32")],
      ["the knee", app.byId.get(app.report.summary.knee_id)]].filter(([, point]) => point);
    const button = (id, label, click, disabled) => el("button", { type: "button", class: "quiet", id, disabled, on: { click } }, label);
    const { design, other } = app.state;
    find("compare-with").replaceChildren(
      ...named.map(([label, point]) => button(`compare-${point.role === "design" ? "knee" : point.role}`, `With ${label}`,
        () => app.set({ other: point.id }), point.id === other)),
      button("swap", "Swap", () => app.set({ design: other, other: design }), !other),
      button("compare-none", "Clear", () => app.set({ other: "" }), !other));
  }

  const title = (point) => point.name + app.where(point);

  function draw() {
    const a = app.byId.get(app.state.design), b = app.byId.get(app.state.other);
    const both = Boolean(a && b && a !== b);
    const held = document.activeElement && root.contains(document.activeElement) ? document.activeElement.id : "";
    choices();
    if (held && find(held)) find(held).focus();
    find("compare-tables").hidden = !both;
    find("compare-words").textContent = both ? `${title(a)} against ${title(b)}`
      : b ? `${title(b)} is kept: select another design.` : "Nothing to compare with yet.";
    if (!both) return;
    const [one, two] = [title(a), title(b)];
    table("compare-points", ["Quantity", one, two, "Difference", "Ratio", ""], app.fields.map((field) => quantity(field, a, b)));
    table("compare-layers", ["Layer", `Bits, ${one}`, `Bits, ${two}`, `Predicted (µs), ${one}`, `Predicted (µs), ${two}`,
      "Ratio", `Waits for, ${one}`, `Waits for, ${two}`], layers(a, b));
  }

  app.on(["design", "other"], draw);
});
