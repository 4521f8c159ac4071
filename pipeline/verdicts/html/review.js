"use strict";
const ZOOMS = [0, 1, 2, 4, 8]; // 0: as large as fits; otherwise screen pixels a picture pixel
const FLICKER_MS = 700;
const STEP = 80; // pixels that an arrow key moves an enlarged picture
const REASON_KEYS = "123456789";
const at = (id) => document.getElementById(id);
const show = { view: "side", mask: false, target: false, zoom: 0 };
let item = null;
let busy = true;
let reasons = [];

async function ask(path, body) {
  busy = true;
  mark();
  at("problem").textContent = "";
  try {
    const options = body === undefined ? {} :
      { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
    const reply = await fetch(path, options);
    const told = await reply.json();
    if (!reply.ok) throw new Error(told.error);
    receive(told);
  } catch (error) {
    at("problem").textContent = error instanceof TypeError ? "editpairs does not answer: is it still running?" : error.message;
  } finally {
    busy = false;
    mark();
  }
}

function receive(told) {
  item = told.item;
  document.title = "review: " + told.who;
  at("pair").dataset.row = item ? item.id + "/" + item.turn + "/" + item.candidate : "";
  at("task").textContent = !item ? "" : item.task +
    (item.candidates > 1 ? ", candidate " + (item.candidate + 1) + " of " + item.candidates : "");
  at("instruction").textContent = !item ? "Every row is judged." : item.instruction || "(no instruction)";
  at("captions").hidden = at("panes").hidden = !item || Boolean(item.damage);
  if (item && item.damage) at("problem").textContent = item.damage;
  at("before").textContent = item ? item.input_caption : "";
  at("after").textContent = item ? item.output_caption : "";
  show.target = false;
  if (!reasons.length) offer(told.reasons);
  load();
  draw();
  tell(told.progress);
}

function offer(meanings) {
  reasons = Object.keys(meanings);
  at("reasons").replaceChildren(...reasons.map((reason, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.key = REASON_KEYS[place];
    button.append(meanings[reason] + " ");
    const key = document.createElement("kbd");
    key.textContent = REASON_KEYS[place];
    button.append(key);
    return button;
  }));
}

function load() {
  if (!item || item.damage) return;
  const folder = ["picture", item.id, item.turn, item.candidate].join("/") + "/";
  const mask = show.mask ? "-mask" : "";
  for (const [id, name] of [["input", "input" + mask], ["target", "target" + mask], ["difference", "difference"]]) {
    const source = folder + name + ".png";
    if (at(id).getAttribute("src") !== source) at(id).src = source;
  }
}

function draw() {
  const one = show.view === "toggle" || show.view === "flicker";
  at("panes").className = show.view === "side" ? "" : "one";
  at("pane-input").hidden = show.view === "difference" || (one && show.target);
  at("pane-target").hidden = show.view === "difference" || (one && !show.target);
  at("pane-difference").hidden = show.view !== "difference";
  for (const pane of document.querySelectorAll(".pane")) {
    pane.classList.toggle("fit", !show.zoom);
    const picture = pane.firstElementChild;
    picture.style.setProperty("--aspect", picture.naturalWidth / picture.naturalHeight || 1);
    picture.style.width = show.zoom && picture.naturalWidth ? picture.naturalWidth * show.zoom + "px" : "";
    picture.classList.toggle("enlarged", picture.clientWidth > picture.naturalWidth);
  }
  at("zoom").textContent = show.zoom ? show.zoom + " : 1" : "fit";
  const pressed = { s: show.view === "side", t: show.view === "toggle", f: show.view === "flicker",
                    d: show.view === "difference", m: show.mask };
  for (const [key, on] of Object.entries(pressed)) {
    document.querySelector("#views [data-key='" + key + "']").setAttribute("aria-pressed", on);
  }
}

function tell(progress) {
  at("told").textContent = progress.judged + " of " + progress.rows + " rows judged, " + progress.mine +
    " verdicts by you. Precision of kept: " + progress.precision + ". Recall: " + progress.recall + ".";
  at("agreement").replaceChildren(...progress.agreement.map((text) => {
    const line = document.createElement("li");
    line.textContent = text;
    return line;
  }));
  at("tasks").replaceChildren(...progress.tasks.map((task) => {
    const line = document.createElement("tr");
    for (const value of [task.task, task.judged, task.precision, task.recall, task.left || "enough"]) {
      line.append(Object.assign(document.createElement("td"), { textContent: value }));
    }
    return line;
  }));
}

function mark() {
  for (const button of document.querySelectorAll("#answers button, #reasons button")) {
    // Not "disabled": the button would lose the focus of somebody who tabs.
    button.setAttribute("aria-disabled", busy || (!item && button.dataset.key !== "Backspace"));
  }
}

function judge(verdict, reason) {
  if (!item) return;
  ask("verdict", { id: item.id, turn: item.turn, candidate: item.candidate, verdict: verdict, reason: reason });
}

function zoom(step) {
  const place = ZOOMS.indexOf(show.zoom) + step;
  show.zoom = ZOOMS[Math.min(Math.max(place, 0), ZOOMS.length - 1)];
}

function look(key) {
  const views = { s: "side", d: "difference", f: "flicker" };
  if (key in views) show.view = views[key];
  else if (key === "t") { show.target = show.view === "toggle" ? !show.target : true; show.view = "toggle"; }
  else if (key === "m") { show.mask = !show.mask; load(); }
  else if (key === "+" || key === "=") zoom(1);
  else if (key === "-") zoom(-1);
  else return false;
  draw();
  return true;
}

function press(key) {
  if (look(key)) return true;
  if (busy) return false;
  const answers = { r: "right", w: "wrong", u: "unsure" };
  const place = REASON_KEYS.indexOf(key);
  if (key in answers) judge(answers[key], "");
  else if (place >= 0 && place < reasons.length) judge("wrong", reasons[place]);
  else if (key === "Backspace") ask("undo", {});
  else return false;
  return true;
}

function move(key) {
  const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key] || [0, 0];
  if (!show.zoom || !(x || y)) return false;
  for (const pane of document.querySelectorAll(".pane")) pane.scrollBy(x * STEP, y * STEP);
  return true;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  // A held key gives one verdict, not one for every pair that comes up meanwhile.
  if (move(key) || (!event.repeat && press(key))) event.preventDefault();
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-key]");
  if (button) press(button.dataset.key);
});
for (const pane of document.querySelectorAll(".pane")) {
  pane.firstElementChild.addEventListener("load", draw);
  pane.addEventListener("scroll", () => {
    for (const other of document.querySelectorAll(".pane")) {
      if (other.scrollLeft !== pane.scrollLeft) other.scrollLeft = pane.scrollLeft;
      if (other.scrollTop !== pane.scrollTop) other.scrollTop = pane.scrollTop;
    }
  });
}
setInterval(() => {
  if (show.view === "flicker") { show.target = !show.target; draw(); }
}, FLICKER_MS);
ask("state");
