// The panel of the selected point and run: numbers, curves by epoch, bits per layer, the command line.

function drawRun() {
  const point = problem().points[state.point];
  const run = DATA.runs[state.run];
  const { label } = problem().headline;
  $("run-title").replaceChildren(glyph(point.method), h("span", {}, DATA.styles[point.method].label));
  $("run-facts").replaceChildren(
    h(
      "div",
      {},
      h("p", { class: "settings" }, point.settings || "no other setting varies"),
      h(
        "div",
        { class: "numbers" },
        bigNumber(
          point.text,
          point.runs.length > 1 ? `test ${label}, ${point.runs.length} runs` : `test ${label}`,
        ),
        bigNumber(`${point.mb} MB`, DATA.size === "file" ? "file" : "by the method's formula"),
        known(point.bits) ? bigNumber(point.bits.toFixed(2), "bits on average") : null,
      ),
      point.runs.length > 1 ? runButtons(point) : null,
      facts(run),
      command(run.command),
    ),
  );
  drawCurves(point, run);
}

const bigNumber = (value, name) => h("div", {}, h("b", {}, value), h("span", {}, name));

function runButtons(point) {
  const choose = (index) => {
    state.run = index;
    drawRun();
    document.querySelector(`[data-run="${index}"]`).focus();
  };
  return h(
    "div",
    { class: "seeds", role: "group", "aria-label": "Runs of this point" },
    point.runs.map((index) =>
      h(
        "button",
        {
          type: "button",
          "data-run": index,
          "aria-pressed": String(index === state.run),
          click: () => choose(index),
        },
        DATA.runs[index].label,
      ),
    ),
  );
}

function facts(run) {
  const { label } = problem().headline;
  const rows = [
    [`Test ${label}`, run.test],
    ["with float32 weights", run.float32],
    [`Validation ${label}`, run.val],
    ["Size of the file", `${run.mb.file} MB`],
    ["Target for it", run.target],
    ["by the method's formula", `${run.mb.true} MB`],
    ["as float32", `${run.mb.float32} MB`],
    ["Time", [duration(run.seconds), run.device].filter(Boolean).join(" on ")],
    ["Machine", DATA.hardware[run.hardware]],
    ["Commit", run.commit],
    ["Folder", run.folder],
  ];
  return h(
    "dl",
    {},
    rows
      .filter(([, value]) => value && value !== "–" && value !== "- MB")
      .flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
  );
}

// ---- curves ---------------------------------------------------------------------------------------------------------

function drawCurves(point, run) {
  const { curves } = run;
  const { colour } = DATA.styles[point.method];
  const line = (name, values, color, dash) => ({ name, values, color, dash });
  const charts = [
    {
      title: "Loss",
      format: ".3~r",
      lines: [line("train", curves.train_loss, "#8a8a8a", "dot"), line("validation", curves.val_loss, colour)],
    },
    {
      title: capital(problem().headline.label),
      format: scoreFormat(),
      lines: [line("train", curves.train_score, "#8a8a8a", "dot"), line("validation", curves.val_score, colour)],
    },
    {
      title: "Size, MB",
      format: ".3~r",
      lines: [line("soft", softer(curves), "#8a8a8a", "dot"), line("rounded", curves.true, colour)],
    },
  ].map((chart) => ({ ...chart, lines: chart.lines.filter(({ values }) => values?.some(known)) }));
  const drawn = charts.filter(({ lines }) => lines.length);
  const boxes = drawn.map(({ title, lines }) =>
    h(
      "div",
      {},
      h("h4", {}, title, lines.length > 1 ? lines.map(legendKey) : null),
      h("div", { class: "curve", role: "img", "aria-label": `${title} by epoch` }),
    ),
  );
  document.querySelectorAll(".curve").forEach(Plotly.purge);
  $("curves").replaceChildren(...boxes, bitsBox(run, colour));
  if (!drawn.length) $("curves").prepend(h("p", { class: "quiet" }, "This run has no epochs of its own to draw."));
  drawn.forEach((chart, index) => drawCurve(boxes[index].lastChild, chart, curves.epoch));
}

