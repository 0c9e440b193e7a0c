// What the scripts of all pages use.
const tauflow = (function () {
  "use strict";
  const D = JSON.parse(document.getElementById("data").textContent);
  const C = D.colours;
  const byId = (id) => document.getElementById(id);
  const narrow = () => window.innerWidth <= 720;
  const faded = (hex, alpha) => {
    const n = parseInt(hex.slice(1), 16);
    return `rgba(${n >> 16},${(n >> 8) & 255},${n & 255},${alpha})`;
  };
  const say = (x) => (x === null || x === undefined ? "—" : String(Number(x.toPrecision(4))).replace("-", "−"));
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;"); // for Plotly's markup
  const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

  function axis(title, more) {
    return Object.assign({
      title: { text: title, standoff: 8 }, showgrid: false, zeroline: false, showline: true, linecolor: C.grey,
      linewidth: 1, ticks: "outside", ticklen: 4, tickcolor: C.grey, automargin: true, exponentformat: "power",
    }, more || {});
  }
  function layout(more) {
    return Object.assign({
      font: { family: "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif", size: 12, color: C.ink },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 56, r: 12, t: 14, b: 44 },
      legend: { orientation: "h", x: 0, yref: "container", y: 0, yanchor: "bottom", font: { size: 12 } }, hovermode: "closest",
      hoverlabel: { font: { size: 12 } }, dragmode: narrow() ? false : "zoom",
    }, more);
  }
  const draw = (id, traces, lay) => { if (byId(id)) Plotly.react(id, traces, lay, CONFIG); };

  function band(x, low, high, colour, name, more) {
    const edge = { x: x, mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false };
    return [
      Object.assign({}, edge, { y: low }, more),
      Object.assign({}, edge, { y: high, fill: "tonexty", fillcolor: colour, name: name, showlegend: Boolean(name) }, more),
    ];
  }
  // The control of a position in learning: `said(position)` at once, `drawn(position)` in the next frame.
  function bindSlider(start, said, drawn) {
    const slider = byId("slider"), play = byId("play"), last = Number(slider.max);
    let timer = null, waiting = false, position = start;
    const stop = () => { window.clearInterval(timer); timer = null; play.textContent = "Play"; };
    function moveTo(next) {
      position = next;
      slider.value = String(position);
      said(position);
      if (waiting) return;
      waiting = true;
      window.requestAnimationFrame(() => { waiting = false; drawn(position); });
    }
    slider.value = String(start);
    slider.addEventListener("input", () => { stop(); moveTo(Number(slider.value)); });
    play.addEventListener("click", () => {
      if (timer !== null) { stop(); return; }
      if (position >= last) moveTo(0);
      play.textContent = "Pause";
      timer = window.setInterval(() => { if (position >= last) stop(); else moveTo(position + 1); }, Math.max(60, 6000 / (last + 1)));
    });
  }

  return { D, C, byId, narrow, faded, say, plain, axis, layout, draw, band, bindSlider };
})();
