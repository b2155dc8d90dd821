// The chart of the score against size: a front per method, the selected point in a ring, float32 as a line.

const TOUCH = matchMedia("(pointer: coarse)").matches;
// as large to the eye as a circle of 10
const MARKER_SIZES = { diamond: 12, star: 14, cross: 11, x: 11 };
for (const side of ["up", "down", "left", "right"]) MARKER_SIZES[`triangle-${side}`] = 12;

/** Text for plotly, which reads a little HTML: shown as it is. */
const shown = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function hoverText(point) {
  const settings = point.overrides.length ? point.overrides : ["no overrides"];
  const lines = settings.slice(0, 12).map((text) => shown(text.length > 60 ? `${text.slice(0, 59)}…` : text));
  const seeds = point.runs.length > 1 ? ` (${point.runs.length} runs)` : "";
  const bits = known(point.bits) ? `, ${point.bits.toFixed(2)} bits on average` : "";
  return [
    `<b>${shown(DATA.styles[point.method].label)}</b>`,
    ...lines,
    `${shown(point.text)}${seeds}`,
    `${point.mb} MB${bits}`,
  ].join("<br>");
}

function methodTraces(name) {
  const { colour, symbol } = DATA.styles[name];
  const entries = problem()
    .points.map((point, index) => ({ point, index }))
    .filter(({ point }) => point.method === name);
  const front = entries.filter(({ point }) => point.front).sort((a, b) => a.point.size - b.point.size);
  const errors = (name) => ({
    type: "data",
    array: entries.map(({ point }) => point[name] || 0),
    thickness: 1,
    width: 0,
    color: `${colour}99`,
    visible: entries.some(({ point }) => point[name]),
  });
  const line = {
    x: front.map(({ point }) => point.size),
    y: front.map(({ point }) => point.score),
    mode: "lines",
    line: { color: colour, width: 1.6 },
    hoverinfo: "skip",
  };
  const markers = {
    x: entries.map(({ point }) => point.size),
    y: entries.map(({ point }) => point.score),
    customdata: entries.map(({ index }) => index),
    mode: "markers",
    marker: {
      color: colour,
      symbol,
      size: (MARKER_SIZES[symbol] || 10) * (problem().points.length > 150 ? 0.65 : 1),
      line: { color: "#fff", width: 1 },
      opacity: entries.map(({ point }) => (point.front ? 1 : 0.38)),
    },
    error_x: errors("size_std"),
    error_y: errors("std"),
    text: entries.map(({ point }) => hoverText(point)),
    hovertemplate: "%{text}<extra></extra>",
    hoverlabel: { bgcolor: "#fff", bordercolor: colour, align: "left", font: FONT },
  };
  return [line, markers].map((trace) => ({ ...trace, name, visible: !state.hidden.has(name) }));
}

const ring = () => {
  const point = state.point === null ? null : problem().points[state.point];
  const visible = point && !state.hidden.has(point.method);
  return {
    x: visible ? [point.size] : [],
    y: visible ? [point.score] : [],
    mode: "markers",
    hoverinfo: "skip",
    marker: { symbol: "circle-open", size: 20, color: "#1b1b1b", line: { width: 2 } },
  };
};

// ---- drawing --------------------------------------------------------------------------------------------------------

function drawFront() {
  state.point = null;
  Plotly.newPlot(
    "front",
    [...problem().methods.flatMap(({ name }) => methodTraces(name)), ring()],
    layout(),
    CONFIG,
  );
  $("front").on("plotly_click", ({ points: [hit] }) => known(hit.customdata) && selectPoint(hit.customdata));
  $("front").on("plotly_relayout", (change) => {
    if (!Object.keys(change).some((key) => key.startsWith("xaxis.range"))) return;
    const ticks = sizeTicks($("front").layout.xaxis.range);
    Plotly.relayout("front", { "xaxis.tickvals": ticks, "xaxis.ticktext": ticks.map(String) });
  });
  drawLegend();
  drawRangeButton();
  const { label } = problem().headline;
  $("front-title").textContent = `${capital(label)} against size`;
  $("front").setAttribute("aria-label", `Chart of ${label} against size; the table of points holds the same`);
  $("front-caption").textContent = caption();
}

function drawLegend() {
  $("legend").replaceChildren(
    ...problem().methods.map(({ name }) =>
      h(
        "button",
        {
          type: "button",
          "aria-pressed": String(!state.hidden.has(name)),
          "data-method": name,
          click: (event) => toggleMethod(name, event.currentTarget),
        },
        glyph(name),
        h("span", {}, DATA.styles[name].label),
      ),
    ),
  );
}

function toggleMethod(name, button) {
  if (!state.hidden.delete(name)) state.hidden.add(name);
  const visible = !state.hidden.has(name);
  button.setAttribute("aria-pressed", String(visible));
  const traces = $("front")
    .data.map((trace, index) => (trace.name === name ? index : -1))
    .filter((index) => index >= 0);
  Plotly.restyle("front", { visible }, traces);
  Plotly.relayout("front", { annotations: notes() });
  markPoint();
}

function drawRangeButton() {
  const { points, headline } = problem();
  const outside = points.filter(isOutside).length;
  $("range").hidden = outside === 0;
  $("range").textContent = `All points (${outside} ${headline.worse})`;
  $("range").setAttribute("aria-pressed", String(state.allPoints));
}

function toggleRange() {
  state.allPoints = !state.allPoints;
  drawRangeButton();
  Plotly.relayout("front", { "yaxis.range": scoreRange(state.allPoints), annotations: notes() });
}

function markPoint() {
  const { x, y } = ring();
  Plotly.restyle("front", { x: [x], y: [y] }, [$("front").data.length - 1]);
}

function caption() {
  const { float32, headline, points } = problem();
  const { chance, label } = headline;
  return [
    `A line joins the points of a method that no other point of it beats in both ${label} and size; the others are pale.`,
    points.some((point) => point.std) ? "Bars: one standard deviation." : "",
    float32
      ? `Dashed: float32, ${float32.text} at ${float32.mb} MB.`
      : "No float32 run to compare with.",
    known(chance) ? `Chance is ${headline.chance_text}.` : "",
    TOUCH
      ? "Tap a point to see its runs."
      : "Click a point to see its runs; drag to zoom, double-click to go back.",
  ]
    .filter(Boolean)
    .join(" ");
}