/** The size that the penalty acts on, where it is another than that of rounded bits. */
const softer = ({ soft, true: rounded }) => (soft?.some((size, index) => size !== rounded?.[index]) ? soft : null);

function legendKey({ name, color, dash }) {
  const sample = h("i", { class: dash ? "dotted" : "" });
  sample.style.borderColor = color;
  return h("span", { class: "key" }, sample, name);
}

function drawCurve(box, { lines, format }, epochs) {
  const mode = epochs.length < 3 ? "lines+markers" : "lines";
  const axis = { ...AXIS, nticks: 6, fixedrange: true };
  const [first, ...rest] = lines.flatMap(({ values }) => values).filter(known);
  const range = rest.every((value) => value === first) ? [0, 2 * first] : undefined; // of a size that stays
  Plotly.newPlot(
    box,
    lines.map(({ name, values, color, dash }) => ({
      x: epochs,
      y: values,
      name,
      mode,
      line: { color, dash, width: 2 },
      hovertemplate: `%{y:${format}}`,
    })),
    {
      font: { ...FONT, size: 11.5 },
      margin: { l: 44, r: 8, t: 8, b: 34 },
      showlegend: false,
      hovermode: "x unified",
      dragmode: false,
      xaxis: {
        ...axis,
        title: { text: "epoch", standoff: 6, font: { ...FONT, size: 11.5 } },
        dtick: wholeStep(epochs),
        tickformat: "d",
      },
      yaxis: { ...axis, tickformat: format, range },
    },
    CONFIG,
  );
}

/** A round number of epochs between the labels of an axis: at most seven labels, no part of an epoch. */
function wholeStep(epochs) {
  const span = Math.max(...epochs) - Math.min(...epochs);
  const steps = [1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500];
  return steps.find((step) => span / step <= 6) || 10 ** Math.ceil(Math.log10(span / 6));
}

// ---- bits -----------------------------------------------------------------------------------------------------------

function bitsBox(run, colour) {
  const title = h("h4", {}, "Bits per layer");
  if (!run.bits)
    return h(
      "div",
      {},
      title,
      h("p", { class: "quiet" }, "32 in all of them: nothing is quantized, or no bits were recorded."),
    );
  const most = Math.max(...run.bits);
  const zeros = run.zero_rows.some((counts) => counts);
  const worth = run.sensitivity;
  const rows = run.bits.map((bits, index) => {
    const name = DATA.layers[run.layers][index];
    const bar = h("i", {});
    bar.style.cssText = `width: ${(100 * bits) / most}%; background: ${colour}`;
    return h(
      "div",
      { title: name },
      h("span", {}, h("bdi", {}, name)),
      h("span", {}, bar),
      zeros ? h("span", {}, zeroRows(run.zero_rows[index])) : null,
      worth ? h("span", {}, lossText(worth[index])) : null,
      h("span", {}, bits.toFixed(2)),
    );
  });
  const kind = "bars" + (zeros ? " with-zeros" : "") + (worth ? " with-worth" : "");
  const meaning = worth
    ? h("p", { class: "quiet" }, "Left of the bits: the loss that one kB less would cost.")
    : null;
  return h("div", {}, title, meaning, h("div", { class: kind, tabindex: rows.length > 9 ? "0" : null }, rows));
}

/** What a kB of a layer is worth, in loss. */
function lossText(loss) {
  return known(loss) ? `${loss < 0 ? "−" : "+"}${Math.abs(loss).toPrecision(2)}` : "–";
}

/** Of a layer with rows (output channels) that are all zero: how many. */
function zeroRows(counts) {
  return counts ? `${counts[0]}/${counts[1]} zero` : "";
}
