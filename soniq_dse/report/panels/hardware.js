soniq.panel("hardware", (app, root) => {
  const { el, figures } = soniq;
  const part = root.querySelector("#what-if-part");
  if (!part) return;
  const questions = app.report.what_if;
  part.hidden = !questions.length;
  if (!questions.length) return;

  const change = (ratio) => {
    const percent = 100 * (ratio - 1);
    return Math.abs(percent) < 0.05 ? "no change" : `${percent > 0 ? "+" : "−"}${Math.abs(percent).toFixed(1)} %`;
  };
  const number = (text, ...more) => el("td", { class: "number" }, text, ...more);

  /** The change for one point, and what its predicted latency would be. */
  function cell(question, point) {
    const ratio = point && question.latency_ratio[point.id];
    if (ratio === undefined || ratio === null) return number("–");
    const us = point.latency_predicted_us;
    return number(change(ratio), us === null ? null : el("small", {}, ` ${figures(us)} → ${figures(us * ratio)} µs`));
  }

  /** The designs that gain most and least. */
  function span(question) {
    const found = app.points.filter((p) => p.role === "design" && question.latency_ratio[p.id] !== undefined);
    if (!found.length) return number("–");
    const sorted = found.sort((a, b) => question.latency_ratio[a.id] - question.latency_ratio[b.id]);
    const [most, least] = [sorted[0], sorted[sorted.length - 1]];
    const ends = [most, least].map((p) => change(question.latency_ratio[p.id]));
    if (ends[0] === ends[1]) return number(ends[0]);
    return number(`${ends[0]} to ${ends[1]}`, " ",
      el("button", { type: "button", class: "link", on: { click: () => app.set({ design: most.id }) } }, most.name));
  }

  app.on(["design", "other"], ({ design, other }) => {
    const shown = [design, other].map((id) => app.byId.get(id)).filter(Boolean);
    const heads = ["What if", ...shown.map((point) => point.name + app.where(point)), "All designs; gains most"];
    root.querySelector("#what-if").replaceChildren(
      el("thead", {}, el("tr", {}, heads.map((h, i) => el("th", { scope: "col", class: i ? "number" : null }, h)))),
      el("tbody", {}, questions.map((question) => el("tr", {},
        el("th", { scope: "row" }, question.label, question.label === question.settings[0] ? null : el("small", {}, ` ${question.settings.join(", ")}`)),
        shown.map((point) => cell(question, point)), span(question)))));
  });
});
