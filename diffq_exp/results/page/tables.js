// The tables and the head of the page; last, the page's start.

/** A table whose columns have: name, cell(row), and, to sort by, value(row). */
function table(columns, rows, attributes = () => ({})) {
  let order = { column: null, down: false };
  const body = h("tbody");
  const heads = columns.map((column) =>
    h(
      "th",
      { scope: "col", class: column.number ? "number" : null },
      column.value && rows.length > 1
        ? h("button", { type: "button", class: "plain", click: () => sortBy(column) }, column.name)
        : column.name,
    ),
  );
  const fill = () =>
    body.replaceChildren(
      ...sorted(rows, order).map((row) =>
        h(
          "tr",
          attributes(row),
          columns.map((column) =>
            h("td", { class: ["number", "wide", "fixed"].find((kind) => column[kind]) }, column.cell(row)),
          ),
        ),
      ),
    );
  function sortBy(column) {
    order = { column, down: order.column === column && !order.down };
    heads.forEach((head, index) =>
      columns[index] === column
        ? head.setAttribute("aria-sort", order.down ? "descending" : "ascending")
        : head.removeAttribute("aria-sort"),
    );
    fill();
    markRow();
  }
  fill();
  return h("table", {}, h("thead", {}, h("tr", {}, heads)), body);
}

/** The rows in order; those without a value stand last either way. */
function sorted(rows, { column, down }) {
  if (!column) return rows;
  const compare = (a, b) => (typeof a === "number" ? a - b : compareTexts(a, b));
  const valued = rows.filter((row) => known(column.value(row)));
  valued.sort((a, b) => compare(column.value(a), column.value(b)) * (down ? -1 : 1));
  return [...valued, ...rows.filter((row) => !known(column.value(row)))];
}

const NUMBER = /(\d+(?:\.\d+)?(?:e[+-]?\d+)?)/;

/** Numbers in a text count as numbers: penalty=0.05 is before penalty=0.3. */
function compareTexts(a, b) {
  const [ours, theirs] = [a.split(NUMBER), b.split(NUMBER)];
  const at = ours.findIndex((part, index) => part !== theirs[index]);
  if (at < 0 || theirs[at] === undefined) return ours.length - theirs.length;
  return (at % 2 && ours[at] - theirs[at]) || ours[at].localeCompare(theirs[at], "en");
}

const methodCell = (name) => [glyph(name), h("span", {}, DATA.styles[name].label)];

// ---- methods --------------------------------------------------------------------------------------------------------

function drawMethods() {
  const { methods, points, hypervolume, within, sizes, headline } = problem();
  const { label, difference, amount, better, worse } = headline;
  const pick = (index, text) =>
    known(index)
      ? h("button", { type: "button", class: "plain", click: () => goToPoint(index) }, text(points[index]))
      : "–";
  const column = (group, at, name, text, value) => ({
    name,
    number: true,
    cell: (row) => pick(row[group][at], text),
    value: (row) => (known(row[group][at]) ? value(points[row[group][at]]) : null),
  });
  const columns = [
    { name: "Method", cell: ({ name }) => methodCell(name), value: ({ name }) => name },
    {
      name: "Points",
      number: true,
      cell: ({ points: count }) => String(count),
      value: ({ points: count }) => count,
    },
    {
      name: "Hypervolume",
      number: true,
      cell: ({ area }) => area,
      value: ({ hypervolume: area }) => area,
    },
    ...within.map((distance, at) =>
      column(
        "within",
        at,
        `Smallest within ${distance} ${difference}`,
        ({ mb }) => `${mb} MB`,
        ({ size }) => size,
      ),
    ),
    ...sizes.map((mb, at) =>
      column("at", at, `${capital(label)} at ${mb} MB`, ({ text }) => text, ({ score }) => score),
    ),
  ];
  $("methods").replaceChildren(table(columns, methods));
  const count = headline.percent ? 100 : 1;
  const area = known(hypervolume)
    ? `Hypervolume is the area between a front and the corner of chance ${label} and float32 size, ` +
      `in ${amount} × halvings of the size: ${count} ${amount} ${better} chance at half the float32 size are worth ${count}. ` +
      `All methods together: ${hypervolume}. `
    : "There is no hypervolume without a known chance level. ";
  $("methods-note").textContent =
    `${area}"Within" counts ${difference} ${worse} float32; "at" takes the best point of at most this size.`;
}

// ---- points ---------------------------------------------------------------------------------------------------------

