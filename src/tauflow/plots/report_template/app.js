(function () {
  "use strict";
  const { D, C, byId, faded, say, plain, axis, draw, band, bindSlider } = tauflow;
  const pick = (list, member) => (list && list.length ? list[Math.min(member, list.length - 1)] : null);

  const state = { member: D.first, time: 0, logarithmic: false };

  const layout = (more) => tauflow.layout(Object.assign({ uirevision: "keep" + state.member }, more));

  // A theory: dashed curves over a grey band. On a log axis a band that reaches 0 is cut at `floor`.
  function theories(overlays, x, floor, most) {
    const traces = [];
    (overlays || []).forEach((theory) => {
      const values = pick(theory.values, state.member) || [];
      const low = pick(theory.low, state.member), high = pick(theory.high, state.member);
      values.slice(0, most).forEach((curve, k) => {
        const group = { legendgroup: theory.label };
        if (low) {
          const cut = (y) => (y === null ? null : Math.max(y, floor));
          traces.push(...band(x, low[k].map(cut), high[k], faded(C.theory, 0.13), null, group));
        }
        traces.push(Object.assign({
          x: x, y: curve, mode: "lines", line: { color: C.theory, width: 1.6, dash: "dash" },
          name: plain(theory.label) + (low ? " ± its stated error" : ""), showlegend: k === 0,
        }, group));
      });
    });
    return traces;
  }
  const dotted = (x, reference) => ({
    x: [x[0], x[x.length - 1]], y: [reference.value, reference.value], mode: "lines", hoverinfo: "skip",
    line: { color: C.grey, width: 1.3, dash: "dot" }, name: reference.label,
  });

  function drawLoss() {
    const L = D.loss;
    if (!L) return;
    const traces = [], several = D.members.length > 1, shown = pick(L.axis.values, state.member);
    L.values.forEach((y, i) => {
      if (i === state.member) return;
      traces.push({
        x: pick(L.axis.values, i), y: y, mode: "lines", line: { color: C.pale, width: 1 }, name: "other seeds",
        legendgroup: "others", showlegend: i === (state.member === 0 ? 1 : 0),
        hovertemplate: "%{y:.3g}<extra>" + plain(D.members[i].label) + "</extra>",
      });
    });
    if (L.spread) {
      traces.push(...band(L.axis.values[0], L.spread.low, L.spread.high, faded(C.blue, 0.2), "middle half of seeds"));
      traces.push({ x: L.axis.values[0], y: L.spread.median, mode: "lines", line: { color: C.blue, width: 2 },
        name: "median of " + L.spread.count + " seeds" });
    }
    traces.push({ x: shown, y: L.values[state.member], mode: "lines", name: plain(D.members[state.member].label),
      line: { color: several ? C.green : C.blue, width: several ? 1.2 : 1.6 } });
    traces.push(...theories(L.overlays, shown, L.range ? Math.pow(10, L.range[0] - 3) : 1e-30, 1));
    if (L.reference) traces.push(dotted(shown, L.reference));
    D.members.forEach((member, i) => {
      if (member.status === "done" || !L.stops[i]) return;
      const left = L.stops[i][0] > 0.6 * Math.max(...pick(L.axis.values, i));
      traces.push({
        x: [L.stops[i][0]], y: [L.stops[i][1]], mode: "markers+text", text: [plain(member.label) + ": " + member.status],
        textposition: left ? "middle left" : "middle right", textfont: { color: C.orange, size: 12 }, cliponaxis: false,
        marker: { symbol: member.status === "diverged" ? "x-thin" : "line-ns", size: 9, line: { color: C.orange, width: 2.4 } },
        name: plain(member.name), showlegend: false, hovertemplate: plain(member.name) + "<extra></extra>",
      });
    });
    draw("plot-loss", traces, layout({
      xaxis: axis(L.axis.label), yaxis: axis("loss", { type: "log", range: L.range || undefined, dtick: wide(L.range) }),
    }));
  }
  const wide = (range) => (range && range[1] - range[0] > 1.2 ? 1 : undefined);

  const tauAt = () => { const tau = pick(D.spectra.axis.values, state.member); return tau ? tau[state.time] : null; };

  function drawPaths() {
    const S = D.spectra;
    if (!S || !S.singular) return;
    const x = pick(S.axis.values, state.member), spectra = S.singular[state.member];
    const count = Math.min(C.sequence.length, spectra[0].length), traces = [];
    for (let k = count - 1; k >= 0; k -= 1) {
      traces.push({ x: x, y: spectra.map((s) => s[k]), mode: "lines", line: { color: C.sequence[k], width: 2 },
        name: "s<sub>" + (k + 1) + "</sub>", legendrank: k + 1, showlegend: k < 3,
        hovertemplate: "%{y:.3g}<extra>s<sub>" + (k + 1) + "</sub></extra>" });
    }
    traces.push(...theories(S.overlays, x, -Infinity, count));
    const now = tauAt(), seen = traces.flatMap((trace) => trace.y).filter((y) => y !== null);
    draw("plot-paths", traces, layout({
      xaxis: axis(S.axis.label), yaxis: axis("singular values of Δ" + D.matrix, { range: [0, 1.04 * Math.max(...seen, 1e-12)] }),
      shapes: now === null ? [] : [{ type: "line", x0: now, x1: now, yref: "paper", y0: 0, y1: 1,
        line: { color: C.green, width: 1.5 } }],
    }));
  }

  function drawSpectrum() {
    const S = D.spectra;
    if (!S || !S.singular) return;
    const spectra = S.singular[state.member], now = spectra[state.time];
    const index = now.map((_, k) => k + 1), end = spectra.reduce((kept, s) => (s[0] === null ? kept : s), now);
    const top = Math.max(...spectra.map((s) => s[0] || 0)) * 1.07 || 1;
    const positive = end.filter((s) => s > 1e-12 * top);
    const low = Math.log10(positive.length ? Math.min(...positive) : top / 10) - 0.3;
    const shape = (y, more) => Object.assign({ x: index, y: y, mode: "markers" }, more);
    draw("plot-spectrum", [
      shape(end, { name: "at the end", marker: { color: "#fff", size: 8, line: { color: C.grey, width: 1 } } }),
      shape(now, { name: "now", marker: { color: C.weight_change, size: 7 } }),
    ], layout({
      xaxis: axis("index k", { range: [0.2, now.length + 0.8] }), uirevision: "spectrum" + state.logarithmic,
      yaxis: axis("singular value s<sub>k</sub> of Δ" + D.matrix, state.logarithmic
        ? { type: "log", range: [low, Math.log10(top) + 0.1] } : { range: [-0.02 * top, top] }),
    }));
  }

  function points(half) {
    const re = half[0].slice(), im = half[1].slice();
    if (half[2]) half[1].forEach((y, k) => { if (y > 0) { re.push(half[0][k]); im.push(-y); } });
    return { x: re, y: im };
  }
  function drawEigenvalues() {
    const S = D.spectra;
    if (!S || !S.eigenvalues) return;
    const spectra = S.eigenvalues[state.member], g = D.members[state.member].gain;
    const dots = (half, more) => Object.assign(points(half), { mode: "markers",
      hovertemplate: "%{x:.3f} + %{y:.3f} i<extra></extra>" }, more);
    const traces = [
      dots(spectra[0], { name: "before learning", marker: { color: C.pale, size: 5 } }),
      dots(spectra[state.time], { name: "now", marker: { color: C.weights, size: 5 } }),
    ];
    const rings = S.outliers && S.outliers[state.member];
    if (rings && rings[0].length) {
      traces.push({ x: rings[0], y: rings[1], mode: "markers", name: "outliers at the end", hoverinfo: "skip",
        marker: { symbol: "circle-open", color: C.ink, size: 12, line: { width: 1.2 } } });
    }
    let reach = g || 0;
    spectra.forEach((half) => half.slice(0, 2).forEach((row) => row.forEach((v) => { reach = Math.max(reach, Math.abs(v)); })));
    if (g) {
      const turn = Array.from({ length: 181 }, (_, k) => (k * Math.PI) / 90);
      traces.push({ x: turn.map((a) => g * Math.cos(a)), y: turn.map((a) => g * Math.sin(a)), mode: "lines",
        hoverinfo: "skip", name: "circle of radius g = " + say(g), line: { color: C.ink, width: 1.3, dash: "dash" } });
    }
    reach = 1.08 * (reach || 1);
    draw("plot-eigenvalues", traces, layout({
      uirevision: "eigenvalues" + state.member,
      xaxis: axis("real part of λ", { range: [-reach, reach], constrain: "domain" }),
      yaxis: axis("imaginary part of λ", { range: [-reach, reach], scaleanchor: "x", constrain: "domain" }),
    }));
  }

  function drawTruncation() {
    const T = D.truncation;
    if (!T) return;
    const place = (r) => (T.log ? r + 1 : r), x = T.ranks.map(place), traces = [];
    [["delta_W", "ΔW truncated, W₀ kept", C.weight_change], ["W", "W truncated", C.weights]].forEach((kind) => {
      const curves = T.curves[kind[0]], hover = "rank %{text}: %{y:.3g}<extra>" + kind[1] + "</extra>";
      curves.values.forEach((y, i) => traces.push({ x: x, y: y, mode: "lines", hoverinfo: "skip", showlegend: false,
        line: { color: faded(kind[2], i === state.member ? 0.9 : 0.3), width: i === state.member ? 1.4 : 1,
          dash: i === state.member && D.members.length > 1 ? "dot" : "solid" } }));
      traces.push({ x: x, y: curves.median, mode: "lines+markers", name: kind[1], text: T.ranks.map(String),
        line: { color: kind[2], width: 2 }, marker: { size: 5 }, hovertemplate: hover });
    });
    if (T.reference) traces.push(dotted(x, T.reference));
    const ticks = T.log ? { type: "log", tickvals: T.ticks.map(place), ticktext: T.ticks.map(String) } : {};
    draw("plot-truncation", traces, layout({ xaxis: axis("rank kept", ticks), yaxis: axis("loss",
      { type: "log", range: T.range || undefined, dtick: wide(T.range) }) }));
  }

  function drawTrials() {
    const T = D.trials;
    if (!T) return;
    const rows = 1 + T.targets.length, gap = 0.07, height = (1 - gap * (rows - 1)) / rows;
    const spot = (row) => { const low = 1 - (row + 1) * height - row * gap; return [Math.max(0, low), Math.min(1, low + height)]; };
    const lay = layout({ xaxis: axis(T.label, { range: [T.time[0], T.time[T.time.length - 1]], anchor: "y" + (rows > 1 ? rows : "") }), shapes: [],
      yaxis: axis("inputs", { domain: spot(0), nticks: 4 }), height: 120 + 115 * rows });
    const traces = T.inputs.map((y, k) => ({ x: T.time, y: y, mode: "lines", name: "input " + (k + 1),
      line: { color: C.cycle[k % C.cycle.length], width: 1.6, shape: "vh" } }));
    T.targets.forEach((wanted, k) => {
      const name = "y" + (k + 2), key = "yaxis" + (k + 2);
      lay[key] = axis(T.targets.length > 1 ? "output " + (k + 1) : "output", { domain: spot(k + 1), nticks: 4, matches: k > 0 ? "y2" : undefined });
      T.counted[k].forEach((span) => lay.shapes.push({ type: "rect", xref: "x", yref: name + " domain", x0: span[0],
        x1: span[1], y0: 0, y1: 1, fillcolor: faded(C.pale, 0.28), line: { width: 0 }, layer: "below" }));
      const few = wanted.filter((v) => v !== null).length < 10;
      traces.push({ x: T.time, y: T.outputs[state.member][k], yaxis: name, mode: "lines", name: "output",
        line: { color: C.blue, width: 2 }, legendgroup: "output", showlegend: k === 0 });
      traces.push({ x: T.time, y: wanted, yaxis: name, mode: few ? "lines+markers" : "lines", name: "target",
        marker: { size: 4, color: C.target }, line: { color: C.target, width: 1.4, dash: "dash", shape: "vh" },
        legendgroup: "target", showlegend: k === 0 });
    });
    byId("plot-trials").style.height = lay.height + "px";
    draw("plot-trials", traces, lay);
  }

  function drawProbes() {
    const P = D.probes;
    if (!P) return;
    const x = pick(P.axis.values, state.member), several = D.members.length > 1;
    P.panels.forEach((panel, p) => {
      const traces = [];
      const lines = (i, more) => panel.values[i].forEach((y, k) => traces.push(Object.assign({
        x: pick(P.axis.values, i), y: y, mode: "lines", hovertemplate: "%{y:.4g}<extra>" + plain(D.members[i].label) + "</extra>",
      }, more, { showlegend: more.showlegend && k === 0 })));
      const first = state.member === 0 ? 1 : 0;
      D.members.forEach((_, i) => {
        if (i !== state.member) lines(i, { name: "other seeds", legendgroup: "others", showlegend: i === first, line: { color: C.pale, width: 1 } });
      });
      lines(state.member, { name: plain(D.members[state.member].label), legendgroup: "shown", showlegend: true,
        line: { color: several ? C.green : C.blue, width: 1.8 } });
      traces.push(...theories(panel.overlays, x, -Infinity));
      draw("plot-probe-" + p, traces, layout({ xaxis: axis(P.axis.label), yaxis: axis(plain(panel.label)) }));
    });
  }

  function drawFilter() {
    const F = D.filter;
    if (!F) return;
    const line = (y, name, more) => ({ x: F.time, y: y, mode: "lines", name: name, line: more });
    draw("plot-filter", [
      line(F.initial[state.member], "before learning", { color: C.grey, width: 1.4 }),
      line(F.final[state.member], "after learning", { color: C.blue, width: 2 }),
      line(F.target, "target", { color: C.target, width: 1.6, dash: "dash" }),
    ], layout({ xaxis: axis(F.label), yaxis: axis("impulse response") }));
  }

  function readout() {
    const S = D.spectra;
    if (!S) return;
    const at = S.updates[state.time], tau = tauAt(), member = D.members[state.member];
    const where = S.word + " " + at + " of " + S.last;
    byId("slider-value").textContent = where;
    byId("slider-tau").parentElement.hidden = S.axis.unit === "update"; // it would say the same twice
    byId("slider-tau").textContent = tau === null ? "—" : say(tau);
    const first = S.singular ? S.singular[state.member][state.time][0] : null;
    if (byId("slider-s1")) byId("slider-s1").textContent = say(first);
    byId("slider-note").textContent = S.singular && first === null ? "no record here: " + member.name : "";
    byId("slider").setAttribute("aria-valuetext", where + (first === null ? "" : ", first singular value " + say(first)));
  }
  function drawTime() { drawPaths(); drawSpectrum(); drawEigenvalues(); readout(); }
  function drawAll() { drawLoss(); drawProbes(); drawTruncation(); drawTrials(); drawFilter(); drawTime(); }

  function choose(member) {
    state.member = member;
    document.querySelectorAll("[data-member]").forEach((cell) => {
      cell.classList.toggle("chosen", Number(cell.dataset.member) === member && D.members.length > 1);
    });
    drawAll();
  }

  if (D.spectra) {
    state.time = D.spectra.updates.length - 1;
    bindSlider(state.time, (time) => { state.time = time; readout(); }, drawTime);
    const scale = byId("logarithmic");
    if (scale) scale.addEventListener("change", () => { state.logarithmic = scale.checked; drawSpectrum(); });
  }
  const chooser = byId("member");
  chooser.value = String(state.member);
  chooser.addEventListener("change", () => choose(Number(chooser.value)));
  choose(state.member);
  document.documentElement.dataset.ready = "true";
})();
