/** A plotly figure. draw() gives {traces, layout}, the ring around the selected point last, and select(ids) where a box
 * may be drawn around points. It is drawn when it first
 * comes near the window, and again where something changed; a click on a point selects its design. */
soniq.Figure = class {
  constructor(app, div, draw) {
    Object.assign(this, { app, div, draw, near: false, stale: true });
    new IntersectionObserver(([entry]) => {
      this.near = entry.isIntersecting;
      this.update();
    }, { rootMargin: "400px" }).observe(div);
  }

  redraw() {
    this.stale = true;
    this.update();
  }

  update(always = false) {
    if (!this.stale || !window.Plotly || !(this.near || always)) return;
    const first = !this.div.data;
    const { traces, layout, select } = this.draw();
    Plotly.react(this.div, traces, { ...this.layout(), ...layout }, {
      showSendToCloud: false, displaylogo: false, plotlyServerURL: "", responsive: true,
      modeBarButtonsToRemove: [...(select ? [] : ["select2d"]), "lasso2d", "autoScale2d"], toImageButtonOptions: { filename: this.div.id },
    });
    this.stale = false;
    if (first) this.div.on("plotly_click", (event) => this.clicked(event));
    if (first && select) this.div.on("plotly_selected", (event) => select((event?.points || []).map((p) => p.customdata).filter(Boolean)));
  }

  clicked(event) {
    const id = event.points.map((p) => p.customdata).find(Boolean);
    if (id) this.app.set({ design: id });
  }

  /** Move the ring without drawing the rest again. */
  ring({ x, y }) {
    if (!this.stale) Plotly.restyle(this.div, { x: [x], y: [y] }, [this.div.data.length - 1]);
  }

  layout() {
    const { app } = this;
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest", showlegend: false,
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: app.colour("ink") },
      hoverlabel: { bgcolor: app.colour("card"), bordercolor: app.colour("line-strong"), align: "left",
        font: { color: app.colour("ink"), size: 13 } },
      margin: { l: 56, r: 16, t: 16, b: 52 }, modebar: { bgcolor: "rgba(0,0,0,0)", color: app.colour("ink-soft") },
    };
  }
};
