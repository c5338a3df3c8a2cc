soniq.panel("limits", (app, root) => {
  const { el, figures, capital } = soniq;
  const find = (id) => root.querySelector(`#${id}`);
  const STEPS = 200;

  /** The ends of a slider, in shown units, and whether it is logarithmic. */
  function scale(field) {
    const values = app.points.map((p) => app.value(p, field)).filter((v) => v !== null);
    if (!values.length) return null;
    const [low, high] = values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
    const log = low > 0 && high > 3 * low;
    const [there, back] = log ? [Math.log, Math.exp] : [(v) => v, (v) => v];
    const digits = (v) => Number(v.toPrecision(log ? 3 : 4));
    return {
      value: (step) => digits(back(there(low) + (there(high) - there(low)) * step / STEPS)),
      step: (value) => (high > low && value > (log ? 0 : -Infinity)
        ? Math.min(STEPS, Math.max(0, Math.round(STEPS * (there(value) - there(low)) / (there(high) - there(low))))) : 0),
    };
  }

  /** One limit: a slider whose open end means none, and the same as a number. */
  function control({ key, field, most }) {
    const id = key.replace("_", "-"), open = most ? STEPS : 0;
    let timer = 0;
    const later = (value) => { // a figure of thousands of points cannot follow every step
      clearTimeout(timer);
      timer = setTimeout(() => app.set({ [key]: value }), 60);
    };
    const number = el("input", { type: "number", id, step: "any", inputmode: "decimal", placeholder: "none", on: { input: () =>
      later(number.value === "" || !Number.isFinite(number.valueAsNumber) ? null : number.valueAsNumber) } });
    const slider = el("input", { type: "range", id: `${id}-slider`, min: 0, max: STEPS, step: 1, on: { input: () => {
      const step = slider.valueAsNumber, found = scale(field());
      number.value = step === open || !found ? "" : found.value(step);
      later(number.value === "" ? null : number.valueAsNumber);
    } } });
    const words = el("label", { for: id });
    app.on([key, "x", "y"], (state) => {
      const label = app.label(field()), limit = state[key], found = scale(field());
      const name = capital(label.replace(/( \([^)]*\))?$/, ` ${most ? "at most" : "at least"}$1`));
      words.textContent = name;
      slider.disabled = !found;
      slider.setAttribute("aria-label", `${name}, slider`);
      slider.setAttribute("aria-valuetext", limit === null ? "no limit" : figures(limit, 4));
      if (document.activeElement !== slider) slider.value = limit === null || !found ? open : found.step(limit);
      if (document.activeElement !== number) number.value = limit ?? "";
    });
    return el("div", { class: "limit" }, words, number, slider);
  }

  find("limits").replaceChildren(...app.limits.map(control));
  app.on(["brush"], () => find("brushes").replaceChildren(...app.brushes.map(({ field, low, high }) => {
    const [name, unit] = app.label(field).split(/ \(|\)/);
    const words = `${name} ${figures(low, 4)} to ${figures(high, 4)} ${unit || ""}`.trim();
    return el("button", { type: "button", class: "chip", "aria-label": `Lift: ${words}`, on: { click: () => app.brush({ [field]: null }) } }, `${words} ×`);
  })));
  find("clear-filter").addEventListener("click", () => app.set({
    text: "", dominated: true, hidden: "", brush: "", ...Object.fromEntries(app.limits.map(({ key }) => [key, null])),
  }));
  app.on([...app.filters, "x", "y"], () => {
    const shown = app.shown().filter((p) => p.role === "design");
    const best = shown.filter((p) => app.value(p, app.metricField) !== null).reduce((a, p) =>
      (a === null || app.sense(app.metricField) * (p[app.metricField] - a[app.metricField]) > 0 ? p : a), null);
    const n = app.points.filter((p) => p.role === "design").length;
    find("limits-words").replaceChildren(`${shown.length} of ${n} designs meet them. `, ...(best ? ["Best: ", el("button",
      { type: "button", class: "link", id: "best", on: { click: () => app.set({ design: best.id }) } }, best.name),
      `, ${app.text(app.metricField, best)} at ${app.text(app.latencyField, best)}.`] : []));
  });
});
