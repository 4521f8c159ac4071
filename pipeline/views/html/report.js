"use strict";
const rows = JSON.parse(document.getElementById("rows").textContent);
const PAGE = 60;
let shown = PAGE;
const chosen = { turn: "", task: "", status: "", reason: "", near: false, score: "", above: "", text: "" };
// "#task=color&status=kept" opens the page filtered: a view can be passed on as a link.
for (const [key, value] of new URLSearchParams(location.hash.slice(1))) {
  if (key in chosen) chosen[key] = key === "near" ? value === "true" : value;
}

function element(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
}

function select(key, values) {
  const label = element("label", key + " ");
  const list = element("select");
  list.id = "filter-" + key;
  list.append(new Option("all", ""));
  for (const value of values) list.append(new Option(value, value));
  list.value = chosen[key];
  list.addEventListener("change", () => change(key, list.value));
  label.append(list);
  return label;
}

function input(key, type, hint) {
  const label = element("label", key + " ");
  const box = element("input");
  box.type = type;
  box.id = "filter-" + key;
  box.placeholder = hint;
  if (type === "checkbox") box.checked = chosen[key];
  else box.value = chosen[key];
  box.addEventListener("input", () => change(key, type === "checkbox" ? box.checked : box.value));
  label.append(box);
  return label;
}

function change(key, value) {
  chosen[key] = value;
  shown = PAGE;
  const set = Object.entries(chosen).filter(([, kept]) => kept);
  history.replaceState(null, "", "#" + new URLSearchParams(set));
  draw();
}

function fits(row) {
  if (chosen.turn && row.turn !== Number(chosen.turn)) return false;
  if (chosen.task && row.task !== chosen.task) return false;
  if (chosen.status && row.status !== chosen.status) return false;
  if (chosen.reason && row.stage + ": " + row.reason !== chosen.reason) return false;
  if (chosen.near && !row.near) return false;
  if (chosen.score && chosen.above !== "" && !(row.scores[chosen.score] >= Number(chosen.above))) return false;
  const words = (row.instruction + " " + row.caption + " " + row.id).toLowerCase();
  return words.includes(chosen.text.toLowerCase());
}

function card(row) {
  const made = element("div", undefined, "row" + (row.near ? " near" : ""));
  const pictures = element("div", undefined, "pictures");
  for (const [name, source] of [["input", row.input], ["mask", row.overlay], ["target", row.target],
                                ["difference", row.difference]]) {
    const cell = element("div");
    if (source) {
      const picture = element("img");
      picture.loading = "lazy";
      picture.alt = name;
      picture.src = source;
      cell.append(picture);
    }
    cell.append(element("small", source ? name : "no " + name));
    pictures.append(cell);
  }
  made.append(pictures, element("p", row.instruction || "(no instruction)", "instruction"));
  made.append(element("p", row.caption, "captions"));
  if (row.output_caption) made.append(element("p", "→ " + row.output_caption, "captions"));
  const decision = element("p", undefined, "captions");
  decision.append(element("span", row.status, "tag " + row.status));
  const turn = turns.length > 1 ? "turn " + row.turn + " · " : "";
  // Each in a <bdi>: letters that run from right to left, or say so, turn nothing round beside them.
  const told = [row.task, row.stage + (row.reason ? ": " + row.reason : ""), row.id].map((text) => element("bdi", text));
  decision.append(" " + turn, told[0], " · ", told[1], " · ", told[2]);
  const scores = Object.entries(row.scores).map(([name, value]) => name + " " + value.toFixed(3));
  made.append(decision, element("p", scores.join("  "), "scores"));
  if (row.damage) made.append(element("p", row.damage, "captions damage"));
  return made;
}

function draw() {
  const fitting = rows.filter(fits);
  const gallery = document.getElementById("gallery");
  gallery.replaceChildren(...fitting.slice(0, shown).map(card));
  document.getElementById("count").textContent =
    fitting.length + " of " + rows.length + " rows" + (fitting.length > shown ? ", " + shown + " shown" : "");
  document.getElementById("more").hidden = fitting.length <= shown;
}

const all = (key) => [...new Set(rows.map(key))].sort();
const turns = all((row) => row.turn);
document.getElementById("filters").append(
  ...(turns.length > 1 ? [select("turn", turns)] : []),
  select("task", all((row) => row.task)),
  select("status", all((row) => row.status)),
  select("reason", all((row) => row.stage + ": " + row.reason).filter((text) => !text.endsWith(": "))),
  select("score", [...new Set(rows.flatMap((row) => Object.keys(row.scores)))].sort()),
  input("above", "number", "0.5"),
  input("near", "checkbox", ""),
  input("text", "search", "words or an id"),
);
document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
document.getElementById("more").addEventListener("click", () => { shown += PAGE; draw(); });
draw();
