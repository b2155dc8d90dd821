// The axes of the front's chart: round sizes, the range of scores, the lines of float32 and chance.

/** Round sizes between two powers of ten, as many as stand beside each other legibly. */
function sizeTicks([low, high]) {
  const sets = [
    [1],
    [1, 3],
    [1, 2, 5],
    [1, 1.5, 2, 3, 5, 7],
    [1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9],
  ];
  const most = $("front").clientWidth < 480 ? 6 : 9;
  let ticks = [];
  for (const set of sets) {
    const finer = [];
    for (let power = Math.floor(low); power <= high; power += 1) {
      finer.push(...set.map((mantissa) => Number((mantissa * 10 ** power).toPrecision(3))));
    }
    const inside = finer.filter((tick) => Math.log10(tick) >= low && Math.log10(tick) <= high);
    if (inside.length > most && ticks.length > 1) break;
    ticks = inside;
  }
  return ticks;
}

function sizeRange() {
  const sizes = problem()
    .points.map((point) => point.size)
    .filter((size) => size > 0)
    .map(Math.log10);
  const [low, high] = [Math.min(...sizes), Math.max(...sizes)];
  const room = Math.max(0.05 * (high - low), 0.08);
  return [low - room, high + room];
}

/** Scores that fit all points, or those that are no worse than the worst shown: a broken run ruins no scale. */
function scoreRange(all) {
  const { points, float32, worst, headline } = problem();
  const spread = (point) => [point.score - (point.std || 0), point.score + (point.std || 0)];
  const line = float32 ? spread(float32) : [];
  const chosen = all ? points : points.filter((point) => headline.sign * (point.score - worst) >= 0);
  const values = [...chosen.flatMap(spread), ...line];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = Math.max(0.07 * (high - low), 0.05 * headline.least_span);
  return [low - room, high + room];
}

const scoreTitle = () => {
  const { label, sign } = problem().headline;
  return shown(`test ${label}${sign < 0 ? " (lower is better)" : ""}`);
};

const isOutside = ({ score }) => {
  const { sign } = problem().headline;
  return sign * (score - scoreRange(false)[sign > 0 ? 0 : 1]) < 0;
};

/** Arrows at the worse edge, with the scores of the points beyond it; many would hide each other. */
function outsideNotes() {
  const { points, headline } = problem();
  const beyond = points.filter((point) => !state.hidden.has(point.method) && isOutside(point));
  if (state.allPoints || beyond.length > 8) return [];
  return beyond.map(({ size, text, method }) => ({
    x: Math.log10(size),
    yref: "paper",
    y: headline.sign > 0 ? 0 : 1,
    yanchor: headline.sign > 0 ? "bottom" : "top",
    text: `${headline.sign > 0 ? "▼" : "▲"} ${shown(text)}`,
    showarrow: false,
    font: { ...FONT, size: 11, color: DATA.styles[method].colour },
    bgcolor: "rgba(255,255,255,.85)",
    borderpad: 1,
  }));
}

/** Where on a horizontal line, 0 to 1, a note hides the fewest points: as far as possible from those at its height. */
function freePlace(score) {
  const [low, high] = sizeRange();
  const [least, most] = scoreRange(state.allPoints);
  const near = problem()
    .points.filter((point) => Math.abs(point.score - score) < 0.12 * (most - least))
    .map((point) => (Math.log10(point.size) - low) / (high - low));
  const distance = (place) => Math.min(1, ...near.map((point) => Math.abs(point - place)));
  return [0.74, 0.6, 0.87, 0.45, 0.3, 0.15].reduce((best, place) =>
    distance(place) > distance(best) ? place : best,
  );
}

function notes() {
  const { float32, headline } = problem();
  const note = (y, text) => ({
    xref: "paper",
    x: freePlace(y),
    y,
    text: shown(text),
    showarrow: false,
    xanchor: "center",
    yanchor: "bottom",
    font: { ...FONT, size: 11.5, color: QUIET },
    bgcolor: "rgba(255,255,255,.8)",
    borderpad: 1,
  });
  return [
    ...(float32 ? [note(float32.score, `float32, ${float32.text}`)] : []),
    ...(known(headline.chance) ? [note(headline.chance, `chance, ${headline.chance_text}`)] : []),
    ...outsideNotes(),
  ];
}

function layout() {
  const sizes = sizeRange();
  const { float32, headline } = problem();
  const { chance } = headline;
  const across = (y, dash) => ({
    type: "line",
    xref: "paper",
    x0: 0,
    x1: 1,
    y0: y,
    y1: y,
    layer: "below",
    line: { color: QUIET, width: 1.2, dash },
  });
  const shapes = [];
  if (float32) shapes.push(across(float32.score, "dash"));
  if (known(chance)) shapes.push(across(chance, "dot"));
  return {
    font: FONT,
    margin: { l: 56, r: 12, t: 12, b: 46 },
    showlegend: false,
    hovermode: "closest",
    hoverdistance: 24,
    dragmode: TOUCH ? false : "zoom",
    shapes,
    annotations: notes(),
    paper_bgcolor: "#fff",
    plot_bgcolor: "#fff",
    xaxis: {
      ...AXIS,
      type: "log",
      range: sizes,
      tickvals: sizeTicks(sizes),
      ticktext: sizeTicks(sizes).map(String),
      title: { text: "size, MB", standoff: 10, font: FONT },
    },
    yaxis: {
      ...AXIS,
      range: scoreRange(state.allPoints),
      tickformat: scoreFormat(),
      title: { text: scoreTitle(), standoff: 8, font: FONT },
    },
  };
}
