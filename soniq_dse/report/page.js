"use strict";
/* The page's core: it unpacks the data, holds the one state (selected design, filter, axes), keeps it in the URL's hash,
 * and tells the panels what changed. A panel is soniq.panel(name, (app, root) => { ... }); app offers:
 *   report, front, task, points, byId, details, marks      the data, as in report.json
 *   bounds                                                 what a bound means, in words
 *   state, set(patch), on(keys, callback)                  the state; callback(state) after any of keys changed
 *   passes(point), isHidden(point), shown()                the filter
 *   machines, symbol(point), where(point)                  the report's machine and those laid over it, and their marks
 *   fields, unit, value(point, field), label(field), text(field, point), sense(field)   figures with their units
 *   brushes, brush(ranges)                                 ranges drawn over axes, which filter as limits do
 *   filters, limits                                        the keys of state that decide what is shown; what it must keep to: {key, field(), most}
 *   plot(div, draw), repaint(callback)                     a Figure, or anything drawn, that follows the theme
 * soniq.el and soniq.svg make nodes; strings become text nodes, never HTML. */
const soniq = (() => {
  const panels = [];
  const NUMBERS = ["max_latency", "min_metric", "max_size"];
  const FIELDS = ["metric_val", "metric_test", "latency_measured_us", "latency_predicted_us", "size_bytes", "energy_uj", "bits_per_weight"];
  const BUDGET_UNITS = { bits: "bits per weight", us: "µs", uj: "µJ" };
  const DEFAULTS = {
    design: "", other: "", text: "", max_latency: null, min_metric: null, max_size: null, dominated: true, bars: true, log: true,
    x: "", y: "", sort: "", seed: 0, hidden: "", brush: "",
  };

  function node(namespace, tag, props, children) {
    const made = namespace ? document.createElementNS(namespace, tag) : document.createElement(tag);
    for (const [key, value] of Object.entries(props || {})) {
      if (key === "on") for (const [event, callback] of Object.entries(value)) made.addEventListener(event, callback);
      else if (value === true) made.setAttribute(key, "");
      else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
    }
    made.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return made;
  }
  const el = (tag, props, ...children) => node(null, tag, props, children);
  const svg = (tag, props, ...children) => node("http://www.w3.org/2000/svg", tag, props, children);

  /** Plotly reads a little HTML in its strings; a name of ours is never HTML. */
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  /** Three significant digits; whole numbers from 1,000 on. */
  const figures = (value, digits = 3) => {
    if (value === 0) return "0";
    return Math.abs(value) < 999.5 ? value.toPrecision(digits) : Math.round(value).toLocaleString("en");
  };

  /** The text behind the base64 of its gzip, as a script element holds it. */
  async function unpack(id) {
    const binary = atob(document.getElementById(id).textContent);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < bytes.length; i += 1) bytes[i] = binary.charCodeAt(i);
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }

  class App {
    constructor(data) {
      this.report = data.report;
      this.marks = data.marks;
      this.bounds = data.bounds;
      this.front = data.report.front;
      this.task = this.front.task;
      const of = (machine, points) => points.map((point) => ({ ...point, machine }));
      const others = data.report.others, elsewhere = (run, entry) => ({ ...entry, id: `${run.machine}/${entry.id}` });
      this.machines = [data.report.hardware, ...others.map((run) => run.machine)];
      this.points = others.length === 0 ? this.front.points : [...of(data.report.hardware, this.front.points),
        ...others.flatMap((run) => of(run.machine, run.points.map((point) => elsewhere(run, point))))];
      this.byId = new Map(this.points.map((point) => [point.id, point]));
      this.details = new Map([...(data.report.details || []), ...others.flatMap((run) => run.details.map((d) => elsewhere(run, d)))]
        .map((detail) => [detail.id, detail]));
      this.listeners = [];
      this.figures = [];
      this.repaints = [];
      this.colours = new Map();
      const { nodes, tensor_classes: classes } = data.report.workload;
      this.readers = nodes.filter((n) => n.layer)
        .flatMap((n) => classes.filter((c) => c.consumers.includes(n.name)).map((c) => [n.name, c.name]));
      const objective = (start, otherwise) =>
        (this.front.objectives.find((o) => o.field.startsWith(start)) || { field: otherwise }).field;
      this.defaults = { ...DEFAULTS, y: objective("metric", "metric_val"), x: objective("latency", "latency_predicted_us") };
      if (!this.points.some((p) => p[this.defaults.x] !== null)) this.defaults.x = "latency_predicted_us";
      const known = (id) => (this.byId.has(id) ? id : "");
      const summary = this.report.summary;
      const first = this.points.find((p) => p.role === "design") || this.points[0];
      this.defaults.design = known(summary.finding_id) || known(summary.knee_id) || (first ? first.id : "");
      this.unit = this.task.metric_unit === "fraction" ? "%" : this.task.metric_unit;
      this.factor = this.task.metric_unit === "fraction" ? 100 : 1;
      this.limits = [
        { key: "max_latency", field: () => this.latencyField, most: true },
        { key: "min_metric", field: () => this.metricField, most: this.task.direction === "min" },
        { key: "max_size", field: () => "size_bytes", most: true },
      ];
      this.state = { ...this.defaults, ...this.fromHash() };
    }

    // -- state ---------------------------------------------------------------------------------------------
    fromHash() {
      const found = {};
      for (const [key, text] of new URLSearchParams(location.hash.slice(1))) {
        if (!(key in this.defaults)) continue;
        if (NUMBERS.includes(key)) found[key] = text !== "" && Number.isFinite(Number(text)) ? Number(text) : null;
        else if (key === "seed") found[key] = Math.max(0, Math.trunc(Number(text)) || 0);
        else if (typeof this.defaults[key] === "boolean") found[key] = text === "1";
        else if ((key === "design" || key === "other") && !this.byId.has(text)) continue;
        else if ((key === "x" || key === "y") && !FIELDS.includes(text)) continue;
        else found[key] = text;
      }
      return found;
    }

    hash(state = this.state) {
      const query = new URLSearchParams();
      for (const [key, value] of Object.entries(state)) {
        if (value === this.defaults[key] && key !== "design") continue;
        if (value === null || value === "") continue;
        query.set(key, typeof value === "boolean" ? (value ? "1" : "0") : value);
      }
      return `#${query}`;
    }

    set(patch, remember = true) {
      const changed = Object.keys(patch).filter((key) => this.state[key] !== patch[key]);
      if (!changed.length) return;
      Object.assign(this.state, patch);
      if (changed.includes("design") && !("seed" in patch)) this.state.seed = 0;
      if (remember) history.replaceState(null, "", this.hash());
      for (const { keys, callback } of this.listeners) if (keys.some((key) => changed.includes(key))) callback(this.state);
      if (changed.includes("design")) this.say(`Selected ${this.byId.get(this.state.design).name}${this.where(this.byId.get(this.state.design))}`);
    }

    on(keys, callback) {
      this.listeners.push({ keys, callback });
      callback(this.state);
    }

    say(text) {
      document.getElementById("status").textContent = text;
    }

    // -- figures -------------------------------------------------------------------------------------------
    /** The quantities of which some point has a value. */
    get fields() {
      return FIELDS.filter((field) => this.points.some((p) => p[field] !== null));
    }

    /** 1 where more of a quantity is better, -1 where less is. */
    sense(field) {
      return field.startsWith("metric") && this.task.direction === "max" ? 1 : -1;
    }

    /** The latency that constraints and the selected card speak of: that of the x axis, else the objective's. */
    get latencyField() {
      return this.state.x.startsWith("latency") ? this.state.x : this.defaults.x;
    }

    /** The metric that constraints speak of: that of the y axis, else the objective's. */
    get metricField() {
      return this.state.y.startsWith("metric") ? this.state.y : this.defaults.y;
    }

    value(point, field) {
      const value = point[field];
      if (value === null || value === undefined) return null;
      if (field.startsWith("metric")) return value * this.factor;
      return field === "size_bytes" ? value / 1024 : value;
    }

    label(field) {
      const unit = this.unit ? ` (${this.unit})` : "";
      return {
        metric_val: `validation ${this.task.metric}${unit}`,
        metric_test: `test ${this.task.metric}${unit}`,
        latency_measured_us: "measured latency (µs)",
        latency_predicted_us: "predicted latency (µs)",
        size_bytes: "size (KiB)",
        energy_uj: "predicted energy (µJ)",
        bits_per_weight: "bits per weight",
      }[field];
    }

    /** A shown value without its unit. */
    number(field, value) {
      if (value === null) return "–";
      if (field.startsWith("metric")) return this.unit === "%" ? value.toFixed(1) : figures(value);
      if (field === "bits_per_weight") return value.toFixed(2);
      return figures(value);
    }

    /** A shown value with its unit. */
    text(field, point) {
      const value = this.value(point, field);
      const unit = { size_bytes: "KiB", bits_per_weight: "bits", energy_uj: "µJ" }[field] || (field.startsWith("metric") ? this.unit : "µs");
      return value === null ? "not known" : `${this.number(field, value)} ${unit}`.trim();
    }

    /** What the design was allowed, with its unit. */
    budget(point) {
      return `${figures(point.budget)} ${BUDGET_UNITS[point.budget_unit]}`;
    }

    /** What the design takes of its budget, and by how much that is more or less. */
    budgetUsed(point) {
      const over = 100 * (point.budget_used / point.budget - 1);
      const told = Math.abs(over) < 0.05 ? "all of it" : `${Math.abs(over).toFixed(1)} % ${over > 0 ? "over" : "under"}`;
      return `${figures(point.budget_used)} ${BUDGET_UNITS[point.budget_unit]}, ${told}`;
    }

    ratio(point) {
      const { latency_predicted_us: predicted, latency_measured_us: measured } = point;
      return predicted && measured ? predicted / measured : null;
    }

    interval(point) {
      const { latency_low_us: low, latency_high_us: high } = point;
      return low === null || high === null ? "" : `${figures(low)}–${figures(high)} µs`;
    }

    /** [layer, tensor class it reads] in network order; a class alone where the graph names no layer of it. */
    layersOf(assignment) {
      const found = this.readers.filter(([, name]) => assignment.level_of_channel[name]);
      const seen = new Set(found.map(([, name]) => name));
      return [...found, ...Object.keys(assignment.level_of_channel).filter((name) => !seen.has(name)).map((name) => [name, name])];
    }

    /** [layer, average bits of its weights] of the first seed. */
    bitsPerLayer(id) {
      const assignment = (this.details.get(id) || { assignments: [] }).assignments[0];
      if (!assignment) return [];
      return this.layersOf(assignment).map(([layer, name]) => {
        const levels = assignment.level_of_channel[name], palette = (assignment.pinned[name] || assignment.palette).levels;
        return [layer, levels.reduce((sum, level) => sum + palette[level].weight_bits, 0) / levels.length];
      });
    }

    // -- filter --------------------------------------------------------------------------------------------
    /** The keys of state that decide what is shown. */
    get filters() {
      return ["text", ...this.limits.map((limit) => limit.key), "dominated", "hidden", "brush"];
    }

    passes(point) {
      const { text, dominated, hidden } = this.state;
      if (point.role === "design" && !dominated && point.dominated) return false;
      if (this.isHidden(point, hidden)) return false;
      const words = text.toLowerCase().split(/\s+/).filter(Boolean);
      const where = `${point.name} ${point.palette} ${point.id} ${point.role} ${point.machine || ""}`.toLowerCase();
      if (!words.every((word) => where.includes(word))) return false;
      if (!this.brushes.every(({ field, low, high }) => {
        const value = this.value(point, field);
        return value !== null && value >= low && value <= high;
      })) return false;
      return this.limits.every(({ key, field, most }) => {
        const limit = this.state[key], value = limit === null ? 0 : this.value(point, field());
        return limit === null || (value !== null && (most ? value <= limit : value >= limit));
      });
    }

    /** Ranges drawn over axes, in shown units: state.brush is FIELD:LOW:HIGH,... */
    get brushes() {
      return this.state.brush.split(",").map((text) => text.split(":")).filter(([field, low, high]) =>
        FIELDS.includes(field) && low && high && Number.isFinite(Number(low)) && Number.isFinite(Number(high)))
        .map(([field, low, high]) => ({ field, low: Number(low), high: Number(high) }));
    }

    /** Draw ranges over axes, {FIELD: [low, high], or null to lift one}; ends are rounded outwards, so that none is lost. */
    brush(ranges) {
      const kept = this.brushes.filter(({ field }) => !(field in ranges));
      const round = (value, up) => {
        const unit = 10 ** (Math.floor(Math.log10(Math.abs(value) || 1)) - 4);
        return Number(((up ? Math.ceil(value / unit) : Math.floor(value / unit)) * unit).toPrecision(8));
      };
      const made = Object.entries(ranges).filter(([, range]) => range)
        .map(([field, [low, high]]) => ({ field, low: round(low, false), high: round(high, true) }));
      this.set({ brush: [...kept, ...made].map(({ field, low, high }) => `${field}:${low}:${high}`).join(",") });
    }

    /** Whether the reader switched off the palette or the machine of a point; @ marks a machine. */
    isHidden(point, hidden = this.state.hidden) {
      const off = hidden ? hidden.split(",") : [];
      return (point.role === "design" && off.includes(point.palette)) || off.includes(`@${point.machine}`);
    }

    shown() {
      return this.points.filter((point) => this.passes(point));
    }

    // -- drawing -------------------------------------------------------------------------------------------
    colour(name) {
      if (!this.colours.has(name)) {
        this.colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
      }
      return this.colours.get(name);
    }

    mark(point) {
      return this.marks[point.palette] || { colour: this.colour("ink"), symbol: "star", path: STAR };
    }

    /** The marker of a point, in plotly's words: filled on the report's own machine, open or dotted on others. */
    symbol(point) {
      const variant = ["", "-open", "-dot", "-open-dot"][Math.min(3, Math.max(0, this.machines.indexOf(point.machine)))];
      const shape = point.role === "design" ? this.mark(point).symbol : point.role === "fp32" ? "star" : "x";
      return `${shape}${variant}`;
    }

    /** " on MACHINE" where there are several. */
    where(point) {
      return point.machine ? ` on ${point.machine}` : "";
    }

    markSvg(mark, title) {
      const name = title ? { role: "img", "aria-label": title } : { "aria-hidden": "true" };
      return svg("svg", { viewBox: "-8 -8 16 16", width: 16, height: 16, class: "mark", ...name },
        svg("path", { d: mark.path, fill: mark.colour }));
    }

    /** Ticks of a logarithmic axis that spans the positive numbers of values: 1, 2, 5 or finer, written in full. */
    logAxis(title, values, more) {
      const logs = values.filter((v) => v > 0).map(Math.log10);
      if (!logs.length) return this.axis(title, { type: "log", ...more });
      const [low, high] = logs.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
      const steps = high - low < 0.8 ? [1, 1.5, 2, 3, 4, 5, 6, 8] : high - low < 1.3 ? [1, 2, 3, 5, 7]
        : high - low < 2.5 ? [1, 2, 5] : [1];
      const powers = Array.from({ length: Math.ceil(high) - Math.floor(low) + 3 }, (_, i) => Math.floor(low) - 1 + i);
      const tickvals = powers.flatMap((power) => steps.map((step) => Number((step * 10 ** power).toPrecision(2))));
      const margin = Math.max(0.06 * (high - low), 0.06);
      return this.axis(title, { type: "log", tickvals, ticktext: tickvals.map((v) => v.toLocaleString("en", { maximumSignificantDigits: 2 })),
        range: [low - margin, high + margin], ...more });
    }

    axis(title, more) {
      return {
        title: { text: plain(title), standoff: 12 }, gridcolor: this.colour("line"), linecolor: this.colour("line-strong"),
        zeroline: false, ticks: "", tickfont: { color: this.colour("ink-soft") }, automargin: true, ...more,
      };
    }

    plot(div, draw) {
      const figure = new soniq.Figure(this, div, draw);
      this.figures.push(figure);
      return figure;
    }

    /** Call again what takes colours from the theme outside of plotly. */
    repaint(callback) {
      this.repaints.push(callback);
    }

    theme(dark) {
      document.documentElement.dataset.theme = dark ? "dark" : "light";
      const button = document.getElementById("theme");
      button.setAttribute("aria-pressed", String(dark));
      button.textContent = dark ? "Light" : "Dark";
      this.colours.clear();
      this.repaints.forEach((callback) => callback());
      this.figures.forEach((figure) => figure.redraw());
    }
  }

  const STAR = "M0,-7L1.7,-2.2L6.7,-2.2L2.7,0.8L4.1,5.7L0,2.8L-4.1,5.7L-2.7,0.8L-6.7,-2.2L-1.7,-2.2Z";

  /** Make a file of text and hand it to the reader. */
  function download(name, type, text) {
    const url = URL.createObjectURL(new Blob([text], { type }));
    const link = el("a", { href: url, download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }

  const painted = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));

  async function start() {
    const app = new App(JSON.parse(await unpack("report-data")));
    const system = matchMedia("(prefers-color-scheme: dark)");
    app.theme(system.matches);
    for (const { name, build } of panels) build(app, document.getElementById(`${name}-panel`));
    system.addEventListener("change", (event) => app.theme(event.matches));
    document.getElementById("theme").addEventListener("click", () =>
      app.theme(document.documentElement.dataset.theme !== "dark"));
    document.querySelectorAll("[data-scroll]").forEach((link) => link.addEventListener("click", (event) => {
      event.preventDefault();
      const target = document.getElementById(link.dataset.scroll);
      target.scrollIntoView();
      target.querySelector("button, input, select, [tabindex]").focus({ preventScroll: true });
    }));
    window.addEventListener("hashchange", () => app.set({ ...app.defaults, ...app.fromHash() }, false));
    window.addEventListener("beforeprint", () => app.figures.forEach((figure) => figure.update(true)));
    await painted(); // the reader sees words and numbers while plotly, the slow part, starts
    document.head.append(el("script", {}, await unpack("plotly")));
    app.figures.forEach((figure) => figure.update());
    document.documentElement.dataset.ready = "true";
    for (const figure of app.figures) { // those further down, one at a time, so that the page answers in between
      await painted();
      figure.update(true);
    }
    document.documentElement.dataset.complete = "true";
  }

  const capital = (text) => text[0].toUpperCase() + text.slice(1);

  return { panel: (name, build) => panels.push({ name, build }), el, svg, plain, figures, capital, download, start };
})();
