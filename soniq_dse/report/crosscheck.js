"use strict";
/* Draws the two figures of the crosscheck page from its packed data. Strings of ours are never HTML. */
(async () => {
  const COLOURS = { core: "#0072B2", memory: "#E69F00", overhead: "#009E73" };
  const SYMBOLS = { layer: "circle", network: "star" };

  async function unpack(id) {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const regime = (row) => (["l2", "l3", "dram"].includes(row.bound) ? "memory" : row.bound === "overhead" ? "overhead" : "core");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const us = (value) => `${value.toPrecision(4)} µs`;

  const record = JSON.parse(await unpack("report-data"));
  const rows = record.rows.filter((row) => row.measured_us);
  const config = { showSendToCloud: false, displaylogo: false, plotlyServerURL: "", responsive: true };
  const axis = (title, more) => ({ title: { text: title }, gridcolor: colour("line"), zeroline: false, automargin: true, ...more });
  const layout = (more) => ({
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour("ink") }, hovermode: "closest",
    margin: { t: 10, r: 10 }, legend: { orientation: "h", y: -0.2 }, ...more,
  });
  const hover = (row) => [`<b>${plain(row.name)}</b>`, `predicted ${us(row.predicted_us)} (${us(row.low_us)} to ${us(row.high_us)})`,
    `measured ${us(row.measured_us)}`, `error ${row.error_percent.toFixed(1)} %`, `bound by ${row.bound}`, plain(row.reason)].join("<br>");
  const groups = Object.keys(COLOURS).flatMap((name) => Object.keys(SYMBOLS).map((kind) =>
    [name, kind, rows.filter((row) => regime(row) === name && row.kind === kind)])).filter(([, , some]) => some.length);
  const named = (name, kind) => `${name}, ${kind}s`;

  function draw() {
    const all = rows.flatMap((row) => [row.predicted_us, row.measured_us]);
    const ends = rows.length ? [Math.min(...all) / 1.5, Math.max(...all) * 1.5] : [1, 10];
    Plotly.react("agreement-plot", [
      { type: "scatter", mode: "lines", name: "equal", x: ends, y: ends, hoverinfo: "skip", line: { color: colour("ink-soft"), width: 1 } },
      ...groups.map(([name, kind, some]) => ({
        type: "scatter", mode: "markers", name: named(name, kind), x: some.map((row) => row.measured_us), y: some.map((row) => row.predicted_us),
        hovertext: some.map(hover), hoverinfo: "text", marker: { color: COLOURS[name], symbol: SYMBOLS[kind], size: 8 },
        error_y: { type: "data", symmetric: false, thickness: 1, width: 0, color: colour("ink-faint"),
          array: some.map((row) => row.high_us - row.predicted_us), arrayminus: some.map((row) => row.predicted_us - row.low_us) },
      })),
    ], layout({ xaxis: axis("measured latency (µs)", { type: "log", range: ends.map(Math.log10) }),
      yaxis: axis("predicted latency (µs)", { type: "log", range: ends.map(Math.log10) }) }), config);
    Plotly.react("regimes-plot", groups.map(([name, kind, some]) => ({
      type: "box", name: named(name, kind), y: some.map((row) => row.error_percent), boxpoints: "all", jitter: 0.4, pointpos: 0,
      hovertext: some.map(hover), hoverinfo: "text", marker: { color: COLOURS[name], size: 4 }, line: { width: 1 },
    })), layout({ showlegend: false, yaxis: axis("error (%)", { zeroline: true }), xaxis: axis("", {}) }), config);
  }

  const script = document.createElement("script");
  script.append(await unpack("plotly"));
  document.head.append(script);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const theme = () => {
    document.documentElement.dataset.theme = dark.matches ? "dark" : "light";
    draw();
  };
  dark.addEventListener("change", theme);
  theme();
  document.documentElement.dataset.ready = "true";
})();
