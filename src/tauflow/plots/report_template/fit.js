(function () {
  "use strict";
  const { D, C, byId, faded, say, plain, axis, layout, draw, band, bindSlider } = tauflow;
  const P = D.plane, E = D.eigenvalues;
  const colour = (i) => C.cycle[i % C.cycle.length];
  const sub = (letter, i) => letter + "<sub>" + (i + 1) + "</sub>";
  const line = (x, y, name, style, more) => Object.assign({ x: x, y: y, mode: "lines", name: name, line: style }, more || {});
  const dots = (x, y, name, marker, more) => Object.assign({ x: x, y: y, mode: "markers", name: name, marker: marker }, more || {});
  const vertical = (x, style, yref) => ({ type: "line", x0: x, x1: x, yref: yref || "paper", y0: 0, y1: 1, line: style });
  const key = (letter, n) => letter + (n ? String(n + 1) : "");

  // Cells of a figure, each with its own axes: rows share the x axis of their column and columns the y axis of their row.
  function grid(rows, columns, height, names) {
    const lay = layout({ shapes: [], annotations: [], height: 74 + rows * height, margin: { l: 62, r: 12, t: 30, b: 76 } });
    const gap = columns > 1 ? 0.035 : 0, drop = rows > 1 ? 0.05 : 0;
    const wide = (1 - gap * (columns - 1)) / columns, high = (1 - drop * (rows - 1)) / rows;
    for (let r = 0; r < rows; r += 1) {
      for (let c = 0; c < columns; c += 1) {
        const n = r * columns + c, left = c * (wide + gap), low = 1 - (r + 1) * high - r * drop;
        lay["xaxis" + (n ? n + 1 : "")] = axis(r === rows - 1 ? names.x : "", { domain: [left, Math.min(1, left + wide)],
          anchor: key("y", n), matches: n ? "x" : undefined, showticklabels: r === rows - 1, nticks: 6 });
        lay["yaxis" + (n ? n + 1 : "")] = axis(c ? "" : names.y[r], { domain: [Math.max(0, low), low + high], anchor: key("x", n),
          matches: c ? key("y", r * columns) : undefined, showticklabels: c === 0, nticks: 5 });
        if (r === 0 && names.top) {
          lay.annotations.push({ text: plain(names.top[c]), showarrow: false, xref: "paper", yref: "paper", x: left, y: 1,
            xanchor: "left", yanchor: "bottom", font: { size: 12.5 } });
        }
      }
    }
    return lay;
  }
  const SPAN = [D.trials[0] - 0.5, D.trials[D.trials.length - 1] + 0.5];
  const at = (n) => ({ xaxis: key("x", n), yaxis: key("y", n) });
  function tall(id, traces, lay) {
    if (byId(id)) byId(id).style.height = lay.height + "px";
    draw(id, traces, lay);
  }
  // Grey behind every other epoch, their names above.
  function epochs(lay, named) {
    lay.shapes = (lay.shapes || []).concat(D.epochs.filter((_, i) => i % 2).map((each) => ({ type: "rect", xref: "x",
      yref: "paper", x0: each[1], x1: each[2], y0: 0, y1: 1, fillcolor: faded(C.pale, 0.28), line: { width: 0 }, layer: "below" })));
    if (named) {
      lay.annotations = (lay.annotations || []).concat(D.epochs.map((each) => ({ text: plain(each[0]), showarrow: false,
        xref: "x", yref: "paper", x: (each[1] + each[2]) / 2, y: 1, yanchor: "bottom", font: { size: 12, color: C.grey } })));
      lay.margin = Object.assign({}, lay.margin, { t: 30 });
    }
    return lay;
  }
  const legendOnce = (seen, name) => { const first = !seen.has(name); seen.add(name); return { legendgroup: name, showlegend: first }; };

  function drawRanks() {
    const R = D.ranks;
    if (!R) return;
    const several = R.units.length > 1, loss = [], explained = [];
    R.units.forEach((units, u) => {
      const who = several ? units + " units" : "mean ± standard error", k = R.ranks.indexOf(R.chosen[u]);
      const flat = R.each[u].flatMap((each, r) => each.map((y) => [R.ranks[r], y]));
      loss.push(dots(flat.map((p) => p[0]), flat.map((p) => p[1]), "single fits", { color: C.pale, size: 5 }, { hoverinfo: "skip", showlegend: u === 0 }));
      loss.push({ x: R.ranks, y: R.mean[u], mode: "lines+markers", name: who, line: { color: colour(u), width: 2 }, marker: { size: 6 },
        error_y: { array: R.error[u], thickness: 1.4, width: 4 }, hovertemplate: "rank %{x}: %{y:.4g}<extra></extra>" });
      loss.push(dots([R.ranks[k]], [R.mean[u][k]], "chosen: rank " + R.chosen[u],
        { symbol: "circle-open", size: 16, color: C.ink, line: { width: 2 } }, { hoverinfo: "skip" }));
      [["held_out", "held out", "solid"], ["fitted", "fitted", "dash"]].forEach((kind) => explained.push({
        x: R.ranks, y: R[kind[0]][u], mode: "lines+markers", name: kind[1] + (several ? ", " + units + " units" : ""),
        line: { color: colour(u), width: 2, dash: kind[2] }, marker: { size: 6 }, hovertemplate: "rank %{x}: %{y:.3f}<extra>" + kind[1] + "</extra>" }));
    });
    const x = axis("rank (number of components)", { tickvals: R.ranks });
    draw("plot-ranks", loss, layout({ xaxis: x, yaxis: axis(R.loss) }));
    draw("plot-explained", explained, layout({ xaxis: x, yaxis: axis(R.explained) }));
  }

  function drawFactors() {
    const all = D.strength.flat(), low = Math.min(...all), high = Math.max(...all), floor = low - 0.1 * (high - low || 1);
    const traces = D.strength.flatMap((c, j) => [
      dots(D.trials, c, sub("c", j) + " of single trials", { color: faded(colour(j), 0.7), size: 5 },
        { legendgroup: "c" + j, showlegend: false, hovertemplate: "trial %{x}: %{y:.3f}<extra>" + sub("c", j) + "</extra>" }),
      line(D.trials, D.smooth[j], sub("c", j), { color: colour(j), width: 2 }, { legendgroup: "c" + j, hoverinfo: "skip" }),
    ]);
    const lay = epochs(layout({ xaxis: axis("trial", { range: SPAN }), yaxis: axis("strength c<sub>j</sub>") }), true);
    D.stages.forEach((stage) => {
      lay.shapes.push({ type: "line", x0: stage.first, x1: stage.last, y0: floor, y1: floor, line: { color: C.ink, width: 4 } });
      lay.annotations.push({ text: plain(stage.name), showarrow: false, x: (stage.first + stage.last) / 2, y: floor, yanchor: "bottom", font: { size: 12 } });
    });
    draw("plot-factors", traces, lay);
  }

  // Lines by condition in a grid of rows and stages; `values[row][stage][condition]`.
  function courses(id, rows, labels, lines) {
    const S = D.stages.length, seen = new Set(), traces = [];
    const lay = grid(rows, S, 150, { x: D.time.label, y: labels, top: D.stages.map((stage) => stage.title) });
    for (let r = 0; r < rows; r += 1) {
      for (let s = 0; s < S; s += 1) {
        D.conditions.forEach((condition, k) => traces.push(...lines(r, s, k, condition, Object.assign(at(r * S + s), legendOnce(seen, condition.name)))));
        if (D.time.cue !== null) {
          lay.shapes.push(Object.assign(vertical(0, { color: C.grey, width: 1, dash: "dot" }, key("y", r * S + s) + " domain"), { xref: key("x", r * S + s) }));
        }
      }
    }
    tall(id, traces, lay);
  }
  const known = (y) => y.some((v) => v !== null);
  const drawLatents = () => courses("plot-latents", D.latent.length, D.latent.map((_, j) => sub("z", j)), (j, s, k, condition, more) =>
    [line(D.time.values, D.latent[j][s][k], plain(condition.name), { color: condition.colour, width: 1.8 }, more)]);

  // The flow at given strengths: (−p + Σ c_j read_j column_j) / τ.
  function flow(c) {
    return P.points.map((p, i) => p.map((x, d) => {
      let push = 0;
      c.forEach((strength, j) => { push += strength * P.read[i][j] * P.columns[j][d]; });
      return P.rate * (push - x);
    }));
  }
  function arrows(c, more) {
    const x = [], y = [];
    flow(c).forEach((v, i) => {
      const dx = v[0] * P.arrow, dy = v[1] * P.arrow, px = P.points[i][0] + dx / 2, py = P.points[i][1] + dy / 2;
      const barb = (turn) => [px - 0.34 * (dx * Math.cos(turn) - dy * Math.sin(turn)), py - 0.34 * (dx * Math.sin(turn) + dy * Math.cos(turn))];
      const a = barb(0.45), b = barb(-0.45);
      x.push(px - dx, px, null, a[0], px, b[0], null);
      y.push(py - dy, py, null, a[1], py, b[1], null);
    });
    return line(x, y, "flow", { color: faded(C.grey, 0.75), width: 1 }, Object.assign({ hoverinfo: "skip", showlegend: false }, more));
  }
  // What is drawn of the flow at the i-th stage ("stage") or shown trial ("shown").
  function dynamics(kind, i, seen, more) {
    const traces = [], here = P[kind], flat = P.axes === 2, c = P.strengths[kind][i];
    const velocity = flat ? [] : flow(c).map((v) => v[0]);
    traces.push(flat ? arrows(c, more) : line(P.points.map((p) => p[0]), velocity, "velocity", { color: C.grey, width: 2 }, Object.assign({}, more, legendOnce(seen, "velocity"))));
    const step = flat ? 0 : 0.05 * Math.max(...velocity.map(Math.abs), 1e-9);
    D.conditions.forEach((condition, k) => {
      const x = here.paths[i][k][0], y = flat ? here.paths[i][k][1] : x.map(() => step * (k + 1)), group = legendOnce(seen, condition.name);
      traces.push(line(x, y, plain(condition.name), { color: condition.colour, width: 2 }, Object.assign({}, more, group)));
      traces.push(dots([x[0]], [y[0]], plain(condition.name) + ", start", { color: condition.colour, size: 7 }, Object.assign({}, more, { legendgroup: condition.name, showlegend: false })));
    });
    [["stable fixed point", C.ink, (n) => n === 0], ["unstable fixed point", "#fff", (n) => n > 0]].forEach((sort) => {
      const own = here.fixed[i].filter((point) => sort[2](point[1]));
      traces.push(dots(own.map((p) => p[0][0]), own.map((p) => (flat ? p[0][1] : 0)), sort[0], { color: sort[1], size: 7, line: { color: C.ink, width: 1.5 } },
        Object.assign({ text: own.map((p) => p[1] + " unstable directions"), hovertemplate: "%{text}<extra></extra>" }, more, own.length ? legendOnce(seen, sort[0]) : { showlegend: false })));
    });
    return traces;
  }
  const range = (d) => { const all = P.points.map((p) => p[d]); return [Math.min(...all), Math.max(...all)]; };
  const STATE = P.axes === 2 ? ["state along plane axis 1", "state along plane axis 2"] : ["state", "velocity (state per second)"];

  function drawStages() {
    const S = D.stages.length, seen = new Set(), traces = [];
    const lay = grid(1, S, 340, { x: STATE[0], y: [STATE[1]], top: D.stages.map((stage) => stage.name) });
    for (let s = 0; s < S; s += 1) {
      traces.push(...dynamics("stage", s, seen, at(s)));
      if (P.axes === 2) {
        Object.assign(lay["xaxis" + (s ? s + 1 : "")], { range: range(0), constrain: "domain" });
        Object.assign(lay["yaxis" + (s ? s + 1 : "")], { range: range(1), constrain: "domain", scaleanchor: s ? undefined : "x" });
      }
    }
    tall("plot-stages", traces, lay);
  }
  function drawNow(t) {
    const flat = P.axes === 2;
    draw("plot-now", dynamics("shown", t, new Set(), {}), layout({ uirevision: "now",
      xaxis: axis(STATE[0], flat ? { range: range(0), constrain: "domain" } : {}),
      yaxis: axis(STATE[1], flat ? { range: range(1), scaleanchor: "x", constrain: "domain" } : {}) }));
  }

  // Left of this in the complex plane deviations from the origin decay: in continuous time, and in steps of a bin.
  function edges(reach) {
    if (E.edge === null) return [];
    const radius = E.edge / E.alpha, turn = Math.asin(Math.min(1, reach / radius));
    const arc = Array.from({ length: 61 }, (_, k) => turn * (k / 30 - 1));
    return [
      line([E.edge, E.edge], [-reach, reach], "edge of stability", { color: C.ink, width: 1.3, dash: "dash" }, { hoverinfo: "skip" }),
      line(arc.map((a) => E.edge + radius * (Math.cos(a) - 1)), arc.map((a) => radius * Math.sin(a)), "for steps of one bin",
        { color: C.ink, width: 1.3, dash: "dot" }, { hoverinfo: "skip" }),
    ];
  }
  const reach = 1.15 * Math.max(0.2, ...E.imag.flat().map(Math.abs));
  const span = [...E.real.flat(), E.edge === null ? 0 : E.edge], pad = 0.12 * (Math.max(...span) - Math.min(...span)) + 0.05;
  function drawPlane(t) {
    const k = P.positions[t];
    draw("plot-plane", [
      ...E.real.map((re, i) => line(re, E.imag[i], sub("λ", i), { color: C.pale, width: 1.2 }, { hoverinfo: "skip", showlegend: false })),
      ...edges(reach),
      ...E.real.map((re, i) => dots([re[k]], [E.imag[i][k]], sub("λ", i), { color: colour(i), size: 9 }, { hovertemplate: "%{x:.3f} + %{y:.3f} i<extra></extra>" })),
    ], layout({ uirevision: "plane", xaxis: axis("real part of λ", { range: [Math.min(...span) - pad, Math.max(...span) + pad] }),
      yaxis: axis("imaginary part of λ", { range: [-reach, reach] }) }));
  }
  function drawEigenvalues(t) {
    const lay = grid(2, 1, 150, { x: "trial", y: ["Re λ", "Im λ"] }), traces = [], seen = new Set();
    lay.yaxis2.nticks = lay.yaxis.nticks = 5;
    [E.real, E.imag].forEach((part, r) => part.forEach((y, i) => {
      const below = E.imag[i].reduce((sum, v) => sum + v, 0) < 0; // real parts of a pair lie upon each other
      traces.push(line(D.trials, y, sub("λ", i), { color: colour(i), width: 2, dash: below ? "5px,3px" : "solid" }, Object.assign(at(r), legendOnce(seen, "λ" + i))));
    }));
    if (E.edge !== null) {
      traces.push(line([D.trials[0], D.trials[D.trials.length - 1]], [E.edge, E.edge], "edge of stability", { color: C.ink, width: 1.2, dash: "dash" }, { hoverinfo: "skip" }));
    }
    epochs(lay, true);
    lay.xaxis.range = SPAN;
    lay.shapes.push(vertical(P.trials[t], { color: C.green, width: 1.5 }));
    tall("plot-eigenvalues", traces, lay);
  }

  function drawCue() {
    const rows = D.cue.values.length, lay = grid(rows, 1, 130, { x: "trial", y: D.cue.values.map((_, j) => sub("z", j)) });
    const seen = new Set(), traces = [];
    D.cue.values.forEach((z, j) => D.conditions.forEach((condition, k) => {
      const here = D.trials.map((_, i) => i).filter((i) => D.condition_of[i] === k);
      traces.push(line(here.map((i) => D.trials[i]), here.map((i) => z[i]), plain(condition.name), { color: condition.colour, width: 1.2 },
        Object.assign({ mode: "lines+markers", marker: { size: 5 } }, at(j), legendOnce(seen, condition.name))));
    }));
    epochs(lay, true);
    lay.xaxis.range = SPAN;
    tall("plot-cue", traces, lay);
  }

  function drawNeurons() {
    const N = D.neurons, ends = [...N.explained, ...N.ceiling].filter((v) => v !== null), low = Math.min(0, ...ends), high = Math.max(0.1, ...ends);
    draw("plot-histogram", [{ type: "histogram", x: N.explained.filter((v) => v !== null), marker: { color: C.blue }, nbinsx: Math.min(24, Math.max(6, Math.floor(N.explained.length / 3))), name: "neurons" }],
      layout({ xaxis: axis("held-out variance explained"), yaxis: axis("neurons"), bargap: 0.04, showlegend: false }));
    const chosen = N.which.map((i, e) => ({ x: N.ceiling[i], y: N.explained[i], text: N.examples[e].split(":")[0] })).filter((p) => p.x !== null && p.y !== null);
    draw("plot-ceilings", [
      line([low, high], [low, high], "as much as noise allows", { color: C.grey, width: 1.3, dash: "dot" }, { hoverinfo: "skip" }),
      dots(N.ceiling, N.explained, "neurons", { color: C.blue, size: 6 }, { text: N.ids.map(plain), hovertemplate: "neuron %{text}: %{y:.3f} of %{x:.3f}<extra></extra>" }),
      { x: chosen.map((p) => p.x), y: chosen.map((p) => p.y), text: chosen.map((p) => p.text), mode: "markers+text", name: "shown below", cliponaxis: false,
        textposition: chosen.map((p) => (p.x > (low + high) / 2 ? "bottom left" : "bottom right")),
        marker: { symbol: "circle-open", size: 12, color: C.ink, line: { width: 1.5 } }, textfont: { size: 12 }, hoverinfo: "skip" },
    ], layout({ xaxis: axis("noise ceiling"), yaxis: axis("held-out variance explained") }));
    courses("plot-neurons", N.examples.length, N.examples.map((name) => plain(name) + "<br>(" + plain(N.unit) + ")"), (e, s, k, condition, more) => {
      const y = N.data[e][s][k], error = N.error[e][s][k], place = { xaxis: more.xaxis, yaxis: more.yaxis, legendgroup: condition.name };
      if (!known(y)) return [];
      const edge = known(error) ? band(D.time.values, y.map((v, i) => v - error[i]), y.map((v, i) => v + error[i]), faded(condition.colour, 0.18), null, place) : [];
      return [...edge, line(D.time.values, y, "data, " + plain(condition.name), { color: faded(condition.colour, 0.8), width: 1.2 }, Object.assign({}, place, { showlegend: false })),
        line(D.time.values, N.model[e][s][k], plain(condition.name), { color: condition.colour, width: 2, dash: "5px,3px" }, more)];
    });
  }

  function readout(t) {
    const k = P.positions[t], top = Math.max(...E.real.map((re) => re[k]));
    const said = "trial " + P.trials[t] + " (" + D.trials[0] + " to " + D.trials[D.trials.length - 1] + ")";
    byId("slider-value").textContent = said;
    byId("slider-top").textContent = say(top);
    byId("slider").setAttribute("aria-valuetext", said + ", largest real part of an eigenvalue " + say(top));
  }
  function drawTrial(t) { drawNow(t); drawPlane(t); drawEigenvalues(t); }

  drawRanks(); drawFactors(); drawLatents(); drawStages(); drawCue(); drawNeurons();
  const last = P.trials.length - 1;
  bindSlider(last, readout, drawTrial);
  readout(last);
  drawTrial(last);
  document.documentElement.dataset.ready = "true";
})();
