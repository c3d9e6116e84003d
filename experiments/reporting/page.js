"use strict";
// Draws the charts of the page. Every text goes in as text, never as markup.
const payload = JSON.parse(document.getElementById("payload").textContent);
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const reduced = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d"] };

function themed(layout) {
  const axis = { gridcolor: css("--line"), zerolinecolor: css("--line"), automargin: true };
  return {
    height: 420, margin: { l: 60, r: 20, t: 20, b: 50 }, hovermode: "closest",
    paper_bgcolor: css("--paper"), plot_bgcolor: css("--paper"), font: { color: css("--ink") },
    legend: { orientation: "h", y: 1.12 }, ...layout,
    xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
  };
}

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== null) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// One row a choice: a single value, or one cell a layer whose bar shows its share of the largest.
function drawArchitecture(into, architecture) {
  const grid = element("div", null, { class: "layers" });
  for (const [name, value] of Object.entries(architecture)) {
    const rows = Array.isArray(value) && value.some(Array.isArray) ? value : [value];
    rows.forEach((row, i) => {
      const cells = Array.isArray(row) ? row : [row];
      const top = Math.max(...cells.map(Number).filter(Number.isFinite), 0);
      grid.append(element("span", rows.length > 1 ? `${name}, stage ${i + 1}` : name, { class: "name" }));
      for (const cell of cells) {
        const share = Array.isArray(row) && top > 0 && Number.isFinite(Number(cell)) ? 100 * cell / top : 0;
        grid.append(element("span", String(cell), { class: "layer", style: `--share: ${share}%` }));
      }
    });
  }
  into.replaceChildren(grid);
}

function frontOf(costs, values, lowerIsBetter) {
  const order = costs.map((_, i) => i).filter(i => values[i] !== null);
  const sign = lowerIsBetter ? 1 : -1;
  order.sort((a, b) => costs[a] - costs[b] || sign * (values[a] - values[b]));
  const front = [];
  let best = Infinity;
  for (const i of order) if (sign * values[i] < best) { front.push(i); best = sign * values[i]; }
  return front;
}

function drawFront(run, key) {
  const chart = document.getElementById(`${key}-front`);
  if (chart === null) return;
  const choose = document.getElementById(`${key}-metric`), picked = document.getElementById(`${key}-picked`);
  const table = document.getElementById(`${key}-table`), all = run.candidates;
  const text = value => run.percent ? `${(100 * value).toFixed(2)}%` : run.fixed ? value.toFixed(3) : String(Number(value.toPrecision(5)));
  for (const metric of run.metrics) choose.append(element("option", metric, { value: metric }));
  if (run.metrics.includes("macs")) choose.value = "macs";

  function pick(i) {
    const limits = run.metrics.map(metric => `${metric}<=${all.costs[metric][i]}`).join(",");
    const heading = element("h3", `Candidate ${i + 1}: ${run.shown} ${all.value[i] === null ? "not known" : text(all.value[i])}`);
    const costs = element("p", run.metrics.map(metric => `${metric} ${all.costs[metric][i].toLocaleString("en")}`).join(", "));
    const drawn = element("div", null, { class: "architecture" });
    drawArchitecture(drawn, all.architecture[i]);
    const command = element("pre", `supernest export ${run.path} --budget '${limits}'`, { tabindex: "0" });
    picked.replaceChildren(heading, costs, drawn, command);
  }

  function draw() {
    const metric = choose.value, costs = all.costs[metric], front = frontOf(costs, all.value, run.lowerIsBetter);
    const known = costs.map((_, i) => i).filter(i => all.value[i] !== null);
    const data = [
      { type: known.length > 3000 && webgl() ? "scattergl" : "scatter", mode: "markers", name: "candidates",
        x: known.map(i => costs[i]), y: known.map(i => all.value[i]), customdata: known,
        marker: { size: 6, opacity: 0.45, color: css("--accent") }, hovertemplate: "%{x:,}, %{y}<extra></extra>" },
      { type: "scatter", mode: "lines+markers", name: "Pareto front", line: { shape: "hv", color: css("--bad") },
        x: front.map(i => costs[i]), y: front.map(i => all.value[i]), customdata: front,
        hovertemplate: "%{x:,}, %{y}<extra></extra>" },
    ];
    const layout = themed({ xaxis: { title: { text: metric } },
      yaxis: { title: { text: `validation ${run.shown}` }, tickformat: run.percent ? ".1%" : "" } });
    Plotly.react(chart, data, layout, reduced);
    const head = element("tr", null);
    for (const name of ["", run.shown, ...run.metrics]) head.append(element("th", name, { scope: "col" }));
    table.replaceChildren(head, ...front.map(i => {
      const row = element("tr", null), cell = element("td", null), button = element("button", `candidate ${i + 1}`, { type: "button" });
      button.addEventListener("click", () => pick(i));
      cell.append(button);
      row.append(cell, element("td", text(all.value[i])));
      for (const name of run.metrics) row.append(element("td", all.costs[name][i].toLocaleString("en")));
      return row;
    }));
  }

  choose.addEventListener("change", draw);
  draw();
  chart.on("plotly_click", event => pick(event.points[0].customdata));
  redraw.push(draw);
}

function webgl() {
  return document.createElement("canvas").getContext("webgl") !== null;
}

const redraw = [];
payload.runs.forEach((run, i) => {
  drawFront(run, `run${i}`);
  for (const [name, chart] of Object.entries(run.charts)) {
    const place = document.getElementById(`run${i}-${name}`);
    if (place === null || chart === null) continue;
    const draw = () => Plotly.react(place, chart.data, themed(chart.layout), reduced);
    draw();
    redraw.push(draw);
  }
});
for (const place of document.querySelectorAll("[data-architecture]"))
  drawArchitecture(place, JSON.parse(place.dataset.architecture));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw.forEach(draw => draw()));