function drawPoints() {
  const { points } = problem();
  const rows = points.map((point, index) => ({ ...point, index }));
  $("points-title").textContent = `All points (${points.length})`;
  const columns = [
    { name: "Method", cell: ({ method }) => methodCell(method), value: ({ method }) => method },
    {
      name: "Settings",
      value: ({ settings }) => settings,
      cell: ({ settings, index }) =>
        h(
          "button",
          { type: "button", class: "plain", "aria-label": `Select ${settings || `point ${index + 1}`}` },
          settings || "–",
        ),
    },
    { name: capital(problem().headline.label), number: true, cell: ({ text }) => text, value: ({ score }) => score },
    { name: "MB", number: true, cell: ({ mb }) => mb, value: ({ size }) => size },
    {
      name: "Bits",
      number: true,
      cell: ({ bits }) => (known(bits) ? bits.toFixed(2) : "–"),
      value: ({ bits }) => bits,
    },
    { name: "Runs", number: true, cell: ({ runs }) => String(runs.length), value: ({ runs }) => runs.length },
    { name: "On the front", fixed: true, cell: frontWords, value: (row) => frontWords(row) || null },
  ];
  $("points").replaceChildren(
    table(columns, rows, ({ index }) => ({ class: "pick", "data-point": index, click: () => goToPoint(index) })),
  );
}

const frontWords = ({ front, overall }) => (overall ? "of all" : front ? "of its method" : "");

function markRow() {
  for (const row of document.querySelectorAll("#points tbody tr")) {
    if (Number(row.dataset.point) === state.point) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
}

function drawTables() {
  drawMethods();
  drawPoints();
}

// ---- runs that did not finish, the head ------------------------------------------------------------------------------

function drawUnfinished() {
  const place = ({ epoch, step }) =>
    [known(epoch) ? `epoch ${epoch}` : "", known(step) ? `step ${step}` : ""].filter(Boolean).join(", ");
  const columns = [
    { name: "Status", cell: ({ status }) => status, value: ({ status }) => status },
    { name: "Reason", wide: true, cell: (row) => [row.reason, place(row)].filter(Boolean).join(" · ") || "–" },
    { name: "Command", wide: true, cell: (row) => command(row.command) },
    { name: "Run", fixed: true, cell: ({ folder }) => folder, value: ({ folder }) => folder },
  ];
  $("unfinished-box").hidden = !DATA.unfinished.length && !DATA.unread.length;
  $("unfinished").hidden = !DATA.unfinished.length;
  $("unfinished").replaceChildren(table(columns, DATA.unfinished));
  $("unread").replaceChildren(...DATA.unread.map((line) => h("li", {}, line)));
}

function drawHead() {
  $("title").textContent = DATA.title;
  const rest = DATA.counts.map(([status, count]) => `${count.toLocaleString("en")} ${status}`).join(", ");
  $("counts").textContent = `${plural(DATA.total, "run")}: ${rest || "none"}. ${DATA.date}.`;
  const size = DATA.size === "file" ? "Size is that of the stored file" : "Size is that of the paper's formula";
  const mean = DATA.averaged.length
    ? `; runs that differ in nothing but ${DATA.averaged.join(", ")} are one point`
    : "";
  const methods = DATA.by.join() === "quantizer" ? "" : `; methods differ in ${DATA.by.join(", ")}`;
  const thin =
    DATA.epochs_kept === null ? "" : ` So many runs that at most ${DATA.epochs_kept} epochs of each are kept here.`;
  $("reading").textContent = `${size}, 1 MB = 2²⁰ bytes${mean}${methods}.${thin}`;
  if (DATA.command) $("sweep-command").replaceChildren(command(DATA.command));
}

function start() {
  drawHead();
  drawUnfinished();
  $("empty").hidden = DATA.problems.length > 0;
  $("results").hidden = DATA.problems.length === 0;
  if (!DATA.problems.length) return;
  $("problem-choice").hidden = DATA.problems.length < 2;
  $("problem-select").replaceChildren(
    ...DATA.problems.map(({ title }, index) => h("option", { value: index }, title)),
  );
  $("problem-select").addEventListener("change", (event) => selectProblem(Number(event.target.value)));
  $("range").addEventListener("click", toggleRange);
  selectProblem(0);
}

/** On paper the charts take the sheet's width. */
const charts = () => document.querySelectorAll("#front, .curve");
addEventListener("beforeprint", () =>
  charts().forEach((chart) => Plotly.relayout(chart, { width: chart.id ? 680 : 320 })),
);
addEventListener("afterprint", () =>
  charts().forEach((chart) => Plotly.relayout(chart, { width: null, autosize: true })),
);
start();
