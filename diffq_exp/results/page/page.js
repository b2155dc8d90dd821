// Shared by the parts of the page. Strings of a run reach the page as text nodes only, so that none of them can act.
"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const state = { problem: 0, point: null, run: null, hidden: new Set(), allPoints: false };
const $ = (id) => document.getElementById(id);
const problem = () => DATA.problems[state.problem];
const FONT = { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: "#1b1b1b" };
const QUIET = "#575757";
const AXIS = {
  showline: true,
  linecolor: "#1b1b1b",
  ticks: "outside",
  ticklen: 4,
  gridcolor: "#ececec",
  zeroline: false,
  automargin: true,
};
const CONFIG = { displayModeBar: false, responsive: true, doubleClick: "reset" };

/** A new element: attributes (a function listens to the event of its name), children (nodes or text). */
function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

// ---- numbers as text ------------------------------------------------------------------------------------------------

const known = (value) => value !== null && value !== undefined;
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

/** Three significant digits, never as a power of ten. Scores and sizes come as text: the tables round them. */
function significant(value) {
  const digits = value === 0 ? 2 : Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(digits, 9));
}

/** How plotly writes a score on an axis. */
const scoreFormat = () => (problem().headline.percent ? ".2~%" : ".4~r");

function duration(seconds) {
  if (!known(seconds)) return "–";
  if (seconds < 60) return `${significant(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// ---- the marker of a method, as in the chart ------------------------------------------------------------------------

const POLYGONS = {
  square: [4, 45],
  diamond: [4, 0],
  "triangle-up": [3, 0],
  "triangle-down": [3, 180],
  "triangle-left": [3, 270],
  "triangle-right": [3, 90],
  pentagon: [5, 0],
  hexagon: [6, 30],
  star: [10, 0],
  cross: [12, 15],
  x: [12, 60],
};

function glyph(method) {
  const { colour, symbol } = DATA.styles[method];
  const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const shape = document.createElementNS("http://www.w3.org/2000/svg", POLYGONS[symbol] ? "polygon" : "circle");
  const set = (node, values) => Object.entries(values).forEach(([name, value]) => node.setAttribute(name, value));
  set(picture, { class: "glyph", viewBox: "-7 -7 14 14", "aria-hidden": "true" });
  set(shape, { fill: colour });
  if (POLYGONS[symbol]) set(shape, { points: corners(...POLYGONS[symbol]) });
  else set(shape, { r: 5.2 });
  picture.append(shape);
  return picture;
}

/** The corners of a polygon; stars draw in every second one, crosses two of three. */
function corners(count, turn) {
  const inner = (index) => (count === 10 && index % 2 ? 2.8 : count === 12 && index % 3 === 1 ? 2.6 : 6.4);
  return Array.from({ length: count }, (_, index) => {
    const angle = ((index * 360) / count + turn - 90) * (Math.PI / 180);
    return [inner(index) * Math.cos(angle), inner(index) * Math.sin(angle)]
      .map((value) => value.toFixed(2))
      .join(",");
  }).join(" ");
}

// ---- a command line to copy -----------------------------------------------------------------------------------------

function command(text) {
  const button = h("button", { type: "button", click: () => copy(text, button) }, "Copy");
  return h("div", { class: "command" }, h("code", {}, text), button);
}

async function copy(text, button) {
  const done = await navigator.clipboard?.writeText(text).then(
    () => true,
    () => false,
  );
  const said = done || copyBySelection(text) ? "Copied" : "Not copied";
  button.textContent = $("live").textContent = said;
  setTimeout(() => {
    button.textContent = "Copy";
    $("live").textContent = "";
  }, 2500);
}

/** Where a page has no clipboard, as some browsers hold of files. */
function copyBySelection(text) {
  const field = h("textarea", { class: "unseen", readonly: "" });
  field.value = text;
  document.body.append(field);
  const focused = document.activeElement;
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  focused?.focus();
  return done;
}

// ---- the selection --------------------------------------------------------------------------------------------------

function selectProblem(index) {
  state.problem = index;
  state.hidden.clear();
  state.allPoints = false;
  $("problem-name").textContent = problem().title;
  drawTables();
  drawFront();
  selectPoint(problem().first);
}

/** Show a point: its ring in the chart, its row in the table, its first run in the panel. */
function selectPoint(index) {
  state.point = index;
  state.run = problem().points[index].runs[0];
  markPoint();
  markRow();
  drawRun();
}

/** From a table below, go up to the point that was chosen in it. */
function goToPoint(index) {
  selectPoint(index);
  $("run-title").focus({ preventScroll: true });
  const box = getComputedStyle($("overview")).gridTemplateColumns.includes(" ") ? "overview" : "run-box";
  $(box).scrollIntoView();
}
